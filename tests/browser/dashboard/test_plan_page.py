"""The plan of a training in Chromium: it is waited for, come back to, and marked where the form has
changed since.
"""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page, expect

from bot.training.training_plan import MaskPreview, TrainingPlan
from personas.schemas.training import TrainingRequest
from tests.browser.dashboard.conftest import Dashboard, assert_accessible
from tests.fakes import PLAN

pytestmark = pytest.mark.asyncio(loop_scope="session")
CARD = "".join(f"{n}. Oda keeps the tea room and speaks of it.\n" for n in range(200))
MASK = MaskPreview(
    parts=((f"{CARD}Mina: Who are you?\n", False), ("Oda, love.", True)),
    tokens=1_600,
    trained_tokens=6,
)
RECORD = """() => new MutationObserver(() => {
  sessionStorage.said = document.getElementById("busy").textContent;
  sessionStorage.disabled = document.querySelector("button.primary").disabled;
}).observe(document.getElementById("plan-form"), { subtree: true, childList: true, attributes: true })"""
"""What the page says while it waits, kept until the next one: Playwright itself waits for that."""


@pytest.fixture(autouse=True)
def planning(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    async def plan(request: TrainingRequest, guild_id: int = 0) -> TrainingPlan:
        await asyncio.sleep(0.1)
        return PLAN.model_copy(update={"masks": (MASK,), "sources": {"ballast.json": 3000}})

    monkeypatch.setattr(dashboard.stage.backend, "plan", plan)


BOX_AND_MARK = (
    "box => [box, box.querySelector('mark')].map(one => one.getBoundingClientRect().toJSON())"
)


async def planned(page: Page) -> None:
    await page.get_by_role("button", name="Plan it").click()
    await expect(page.get_by_role("heading", name="The plan")).to_be_visible()


async def test_a_plan_is_waited_for_visibly_and_back_leads_to_it_again(
    dashboard: Dashboard,
) -> None:
    page = await dashboard.open("/dashboard/data/plan?persona=oda")
    await page.evaluate(RECORD)
    await planned(page)
    said, disabled = await page.evaluate("[sessionStorage.said, sessionStorage.disabled]")
    assert said.startswith("Planning") and disabled == "true"
    address = page.url
    await page.get_by_role("link", name="Training", exact=True).click()
    await expect(page.get_by_role("heading", name="Training", exact=True)).to_be_visible()
    await page.go_back()
    await expect(page.get_by_role("heading", name="The plan")).to_be_visible()
    assert page.url == address
    await expect(page.get_by_role("button", name="Plan it")).to_be_enabled()
    await page.go_back()
    await expect(page.get_by_role("button", name="Plan it")).to_be_enabled()
    await expect(page.locator("#busy")).to_have_text("")


async def test_a_plan_is_marked_while_the_form_has_other_settings(dashboard: Dashboard) -> None:
    page = await dashboard.open("/dashboard/data/plan?persona=oda&settings=num_train_epochs=2")
    await planned(page)
    marked = page.get_by_text("The settings have changed since")
    settings = page.get_by_label("Settings other than the recipe's")
    await expect(marked).to_be_hidden()
    await settings.fill("num_train_epochs=1")
    await expect(marked).to_be_visible()
    await expect(page.get_by_text("Start queues what the form says now")).to_be_visible()
    await assert_accessible(page)
    await settings.fill("num_train_epochs=2")
    await expect(marked).to_be_hidden()
    await page.get_by_label("Persona").select_option("ballast")
    await expect(marked).to_be_visible()
    await planned(page)
    await expect(marked).to_be_hidden()


async def test_what_is_learned_of_a_sample_is_seen_once_it_is_unfolded(
    dashboard: Dashboard,
) -> None:
    page = await dashboard.open("/dashboard/data/plan?persona=oda", phone=True)
    await planned(page)
    await page.get_by_text("A sample as the model sees it", exact=True).click()
    box = page.get_by_role("article", name="Sample 1").locator("pre.mask").last
    await expect(box.locator("mark")).to_be_visible()
    around, mark = await box.evaluate(
        BOX_AND_MARK
    )  # at one moment: the page may still be moving as its charts come
    assert around["top"] <= mark["top"] and mark["bottom"] <= around["bottom"]
    await page.get_by_text("What comes before, about").click()
    await expect(page.get_by_text("0. Oda keeps the tea room").first).to_be_visible()
