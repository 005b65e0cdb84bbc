"""Manners in channels where a persona answers everything: whom it leaves alone, one reply to several
lines, reply chance, quiet hours, and what moderators are told of it.
"""

import asyncio
from datetime import datetime, timedelta
from types import SimpleNamespace

import discord
import pytest

from bot.chat import unfinished
from bot.chat.decision_log import DecisionLog
from bot.chat.line_wait import LineWait, LineWaits
from bot.demo_guild import OWNER
from bot.guild_settings.definitions import ANSWERING
from bot.guild_settings.store import SettingScope
from bot.platform.errors import RefusedError
from sandbox.object_store import StoredFile
from tests.bot.conftest import INN, OFFICE, QUAY, on_stage
from tests.bot.set_times import AheadClock
from tests.fakes import until

WAIT_S = 0.4


def place(stage, channel=QUAY):
    return int(stage.sandbox.guild_id), int(stage.sandbox.channel(channel)["id"])


def change(stage, channel, changes):
    guild_id, channel_id = channel
    stage.client.services.guild_settings.change(
        ANSWERING, SettingScope(guild_id, channel_id=channel_id), changes
    )


def stored(stage, channel):
    guild_id, channel_id = channel
    return stage.store.settings.get(SettingScope(guild_id, channel_id=channel_id))


def set_wait(stage, wait_s=WAIT_S, channel=QUAY):
    change(stage, place(stage, channel), {"wait_s": wait_s})


def asked(stage):
    """The member's turns of each request since the last reply, by request."""
    lines = []
    for request in stage.engine.requests:
        turns = list(request.turns)
        while turns and not turns[-1].by_persona:
            turns.pop()
        lines.append([turn.text for turn in request.turns[len(turns) :]])
    return lines


class ClockHand:
    """The time of the event loop and of waits for lines, which goes on only when it is moved."""

    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now

    async def move(self, seconds):
        await self._settle()
        self.now += seconds
        await self._settle()

    async def _settle(self):
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def hand(monkeypatch):
    hand = ClockHand()
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "time", hand.time)
        patch.setattr("bot.chat.line_wait.time", SimpleNamespace(monotonic=hand.time))
        yield hand


async def said(answer, words):
    await until(lambda: words in (answer.message or {}).get("content", ""))
    return answer.message["content"]


async def why(stage, channel=QUAY, **options):
    answer = await stage.moderator.slash(channel, "persona why", **options)
    assert answer.ephemeral
    await until(lambda: (answer.message or {}).get("content"))
    return answer.message["content"]


# ------------------------------------------------------------------------------------- left alone


async def test_members_among_themselves_are_left_alone_unless_they_name_the_persona(stage):
    mark = stage.mark
    question = await stage.moderator.say(QUAY, "@Edwina Harrow who cooks tonight?")
    await stage.member.say(QUAY, "I do", reply_to=question)
    for text in ("!play shanties", "https://example.org/soup", "lol 😂"):
        await stage.member.say(QUAY, text)
    await stage.member.say(QUAY, "then Ballast, what would you eat?", reply_to=question)
    await stage.finished(QUAY, mark)
    (request,) = stage.engine.requests
    assert request.turns[-1].text.endswith("then Ballast, what would you eat?")
    explained = (await why(stage)).split("\n")
    rules = [line.removeprefix("-# ") for line in explained if line.startswith("-# ")]
    assert rules == [
        "Not answered: it begins with a mention of somebody else.",
        "Not answered: it replies to somebody else.",
        "Not answered: it is a command to another bot.",
        "Not answered: it is a link without words.",
        "Not answered: it is laughter or emoji alone.",
        "Answered by Ballast: it names the persona.",
    ]
    assert "**Mina Vale**: @Edwina Harrow who" in explained[0] and "example.org" not in "".join(
        explained
    )


