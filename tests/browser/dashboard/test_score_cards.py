"""Score cards and the blind comparison in a browser, at desktop and phone width."""

import re

import pytest
from playwright.async_api import expect

from tests.bot.web.test_web_score_cards import put_two
from tests.browser.dashboard.conftest import assert_accessible, unfold

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def versions(dashboard):
    """Two versions of Ballast with whole cards; the first one speaks."""
    stage = dashboard.stage
    put_two(stage.client.services.home, stage.store, stage.engine)
    return stage


@pytest.mark.parametrize("phone", [False, True])
async def test_from_the_list_to_a_card_and_to_two_of_them(dashboard, versions, phone):
    page = await dashboard.open("/dashboard/cards", phone=phone, dark=phone)
    await assert_accessible(page)
    await page.get_by_role("link", name="v1", exact=True).click()
    await expect(page.get_by_role("heading", name="gate said promote")).to_be_visible()
    await assert_accessible(page)
    await unfold(page)
    metrics = page.get_by_role("region", name="Metrics, table")
    voice = metrics.get_by_role("row").filter(has_text="voice")
    await expect(voice.get_by_role("cell")).to_have_count(2)
    chart = page.get_by_role("img", name=re.compile("Loss on held-out replies"))
    await expect(chart).to_be_visible()
    names = chart.locator(".row-name")
    cut = "(name) => name.scrollWidth > name.clientWidth"
    assert not any([await name.evaluate(cut) for name in await names.all()])
    await assert_accessible(page)
    await page.get_by_label("Beside it").select_option("ballast/v2")
    await page.get_by_role("button", name="Show", exact=True).click()
    await expect(voice.get_by_role("cell").nth(1)).to_contain_text("✓ pass")
    await expect(voice.get_by_role("cell").nth(2)).to_contain_text("✗ fail")
    await expect(page.get_by_text("said by new")).to_have_count(2)
    await unfold(page)
    row = page.get_by_role("row").filter(has_text="right with lore")
    await expect(row).to_contain_text("0.750")
    await assert_accessible(page)


@pytest.mark.parametrize("phone", [False, True])
async def test_two_replies_are_compared_blindly(dashboard, versions, phone):
    page = await dashboard.open("/dashboard/cards/compare", phone=phone, dark=phone)
    await page.get_by_label("Persona").select_option("Ballast")
    await page.get_by_role("button", name="Choose").click()
    await page.get_by_role("button", name="Show me two replies").click()
    replies = page.get_by_role("article")
    await expect(replies).to_have_count(2)
    shown = " ".join(await replies.all_inner_texts())
    assert "Take" in shown and not re.search(r"\bv1\b|\bv2\b|base", shown), (
        "nothing tells who wrote which"
    )
    await assert_accessible(page)
    await page.get_by_role("button", name="Tie").click()
    await expect(page.get_by_text("Your vote: a tie. A was v")).to_be_visible()
    await expect(page.get_by_text("1 by 1 person")).to_be_visible()
    await assert_accessible(page)
    await page.get_by_role("button", name="Another").click()
    await expect(page.get_by_role("article")).to_have_count(2)
    await expect(page.get_by_role("button", name="Both bad")).to_be_visible()
