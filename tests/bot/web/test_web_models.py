"""The page of base models: the table, a fetch with its licence and progress, and serving another."""

from __future__ import annotations

import re

import pytest

from bot.settings import load_settings
from tests.bot.model_machine import COMMIT, MODEL, PINNED, pretend_machine
from tests.fakes import until
from tests.hub_server import Hub, Repository, reach


@pytest.fixture
def hub(monkeypatch, tmp_path):
    pretend_machine(monkeypatch)
    served = Hub({"Qwen/Qwen3-0.6B": Repository({COMMIT: MODEL}, {"main": COMMIT})})
    with served.serve() as address:
        reach(monkeypatch, address, str(tmp_path / "cache"))
        yield served


@pytest.fixture
def env_file(dashboard, tmp_path, monkeypatch):
    monkeypatch.delenv("BASE_MODEL", raising=False)
    file = tmp_path / ".env"
    object.__setattr__(dashboard.services, "env_file", file)
    return file


def downloads(hub):
    return [asked for asked in hub.asked if asked.startswith("GET") and "/resolve/" in asked]


async def fetch(dashboard, name="qwen3-0.6b", accepted="yes"):
    """Send the form of a fetch."""
    fields = {"name": name} | ({"accepted": accepted} if accepted else {})
    return await dashboard.submit("/dashboard/models/fetch", **fields)


async def ended(dashboard):
    """Wait for the latest fetch."""
    job = dashboard.services.data_jobs.latest("model", "qwen3-0.6b")
    await until(lambda: not job.is_open, 10)
    return job


async def test_the_table_has_each_model_with_its_licence(dashboard, hub):
    table = await dashboard.services.models.table()
    assert table.recommended.model.name == "qwen3-1.7b"
    status, page, _ = await dashboard.page("/dashboard/models")
    assert status == 200 and "Base models" in page and "recommended</span>" in page
    for fit in table.fits:
        assert fit.model.title in page and fit.model.licence_url in page


async def test_a_fetch_needs_the_licence_accepted(dashboard, hub):
    status, page, _ = await fetch(dashboard, accepted="")
    assert status == 422 and "licensed under Apache-2.0" in page
    assert not downloads(hub)
    assert (await fetch(dashboard))[0] == 303
    job = await ended(dashboard)
    assert job.state == "done" and job.said == "524.4 kB of 524.4 kB"
    assert downloads(hub)


@pytest.mark.parametrize(
    ("name", "message"), [("harbour/none", "hub has no"), ("x y", "no base model of a hub")]
)
async def test_what_cannot_be_fetched_is_a_problem(dashboard, hub, name, message):
    status, page, _ = await fetch(dashboard, name)
    assert status == 422 and message in page


async def test_a_failed_fetch_is_said_and_a_cancelled_one_continues(dashboard, hub):
    hub.cuts, hub.fails_after_cut = 1, True
    await fetch(dashboard)
    job = await ended(dashboard)
    assert job.state == "failed" and "cannot be fetched" in job.error
    _, page, _ = await dashboard.page("/dashboard/models")
    assert "Fetch qwen3-0.6b" in page and "cannot be fetched" in page
    hub.statuses.clear()
    hub.pause_s = 0.3
    await fetch(dashboard)
    assert (await fetch(dashboard))[0] == 422, "it is being fetched already"
    await until(lambda: hub.ranges, 5)
    job = dashboard.services.data_jobs.latest("model", "qwen3-0.6b")
    await dashboard.submit(f"/dashboard/data/works/{job.id}/cancel")
    assert job.state == "cancelled"
    hub.pause_s = 0
    await fetch(dashboard)
    assert (await ended(dashboard)).state == "done"


async def test_the_page_fetches_and_then_serves(dashboard, hub, env_file):
    status, page, _ = await dashboard.page("/dashboard/models?fetch=qwen3-0.6b")
    assert status == 200 and "I accept the licence" in page and "524.4 kB" in page
    status, page, _ = await dashboard.submit("/dashboard/models/fetch", name="qwen3-0.6b")
    assert status == 422 and "licensed under Apache-2.0" in page and not downloads(hub)
    status, _, headers = await dashboard.submit(
        "/dashboard/models/fetch", name="qwen3-0.6b", accepted="yes"
    )
    assert (status, headers["Location"]) == (303, "/dashboard/models")
    jobs = dashboard.services.data_jobs
    await until(lambda: jobs.done("model"), 10)
    _, page, _ = await dashboard.page("/dashboard/models")
    assert "qwen3-0.6b is here" in page
    _, page, _ = await dashboard.page("/dashboard/models?use=qwen3-0.6b")
    assert f"BASE_MODEL={PINNED}" in page and not env_file.exists()
    assert (await dashboard.page("/dashboard/models?use=nothing-here"))[0] == 422
    assert (await dashboard.page("/dashboard/models?fetch="))[0] == 400
    status, _, _ = await dashboard.submit("/dashboard/models/use", name="qwen3-0.6b")
    assert status == 303 and load_settings(env_file, {}).base_model == PINNED


