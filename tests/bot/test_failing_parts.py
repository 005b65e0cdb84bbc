"""What fails while replies are made costs a delay or a part: other calls, the database, the first
connection.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import contextmanager
from itertools import pairwise

import aiohttp
import discord
import pytest
from aiohttp import web

from bot.chat import delivery, held_events, streaming_reply
from bot.chat.held_events import EventDroppedError, HeldEvents
from bot.demo_guild import NEWCOMER
from bot.platform.db import database as store_database
from bot.safety.actions import DISCLOSURE
from bot.store import StoreError
from personas.errors import AdapterError
from personas.lore.index import LoreIndex
from sandbox.channel_messages import EPHEMERAL, LOADING
from sandbox.gateway import Gateway
from sandbox.interactions import CallbackType
from sandbox.message_components import all_components
from sandbox.wire_faults import RequestFault
from tests.bot.conftest import INN, OFFICE, QUAY, STAGE, on_stage
from tests.chaos.failing_calls import CALLS, FOLLOW_UPS
from tests.fakes import until

EDIT = CALLS["edit"]


@pytest.fixture
def hasty(monkeypatch):
    """Short pauses after errors, ours and discord.py's."""
    slept = asyncio.sleep
    for module in ("discord.http", "discord.webhook.async_"):
        monkeypatch.setattr(
            f"{module}.asyncio.sleep", lambda delay, *rest: slept(min(delay, 0.01), *rest)
        )
    monkeypatch.setattr(delivery, "RETRY_PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(delivery, "FIRST_PAUSE_S", 0.01)


@contextmanager
def locked(home):
    """Another program writes to the database, for longer than the bot waits."""
    other = sqlite3.connect(home / "understudy.sqlite")
    other.execute("begin immediate")
    yield
    other.rollback()
    other.close()


def texts(stage, channel) -> list[str]:
    return [message["content"] for message in stage.sandbox.messages(channel)]


# ------------------------------------------------------------------------------- the end of a reply


async def test_an_end_that_discord_did_not_take_is_shown_whole_by_the_next_start(
    tmp_path, monkeypatch, hasty
):
    monkeypatch.setattr(delivery, "MAX_DELIVERY_S", 0.05)
    async with on_stage(tmp_path) as stage:
        stage.sandbox.fail_requests(EDIT, "blocked", 10_000)
        event = int((await stage.member.say(QUAY, "hello"))["id"])
        await until(lambda: stage.store.replies.get(event))
        await until(lambda: not stage.client.services.reply_service.tasks)
        assert texts(stage, QUAY)[-1] == "…" and stage.store.replies.get(event).state == "done"
    async with on_stage(tmp_path) as stage:
        await until(lambda: not stage.store.replies.unfinished())
        shown = f"Ballast hears: hello\n-# AI-written · base model\n{DISCLOSURE}"
        assert texts(stage, QUAY)[-1] == shown
        assert "went wrong" not in str(stage.sandbox.messages(QUAY)) and not stage.engine.requests


async def test_edits_that_fail_are_left_out_and_follow_more_slowly(monkeypatch):
    clock = [100.0]
    tried = []

    class Refusing:
        async def say(self, text, view=None, since=None):
            return 1

        async def change(self, message_id, text, view=None):
            tried.append(clock[0])
            raise aiohttp.ServerDisconnectedError

    class Words:
        reply = None

        async def __aiter__(self):
            for _ in range(600):
                clock[0] += 0.1
                yield "word "

    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock[0])

    class Senders:
        async def of(self, persona, channel):
            return Refusing()

    live = streaming_reply.StreamingReply(
        senders=Senders(),
        persona=None,
        channel=None,
        growing=lambda: None,
        ended=lambda: None,
        on_parts=lambda parts: True,
    )
    await live.begin()
    await live.follow(Words())
    gaps = [round(later - earlier) for earlier, later in pairwise(tried)]
    assert gaps == [2, 4, 8, 16] and live.generated == "word " * 600


# ------------------------------------------------------------------------------------- the database


