"""A new conversation has nothing of the one before it, also not what is stored later: a reply
belongs to the side of its question.
"""

import asyncio
from unittest import mock

import pytest

from bot.chat.message_reader import MessageReader
from bot.safety.actions import DISCLOSURE
from bot.store import InstalledVersion
from tests.bot.conftest import QUAY, on_stage
from tests.bot.set_settings import set_answering
from tests.bot.set_times import AheadClock
from tests.bot.test_reply_service import new_job
from tests.bot.test_scheduled_lines import set_line, take_due
from tests.fake_engine import FakeEngine
from tests.fakes import until
from tests.samples import SCORECARD


def speaking(request):
    return [f"{request.persona.name} ", f"says: {request.turns[-1].text}"]


@pytest.fixture
async def stage(tmp_path):
    async with on_stage(tmp_path, engine=FakeEngine(speaking)) as made:
        yield made


def place(stage):
    return int(stage.sandbox.guild_id), int(stage.sandbox.channel(QUAY)["id"])


def given(stage):
    """The texts of the last prompt."""
    return [turn.text for turn in stage.engine.requests[-1].turns]


async def idle(stage):
    """Wait until nothing is being said."""
    service = stage.client.services.reply_service
    runner = stage.client.services.dialogue_runner
    await until(lambda: not service.unfinished._counts and not service.tasks)
    await until(lambda: runner.of_guild(int(stage.sandbox.guild_id)) is None)
    assert not stage.store.replies.unfinished()


async def asked(stage, text):
    """Ask, wait for the reply's end, and return its message."""
    mark = stage.mark
    await stage.member.say(QUAY, text)
    reply = await stage.finished(QUAY, mark)
    await idle(stage)
    return reply


async def fresh(stage):
    answer = await stage.member.slash(QUAY, "persona fresh")
    await until(lambda: "A new conversation starts" in (answer.message or {}).get("content", ""))


# --------------------------------------------------------------------------- what is stored late


async def growing(stage, _):
    await stage.member.say(QUAY, "old two")
    await until(lambda: len(stage.engine.requests) == 2)


async def growing_to_a_question_that_is_deleted(stage, _):
    said = await stage.member.say(QUAY, "old two")
    await until(lambda: len(stage.engine.requests) == 2)
    await stage.member.delete(said)
    await until(lambda: stage.store.messages.is_deleted(int(said["id"])))


async def growing_round(stage, _):
    services = stage.client.services
    channel = services.client.get_channel(place(stage)[1])
    personas = [services.personas.get(each, 0) for each in ("ballast", "oda")]
    services.reply_service.assign(
        personas[0], channel, answers="everything", user_id=1, further=personas[1:]
    )
    await stage.member.say(QUAY, "Oda and Ballast, old two?")
    await until(lambda: len(stage.engine.requests) == 2)


async def made_again(stage, shown):
    """A reply that had failed without a text, so that its row comes with the next attempt."""
    reply = stage.store.replies.of_message(int(shown["id"]))
    stage.store.messages._db.write("delete from messages where persona_id is not null")
    await stage.member.click(shown, f"again:{reply.event_id}")
    await until(lambda: len(stage.engine.requests) == 2)


async def duet(stage, _):
    stage.client.services.dialogue_runner.pause_s = 0.0
    await stage.moderator.slash(QUAY, "persona duet", other="oda", opening="old two", turns=2)
    await until(lambda: len(stage.engine.requests) == 2)


async def waiting_for_lines(stage, _):
    set_answering(stage.client.services, *place(stage), {"wait_s": 10.0})
    await stage.member.say(QUAY, "old two")
    await until(lambda: len(stage.store.replies.unfinished()) == 1)
    set_answering(stage.client.services, *place(stage), {"wait_s": 0.0})


async def being_read(stage, _):
    read = MessageReader.read

    async def slowly(reader, message):
        incoming = await read(reader, message)
        await stage.engine.free.wait()
        return incoming

    with mock.patch.object(MessageReader, "read", slowly):
        await stage.member.say(QUAY, "old two")
        decisions = stage.client.services.decisions
        await until(lambda: len(decisions._channels[place(stage)[1]]) > 1)


@pytest.mark.parametrize(
    ("begin", "replies"),
    [
        (growing, 1),
        (growing_to_a_question_that_is_deleted, 1),
        (growing_round, 2),
        (made_again, 1),
        (duet, 2),
        (waiting_for_lines, 1),
        (being_read, 1),
    ],
)
async def test_what_ends_after_a_fresh_start_stays_before_it(stage, begin, replies):
    shown = await asked(stage, "old one")
    stage.engine.free.clear()
    await begin(stage, shown)
    await fresh(stage)
    stage.engine.free.set()
    await until(lambda: len(stage.engine.requests) == 1 + replies)
    await idle(stage)
    made = [[turn.text for turn in request.turns] for request in stage.engine.requests[2:]]
    assert "old one" not in str(made), "what is made after it sees its question, and no older talk"
    talk = stage.engine.prepared_talks[-1][2]
    assert begin is duet or [turn.text for turn in talk] == [""]
    reply = await asked(stage, "new")
    assert given(stage) == ["new"]
    assert DISCLOSURE in reply["content"], "a late end of the old talk told nothing in the new one"
    await asked(stage, "newer")
    assert given(stage) == ["new", "Ballast says: new", "newer"]


async def test_a_line_that_nobody_asked_for_belongs_where_it_began(tmp_path):
    clock = AheadClock()
    async with on_stage(tmp_path, engine=FakeEngine(speaking), clock=clock) as stage:
        await set_line(stage, clock)
        clock.ahead_s = 60
        stage.engine.free.clear()
        making = asyncio.create_task(take_due(stage).answer())
        await until(lambda: stage.engine.requests)
        await fresh(stage)
        stage.engine.free.set()
        await making
        assert stage.store.messages.latest(place(stage)[1], 4) == []
        clock.ahead_s += 86_400
        await take_due(stage).answer()
        (line,) = stage.store.messages.latest(place(stage)[1], 4)
        assert line.persona_id == "ballast", "begun after it, although nothing lies in between"


# ------------------------------------------------------------------------- promoted in mid-reply


async def test_a_version_that_is_promoted_in_mid_reply_sees_what_was_asked_after_it(stage):
    await asked(stage, "one")
    stage.engine.free.clear()
    await stage.member.say(QUAY, "two")
    await until(lambda: len(stage.engine.requests) == 2)
    stage.store.jobs.add(new_job(), 1.0)
    stage.store.versions.record_installed(InstalledVersion("ballast", "v1", "j1", 1.0, SCORECARD))
    stage.store.versions.promote("ballast", "v1", 1, 1.0)
    await stage.member.say(QUAY, "three")
    await until(lambda: len(stage.engine.requests) == 3)
    stage.engine.free.set()
    await idle(stage)
    await asked(stage, "four")
    assert given(stage) == ["three", "Ballast says: three", "four"]
