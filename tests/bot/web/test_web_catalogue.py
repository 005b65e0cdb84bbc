"""The catalogue over the web: moderators are let use a data set, and published ones are fetched
from a hub.
"""

from __future__ import annotations

import html
import json
import sys
import tomllib

import pytest

from bot.training.request_materials import gather_materials
from personas.home.data_subjects import Consent, write_consent
from personas.schemas.training import TrainingRequest
from tests.bot.web.conftest import put_talk
from tests.bot.web.dataset_folders import put_set
from tests.fakes import until
from tests.hub_server import COMMIT, FETCHER, Hub, Repository, reach

STATED = {"stated_by": "Mina Vale", "stated_on": "2026-11-20", "why": "Written here."}
TALK = "".join(
    json.dumps(
        {"kind": "NLI", "input": f"What of gate {n}?", "target": f"Gate {n} is shut at night."}
    )
    + "\n"
    for n in range(4000)
).encode()
FETCH = "/dashboard/data/published/firefly/fetch"
FIREFLY = {"firefly-train-1.1M.jsonl": TALK, "task_distribution.png": b"no"}


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def fetcher(tmp_path, monkeypatch):
    (tmp_path / "fetcher.py").write_text(FETCHER)
    monkeypatch.setattr(
        "bot.data.jobs.TRAINER_COMMAND", (sys.executable, str(tmp_path / "fetcher.py"))
    )


@pytest.fixture
async def hub(monkeypatch, tmp_path):
    served = Hub(datasets={"YeungNLP/firefly-train-1.1M": Repository({COMMIT: FIREFLY})})
    with served.serve() as address:
        reach(monkeypatch, address, str(tmp_path / "cache"))
        yield served


def entries(home):
    return tomllib.loads((home / "catalogue.toml").read_text())


def materials(dashboard, name, persona=None):
    request = TrainingRequest(
        job_name="a", task_type="persona" if persona else "dialogue", persona=persona, dataset=name
    )
    return gather_materials(dashboard.backend.catalogue, request, guild_id=7)


async def fetch_ended(dashboard, name):
    """The job of a fetch once it has ended."""
    job = dashboard.services.data_jobs.latest("fetch", name)
    await until(lambda: not job.is_open, 120)
    return job


async def offer(dashboard, **fields):
    """Let moderators use the data set harbour, by its form; gives the status and the page."""
    return (await dashboard.submit("/dashboard/data/sets/harbour/catalogue", **fields))[:2]


async def source(dashboard, name):
    sources = {each.name: each for each in await dashboard.services.data.sources()}
    return sources[name]


async def test_a_built_data_set_is_offered_renamed_and_withdrawn(dashboard, home):
    put_set(home / "datasets" / "harbour")
    (home / "catalogue.toml").write_text("# Mine.\n")
    assert (await offer(dashboard, name="quay", language="English", **STATED))[0] == 303
    built = await dashboard.services.data.dataset("harbour")
    assert built.catalogue_name == "quay"
    assert "# Mine." in (home / "catalogue.toml").read_text()
    assert entries(home)["quay"]["right"] == "own-writing", "the one of its samples"
    assert "quay" in dashboard.services.catalogue.datasets() and materials(
        dashboard, "quay", "ballast"
    )
    assert (await offer(dashboard, name="pier", **STATED))[0] == 303
    assert entries(home).keys() == {"pier"}
    _, page, _ = await dashboard.page("/dashboard/data")
    assert "for moderators: pier" in page and page.count("/dashboard/data/sets/") == 1
    await offer(dashboard, take_back="yes")
    assert entries(home) == {}
    assert "pier" not in dashboard.services.catalogue.datasets()