async def test_messages_that_meet_a_locked_database_are_held_and_answered_in_order(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(store_database, "BUSY_TIMEOUT_S", 0.01)
    monkeypatch.setattr(held_events, "RETRY_DELAY_S", 0.02)
    async with on_stage(tmp_path) as stage, aiohttp.ClientSession(stage.sandbox.url) as session:

        async def health():
            async with session.get("/healthz") as response:
                return response.status, await response.json(content_type=None)

        service = stage.client.services.reply_service
        channels = (QUAY, INN, STAGE)
        before = {channel: len(texts(stage, channel)) for channel in channels}
        with locked(tmp_path):
            said = [await stage.member.say(QUAY, f"question {number}") for number in range(3)]
            await stage.member.edit(said[0], "question 0, at last")
            await stage.member.delete(said[1])
            await stage.member.slash(QUAY, "chat", message="by command")
            await until(lambda: len(service.events) == 6)
            status, problem = await health()
            assert (status, problem["type"]) == (503, "/problems/not-stored")
            for fact in ("UNDERSTUDY_HOME/understudy.sqlite", "database is locked"):
                assert fact in str(problem)
            answer = await stage.member.slash(INN, "persona fresh")
            assert answer.ephemeral and "cannot store" in answer.message["content"]
            assert "Try it again" in answer.message["content"]
            monkeypatch.setattr("bot.operations.web.system_state.WRITE_PROBE_INTERVAL_S", 0.0)
        await until(lambda: not len(service.events) and not stage.store.replies.unfinished())
        await until(lambda: not service.tasks)
        channel_id = int(said[0]["channel_id"])
        asked = [
            one.text
            for one in stage.store.messages.latest(channel_id, 50)
            if one.persona_id is None
        ]
        assert sorted(asked) == ["by command", "question 0, at last", "question 2"]
        prompts = str([request.turns for request in stage.engine.requests])
        assert "question 0, at last" in prompts and "question 1" not in prompts
        assert len(stage.engine.requests) == 3, "what was deleted is not answered"
        shown = str(texts(stage, QUAY)[before[QUAY] :])
        assert all(
            f"Ballast hears: {one}" in shown for one in ("question 0", "question 2", "by command")
        )
        assert not any(
            "database" in text or "store" in text
            for channel in channels
            for text in texts(stage, channel)
        )
        assert (await health())[0] == 200


async def test_what_is_deleted_while_it_is_being_read_is_not_answered(stage, monkeypatch):
    reader = stage.client.services.message_reader
    go_on = asyncio.Event()
    reading = []
    read = reader.read

    async def held(message):
        incoming = await read(message)
        reading.append(message.id)
        await go_on.wait()
        return incoming

    monkeypatch.setattr(reader, "read", held)
    channel = await stage.member.dm()
    gone = await stage.member.say(channel, "a secret to delete")
    edited = await stage.member.say(QUAY, "the old text")
    await until(lambda: len(reading) == 2)
    await stage.member.delete(gone)
    mark = stage.mark
    await stage.member.edit(edited, "the new text")
    await until(lambda: stage.client.cogs["ChatCog"].answerer.answering.get(int(edited["id"])))
    go_on.set()
    await stage.finished(QUAY, mark)
    assert stage.engine.requests[-1].turns[-1].text == "the new text"
    told = [
        one
        for kind, one in stage.sandbox.events
        if kind == "message" and one["channel_id"] == channel["id"]
    ]
    assert [one["content"] for one in told] == [
        "a secret to delete"
    ] and not stage.client.services.unanswered


async def test_a_message_without_a_persona_yet_is_forgotten_with_its_deletion(stage):
    channel = await stage.member.dm()
    unanswered = stage.client.services.unanswered
    said = await stage.member.say(channel, "a secret to delete")
    await until(lambda: unanswered)
    await stage.member.edit(said, "the new text")
    await until(lambda: unanswered[int(channel["id"])].text == "the new text")
    await stage.member.delete(said)
    await until(lambda: not unanswered)


async def test_no_prompt_is_built_while_a_deletion_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(store_database, "BUSY_TIMEOUT_S", 0.01)
    monkeypatch.setattr(held_events, "RETRY_DELAY_S", 0.02)
    async with on_stage(tmp_path) as stage:
        service = stage.client.services.reply_service
        mark = stage.mark
        gone = await stage.member.say(QUAY, "a secret to delete")
        await stage.finished(QUAY, mark)
        mark = stage.mark
        await stage.member.say(QUAY, "another question")
        reply = await stage.finished(QUAY, mark)
        await until(lambda: not service.tasks)
        asked = len(stage.engine.requests)
        with locked(tmp_path):
            await stage.member.delete(gone)
            await until(lambda: len(service.events) == 1)
            (button,) = [
                one["custom_id"]
                for one in reply["components"][0]["components"]
                if "again:" in one["custom_id"]
            ]
            await stage.member.click(reply, button)
            await stage.sees("I cannot store anything", since=mark)
        assert len(stage.engine.requests) == asked
        await until(lambda: not len(service.events))


async def test_only_the_first_write_waits_for_a_lock(tmp_path, monkeypatch):
    waited = []
    async with on_stage(tmp_path) as stage:
        raw = stage.store._connection._raw

        def timeout() -> int:
            return int(raw.execute("pragma busy_timeout").fetchone()[0])

        raw.execute("pragma busy_timeout = 30")
        with locked(tmp_path):
            for _ in range(3):
                waited.append(timeout())
                with pytest.raises(StoreError, match="locked"):
                    stage.store.check_writable(1.0)
        stage.store.check_writable(2.0)
        assert waited == [30, 0, 0] and timeout() == store_database.BUSY_TIMEOUT_S * 1000


async def test_held_events_keep_their_order_and_are_bounded(monkeypatch, caplog):
    monkeypatch.setattr(held_events, "MAX_HELD_EVENTS", 3)
    events = HeldEvents()
    stored = []
    is_locked = True

    def row(number: int) -> int:
        if is_locked:
            raise StoreError("The database is locked.")
        if number == 1:
            raise ValueError("a mistake")
        stored.append(number)
        return number

    held = [
        asyncio.create_task(events.store(lambda number=number: row(number))) for number in range(4)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(EventDroppedError):
        await held[3]
    is_locked = False
    late = asyncio.create_task(events.store(lambda: row(9)))
    await asyncio.sleep(0)
    assert len(events) == 3 and not stored, (
        "what comes later waits for what came before, and is dropped"
    )
    await events.store_held()
    with pytest.raises(EventDroppedError):
        await late
    assert [await held[0], await held[2]] == stored == [
        0,
        2,
    ] and "2 events of Discord were lost" in caplog.text
    with pytest.raises(ValueError, match="a mistake"):
        await held[1]


# ------------------------------------------------------------------------------------- interactions


async def test_a_command_whose_follow_up_was_taken_is_answered_once_and_never_said_to_have_failed(
    stage, hasty
):
    for fault, times in (
        ("error_after", 1),
        ("error_after", 4),
        ("cut_after", 1),
        ("cut_after", 2),
        ("blocked", 2),
    ):
        mark = stage.mark
        for route in FOLLOW_UPS:
            stage.sandbox.fail_requests(route, fault, times)
        answer = await stage.member.slash(QUAY, "privacy opt-out")
        await until(lambda answer=answer: (answer.message or {}).get("content"))
        await stage.member.slash(QUAY, "persona list")
        new = [one for kind, one in stage.sandbox.events[mark:] if kind == "message"]
        assert len([one for one in new if one["id"] == answer.message["id"]]) == 1, (fault, times)
        assert len(new) == 2 and "went wrong" not in str(new), (fault, times, new)


async def test_a_response_that_is_lost_for_good_is_no_failure_of_the_change(stage, hasty, caplog):
    mark = stage.mark
    for route in FOLLOW_UPS:
        stage.sandbox.fail_requests(route, "cut_before", 3)
    await stage.member.slash(QUAY, "privacy opt-out")
    await until(lambda: "could not tell" in caplog.text)
    assert stage.store.people.decision(int(stage.member.id)).opted_in is False
    assert "went wrong" not in str(stage.sandbox.events[mark:]) and "Traceback" not in caplog.text


async def test_a_private_text_after_a_public_deferral_stays_private(stage):
    mark = stage.mark
    await stage.moderator.slash(QUAY, "finetune start")
    await until(lambda: stage.backend.busy)
    stage.backend.finish()
    result = await stage.sees("Trained", since=mark)
    (promote,) = [
        one["custom_id"]
        for one in all_components(result["components"])
        if "promote:" in one.get("custom_id", "")
    ]
    stage.engine.failure = AdapterError("The adapter is damaged.", "Train it again.")
    mark = stage.mark
    answer = await stage.moderator.click(result, promote)
    assert answer.type == CallbackType.THINKING and not answer.ephemeral
    told = await stage.sandbox.wait_for(
        "message", lambda one: "is damaged" in one["content"], since=mark
    )
    assert told["flags"] & EPHEMERAL
    assert not any(one["flags"] & LOADING for one in stage.sandbox.messages(QUAY)), (
        "nobody is left thinking"
    )
    assert stage.live("ballast") is None


async def test_a_refused_question_leaves_no_trace(stage):
    stage.engine.full = True
    mark = stage.mark
    await stage.member.slash(QUAY, "chat", message="a refused question")
    await stage.sandbox.wait_for(
        "message", lambda one: "are waiting already" in one["content"], since=mark
    )
    await until(lambda: "a refused question" not in str(texts(stage, QUAY)))
    stage.engine.full = False
    mark = stage.mark
    await stage.member.say(QUAY, "and now?")
    await stage.finished(QUAY, mark)
    assert "a refused question" not in str(stage.engine.requests[-1].turns)
    rows = stage.store._connection.read(
        "select text from messages union all select state from replies"
    )
    assert all(row["text"] not in ("a refused question", "failed") for row in rows)


async def test_24_questions_at_once_are_acknowledged_before_lore_is_searched(stage, monkeypatch):
    searched = []
    go_on = asyncio.Event()
    in_order = LoreIndex.in_order

    async def held(self, search):
        searched.append(search)
        await go_on.wait()
        return await in_order(self, search)

    monkeypatch.setattr(LoreIndex, "in_order", held)
    people = stage.member, stage.moderator, stage.sandbox.member(NEWCOMER)
    asking = [
        people[number % 3].slash(
            (QUAY, INN, STAGE)[number % 3], "chat", message=f"question {number}"
        )
        for number in range(24)
    ]
    answers = await asyncio.gather(*asking)
    assert [answer.type for answer in answers] == [CallbackType.MESSAGE] * 24 and len(searched) >= 1
    assert not stage.engine.requests
    go_on.set()
    await until(lambda: len(stage.engine.requests) == 24)


# ---------------------------------------------------------------------------- greetings and notices


@pytest.mark.parametrize(("fault", "times"), [("error_after", 7), ("cut_after", 2)])
async def test_a_greeting_is_posted_once(stage, hasty, monkeypatch, fault, times):
    monkeypatch.setattr(delivery, "RETRY_PAUSE_S", 0.0)
    stage.sandbox.fail_requests("POST /webhooks/{webhook_id}/{token}", fault, times)
    await stage.moderator.slash(OFFICE, "persona set", persona="ballast")
    channel_id = int(stage.sandbox.channel(OFFICE)["id"])
    sql = "select count(*) from replies where channel_id = :id and state = 'done'"
    await until(lambda: stage.store._connection.value(int, sql, id=channel_id))
    assert sum("Dock Crane No. 3" in text for text in texts(stage, OFFICE)) == 1
    assert "went wrong" not in str(stage.sandbox.events)


@pytest.mark.parametrize("fault", ["cut_after", "cut_before"])
async def test_a_notice_is_sent_at_most_once_and_not_called_failed(stage, hasty, fault, caplog):
    for channel, words in ((QUAY, "has no text that"), (OFFICE, "No persona lives here yet")):
        caplog.clear()
        stage.sandbox.fail_requests("POST /channels/{channel_id}/messages", fault, 5)
        await stage.member.say(channel, f"<@{stage.client.user.id}>")
        await until(lambda: "could not tell" in caplog.text)
        shown = [text for text in texts(stage, channel) if words in text]
        assert len(shown) == (fault != "cut_before"), shown
    assert "went wrong" not in str(stage.sandbox.events)


# -------------------------------------------------------------------------------------- connections


async def test_a_request_that_hangs_silences_its_channel_briefly(tmp_path, monkeypatch, hasty):
    monkeypatch.setattr("bot.client.RESPONSE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(streaming_reply, "FIRST_EDIT_DELAY_S", 60.0)
    async with on_stage(tmp_path) as stage:
        stage.sandbox.fail_requests("POST /webhooks/{webhook_id}/{token}", "hanging", 2)
        stage.sandbox.fail_requests(EDIT, RequestFault.HANGING, 2)
        for words in ("one", "two"):
            await stage.member.say(QUAY, words)
        await until(lambda: sum("-# AI-written" in text for text in texts(stage, QUAY)) == 2, 5.0)


async def test_the_first_connection_is_tried_again_like_any_other(tmp_path, monkeypatch, caplog):
    """Discord's gateway may not take a connection, or close it before its HELLO."""
    monkeypatch.setattr("discord.backoff.ExponentialBackoff.delay", lambda self: 0.01)
    serve = Gateway.serve
    asked = []

    async def refuse_first(self, request):
        asked.append(request)
        if len(asked) == 1:
            return web.Response(status=503)
        if len(asked) == 2:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.close(code=1001)
            return socket
        return await serve(self, request)

    monkeypatch.setattr(Gateway, "serve", refuse_first)
    async with asyncio.timeout(20), on_stage(tmp_path) as stage:
        await stage.member.say(QUAY, "hello")
        await stage.finished(QUAY, 0)
    assert len(asked) == 3 and caplog.text.count("The first connection failed") == 2


async def test_a_cancelled_request_releases_the_limit_of_all(stage):
    """discord.py would hold back every later request if one is cancelled that waits for the global
    limit.
    """
    http = stage.client.http
    stage.sandbox.fail_requests("GET /channels/{channel_id}/webhooks", "limited_globally", 1)
    waiting = asyncio.create_task(stage.client.guilds[0].text_channels[0].webhooks())
    await until(lambda: not http._global_over.is_set())
    waiting.cancel()
    async with asyncio.timeout(5):
        await stage.client.fetch_channel(stage.client.guilds[0].text_channels[0].id)


async def test_a_cancelled_request_of_a_webhook_releases_the_others(stage):
    """discord.py would hold them back for ever if one is cancelled after it has used up the
    webhook's limit.
    """
    lock = asyncio.Lock()
    has_ended = asyncio.Event()

    async def request():
        async with discord.webhook.async_.AsyncDeferredLock(lock) as held:
            held.delay_by(60.0)
            has_ended.set()

    waiting = asyncio.create_task(request())
    await has_ended.wait()
    await asyncio.sleep(0)
    assert lock.locked()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not lock.locked()


# ------------------------------------------------------------------------------- clients of the API


async def test_lore_is_not_searched_for_clients_that_have_gone(stage, monkeypatch):
    searched = []
    first = threading.Event()
    go_on = threading.Event()
    search = LoreIndex.search

    def held(self, persona_id, message, *parts, **options):
        searched.append(message)
        first.set()
        go_on.wait(20)
        return search(self, persona_id, message, *parts, **options)

    monkeypatch.setattr(LoreIndex, "search", held)
    monkeypatch.setattr("bot.platform.web_kit.sse.DISCONNECT_POLL_S", 0.02)
    body = {"model": "ballast", "messages": [{"role": "user", "content": "Where is the piano?"}]}
    async with aiohttp.ClientSession(stage.sandbox.url) as session:
        asking = [
            asyncio.create_task(session.post("/v1/chat/completions", json=body)) for _ in range(20)
        ]
        await asyncio.to_thread(first.wait, 10)
        index = stage.client.services.request_builder.lore
        await until(lambda: index._searcher._work_queue.qsize() >= 19)
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    await until(
        lambda: not any("_chat_request" in str(task.get_coro()) for task in asyncio.all_tasks())
    )
    go_on.set()
    await stage.member.say(QUAY, "How heavy was the piano?")
    await stage.finished(QUAY, 0)
    assert len(searched) == 2 and not any(
        it.turns[-1].text == "Where is the piano?" for it in stage.engine.requests
    )
