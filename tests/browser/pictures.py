"""`python -m tests.browser.pictures`: the pictures in the documents, made of the real thing (half
an hour).

The bot with the embedded model, a real retrain, Chromium. What the personas say is drawn anew each
time.
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
from bot.demo_guild import MEMBER, MODERATOR
from bot.settings import load_settings
from personas.home.job_material import ShippedData
from tests.browser.chromium import launch
from tests.browser.conftest import DESKTOP, PHONE, Visitor
from tests.browser.dashboard.pictures import DashboardPhotographer

FOLDER = Path("docs/pictures")
QUAY = "weighbridge-quay"
OFFICE = "harbour-office"
REPLY_MS = 120_000
TRAINING_MS = 3_600_000
QUESTION = "I had a rotten day and everything went wrong. What would you do?"
TALK = ("Do you like the gulls?", "My cat is ill and I can't sleep for worrying.")


class Photographer:
    """Plays the members and takes the pictures."""

    def __init__(self, app: App, browser: Browser) -> None:
        assert app.sandbox is not None  # the settings have no token
        self._app = app
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
            visitor.page.locator("#messages article")
            .filter(has_text=name)
            .filter(has_text="AI-written")
        )
        before = await replies.count()
        await visitor.say(words)
        await expect(replies).to_have_count(before + 1, timeout=REPLY_MS)

    async def take(self, visitor: Visitor, name: str) -> None:
        """Keep what the visitor sees."""
        await visitor.page.wait_for_timeout(
            400
        )  # pictures have loaded, the scrolling has come to rest
        await visitor.page.screenshot(path=FOLDER / f"{name}.png")
        print(FOLDER / f"{name}.png", flush=True)

    async def insist(self, moderator: Visitor) -> None:
        """Wait until the version speaks; the gate asks once more about one that it rejects."""
        speaks = moderator.page.get_by_text("is live from the next reply on.").first
        anyway = moderator.page.get_by_role("button", name="Promote anyway").last
        await expect(speaks.or_(anyway).first).to_be_visible(timeout=REPLY_MS)
        if await anyway.is_visible():
            await anyway.click()
        await expect(speaks).to_be_visible(timeout=REPLY_MS)

    async def all(self) -> None:
        """Every picture, in the order of the story."""
        tobias = await self.visit(MEMBER, QUAY)
        await self.ask(tobias, QUESTION, "Ballast")
        await self.take(tobias, "untrained")
        await tobias.box.fill("/")
        await self.take(tobias, "commands")
        await tobias.box.fill("")
        mina = await self.visit(MODERATOR, QUAY)
        await mina.command("finetune start")
        progress = mina.message("Training: ballast v1")
        await expect(progress).to_contain_text(re.compile(r"step [3-9]\d of"), timeout=TRAINING_MS)
        await self.take(mina, "training")
        await tobias.page.get_by_role("button", name="Bench").click()
        await self.take(tobias, "bench")
        await tobias.page.keyboard.press("Escape")
        result = mina.message("Trained: ballast v1")
        await expect(result).to_contain_text("Held-out replies", timeout=TRAINING_MS)
        await result.get_by_role("button", name="Promote", exact=True).click()
        await self.insist(mina)
        await self.ask(mina, QUESTION, "Ballast")
        await self.take(mina, "promoted")
        await mina.go(OFFICE)  # where there was no talk with the base model
        await mina.command("persona set", persona="Ballast")
        await tobias.go(OFFICE)
        for message in TALK:
            await self.ask(tobias, message, "Ballast")
        await self.take(tobias, "chat")
        phone = await self.visit(
            MEMBER, OFFICE, viewport=PHONE, color_scheme="light", device_scale_factor=2
        )
        await self.ask(phone, "What does a promise weigh?", "Ballast")
        await self.take(phone, "phone")
        newest = self._app.services.store.versions.installed("ballast")[-1]
        pages = DashboardPhotographer(
            self._browser, self._url, "ballast", newest.version, newest.job_id
        )
        await pages.all()


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
        settings = load_settings(
            None, {"UNDERSTUDY_HOME": home, "WEB_PORT": "0", "TRAINER_CARD": "quick"}
        )
        async with open_app(settings, ShippedData.from_source_tree()) as app, browser() as started:
            await Photographer(app, started).all()


if __name__ == "__main__":
    asyncio.run(main())