async def test_what_is_not_on_this_machine_cannot_be_served(dashboard, hub, env_file):
    status, page, _ = await dashboard.submit("/dashboard/models/use", name="qwen3-0.6b")
    assert status == 422 and "python -m bot models fetch" in page and not env_file.exists()


async def test_a_bot_without_a_file_of_settings_says_so(dashboard, hub):
    status, page, _ = await dashboard.submit("/dashboard/models/use", name="embedded")
    assert status == 422 and "no file with settings" in page


async def test_a_model_is_offered_once_until_it_is_declined(dashboard, hub, tmp_path, monkeypatch):
    models = dashboard.services.models
    assert await models.look_for_offer() and "Qwen3 1.7B" in models.offer.lines[0]
    assert not downloads(hub), "nothing is fetched unasked"
    _, page, _ = await dashboard.page("/dashboard")
    assert "A larger model fits this machine" in page
    assert not await models.look_for_offer(), "it was said on the terminal before"
    assert models.offer.fit, "the page goes on offering it"
    await dashboard.submit("/dashboard/models/dismiss")
    _, page, _ = await dashboard.page("/dashboard")
    assert "A larger model fits" not in page
    assert not await models.look_for_offer() and models.offer.fit is None


async def test_without_a_network_nothing_is_offered_or_summed_up(dashboard, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    models = dashboard.services.models
    monkeypatch.setattr(models, "table", lambda: pytest.fail("it sums up models"))
    assert not await models.look_for_offer() and models.offer.lines == []


@pytest.fixture
def recommended(hub):
    """The hub has the model of the offer, too; returns the hub."""
    hub.repositories["Qwen/Qwen3-1.7B"] = Repository({COMMIT: MODEL}, {"main": COMMIT})
    return hub


async def shown_offer(dashboard, method="GET"):
    status, offer, _ = await dashboard.ask(method, "/dashboard/models/offer")
    assert status == 200
    return offer


async def test_the_guild_page_offers_fetches_and_continues_the_recommended_model(
    dashboard, recommended
):
    offer = await shown_offer(dashboard)
    assert offer["button"] == (
        "Fetch Qwen3 1.7B: 524.4 kB, under a minute on this line, Apache-2.0"
    )
    assert offer["link"][0] == "Apache-2.0" and not offer["begun"]
    assert len(downloads(recommended)) == 1, "the first bytes, to time them"
    recommended.cuts, recommended.fails_after_cut = 1, True
    offer = await shown_offer(dashboard, "POST")
    assert (
        offer["is_running"]
        and offer["text"].startswith("Fetching Qwen3 1.7B")
        and not offer["button"]
    )
    job = dashboard.services.data_jobs.latest("model", "qwen3-1.7b")
    await until(lambda: not job.is_open, 10)
    offer = await shown_offer(dashboard)
    assert "not whole yet" in offer["text"] and offer["button"] == "Continue with Qwen3 1.7B"
    recommended.statuses.clear()
    recommended.pause_s = 0.3
    await shown_offer(dashboard, "POST")
    assert (await shown_offer(dashboard, "POST"))["is_running"], "a second press changes nothing"
    await until(lambda: any("bytes=262" in asked for asked in recommended.ranges), 5)
    job = dashboard.services.data_jobs.latest("model", "qwen3-1.7b")
    await dashboard.submit(f"/dashboard/data/works/{job.id}/cancel")
    recommended.pause_s = 0
    offer = await shown_offer(dashboard)
    assert re.match(r"Continue with Qwen3 1\.7B: .* left of 524\.4 kB", offer["button"]), (
        "as after a restart"
    )
    await shown_offer(dashboard, "POST")
    job = dashboard.services.data_jobs.latest("model", "qwen3-1.7b")
    await until(lambda: not job.is_open, 10)
    offer = await shown_offer(dashboard)
    assert (
        offer["link"] == ["Serve it …", "/dashboard/models?use=qwen3-1.7b"] and not offer["button"]
    )


async def test_without_a_measured_rate_the_guild_page_says_the_size_alone(dashboard, recommended):
    recommended.statuses["/resolve/"] = (503, {})
    offer = await shown_offer(dashboard)
    assert offer["button"] == "Fetch Qwen3 1.7B: 524.4 kB, Apache-2.0"


@pytest.mark.parametrize("lacks", ["a hub", "a reason"])
async def test_the_guild_page_offers_nothing_without_a_hub_and_once_declined(
    dashboard, recommended, monkeypatch, lacks
):
    if lacks == "a hub":
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    else:
        await dashboard.services.models.dismiss_offer()
    for method in ("GET", "POST"):
        offer = await shown_offer(dashboard, method)
        assert not offer["text"] and not offer["button"]
    assert not dashboard.services.models.fetches()
