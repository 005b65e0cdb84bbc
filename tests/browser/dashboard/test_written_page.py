"""The replies written from a card in Chromium: read, changed and struck out, on a desk and on a phone."""

import asyncio
import json
from dataclasses import asdict

import pytest
from playwright.async_api import expect

from bot.training.store import NewTrainingJob
from personas.home.written_replies import (
    ATTEMPTS_FILE,
    SUMMARY_FILE,
    WrittenReply,
    read_written,
    store_written,
    written_file,
)
from personas.schemas.training import TrainingRequest, WrittenReplies
from personas.schemas.training_events import Phase
from tests.bot.web.training_runs import tell
from tests.browser.dashboard.conftest import Dashboard, assert_accessible
from tests.fakes import until

pytestmark = pytest.mark.asyncio(loop_scope="session")
REPLIES = [
    WrittenReply(1, "evening oda, it's pouring", "It's pouring, duck, so come in.", "small_talk"),
    WrittenReply(4, "are you a bot?", "A program writes me, and I am glad you asked.", "sincere", by="given"),
    WrittenReply(9, "tell me about the cat", "The one who breaks the cat, mind you.", "lore"),
]  # fmt: skip


@pytest.mark.parametrize("phone", [False, True])
async def test_a_reply_is_changed_and_another_struck_out(dashboard: Dashboard, phone: bool) -> None:
    stage = dashboard.stage
    request = TrainingRequest(job_name="oda-card", persona="oda", from_card=1, review=True)
    job = stage.store.jobs.add(NewTrainingJob("written", 0, 0, 0, request), 1.0)
    stage.store.jobs.fail(job, "3 replies wait to be read.", "Read them.", 2.0, can_resume=True)
    file = written_file(stage.client.services.home / "jobs" / "written")
    file.parent.mkdir(parents=True)
    store_written(file, REPLIES)
    dropped = {"breaks character": 9, "beside the point": 4}
    summary = WrittenReplies(teacher="big", licence="MIT", asked=12, kept=3, dropped=dropped)
    (file.parent / SUMMARY_FILE).write_text(summary.model_dump_json())
    page = await dashboard.open("/dashboard/training/written", phone=phone)
    await page.get_by_role("link", name="Written replies").click()
    await expect(page.get_by_text("big (MIT) wrote 3 replies")).to_be_visible()
    await assert_accessible(page)
    last = page.get_by_role("article", name="Reply 3")
    await last.get_by_role("textbox").fill("He bites on Mondays, duck.")
    await last.get_by_role("button", name="Change").click()
    await expect(page.get_by_role("status").first).to_contain_text("Changed.")
    await expect(page.get_by_role("article", name="Reply 3")).to_be_in_viewport()
    # What was typed in another reply is stored with whatever is pressed, and never lost unasked.
    await page.get_by_role("textbox", name="Reply 2").fill("A program, duck.")
    async with page.expect_event("dialog") as asked:
        leaving = asyncio.create_task(page.get_by_role("link", name="The run").click())
        dialog = await asked.value
        await dialog.dismiss()
    await leaving
    await page.get_by_role("article", name="Reply 1").get_by_text("Strike out").click()
    await expect(page.get_by_role("status").first).to_contain_text("Struck out.")
    assert [reply.reply for reply in read_written(file)] == [
        "A program, duck.",
        "He bites on Mondays, duck.",
    ]
    await assert_accessible(page)
    await page.get_by_role("article", name="Reply 1").get_by_text("Put back").click()
    await expect(page.get_by_role("status").first).to_contain_text("Put back.")
    assert len(read_written(file)) == 3


async def test_replies_appear_while_they_are_written(dashboard: Dashboard) -> None:
    stage = dashboard.stage
    request = TrainingRequest(job_name="oda-writes", persona="oda", from_card=1, review=True)
    stage.client.services.trainings.start(request, guild_id=0, job_id="writes")
    await until(lambda: stage.backend.busy)
    stage.backend.on_event(Phase(name="material", done=0.01, left_s=310))
    journal = written_file(stage.client.services.home / "jobs" / "writes").parent / ATTEMPTS_FILE
    journal.parent.mkdir(parents=True)

    def write(*replies: WrittenReply) -> None:
        lines = [{"number": reply.number, "reply": asdict(reply)} for reply in replies]
        journal.write_text("".join(json.dumps(line) + "\n" for line in ({}, *lines)))

    write(REPLIES[0])
    run = await dashboard.open("/dashboard/training/writes")
    reading = run.get_by_text("The time does not include the reading")
    await expect(reading).to_be_hidden()
    begun = Phase(name="writing replies", count=1, of=150, done=0.1, left_s=300)
    stage.backend.on_event(begun)
    tell(journal.parents[1], begun)
    await expect(run.locator("#position")).to_contain_text("writing replies, 1 of 150")
    await expect(reading).to_be_visible()
    tell(journal.parents[1], Phase(name="writing replies", count=2, of=150, left_s=290))
    await expect(run.locator("#position")).to_contain_text("writing replies, 2 of 150")
    page = await dashboard.open("/dashboard/training/writes/written")
    await expect(page.get_by_text("1 of 150 are written so far.")).to_be_visible()
    await assert_accessible(page)
    write(*REPLIES)
    # The page renews itself every five seconds, which is as long as is waited usually.
    await expect(page.get_by_text("3 of 150 are written so far.")).to_be_visible(timeout=20_000)
    await expect(page.get_by_text(REPLIES[2].reply)).to_be_visible()


async def test_choosing_the_card_chooses_its_recipe(dashboard: Dashboard) -> None:
    page = await dashboard.open("/dashboard/data/plan?persona=oda")
    await expect(page.get_by_label("Recipe", exact=True)).not_to_have_value("card")
    await page.get_by_label("Learns from").select_option("from:card")
    await expect(page.get_by_label("Recipe", exact=True)).to_have_value("card")
