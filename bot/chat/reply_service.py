"""Answers messages: streams, regenerates, stops and deletes replies, and resumes them after a restart."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Literal, Protocol

import discord

from bot.chat.discord_channels import ChannelRef, ReplyPolicy, SenderRegistry, SpeakChannel, channel_ref, fetch_channel
from bot.chat.prompt_context import ChatRequestBuilder
from bot.chat.streaming_reply import UNKNOWN_WEBHOOK_CODE, StreamingReply, split_message
from bot.errors import RefusedError, error_text
from bot.store import Store, StoredReply, VoteCounts
from bot.training.resource_sharing import TrainerThrottle
from personas.engine import Engine, ReplyStream
from personas.errors import AdapterError
from personas.prompt import EXAMPLE_USER, fill_macros
from personas.schemas.chat import ChatReply, ChatRequest, Persona

log = logging.getLogger(__name__)
MAX_RESUME_AGE_S = 900.0
"""Maximum age of interrupted replies that are finished at the next start."""


class ReplyViews(Protocol):
    """Creates the buttons under a growing and an ended reply; they carry the event's id, so they outlive a restart."""

    def growing(self, event_id: int) -> discord.ui.View: ...
    def ended(self, event_id: int, votes: VoteCounts) -> discord.ui.View: ...


