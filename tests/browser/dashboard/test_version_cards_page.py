"""The card of a version's prompts in Chromium: chosen and taken back, at desktop and phone width."""

import pytest
from playwright.async_api import expect

from tests.bot.version_rows import install_learned
from tests.browser.dashboard.conftest import assert_accessible

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("phone", [False, True])
async def test_the_short_card_is_chosen_and_taken_back(dashboard, phone):
    services = dashboard.stage.client.services
    versions = services.store.versions
    for short_card in (True, False):
        install_learned(services.store, services.home, short_card=short_card)
    page = await dashboard.open("/dashboard/personas/ballast/versions", phone=phone)
    await expect(page.get_by_role("button", name="Use the short card (v2)")).to_have_count(0)
    row = page.get_by_role("row").filter(has_text="v1")
    await expect(row).to_contain_text("full card")
    await assert_accessible(page)
    await page.get_by_role("button", name="Use the short card (v1)").click()
    await expect(page.get_by_role("status").first).to_contain_text(
        "v1 of Ballast speaks with its short card from the next reply on."
    )
    assert versions.card_of("ballast", "v1") == "short"
    await expect(row).to_contain_text("short card")
    await assert_accessible(page)
    await page.get_by_role("button", name="Use the full card (v1)").click()
    await expect(page.get_by_role("status").first).to_contain_text("its full card")
    assert versions.card_of("ballast", "v1") == "full"
