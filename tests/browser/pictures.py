"""`python -m tests.browser.pictures`: the README's pictures, made of the real thing.

The bot with the bundled model and the shipped adapters, in Chromium. What the personas say is drawn
anew each time.
"""

from __future__ import annotations

import asyncio
import logging
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, async_playwright, expect

from bot.app import App, open_app
from bot.demo_guild import MEMBER
from bot.settings import load_settings
from personas.home.job_material import ShippedData
from tests.browser.chromium import launch
from tests.browser.conftest import DESKTOP, PHONE, Visitor
from tests.browser.dashboard.pictures import DashboardPhotographer

FOLDER = Path("docs/pictures")
INN = "the-damp-lantern"
ENDED = re.compile("AI-written|in words of this persona's author")
"""The note under a reply, of the model or of an author."""
REPLY_MS = 120_000
TALK = ("What's for supper?", "Who taught you to cook?")


class Photographer:
    """Plays the members and takes the pictures."""

    def __init__(self, app: App, browser: Browser) -> None:
        assert app.sandbox is not None  # the settings have no token
        self._url = app.sandbox.url
        self._browser = browser

    async def visit(self, member: str, channel: str, **more: Any) -> Visitor:
        """A page with this member at it."""
        settings = {"viewport": DESKTOP, "color_scheme": "dark", "device_scale_factor": 1.5, **more}
        context = await self._browser.new_context(**settings)
        return await Visitor(await context.new_page(), self._url).enter(member, channel)

    async def ask(self, visitor: Visitor, words: str, name: str) -> None:
        """Say something and wait for the whole reply."""
        replies = (
            visitor.page.locator("#messages article").filter(has_text=name).filter(has_text=ENDED)
        )
        before = await replies.count()
        await visitor.say(words)
        await expect(replies).to_have_count(before + 1, timeout=REPLY_MS)

    async def take(self, visitor: Visitor, name: str) -> None:
        """Keep what the visitor sees."""
        # Pictures have loaded, the scrolling has come to rest.
        await visitor.page.wait_for_timeout(400)
        await visitor.page.screenshot(path=FOLDER / f"{name}.png")
        print(FOLDER / f"{name}.png", flush=True)

    async def all(self) -> None:
        """Every picture."""
        tobias = await self.visit(MEMBER, INN)
        for message in TALK:
            await self.ask(tobias, message, "Oda")
        await self.take(tobias, "chat")
        phone = await self.visit(
            MEMBER, INN, viewport=PHONE, color_scheme="light", device_scale_factor=2
        )
        await self.ask(phone, "Have you a room for tonight?", "Oda")
        await self.take(phone, "phone")
        await DashboardPhotographer(self._browser, self._url).all()


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Chromium as the tests of the pages start it."""
    async with async_playwright() as playwright:
        started = await launch(playwright)
        yield started
        await started.close()


async def main() -> None:
    """Take them all."""
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory() as home:
        settings = load_settings(None, {"UNDERSTUDY_HOME": home, "WEB_PORT": "0"})
        async with open_app(settings, ShippedData.from_source_tree()) as app, browser() as started:
            await Photographer(app, started).all()


if __name__ == "__main__":
    asyncio.run(main())
