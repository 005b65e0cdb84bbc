"""The replies written from a card in Chromium: read, changed and struck out, on a desk and on a phone."""

import pytest
from playwright.async_api import expect

from bot.training.store import NewTrainingJob
from personas.home.written_replies import (
    SUMMARY_FILE,
    WrittenReply,
    read_written,
    store_written,
    written_file,
)
from personas.schemas.training import TrainingRequest, WrittenReplies
from tests.browser.dashboard.conftest import Dashboard, assert_accessible

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
    await page.get_by_role("article", name="Reply 1").get_by_text("Strike out").click()
    await expect(page.get_by_role("status").first).to_contain_text("Struck out.")
    assert [reply.reply for reply in read_written(file)] == [
        REPLIES[1].reply,
        "He bites on Mondays, duck.",
    ]


async def test_choosing_the_card_chooses_its_recipe(dashboard: Dashboard) -> None:
    page = await dashboard.open("/dashboard/data/plan?persona=oda")
    await expect(page.get_by_label("Recipe", exact=True)).not_to_have_value("card")
    await page.get_by_label("Learns from").select_option("from:card")
    await expect(page.get_by_label("Recipe", exact=True)).to_have_value("card")
