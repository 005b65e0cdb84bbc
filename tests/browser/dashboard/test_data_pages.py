"""Data, as somebody uses it in Chromium: a file brought in, its right stated, a set built, browsed
and planned.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.bot.web.dataset_folders import TRAINER, put_set
from tests.browser.dashboard.conftest import Dashboard, assert_accessible

pytestmark = pytest.mark.asyncio(loop_scope="session")
TALK = json.dumps(
    {
        "messages": [
            {"role": "user", "content": "Who?"},
            {"role": "assistant", "content": "Me, as ever."},
        ]
    }
)
DROP = """([selector, name, text]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([text], name));
  document.querySelector(selector).dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
}"""
PASTE = """([selector, size]) => {
  const data = new DataTransfer();
  data.setData("text/plain", "Mina: hello there\\n".repeat(size));
  document.querySelector(selector).dispatchEvent(
    new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(autouse=True)
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trainer.py").write_text(TRAINER)
    monkeypatch.setattr(
        "bot.data.jobs.TRAINER_COMMAND", (sys.executable, str(tmp_path / "trainer.py"))
    )


def home_of(dashboard: Dashboard) -> Path:
    return dashboard.stage.client.services.home


async def state_right(page: Page) -> None:
    await page.get_by_label("Own writing").check()
    await page.get_by_label("Stated by").fill("Mina Vale")
    await page.get_by_label("Reason").fill("Written for this server; every author agreed.")
    await page.get_by_role("button", name="Save the statement").click()


@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
async def test_a_file_becomes_a_set_that_is_browsed_planned_and_trained_on(
    dashboard: Dashboard, phone: bool
) -> None:
    page = await dashboard.open("/dashboard/data", phone=phone, dark=phone)
    await assert_accessible(page)
    await page.get_by_label("File", exact=True).set_input_files(
        {"name": "talk.jsonl", "mimeType": "application/json", "buffer": TALK.encode()}
    )
    await page.get_by_role("button", name="Upload").click()
    await expect(page.get_by_role("heading", name="talk.jsonl", level=1)).to_be_visible()
    await expect(page.get_by_text("5 with 12 turns")).to_be_visible()
    await expect(page.get_by_text("cannot be trained on").first).to_be_visible()
    await assert_accessible(page)
    await state_right(page)
    await expect(page.get_by_role("status")).to_contain_text("can be trained on")

    await page.get_by_role("link", name="Build a data set from it").click()
    await page.get_by_label("Name", exact=True).fill("harbour")
    await page.get_by_label("Teaches").select_option(label="Ballast's voice")
    await assert_accessible(page)
    await page.get_by_role("button", name="Build", exact=True).click()
    await page.get_by_role("link", name="See its composition").click()
    await expect(page.get_by_role("heading", name="Composition")).to_be_visible()
    await assert_accessible(page)

    await (
        page.get_by_role("navigation", name="Data set harbour")
        .get_by_role("link", name="Samples")
        .click()
    )
    await page.get_by_role("link", name="held out").click()
    await expect(page.get_by_role("article")).to_have_count(6)
    await expect(page.get_by_role("article").locator("mark.name").first).to_have_text("Galen")
    await assert_accessible(page)

    await page.get_by_role("link", name="What was anonymised").click()
    await page.get_by_role("button", name="Not a name").click()
    await expect(page.get_by_role("button", name="Take back")).to_be_visible()
    await assert_accessible(page)

    await page.get_by_role("link", name="Composition").click()
    await page.get_by_role("link", name="Plan a training on it").click()
    await page.get_by_role("button", name="Plan it").click()
    await expect(page.get_by_role("heading", name="The plan")).to_be_visible()
    await assert_accessible(page)
    await page.get_by_role("button", name="Start").click()
    await expect(page).to_have_url(f"{dashboard.url}/dashboard/training/{await job_id(dashboard)}")


async def job_id(dashboard: Dashboard) -> str:
    for _ in range(100):
        if jobs := dashboard.stage.store.jobs.page(1):
            return jobs[0].job_id
        await asyncio.sleep(0.05)
    raise AssertionError("nothing was queued")


async def test_a_file_is_dropped_and_one_of_the_same_name_is_asked_about(
    dashboard: Dashboard,
) -> None:
    page = await dashboard.open("/dashboard/data")
    await page.evaluate(DROP, ["#drop", "talk.jsonl", TALK])
    await expect(page).to_have_url(f"{dashboard.url}/dashboard/data/uploads/talk.jsonl")
    await expect(page.get_by_text("5 with 12 turns")).to_be_visible()
    await page.goto("/dashboard/data")
    asked: list[str] = []

    async def refuse(dialog) -> None:
        asked.append(dialog.message)
        await dialog.dismiss()

    page.on("dialog", refuse)
    await page.evaluate(DROP, ["#drop", "talk.jsonl", "other"])
    await expect(page.locator("#upload-error")).to_contain_text(
        "There is a file talk.jsonl already"
    )
    assert (
        "Replace it?" in asked[0]
        and (home_of(dashboard) / "uploads" / "talk.jsonl").read_text() == TALK
    )
    await page.evaluate(DROP, ["#drop", "run.exe", "MZ"])
    await expect(page.locator("#upload-error")).to_contain_text("of an unsupported type")


async def test_a_long_export_is_pasted_straight_to_the_server(dashboard: Dashboard) -> None:
    page = await dashboard.open("/dashboard/data")
    await page.evaluate(PASTE, ["#text", 200_000])
    await expect(page).to_have_url(f"{dashboard.url}/dashboard/data/uploads/pasted.txt")
    assert (home_of(dashboard) / "uploads" / "pasted.txt").stat().st_size == 200_000 * 18


async def test_an_upload_shows_how_far_it_is_and_is_cancelled(dashboard: Dashboard) -> None:
    page = await dashboard.open("/dashboard/data")
    client = await page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 400_000}
    await client.send("Network.emulateNetworkConditions", slow)
    await page.evaluate(
        DROP.replace("new File([text]", "new File([text.repeat(4000)]"),
        ["#drop", "a.txt", "x" * 1000],
    )
    await expect(page.locator("#progress-words")).to_contain_text("% of 3.8 MiB")
    await page.locator("#name").click()  # Chromium asks nobody who has not touched the page
    async with page.expect_event("dialog") as asked:
        await page.close(run_before_unload=True)
    leaving = await asked.value
    assert leaving.type == "beforeunload"
    await leaving.dismiss()
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("status").first).to_contain_text("cancelled")
    for _ in range(100):
        if not list((home_of(dashboard) / "uploads").glob("*")):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("something of it is kept")


async def test_the_page_of_sources_and_sets_is_accessible_with_a_set_on_it(
    dashboard: Dashboard,
) -> None:
    put_set(home_of(dashboard) / "datasets" / "harbour")
    page = await dashboard.open("/dashboard/data")
    await expect(page.get_by_role("link", name="harbour", exact=True)).to_be_visible()
    await assert_accessible(page)
