"""`python -m tests.browser.first_minutes`: the README's moving picture, recorded from the real page.

The bot with the bundled model and the shipped adapters, in Chromium. Two messages to Oda, and
a new persona from a form.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile

from bot.app import open_app
from bot.demo_guild import MODERATOR
from bot.settings import load_settings
from personas.home.job_material import ShippedData
from tests.browser.conftest import Visitor
from tests.browser.dashboard.pictures import NEW_PERSONA
from tests.browser.pictures import FOLDER, INN, Photographer, browser
from tests.browser.recording import Recording

OFFICE = "harbour-office"
QUESTION = "Nobody came to my birthday."
ANSWER = "Thanks. What's for supper?"
KEY_DELAY_MS = 25
READING_MS = 1_200
SIZE = {"width": 1100, "height": 720}
WIDTH = 900
QUALITY = 80


async def play(visitor: Visitor, ask: Photographer) -> None:
    """The story, at the pace of somebody who watches."""
    page = visitor.page
    await visitor.box.press_sequentially(QUESTION, delay=KEY_DELAY_MS)
    await ask.ask(visitor, QUESTION, "Oda")
    await page.wait_for_timeout(READING_MS)
    await visitor.box.press_sequentially(ANSWER, delay=KEY_DELAY_MS)
    await ask.ask(visitor, ANSWER, "Oda")
    await page.wait_for_timeout(READING_MS)
    await visitor.go(OFFICE)
    await visitor.command("persona create")
    dialog = page.get_by_role("dialog")
    for label, text in NEW_PERSONA.items():
        await dialog.get_by_label(label).press_sequentially(text, delay=KEY_DELAY_MS)
    await dialog.get_by_role("button", name="Submit").click()
    created = await visitor.sees("is a persona of this server now")
    await created.get_by_role("button", name=f"Use it in #{OFFICE}").click()
    await visitor.sees("Mind the step")
    await page.wait_for_timeout(READING_MS)


async def main() -> None:
    """Record the story."""
    logging.basicConfig(level=logging.ERROR)
    target = FOLDER / "first-minutes.webp"
    with tempfile.TemporaryDirectory() as home:
        settings = load_settings(None, {"UNDERSTUDY_HOME": home, "WEB_PORT": "0"})
        async with open_app(settings, ShippedData.from_source_tree()) as app, browser() as started:
            photographer = Photographer(app, started)
            visitor = await photographer.visit(MODERATOR, INN, viewport=SIZE, device_scale_factor=1)
            recording = Recording()
            async with recording.of(visitor.page):
                await play(visitor, photographer)
    size = recording.save(target, width=WIDTH, quality=QUALITY)
    print(f"{target} ({size / 1e6:.1f} MB)")


if __name__ == "__main__":
    asyncio.run(main())
