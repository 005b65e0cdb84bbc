"""The bot lived in, through the page: what members, moderators and newcomers do in a day."""

import re

import pytest
from playwright.async_api import expect

from bot.app import open_app
from bot.demo_guild import MEMBER, MODERATOR, NEWCOMER
from bot.safety.actions import DISCLOSURE
from bot.settings import load_settings
from personas.home.job_material import ShippedData
from tests.bot.conftest import INN, QUAY
from tests.browser.conftest import PHONE
from tests.fakes import until
from tests.hostile_text import FRAGMENTS, PHRASES

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRAINING_MS = 120_000


def button(message, name):
    return message.get_by_role("button", name=name, exact=True)


async def test_a_member_stops_a_reply_has_it_made_anew_and_votes(staged, visit):
    tobias = await visit(staged.sandbox, MEMBER, QUAY)
    staged.engine.free.clear()
    await tobias.say("tell me a long story")
    growing = tobias.page.locator("#messages article").filter(has=button(tobias.page, "Stop")).last
    await button(growing, "Stop").click()
    stopped = await tobias.sees("· stopped")
    staged.engine.free.set()
    await button(stopped, "🔄 Regenerate").click()
    again = await tobias.sees("Ballast hears: tell me a long story")
    await expect(again.locator(".content")).not_to_contain_text("stopped")
    await button(again, "👍").click()
    await expect(button(again, "👍 1")).to_be_visible()
    assert len(staged.engine.requests) == 2


async def test_hostile_text_is_shown_as_text(staged, visit):
    hostile = [*FRAGMENTS, *(one[:60] for one in PHRASES)]
    replies = iter([hostile[start::6] for start in range(6)])
    staged.engine.script = lambda request: [f"{one}\n" for one in next(replies)]
    tobias = await visit(staged.sandbox, MEMBER, QUAY)
    for number in range(6):
        await tobias.say(f"question {number}")
        await until(lambda wanted=number + 1: len(staged.engine.requests) == wanted)
        await expect(
            tobias.page.locator("#messages .subtext", has_text="AI-written · base model")
        ).to_have_count(number + 1)
    said = (
        tobias.page.locator("#messages article")
        .filter(has=tobias.page.locator(".subtext"))
        .locator(".content")
    )
    assert await said.locator("a").count() == 0 and await said.locator(".mention").count() == 0
    notes = await said.locator(".subtext").all_inner_texts()
    greeting, first, disclosure, *others = notes
    assert greeting == "a greeting by this persona's author" and len(others) == 5
    assert disclosure == DISCLOSURE.removeprefix("-# ")
    assert all(note.startswith("AI-written · base model") for note in (first, *others))
    assert "@everyone" in re.sub("\u200b", "", " ".join(await said.all_inner_texts())), (
        "what was written can be read"
    )


async def test_the_reply_button_opens_a_form_and_what_is_written_there_is_answered(staged, visit):
    tobias = await visit(staged.sandbox, MEMBER, INN, viewport=PHONE)
    await tobias.say("good evening")
    reply = await tobias.sees("Oda Marrow hears: good evening")
    await button(reply, "↩️ Reply").click()
    form = tobias.page.get_by_role("dialog")
    await form.get_by_label("What you want to say").fill("and is there soup?")
    await form.get_by_role("button", name="Submit").click()
    await tobias.sees("Oda Marrow hears: and is there soup?")
    await tobias.fits()


async def test_a_member_has_a_reply_remembered_from_its_menu_and_changes_it(staged, visit):
    tobias = await visit(staged.sandbox, MEMBER, QUAY)
    await tobias.say("the heron nests in June")
    await tobias.choose(
        await tobias.sees("Ballast hears: the heron nests in June"), "Remember this"
    )
    kept = await tobias.sees("(number 1)")
    await button(kept, "Edit").click()
    form = tobias.page.get_by_role("dialog")
    await expect(form.get_by_label("What it should remember")).to_have_value(
        "Ballast hears: the heron nests in June"
    )
    await form.get_by_label("What it should remember").fill("the heron nests in May")
    await form.get_by_role("button", name="Submit").click()
    await tobias.sees("Changed: “the heron nests in May”")
    await tobias.say("when does the heron nest?")
    await tobias.sees("AI-written · base model · memory")