async def test_a_persona_that_was_cleared_or_replaced_answers_no_replies_any_more(stage):
    mark = stage.mark
    await stage.member.say(QUAY, "hello")
    reply = await stage.finished(QUAY, mark)
    form = await stage.member.click(reply, "Reply")
    card = await stage.member.slash(QUAY, "persona show")
    await until(lambda: card.text)
    talk = await stage.member.click(card.message, "Talk to them")
    await stage.moderator.slash(QUAY, "persona clear")
    for answer in (
        await stage.member.submit(form, text="still there?"),
        await stage.member.click(reply, "Reply"),
        await stage.member.click(reply, "Regenerate"),
    ):
        assert answer.ephemeral and "is no longer here" in answer.message["content"]
    for answer in (
        await stage.member.submit(talk, text="still there?"),
        await stage.member.click(card.message, "Talk to them"),
    ):
        assert answer.ephemeral and "Ballast does not live here." in answer.message["content"]
    await stage.member.say(QUAY, "really?", reply_to=reply)
    assert "no persona lives here" in await why(stage)
    await stage.moderator.slash(QUAY, "persona set", persona="oda")
    await stage.member.say(QUAY, "and now?", reply_to=reply)
    await until(lambda: len(stage.engine.requests) == 2)
    assert stage.engine.requests[1].persona.id == "oda"


# ------------------------------------------------------------------------------ one reply to lines


async def test_quick_lines_get_one_reply_which_sees_them_all_while_typing_is_shown(stage):
    set_wait(stage)
    mark = stage.mark
    for text in ("hey", "can you", "look at the ropes?"):
        await stage.member.say(QUAY, text)
    await until(lambda: any(kind == "typing" for kind, _ in stage.sandbox.events[mark:]))
    assert not stage.engine.requests
    await stage.moderator.say(QUAY, "and me?")
    await until(lambda: len(stage.engine.requests) == 2)
    assert asked(stage)[0] == ["hey", "can you", "look at the ropes?"]
    assert stage.engine.requests[0].turns[-1].text == "look at the ropes?"
    assert stage.engine.requests[1].turns[-1].text == "and me?"
    await until(lambda: not stage.client.services.reply_service.running)
    assert not stage.client.services.reply_service.line_waits._waits
    explained = await why(stage)
    assert explained.count("together with other lines") == 2
    mark = stage.mark
    await stage.member.say(QUAY, "later")
    await stage.finished(QUAY, mark)
    assert len(stage.engine.requests) == 3


async def test_lines_of_a_reply_that_waits_are_not_left_to_chance(stage):
    change(stage, place(stage), {"wait_s": WAIT_S, "reply_chance": 0})
    for text in ("Ballast, can you", "look at the ropes?", "!play shanties"):
        await stage.member.say(QUAY, text)
    await stage.moderator.say(QUAY, "and me?")
    await until(lambda: stage.engine.requests)
    assert asked(stage) == [["Ballast, can you", "look at the ropes?"]]


async def test_a_notice_that_fails_keeps_no_reply_to_quick_lines_from_coming(stage, monkeypatch):
    async def fail(*_, **__):
        raise ValueError("odd")

    monkeypatch.setattr(discord.abc.Messageable, "send", fail)
    set_wait(stage)
    picture = StoredFile("ropes.png", "image/png", b"no picture")
    await stage.member.say(QUAY, "can you", files=[picture])
    await stage.member.say(QUAY, "look at the ropes?")
    await until(lambda: stage.engine.requests)
    assert [line.split("\n")[0] for line in asked(stage)[0]] == ["can you", "look at the ropes?"]


async def test_each_line_starts_the_wait_anew(hand):
    wait = LineWait(1, ("ballast",), wait_s=10.0, began=hand.now)
    ended = asyncio.create_task(wait.end())
    for line in range(2, 5):
        await hand.move(9.0)
        assert not ended.done()
        wait.add_line(line)
    await hand.move(9.0)
    assert not ended.done()
    await hand.move(1.5)
    assert ended.done()


async def test_a_reply_waits_for_no_more_than_eight_lines(hand):
    waits = LineWaits()
    wait = LineWait(1, ("ballast",), wait_s=10.0, began=hand.now)
    waits.begin(70, 7, wait)
    ended = asyncio.create_task(wait.end())
    for line in range(2, 8):
        wait.add_line(line)
    await hand.move(1.0)
    assert not ended.done() and waits.get(70, 7) is wait
    wait.add_line(8)
    await hand.move(1.0)
    assert ended.done() and waits.get(70, 7) is None


