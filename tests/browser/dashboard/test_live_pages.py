"""Pages that stay open, in Chromium, while the bot is away and once it is back."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from personas.schemas.training import TrainingRequest
from tests.browser.dashboard.conftest import Dashboard, assert_accessible
from tests.browser.dashboard.test_play_pages import ask

pytestmark = pytest.mark.asyncio(loop_scope="session")

STREAMS = "**/events*"
ASKED_AGAIN_MS = 2000
PATIENCE_MS = 3000
GONE_AT = datetime.fromisoformat("2026-11-20T14:02:11+00:00")
HEARD_ERRORS = """EventSource = class extends EventSource {
  constructor(path) {
    super(path);
    this.addEventListener("error", () => { document.documentElement.dataset.refused = ""; });
  }
};"""
SILENT = "The bot does not answer; this was its state at 2:02:11 PM."


async def left(page: Page, status: int = 503) -> None:
    """From now on the bot answers so where events are asked for; the page's clock stands, to be set
    forward.
    """
    await page.route(STREAMS, lambda route: route.fulfill(status=status, body=""))
    await page.clock.install(time=GONE_AT - timedelta(minutes=1))
    await page.clock.pause_at(GONE_AT)
    await page.add_init_script(HEARD_ERRORS)
    await page.reload()
    await expect(page.locator("html[data-refused]")).to_be_attached()


async def back(page: Page) -> None:
    await page.unroute(STREAMS)
    await page.clock.fast_forward(ASKED_AGAIN_MS)


@pytest_asyncio.fixture(loop_scope="session")
async def job_id(dashboard: Dashboard) -> str:
    """A run that waits: the trainer does nothing of its own."""
    request = TrainingRequest(job_name="dusk", persona="oda")
    queue = dashboard.stage.client.services.queue
    return queue.enqueue(request, guild_id=0, channel_id=0, requested_by=0).job_id


async def test_a_page_says_that_the_bot_does_not_answer_until_it_does(dashboard, job_id):
    path = f"/dashboard/training/{job_id}"
    page = await dashboard.open(path, locale="en-US", timezone_id="UTC")
    said = page.locator("#said")
    await left(page)
    await page.clock.fast_forward(PATIENCE_MS - 1)
    await expect(said).to_be_empty()
    await page.clock.fast_forward(1)
    await expect(said).to_have_text(SILENT)
    await page.clock.resume()  # axe waits now and then
    await assert_accessible(page)
    await back(page)
    await expect(said).to_be_empty()
    dashboard.complaints[:] = [it for it in dashboard.complaints if "503" not in it]


async def test_whoever_is_signed_in_no_longer_is_asked_to_sign_in_beside_the_page(dashboard):
    page = await dashboard.open("/dashboard/system")
    await left(page, status=401)
    await page.clock.fast_forward(ASKED_AGAIN_MS)
    await expect(page.locator("#said").get_by_role("link", name="Sign in")).to_have_attribute(
        "target", "_blank"
    )
    await page.clock.resume()
    await back(page)
    await expect(page.locator("#said")).to_be_empty()


async def test_a_run_of_the_playground_that_a_restart_ended_says_so_and_keeps_what_it_had_written(
    dashboard,
):
    engine = dashboard.stage.engine
    engine.free.clear()
    page = await dashboard.open("/dashboard/play")
    await ask(page, "Ballast, live (base model)")
    await expect(page.locator(".line .words")).to_have_text("Ballast ")
    await left(page, status=404)
    await page.clock.fast_forward(ASKED_AGAIN_MS)
    await expect(page.locator("#end")).to_contain_text(
        "The bot was restarted, which ended this run."
    )
    await expect(page.locator(".line .words")).to_have_text("Ballast ")
    await expect(page.get_by_text("generating")).to_have_count(0)
    await expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    await expect(page.get_by_role("button", name="Ask")).to_be_disabled()
    await page.clock.resume()
    await assert_accessible(page)
    await page.get_by_role("link", name="Start again").click()
    await expect(page.get_by_label("Who answers")).to_have_value("ballast@base")
    engine.free.set()
