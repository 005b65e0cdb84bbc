"""The page of base models: the table, and the licence before a fetch."""

import pytest
from playwright.async_api import expect

from tests.bot.model_machine import COMMIT, MODEL, pretend_machine
from tests.browser.dashboard.conftest import assert_accessible
from tests.hub_server import Hub, Repository, reach

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    pretend_machine(monkeypatch)
    served = Hub({"Qwen/Qwen3-0.6B": Repository({COMMIT: MODEL}, {"main": COMMIT})})
    with served.serve() as address:
        reach(monkeypatch, address, str(tmp_path / "cache"))
        yield served


@pytest.mark.parametrize("phone", [False, True])
async def test_a_model_is_fetched_after_its_licence_was_accepted(dashboard, hub, phone):
    page = await dashboard.open("/dashboard/models", phone=phone, dark=phone)
    table = page.get_by_role("region", name="Models, table")
    await expect(table.get_by_role("rowheader", name="Qwen3 1.7B")).to_contain_text("recommended")
    await assert_accessible(page)
    await table.get_by_role("link", name="Fetch Qwen3 0.6B", exact=True).click()
    asked = page.get_by_role("region", name="Fetch Qwen3 0.6B")
    await expect(asked.get_by_role("link", name="Apache-2.0")).to_be_visible()
    await assert_accessible(page)
    await page.get_by_role("checkbox", name="I accept the licence").check()
    await page.get_by_role("button", name="Fetch", exact=True).click()
    ready = page.get_by_role("heading", name="qwen3-0.6b is here")
    await expect(ready).to_be_visible(timeout=10_000)
    await page.get_by_role("link", name="Serve it …").first.click()
    await expect(page.get_by_text(f"BASE_MODEL=Qwen/Qwen3-0.6B@{COMMIT}")).to_be_visible()
    await assert_accessible(page)


async def test_each_row_shows_its_actions_and_is_short(dashboard, hub):
    width = 390
    page = await dashboard.open("/dashboard/models", viewport={"width": width, "height": 800})
    table = page.get_by_role("region", name="Models, table")
    row = table.get_by_role("row").filter(has_text="Granite 4.0 Micro")
    for action in ("Fetch Granite 4.0 Micro", "Serve Granite 4.0 Micro"):
        box = await table.get_by_role("link", name=action, exact=True).bounding_box()
        assert box["x"] + box["width"] <= width
    await expect(row.get_by_text("Czech")).to_be_hidden()
    assert (await row.bounding_box())["height"] < 100
    await row.get_by_text("12", exact=True).click()
    await expect(row.get_by_text("Czech")).to_be_visible()