async def test_an_upload_is_offered_under_its_right_and_goes_with_it(dashboard, home):
    put_talk(home / "uploads", "talk.jsonl", signed=False)
    path = "/dashboard/data/uploads/talk.jsonl"
    body = {"name": "talk of the quay", "persona_names": "Wick, 42"}
    status, page, _ = await dashboard.submit(f"{path}/catalogue", **body)
    assert status == 422 and "nobody has stated a right to it" in page
    right = {"right": "licensed", "licence": "CC-BY-4.0", **STATED}
    await dashboard.submit(f"{path}/right", **right)
    assert (await dashboard.submit(f"{path}/catalogue", **body))[0] == 303
    log = next(
        one for one in materials(dashboard, "talk of the quay", "ballast") if one.kind == "log"
    )
    assert (log.right, log.statement.stated_by, log.persona_names) == (
        "licensed:CC-BY-4.0",
        "Mina Vale",
        ("Wick", "42"),
    )
    await dashboard.submit(f"{path}/right", **right | {"right": "own-writing"})
    assert entries(home)["talk of the quay"]["right"] == "own-writing"
    assert entries(home)["talk of the quay"]["persona_names"] == ["Wick", "42"]
    await dashboard.submit(f"{path}/right", take_back="yes")
    assert entries(home) == {}, "without a right it is withdrawn"
    for gone in ("replaced", "deleted"):
        await dashboard.submit(f"{path}/right", **right)
        await dashboard.submit(f"{path}/catalogue", **body)
        assert entries(home)
        if gone == "replaced":
            await dashboard.ask("PUT", f"{path}?replace=true", data=TALK)
        else:
            await dashboard.submit(f"{path}/delete")
        assert entries(home) == {}, "another file of that name is not what was offered"


async def test_what_is_wrong_with_an_offer_is_named_and_nothing_is_written(dashboard, home):
    put_set(home / "datasets" / "harbour")
    for changes, words in [
        ({"name": "ballast"}, "'ballast' is the name of another"),
        ({"name": "general-dialogue"}, "another data set"),
        ({"name": "oasst2"}, "another data set"),
        ({"name": "../quay"}, "name-error"),
        ({"name": ""}, "name-error"),
        ({"why": ""}, "why-error"),
        ({"stated_on": "2999-01-01"}, "has not come yet"),
        ({"stated_on": "soon"}, "no date"),
        ({"format": "Share GPT"}, "a format's name"),
    ]:
        status, page = await offer(dashboard, **{"name": "quay", **STATED} | changes)
        assert status == 422 and words in html.unescape(page), changes
        assert not (home / "catalogue.toml").exists(), changes


async def test_a_broken_catalogue_is_refused_with_its_line(dashboard, home):
    put_set(home / "datasets" / "harbour")
    (home / "catalogue.toml").write_text('[a]\npath = "b\n')
    status, page = await offer(dashboard, name="quay", **STATED)
    assert status == 422 and "at line 2" in page and 'value="quay"' in page
    assert "it was not changed" in page
    assert (home / "catalogue.toml").read_text() == '[a]\npath = "b\n'


async def test_what_came_through_discord_is_not_offered_without_permission(dashboard, home):
    folder = put_set(home / "datasets" / "harbour")
    stats = json.loads((folder / "stats.json").read_text())
    (folder / "stats.json").write_text(json.dumps(stats | {"by_right": {"discord-api": 46}}))
    status, page = await offer(dashboard, name="quay", **STATED)
    assert status == 422 and "DISCORD_PERMISSION" in page
    assert not (home / "catalogue.toml").exists()
    write_consent(
        home,
        Consent(permission="Discord wrote so in 2026, see the letter.", opted_in=frozenset({"1"})),
    )
    status, _ = await offer(dashboard, name="quay", **STATED)
    assert status == 303 and entries(home)["quay"]["right"] == "discord-api"


async def test_the_forms_offer_and_withdraw_without_scripts(dashboard, home):
    put_set(home / "datasets" / "harbour")
    put_talk(home / "uploads", "talk.jsonl")
    _, page, _ = await dashboard.page("/dashboard/data/sets/harbour")
    assert "Let moderators use it" in page and "Moderators cannot name it yet" in page
    status, _, headers = await dashboard.submit(
        "/dashboard/data/sets/harbour/catalogue", name="quay", **STATED
    )
    assert status == 303 and headers["Location"].endswith("/dashboard/data/sets/harbour")
    _, page, _ = await dashboard.page("/dashboard/data/sets/harbour")
    assert "/finetune start dataset:quay" in page and "Withdraw" in page
    _, page, _ = await dashboard.submit(
        "/dashboard/data/sets/harbour/catalogue", name="oda", **STATED
    )
    assert "another data set" in page and 'id="name-error"' in page
    fields = {"name": "talk", "persona_names": "Wick, 42", "language": "en", "format": ""}
    status, _, _ = await dashboard.submit("/dashboard/data/uploads/talk.jsonl/catalogue", **fields)
    assert status == 303 and entries(home)["talk"]["persona_names"] == ["Wick", "42"]
    for path in ("sets/harbour", "uploads/talk.jsonl"):
        await dashboard.submit(f"/dashboard/data/{path}/catalogue", take_back="yes")
    assert entries(home) == {}