async def test_somebody_who_never_stops_is_answered_after_four_waits(hand):
    wait = LineWait(1, ("ballast",), wait_s=10.0, began=hand.now)
    ended = asyncio.create_task(wait.end())
    for line in range(2, 8):
        await hand.move(6.0)
        wait.add_line(line)
    await hand.move(3.5)
    assert not ended.done()
    await hand.move(1.0)
    assert ended.done()


async def test_edits_and_deletions_in_the_wait_count(stage):
    set_wait(stage)
    first = await stage.member.say(QUAY, "one")
    second = await stage.member.say(QUAY, "two")
    third = await stage.member.say(QUAY, "three")
    await stage.member.edit(first, "one, better")
    await stage.member.delete(third)
    await until(lambda: stage.engine.requests)
    assert asked(stage) == [["one, better", "two"]]
    assert second["content"] == "two"


async def test_lines_that_are_all_deleted_get_no_reply_and_no_word(stage):
    set_wait(stage, 0.2)
    before = len(stage.sandbox.messages(QUAY))
    lines = [await stage.member.say(QUAY, text) for text in ("one", "two")]
    for line in lines:
        await stage.member.delete(line)
    service = stage.client.services.reply_service
    await until(lambda: not service.line_waits._waits and not service.unfinished._counts)
    assert not stage.engine.requests and not stage.store.replies.unfinished()
    assert len(stage.sandbox.messages(QUAY)) == before


async def test_a_bot_that_ends_in_the_wait_answers_all_lines_at_its_next_start(tmp_path):
    async with on_stage(tmp_path) as stage:
        set_wait(stage, 10.0)
        await stage.member.say(QUAY, "one")
        gone = await stage.member.say(QUAY, "two")
        await stage.member.say(QUAY, "three")
        await until(
            lambda: len(stage.store.replies.lines(int(stage.sandbox.messages(QUAY)[-3]["id"]))) == 3
        )
        await stage.member.delete(gone)
        await until(lambda: stage.store.messages.is_deleted(int(gone["id"])))
        assert not stage.engine.requests
    async with on_stage(tmp_path) as stage:
        await stage.finished(QUAY, 0)
        assert asked(stage) == [["one", "three"]]


async def test_a_line_that_the_gateway_sends_again_is_not_answered_twice(stage):
    set_wait(stage, 0.2)
    mark = stage.mark
    await stage.member.say(QUAY, "one")
    await until(lambda: stage.client.services.reply_service.line_waits._waits)
    line = await stage.member.say(QUAY, "two")
    event = {**line, "guild_id": str(stage.sandbox.guild_id)}
    stage.client._connection.parse_message_create(event)
    await stage.finished(QUAY, mark)
    stage.client._connection.parse_message_create(event)
    await asyncio.sleep(0.4)
    assert asked(stage) == [["one", "two"]]


async def test_a_persona_that_is_muted_in_the_wait_says_nothing(stage):
    set_wait(stage, 0.3)
    before = len(stage.sandbox.messages(QUAY))
    await stage.member.say(QUAY, "one")
    await until(lambda: stage.client.services.reply_service.line_waits._waits)
    await stage.moderator.slash(QUAY, "persona mute")
    await until(lambda: not stage.store.replies.unfinished())
    assert not stage.engine.requests and len(stage.sandbox.messages(QUAY)) == before + 1


async def test_a_persona_that_leaves_in_the_wait_says_nothing_and_the_next_one_takes_over(stage):
    set_wait(stage, 0.5)
    line_waits = stage.client.services.reply_service.line_waits
    before = len(stage.sandbox.messages(QUAY))
    left = await stage.member.say(QUAY, "one")
    await until(lambda: line_waits._waits)
    await stage.moderator.slash(QUAY, "persona clear")
    await until(lambda: not stage.store.replies.unfinished())
    assert not stage.engine.requests and len(stage.sandbox.messages(QUAY)) == before + 1
    assert "Ballast does not live here any more." in await why(stage, message=left["id"])
    await stage.moderator.slash(QUAY, "persona set", persona="ballast")
    await stage.member.say(QUAY, "two")
    await until(lambda: line_waits._waits)
    await stage.moderator.slash(QUAY, "persona set", persona="oda")
    mark = stage.mark
    await stage.member.say(QUAY, "three")
    await stage.finished(QUAY, mark)
    await until(lambda: not stage.store.replies.unfinished())
    (request,) = stage.engine.requests
    assert request.persona.id == "oda" and request.turns[-1].text == "three"


