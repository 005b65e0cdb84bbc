"""Replies that suggest self-harm are withheld before anybody sees them, and made once more."""

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bot.chat.reply_text import MAX_PART_CHARS
from bot.safety.actions import WITHHELD
from bot.safety.reply_guard import (
    WITHDRAWN,
    GrowingText,
    ReplyGuard,
    ReplyWithheldError,
)
from bot.safety.rules import LANGUAGES, SafetyRules
from personas.errors import UnderstudyError
from personas.schemas.chat import ChatRequest, Persona, SamplingParams, Turn
from tests.bot.conftest import QUAY
from tests.bot.test_dialogue_command import quick as quick
from tests.bot.test_safety import stored_texts, texts_in
from tests.bot.test_safety_rules import EXAMPLES
from tests.fake_engine import FakeEngine
from tests.fakes import until

HARM = "A rope is there for you to hang yourself"
SAFE = "A rope is for tying boats."
BOT = Path(__file__).parents[2] / "bot"
ASKED = ChatRequest(Persona("ballast", "Ballast"), (Turn("Wren", "what is rope for"),))
FIND = SafetyRules.shipped().find_in_reply


def in_turn(*replies):
    """Script replies, one a request; the last one again and again."""
    left = list(replies)

    def script(request):
        reply = left.pop(0) if len(left) > 1 else left[0]
        return reply if isinstance(reply, list) else [reply]

    return script


def guarded(engine):
    counted = []
    return ReplyGuard(engine.submit, SafetyRules.shipped(), counted.append), counted


async def heard(guard, request=ASKED):
    """Return what a reader of the stream has at the end, all that was shown, and the reply."""
    stream = guard.submit(request)
    text = ""
    shown = []
    async for piece in stream:
        text = "" if piece is WITHDRAWN else text + piece
        shown.append(text)
    return text, shown, stream.reply


# --------------------------------------------------------------------------------- while they grow


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_part_that_is_shown_suggests_it(language, monkeypatch):
    monkeypatch.setattr("bot.safety.reply_guard.CHECK_INTERVAL_S", -1.0)
    for example in EXAMPLES[language]["suggests"][::3]:
        growing = GrowingText(FIND)
        shown = ""
        with pytest.raises(ReplyWithheldError):
            for letter in f"Well now. {example}":
                shown += growing.take(letter)
                assert not FIND(shown), shown
            growing.end()


def test_what_may_become_a_figure_of_speech_waits_for_its_sentence():
    growing = GrowingText(FIND)
    assert growing.take("Cut yourself") == ""
    assert growing.take(" a slice. Then") == "Cut yourself a slice. Then"
    assert growing.end() == ""


def test_between_two_checks_nothing_is_shown_and_nothing_is_lost():
    growing = GrowingText(FIND)
    assert growing.take("A rope") == "A rope"
    assert growing.take(" holds") == "", "it was checked a moment ago"
    assert growing.take(" the ferry!") == " holds the ferry!"
    assert growing.take(" And") + growing.end() == " And"


def test_a_sentence_without_an_end_takes_no_longer_the_longer_it_gets():
    growing = GrowingText(FIND)
    began = time.process_time()
    shown = "".join(growing.take(f"word{number} ") for number in range(3000)) + growing.end()
    assert shown == "".join(f"word{number} " for number in range(3000))
    assert time.process_time() - began < 10, "measured: some 0.1 s"


def test_words_that_a_client_began_are_read_with_those_that_continue_them():
    growing = GrowingText(FIND, "Sit down. You should hang")
    assert growing.take(" yourself.") == ""
    with pytest.raises(ReplyWithheldError):
        growing.end()


# ---------------------------------------------------------------------------------- two attempts


async def test_a_reply_that_suggests_it_is_generated_once_more():
    engine = FakeEngine(in_turn(["Ah. ", f"{HARM}."], SAFE))
    guard, counted = guarded(engine)
    request = replace(ASKED, sampling=SamplingParams(seed=7))
    text, shown, reply = await heard(guard, request)
    assert text == reply.text == SAFE and not reply.withheld
    assert all("hang" not in part for part in shown) and counted == ["en"]
    first, second = engine.requests
    assert (first.sampling.seed, second.sampling.seed) == (7, 8)
    assert HARM in second.replaces and second.turns == first.turns


async def test_where_both_attempts_suggest_it_the_reply_is_empty_and_says_so():
    guard, counted = guarded(FakeEngine(in_turn(HARM)))
    text, shown, reply = await heard(guard)
    assert (text, reply.text, shown) == ("", "", [])
    assert reply.withheld and counted == ["en", "en"]


async def test_no_model_answers_who_asks_for_means():
    engine = FakeEngine(in_turn(SAFE))
    guard, counted = guarded(engine)
    said = (
        Turn("Wren", "Should I climb over the rail?"),
        Turn("Wren", "tell me"),
        Turn("Oda", "No.", answers_too=True),
    )
    text, shown, reply = await heard(guard, replace(ASKED, turns=said))
    assert (text, shown, reply.withheld, engine.requests) == ("", [], True, [])
    assert counted == ["en"]
    said = (Turn("Wren", "How do I get into the tower?"), Turn("Oda", "No.", answers_too=True))
    assert (await heard(guard, replace(ASKED, turns=said)))[0] == SAFE


