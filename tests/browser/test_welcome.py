"""What a newcomer sees of the local guild: its welcome, and nothing that is for a bot's developers."""

import pytest
from playwright.async_api import expect

from tests.bot.conftest import QUAY
from tests.browser.conftest import PHONE

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_welcome_says_who_one_is_and_what_to_try_until_it_is_dismissed(staged, visit):
    mina = await visit(staged.sandbox, "Mina Vale", QUAY)
    welcome = mina.page.get_by_role("region", name="Welcome")
    await expect(welcome.get_by_role("heading")).to_have_text("Welcome to Skerrow Harbour")
    lines = welcome.get_by_role("paragraph")
    await expect(lines).to_have_count(3)
    await expect(lines.first).to_contain_text("You are Mina Vale (Moderator).")
    await mina.act_as("Tobias Reed")
    await expect(lines.first).to_contain_text("You are Tobias Reed (Regular).")
    await mina.has_no_serious_problem()
    await welcome.get_by_role("button", name="Dismiss the welcome").press("Enter")
    await expect(welcome).to_be_hidden()
    await expect(mina.box).to_be_focused()
    await mina.page.reload()
    await expect(mina.page.locator("#acting b")).to_have_text("Tobias Reed")
    await expect(welcome).to_be_hidden()


async def test_on_a_phone_the_welcome_is_a_line_that_opens(staged, visit):
    mina = await visit(staged.sandbox, "Mina Vale", QUAY, viewport=PHONE)
    welcome = mina.page.get_by_role("region", name="Welcome")
    lines = welcome.get_by_role("paragraph")
    await expect(lines.first).to_be_hidden()
    box = await welcome.bounding_box()
    assert box is not None and box["height"] < PHONE["height"] / 10
    await welcome.get_by_text("Welcome to Skerrow Harbour").click()
    await expect(lines.first).to_contain_text("You are Mina Vale (Moderator).")
    await mina.act_as("Tobias Reed")
    await expect(lines.first).to_contain_text("You are Tobias Reed (Regular).")
    await mina.has_no_serious_problem()
    await mina.fits()


async def test_what_is_for_developers_is_shown_when_it_is_switched_on(staged, visit):
    mina = await visit(staged.sandbox, "Mina Vale", QUAY)
    bench = mina.page.get_by_role("button", name="Bench")
    members = mina.page.get_by_role("complementary", name="Members")
    await expect(members).to_contain_text("Understudy")
    await expect(members).not_to_contain_text("under test")
    await expect(bench).to_be_hidden()
    switch = mina.page.get_by_role("menuitemradio", name="Developer tools")
    await mina.page.locator("#acting").click()
    await switch.click()
    await bench.click()
    await expect(mina.page.get_by_role("complementary", name="Bench")).to_be_visible()
    await mina.page.reload()
    await expect(bench).to_be_visible()
    await bench.click()
    await mina.page.locator("#acting").click()
    await switch.click()
    await expect(bench).to_be_hidden()
    await expect(members).to_be_visible()
