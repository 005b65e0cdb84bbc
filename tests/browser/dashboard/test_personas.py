"""Personas in Chromium: a card is written and heard, lore is asked, a version goes live; at desktop
and phone width.
"""

import asyncio
import io
import re
import sys
import zipfile

import pytest
from playwright.async_api import expect

from tests.bot.test_bundled_adapter import sealed
from tests.bot.version_rows import install
from tests.browser.dashboard.conftest import assert_accessible
from tests.fakes import until
from tests.samples import SCORECARD

pytestmark = pytest.mark.asyncio(loop_scope="session")
GOOD = SCORECARD.model_copy(update={"verdict": "promote", "reasons": ("It fits better.",)})
PAGE = "/dashboard/personas/ballast"


def services(dashboard):
    return dashboard.stage.client.services


@pytest.mark.parametrize("phone", [False, True])
async def test_a_card_is_written_received_and_saved(dashboard, phone):
    page = await dashboard.open("/dashboard/personas", phone=phone, dark=phone)
    await assert_accessible(page)
    await page.get_by_role("link", name="Ballast").click()
    room = page.locator("#room [data-room=tokens]")
    before = int((await room.inner_text()).replace(",", ""))
    await page.get_by_label("Scenario").fill(
        "A quay at low tide, with gulls, and the second ledger open on a barrel."
    )
    await expect(room).not_to_have_text(f"{before:,}")
    await expect(page.locator("[data-count=scenario]")).not_to_have_text("0")
    await page.get_by_label("Name", exact=True).fill("Clyde")
    fault = page.locator("#name-error")
    await expect(fault).to_contain_text("without 'discord' or 'clyde'")
    await expect(page.get_by_label("Name", exact=True)).to_have_attribute("aria-invalid", "true")
    await page.get_by_label("Name", exact=True).fill("Bollard")
    await expect(fault).to_be_hidden()
    await page.get_by_label("Message", exact=True).fill("who are you?")
    dashboard.stage.engine.reply_flags = {"repeated": True}
    await page.get_by_label("Message", exact=True).press("Enter")
    await expect(page.locator("#made")).to_contain_text("in the prompt; ended at a repetition")
    dashboard.stage.engine.reply_flags = {}
    await expect(page.locator("#reply")).to_have_text("Bollard hears: who are you?")
    assert services(dashboard).engine.requests[-1].persona.scenario.startswith("A quay at low tide")
    assert services(dashboard).personas.get("ballast", 0).name == "Ballast"
    await assert_accessible(page)
    await page.get_by_role("button", name="Save the card").click()
    await expect(page.get_by_role("status").first).to_contain_text("Bollard speaks by this card")
    assert services(dashboard).personas.get("ballast", 0).name == "Bollard"
    await page.get_by_role("link", name="until").click()
    await expect(page.get_by_role("heading", name="Scenario")).to_be_visible()
    await assert_accessible(page)
    await page.get_by_role("button", name="Restore it").click()
    await expect(page.get_by_role("heading", name="Ballast")).to_be_visible()


async def test_what_is_written_before_the_page_is_ready_counts_too(dashboard):
    page = await dashboard.open("/dashboard/personas")
    ready = asyncio.Event()

    async def late(route):
        await ready.wait()
        await route.continue_()

    await page.route("**/personas.js*", late)
    await page.goto(page.url.replace("/personas", "/personas/ballast"), wait_until="commit")
    await page.get_by_label("Scenario").fill("A quay at low tide.")
    await expect(page.locator("#unsaved")).to_be_hidden()
    before = await page.locator("[data-count=scenario]").inner_text()
    ready.set()
    await expect(page.locator("#unsaved")).to_be_visible()
    await expect(page.locator("[data-count=scenario]")).not_to_have_text(before)


async def test_a_reply_can_be_stopped_and_another_greeting_has_room(dashboard):
    engine = dashboard.stage.engine
    engine.free.clear()
    page = await dashboard.open(PAGE)
    boxes = page.get_by_role("textbox", name="Other greetings")
    count = await boxes.count()
    await boxes.last.fill("Hoy!")
    await expect(boxes).to_have_count(count + 1)
    await page.get_by_label("Message", exact=True).fill("who are you?")
    await page.get_by_role("button", name="Say it").click()
    await expect(page.locator("#reply")).to_have_text("Ballast ")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_text("Stopped.")).to_be_visible()
    await until(lambda: not dashboard.stage.client.services.throttle.is_asked)
    engine.free.set()


@pytest.mark.parametrize("phone", [False, True])
async def test_lore_is_written_and_asked(dashboard, phone):
    page = await dashboard.open(f"{PAGE}/lore", phone=phone, dark=not phone)
    await page.get_by_label("Title").fill("The violet umbrella")
    await page.get_by_label("Text", exact=True).fill("An umbrella of violet silk hangs in the cab.")
    await page.get_by_role("button", name="Add").first.click()
    await expect(page.get_by_role("status").first).to_contain_text(
        "the-violet-umbrella.md is kept; 1 passage is found"
    )
    await page.get_by_label("Message", exact=True).fill("whose violet umbrella is that?")
    await page.get_by_role("button", name="Ask").click()
    best = page.get_by_role("article").first
    await expect(best).to_contain_text("given")
    await expect(best).to_contain_text("ballast/the-violet-umbrella.md")
    await expect(page.get_by_role("article").nth(3)).to_contain_text("room for 2 passages")
    await assert_accessible(page)
    await page.get_by_role("row").filter(has_text="the-piano.md").get_by_role("link").click()
    await expect(page.get_by_text("This file came with the bot.")).to_be_visible()
    text = page.get_by_label("Text", exact=True)
    tokens = await page.locator("[data-live]").inner_text()
    await text.fill(await text.input_value() + "\n\n## Zebras\n\nNo zebra plays it.\n")
    await expect(page.locator("[data-live]")).not_to_have_text(tokens)
    await assert_accessible(page)
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("row").filter(has_text="the-piano.md")).to_contain_text(
        "in place of the file that ships"
    )


