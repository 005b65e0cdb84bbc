"""Answers messages: streams, regenerates, stops and deletes replies, and resumes them after a
restart.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import astuple, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import discord

from bot.chat.delivery import (
    DELIVERY_ERRORS,
    MAX_DELIVERY_S,
    UNCERTAIN_ERRORS,
    deliver,
    growing_pauses,
    is_temporary,
    store_when_possible,
)
from bot.chat.held_events import HeldEvents
from bot.chat.memory_text import edit_memory_copies
from bot.chat.message_reader import IncomingMessage
from bot.chat.places import ChannelRef, SpeakChannel, channel_ref, fetch_channel
from bot.chat.policy import ReplyPolicy
from bot.chat.reply_text import MAX_FOOTER_CHARS, remove_links, split_message
from bot.chat.request import ChatRequestBuilder
from bot.chat.senders import UNKNOWN_WEBHOOK_CODE, MessageSender
from bot.chat.streaming_reply import ReplyViews, StreamingReply
from bot.chat.unfinished import UnfinishedReplies
from bot.chat.webhooks import SenderRegistry
from bot.platform.errors import RefusedError, error_text
from bot.store import Store, StoredReply, StoreError
from bot.training.resource_sharing import TrainerThrottle
from personas.engine import Engine, ReplyStream
from personas.errors import AdapterError, EngineBusyError
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.prompt.macros import resolve_macros
from personas.prompt.renderer import EXAMPLE_USER, fill_macros
from personas.schemas.chat import ChatReply, ChatRequest, Persona

log = logging.getLogger(__name__)
MAX_RESUME_AGE_S, MAX_RESUMED_AT_ONCE = MAX_DELIVERY_S, 8
"""Maximum age of interrupted replies that are finished at the next start, and how many at once."""
CUT_OFF_NOTE = "-# This reply was cut off. Ask again."


@dataclass(frozen=True)
class ReplyTask:
    """A reply to generate. `parts` are the messages of an earlier attempt, `before` is its text."""

    event_id: int
    asked_by: int
    persona: Persona
    channel: SpeakChannel
    trigger_seq: int
    parts: tuple[int, ...] = ()
    before: str = ""

    @property
    def place(self) -> ChannelRef:
        return channel_ref(self.channel)


@dataclass
class ReplyService:
    """Answers in any number of channels at once; each reply runs in the task of its event."""

    store: Store
    engine: Engine
    request_builder: ChatRequestBuilder
    senders: SenderRegistry
    views: ReplyViews
    throttle: TrainerThrottle
    redacted: Callable[[str], str] = (
        str  # applied to what is stored; `bot.privacy.erasure_service` sets another one
    )
    _running: dict[int, tuple[ReplyTask, ReplyStream]] = field(default_factory=dict)
    unfinished: UnfinishedReplies = field(default_factory=UnfinishedReplies)
    events: HeldEvents = field(default_factory=HeldEvents)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _resuming: asyncio.Task[None] | None = None
    _is_closed: bool = False

    @property
    def rules(self) -> ReplyPolicy:
        """Policy that is checked before a reply."""
        return ReplyPolicy(self.store)

    # ------------------------------------------------------------------------------------------
    # requests

    async def answer(
        self, message: IncomingMessage, persona: Persona, channel: SpeakChannel
    ) -> None:
        """Store the message, then reply as the persona. Raises `EngineBusyError` before anything is
        posted.

        An event that was answered before is ignored. While the database cannot be used, the event
        is held.
        """
        if task := await self.events.store(lambda: self.accept(message, persona, channel)):
            await self.reply(task)

    def accept(
        self, message: IncomingMessage, persona: Persona, channel: SpeakChannel
    ) -> ReplyTask | None:
        """Store a message together with its reply to come. None for an event that was answered
        before.

        Raises `EngineBusyError`, and stores nothing, where too many replies are unfinished, and
        `StoreError`.
        """
        if self._came_before(message):
            return None
        place = channel_ref(channel)
        now = time.time()
        self.unfinished.require_place(message.author_id, place.home_id)
        with self.store.atomic():
            seq = self.store_message(message, place)
            rollout = self.store.rollouts.counted_rollout(persona.id, now, *astuple(place))
            reply = (message.event_id, place.guild_id, place.channel_id, persona.id, now)
            self.store.replies.begin(
                *reply, asked_by=message.author_id, trigger_seq=seq, rollout=rollout
            )
        return ReplyTask(message.event_id, message.author_id, persona, channel, seq)

    async def reply(
        self, task: ReplyTask, retract: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Reply to an accepted message. Raises `EngineBusyError` and others before anything is
        posted.

        A message that stands in the bot's response alone is taken back if its reply is refused:
        `retract` deletes it.
        """
        with self._holding(task):
            try:
                request, stream = await self._request_and_submit(task)
            except Exception:
                await self._refuse(task, retract)
                raise
            await self._reply(task, request, stream)

    async def _request_and_submit(self, task: ReplyTask) -> tuple[ChatRequest, ReplyStream | None]:
        """Build the request, as soon as the database can be read, and take a place in the engine's
        queue.
        """
        request = await deliver(
            f"the prompt of the reply {task.event_id}", lambda: self._request(task)
        )
        return request, self._submit(request)

    async def _refuse(self, task: ReplyTask, retract: Callable[[], Awaitable[None]] | None) -> None:
        """Record that a reply was refused."""
        what = f"the refusal of the reply {task.event_id}"
        if retract:
            await store_when_possible(what, lambda: self.take_back(task))
            await retract()
        else:
            await store_when_possible(
                what, lambda: self.store.replies.finish(task.event_id, "failed")
            )

    def take_back(self, task: ReplyTask) -> None:
        """Delete a message that nobody saw, and its reply to come: a later prompt must not contain
        it.
        """
        with self.store.atomic():
            self.store.messages.take_back(task.trigger_seq)
            self.store.replies.take_back(task.event_id)

    def _came_before(self, message: IncomingMessage) -> bool:
        """Report whether a message was answered or deleted, or its author erased, before its event
        came (again).
        """
        if self.store.replies.get(message.event_id) or self.store.messages.is_deleted(
            message.event_id
        ):
            return True
        return self._is_erased(message.author_id, message.event_id)

    def _is_erased(self, author_id: int, event_id: int) -> bool:
        """Report whether an author was erased after an event of theirs."""
        if not self.store.erasure_requests.count():
            return False
        person = keyed_person(HomeKey.of(self.request_builder.home).people(), str(author_id))
        return event_id <= self.store.erasure_requests.last_event(person)

    async def regenerate(
        self, event_id: int, user: discord.abc.User, channel: SpeakChannel
    ) -> None:
        """Regenerate a reply in the same message. Raises `UnderstudyError`, and changes nothing, if
        that is refused.
        """
        reply = self.store.replies.get(event_id)
        persona = (
            self.request_builder.personas.get(reply.persona_id, reply.guild_id) if reply else None
        )
        if reply is None or persona is None or reply.trigger_seq is None:
            raise RefusedError("What this reply answered is no longer there.", "Ask again.")
        self.rules.require_owner(reply.asked_by, user, "regenerate this reply")
        self.rules.require_unmuted(persona, channel_ref(channel))
        before = self.store.messages.text_of(reply.parts[0]) if reply.parts else None
        task = ReplyTask(
            event_id, reply.asked_by, persona, channel, reply.trigger_seq, reply.parts, before or ""
        )
        request = await self._request(task)
        self.unfinished.require_place(task.asked_by, task.place.home_id)
        stream = self.throttle.submit(self.engine, request)
        try:
            with self.store.atomic():
                if not self.store.replies.begin_regeneration(event_id):
                    raise RefusedError("This reply is being written.", "Stop it first, or wait.")
                self.store.replies.record_interruption(event_id, user.id, time.time())
        except Exception:
            stream.cancel()
            raise
        with self._holding(task):
            await self._reply(task, request, stream)

    def is_running(self, event_id: int) -> bool:
        """Report whether the reply to this event is still being generated."""
        return event_id in self._running

    def stop(self, event_id: int, user: discord.abc.User) -> None:
        """Stop a running reply for its author or a moderator. Raises `RefusedError` for others."""
        task, stream = self._running[event_id]
        self.rules.require_owner(task.asked_by, user, "stop this reply")
        self.store.replies.record_interruption(event_id, user.id, time.time())
        stream.cancel()

    def stop_guild_replies(self, guild_id: int) -> None:
        """Stop the running replies of a guild's muted personas."""
        for task, stream in list(self._running.values()):
            if task.place.guild_id == guild_id and self.rules.muted(task.persona, task.place):
                stream.cancel()

    def stop_replies(self, *, of: str | None = None, to: int | None = None) -> None:
        """Stop the running replies of a persona, or to a member."""
        for task, stream in list(self._running.values()):
            if task.persona.id == of or task.asked_by == to:
                stream.cancel()

    async def delete(
        self, replies: Iterable[StoredReply], client: discord.Client
    ) -> AsyncIterator[bool]:
        """Delete replies from Discord and from the history; yields for each whether that worked."""
        for reply in replies:
            yield await self._delete(reply, client)

    async def greet(
        self, persona: Persona, channel: SpeakChannel, guest: str = EXAMPLE_USER
    ) -> None:
        """Post the greeting of a persona's card in its new channel, addressed to `guest`."""
        place = channel_ref(channel)
        opening = resolve_macros(persona.first_mes, persona.name, datetime.now(UTC)).text
        greeting = fill_macros(opening, persona, guest).strip()
        if greeting and not self.rules.muted(persona, place):
            sender = await self.senders.of(persona, channel)
            texts = split_message(greeting, "-# a greeting by this persona's author")
            message_ids = [await sender.say(text) for text in texts]
            replies = self.store.replies
            event_id = message_ids[0]
            replies.begin(event_id, place.guild_id, place.channel_id, persona.id, time.time())
            replies.record_parts(event_id, message_ids)
            replies.finish(event_id, "done")

    # ------------------------------------------------------------------------------------------
    # shared with dialogues

    def store_message(self, message: IncomingMessage, place: ChannelRef) -> int:
        """Store a member's message, and what is shown beside it; returns its `seq`."""
        now = time.time()
        shown = [it for it in (message.thread_start, message.quoted) if it]
        stored = {
            it.message_id: self.store.quoted.add(it, place.guild_id, now)
            for it in shown
            if not self._is_erased(it.author_id, it.message_id)
        }
        replies_to = stored.get(message.quoted.message_id) if message.quoted else None
        seq = self.store.messages.append(
            guild_id=place.guild_id,
            channel_id=place.channel_id,
            author_id=message.author_id,
            author_name=message.author_name,
            text=message.text,
            at=now,
            discord_message_id=message.event_id,
            replies_to=replies_to,
        )
        self.store.channels.record_thread(*astuple(place))
        return seq

    async def begin_message(
        self, persona: Persona, channel: SpeakChannel, **buttons: Any
    ) -> StreamingReply:
        """Post the message that a reply is streamed to; `buttons` are arguments of
        `live_message`.
        """
        live = self.live_message(await self.senders.of(persona, channel), channel, **buttons)
        await self._post_first(live, persona, channel)
        return live

    def live_message(
        self,
        sender: MessageSender,
        channel: SpeakChannel,
        *,
        growing: Callable[[], discord.ui.View],
        ended: Callable[[], discord.ui.View],
        on_parts: Callable[[list[int]], None],
        parts: Sequence[int] = (),
        before: str = "",
    ) -> StreamingReply:
        """Return a message to stream a reply to, which is not posted yet."""
        home_id = channel_ref(channel).home_id
        return StreamingReply(
            sender, growing, ended, on_parts, lambda old: self.senders.renew(old, channel), parts=list(parts),
            before=before, stretch_s=lambda: self.senders.edit_stretch_s + self.unfinished.edit_stretch_s(home_id),
        )  # fmt: skip

    async def _post_first(
        self, live: StreamingReply, persona: Persona, channel: SpeakChannel
    ) -> None:
        """Post a placeholder; a deleted webhook is replaced once."""
        try:
            await live.begin()
        except discord.NotFound as error:
            if error.code == UNKNOWN_WEBHOOK_CODE:
                self.senders.forget(channel)
            live.sender = await self.senders.of(persona, channel)
            live.parts = []
            await live.begin()

    async def end_reply(
        self,
        persona: Persona,
        place: ChannelRef,
        event_id: int,
        live: StreamingReply,
        reply: ChatReply,
    ) -> None:
        """Store a finished reply, then show it. Raises `discord.NotFound` if its message was
        deleted.
        """
        await self._end(
            event_id,
            lambda: self._store_reply(persona, place, event_id, live, reply),
            lambda: live.end(reply),
        )

    async def _end(
        self, event_id: int, store: Callable[[], None], show: Callable[[], Awaitable[None]]
    ) -> None:
        """Store how a reply ends and show it, each as soon as that works, whatever becomes of the
        other.
        """
        try:
            store()
        except StoreError as error:
            log.error("the end of the reply %d is shown before it is stored: %s", event_id, error)
            is_shown = await self._show_end(event_id, show)
            await self._store_in_any_case(event_id, store)
        else:
            is_shown = await self._show_end(event_id, show)
        if is_shown:
            what = f"the row of the reply {event_id}"
            with suppress(StoreError):  # the next start shows the end again
                await store_when_possible(
                    what, lambda: self.store.replies.record_end_shown(event_id)
                )

    async def _show_end(self, event_id: int, show: Callable[[], Awaitable[None]]) -> bool:
        """Show a reply's end, however long Discord is away. False: a later connection or start has
        to show it.
        """
        try:
            await deliver(f"the end of the reply {event_id}", show)
        except discord.NotFound:
            raise
        except DELIVERY_ERRORS as error:
            log.error(
                "the end of the reply %d is stored, and shown at the next connection: %s",
                event_id,
                error,
            )
            return False
        return True

    async def _store_in_any_case(self, event_id: int, store: Callable[[], None]) -> None:
        """Store the end of a reply as soon as the database takes it, for as long as the bot
        runs.
        """
        while True:
            with suppress(StoreError):
                return await store_when_possible(f"the end of the reply {event_id}", store)

    def _store_reply(
        self,
        persona: Persona,
        place: ChannelRef,
        event_id: int,
        live: StreamingReply,
        reply: ChatReply,
    ) -> None:
        """Store the text and the end of a reply at once, or nothing if whoever it answers was
        erased meanwhile.
        """
        state: Literal["stopped", "done"] = "stopped" if reply.finish == "cancelled" else "done"
        with self.store.atomic():
            if self.store.replies.get(event_id) is None:
                return
            self.store.replies.record_parts(event_id, live.parts)
            self._store_text(persona, place, live, reply.text, reply.version)
            self.store.replies.finish(
                event_id, state, reply.version, reply.seed, end_note=live.footer(reply)
            )

    def _store_text(
        self,
        persona: Persona,
        place: ChannelRef,
        live: StreamingReply,
        generated: str,
        version: str | None,
    ) -> None:
        """Store the text of a reply, which its first message stands for; an empty one is no
        message.
        """
        if text := self.redacted(generated):
            self.store.messages.append(
                guild_id=place.guild_id, channel_id=place.channel_id, author_id=0, author_name=persona.name,
                text=text, at=time.time(), discord_message_id=live.parts[0],
                persona_id=persona.id, adapter_version=version,
            )  # fmt: skip
            edit_memory_copies(self.store, live.parts[0], remove_links(text))

    async def fail_reply(
        self,
        event_id: int,
        live: StreamingReply,
        error: Exception,
        *,
        persona: Persona,
        place: ChannelRef,
        version: str | None = None,
    ) -> None:
        """End a reply with an error below the text so far, which `version` wrote and members see:
        it is stored.
        """
        text = error_text(error)  # logs it
        note = CUT_OFF_NOTE if isinstance(error, StoreError) else f"-# {text}"[:MAX_FOOTER_CHARS]

        def store() -> None:
            with self.store.atomic():
                if self.store.replies.get(event_id) is None:
                    return
                self.store.replies.record_parts(event_id, live.parts)
                if live.text_so_far != live.before:
                    self._store_text(persona, place, live, live.text_so_far, version)
                self.store.replies.finish(event_id, "failed", end_note=note)

        try:
            await self._end(event_id, store, lambda: live.fail(note, event_id))
        except discord.NotFound:
            log.info("the message of the reply %d, which failed, is gone", event_id)
            self._forget(event_id, live.parts)

    async def close(self) -> None:
        """Cancel the running replies and any that still come; all are resumed at the next start."""
        self._is_closed = True
        tasks = [*self._tasks, *([self._resuming] if self._resuming else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------------------
    # after a crash

    async def resume_interrupted(self, client: discord.Client) -> None:
        """Finish the replies that a crash, a restart or a lost connection interrupted, oldest
        first, some at once.

        What fails for a while is tried again after growing pauses.
        """
        if not await self._resume_all(client) and (self._resuming is None or self._resuming.done()):
            self._resuming = asyncio.create_task(self._resume_later(client))

    async def _resume_later(self, client: discord.Client) -> None:
        for pause_s in growing_pauses():
            await asyncio.sleep(pause_s)
            if await self._resume_all(client):
                return

    async def _resume_all(self, client: discord.Client) -> bool:
        """Finish all replies that are interrupted. False if some have to be tried again."""
        free = asyncio.Semaphore(MAX_RESUMED_AT_ONCE)
        after = -1
        results = [True]
        try:
            while page := self.store.replies.unfinished(after):
                after = page[-1].event_id
                rows = [reply for reply in page if not self.unfinished.holds(reply.event_id)]
                with ExitStack() as held:
                    for reply in rows:
                        held.enter_context(self.unfinished.counting(reply.event_id))
                    results += await asyncio.gather(
                        *(self._resume_guarded(reply, client, free) for reply in rows)
                    )
        except StoreError as error:
            log.warning("interrupted replies are finished later: %s", error)
            return False
        return all(results)

    async def _resume_guarded(
        self, reply: StoredReply, client: discord.Client, free: asyncio.Semaphore
    ) -> bool:
        """Finish a reply. False if it has to be tried again."""
        async with free:
            try:
                current = self.store.replies.get(
                    reply.event_id
                )  # it may be erased, deleted or ended by now
                if current and current.is_unfinished:
                    await self._resume(current, await fetch_channel(client, current.channel_id))
            except Exception as error:  # one failure must not affect the other replies
                log.exception("the reply %d could not be finished", reply.event_id)
                if is_temporary(error):
                    return False
                await store_when_possible(
                    f"the failure of the reply {reply.event_id}",
                    lambda: self.store.replies.finish(
                        reply.event_id, "failed", end_note=CUT_OFF_NOTE
                    ),
                )
            return True

    async def _resume(self, reply: StoredReply, channel: SpeakChannel | None) -> None:
        persona = self.request_builder.personas.get(reply.persona_id, reply.guild_id)
        if persona is None or channel is None:
            self.store.replies.finish(reply.event_id, "failed")
            self.store.replies.record_end_shown(reply.event_id)
            return
        sender = await self.senders.of(persona, channel)
        parts = tuple(dict.fromkeys((*reply.parts, *await sender.find(reply.event_id))))
        if (
            parts != reply.parts
        ):  # stored before they change, because an end without buttons is not found again
            self.store.replies.record_parts(reply.event_id, list(parts))
        task = ReplyTask(
            reply.event_id, reply.asked_by, persona, channel, reply.trigger_seq or 0, parts
        )
        if reply.end_note is not None:
            text = self.store.messages.text_of(parts[0]) if parts else ""
            await self._restore(task, sender, text or "", reply.end_note)
        elif reply.trigger_seq is None or time.time() - reply.created_at > MAX_RESUME_AGE_S:
            self.store.replies.finish(reply.event_id, "failed", end_note=CUT_OFF_NOTE)
            await self._restore(task, sender, "", CUT_OFF_NOTE)
        else:
            log.info("finishing an interrupted reply of %s in #%s", persona.name, channel)
            with self._holding(task):
                await self._reply(task, *await self._submit_when_free(task, reply.created_at))

    async def _restore(self, task: ReplyTask, sender: MessageSender, text: str, note: str) -> None:
        """Show how a reply ended in the messages that it has."""
        with suppress(discord.NotFound):
            if task.parts:
                await self._live(task, sender).restore(text, note)
        self.store.replies.record_end_shown(task.event_id)

    # ------------------------------------------------------------------------------------------ one
    # reply

    async def _request(self, task: ReplyTask) -> ChatRequest:
        """Build a prompt. Raises `StoreError` while edits and deletions are held, which it would
        not show.
        """
        if len(self.events):
            raise StoreError("Edits and deletions of messages wait for the database.")
        args = (task.persona, task.place, task.trigger_seq, task.event_id, task.asked_by)
        return await self.request_builder.request(*args)

    def _submit(self, request: ChatRequest) -> ReplyStream | None:
        """Take a place in the queue; None when the adapter cannot be read, which `_follow`
        reports.
        """
        try:
            return self.throttle.submit(self.engine, request)
        except AdapterError:
            return None

    async def _submit_when_free(
        self, task: ReplyTask, created_at: float
    ) -> tuple[ChatRequest, ReplyStream | None]:
        """Wait for a place in the queue: this reply had one, and lost it in a restart. None if it
        waits too long.
        """
        while True:
            request = await self._request(task)
            try:
                return request, self._submit(request)
            except EngineBusyError as error:
                if time.time() - created_at > MAX_RESUME_AGE_S:
                    return request, None
                await asyncio.sleep(error.wait_s)

    async def _reply(
        self, task: ReplyTask, request: ChatRequest, stream: ReplyStream | None
    ) -> None:
        """Post, stream and store a reply to a request; `stream` is its stream if it was submitted
        already.
        """
        if stream:
            self._running[task.event_id] = task, stream
        try:
            live = await self._begin(task)
            live.dialogue = self.request_builder.dialogue_of(request.adapter)
            unserved = self.request_builder.unserved(task.persona.id, task.place.guild_id)
            live.wanted = request.adapter.version if request.adapter else unserved
            await self._stream_and_end(task, request, live, stream)
        finally:
            if (running := self._running.get(task.event_id)) and running[
                0
            ] is task:  # no regeneration began since
                del self._running[task.event_id]
                running[1].cancel()

    async def _stream_and_end(
        self,
        task: ReplyTask,
        request: ChatRequest,
        live: StreamingReply,
        stream: ReplyStream | None,
    ) -> None:
        try:
            reply = await self._follow(task, request, live, stream)
            await self.end_reply(task.persona, task.place, task.event_id, live, reply)
        except discord.NotFound:  # the message was deleted: nobody waits for the reply any more
            log.info("the message of the reply %d is gone", task.event_id)
            self._forget(task.event_id, live.parts)
        except Exception as error:  # shown in the reply's place
            version = request.adapter.version if request.adapter and not live.damaged else None
            await self.fail_reply(
                task.event_id, live, error, persona=task.persona, place=task.place, version=version
            )
        else:
            self._prepare_next(task, request)

    def _prepare_next(self, task: ReplyTask, request: ChatRequest) -> None:
        if len(self.events):  # edits and deletions, which the prompt would not show
            return
        who = (task.persona, task.place, task.event_id, request.turns[-1].name)
        try:
            self.request_builder.prepare_next(self.engine, *who)
        except Exception:  # the reply is whole; only time is lost
            log.exception("the prompt after the reply %d is not computed in advance", task.event_id)

    async def _begin(self, task: ReplyTask) -> StreamingReply:
        """Post the message, as soon as Discord takes it; what is generated meanwhile waits.

        If it is refused, the reply has failed. A copy that may be there is looked for later.
        """
        live: StreamingReply | None = None

        async def post() -> StreamingReply:
            nonlocal live
            sender = await self.senders.of(task.persona, task.channel)
            live = live or self._live(
                task, sender
            )  # the same one, which knows what an earlier try may have posted
            live.sender = sender
            await self._post_first(live, task.persona, task.channel)
            return live

        try:
            return await deliver(f"the message of the reply {task.event_id}", post)
        except Exception as error:
            note = CUT_OFF_NOTE if isinstance(error, UNCERTAIN_ERRORS) else None
            what = f"the failure of the reply {task.event_id}"
            await store_when_possible(
                what, lambda: self.store.replies.finish(task.event_id, "failed", end_note=note)
            )
            raise

    def _live(self, task: ReplyTask, sender: MessageSender) -> StreamingReply:
        """Return the task's message; a line that answers nobody has no buttons."""
        event_id = task.event_id
        votes = self.store.replies.votes
        return self.live_message(
            sender,
            task.channel,
            growing=lambda: self.views.growing(event_id),
            ended=lambda: (
                self.views.ended(event_id, votes(event_id))
                if task.trigger_seq
                else discord.ui.View()
            ),
            on_parts=lambda ids: self._record_parts(event_id, ids),
            parts=task.parts,
            before=task.before,
        )

    def _record_parts(self, event_id: int, parts: list[int]) -> None:
        """Store the messages of a reply; its end stores them too, and after a kill they are found
        by their buttons.
        """
        try:
            self.store.replies.record_parts(event_id, parts)
        except StoreError as error:
            log.warning("the messages of the reply %d are stored at its end: %s", event_id, error)

    async def _follow(
        self,
        task: ReplyTask,
        request: ChatRequest,
        live: StreamingReply,
        stream: ReplyStream | None,
    ) -> ChatReply:
        """Stream the reply; the base model answers, and the log says so, when the live adapter is
        damaged.
        """
        try:
            stream = stream or self.throttle.submit(self.engine, request)
            self._running[task.event_id] = task, stream
            what = f"whether {task.persona.name} may speak"
            if await store_when_possible(
                what, lambda: self.rules.muted(task.persona, task.place)
            ):  # since the request
                stream.cancel()
            return await live.follow(stream)
        except AdapterError as error:
            log.error("the base model answers instead: %s", error)
            live.damaged = request.adapter.version if request.adapter else ""
            return await self._follow(task, replace(request, adapter=None), live, None)

    async def _delete(self, reply: StoredReply, client: discord.Client) -> bool:
        channel = await fetch_channel(client, reply.channel_id)
        persona = self.request_builder.personas.get(reply.persona_id, reply.guild_id)
        if running := self._running.get(reply.event_id):
            running[1].cancel()
        await self.unfinished.wait_for_end(reply.event_id)  # it may be posting a further message
        reply = self.store.replies.get(reply.event_id) or reply
        if channel and persona:
            sender = await self.senders.of(persona, channel)
            for message_id in reply.parts:
                try:
                    await sender.remove(message_id)
                except discord.Forbidden:
                    return False
        self._forget(reply.event_id, reply.parts)
        return True

    def _forget(self, event_id: int, parts: Iterable[int]) -> None:
        for message_id in parts:
            self.store.messages.delete(message_id)
            self.store.replies.delete_part(message_id)
        self.store.replies.record_deleted(event_id)

    @contextmanager
    def _holding(self, task: ReplyTask) -> Iterator[None]:
        """Count a reply, and let `close` cancel it; after `close` it ends here and stays
        unfinished.
        """
        running = asyncio.current_task()
        assert running is not None  # a coroutine always runs in one
        if self._is_closed:
            raise asyncio.CancelledError
        self._tasks.add(running)
        try:
            with self.unfinished.counting(
                task.event_id, member=task.asked_by, channel=task.place.home_id
            ):
                yield
        finally:
            self._tasks.discard(running)
