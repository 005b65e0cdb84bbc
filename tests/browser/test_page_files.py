"""A command that takes a file, in the page."""

import pytest
from playwright.async_api import expect

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
