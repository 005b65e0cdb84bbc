"""Chromium over the dashboard of a running bot: real client, store, queue and web server; model and
trainer are fakes.

Tests of pages begin with `pytestmark = pytest.mark.asyncio(loop_scope="session")` and open what
they look at with `page = await dashboard.open("/dashboard/personas", phone=True)`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page

from tests.bot.conftest import Stage
from tests.browser.conftest import DESKTOP, PATIENCE_MS, SERIOUS

PHONE = {"width": 360, "height": 740}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is tried at both widths is tried on the phone by `make test-slow`."""
    for item in items:
        if (
            isinstance(item, pytest.Function)
            and getattr(item, "callspec", None)
            and item.callspec.params.get("phone")
        ):
            item.add_marker(pytest.mark.slow)


class Dashboard:
    """Opens pages, each in a context of its own, and hears what Chromium complains about."""

    def __init__(self, browser: Browser, url: str, stage: Stage | None = None) -> None:
        self._browser = browser
        self.url = url
        self._stage = stage
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []

    @property
    def stage(self) -> Stage:
        """The bot behind the pages."""
        assert self._stage is not None
        return self._stage

    async def open(
        self, path: str = "/dashboard", *, phone: bool = False, dark: bool = False, **more: Any
    ) -> Page:
        """A page in a window of its own; `more` are settings of Playwright's contexts, such as
        java_script_enabled.
        """
        settings = {
            "viewport": PHONE if phone else DESKTOP,
            "color_scheme": "dark" if dark else "light",
            "reduced_motion": "reduce",
            "base_url": self.url,
        }
        context = await self._browser.new_context(**settings | more)
        context.set_default_timeout(PATIENCE_MS)
        self._contexts.append(context)
        page = await context.new_page()
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        await page.goto(path)
        return page

    def _hear(self, said: ConsoleMessage) -> None:
        # Chromium notes every answer from 400 on as an error; whether it is one is for the test to
        # say.
        if (
            said.type in ("error", "warning")
            and "the server responded with a status of 4" not in said.text
        ):
            self.complaints.append(f"{said.text} ({said.location['url']})")

    async def close(self) -> None:
        """Close all windows. Fails where Chromium complained."""
        for context in self._contexts:
            await context.close()
        assert not self.complaints, f"Chromium complained: {self.complaints}"


@pytest_asyncio.fixture(loop_scope="session")
async def dashboard(staged: Stage, browser: Browser) -> AsyncIterator[Dashboard]:
    """The dashboard of a bot in the sandbox; `dashboard.stage` has its store, its fake engine and
    fake trainer.
    """
    made = Dashboard(browser, staged.sandbox.url, staged)
    yield made
    await made.close()


async def unfold(page: Page) -> None:
    """Open every folded part of a page."""
    await page.evaluate("for (const fold of document.querySelectorAll('.fold')) fold.open = true")


async def assert_accessible(page: Page) -> None:
    """Axe finds no serious problem, each landmark has a name of its own, and nothing is cut off
    sideways.
    """
    await page.wait_for_load_state()  # with its style sheets
    found = (await Axe().run(page)).response["violations"]
    worst = [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in SERIOUS or one["id"] == "landmark-unique"
    ]
    assert not worst, "\n".join(worst)
    wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, f"the page is {wide} px wider than the window"
