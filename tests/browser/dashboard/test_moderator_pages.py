"""Signing in with Discord and a moderator's pages, as Chromium shows them: with strict cookies, and
a policy for forms that their redirections have to obey.
"""

import os

import pytest
from playwright.async_api import expect

from bot.demo_guild import MODERATOR
from bot.schedules.store import ScheduledLine
from tests.bot.conftest import QUAY
from tests.bot.web.moderator_stage import SERVERS, moderator_stage
from tests.browser.dashboard.conftest import Dashboard, assert_accessible
from tests.samples import SCORECARD

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def picture(page, name):
    """Keep a picture where PICTURES names a folder."""
    if folder := os.environ.get("PICTURES"):
        await page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@pytest.mark.parametrize("phone", [False, True])
async def test_a_moderator_signs_in_works_on_their_server_and_is_refused_elsewhere(
    tmp_path, browser, phone
):
    async with moderator_stage(tmp_path) as town:
        persona_id = town.bring_in(town.first, "Marlow Finch")
        held = SCORECARD.model_copy(
            update={"verdict": "reject", "reasons": ("It repeats its examples.",)}
        )
        town.install(persona_id, town.first)
        town.install(persona_id, town.first, card=held)
        quay = town.channel_id(QUAY, town.first)
        town.stage.store.scheduled_lines.add(
            ScheduledLine(
                0, guild_id=town.first, channel_id=quay, set_by=town.user_id(MODERATOR), set_at=1.0,
                weekdays=127, minute=510, prompt="say good morning", handled_at=1.0,
            )
        )  # fmt: skip
        # Another site than the one that asks for consent, as the bot's is another one than Discord.
        url = town.stage.sandbox.url.replace("127.0.0.1", "localhost")
        dashboard = Dashboard(browser, url, town.stage)
        page = await dashboard.open(f"{SERVERS}/{town.first}", phone=phone, dark=phone)
        await expect(page.get_by_role("heading", name="Sign in", exact=True)).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"sign-in-{phone}")
        await page.get_by_role("button", name="Sign in with Discord").click()
        await page.get_by_role("button", name=MODERATOR).click()
        await expect(page.get_by_role("heading", name="Skerrow Harbour")).to_be_visible()
        assert page.url == f"{dashboard.url}{SERVERS}/{town.first}", (
            "and not the address with the code"
        )
        assert await page.evaluate("document.cookie") == "", "no script can read the session"
        await assert_accessible(page)
        await picture(page, f"server-{phone}")
        await page.goto(SERVERS)
        await expect(page.get_by_text(f"You are signed in as {MODERATOR}.")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"servers-{phone}")
        await page.get_by_role("link", name="Marlow Finch").click()
        await page.get_by_role("button", name="Promote v1").click()
        await expect(page.get_by_role("status")).to_contain_text("v1 of Marlow Finch is live")
        await page.get_by_role("button", name="Promote v2").click()
        await expect(page.get_by_role("heading", name="The gate rejects v2")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"versions-{phone}")
        await page.goto(f"{SERVERS}/{town.first}/channels/{quay}")
        await page.get_by_label("Quiet hours", exact=True).fill("22:00-07:00")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("status")).to_contain_text("It holds from the next message")
        await assert_accessible(page)
        await picture(page, f"channel-{phone}")
        await page.goto(f"{SERVERS}/{town.first}/schedules")
        await expect(page.get_by_text("say good morning")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"schedules-{phone}")
        await page.goto("/dashboard/system")
        await expect(page.get_by_text("This is the operator's alone.")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"refusal-{phone}")
        await page.get_by_role("link", name="To your servers").click()
        await expect(page.get_by_role("heading", name="Your servers")).to_be_visible()
        await page.goto("/dashboard")
        await expect(page.get_by_role("heading", name="Your servers")).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("status")).to_have_text("You are signed out.")
        await page.get_by_role("button", name="Sign in with Discord").click()
        await page.get_by_role("button", name="Cancel").click()
        await expect(page.get_by_text("The sign-in was cancelled at Discord.")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"cancelled-{phone}")
        await page.get_by_role("button", name="Sign in with Discord").click()
        await page.get_by_role("button", name=MODERATOR).click()
        await expect(page.get_by_role("heading", name="Your servers")).to_be_visible()
        await dashboard.close()
