"""Messages that called a persona while the bot was away: those of the last ten minutes are answered
once, in their order, over any number of restarts and kills.
"""

import asyncio
from datetime import timedelta

from bot.chat import discord_missed
from bot.chat.message_reader import MessageReader
from bot.safety.texts import shipped_texts
from tests.bot.conftest import INN, MEMBER, QUAY, on_stage
from tests.bot.set_settings import set_answering
from tests.bot.set_times import AheadClock, answer_to
from tests.fakes import until

MISSED = ["first", "second", "Oda Marrow, third"]
HARM = "I want to kill myself"


async def answered(stage, text, channel=INN, **more):
    mark = stage.mark
    said = await stage.member.say(channel, text, **more)
    return said, await stage.finished(channel, mark)


def heard(stage, channel=INN):
    """What the persona has answered in a channel, oldest first."""
    replies = []
    for message in stage.sandbox.messages(channel):
        _, is_reply, words = message["content"].partition(" hears: ")
        if is_reply:
            replies.append(words.partition("\n-# ")[0].splitlines()[-1])  # after what it quotes
    return replies


def helped(stage, channel=QUAY):
    """The messages that have the fixed text with helplines."""
    return [
        message["message_reference"]["message_id"]
        for message in stage.sandbox.messages(channel)
        if message["content"] == shipped_texts()["en"]
    ]


async def say_while_away(sandbox, reply):
    member = sandbox.member(MEMBER)
    said = [
        await member.say(INN, "@Understudy first"),
        await member.say(INN, "second", reply_to=reply),
        await member.say(INN, "Oda Marrow, third"),
    ]
    await member.say(INN, "chatter among members")
    said.append(await member.say(INN, "@Understudy"))
    return said


async def why(stage, message):
    return await answer_to(stage, "persona why", None, INN, message=message["id"])


async def test_calls_are_answered_in_order_and_once_over_a_kill_and_restarts(tmp_path):
    async with on_stage(tmp_path) as stage:
        _, reply = await answered(stage, "@Understudy before")
        await stage.client.close()
        said = await say_while_away(stage.sandbox, reply)
    async with on_stage(tmp_path) as stage:
        stage.engine.free.clear()  # it is killed while it answers the first one
        await until(lambda: stage.store.replies.get(int(said[0]["id"])))
    async with on_stage(tmp_path) as stage:
        await until(lambda: sorted(heard(stage)) == sorted(["before", *MISSED]))
        order = [words for words in heard(stage) if words in MISSED[1:]]
        assert order == MISSED[1:]
        assert "It waited until the bot was back." in await why(stage, said[2])
        assert "has no words" in await why(stage, said[3])
    async with on_stage(tmp_path) as stage:
        await answered(stage, "@Understudy after")
        assert [request.turns[-1].text for request in stage.engine.requests] == ["after"]
        assert sorted(heard(stage)) == sorted(["before", *MISSED, "after"])


async def test_quick_lines_share_a_reply_where_the_channel_waits_for_them(tmp_path, monkeypatch):
    read = MessageReader.read

    async def read_first_slowly(reader, message):
        if "hey" in message.content:
            await asyncio.sleep(0.2)  # as where it looks somebody up
        return await read(reader, message)

    async with on_stage(tmp_path) as stage:
        channel = stage.client.get_channel(int(stage.sandbox.channel(INN)["id"]))
        set_answering(stage.client.services, channel.guild.id, channel.id, {"wait_s": 1.0})
        await answered(stage, "@Understudy before")
        await stage.client.close()
        for who in (stage.member, stage.moderator):
            for text in ("hey", "are you there?"):
                await who.say(INN, f"@Understudy {text}")
    monkeypatch.setattr(MessageReader, "read", read_first_slowly)
    async with on_stage(tmp_path) as stage:
        await until(lambda: len(heard(stage)) == 3)
        requests = stage.engine.requests
        for request in requests:
            assert [turn.text for turn in request.turns[-2:]] == ["hey", "are you there?"]
        last = [request.turns[-1] for request in requests]
        assert [turn.name for turn in last] == ["Tobias Reed", "Mina Vale"]


async def test_one_that_came_in_between_hides_none_before_it_from_the_next_start(tmp_path):
    async with on_stage(tmp_path) as stage:
        _, reply = await answered(stage, "@Understudy before")
        await stage.client.close()
        said = await say_while_away(stage.sandbox, reply)
    async with on_stage(tmp_path) as stage:
        stage.engine.free.clear()
        await until(lambda: stage.store.replies.get(int(said[0]["id"])))
        live = await stage.member.say(INN, "@Understudy live")
        await until(lambda: stage.store.replies.get(int(live["id"])))
        assert stage.store.replies.get(int(said[1]["id"])) is None, "it waits for its turn"
    async with on_stage(tmp_path) as stage:
        await until(lambda: sorted(heard(stage)) == sorted(["before", "live", *MISSED]))