async def test_a_greeting_of_a_persona_that_lives_elsewhere_is_answered_after_the_wait(stage):
    set_wait(stage)
    services = stage.client.services
    channel = services.client.get_channel(place(stage)[1])
    await services.reply_service.greet(services.personas.get("oda", 0), channel)
    greeting = stage.sandbox.messages(QUAY)[-1]
    assert greeting["author"]["username"] == "Oda Marrow"
    mark = stage.mark
    await stage.member.say(QUAY, "good evening", reply_to=greeting)
    await stage.member.say(QUAY, "is there soup?")
    await stage.finished(QUAY, mark)
    (request,) = stage.engine.requests
    assert request.persona.id == "oda" and asked(stage)[0][-1] == "is there soup?"


async def test_a_bot_that_ends_in_the_wait_begins_no_reply_of_a_persona_that_has_left(tmp_path):
    async with on_stage(tmp_path) as stage:
        set_wait(stage, 10.0)
        gone = await stage.member.say(QUAY, "one")
        await until(lambda: stage.client.services.reply_service.line_waits._waits)
        await stage.moderator.slash(QUAY, "persona set", persona="oda")
        kept = await stage.member.say(QUAY, "two")
        await until(lambda: stage.store.replies.get(int(kept["id"])))
        assert not stage.engine.requests
    async with on_stage(tmp_path) as stage:
        await stage.finished(QUAY, 0)
        await until(lambda: not stage.store.replies.unfinished())
        assert [request.persona.id for request in stage.engine.requests] == ["oda"]
        assert stage.store.replies.get(int(gone["id"])).state == "stopped"


async def test_a_bot_that_ends_in_the_wait_begins_no_reply_of_a_persona_that_is_muted(tmp_path):
    async with on_stage(tmp_path) as stage:
        set_wait(stage, 10.0)
        left = await stage.member.say(QUAY, "one")
        await until(lambda: stage.client.services.reply_service.line_waits._waits)
        await stage.moderator.slash(QUAY, "persona mute")
        before = stage.sandbox.messages(QUAY)
        assert not stage.engine.requests
    async with on_stage(tmp_path) as stage:
        await until(lambda: not stage.store.replies.unfinished())
        assert not stage.engine.requests and stage.sandbox.messages(QUAY) == before
        assert stage.store.replies.get(int(left["id"])).state == "stopped"


async def test_a_proxys_copy_takes_the_place_of_its_line_in_the_wait(stage):
    set_wait(stage, 0.6)
    proxy = stage.sandbox.proxy_bot()
    await stage.member.say(QUAY, "one")
    line = await stage.member.say(QUAY, "W: how deep is it?")
    copy = proxy.copy(line, "Wren", "how deep is it?")
    proxy.delete(line)
    await until(lambda: stage.engine.requests)
    assert copy["content"] == "how deep is it?"
    assert asked(stage) == [["one", "how deep is it?"]]
    await asyncio.sleep(0.2)
    assert len(stage.engine.requests) == 1


async def test_a_reply_that_is_posted_too_long_to_be_taken_back_is_not_forgotten(
    stage, monkeypatch
):
    monkeypatch.setattr(unfinished, "END_WAIT_S", 0.05)
    mark = stage.mark
    said = await stage.member.say(QUAY, "how deep is it?")
    await stage.finished(QUAY, mark)
    service = stage.client.services.reply_service
    reply = stage.store.replies.get(int(said["id"]))
    await until(lambda: not service.unfinished.holds(reply.event_id))
    with service.unfinished.counting(reply.event_id):
        await service.take_back([reply], stage.client)
    assert stage.store.replies.get(reply.event_id), "its buttons still find it"
    await service.take_back([reply], stage.client)
    assert stage.store.replies.get(reply.event_id) is None


