"""The dashboard's pictures (tests/browser/pictures.py)."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Browser, Page

from tests.browser.conftest import DESKTOP

FOLDER = Path("docs/pictures")
NEW_PERSONA = {
    "Name": "Marlow Finch",
    "Who are they?": "A retired lighthouse keeper who mends clocks and misses the fog.",
    "How do they talk?": "Slowly, and never without a word about the weather.",
    "First line": "Mind the step, {{user}}. It was a ladder once, and I miss the view.",
}


class DashboardPhotographer:
    """Looks at the pages as the operator does."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url

    async def open(self, path: str) -> Page:
        """A page in a window of its own."""
        context = await self._browser.new_context(
            viewport=DESKTOP, color_scheme="dark", device_scale_factor=1.5, base_url=self._url
        )
        page = await context.new_page()
        await page.goto(path)
        return page

    async def take(self, page: Page, name: str) -> None:
        """Keep what is to be seen."""
        await page.wait_for_timeout(400)  # pictures have loaded, numbers have come
        await page.screenshot(path=FOLDER / f"{name}.png")
        print(FOLDER / f"{name}.png", flush=True)

    async def all(self) -> None:
        """A persona's card, and the form of a new persona, filled in."""
        await self.take(await self.open("/dashboard/personas/oda"), "persona")
        page = await self.open("/dashboard/new-persona")
        for label, text in NEW_PERSONA.items():
            await page.get_by_label(label).fill(text)
        await self.take(page, "new-persona")