async def test_only_the_latest_calls_are_answered_over_restarts_too(tmp_path):
    count = discord_missed.MAX_CALLS_IN_CHANNEL
    async with on_stage(tmp_path) as stage:
        await answered(stage, "@Understudy before")
        await stage.client.close()
        member = stage.sandbox.member(MEMBER)
        harm = await member.say(INN, f"@Understudy {HARM}")
        said = [await member.say(INN, f"@Understudy {number}") for number in range(count + 1)]
    for _ in range(2):
        async with on_stage(tmp_path) as stage:
            latest = [str(number) for number in range(1, count + 1)]
            await until(lambda latest=latest: heard(stage) == ["before", *latest])
            await until(lambda: "messages to personas were here" in str(remark(stage, said[0])))
            assert helped(stage, INN) == [harm["id"]]
            assert not stage.store.replies.get(int(said[0]["id"]))


def remark(stage, message):
    return stage.client.services.decisions.find(int(message["channel_id"]), int(message["id"]))


async def test_who_spoke_of_self_harm_to_nobody_meanwhile_gets_the_helplines_once(tmp_path):
    async with on_stage(tmp_path) as stage:
        await stage.client.close()
        said = await stage.sandbox.member(MEMBER).say(QUAY, HARM)
        await stage.sandbox.member(MEMBER).say(QUAY, "chatter among members")
    for _ in range(2):
        async with on_stage(tmp_path) as stage:
            await until(lambda: helped(stage) == [said["id"]])
            await answered(stage, "@Understudy are you back?", QUAY)
            assert helped(stage) == [said["id"]]


async def test_what_is_older_than_ten_minutes_is_left_alone_and_explained(tmp_path):
    clock = AheadClock()
    async with on_stage(tmp_path, clock=clock) as stage:
        _, reply = await answered(stage, "@Understudy before")
        await stage.client.close()
        said = await say_while_away(stage.sandbox, reply)
    clock.ahead_s = discord_missed.MAX_MISSED_AGE_S + 60
    async with on_stage(tmp_path, clock=clock) as stage:
        await answered(stage, "@Understudy after")
        assert heard(stage) == ["before", "after"]
        assert "what came in the last 10 minutes" in await why(stage, said[0])


async def test_a_bot_that_is_back_in_quiet_hours_answers_as_it_does_then(tmp_path):
    clock = AheadClock()
    async with on_stage(tmp_path, clock=clock) as stage:
        _, reply = await answered(stage, "@Understudy before")
        channel = stage.client.get_channel(int(reply["channel_id"]))
        start, end = (clock.at + timedelta(minutes=minutes) for minutes in (3, 60))
        hours = {"quiet_hours": f"{start:%H:%M}-{end:%H:%M}"}
        set_answering(stage.client.services, channel.guild.id, channel.id, hours)
        await stage.client.close()
        said = await say_while_away(stage.sandbox, reply)
    clock.ahead_s = 400
    async with on_stage(tmp_path, clock=clock) as stage:
        await until(lambda: heard(stage) == ["before", *MISSED[:2]])
        explained = await why(stage, said[2])
        assert "Not answered: a reply would have come in the quiet hours. It waited" in explained
        assert "mentions the bot" in await why(stage, said[0])


async def test_a_message_that_comes_before_the_search_hides_none_before_it(stage, monkeypatch):
    gateway = stage.sandbox._container.gateway
    stage.client.dispatch("disconnect")
    with monkeypatch.context() as patched:
        patched.setattr(gateway, "dispatch", lambda name, data: None)
        await stage.member.say(INN, "@Understudy lost")
    await answered(stage, "@Understudy live")
    stage.client.dispatch("ready")
    await until(lambda: sorted(heard(stage)) == ["live", "lost"])


async def test_a_mention_that_an_edit_adds_while_the_connection_is_lost_is_answered(
    stage, monkeypatch
):
    said = await stage.member.say(INN, "!play a song")
    decisions = stage.client.services.decisions
    await until(lambda: decisions.find(int(said["channel_id"]), int(said["id"])))
    gateway = stage.sandbox._container.gateway
    stage.client.dispatch("disconnect")
    with monkeypatch.context() as patched:
        patched.setattr(gateway, "dispatch", lambda name, data: None)
        await stage.member.edit(said, "@Understudy play a song")
    stage.client.dispatch("ready")
    await until(lambda: heard(stage) == ["play a song"])


async def test_a_notice_is_not_repeated_after_a_restart(tmp_path):
    async with on_stage(tmp_path) as stage:
        await answered(stage, "@Understudy before", QUAY)
        mark = stage.mark
        await stage.member.say(QUAY, "@Understudy")
        await stage.sandbox.wait_for("message", lambda it: it["author"]["bot"], since=mark)
        count = len(stage.sandbox.messages(QUAY))
    async with on_stage(tmp_path) as stage:
        await answered(stage, "@Understudy after", QUAY)
        await until(lambda: not stage.client.services.reply_service.tasks)
        assert len(stage.sandbox.messages(QUAY)) == count + 2