async def test_why_tells_what_refused_a_proxys_copy(stage):
    proxy = stage.sandbox.proxy_bot()
    decisions = stage.client.services.decisions

    async def copied(words):
        line = await stage.member.say(QUAY, f"W: {words}")
        copy = proxy.copy(line, "Wren", words)
        proxy.delete(line)
        await until(
            lambda: (noted := decisions.find(place(stage)[1], int(copy["id"]))) and noted.remarks
        )
        return copy

    await stage.moderator.slash(QUAY, "moderation limits", cooldown=30)
    mark = stage.mark
    await stage.member.say(QUAY, "hello")
    await stage.finished(QUAY, mark)
    copy = await copied("how deep is it?")
    refused = (
        "Said to the persona (a proxy has posted a member's message again), but without a reply: "
    )
    limited = f"{refused}the member has had as many replies as the server allows."
    assert limited in await why(stage, message=copy["id"]) and limited in await why(stage)
    await stage.moderator.slash(QUAY, "persona mute")
    copy = await copied("how wide is it?")
    assert f"{refused}a moderator has silenced Ballast here." in await why(
        stage, message=copy["id"]
    )


# --------------------------------------------------------------------- settings, chance, quiet hours


async def test_moderators_set_show_and_reset_it_and_members_may_not(stage):
    for command in ("persona answering set", "persona answering reset", "persona why"):
        options = {"chance": 5} if command.endswith(" set") else {}
        refused = await stage.member.slash(QUAY, command, **options)
        assert "moderators" in (await said(refused, "moderators"))
    answer = await stage.moderator.slash(
        QUAY, "persona answering set", wait=1.5, chance=40, quiet_hours="22-7", quiet_mentions=True
    )
    text = await said(answer, "Quiet hours")
    assert "1.5 s" in text and "40 %" in text and "22:00-07:00 in this server's time" in text
    shown = await stage.member.slash(QUAY, "persona answering show")
    assert "40 %" in await said(shown, "Quiet hours")
    answer = await stage.moderator.slash(QUAY, "persona answering set", quiet_hours="none")
    assert "Quiet hours:" not in await said(answer, "Silent to mentions in quiet hours: yes")
    answer = await stage.moderator.slash(QUAY, "persona answering set", quiet_hours="all night")
    assert "22:00-07:00" in await said(answer, "is no span of hours")
    answer = await stage.moderator.slash(QUAY, "persona answering set")
    text = await said(answer, "Nothing was given")
    assert "Reply chance" in text and "_" not in text
    answer = await stage.moderator.slash(QUAY, "persona answering reset", setting="wait_s")
    assert "Reply chance: 40 %" in await said(answer, "Reset")
    await stage.moderator.slash(QUAY, "persona answering reset")
    assert not stored(stage, place(stage))
    answer = await stage.moderator.slash(QUAY, "persona answering reset")
    assert await said(answer, "Nothing is set here")
    with pytest.raises(RefusedError, match="channels of a server"):
        change(stage, (0, 9), {"reply_chance": 10})


async def test_chance_and_quiet_hours_leave_messages_alone_that_call_nobody(stage):
    change(stage, place(stage), {"reply_chance": 0})
    await stage.member.say(QUAY, "is anybody there?")
    mark = stage.mark
    await stage.member.say(QUAY, "is Ballast there?")
    await stage.finished(QUAY, mark)
    await stage.moderator.slash(QUAY, "persona timezone", zone="Asia/Tokyo")
    now = datetime.now(stage.client.services.time_zones.in_guild(place(stage)[0]))
    hours = f"{now:%H}:00-{(now.hour + 2) % 24:02}:00"
    answer = await stage.moderator.slash(QUAY, "persona answering set", quiet_hours=hours)
    await said(answer, "Quiet hours")
    await stage.member.say(QUAY, "is Ballast asleep?")
    mark = stage.mark
    await stage.member.say(QUAY, "@Understudy are you asleep?")
    await stage.finished(QUAY, mark)
    assert len(stage.engine.requests) == 2
    explained = await why(stage)
    assert explained.count("the reply chance did not fall on it") == 1
    assert explained.count("quiet hours") == 1 and explained.count("mentions the bot") == 1
    chat = await stage.member.slash(QUAY, "chat", message="and now?")
    await until(lambda: len(stage.engine.requests) == 3)
    assert chat


