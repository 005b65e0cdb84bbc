"""The documents on the dashboard, at desktop and phone width."""

import re

import pytest
from playwright.async_api import expect

from tests.browser.dashboard.conftest import assert_accessible

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("phone", [False, True])
async def test_a_document_is_found_read_and_left_for_another(dashboard, phone):
    page = await dashboard.open("/dashboard/docs", phone=phone, dark=phone)
    await assert_accessible(page)
    await page.get_by_role("link", name="Slash commands").first.click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Slash commands")
    await expect(page.get_by_role("region", name="Table 1")).to_contain_text("/finetune start")
    await assert_accessible(page)
    await page.get_by_role("link", name="first card").first.click()
    await expect(page).to_have_url(re.compile("/dashboard/docs/gate#measurements$"))
    await expect(page.get_by_role("heading", name="Measurements", exact=True)).to_be_in_viewport()
