"""The training pages in Chromium over a real queue that runs a real process: followed live,
reloaded, cut off, repeated, compared; at desktop and phone width.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from bot.compose import Dependencies, compose
from bot.personas.registry import PersonaRegistry
from bot.platform.clock import SystemClock
from bot.services import PrivacyServices, Services
from bot.settings import Settings
from bot.store import Store
from bot.training.backends.subprocess_backend import SubprocessBackend
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.queue import JobQueue
from bot.training.training_plan import TrainingPlan
from bot.web_server import WebServer, run_server
from personas.home.job_material import ShippedData
from personas.lore.index import LoreIndex
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import Phase, TrainerEvent
from tests.browser.dashboard.conftest import Dashboard, assert_accessible
from tests.fake_engine import FakeEngine
from tests.fakes import PLAN, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

STANDIN = Path(__file__).parents[2] / "fake_trainer.py"


class Backend(SubprocessBackend):
    """Runs the stand-in, which tells a course and has no plans."""

    async def plan(self, request: TrainingRequest, guild_id: int = 0) -> TrainingPlan:
        self.check(request, guild_id)
        return PLAN


@dataclass
class Hall:
    """Where trainings run, and the browser in front of it."""

    home: Path
    store: Store
    queue: JobQueue
    services: Services
    front: WebServer
    dashboard: Dashboard

    def start(self, name: str, **more: Any) -> str:
        """Queue a training of Oda's; gives its id."""
        request = TrainingRequest(job_name=name, persona="oda", **more)
        return self.queue.enqueue(request, guild_id=0, channel_id=0, requested_by=0).job_id

    def go_on(self, job_id: str) -> None:
        """Let a run's second half begin."""
        (self.home / "jobs" / job_id / "go-on").touch()

    def say(self, job_id: str, event: TrainerEvent) -> None:
        """Add an event to those of a run."""
        with (self.home / "jobs" / job_id / "events.jsonl").open("a") as file:
            file.write(event.model_dump_json() + "\n")

    async def half_way(self, job_id: str) -> None:
        await until(lambda: '"step": 12' in self._told(job_id))

    async def ended(self, job_id: str) -> None:
        self.go_on(job_id)
        await until(lambda: self.store.jobs.get(job_id).state == "done")

    def _told(self, job_id: str) -> str:
        events = self.home / "jobs" / job_id / "events.jsonl"
        return events.read_text() if events.exists() else ""


@pytest_asyncio.fixture(loop_scope="session")
async def hall(tmp_path: Path, browser: Browser) -> AsyncIterator[Hall]:
    home = tmp_path
    with Store.open(home / "understudy.sqlite") as store:
        shipped = ShippedData.from_source_tree()
        catalogue = DatasetCatalog(shipped, "embedded", home, store)
        clock = SystemClock()
        command = (sys.executable, str(STANDIN), "course")
        backend = Backend(
            home,
            catalogue,
            clock,
            threads=1,
            nice=0,
            serving_precision="bfloat16",
            environ=os.environ,
            command=command,
        )
        front = WebServer()
        lore = LoreIndex([])
        dependencies = Dependencies(
            store=store,
            personas=PersonaRegistry(shipped.cards, home),
            lore=lore,
            catalogue=catalogue,
            engine=FakeEngine(),
            backend=backend,
            privacy=PrivacyServices(),
            clock=clock,
        )
        services = compose(Settings(home=home), dependencies)
        queue = services.queue
        front.open(services)
        queue.start()
        async with run_server(front, 0) as url:
            dashboard = Dashboard(browser, url)
            yield Hall(home, store, queue, services, front, dashboard)
            await dashboard.close()
        await queue.stop()
        lore.close()


def figure(page: Page, name: str) -> Any:
    return page.locator(f'[data-of="{name}"]')


def drawn_steps(page: Page) -> Any:
    return page.locator("#curves figure").first.locator("tbody tr")


@pytest.mark.parametrize("phone", [False, True])
async def test_a_run_is_followed_to_its_end_over_a_reload(hall, phone):
    job_id = hall.start("dusk")
    page = await hall.dashboard.open("/dashboard/training", phone=phone, dark=phone)
    await page.locator("#now-trains").get_by_role("link", name="Oda Marrow v1").click()
    await expect(figure(page, "step")).to_have_text("12 of 24")
    await expect(figure(page, "loss")).to_have_text("3.0000")
    await expect(drawn_steps(page)).to_have_count(12)
    sample = await page.locator(".legend svg").first.bounding_box()
    assert sample["width"] <= 24 and sample["height"] <= 12
    await assert_accessible(page)
    await page.reload()
    await expect(figure(page, "step")).to_have_text("12 of 24")
    await expect(page.locator("#position")).to_have_text("40 % · training · ready in about 20 s")
    await expect(page.locator("#doing")).to_have_text("Step 12 of 24, loss 3.000")
    measuring = Phase(
        name="measuring the adapter", detail="replies", share=0.1, done=0.81, left_s=7900
    )
    hall.say(job_id, measuring)
    await expect(page.locator("#position")).to_have_text(
        "81 % · measuring the new version · ready in about 2 h 10 min"
    )
    await expect(page.locator("#bar")).to_have_js_property("value", 0.81)
    between = {"left_s": 230, "most_left_s": 430}
    hall.say(job_id, measuring.model_copy(update=between))
    await expect(page.locator("#position")).to_have_text(
        "81 % · measuring the new version · ready in about 4–7 min"
    )
    await page.evaluate("window.isTheSamePage = true")
    hall.go_on(job_id)
    await expect(page.locator("#standing .badge").first).to_have_text("done")
    await expect(page.locator("#news")).to_have_text("oda v1: done.")
    await expect(drawn_steps(page)).to_have_count(24)
    await expect(page.get_by_role("region", name="Epochs").get_by_role("row")).to_have_count(3)
    assert await page.evaluate("window.isTheSamePage"), "it was not loaded anew"
    await assert_accessible(page)


