"""The bot lived in, through the page: what members and moderators do in a day."""

import re

import pytest
from playwright.async_api import expect

from bot.app import open_app
from bot.demo_guild import MEMBER, MODERATOR
from bot.safety.actions import DISCLOSURE
from bot.settings import load_settings
from personas.home.job_material import ShippedData
from tests.bot.conftest import QUAY
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
