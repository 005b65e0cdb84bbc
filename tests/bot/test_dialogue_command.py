"""`/persona duet`: who may ask for it, what is said, and everything that ends it."""

import asyncio
import sqlite3

import pytest

from bot.chat.message_reader import MessageReader
from bot.dialogue.dialogue import DEFAULT_TURNS
from bot.store import Mute
from personas.errors import EngineBusyError
from tests.bot.conftest import INN, OFFICE, QUAY, on_stage
from tests.fakes import until

ASKED = {"other": "oda", "opening": "What did the tide bring?"}


@pytest.fixture
async def quick(stage):
    stage.client.services.dialogue_runner.pause_s = 0
    stage.engine.script = counted()
    return stage


def counted():
    """Each line says something new."""
    count = iter(range(1000))
    words = "rope bell lamp soup tide crane goose ferry mast gull coal chain".split()

    def script(request):
        at = next(count)
        return [f"{request.persona.name} says ", f"{words[at % 12]}, the {at} time."]

    return script


def lines(stage, channel=QUAY):
    return [m for m in stage.sandbox.messages(channel) if " says" in m["content"]]


async def begin(stage, who=None, channel=QUAY, **more):
    """Ask for a duet; the task that waits for the command's answer."""
    return await (who or stage.moderator).slash(channel, "persona duet", **{**ASKED, **more})


async def test_two_personas_take_turns_under_their_own_names_and_faces(quick):
    stage = quick
    mark = quick.mark
    answer = await begin(stage, turns=4)
    await until(lambda: answer.message["content"])
    assert (
        "**Mina Vale:** What did the tide bring?" in answer.message["content"]
        and not answer.ephemeral
    )
    for fact in ("Ballast and Oda Marrow", "up to 4 lines"):
        assert fact in answer.message["content"]
    ended = await stage.sees("all turns taken", "edit", mark)
    assert "4 lines: all turns taken" in ended["content"] and not ended["components"]
    said = lines(stage)
    assert [m["author"]["username"] for m in said] == ["Ballast", "Oda Marrow"] * 2
    assert all(m["webhook_id"] and "\n-# AI-written · base model" in m["content"] for m in said)
    assert len({m["author"]["avatar"] for m in said}) == 2 and not any(
        m["components"] for m in said
    )
    asked = stage.engine.requests
    assert not any(request.needs_adapter for request in asked), "the base model may stand in"
    assert [turn.name for turn in asked[3].turns] == [
        "Mina Vale",
        "Ballast",
        "Oda Marrow",
        "Ballast",
    ]
    assert [turn.by_persona for turn in asked[3].turns] == [False, False, True, False]
    assert asked[0].sampling.speakers == ("Mina Vale", "mina")
    assert "Ballast" in asked[1].sampling.speakers
    assert {request.guild_id for request in asked} == {stage.sandbox.guild_id}
    assert stage.client.services.dialogue_runner.of_guild(stage.sandbox.guild_id) is None
    mark = stage.mark
    stage.engine.script = lambda request: ["I heard ", "you."]
    await stage.member.say(QUAY, "And now?")
    await stage.finished(QUAY, mark)
    turns = stage.engine.requests[-1].turns
    assert [(turn.name, turn.by_persona) for turn in turns] == [
        ("Mina Vale", False), ("Ballast", True), ("Oda Marrow", False), ("Ballast", True), ("Oda Marrow", False),
        ("Tobias Reed", False),
    ]  # fmt: skip


async def test_each_is_given_its_own_lore(quick):
    stage = quick
    mark = quick.mark
    await begin(stage, opening="How heavy was the piano?", turns=2)
    await stage.sees("all turns taken", "edit", mark)
    assert stage.engine.requests[0].lore[0].source.startswith("ballast/")
    assert not any(hit.source.startswith("ballast/") for hit in stage.engine.requests[1].lore)


async def test_it_ends_by_itself_when_it_goes_round(quick):
    stage = quick
    mark = quick.mark
    stage.engine.script = lambda request: ["Soup, ", "and soup."]
    await begin(stage, turns=20)
    ended = await stage.sees("it began to repeat itself", "edit", mark)
    assert "2 lines" in ended["content"] and len(stage.engine.requests) == 2


async def test_who_may_ask_and_with_whom(quick):
    stage = quick
    for who, more, says in (
        (stage.member, {}, "Only moderators"),
        (stage.moderator, {"other": "ballast"}, "cannot talk with itself"),
        (stage.moderator, {"other": "nobody"}, "There is no persona"),
        (stage.moderator, {"channel": OFFICE}, "No persona lives in this channel"),
    ):
        answer = await begin(stage, who, **more)
        assert answer.ephemeral and says in answer.message["content"], answer.message
    stage.store.mutes.add(Mute(stage.sandbox.guild_id, 0, "oda", 1, 1.0))
    answer = await begin(stage)
    assert "has silenced Oda Marrow" in answer.message["content"]
    assert stage.engine.requests == []


async def begun(stage, **more):
    """A duet in whose first line the engine waits; the message with the Stop button."""
    stage.engine.free.clear()
    mark = stage.mark
    answer = await begin(stage, **more)
    await stage.sees("…", "message", mark, by="Ballast")
    await until(lambda: stage.engine.requests)
    return answer.message


def custom_id(message):
    return message["components"][0]["components"][0]["custom_id"]


async def test_stop_is_for_whoever_asked_and_moderators(quick):
    stage = quick
    message = await begun(stage)
    refused = await stage.member.click(message, custom_id(message))
    assert refused.ephemeral and "can stop this duet" in refused.message["content"]
    mark = stage.mark
    await stage.moderator.click(message, custom_id(message))
    ended = await stage.sees("1 line: stopped", "edit", mark)
    assert not ended["components"] and len(stage.engine.requests) == 1
    assert lines(stage)[0]["content"].startswith(
        "Ballast says\n-# AI-written · base model · stopped"
    )


