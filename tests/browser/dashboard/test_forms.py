"""Forms in Chromium: what is wrong is told at the top, with links to the fields; with and without scripts."""

import pytest
from playwright.async_api import expect

from tests.browser.dashboard.conftest import assert_accessible

pytestmark = pytest.mark.asyncio(loop_scope="session")
PERSONA = "/dashboard/personas/ballast"


@pytest.mark.parametrize("scripts", [True, False])
async def test_a_fault_far_down_is_seen_at_once_and_leads_to_its_field(dashboard, scripts):
    page = await dashboard.open(PERSONA, java_script_enabled=scripts)
    await page.get_by_text("All else that the card holds").click()
    await page.locator("#more").fill("{bad json")
    await page.get_by_role("button", name="Save the card").click()
    summary = page.get_by_role("alert", name="There is a problem")
    await expect(summary).to_be_focused()
    await expect(summary).to_be_in_viewport()
    await expect(page).to_have_title("Error: Ballast: card · Understudy")
    if scripts:
        await assert_accessible(page)
    await summary.get_by_role("link", name="All else that the card holds").click()
    await expect(page.locator("#more")).to_be_focused()
    await expect(page.locator("#more")).to_be_in_viewport()