@pytest.mark.slow
async def test_a_connection_that_breaks_costs_nothing(hall):
    job_id = hall.start("dusk")
    page = await hall.dashboard.open(f"/dashboard/training/{job_id}")
    await expect(figure(page, "step")).to_have_text("12 of 24")
    hall.front.close()
    await hall.ended(job_id)
    async with page.expect_response(lambda answer: answer.status == 503):
        pass  # the stream has ended, and is asked for while nobody is in
    hall.front.open(hall.services)
    await expect(page.locator("#standing .badge").first).to_have_text("done", timeout=15_000)
    await expect(drawn_steps(page)).to_have_count(24)
    hall.dashboard.complaints[:] = [it for it in hall.dashboard.complaints if "503" not in it]


async def test_the_list_keeps_up_and_a_run_that_waits_is_cancelled_by_keyboard(hall):
    first = hall.start("dusk")
    await until(lambda: '"step":12' in (hall.store.jobs.get(first).progress_json or ""))
    page = await hall.dashboard.open("/dashboard/training")
    await expect(page.locator("#now-trains")).to_contain_text("40 % · training")
    second = hall.queue.enqueue(
        TrainingRequest(job_name="dawn", persona="ballast"),
        guild_id=0,
        channel_id=0,
        requested_by=0,
    ).job_id
    waits = page.get_by_role("region", name="The queue")
    await expect(waits).to_contain_text("Oda Marrow v1 is in training; one runs at a time.")
    asked = []

    async def decline(dialog):
        asked.append(dialog.message)
        await dialog.dismiss()

    page.on("dialog", decline)
    await page.locator(f"#cancel-{second}").dblclick()
    assert len(asked) == 1, "a double click is one question"
    assert hall.store.jobs.get(second).state == "queued"
    page.remove_listener("dialog", decline)
    page.once("dialog", lambda dialog: dialog.accept())
    await page.locator(f"#cancel-{second}").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Ballast v1 is cancelled.")).to_be_visible()
    await page.goto("/dashboard/training?persona=oda")
    hall.go_on(first)
    row = (
        page.get_by_role("region", name="Runs").get_by_role("row").filter(has_text="Oda Marrow v1")
    )
    await expect(row).to_contain_text("done")
    await expect(page.locator("#now-trains")).to_contain_text("Nothing is being trained.")
    await assert_accessible(page)


@pytest.mark.parametrize("phone", [pytest.param(False, marks=pytest.mark.slow), True])
async def test_a_run_is_repeated_with_changes_and_the_two_are_compared(hall, phone):
    first = hall.start("dusk")
    await hall.half_way(first)
    await hall.ended(first)
    page = await hall.dashboard.open(f"/dashboard/training/{first}", phone=phone)
    await page.get_by_role("link", name="Repeat with changes").click()
    rate = page.get_by_label("learning_rate", exact=True)
    await expect(rate).to_have_value("0.001")
    await expect(page.locator("#changes-now")).to_have_text("Nothing is changed.")
    await rate.fill("0.0005")
    await expect(page.locator("#changes-now")).to_have_text(
        "Changed: learning_rate 0.001 → 0.0005."
    )
    await assert_accessible(page)
    await page.get_by_role("button", name="Start").click()
    await expect(page.get_by_text("Queued as")).to_be_visible()
    second = page.url.rpartition("/")[2]
    assert hall.store.jobs.get(second).request.hyperparameters.learning_rate == 0.0005
    await until(lambda: hall.store.jobs.get(second).state == "running")
    await hall.half_way(second)
    await page.get_by_label("Side by side with").select_option(first)
    await page.get_by_role("button", name="Compare").click()
    await expect(
        page.get_by_role("heading", name="Oda Marrow v2 and Oda Marrow v1")
    ).to_be_visible()
    await expect(page.locator("tr.differs").first).to_be_visible()
    await expect(page.locator("#curves figure").first.locator(".line.s2").first).to_be_visible()
    await assert_accessible(page)
    await hall.ended(second)


async def test_the_curves_follow_the_slider(hall):
    job_id = hall.start("dusk")
    await hall.half_way(job_id)
    await hall.ended(job_id)
    page = await hall.dashboard.open(f"/dashboard/training/{job_id}")
    before = await page.locator("#curves polyline").first.get_attribute("points")
    await page.get_by_label("Smoothing").fill("0")
    await expect(page.locator("#formula")).to_contain_text("Σ 0ⁿ⁻ⁱ")
    assert before != await page.locator("#curves polyline").first.get_attribute("points")
