"""Replies at a restart, a lost connection and unexpected errors: each is made once, the oldest
first, or fails once.
"""

import asyncio
import dataclasses

import aiohttp
import discord
import pytest

from bot.chat import delivery, recovery, unfinished
from bot.chat.discord_missed import answer_missed
from bot.chat.recovery import ReplyRecovery
from bot.chat.reply import Reply
from bot.chat.senders import BotSender
from bot.chat.store.replies import StoredReplies
from bot.chat.webhooks import SenderRegistry
from bot.demo_guild import SKERROW_SEED
from bot.platform.permissions import required_permissions
from bot.store import Store, StoreError
from sandbox.wire_faults import RequestFault, WireFaults
from tests.bot.conftest import INN, QUAY, STAGE, on_stage
from tests.fake_engine import FakeEngine
from tests.fakes import until

CHANNELS = (QUAY, INN, STAGE)


async def interrupted(tmp_path, count: int) -> list[int]:
    """Stop a bot that is making so many replies; returns their events, oldest first."""
    async with on_stage(tmp_path) as stage:
        stage.engine.free.clear()
        for number in range(count):
            who = stage.moderator if number % 2 else stage.member
            await who.say(CHANNELS[number % 3], f"question {number}")
        await until(lambda: len(stage.store.replies.unfinished()) == count)
        return [reply.event_id for reply in stage.store.replies.unfinished()]


def replies_to(stage, words: str) -> list[str]:
    """The messages in which somebody answered these words."""
    said = [
        message["content"] for channel in CHANNELS for message in stage.sandbox.messages(channel)
    ]
    return [text for text in said if f"hears: {words}" in text]


async def test_the_oldest_are_finished_first_and_some_at_once(tmp_path, monkeypatch):
    events = await interrupted(tmp_path, 11)
    begun = []
    resume = ReplyRecovery.resume

    async def held(self, stored, client):
        begun.append(stored.event_id)
        await free.wait()
        await resume(self, stored, client)

    free = asyncio.Event()
    monkeypatch.setattr(ReplyRecovery, "resume", held)
    async with on_stage(tmp_path) as stage:
        await until(lambda: len(begun) == recovery.MAX_RESUMED_AT_ONCE)
        await asyncio.sleep(0.1)
        assert begun == events[: recovery.MAX_RESUMED_AT_ONCE]
        free.set()
        await until(lambda: not stage.store.replies.unfinished())
        assert begun == events and all(
            len(replies_to(stage, f"question {n}\n")) == 1 for n in range(11)
        )


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_one_that_ended_while_it_waited_for_its_turn_is_not_made(
    tmp_path, monkeypatch, is_deleted
):
    first, second = await interrupted(tmp_path, 2)
    resume = ReplyRecovery.resume
    free = asyncio.Event()

    async def held(*parts):
        await free.wait()
        await resume(*parts)

    monkeypatch.setattr(recovery, "MAX_RESUMED_AT_ONCE", 1)
    monkeypatch.setattr(unfinished, "END_WAIT_S", 0.05)
    monkeypatch.setattr(ReplyRecovery, "resume", held)
    async with on_stage(tmp_path) as stage:
        service = stage.client.services.reply_service
        await until(lambda: service.unfinished.holds(second))
        if is_deleted:
            waiting = stage.store.replies.get(second)
            assert [why async for why in service.delete([waiting], stage.client)] == [""]
        else:
            stage.store.replies.finish(second, "stopped")
        free.set()
        await until(lambda: not service.unfinished.holds(second))
        assert (
            stage.store.replies.get(first).state == "done"
            and stage.store.replies.get(second).state == "stopped"
        )
        assert len(stage.engine.requests) == 1 and not replies_to(stage, "question 1")


async def test_one_whose_message_is_deleted_meanwhile_answers_no_other_message(
    tmp_path, monkeypatch
):
    async with on_stage(tmp_path) as stage:
        await stage.moderator.say(QUAY, "question 0")
        stage.store.messages.delete(int((await stage.finished(QUAY, 0))["id"]))
        stage.engine.free.clear()
        asked = int((await stage.member.say(QUAY, "question 1"))["id"])
        await until(lambda: len(stage.engine.requests) == 2)
    of = SenderRegistry.of

    async def of_a_deleted_message(registry, persona, channel):
        registry._store.messages.delete(asked)
        return await of(registry, persona, channel)

    monkeypatch.setattr(SenderRegistry, "of", of_a_deleted_message)
    async with on_stage(tmp_path) as stage:
        await until(lambda: stage.store.replies.get(asked).state not in ("waiting", "streaming"))
        (left,) = stage.store.messages.latest(int(stage.sandbox.channel(QUAY)["id"]), 20)
        assert left.text == "question 0" and stage.store.replies.get(asked).state == "failed"
        assert stage.engine.requests == []