async def test_a_member_talks_in_direct_messages(staged, visit):
    tobias = await visit(staged.sandbox, MEMBER, QUAY)
    await tobias.go("Understudy")
    await tobias.say("is anybody there?")
    menu = await tobias.sees("Whom do you want to talk to?")
    await menu.get_by_role("combobox", name="Choose a persona").click()
    await tobias.page.get_by_role("option", name=re.compile("Sir Aurelio Thrip")).click()
    await tobias.sees("Sir Aurelio Thrip hears: is anybody there?")
    await tobias.say("bravo")
    await tobias.sees("Sir Aurelio Thrip hears: bravo")


async def test_a_newcomer_is_refused_where_moderators_rule(staged, visit):
    await staged.moderator.slash(QUAY, "finetune start")
    await until(lambda: staged.backend.busy)
    newcomer = await visit(staged.sandbox, NEWCOMER, QUAY)
    progress = await newcomer.sees("Training: Ballast v1")
    await button(progress, "Cancel").click()
    await newcomer.sees("Only moderators may do this.")
    await newcomer.box.fill("/finetune start")
    await newcomer.box.press("Enter")
    await expect(newcomer.problem).to_contain_text("finetune")
    await newcomer.command("persona mute")
    await newcomer.sees("It takes the permission Manage Server.")
    assert staged.backend.busy and staged.store.mutes.of_guild(staged.sandbox.guild_id) == []


async def test_a_gateway_dropped_in_the_middle_of_a_reply_loses_nothing(staged, visit):
    tobias = await visit(staged.sandbox, MEMBER, QUAY)
    staged.engine.free.clear()
    await tobias.say("hold the line")
    await expect(tobias.page.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    await tobias.page.locator("#acting").click()
    await tobias.page.get_by_role("menuitemradio", name="Developer tools").click()
    await tobias.page.get_by_role("button", name="Bench").click()
    await tobias.page.get_by_role("button", name=re.compile("Drop")).click()
    await tobias.page.keyboard.press("Escape")
    await tobias.say("and this came while it was away")
    staged.engine.free.set()
    await tobias.sees("Ballast hears: hold the line")
    await tobias.sees("Ballast hears: and this came while it was away")
    assert len(staged.engine.requests) == 2


async def test_a_moderator_silences_in_mid_reply_and_sweeps(staged, visit):
    mina = await visit(staged.sandbox, MODERATOR, QUAY)
    await mina.say("one")
    await mina.sees("Ballast hears: one")
    await mina.command("persona mute", delete="everything they ever said")
    await mina.sees("Deleted 2 of 2 replies.")
    await expect(
        mina.page.locator("#messages article").filter(has_text="Ballast hears: one")
    ).to_have_count(0)


@pytest.mark.slow
async def test_a_moderator_retrains_to_the_end_and_promotes(tmp_path, tiny_base, visit):
    """Real client, engine and trainer behind the real page; only the model is tiny."""
    settings = load_settings(
        None,
        {
            "UNDERSTUDY_HOME": str(tmp_path / "home"),
            "BASE_MODEL": tiny_base.source,
            "WEB_PORT": "0",
            "MAX_NEW_TOKENS": "12",
            "TRAINER_CARD": "losses",
        },
    )
    async with open_app(settings, ShippedData.from_source_tree()) as app:
        mina = await visit(app.sandbox, MODERATOR, QUAY)
        await mina.command("finetune start", epochs="1.5")
        progress = await mina.sees("Training: Ballast v1")
        await expect(progress).to_contain_text("tokens/s", timeout=TRAINING_MS)
        result = mina.message("Trained: Ballast v1")
        await expect(result).to_contain_text("Held-out replies: loss", timeout=TRAINING_MS)
        await button(result, "Promote").click()
        await mina.sees("v1 of Ballast is live")
        await expect(button(result, "Roll back")).to_be_visible()
        await mina.say("good evening")
        await mina.sees("AI-written · v1")
