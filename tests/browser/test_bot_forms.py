"""The bot's forms with menus and files, by hand: a report, a training once more, a picture."""

import pytest
from playwright.async_api import expect

from tests.bot.conftest import MEMBER, MODERATOR, OFFICE, QUAY
from tests.browser.conftest import DESKTOP, PHONE
from tests.personas.cards import PIXEL

pytestmark = pytest.mark.asyncio(loop_scope="session")
SCREENS = pytest.mark.parametrize(
    ("scheme", "viewport"),
    [("light", DESKTOP), pytest.param("dark", PHONE, marks=pytest.mark.slow)],
    ids=["desktop", "phone"],
)


async def checked(visitor, title):
    """An open form, which is accessible and not cut off."""
    dialog = visitor.page.get_by_role("dialog", name=title)
    await expect(dialog).to_be_visible()
    await visitor.has_no_serious_problem()
    await visitor.fits()
    assert not await dialog.evaluate("dialog => dialog.scrollWidth - dialog.clientWidth")
    return dialog


@SCREENS
async def test_a_reply_is_reported_with_a_reason_and_a_note(staged, visit, scheme, viewport):
    mark = staged.mark
    await staged.member.say(QUAY, "How heavy?")
    await staged.finished(QUAY, mark)
    tobias = await visit(
        staged.sandbox, MEMBER, QUAY, color_scheme=scheme, viewport=viewport, has_touch=True
    )
    await tobias.choose(await tobias.sees("AI-written"), "Report this reply")
    form = await checked(tobias, "Report this reply")
    reason = form.get_by_label("What is wrong with this reply?")
    await expect(reason).to_be_focused()
    submit = form.get_by_role("button", name="Submit")
    await submit.press("Enter")
    await expect(form.get_by_text("Make a selection.")).to_be_visible()
    await reason.press("Enter")
    await tobias.page.get_by_role("option", name="False, and it matters").press("Enter")
    await form.get_by_label("Note").fill("It weighs less.")
    await submit.press("Enter")
    await tobias.sees("Thank you.")
    (report,) = staged.store.reports.latest(int(staged.sandbox.guild_id), 2)
    assert (report.reason, report.note) == ("false", "It weighs less.")


@SCREENS
async def test_a_persona_gets_a_picture(staged, visit, tmp_path, scheme, viewport):
    mina = await visit(staged.sandbox, MODERATOR, OFFICE, color_scheme=scheme, viewport=viewport)
    await mina.command("persona create")
    dialog = mina.page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("Marlow Finch")
    await dialog.get_by_label("Who are they?").fill("Marlow repairs clocks.")
    await dialog.get_by_role("button", name="Submit").click()
    created = await mina.sees("is a persona of this server now")
    button = created.get_by_role("button", name="Picture or card")
    await button.click()
    form = await checked(mina, "Picture of Marlow Finch")
    upload = form.get_by_label("Picture or card")
    for name, content, words in (
        ("notes.txt", b"a note", "is not a picture"),
        ("face.png", PIXEL, "has this picture from the next reply on"),
    ):
        (tmp_path / name).write_bytes(content)
        await upload.set_input_files(tmp_path / name)
        await form.get_by_role("button", name="Submit").click()
        answer = await mina.sees(words)
        if name == "notes.txt":
            await answer.get_by_role("button", name="Try again").click()
    persona = staged.client.services.personas.find("marlow-finch", int(staged.sandbox.guild_id))
    assert persona.avatar.read_bytes() == PIXEL
