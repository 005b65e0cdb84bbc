"""Forms in Chromium: what is wrong is told at the top, with links to the fields; with and without
scripts.
"""

import pytest
from playwright.async_api import expect

from bot.training.store import NewTrainingJob
from personas.schemas.training import TrainingRequest
from tests.browser.dashboard.conftest import assert_accessible

pytestmark = pytest.mark.asyncio(loop_scope="session")
PERSONA = "/dashboard/personas/ballast"


@pytest.mark.parametrize("scripts", [True, False])
async def test_a_fault_far_down_is_seen_at_once_and_leads_to_its_field(dashboard, scripts):
    page = await dashboard.open(PERSONA, java_script_enabled=scripts)
    await page.get_by_text("Other fields of the card").click()
    await page.locator("#more").fill("{bad json")
    await page.get_by_role("button", name="Save the card").click()
    summary = page.get_by_role("alert", name="There is a problem")
    await expect(summary).to_be_focused()
    await expect(summary).to_be_in_viewport()
    await expect(page).to_have_title("Error: Ballast: card · Understudy")
    if scripts:
        await assert_accessible(page)
    await summary.get_by_role("link", name="Other fields of the card").click()
    await expect(page.locator("#more")).to_be_focused()
    await expect(page.locator("#more")).to_be_in_viewport()


async def test_what_changes_is_where_the_page_is_after_asking_for_it(dashboard):
    dashboard.stage.store.jobs.add(
        NewTrainingJob("waits", 0, 0, 0, TrainingRequest(job_name="harbour", persona="ballast")),
        1.0,
    )
    page = await dashboard.open("/dashboard/training/waits/repeat")
    await page.locator("[id$=seed]").first.fill("11")
    await page.get_by_role("button", name="Show the changes").click()
    await expect(page.get_by_role("row", name="seed")).to_be_in_viewport()
    await expect(page.get_by_role("heading", name="Changes")).to_be_focused()
