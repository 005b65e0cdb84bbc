"""The playground in Chromium: replies as they are made, and duets; with and without scripts."""

import pytest
from playwright.async_api import expect

from bot.store import InstalledVersion
from bot.training.store import NewTrainingJob
from personas.schemas.training import TrainingRequest
from tests.browser.dashboard.conftest import assert_accessible
from tests.samples import SCORECARD

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROMPT = "Is the ferry late?"


def put_live(store, persona_id, version):
    request = TrainingRequest(job_name=version, persona=persona_id)
    store.jobs.add(NewTrainingJob(f"{persona_id}-{version}", 0, 0, 0, request), 1.0)
    store.versions.record_installed(
        InstalledVersion(persona_id, version, f"{persona_id}-{version}", 1.0, SCORECARD)
    )
    store.versions.promote(persona_id, version, 0, 1.0)


async def ask(page, *speakers, words=PROMPT):
    for label, speaker in zip(("Who answers", "Beside it"), speakers, strict=False):
        await page.get_by_label(label).select_option(label=speaker)
    await page.get_by_label("Your message").fill(words)
    await page.get_by_role("button", name="Ask").click()


@pytest.mark.parametrize("phone", [False, True])
async def test_two_answer_side_by_side_while_one_watches(dashboard, phone):
    stage = dashboard.stage
    put_live(stage.store, "ballast", "v1")
    page = await dashboard.open("/dashboard/play", phone=phone, dark=phone)
    await assert_accessible(page)
    stage.engine.free.clear()
    await page.get_by_text("Settings", exact=True).click()
    await page.get_by_label("Temperature").fill("0.5")
    await ask(page, "Ballast, live (v1)", "Oda Marrow (base model)")
    ballast = page.get_by_role("region", name="Ballast (v1)")
    await expect(ballast.locator(".words").last).to_have_text("Ballast ")
    await expect(ballast.get_by_text("generating")).to_be_visible()
    stage.engine.free.set()
    await expect(page.get_by_text("Ended: done.")).to_be_visible()
    await expect(ballast.get_by_text(f"Ballast hears: {PROMPT}", exact=True)).to_be_visible()
    await expect(page.get_by_role("region", name="Oda Marrow")).to_contain_text(
        f"Oda Marrow hears: {PROMPT}"
    )
    await expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    await assert_accessible(page)
    await ballast.get_by_text("AI-written").click()
    await expect(ballast.locator("pre")).to_have_text(f"<|user|>{PROMPT}")
    link = await page.get_by_role("link", name="New conversation").get_attribute("href")
    await page.get_by_label("Your next message").fill("And tomorrow?")
    await page.get_by_role("button", name="Ask").click()
    await expect(page.get_by_text("Ballast hears: And tomorrow?")).to_be_visible()
    assert stage.engine.requests[-2].turns[0].text == PROMPT
    await page.goto(link)
    await expect(page.get_by_label("Beside it")).to_have_value("oda@base")
    await expect(page.get_by_label("Temperature")).to_have_value("0.5")


async def test_stop_keeps_what_there_is_and_a_reload_loses_nothing(dashboard):
    stage = dashboard.stage
    stage.engine.free.clear()
    page = await dashboard.open("/dashboard/play")
    await ask(page, "Ballast, live (base model)")
    await expect(page.locator(".line .words")).to_have_text("Ballast ")
    await page.reload()
    await expect(page.locator(".line .words")).to_have_text("Ballast ")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_text("Ended: stopped.")).to_be_visible()
    await expect(page.locator(".line")).to_contain_text("· stopped")
    stage.engine.free.set()


@pytest.mark.parametrize("phone", [False, True])
async def test_a_duet_grows_line_by_line(dashboard, phone):
    stage = dashboard.stage
    said = iter(
        (["A boot ", "and a bell."], ["The bell ", "is mine."], ["You heard ", "it first."])
    )
    stage.engine.script = lambda _: next(said)
    stage.engine.free.clear()
    page = await dashboard.open("/dashboard/play", phone=phone)
    await page.get_by_text("Settings", exact=True).click()
    await page.get_by_label("Turns").fill("3")
    await page.get_by_label("They talk with each other").check()
    await ask(page, "Ballast (base model)", "Oda Marrow (base model)")
    await expect(page.locator(".transcript h3")).to_have_count(1)
    stage.engine.free.set()
    await expect(page.get_by_text("Ended: all turns taken.")).to_be_visible()
    assert await page.locator(".transcript h3").all_text_contents() == [
        "Ballast (base model)", "Oda Marrow (base model)", "Ballast (base model)",
    ]  # fmt: skip
    await expect(page.locator(".transcript .words")).to_have_text(
        ["A boot and a bell.", "The bell is mine.", "You heard it first."]
    )
    await expect(page.locator(".transcript")).to_contain_text("AI-written")
    await assert_accessible(page)


async def test_without_scripts_the_page_loads_again_until_the_reply_is_there(dashboard):
    stage = dashboard.stage
    stage.engine.free.clear()
    page = await dashboard.open("/dashboard/play", java_script_enabled=False)
    await ask(page, "Oda Marrow, live (base model)")
    await expect(page.get_by_text("generating")).to_be_visible()
    stage.engine.free.set()
    await expect(page.get_by_text("Ended: done.")).to_be_visible()
    await expect(page.get_by_text(f"Oda Marrow hears: {PROMPT}", exact=True)).to_be_visible()


async def test_columns_of_the_same_name_are_distinguished(dashboard):
    page = await dashboard.open("/dashboard/play")
    await ask(page, "Oda Marrow (base model)", "Oda Marrow (base model)")
    await expect(page.get_by_text("Ended: done.")).to_be_visible()
    for number in (1, 2):
        column = page.get_by_role("region", name=f"Oda Marrow (base model), {number}")
        await column.get_by_text("AI-written").click()
    await assert_accessible(page)