@pytest.mark.parametrize("error", [ValueError("odd"), aiohttp.ClientPayloadError("cut")])
async def test_an_error_of_any_kind_before_the_first_message_ends_a_reply_once(
    tmp_path, monkeypatch, error
):
    async def fail(*_):
        raise error

    async with on_stage(tmp_path) as stage:
        with monkeypatch.context() as failing:
            failing.setattr(delivery, "MAX_DELIVERY_S", 0.0)
            failing.setattr(SenderRegistry, "of", fail)
            event = int((await stage.member.say(QUAY, "hello"))["id"])
            await until(lambda: stage.store.replies.get(event))
            await until(lambda: stage.store.replies.get(event).state == "failed")
        count = len(stage.engine.requests)
    async with on_stage(tmp_path) as stage:
        mark = stage.mark
        await stage.member.say(INN, "and you?")
        await stage.finished(INN, mark)
        await until(lambda: not stage.store.replies.unfinished())
        assert count == 1 and len(stage.engine.requests) == 1 and not replies_to(stage, "hello")


async def test_a_reply_that_cannot_be_stored_is_shown_and_stored_later(stage, monkeypatch):
    refused = []
    store_end = Reply._store_end

    def fail_twice(*parts):
        if len(refused) < 2:
            refused.append(stage.sandbox.messages(QUAY)[-1]["content"])
            raise StoreError("The database is full.", "Free disk space.")
        store_end(*parts)

    monkeypatch.setattr(delivery, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(Reply, "_store_end", fail_twice)
    event = int((await stage.member.say(QUAY, "hello"))["id"])
    await stage.finished(QUAY, 0)
    await until(lambda: not stage.store.replies.unfinished())
    assert stage.store.replies.get(event).state == "done" and len(refused) == 2
    assert "-# AI-written" in refused[1], "shown before it is stored"
    assert len(replies_to(stage, "hello")) == 1 and len(stage.engine.requests) == 1


async def test_messages_whose_ids_the_end_could_not_store_are_stored_before_they_lose_buttons(
    tmp_path, monkeypatch
):
    """The row of the end has the first message alone: the others are posted for it."""
    record_parts = StoredReplies.record_parts
    refused = []

    def fail_for_more(replies, event_id, parts):
        if len(parts) > 1 and len(refused) < 2:
            refused.append(parts)
            raise StoreError("The database is full.", "Free disk space.")
        record_parts(replies, event_id, parts)

    monkeypatch.setattr(StoredReplies, "record_parts", fail_for_more)
    words = [f"word{number} " for number in range(600)]
    async with on_stage(tmp_path, engine=FakeEngine(lambda request: words)) as stage:
        event = int((await stage.member.say(QUAY, "tell me everything"))["id"])
        await stage.finished(QUAY, 0)
        await until(lambda: not stage.client.services.reply_service.tasks)
        shown = [it for it in stage.sandbox.messages(QUAY) if "word" in it["content"]]
        assert len(refused) == 2 and len(shown) == 3
        assert stage.store.replies.get(event).parts == tuple(int(it["id"]) for it in shown)
        assert [bool(it["components"]) for it in shown] == [False, False, True]


async def test_the_bots_own_message_that_was_posted_although_the_connection_broke_is_posted_once(
    tmp_path, monkeypatch
):
    allowed = required_permissions()
    allowed.manage_webhooks = False
    async with on_stage(
        tmp_path, seed=dataclasses.replace(SKERROW_SEED, bot_permissions=allowed.value)
    ) as stage:
        faults = [RequestFault.CUT_AFTER]
        posted = []
        send = BotSender.say

        async def disturbed(*parts):
            monkeypatch.setattr(
                WireFaults, "of_request", lambda _: faults.pop() if faults else None
            )
            posted.append(await send(*parts))
            return posted[-1]

        monkeypatch.setattr(delivery, "RETRY_PAUSES_S", (0.01, 0.01))
        monkeypatch.setattr(BotSender, "say", disturbed)
        before = len(stage.sandbox.messages(QUAY))
        await stage.member.say(QUAY, "hello")
        await stage.finished(QUAY, 0)
        assert not faults and len(posted) == 1
        assert len(stage.sandbox.messages(QUAY)) == before + 2, "the question and one reply"


async def test_a_thread_whose_channel_is_not_seen_keeps_no_message_from_being_answered(stage):
    """Nobody can tell the permissions in such a thread."""
    guild = stage.client.get_guild(int(stage.sandbox.guild_id))
    times = {"archived": False, "auto_archive_duration": 60, "archive_timestamp": "2026-01-01"}
    data = {
        "id": 1, "parent_id": 2, "owner_id": 3, "name": "apart", "type": 11,
        "message_count": 0, "member_count": 1, "thread_metadata": times,
    }  # fmt: skip
    guild._add_thread(discord.Thread(guild=guild, state=guild._state, data=data))
    event = int((await stage.member.say(QUAY, "@Understudy hello"))["id"])
    await stage.finished(QUAY, 0)
    await until(lambda: not stage.client.services.reply_service.tasks)
    # As if it had come during an outage.
    stage.store.replies._db.write("delete from replies")
    stage.client.services.decisions._channels.clear()
    found = []

    async def answer(message):
        found.append(message.id)

    await answer_missed(stage.client, stage.client.services, 0.0, answer)
    assert found == [event]


async def test_a_reply_that_can_no_longer_be_made_anew_keeps_the_text_that_prompts_have(tmp_path):
    async with on_stage(tmp_path) as stage:
        mark = stage.mark
        said = await stage.member.say(QUAY, "hello")
        reply = await stage.finished(QUAY, mark)
        stage.engine.free.clear()
        mark = stage.mark
        await stage.member.click(reply, f"again:{said['id']}")
        await stage.sees("…", "edit", mark)
    with Store.open(tmp_path / "understudy.sqlite") as store:
        store.replies._db.write("update replies set created_at = 1.0 where trigger_seq > 0")
    async with on_stage(tmp_path) as stage:
        await until(lambda: not stage.store.replies.unfinished())
        reply = stage.store.replies.get(int(said["id"]))
        end = "Ballast hears: hello\n-# This reply was cut off. Ask again."
        assert shown_in(stage, reply)["content"] == end
        assert known_in(stage, reply) == ["hello", "Ballast hears: hello"]


async def begun_in_thread(stage):
    """A reply that has begun in a thread, which is archived then; returns its event."""
    stage.engine.free.clear()
    thread = await stage.member.thread(QUAY, "aside")
    said = await stage.member.say(thread, "hold on")
    await stage.sees("…", by="Ballast")
    await until(lambda: stage.store.replies.get(int(said["id"])).parts)
    stage.sandbox.archive_thread(thread["id"])
    return int(said["id"])


def shown_in(stage, reply):
    (message,) = [it for it in history(stage, reply) if it["id"] == str(reply.parts[0])]
    return message


def history(stage, reply):
    return stage.sandbox._container.messages.history(str(reply.channel_id), 50)


def known_in(stage, reply):
    """The texts that a prompt in the reply's channel would have."""
    return [message.text for message in stage.store.messages.latest(reply.channel_id, 20)]


async def test_a_reply_whose_thread_is_archived_ends_where_members_see_it_when_it_opens(stage):
    event_id = await begun_in_thread(stage)
    stage.engine.free.set()
    await until(lambda: stage.store.replies.get(event_id).is_unseen)
    reply = stage.store.replies.get(event_id)
    assert reply.state == "done" and "hold on" in stage.store.messages.text_of(reply.parts[0])
    assert shown_in(stage, reply)["content"] == "…"
    assert known_in(stage, reply) == ["hold on"], "nobody has seen the reply"
    await stage.client.services.reply_service.recovery.resume_interrupted(stage.client)
    assert known_in(stage, reply) == ["hold on"], "nor after another connection"
    said = {"id": str(reply.channel_id), "name": "aside"}
    await stage.member.say(said, "and now?")
    await until(lambda: not stage.store.replies.unfinished())
    shown = shown_in(stage, reply)
    assert shown["content"].startswith("Ballast hears: hold on\n-# AI-written")
    assert len(shown["components"]) == 1, "with the buttons of a reply that has ended"
    assert known_in(stage, reply)[:2] == ["hold on", "Ballast hears: hold on"]


@pytest.mark.parametrize("is_made", [True, False])
async def test_a_start_shows_the_end_of_a_reply_in_an_archived_thread_when_it_opens(
    tmp_path, caplog, is_made
):
    async with on_stage(tmp_path) as stage:
        event_id = await begun_in_thread(stage)
        if is_made:  # and its end was not shown, as while Discord was away
            stage.store.replies.finish(event_id, "done", end_note="-# a note")
    async with on_stage(tmp_path) as stage:
        await until(lambda: stage.store.replies.get(event_id).is_unseen)
        reply = stage.store.replies.get(event_id)
        assert reply.state == ("done" if is_made else "failed")
        assert shown_in(stage, reply)["content"] == "…"
        stage.sandbox.open_thread(str(reply.channel_id))
        await until(lambda: not stage.store.replies.unfinished())
        end = "-# a note" if is_made else "-# This reply was cut off. Ask again."
        assert shown_in(stage, reply)["content"] == end
    assert "could not be finished" not in caplog.text