async def test_of_two_that_are_asked_for_at_once_one_is_refused(quick, monkeypatch):
    stage = quick
    stage.engine.free.clear()
    read = MessageReader.read_interaction
    asked = []

    async def read_both_at_once(*values):
        asked.append(values)
        await until(lambda: len(asked) == 2)
        return await read(*values)

    monkeypatch.setattr(MessageReader, "read_interaction", read_both_at_once)
    answers = await asyncio.gather(begin(stage), begin(stage, channel=INN, other="ballast"))
    await until(lambda: any(answer.interaction.follow_ups for answer in answers))
    follow_ups = [answer.interaction.follow_ups for answer in answers]
    assert sorted(follow_ups) == [0, 1], "the refusal, for the member's eyes alone"
    stage.engine.free.set()
    await stage.sees("all turns taken", "edit")
    assert len(stage.engine.requests) == DEFAULT_TURNS


async def test_whoever_speaks_to_a_persona_there_ends_it_and_is_answered(quick):
    stage = quick
    await begun(stage)
    mark = stage.mark
    await stage.member.say(QUAY, "Excuse me, is the ferry late?")
    await until(lambda: len(stage.engine.requests) == 2)
    stage.engine.free.set()
    assert "somebody spoke" in (await stage.sees("have talked, 1 line", "edit", mark))["content"]
    await until(
        lambda: (
            not stage.client.services.reply_service.is_running(0)
            and len(stage.engine.requests) == 2
        )
    )
    assert stage.engine.requests[1].turns[-1].text == "Excuse me, is the ferry late?"


async def test_a_member_elsewhere_does_not_end_it(quick):
    stage = quick
    stage.engine.free.clear()
    mark = stage.mark
    await begin(stage, turns=2)
    await until(lambda: stage.engine.requests)
    await stage.member.say(INN, "hello")
    stage.engine.free.set()
    await stage.sees("all turns taken", "edit", mark)


async def test_a_silence_ends_it_in_mid_word(quick):
    stage = quick
    await begun(stage)
    mark = stage.mark
    await stage.moderator.slash(QUAY, "persona mute", where="server", persona="oda")
    assert (
        "1 line: a moderator silenced" in (await stage.sees("have talked", "edit", mark))["content"]
    )
    assert len(stage.engine.requests) == 1 and "stopped" in lines(stage)[0]["content"]


async def test_so_does_the_going_of_whoever_asked(quick):
    stage = quick
    await begun(stage)
    mark = stage.mark
    stage.client.services.dialogue_runner.stop_requested_by(int(stage.moderator.id))
    assert "1 line: stopped" in (await stage.sees("have talked", "edit", mark))["content"]


async def test_where_the_engine_is_busy_it_is_said(quick):
    stage = quick
    mark = quick.mark
    stage.engine.failure = EngineBusyError(
        "9 replies are waiting already.", "Try again in a minute."
    )
    await begin(stage)
    assert (
        "0 lines: it could not go on" in (await stage.sees("have talked", "edit", mark))["content"]
    )
    assert any("9 replies are waiting" in m["content"] for m in stage.sandbox.messages(QUAY))


async def test_a_line_that_is_deleted_ends_it(quick):
    stage = quick
    await begun(stage)
    [line] = [
        m
        for m in stage.sandbox.messages(QUAY)
        if m["content"] == "…" and m["author"]["username"] == "Ballast"
    ]
    mark = stage.mark
    await stage.moderator.delete(line)
    stage.engine.free.set()
    assert "a line was deleted" in (await stage.sees("have talked", "edit", mark))["content"]


async def test_the_end_of_the_bot_ends_it_cleanly(tmp_path):
    async with on_stage(tmp_path) as stage:
        stage.engine.script = counted()
        message = await begun(stage)
        sandbox = stage.sandbox
        await stage.client.close()
        after = {m["id"]: m for m in sandbox.messages(QUAY)}
        assert "1 line: the bot was stopped" in after[message["id"]]["content"]
        assert "stopped" in lines(stage)[-1]["content"] and stage.store.replies.unfinished() == []


async def test_after_a_crash_the_line_says_so_and_nothing_is_taken_up(tmp_path):
    async with on_stage(tmp_path) as stage:
        await begun(stage)
        cut = stage.store.replies.unfinished()[0]
        assert cut.trigger_seq is None and cut.parts
    with sqlite3.connect(
        tmp_path / "understudy.sqlite"
    ) as database:  # as a crash would have left it
        database.execute(
            "update replies set state = 'streaming' where event_id = ?", (cut.event_id,)
        )
    database.close()
    async with on_stage(tmp_path) as again:
        await until(
            lambda: any(
                "This reply was cut off" in m["content"] for m in again.sandbox.messages(QUAY)
            )
        )
        assert again.store.replies.unfinished() == [] and again.engine.requests == []


async def test_stop_under_a_duet_that_a_crash_ended_is_taken_away(quick):
    stage = quick
    guild_id = quick.sandbox.guild_id
    message = await begun(stage)
    talks = stage.client.services.dialogue_runner._talks
    mark = stage.mark
    talk = talks.pop(guild_id)  # after a crash nothing is known of it
    await stage.moderator.click(message, custom_id(message))
    gone = await stage.sandbox.wait_for("edit", lambda m: m["id"] == message["id"], 8.0, mark)
    assert not gone["components"] and not talk.stopped
    talks[guild_id] = talk