async def test_a_deleted_data_set_is_withdrawn_too(dashboard, home):
    put_set(home / "datasets" / "harbour")
    await offer(dashboard, name="quay", **STATED)
    await dashboard.submit("/dashboard/data/sets/harbour/delete")
    assert entries(home) == {}


async def test_published_data_sets_are_listed_with_their_facts(dashboard):
    oasst2 = await source(dashboard, "oasst2")
    assert oasst2.entry.about.licence == "Apache-2.0"
    assert "has not been fetched" in oasst2.refused
    _, page, _ = await dashboard.page("/dashboard/data")
    assert "not fetched" in page and "54.4 MB" in page and "CC-BY-NC-4.0" in page
    status, result, _ = await dashboard.start(dataset="oasst2")
    assert status == 422 and "catalogue fetch oasst2" in result["advice"]
    _, page, _ = await dashboard.page("/dashboard/data/published/alpaca")
    assert "Commercial use, which the licence excludes" in page and "Fetch 24.2 MB" in page
    assert (await dashboard.page("/dashboard/data/published/nothing"))[0] == 404
    _, page, _ = await dashboard.page("/dashboard/data/build")
    assert "oasst2" not in page, "it cannot be built from yet"


async def test_a_data_set_is_fetched_and_trained_on_once_a_right_is_stated(dashboard, home, hub):
    assert (await dashboard.submit(FETCH))[0] == 303
    assert "running already" in (await dashboard.submit(FETCH))[1], "it is being fetched"
    job = await fetch_ended(dashboard, "firefly")
    assert (job.state, job.error) == ("done", "")
    assert (home / "fetched" / "firefly" / "firefly-train-1.1M.jsonl").read_bytes() == TALK
    assert "on this machine already" in (await dashboard.submit(FETCH))[1]
    assert "states no licence" in (await source(dashboard, "firefly")).refused
    status, page, _ = await dashboard.submit(
        "/dashboard/data/published/firefly/catalogue", **STATED
    )
    assert status == 422 and 'id="right-error"' in page
    form = {"right": "licensed", "licence": "by letter of 2026-11-20", **STATED}
    status, _, _ = await dashboard.submit("/dashboard/data/published/firefly/catalogue", **form)
    assert status == 303
    (messages,) = [one for one in materials(dashboard, "firefly") if one.kind == "messages"]
    assert (messages.right, messages.statement.stated_by) == (
        "licensed:by letter of 2026-11-20",
        "Mina Vale",
    )
    assert messages.origin == f"YeungNLP/firefly-train-1.1M@{COMMIT[:12]}"
    await dashboard.submit("/dashboard/data/published/firefly/catalogue", take_back="yes")
    assert (await source(dashboard, "firefly")).refused


@pytest.mark.slow
async def test_a_fetch_is_cancelled_and_keeps_what_is_there(dashboard, home, hub):
    hub.pause_s = 0.5
    await dashboard.submit(FETCH)
    job = dashboard.services.data_jobs.latest("fetch", "firefly")
    await until(lambda: " of " in job.said and not job.said.startswith("0 B"), 120)
    _, page, _ = await dashboard.page("/dashboard/data/published/firefly")
    assert "Cancel" in page and "fetched" in page and "<noscript>" in page
    await dashboard.submit(f"/dashboard/data/works/{job.id}/cancel")
    assert job.state == "cancelled"
    assert list((home / "fetched").glob(".firefly.partial/*/*.jsonl"))


async def test_the_operator_can_keep_the_bot_from_fetching(dashboard, monkeypatch):
    object.__setattr__(dashboard.services, "fetch_datasets", "off")
    assert "FETCH_DATASETS" in (await dashboard.submit(FETCH))[1]
    _, page, _ = await dashboard.page("/dashboard/data/published/firefly")
    assert "FETCH_DATASETS" in page and ">Fetch " not in page


@pytest.mark.slow
async def test_where_no_hub_can_be_reached_the_page_says_so(dashboard, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    await dashboard.submit(FETCH)
    job = await fetch_ended(dashboard, "firefly")
    assert job.state == "failed" and "HF_HUB_OFFLINE is set" in job.error
    _, page, _ = await dashboard.page("/dashboard/data/published/firefly")
    assert "HF_HUB_OFFLINE is set" in page and "Fetch 1.17 GB" in page
