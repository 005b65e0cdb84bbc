"""Files, stickers, polls and forwards in the page."""

import struct

import pytest
from playwright.async_api import expect

from tests.browser.panel import PICTURE

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_command_gets_the_file_that_is_chosen(sandbox, panelist, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    form = await nils.open_command("weigh")
    chooser = form.get_by_label("file required")
    await expect(chooser).to_be_focused()
    await form.get_by_role("button", name="Run").click()
    await expect(form.locator(".field .problem").first).not_to_be_empty()
    await chooser.set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"four"})
    await nils.fill_option("scale", "letters")
    await form.get_by_role("button", name="Run").click()
    await nils.sees("a.txt: 4 letters")
    await nils.say("/weigh these words stand for no file")
    await expect(form.get_by_label("file required")).to_have_value("")


def ogg_page(sample: int, data: bytes) -> bytes:
    """A page of Ogg, which ends with this sample; its checksum is left out."""
    head = struct.pack("<4sBBqIIIBB", b"OggS", 0, 0, sample, 1, 0, 0, 1, len(data))
    return head + data


async def test_a_sound_is_sent_as_a_voice_message_and_played(sandbox, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    page = nils.page
    more = page.get_by_role("button", name="Files, stickers and polls")
    sound = ogg_page(0, b"OpusHead") + ogg_page(3 * 48_000, b"sound")

    async def choose(name, data):
        async with page.expect_file_chooser() as chosen:
            await more.click()
            await page.get_by_role("menuitem", name="Send a voice message").click()
        file = {"name": name, "mimeType": "audio/ogg", "buffer": data}
        await (await chosen.value).set_files(file)

    await choose("words.ogg", b"no sound")
    await expect(page.locator(".writing .problem")).to_have_text(
        "words.ogg is not a sound in Ogg Opus."
    )
    await choose("words.ogg", sound)
    await expect(page.locator("#messages .voice")).to_contain_text("Voice message, 3 s")
    player = page.get_by_label("Voice message, 3 s")
    assert (await page.request.get(await player.get_attribute("src"))).ok
    (stored,) = [it for it in sandbox.messages("tavern") if it["attachments"]]
    assert stored["flags"] == 1 << 13 and stored["attachments"][0]["duration_secs"] == 3


async def test_a_sticker_a_poll_and_a_described_picture_are_sent_and_forwarded(sandbox, visit):
    nils = await visit(sandbox, "Nils", "tavern")
    page = nils.page
    more = page.get_by_role("button", name="Files, stickers and polls")
    await more.click()
    await page.get_by_role("menuitem", name="Wave").click()
    await expect(page.get_by_role("img", name="Sticker: Wave")).to_have_text("👋")

    await more.click()
    await page.get_by_role("menuitem", name="Create a poll").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Question").fill("Tea?")
    await dialog.get_by_label("Answers, one a line").fill("\n".join("x" * 11))
    await dialog.get_by_role("button", name="Post").click()
    await expect(dialog.locator(".field .problem").last).to_contain_text("at most 10 answers")
    await dialog.get_by_label("Answers, one a line").fill("yes\n\nno")
    await dialog.get_by_role("button", name="Post").click()
    await expect(page.locator(".poll li")).to_have_text(["yes", "no"])

    picture = {"name": "dot.png", "mimeType": "image/png", "buffer": PICTURE}
    async with page.expect_file_chooser() as chosen:
        await more.click()
        await page.get_by_role("menuitem", name="Upload files").click()
    await (await chosen.value).set_files(picture)
    await page.get_by_role("button", name="Describe dot.png").click()
    await dialog.get_by_label("Description").fill("a dot")
    await dialog.get_by_role("button", name="Save").click()
    await nils.say("look")
    said = await nils.sees("look")
    await expect(said.get_by_role("img", name="a dot")).to_be_visible()
    (stored,) = [it for it in sandbox.messages("tavern") if it["content"] == "look"]
    assert stored["attachments"][0]["description"] == "a dot"

    await nils.choose(said, "Forward")
    await page.get_by_role("menuitem", name="#cellar").click()
    await nils.go("cellar")
    copy = page.locator(".forwarded")
    await expect(copy).to_contain_text("look")
    await expect(copy.get_by_role("img", name="a dot")).to_be_visible()
