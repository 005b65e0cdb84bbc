"""What has to be within reach on a phone: saving in a long form, and what can be done in a
table.
"""

import pytest
from playwright.async_api import expect

from bot.training.store import NewTrainingJob
from personas.schemas.training import TrainingRequest
from tests.bot.conftest import QUAY
from tests.bot.web.test_web_score_cards import put_two
from tests.browser.dashboard.conftest import assert_accessible

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


@pytest.mark.parametrize(
    "table", ["Versions", "Metrics, table", "Score cards of Ballast, table", "Runs"]
)
async def test_tables_need_no_scrolling_sideways_and_stay_tables(dashboard, table):
    stage = dashboard.stage
    put_two(stage.client.services.home, stage.store, stage.engine)
    stage.store.jobs.add(
        NewTrainingJob("waits", 0, 0, 0, TrainingRequest(job_name="harbour", persona="ballast")),
        1.0,
    )
    path = {
        "Versions": "/dashboard/personas/ballast/versions",
        "Metrics, table": "/dashboard/cards/ballast/v2",
        "Score cards of Ballast, table": "/dashboard/cards",
        "Runs": "/dashboard/training",
    }[table]
    page = await dashboard.open(path, phone=True)
    region = page.get_by_role("region", name=table, exact=True)
    assert not await region.evaluate(CUT_OFF)
    rows = region.get_by_role("table").get_by_role("row")
    heads = await rows.first.get_by_role("columnheader").count()
    for row in (await rows.all())[1:]:
        assert await row.get_by_role("rowheader").or_(row.get_by_role("cell")).count() == heads
        assert (
            len({(await cell.bounding_box())["x"] for cell in await row.get_by_role("cell").all()})
            == 1
        )
    await assert_accessible(page)


async def test_a_name_of_eighty_letters_widens_no_table(dashboard):
    stage = dashboard.stage
    page = await dashboard.open("/dashboard/personas/ballast")
    await page.get_by_label("Name", exact=True).fill("Wilhelmina" * 8)
    await page.get_by_role("button", name="Save the card").click()
    await expect(page.get_by_role("status").first).to_contain_text("speaks by this card")
    await stage.moderator.slash(QUAY, "persona mute", persona="ballast")
    request = TrainingRequest(job_name="harbour", persona="ballast")
    for number in range(2):
        stage.store.jobs.add(NewTrainingJob(f"waits-{number}", 0, 0, 0, request), 1.0 + number)
    tables = {
        "/dashboard": ["Jobs that wait"],
        "/dashboard/training": ["The queue", "Runs"],
        f"/dashboard/moderation/{stage.sandbox.guild_id}/rules": ["List of muted personas"],
    }
    for path, names in tables.items():
        page = await dashboard.open(path)
        for name in names:
            region = page.get_by_role("region", name=name, exact=True)
            assert not await region.evaluate(CUT_OFF), name
        await assert_accessible(page)
