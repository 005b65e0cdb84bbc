"""What has to be within reach on a phone: saving in a long form, and what can be done in a
table.
"""

import pytest
from playwright.async_api import expect

from bot.training.store import NewTrainingJob
from personas.schemas.training import TrainingRequest
from tests.bot.web.test_web_score_cards import put_two
from tests.browser.dashboard.conftest import assert_accessible, unfold

pytestmark = pytest.mark.asyncio(loop_scope="session")
CUT_OFF = "(region) => region.scrollWidth > region.clientWidth"


async def test_saving_is_within_reach_from_the_first_field_to_the_last(dashboard):
    page = await dashboard.open("/dashboard/personas/ballast", phone=True)
    save = page.get_by_role("button", name="Save the card")
    for field in ("Name", "Personality", "Licence"):
        await page.get_by_label(field, exact=True).focus()
        await expect(save).to_be_in_viewport(ratio=1)
    over = (
        "document.activeElement.getBoundingClientRect().bottom - "
        "document.querySelector('.bar').offsetTop + scrollY"
    )
    assert await page.evaluate(over) <= 0, "what has the focus is not behind it"
    count = page.locator(".bar [data-room=tokens]")
    before = await count.inner_text()
    await page.get_by_label("Scenario").fill("A quay at low tide, with gulls on every barrel.")
    await expect(count).not_to_have_text(before)
    await page.get_by_label("Name", exact=True).press("Enter")
    await expect(page.get_by_role("status").first).to_contain_text("speaks by this card")


async def test_tables_need_no_scrolling_sideways_and_stay_tables(dashboard):
    stage = dashboard.stage
    put_two(stage.client.services.home, stage.store, stage.engine)
    stage.store.jobs.add(
        NewTrainingJob("waits", 0, 0, 0, TrainingRequest(job_name="harbour", persona="ballast")),
        1.0,
    )
    page = await dashboard.open("/dashboard", phone=True)
    for table, path in {
        "Versions": "/dashboard/personas/ballast/versions",
        "Metrics, table": "/dashboard/cards/ballast/v2",
        "Score cards of Ballast, table": "/dashboard/cards",
        "Runs": "/dashboard/training",
    }.items():
        await page.goto(path)
        await unfold(page)
        region = page.get_by_role("region", name=table, exact=True)
        assert not await region.evaluate(CUT_OFF), table
        rows = region.get_by_role("table").get_by_role("row")
        heads = await rows.first.get_by_role("columnheader").count()
        for row in (await rows.all())[1:]:
            cells = row.get_by_role("cell")
            assert await row.get_by_role("rowheader").or_(cells).count() == heads, table
            assert len({(await cell.bounding_box())["x"] for cell in await cells.all()}) == 1
        await assert_accessible(page)
