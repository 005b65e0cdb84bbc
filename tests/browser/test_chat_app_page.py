"""The stand-alone chat page in Chromium: streaming, stop, clear, settings, and text that stays
text.
"""

import pytest
from playwright.async_api import expect

from tests.browser.conftest import SERIOUS, Axe, Browser
from tests.fake_engine import FakeEngine
from tests.test_chat_app import chat_page

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("phone", [False, True])
async def test_one_talks_stops_and_clears(browser: Browser, phone):
    engine = FakeEngine(lambda request: ["<b>piece</b> ", f"to {request.turns[-1].text}"])
    viewport = {"width": 390, "height": 800} if phone else {"width": 1100, "height": 700}
    async with chat_page(engine, facts="I keep bees.") as session:
        context = await browser.new_context(
            viewport=viewport, color_scheme="dark" if phone else "light"
        )
        page = await context.new_page()
        complaints = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(str(session._base_url))
        await expect(page).to_have_title("</script><b>title")
        worst = [
            one["id"]
            for one in (await Axe().run(page)).response["violations"]
            if one["impact"] in SERIOUS
        ]
        assert worst == []
        assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0

        log = page.get_by_role("log")
        text = page.get_by_label("Your message")
        await page.get_by_label("Temperature").fill("0.25")
        await page.get_by_label("Top-p").fill("0.8")
        await page.get_by_label("Max new tokens").fill("33")
        await text.fill("<i>one</i>")
        await text.press("Enter")
        await expect(log).to_contain_text("<b>piece</b> to <i>one</i>")
        await expect(log).to_contain_text("1 token, seed 7")
        request = engine.requests[-1]
        sampling = request.sampling
        assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens) == (0.25, 0.8, 33)
        assert (
            request.persona.description == "I keep bees."
            and await page.locator("#log b, #log i").count() == 0
        )

        engine.free.clear()
        await text.fill("two")
        await page.get_by_role("button", name="Send").click()
        await expect(log.locator(".assistant").last).to_have_text("<b>piece</b>")
        await page.get_by_role("button", name="Stop").click()
        await expect(log).to_contain_text("stopped")
        engine.free.set()
        await page.get_by_label("Who answers").select_option("base")
        await text.fill("three")
        await text.press("Enter")
        await expect(log).to_contain_text("to three")
        assert engine.requests[-1].adapter is None
        assert [turn.text for turn in engine.requests[-1].turns] == [
            "<i>one</i>", "<b>piece</b> to <i>one</i>", "two", "<b>piece</b> ", "three"
        ]  # fmt: skip

        await page.get_by_label("Max new tokens").fill("9999")
        await text.fill("four")
        await text.press("Enter")
        assert len(engine.requests) == 3, "the browser says what is wrong with the setting"
        await page.get_by_role("button", name="Clear").click()
        await expect(log).to_be_empty()
        await context.close()
    assert complaints == []
