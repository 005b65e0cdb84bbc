"""Written replies that a persona says as they are: its author's, and what moderators taught."""

import json

import pytest

from bot.demo_guild import MEMBER
from bot.safety.actions import WITHHELD
from personas.schemas.chat import AdapterRef
from personas.words.exchanges import Exchange
from personas.words.version_words import write_version_words
from tests.bot.conftest import INN, QUAY, on_stage
from tests.bot.test_lessons import opt_in, response_text, teach
from tests.bot.test_safety import asked, stored_texts
from tests.fakes import until

MEANS = "should i climb over the rail and jump?"
RUST = {"asked": ["do you rust?", "are you rusty"], "reply": "I rust where the gulls sit."}
WHO = {"asked": ["are you mina?"], "reply": "Ballast, and nobody else."}
PAINT = {"asked": ["will you be rusty one day?"], "reply": "I am painted each spring."}
WHY = {"asked": ["why?"], "after": RUST["reply"], "reply": "Gulls are salt on legs."}


@pytest.fixture
async def spoken(tmp_path):
    """The guild, where Ballast has words of his author's."""
    folder = tmp_path / "words"
    folder.mkdir()
    lines = [json.dumps(row) for row in (RUST, WHO, PAINT, WHY)]
    (folder / "ballast.jsonl").write_text("\n".join(lines), encoding="utf-8")
    async with on_stage(tmp_path, own_words=True) as stage:
        stage.client.services.reply_service.words.folder = folder
        yield stage


NOTE = "-# in words of this persona's author"
TAUGHT = "-# as a moderator taught it here"


async def said(stage, words, note=NOTE):
    """Return the written reply to what a member says, without the lines below it."""
    mark = stage.mark
    await stage.member.say(QUAY, words)
    content = (await stage.sees(note, "edit", mark))["content"]
    return content.split("\n")[0]


async def test_a_written_reply_is_said_as_it_is_with_a_note_and_no_model_is_asked(spoken):
    assert await said(spoken, "tell me, do you rust?") == RUST["reply"]
    assert stored_texts(spoken, QUAY) == ["tell me, do you rust?", RUST["reply"]]
    message = spoken.sandbox.messages(QUAY)[-1]
    reply = spoken.store.replies.of_message(int(message["id"]))
    assert reply.state == "done"
    assert reply.adapter_version is None, "votes on it are none on the version"
    assert await said(spoken, "why?") == WHY["reply"]
    assert spoken.engine.requests == []


async def test_the_same_words_are_not_said_twice_nor_again(spoken):
    assert await said(spoken, "do you rust?") == RUST["reply"]
    assert await said(spoken, "are you rusty?") == PAINT["reply"]
    message = spoken.sandbox.messages(QUAY)[-1]
    mark = spoken.mark
    await spoken.member.click(message, "Regenerate")
    assert "hears" in (await spoken.finished(QUAY, mark))["content"]


async def test_asked_whether_it_is_somebody_it_says_who_it_is(spoken):
    assert await said(spoken, f"Wait, aren't you {MEMBER}?") == WHO["reply"]
    assert spoken.engine.requests == []


async def test_a_message_that_quotes_another_goes_to_the_model(spoken):
    await asked(spoken, QUAY, "the railing needs paint")
    quoted = spoken.sandbox.messages(QUAY)[-1]
    await asked(spoken, QUAY, "good morning to all of you")
    mark = spoken.mark
    await spoken.member.say(QUAY, "do you rust?", reply_to=quoted)
    assert "hears" in (await spoken.finished(QUAY, mark))["content"]


async def test_nothing_written_is_said_where_no_model_may_answer(spoken):
    written = {"asked": [MEANS], "reply": "Over you go."}
    folder = spoken.client.services.reply_service.words.folder
    (folder / "ballast.jsonl").write_text(json.dumps(written), encoding="utf-8")
    mark = spoken.mark
    await spoken.member.say(QUAY, MEANS)
    await spoken.sees(WITHHELD[:30], "edit", mark)
    assert "Over you go." not in str(spoken.sandbox.messages(QUAY))


async def test_the_version_that_speaks_brings_the_words_it_was_trained_on(spoken, tmp_path):
    words = spoken.client.services.reply_service.words
    persona = spoken.client.services.personas.get("oda", 0)
    adapter = AdapterRef("oda", "v7", tmp_path / "v7")
    adapter.folder.mkdir()
    write_version_words(adapter.folder, [Exchange(("what is a quoin?",), "A wedge, duck.")])

    async def found(adapter):
        line = await words.find(persona, 0, "whats a quoin", before="", said=(), adapter=adapter)
        return line.text if line else ""

    assert await found(adapter) == "A wedge, duck."
    assert await found(None) == ""


async def test_what_a_moderator_teaches_is_said_from_then_on_and_no_longer_once_taken_back(stage):
    taught = await response_text(await teach(stage.moderator), "says so from now on")
    assert await said(stage, "do you rust?", TAUGHT) == "Only where the gulls sit."
    assert "hears" in await asked(stage, INN, "@Oda do you rust?")
    await stage.moderator.click(taught, "Undo")
    await until(lambda: stage.store.lessons.get(1) is None)
    assert "hears" in await asked(stage, QUAY, "do you rust?")


async def test_members_lessons_and_long_ones_wait_for_a_training(stage):
    opt_in(stage)
    await response_text(await teach(stage.member), "when a moderator starts a training")
    await response_text(await teach(stage.moderator, "gulls " * 80), "when a moderator starts")
    assert "hears" in await asked(stage, QUAY, "do you rust?")


async def test_a_damaged_file_costs_its_words_and_no_reply(spoken, caplog):
    folder = spoken.client.services.reply_service.words.folder
    (folder / "ballast.jsonl").write_text("{", encoding="utf-8")
    assert "hears" in await asked(spoken, QUAY, "do you rust?")
    assert "Line 1 of ballast.jsonl is no exchange" in caplog.text
