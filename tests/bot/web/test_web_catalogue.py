"""The catalogue over the web: moderators are let use a data set, and published ones are fetched
from a hub.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tomllib

import pytest

from bot.training.request_materials import gather_materials
from personas.home.data_subjects import Consent, write_consent
from personas.schemas.training import TrainingRequest
from tests.bot.web.conftest import put_talk
from tests.bot.web.dataset_folders import put_set
from tests.hub_server import COMMIT, FETCHER, Hub, Repository, reach

STATED = {"stated_by": "Mina Vale", "stated_on": "2026-11-20", "why": "Written here."}
TALK = "".join(
    json.dumps(
        {"kind": "NLI", "input": f"What of gate {n}?", "target": f"Gate {n} is shut at night."}
    )
    + "\n"
    for n in range(4000)
).encode()
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
    for _ in range(2400):
        _, result, _ = await dashboard.ask("GET", f"/datasets/{name}/fetch")
        if result["state"] not in ("waiting", "running"):
            return result
        await asyncio.sleep(0.05)
    raise AssertionError("it has not ended")


async def test_a_built_data_set_is_offered_renamed_and_withdrawn(dashboard, home):
    put_set(home / "datasets" / "harbour")
    (home / "catalogue.toml").write_text("# Mine.\n")
    path = "/datasets/harbour/catalogue"
    status, result, _ = await dashboard.ask(
        "PUT", path, json={"name": "quay", "language": "English", **STATED}
    )
    assert (
        status == 200
        and result["catalogue_name"] == "quay"
        and result["links"]["catalogue"] == path
    )
    assert "# Mine." in (home / "catalogue.toml").read_text()
    assert entries(home)["quay"]["right"] == "own-writing", "the one of its samples"
    assert "quay" in dashboard.services.catalogue.datasets() and materials(
        dashboard, "quay", "ballast"
    )
    status, result, _ = await dashboard.ask("PUT", path, json={"name": "pier", **STATED})
    assert status == 200 and entries(home).keys() == {"pier"}
    _, page, _ = await dashboard.page("/dashboard/data")
    assert "for moderators: pier" in page and page.count("/dashboard/data/sets/") == 1
    status, result, _ = await dashboard.ask("DELETE", path)
    assert status == 200 and result["catalogue_name"] is None and entries(home) == {}
    assert "pier" not in dashboard.services.catalogue.datasets()


async def test_an_upload_is_offered_under_its_right_and_goes_with_it(dashboard, home):
    put_talk(home / "uploads", "talk.jsonl", signed=False)
    path = "/uploads/talk.jsonl/catalogue"
    body = {"name": "talk of the quay", "persona_names": ["Wick", "42"]}
    status, result, _ = await dashboard.ask("PUT", path, json=body)
    assert status == 422 and result["errors"][0]["field"] == "right"
    right = {"right": "licensed:CC-BY-4.0", **STATED}
    status, result, _ = await dashboard.ask("PUT", path, json=body | right)
    assert status == 200 and result["may_train"] and result["catalogue_name"] == "talk of the quay"
    log = next(
        one for one in materials(dashboard, "talk of the quay", "ballast") if one.kind == "log"
    )
    assert (log.right, log.statement.stated_by, log.persona_names) == (
        "licensed:CC-BY-4.0",
        "Mina Vale",
        ("Wick", "42"),
    )
    await dashboard.ask("PUT", "/uploads/talk.jsonl/right", json=right | {"right": "own-writing"})
    assert entries(home)["talk of the quay"]["right"] == "own-writing"
    assert entries(home)["talk of the quay"]["persona_names"] == ["Wick", "42"]
    await dashboard.ask("DELETE", "/uploads/talk.jsonl/right")
    assert entries(home) == {}, "without a right it is withdrawn"
    await dashboard.ask("PUT", path, json=body | right)
    await dashboard.ask("PUT", "/uploads/talk.jsonl?replace=true", data=TALK)
    assert entries(home) == {}, "another file of that name is not what was offered"
    await dashboard.ask("PUT", path, json=body | right)
    await dashboard.ask("DELETE", "/uploads/talk.jsonl")
    assert entries(home) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "ballast"}, "'ballast' is the name of another"),
        ({"name": "general-dialogue"}, "another data set"),
        ({"name": "oasst2"}, "another data set"),
        ({"name": "../quay"}, "name"),
        ({"name": ""}, "name"),
        ({"why": ""}, "why"),
        ({"stated_on": "2999-01-01"}, "has not come yet"),
        ({"stated_on": "soon"}, "no date"),
        ({"format": "Share GPT"}, "format"),
        ({"rite": "form"}, "rite"),
    ],
)
async def test_what_is_wrong_with_an_offer_is_named_and_nothing_is_written(
    dashboard, home, changes, words
):
    put_set(home / "datasets" / "harbour")
    status, result, _ = await dashboard.ask(
        "PUT", "/datasets/harbour/catalogue", json={"name": "quay", **STATED} | changes
    )
    assert status == 422 and words in json.dumps(result)
    assert not (home / "catalogue.toml").exists()


async def test_a_broken_catalogue_is_refused_with_its_line(dashboard, home):
    put_set(home / "datasets" / "harbour")
    (home / "catalogue.toml").write_text('[a]\npath = "b\n')
    status, result, _ = await dashboard.ask(
        "PUT", "/datasets/harbour/catalogue", json={"name": "quay", **STATED}
    )
    assert (
        status == 422
        and "at line 2" in result["detail"]
        and "it was not changed" in result["advice"]
    )
    status, page, _ = await dashboard.submit(
        "/dashboard/data/sets/harbour/catalogue", name="quay", **STATED
    )
    assert status == 422 and "at line 2" in page and 'value="quay"' in page
    assert (home / "catalogue.toml").read_text() == '[a]\npath = "b\n'


async def test_what_came_through_discord_is_not_offered_without_permission(dashboard, home):
    folder = put_set(home / "datasets" / "harbour")
    stats = json.loads((folder / "stats.json").read_text())
    (folder / "stats.json").write_text(json.dumps(stats | {"by_right": {"discord-api": 46}}))
    status, result, _ = await dashboard.ask(
        "PUT", "/datasets/harbour/catalogue", json={"name": "quay", **STATED}
    )
    assert (
        status == 422
        and "DISCORD_PERMISSION" in result["advice"]
        and not (home / "catalogue.toml").exists()
    )
    write_consent(
        home,
        Consent(permission="Discord wrote so in 2026, see the letter.", opted_in=frozenset({"1"})),
    )
    status, _, _ = await dashboard.ask(
        "PUT", "/datasets/harbour/catalogue", json={"name": "quay", **STATED}
    )
    assert status == 200 and entries(home)["quay"]["right"] == "discord-api"


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
    assert "another data set" in page and 'id="error-name"' in page
    fields = {"name": "talk", "persona_names": "Wick, 42", "language": "en", "format": ""}
    status, _, _ = await dashboard.submit("/dashboard/data/uploads/talk.jsonl/catalogue", **fields)
    assert status == 303 and entries(home)["talk"]["persona_names"] == ["Wick", "42"]
    for path in ("sets/harbour", "uploads/talk.jsonl"):
        await dashboard.submit(f"/dashboard/data/{path}/catalogue", take_back="yes")
    assert entries(home) == {}


async def test_a_deleted_data_set_is_withdrawn_too(dashboard, home):
    put_set(home / "datasets" / "harbour")
    await dashboard.ask("PUT", "/datasets/harbour/catalogue", json={"name": "quay", **STATED})
    assert (await dashboard.ask("DELETE", "/datasets/harbour"))[0] == 204 and entries(home) == {}


async def test_published_data_sets_are_listed_with_their_facts(dashboard):
    status, result, _ = await dashboard.ask("GET", "/datasets/oasst2")
    assert (
        status == 200 and result["published"]["licence"] == "Apache-2.0" and not result["may_train"]
    )
    assert (
        "has not been fetched" in result["refused"]
        and result["links"]["fetch"] == "/datasets/oasst2/fetch"
    )
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
    status, result, headers = await dashboard.ask("POST", "/datasets/firefly/fetch")
    assert (
        status == 202
        and headers["Location"] == result["links"]["self"] == "/datasets/firefly/fetch"
    )
    assert (await dashboard.ask("POST", "/datasets/firefly/fetch"))[0] == 409, "it is being fetched"
    result = await fetch_ended(dashboard, "firefly")
    assert result["state"] == "done" and result["error"] is None, result
    assert (home / "fetched" / "firefly" / "firefly-train-1.1M.jsonl").read_bytes() == TALK
    assert (await dashboard.ask("POST", "/datasets/firefly/fetch"))[0] == 409, "it is here"
    _, result, _ = await dashboard.ask("GET", "/datasets/firefly")
    assert not result["may_train"] and "states no licence" in result["refused"]
    status, page, _ = await dashboard.submit(
        "/dashboard/data/published/firefly/catalogue", **STATED
    )
    assert status == 422 and 'id="error-right"' in page
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
    assert not (await dashboard.ask("GET", "/datasets/firefly"))[1]["may_train"]


@pytest.mark.slow
async def test_a_fetch_is_cancelled_and_keeps_what_is_there(dashboard, home, hub):
    hub.pause_s = 0.5
    await dashboard.ask("POST", "/datasets/firefly/fetch")
    for _ in range(2400):
        _, result, _ = await dashboard.ask("GET", "/datasets/firefly/fetch")
        if " of " in result["said"] and not result["said"].startswith("0 B"):
            break
        await asyncio.sleep(0.05)
    _, page, _ = await dashboard.page("/dashboard/data/published/firefly")
    assert "Cancel" in page and "fetched" in page and "<noscript>" in page
    status, result, _ = await dashboard.ask("POST", "/datasets/firefly/fetch/cancel")
    assert status == 200 and result["state"] == "cancelled"
    assert list((home / "fetched").glob(".firefly.partial/*/*.jsonl"))
    assert (await dashboard.ask("GET", "/datasets/alpaca/fetch"))[0] == 404


async def test_the_operator_can_keep_the_bot_from_fetching(dashboard, monkeypatch):
    object.__setattr__(dashboard.services, "fetch_datasets", "off")
    status, result, _ = await dashboard.ask("POST", "/datasets/firefly/fetch")
    assert status == 409 and "FETCH_DATASETS" in result["detail"]
    _, page, _ = await dashboard.page("/dashboard/data/published/firefly")
    assert "FETCH_DATASETS" in page and ">Fetch " not in page


@pytest.mark.slow
async def test_where_no_hub_can_be_reached_the_page_says_so(dashboard, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    await dashboard.ask("POST", "/datasets/firefly/fetch")
    result = await fetch_ended(dashboard, "firefly")
    assert result["state"] == "failed" and "HF_HUB_OFFLINE is set" in result["error"]
    _, page, _ = await dashboard.page("/dashboard/data/published/firefly")
    assert "HF_HUB_OFFLINE is set" in page and "Fetch 1.17 GB" in page
