"""Floods of messages: who is refused learns it once, others are answered, and nothing piles up."""

from __future__ import annotations

import asyncio
import gc
from contextlib import ExitStack
from typing import Any

import discord
import psutil
import pytest

from bot.chat import discord_answers
from bot.chat.message_reader import IncomingMessage
from bot.chat.places import ChannelCache
from bot.chat.reply import Reply
from bot.chat.unfinished import MAX_REPLIES_IN_CHANNEL, MAX_REPLIES_TO_MEMBER
from bot.chat.webhooks import SenderRegistry
from sandbox.channel_messages import EPHEMERAL
from tests.bot.conftest import INN, OFFICE, QUAY, Stage, on_stage
from tests.fakes import until

EVENTS = 10_000


def arrive(stage: Stage, said: dict[str, Any], count: int, **changes: Any) -> None:
    """Have messages arrive from the gateway, each an event of its own like `said`."""
    for number in range(1, count + 1):
        event = {
            **said,
            "guild_id": str(stage.sandbox.guild_id),
            "id": str(int(said["id"]) + number),
            **changes,
        }
        stage.client._connection.parse_message_create(event)


def posted(stage: Stage, channel: str, words: str) -> int:
    return sum(words in message["content"] for message in stage.sandbox.messages(channel))


@pytest.mark.slow
async def test_a_member_who_floods_leaves_nothing_behind_and_delays_nobody(stage):
    service = stage.client.services.reply_service
    stage.engine.free.clear()
    said = await stage.member.say(QUAY, "hello")
    await until(lambda: service.running)
    gc.collect()
    memory = psutil.Process().memory_info().rss
    for _ in range(EVENTS // 1000):
        arrive(stage, said, 1000)
        said = {**said, "id": str(int(said["id"]) + 1000)}
        await asyncio.sleep(0)
    grown = psutil.Process().memory_info().rss - memory
    # The bot has 10,000 events to look at, which on a slow machine takes longer than other tests wait.
    await until(lambda: posted(stage, QUAY, "as many as one may have"), timeout_s=120)
    await until(lambda: len(stage.engine.requests) >= MAX_REPLIES_TO_MEMBER, timeout_s=120)
    assert len(asyncio.all_tasks()) < 100 and grown < 15 * 2**20
    assert len(stage.engine.requests) == len(service.running) == MAX_REPLIES_TO_MEMBER
    rows = stage.store._connection.value(int, "select count(*) from replies where asked_by > 0")
    assert rows == MAX_REPLIES_TO_MEMBER
    await stage.moderator.say(QUAY, "and I?")
    await until(lambda: stage.engine.requests[-1].turns[-1].text == "and I?")
    assert stage.engine.requests[-1].member_id == int(stage.moderator.id)
    stage.engine.free.set()
    await until(lambda: not service.running and not service.unfinished._counts)
    assert posted(stage, QUAY, "Ballast hears") == MAX_REPLIES_TO_MEMBER + 1
    assert posted(stage, QUAY, "as many as one may have") == 1
    mark = stage.mark
    await stage.member.say(QUAY, "now again")
    await stage.finished(QUAY, mark)


async def test_many_members_fill_a_channel_and_no_more(stage, monkeypatch):
    monkeypatch.setattr("bot.chat.unfinished.MAX_REPLIES_IN_CHANNEL", 5)
    stage.engine.free.clear()
    said = await stage.member.say(QUAY, "hello")
    author = dict(said["author"])
    for number in range(20):
        said = {**said, "id": str(int(said["id"]) + 1)}
        arrive(stage, said, 1, author={**author, "id": str(10**17 + number)})
    await stage.sees("as many as it may have. Try again")
    await until(lambda: len(stage.engine.requests) >= 5)
    assert len(stage.engine.requests) == 5 < MAX_REPLIES_IN_CHANNEL
    await stage.member.say(INN, "elsewhere there is room")
    await until(lambda: len(stage.engine.requests) == 6)
    answer = await stage.member.slash(QUAY, "chat", message="and so?")
    assert answer.ephemeral and "as many as it may have" in answer.message["content"]


async def test_a_full_queue_is_reported_once_a_minute_in_each_channel(stage):
    stage.engine.full, before = True, len(stage.sandbox.messages(QUAY))
    for channel in (QUAY, QUAY, INN, QUAY):
        await stage.member.say(channel, "hello")
    await until(lambda: posted(stage, INN, "are waiting already"))
    for _ in range(2):
        mark = stage.mark
        await stage.member.slash(QUAY, "chat", message="hello")
        notice = await stage.sandbox.wait_for(
            "message",
            lambda one: one["flags"] & EPHEMERAL and "are waiting already" in one["content"],
            since=mark,
        )
        assert "hello" not in notice["content"]
    await until(lambda: not posted(stage, QUAY, ":** hello"))
    notices = stage.client.get_cog("ChatCog").answerer._busy_notices
    assert [posted(stage, channel, "are waiting already") for channel in (QUAY, INN)] == [1, 1]
    assert len(stage.sandbox.messages(QUAY)) - before == 3 + 1, "nothing but the notice is posted"
    later = discord.utils.utcnow().timestamp() + discord_answers.BUSY_NOTICE_INTERVAL_S + 1
    notices._verify_cache_integrity(later)
    assert not notices._cache, "what is kept of a channel expires"
    await stage.member.say(QUAY, "hello")
    await until(lambda: posted(stage, QUAY, "are waiting already") == 2)


async def test_mentions_where_nobody_lives_are_answered_a_few_times(stage):
    said = await stage.member.say(OFFICE, "@Understudy hello?")
    arrive(stage, said, 200)
    await stage.sees("`/persona set`")
    await asyncio.sleep(0.3)
    assert posted(stage, OFFICE, "`/persona set`") == discord_answers.MAX_ERRORS_PER_MINUTE


async def test_an_interrupted_reply_waits_for_a_place_after_the_restart(tmp_path):
    async with on_stage(tmp_path) as stage:
        stage.engine.free.clear()
        await stage.member.say(QUAY, "do not forget me")
        growing = await stage.sees("…", by="Ballast")
        await until(lambda: stage.store.replies.unfinished())
    full = stage.engine.__class__()
    full.full = True
    full.busy_s = 0.05
    async with on_stage(tmp_path, engine=full) as stage:
        await until(lambda: full.refusals > 1)
        assert stage.store.replies.unfinished()
        full.full = False
        reply = await stage.finished(QUAY, 0)
        assert (
            reply["id"] == growing["id"] and "Ballast hears: do not forget me" in reply["content"]
        )


async def test_replies_of_one_channel_share_its_rate_of_edits(stage):
    service = stage.client.services.reply_service
    channel = stage.client.guilds[0].text_channels[0]
    persona = stage.client.services.personas.get("ballast", 0)
    live = Reply(service, persona, channel).message
    stretches = []
    with ExitStack() as replies:
        for number in range(8):
            replies.enter_context(
                service.unfinished.counting(number, member=number, channel=channel.id)
            )
            stretches.append(live.stretch_s())
    assert stretches == [0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0] and live.stretch_s() == 0.0


def test_what_is_kept_of_channels_is_bounded():
    cache: ChannelCache[str] = ChannelCache(3)
    for channel in (1, 2, 3, 1, 4):
        cache[channel] = f"of {channel}"
    assert list(cache) == [3, 1, 4] and cache.pop(3, None) and cache.get(2) is None


async def test_locks_of_channels_go_with_their_last_user(stage):
    senders: SenderRegistry = stage.client.services.reply_service.senders
    persona = stage.client.services.personas.get("ballast", 0)
    channel = discord.utils.get(stage.client.guilds[0].text_channels, name=QUAY)
    await asyncio.gather(*(senders.of(persona, channel) for _ in range(50)))
    gc.collect()
    assert len(senders._locks) == 0 and len(senders._avatars) >= 1
    unanswered = stage.client.services.unanswered
    for number in range(3000):
        unanswered[number] = IncomingMessage(number, 1, "Ada", "hello")
    assert len(unanswered) == 1000 and 2999 in unanswered
