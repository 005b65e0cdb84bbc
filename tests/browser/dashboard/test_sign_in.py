"""Signing in and out, by keyboard, where the door demands a token."""

import pytest
from playwright.async_api import expect

from bot.platform.web_kit.auth import Authenticator
from tests.bot.web.conftest import dashboard_in
from tests.browser.dashboard.conftest import Dashboard, assert_accessible

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOKEN = "correct-horse-battery-staple"


@pytest.mark.parametrize("phone", [False, True])
async def test_one_signs_in_goes_where_one_wanted_and_signs_out(tmp_path, browser, phone):
    async with dashboard_in(tmp_path, Authenticator(TOKEN)) as dashboard_client:
        dashboard = Dashboard(browser, dashboard_client.url)
        page = await dashboard.open("/dashboard/training", phone=phone, dark=phone)
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        await expect(page.get_by_label("Token")).to_be_focused()
        await page.keyboard.type("not the token at all")
        await page.keyboard.press("Enter")
        await expect(page.get_by_label("Token")).to_have_accessible_description(
            "That is not the token."
        )
        await assert_accessible(page)
        await page.get_by_label("Token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Training", exact=True)).to_be_visible()
        assert page.url == f"{dashboard_client.url}/dashboard/training"
        assert await page.evaluate("document.cookie") == "", "no script can read the session"
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("status")).to_have_text("You are signed out.")
        await page.goto("/dashboard")
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        await dashboard.close()
