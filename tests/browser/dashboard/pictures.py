"""The dashboard's pictures: pages of a bot that has just retrained a persona
(tests/browser/pictures.py).
"""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Browser, Page, expect

from tests.browser.conftest import DESKTOP
from tests.browser.dashboard.conftest import PHONE

FOLDER = Path("docs/pictures")
REPLY_MS = 180_000
PROMPT = "The ferry is late again. What do you do while you wait?"


class DashboardPhotographer:
    """Looks at the pages as the operator does. `job_id` is a training of `persona_id` that has
    ended in `version`.
    """

    def __init__(
        self, browser: Browser, url: str, persona_id: str, version: str, job_id: str
    ) -> None:
        self._browser = browser
        self._url = url
        self._persona_id = persona_id
        self._version = version
        self._job_id = job_id

    async def open(self, path: str, *, phone: bool = False, dark: bool = True) -> Page:
        """A page in a window of its own."""
        context = await self._browser.new_context(
            viewport=PHONE if phone else DESKTOP,
            color_scheme="dark" if dark else "light",
            device_scale_factor=2 if phone else 1.5,
            base_url=self._url,
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
        """Every picture."""
        await self.take(await self.open("/dashboard"), "dashboard")
        await self.take(await self.open(f"/dashboard/personas/{self._persona_id}"), "persona")
        await self.take(await self.open(f"/dashboard/training/{self._job_id}"), "run")
        await self.take(
            await self.open(f"/dashboard/cards/{self._persona_id}/{self._version}", dark=False),
            "scorecard",
        )
        phone = await self.open(f"/dashboard/training/{self._job_id}", phone=True, dark=False)
        await self.take(phone, "run-phone")
        await self.play()

    async def play(self) -> None:
        """Two personas, side by side on one prompt."""
        page = await self.open("/dashboard/play")
        speakers = (f"{self._persona_id}@{self._version}", f"{self._persona_id}@base", "oda")
        for at, value in enumerate(speakers, 1):
            await page.get_by_label(f"Speaker {at}").select_option(value=value)
        await page.get_by_label("Your message").fill(PROMPT)
        await page.get_by_role("button", name="Ask").click()
        await expect(page.get_by_text("Ended: done.")).to_be_visible(timeout=REPLY_MS)
        await page.get_by_role("region").first.scroll_into_view_if_needed()
        await self.take(page, "play")