async def test_a_mention_that_an_edit_adds_comes_at_the_time_of_the_edit(tmp_path):
    clock = AheadClock()
    async with on_stage(tmp_path, clock=clock) as stage:
        start = clock.at - timedelta(minutes=30)
        hours = f"{start:%H:%M}-{start + timedelta(minutes=60):%H:%M}"
        changes = {"quiet_hours": hours, "quiet_mentions": True, "reply_chance": 0}
        change(stage, place(stage), changes)
        message = await stage.member.say(QUAY, "are you there?")
        decisions = stage.client.services.decisions
        await until(lambda: decisions.find(*_ids(message)))
        clock.ahead_s = 3600
        mark = stage.mark
        await stage.member.edit(message, "@Understudy are you there?")
        await stage.finished(QUAY, mark)


def _ids(message):
    return int(message["channel_id"]), int(message["id"])


# ------------------------------------------------------------------------------------------- why


async def test_why_explains_one_message_by_its_link_or_id_also_after_a_restart(tmp_path):
    async with on_stage(tmp_path) as stage:
        assert "No member has written" in await why(stage, OFFICE)
        mark = stage.mark
        answered = await stage.member.say(QUAY, f"hello, <@{stage.moderator.id}>")
        await stage.finished(QUAY, mark)
        await stage.moderator.slash(QUAY, "persona mute")
        silenced = await stage.member.say(QUAY, "hello?")
        command = await stage.member.say(QUAY, "!help")
        await until(
            lambda: stage.client.services.decisions.find(place(stage)[1], int(command["id"]))
        )
        link = f"https://discord.com/channels/{place(stage)[0]}/{place(stage)[1]}/{silenced['id']}"
        assert "has silenced Ballast here" in await why(stage, INN, message=link)
    async with on_stage(tmp_path) as stage:
        text = await why(stage, message=answered["id"])
        assert "Answered by Ballast: the persona answers every message here." in text
        assert ": hello, @Mina Vale" in text
        text = await why(stage, message=command["id"])
        assert "a command to another bot. By the settings of now" in text
        text = await why(stage, message=silenced["id"])
        assert "Said to the persona" in text and "no longer stored" in text
        for wrong, words in (
            ("soup", "That is no message"),
            ("1", "That message is gone"),
            (f"https://discord.com/channels/1/2/{answered['id']}", "no channel that you see"),
        ):
            assert words in await why(stage, message=wrong)


async def test_why_shows_words_of_a_private_thread_to_those_who_may_see_it(stage):
    thread = await stage.member.thread(QUAY, "aside")
    said = await stage.member.say(thread, "between us")
    guild = stage.client.get_guild(stage.sandbox.guild_id)
    await until(lambda: guild.get_thread(int(thread["id"])))
    # The sandbox has no private threads: the bot hears of one as it would from Discord.
    container = stage.sandbox._container
    private = container.store.get("channel", thread["id"]) | {"type": 12}
    container.gateway.dispatch("THREAD_CREATE", private)
    await until(lambda: guild.get_thread(int(thread["id"])).is_private())
    link = f"https://discord.com/channels/{guild.id}/{thread['id']}/{said['id']}"
    assert "That message is in no channel that you see here." in await why(stage, message=link)
    assert "between us" in await why(stage, thread, message=link), "where they read it"
    owner = stage.sandbox.member(OWNER)  # who may manage threads
    answer = await owner.slash(QUAY, "persona why", message=link)
    await until(lambda: "between us" in (answer.message or {}).get("content", ""))


async def test_why_knows_who_answered_where_nobody_lives_any_more(tmp_path):
    async with on_stage(tmp_path) as stage:
        mark = stage.mark
        answered = await stage.member.say(QUAY, "hello")
        await stage.finished(QUAY, mark)
        await stage.moderator.slash(QUAY, "persona clear")
        every = "Answered by Ballast: the persona answers every message here."
        assert every in await why(stage, message=answered["id"])
        stage.client.services.reply_service.decisions = DecisionLog()
        text = await why(stage, message=answered["id"])
        assert "Answered by Ballast: by which rule is not known any more" in text
        assert "no persona lives here" not in text