@pytest.mark.parametrize("phone", [False, True])
async def test_a_version_goes_live_and_is_taken_back(dashboard, phone):
    for _ in range(2):
        install(dashboard.stage.store, guild=0, at=1_795_000_000.0, card=GOOD)
    page = await dashboard.open(f"{PAGE}/versions", phone=phone, dark=phone)
    await assert_accessible(page)
    await page.get_by_role("link", name="Promote v2").click()
    await expect(page.get_by_text("It fits better.")).to_be_visible()
    await assert_accessible(page)
    await page.get_by_role("button", name="Promote v2").click()
    await expect(page.get_by_role("status").first).to_contain_text(
        "v2 of Ballast is live from the next reply on."
    )
    assert services(dashboard).store.versions.live("ballast", 0) == "v2"
    await page.get_by_role("link", name="Roll back").click()
    await page.get_by_role("button", name="Roll back to the base model").click()
    await expect(page.get_by_role("status").first).to_contain_text(
        "The base model answers for Ballast"
    )
    await assert_accessible(page)
    await page.get_by_role("link", name="Delete v2").click()
    await assert_accessible(page)
    await page.get_by_role("button", name="Delete v2").click()
    await expect(page.get_by_role("row").filter(has_text="v2").first).to_contain_text("withdrawn")
    await expect(page.get_by_role("link", name=re.compile("v2$"))).to_have_count(0)


async def test_times_of_versions_are_the_readers_own(dashboard):
    install(dashboard.stage.store, guild=0, at=1_795_000_000.0, card=GOOD)
    page = await dashboard.open(f"{PAGE}/versions", locale="en-US", timezone_id="Asia/Tokyo")
    made = "Nov 18, 2026, 8:06 PM"
    await expect(page.get_by_role("row").filter(has_text="v1")).to_contain_text(made)


IMPORTER = """import shutil, sys, time
from pathlib import Path
source = next(word for word in sys.argv if word.startswith("--adapter=")).removeprefix("--adapter=")
print("… downloading, 40 % of 2 MiB", file=sys.stderr, flush=True)
here, out = Path(__file__).parent, Path(sys.argv[sys.argv.index("--out") + 1])
while not (here / "go").exists():
    time.sleep(0.02)
if source == "someone/broken":
    sys.exit("someone/broken has no adapter_config.json.")
assert "/" in source and (not source.endswith(".zip") or Path(source).read_bytes()[:2] == b"PK")
shutil.copytree(here / "adapter", out)
"""
"""Stands for `trainer import`: reports progress, waits for the file `go`, then writes an
adapter.
"""


async def test_an_adapter_comes_from_a_zip_or_a_hub_with_its_progress(
    dashboard, tmp_path, monkeypatch
):
    (tmp_path / "importer.py").write_text(IMPORTER)
    sealed(tmp_path / "adapter", "served", source={"name": "someone/harbour-lora"})
    command = (sys.executable, str(tmp_path / "importer.py"))
    monkeypatch.setattr("bot.versions.adapter_import.TRAINER_COMMAND", command)
    page = await dashboard.open(f"{PAGE}/versions")
    await page.get_by_role("button", name="Import").click()
    await expect(page.get_by_text("There is nothing to import.")).to_be_visible()
    await page.goto(f"{PAGE}/versions")
    await page.get_by_label("Or a zip").set_input_files(
        {"name": "a.bin", "mimeType": "a/b", "buffer": b"no zip"}
    )
    await page.get_by_role("button", name="Import").click()
    await expect(page.locator("#upload-error")).to_contain_text(
        "a.bin is no zip. Pack the adapter's folder"
    )

    with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
        archive.writestr("a/adapter_config.json", "{}")
    file = {"name": "harbour.zip", "mimeType": "application/zip", "buffer": packed.getvalue()}
    await page.get_by_label("Or a zip").set_input_files(file)
    await page.get_by_role("button", name="Import").click()
    await expect(page.get_by_text("downloading, 40 % of 2 MiB")).to_be_visible()
    await expect(page.get_by_label("Or a zip")).to_have_count(0)
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_label("Or a zip")).to_be_visible()
    await expect(page.locator("[data-work]")).to_contain_text("cancelled")
    assert services(dashboard).store.versions.installed("ballast") == []
    await page.get_by_label("Or a zip").set_input_files(file)
    await page.get_by_role("button", name="Import").click()
    await expect(page.locator("[data-work]")).to_contain_text("running")
    await assert_accessible(page)
    (tmp_path / "go").touch()
    await expect(
        page.get_by_text("The adapter of someone/harbour-lora is its version v1")
    ).to_be_visible()
    await expect(page.get_by_role("link", name="Promote v1")).to_be_visible()
    assert services(dashboard).store.versions.live("ballast", 0) is None
    await page.get_by_label("From a hub").fill("someone/broken")
    await page.get_by_role("button", name="Import").click()
    await expect(page.get_by_text("someone/broken has no adapter_config.json.")).to_be_visible()
    await page.get_by_label("From a hub").fill("../etc")
    await page.get_by_role("button", name="Import").click()
    await expect(page.get_by_text("There is no adapter '../etc'.")).to_be_visible()