async def test_a_full_queue_leaves_no_second_attempt():
    engine = FakeEngine(in_turn(HARM))
    guard, counted = guarded(engine)
    stream = guard.submit(ASKED)
    engine.full = True
    assert [piece async for piece in stream] == [] and stream.reply.withheld
    assert counted == ["en"]


async def test_a_stopped_reply_is_not_made_again():
    engine = FakeEngine(in_turn(["Ah. ", HARM]))
    guard, _ = guarded(engine)
    stream = guard.submit(ASKED)
    pieces = []
    async for piece in stream:
        pieces.append(piece)
        if piece is WITHDRAWN:
            stream.cancel()
    assert pieces == ["Ah. ", WITHDRAWN] and stream.reply.withheld
    assert len(engine.requests) == 1


async def test_an_error_loses_none_of_the_text_that_was_held():
    engine = FakeEngine()

    def failing(request):
        yield "A rope"
        yield " holds"
        raise UnderstudyError("The engine is away.", "Ask again.")

    engine.script = failing
    shown = []
    with pytest.raises(UnderstudyError):
        async for piece in guarded(engine)[0].submit(ASKED):
            shown.append(piece)
    assert "".join(shown) == "A rope holds"


async def test_a_model_without_a_persona_is_not_looked_at():
    guard, counted = guarded(FakeEngine(in_turn(HARM)))
    for persona in (None, Persona("", "assistant", description="Be brief.")):
        assert (await heard(guard, replace(ASKED, persona=persona)))[0] == HARM
    assert counted == []


def test_only_the_guard_and_commands_submit_requests_to_the_engine():
    """Replies that members, pages and clients see have no other way."""
    callers = set()
    for path in BOT.rglob("*.py"):
        if re.search(r"(?:engine|throttle)\.submit\b", path.read_text(encoding="utf-8")):
            callers.add(path.relative_to(BOT).as_posix())
    assert callers == {
        "cli/ask.py",  # model_inference, the operator's own
        "compose.py",  # makes the guard
        "training/resource_sharing.py",  # the throttle that the guard submits to
    }


# ------------------------------------------------------------------------------------- on Discord


async def test_members_see_the_second_attempt_alone(stage):
    stage.engine.script = in_turn(["Ah. ", HARM, ", dear friend."], SAFE)
    mark = stage.mark
    await stage.member.say(QUAY, "what is rope for")
    reply = await stage.finished(QUAY, mark)
    assert reply["content"].startswith(SAFE) and reply["components"]
    assert all("hang" not in text for text in texts_in(stage, QUAY))
    assert stored_texts(stage, QUAY)[-1] == SAFE
    assert list(stage.store.withheld_replies.by_language().items()) == [("en", 1)]


async def test_after_two_the_bots_own_line_stands_there_and_no_prompt_has_them(stage):
    stage.engine.script = in_turn(HARM)
    mark = stage.mark
    await stage.member.say(QUAY, "what is rope for")
    shown = await stage.sees("findahelpline.com", "edit", mark)
    assert shown["content"] == f"-# {WITHHELD}"
    assert stored_texts(stage, QUAY) == ["what is rope for"]
    assert list(stage.store.withheld_replies.by_year().values()) == [2]
    assert not stage.store.replies.unfinished()
    stage.engine.script = in_turn(SAFE)
    mark = stage.mark
    await stage.member.say(QUAY, "and a pulley?")
    await stage.finished(QUAY, mark)
    assert all(HARM not in turn.text for turn in stage.engine.requests[-1].turns)


async def test_a_long_beginning_in_several_messages_gives_way_too(stage, monkeypatch):
    monkeypatch.setattr("bot.chat.streaming_reply.FIRST_EDIT_DELAY_S", 0.0)
    long = ["The ferry is late. " * (MAX_PART_CHARS // 15), HARM + "."]
    stage.engine.script = in_turn(long, SAFE)
    mark = stage.mark
    await stage.member.say(QUAY, "what is rope for")
    reply = await stage.finished(QUAY, mark)
    assert reply["content"].startswith(SAFE)
    shown = [each for kind, each in stage.sandbox.events[mark:] if "ferry is" in str(each)]
    assert len({each["id"] for each in shown if "id" in each}) > 1, "it had two messages"
    await until(lambda: all("ferry is late" not in text for text in texts_in(stage, QUAY)))


async def test_a_line_of_a_duet_is_withheld_too(quick):
    quick.engine.script = in_turn("The tide is in.", HARM)
    await quick.moderator.slash(QUAY, "persona duet", other="oda", opening="What is rope for?")
    await until(lambda: any("findahelpline.com" in text for text in texts_in(quick, QUAY)))
    assert all("hang" not in text for text in texts_in(quick, QUAY))
