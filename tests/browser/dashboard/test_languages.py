"""Pages in other languages, whose words are longer: nothing leaves the window, and scripts speak
the page's language.
"""

import pytest
from playwright.async_api import expect

from tests.bot.model_machine import pretend_machine
from tests.bot.web.dataset_folders import put_set
from tests.bot.web.test_web_score_cards import put_two
from tests.browser.dashboard.conftest import assert_accessible

pytestmark = pytest.mark.asyncio(loop_scope="session")
PAGES = (
    "/dashboard",
    "/dashboard/personas/ballast",
    "/dashboard/personas/ballast/versions",
    "/dashboard/cards/ballast/v1",
    "/dashboard/data",
    "/dashboard/data/build",
    "/dashboard/data/plan",
    "/dashboard/data/sets/harbour",
    "/dashboard/data/sets/harbour/samples",
    "/dashboard/play",
    "/dashboard/models",
    "/dashboard/system",
)
TOO_WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("locale", "phone"),
    [
        ("de-DE", True),
        pytest.param("de-DE", False, marks=slow),
        pytest.param("vi-VN", True, marks=slow),
        pytest.param("vi-VN", False, marks=slow),
        pytest.param("zh-CN", True, marks=slow),
        pytest.param("zh-CN", False, marks=slow),
    ],
)
async def test_no_word_leaves_the_window(dashboard, monkeypatch, locale, phone):
    pretend_machine(monkeypatch)
    stage = dashboard.stage
    home = stage.client.services.home
    put_two(home, stage.store, stage.engine)
    put_set(home / "datasets" / "harbour")
    for path in PAGES:
        page = await dashboard.open(path, phone=phone, locale=locale, dark=locale == "vi-VN")
        language = {"zh-CN": "zh-Hans"}.get(locale, locale[:2])
        await expect(page.locator("html")).to_have_attribute("lang", language)
        assert not await page.evaluate(TOO_WIDE), path
        await assert_accessible(page)


async def test_what_a_script_shows_is_in_the_pages_language(dashboard):
    page = await dashboard.open("/dashboard/new-persona", locale="de-DE")
    name = page.get_by_label("Name", exact=True)
    await name.fill("Runa")
    await page.get_by_label("Wer ist die Persona?").fill("You are Runa, who rows the ferry.")
    await expect(page.locator("#tokens")).to_contain_text("Token jedes Prompts")
    await name.fill("")
    await expect(page.locator("#shown-name")).to_have_text("Ihr Name")
