"""The first page: who speaks, what is being trained, what wants attention; at desktop and phone
width.
"""

import re

import pytest
from playwright.async_api import expect

from bot.demo_guild import MEMBER
from bot.web_server import SECTIONS
from personas.schemas.training_events import Progress
from tests.bot.conftest import INN, QUAY
from tests.browser.dashboard.conftest import assert_accessible
from tests.fakes import until

PROGRESS = Progress(
    step=42,
    of=120,
    epoch=1.2,
    loss=2.913,
    lr=3e-4,
    tokens_per_s=412,
    eta_s=185,
    done=0.42,
    left_s=305,
    memory_bytes=2**31,
)
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
    training = page.get_by_role("region", name="Training")
    await expect(training).to_contain_text("Ballast v1")
    await expect(training).to_contain_text("requested by Mina Vale")
    stage.backend.on_event(PROGRESS)
    await expect(training).to_contain_text(
        re.compile(r"42 % · training · ready in about 5 min\s+Step 42 of 120, loss 2.913")
    )
    await expect(training.get_by_role("progressbar")).to_have_attribute("value", "0.42")
    await stage.moderator.slash(INN, "finetune start")
    row = page.get_by_role("row").filter(has_text="Oda Marrow v1")
    await expect(row).to_contain_text("Mina Vale")
    await expect(row.locator("time").first).to_have_attribute("title", re.compile("UTC"))
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


async def test_on_a_phone_a_menu_leads_to_all_sections_and_cuts_none(dashboard):
    page = await dashboard.open("/dashboard/system", phone=True)
    sections = page.get_by_role("navigation", name="Dashboard").get_by_role("link")
    await expect(sections).to_have_count(0)
    await page.get_by_role("button", name="Menu").press("Enter")
    await expect(sections).to_have_count(len(SECTIONS) + 2)  # with the overview and the guild
    for section in await sections.all():
        await expect(section).to_be_in_viewport(ratio=1)
    await assert_accessible(page)
    await page.get_by_role("link", name="Score cards").click()
    await expect(page.get_by_role("button", name="Menu, now: Score cards")).to_be_visible()
