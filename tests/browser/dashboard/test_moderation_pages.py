"""Signing in with the token and the operator's pages of moderation, as Chromium shows them, with strict
cookies.
"""

import os

import pytest
from playwright.async_api import expect

from bot.demo_guild import MEMBER
from bot.moderation.store import Block
from tests.bot.web.two_servers import SERVERS, TOKEN, two_servers
from tests.browser.dashboard.conftest import Dashboard, assert_accessible

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def picture(page, name):
    """Keep a picture where PICTURES names a folder."""
    if folder := os.environ.get("PICTURES"):
        await page.screenshot(path=f"{folder}/{name}.png", full_page=True)


async def sign_in(page):
    await page.get_by_label("Token").fill(TOKEN)
    await page.get_by_role("button", name="Sign in").click()


@pytest.mark.parametrize("phone", [False, True])
async def test_the_operator_signs_in_blocks_and_limits(tmp_path, browser, phone):
    async with two_servers(tmp_path) as town:
        dashboard = Dashboard(browser, town.operator.url, town.stage)
        page = await dashboard.open(f"{SERVERS}/{town.first}", phone=phone, dark=phone)
        await expect(page.get_by_role("heading", name="Sign in", exact=True)).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"sign-in-{phone}")
        await sign_in(page)
        assert page.url == f"{dashboard.url}{SERVERS}/{town.first}"
        assert await page.evaluate("document.cookie") == "", "no script can read the session"
        await page.get_by_label("Member", exact=True).fill("tob")
        await page.get_by_label("Persona", exact=True).select_option("Oda Marrow")
        await page.get_by_role("button", name="Block", exact=True).click()
        await expect(page.get_by_role("alert")).to_contain_text("Whom do you mean?")
        await assert_accessible(page)
        await picture(page, f"found-{phone}")
        await page.get_by_role("button", name=f"Block {MEMBER} (tobias_reed)").click()
        await expect(page.get_by_role("status")).to_contain_text("not answered by Oda Marrow")
        await page.get_by_label("Replies to a member each day").fill("40")
        await page.get_by_label("Seconds between").fill("10")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_text("40 a day, from midnight")).to_be_visible()
        await assert_accessible(page)
        await picture(page, f"blocks-{phone}")
        await page.get_by_role("button", name=f"Lift the block of {MEMBER}").click()
        await expect(page.get_by_text("Nobody is blocked.")).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("status")).to_have_text("You are signed out.")
        await dashboard.close()


@pytest.mark.slow
async def test_the_operator_sees_blocks_of_each_server_and_faces_of_personas(dashboard):
    store, guild_id = dashboard.stage.store, int(dashboard.stage.sandbox.guild_id)
    store.blocks.add(Block(guild_id, int(dashboard.stage.member.id), "", 0, 1.0))
    store.faces.choose(guild_id, "ballast")
    page = await dashboard.open("/dashboard/system/safety")
    await page.get_by_role("link", name="Moderation of each server").click()
    await expect(page.get_by_role("cell", name="1", exact=True)).to_be_visible()
    await assert_accessible(page)
    await picture(page, "operator-servers")
    await page.get_by_role("link", name="Skerrow Harbour").click()
    await expect(page.get_by_role("rowheader", name=MEMBER)).to_be_visible()
    await assert_accessible(page)
    await picture(page, "operator-blocks")
    await page.get_by_role("link", name="All servers").click()
    await page.get_by_role("link", name="Direct messages and user installs").click()
    await page.get_by_label("Member", exact=True).fill(str(dashboard.stage.member.id))
    await page.get_by_role("button", name="Block").click()
    await expect(page.get_by_role("rowheader", name=MEMBER)).to_be_visible()
    await page.get_by_label("Replies to a member each day").fill("20")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("20 a day, from midnight")).to_be_visible()
    await assert_accessible(page)
    await picture(page, "operator-direct-messages")
    await page.goto("/dashboard/personas/ballast")
    await expect(page.get_by_text("In Skerrow Harbour, the bot itself")).to_be_visible()
    await picture(page, "operator-face")
