"""The first page: who speaks, what is being trained, what wants attention; at desktop and phone
width.
"""

import re

import pytest
from playwright.async_api import expect

from bot.demo_guild import MEMBER
from tests.bot.conftest import QUAY
from tests.browser.dashboard.conftest import assert_accessible
from tests.fakes import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("phone", [False, True])
async def test_the_overview_tells_who_speaks_and_what_trains(dashboard, phone):
    stage = dashboard.stage
    await stage.moderator.slash(QUAY, "finetune start")
    await until(lambda: stage.backend.busy)
    page = await dashboard.open("/dashboard", phone=phone, dark=phone)
    ballast = page.get_by_role("article").filter(has_text="Ballast")
    await expect(ballast).to_contain_text("#weighbridge-quay")
    await expect(ballast).to_contain_text("base model")
    await expect(ballast).to_contain_text("in training")
    await expect(page.get_by_role("row").filter(has_text="ballast v1")).to_contain_text("running")
    await expect(page.locator("time").first).to_have_attribute("title", re.compile("UTC"))
    await assert_accessible(page)


async def test_one_gets_there_from_the_guild_and_back(dashboard, visit):
    tobias = await visit(dashboard.stage.sandbox, MEMBER, QUAY)
    await tobias.page.get_by_role("link", name="Dashboard").click()
    await expect(tobias.page.get_by_role("heading", name="Overview")).to_be_visible()
    await tobias.page.get_by_role("link", name="The guild").click()
    await expect(tobias.page.locator("#room")).to_be_visible()


async def test_what_is_not_there_is_reported_on_a_page_and_the_keyboard_goes_past_the_navigation(
    dashboard,
):
    page = await dashboard.open("/dashboard/nowhere")
    await expect(page.get_by_role("heading", name="Not found")).to_be_visible()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    await assert_accessible(page)


async def test_without_scripts_the_page_says_the_same(dashboard):
    page = await dashboard.open("/dashboard", java_script_enabled=False)
    await expect(page.get_by_role("article")).to_have_count(3)


async def test_the_first_press_of_tab_leads_past_the_navigation(dashboard):
    for phone in (False, True):
        page = await dashboard.open("/dashboard/system", phone=phone)
        await expect(page.get_by_role("link", name="System", exact=True)).to_be_in_viewport(ratio=1)
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