@dataclass(frozen=True)
class IncomingMessage:
    """A message to answer. `event_id` is Discord's id of the message or interaction."""

    event_id: int
    author_id: int
    author_name: str
    text: str


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
    _running: dict[int, tuple[ReplyTask, ReplyStream]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def rules(self) -> ReplyPolicy:
        """Policy that is checked before a reply."""
        return ReplyPolicy(self.store)

    # ------------------------------------------------------------------------------------------ requests

    async def answer(self, message: IncomingMessage, persona: Persona, channel: SpeakChannel) -> None:
        """Store the message, then reply as the persona. An event that was answered before is ignored."""
        place, now = channel_ref(channel), time.time()
        seq = self.store_message(message, place)
        rollout = self.store.rollouts.counted_rollout(persona.id, now, *astuple(place))
        reply = (message.event_id, place.guild_id, place.channel_id, persona.id, now)
        if self.store.replies.begin(*reply, asked_by=message.author_id, trigger_seq=seq, rollout=rollout):
            task = ReplyTask(message.event_id, message.author_id, persona, channel, seq)
            await self._reply(task, self._request(task))

    async def regenerate(self, event_id: int, user: discord.abc.User, channel: SpeakChannel) -> None:
        """Regenerate a reply in the same message. Raises `UnderstudyError`, and changes nothing, if that is refused."""
        reply = self.store.replies.get(event_id)
        persona = self.request_builder.personas.get(reply.persona_id, reply.guild_id) if reply else None
        if reply is None or persona is None or reply.trigger_seq is None:
            raise RefusedError("What this reply answered is no longer there.", "Ask again.")
        self.rules.require_owner(reply.asked_by, user, "regenerate this reply")
        self.rules.require_unmuted(persona, channel_ref(channel))
        before = self.store.messages.text_of(reply.parts[0]) if reply.parts else None
        task = ReplyTask(event_id, reply.asked_by, persona, channel, reply.trigger_seq, reply.parts, before or "")
        request = self._request(task)
        stream = self.engine.submit(request)
        if not self.store.replies.begin_regeneration(event_id):
            stream.cancel()
            raise RefusedError("This reply is being written.", "Stop it first, or wait.")
        self.store.replies.record_interruption(event_id, user.id, time.time())
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

    async def delete(self, replies: Iterable[StoredReply], client: discord.Client) -> AsyncIterator[bool]:
        """Delete replies from Discord and from the history; yields for each whether that worked."""
        for reply in replies:
            yield await self._delete(reply, client)

    async def greet(self, persona: Persona, channel: SpeakChannel, guest: str = EXAMPLE_USER) -> None:
        """Post the greeting of a persona's card in its new channel, addressed to `guest`."""
        place = channel_ref(channel)
        if persona.first_mes and not self.rules.muted(persona, place):
            sender = await self.senders.of(persona, channel)
            greeting = fill_macros(persona.first_mes, persona, guest)
            texts = split_message(greeting, "-# a greeting by this persona's author")
            message_ids = [await sender.say(text) for text in texts]
            replies, event_id = self.store.replies, message_ids[0]
            replies.begin(event_id, place.guild_id, place.channel_id, persona.id, time.time())
            replies.record_parts(event_id, message_ids)
            replies.finish(event_id, "done")

    # ------------------------------------------------------------------------------------------ shared with dialogues

    def store_message(self, message: IncomingMessage, place: ChannelRef) -> int:
        """Store a member's message; returns its `seq`."""
        return self.store.messages.append(
            guild_id=place.guild_id,
            channel_id=place.channel_id,
            author_id=message.author_id,
            author_name=message.author_name,
            text=message.text,
            at=time.time(),
            discord_message_id=message.event_id,
        )

    async def begin_message(
        self,
        persona: Persona,
        channel: SpeakChannel,
        *,
        growing: Callable[[], discord.ui.View],
        ended: Callable[[], discord.ui.View],
        on_parts: Callable[[list[int]], None],
        parts: Sequence[int] = (),
        before: str = "",
    ) -> StreamingReply:
        """Post the message that a reply is streamed to; a deleted webhook is replaced once."""
        live = StreamingReply(
            await self.senders.of(persona, channel),
            growing=growing,
            ended=ended,
            on_parts=on_parts,
            renew=lambda old: self.senders.renew(old, channel),
            parts=list(parts),
            before=before,
            stretch_s=lambda: self.senders.edit_stretch_s,
        )
        try:
            await live.begin()
        except discord.NotFound as error:
            if error.code == UNKNOWN_WEBHOOK_CODE:
                self.senders.forget(channel)
            live.sender, live.parts = await self.senders.of(persona, channel), []
            await live.begin()
        return live

    def store_reply(
        self, persona: Persona, place: ChannelRef, event_id: int, message_id: int, reply: ChatReply
    ) -> None:
        """Store a finished reply: its text in the history, and how it ended."""
        if reply.text:
            self.store.messages.append(
                guild_id=place.guild_id,
                channel_id=place.channel_id,
                author_id=0,
                author_name=persona.name,
                text=reply.text,
                at=time.time(),
                discord_message_id=message_id,
                persona_id=persona.id,
                adapter_version=reply.version,
            )
        state: Literal["stopped", "done"] = "stopped" if reply.finish == "cancelled" else "done"
        self.store.replies.finish(event_id, state, reply.version, reply.seed)

    async def close(self) -> None:
        """Cancel the running replies; they stay unfinished in the store and are resumed at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------------------ after a crash

    async def resume_interrupted(self, client: discord.Client) -> None:
        """Finish the replies that a crash or a restart interrupted."""
        for reply in self.store.replies.unfinished():
            try:
                await self._resume(reply, await fetch_channel(client, reply.channel_id))
            except Exception:  # one failure must not affect the other replies
                log.exception("the reply %d could not be finished", reply.event_id)
                self.store.replies.finish(reply.event_id, "failed")

    async def _resume(self, reply: StoredReply, channel: SpeakChannel | None) -> None:
        persona = self.request_builder.personas.get(reply.persona_id, reply.guild_id)
        if persona is None or channel is None:
            self.store.replies.finish(reply.event_id, "failed")
        elif reply.trigger_seq is None or time.time() - reply.created_at > MAX_RESUME_AGE_S:
            self.store.replies.finish(reply.event_id, "failed")
            if reply.parts:
                sender = await self.senders.of(persona, channel)
                await sender.change(reply.parts[-1], "-# This reply was cut off. Ask again.")
        else:
            log.info("finishing an interrupted reply of %s in #%s", persona.name, channel)
            task = ReplyTask(reply.event_id, reply.asked_by, persona, channel, reply.trigger_seq, reply.parts)
            await self._reply(task, self._request(task))

    # ------------------------------------------------------------------------------------------ one reply

    def _request(self, task: ReplyTask) -> ChatRequest:
        return self.request_builder.request(task.persona, task.place, task.trigger_seq, task.event_id)

    async def _reply(self, task: ReplyTask, request: ChatRequest, stream: ReplyStream | None = None) -> None:
        """Post, stream and store a reply to a request; `stream` is its stream if it was submitted already."""
        with self._closeable():
            live = await self._begin(task, stream)
            live.lore = request.lore
            live.dialogue = self.request_builder.dialogue_of(request.adapter)
            live.wanted = request.adapter.version if request.adapter else self.request_builder.unserved(task.persona.id)
            try:
                reply = await self._follow(task, request, live, stream)
            except discord.NotFound:  # the message was deleted: nobody waits for the reply any more
                log.info("the message of the reply %d is gone", task.event_id)
                self.store.replies.finish(task.event_id, "stopped")
            except Exception as error:  # shown in the reply's place
                self.store.replies.finish(task.event_id, "failed")
                await self._fail(live, error)
            else:
                self.store_reply(task.persona, task.place, task.event_id, live.parts[0], reply)
            finally:
                if running := self._running.pop(task.event_id, None):
                    running[1].cancel()

    async def _begin(self, task: ReplyTask, stream: ReplyStream | None) -> StreamingReply:
        """Post the message. Refused by Discord, the reply has failed; it stays unfinished without a connection."""
        event_id = task.event_id
        try:
            return await self.begin_message(
                task.persona,
                task.channel,
                growing=lambda: self.views.growing(event_id),
                ended=lambda: self.views.ended(event_id, self.store.replies.votes(event_id)),
                on_parts=lambda ids: self.store.replies.record_parts(event_id, ids),
                parts=task.parts,
                before=task.before,
            )
        except Exception as error:
            if isinstance(error, discord.HTTPException):
                self.store.replies.finish(event_id, "failed")
            if stream:
                stream.cancel()
            raise

    async def _follow(
        self, task: ReplyTask, request: ChatRequest, live: StreamingReply, stream: ReplyStream | None
    ) -> ChatReply:
        """Stream the reply; the base model answers, and the log says so, when the live adapter is damaged."""
        try:
            with self.throttle.reply():
                stream = stream or self.engine.submit(request)
                self._running[task.event_id] = task, stream
                if self.rules.muted(task.persona, task.place):  # since the request
                    stream.cancel()
                return await live.follow(stream)
        except AdapterError as error:
            log.error("the base model answers instead: %s", error)
            live.damaged = request.adapter.version if request.adapter else ""
            return await self._follow(task, replace(request, adapter=None), live, None)

    async def _fail(self, live: StreamingReply, error: Exception) -> None:
        try:
            await live.fail(error_text(error))
        except discord.HTTPException as http_error:
            log.warning("a reply failed, and its error could not be shown: %s", http_error)

    async def _delete(self, reply: StoredReply, client: discord.Client) -> bool:
        channel = await fetch_channel(client, reply.channel_id)
        persona = self.request_builder.personas.get(reply.persona_id, reply.guild_id)
        if running := self._running.get(reply.event_id):
            running[1].cancel()
        if channel and persona:
            sender = await self.senders.of(persona, channel)
            for message_id in reply.parts:
                try:
                    await sender.remove(message_id)
                except discord.Forbidden:
                    return False
        for message_id in reply.parts:
            self.store.messages.delete(message_id)
            self.store.replies.delete_part(message_id)
        return True

    @contextmanager
    def _closeable(self) -> Iterator[None]:
        """Let `close` cancel the task inside the block."""
        task = asyncio.current_task()
        assert task is not None  # a coroutine always runs in one
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)
