"""One message answered, from the event to the last edit, and taken up again after a crash."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import discord

from bot.conversation import Conversations
from bot.errors import words_for
from bot.permissions import is_moderator
from bot.replies import LiveReply, SpeakChannel, Voices
from bot.store import Store, StoredReply
from personas.contracts import ChatRequest, Persona, Reply
from personas.engine import Engine, ReplyStream
from personas.errors import AdapterError

log = logging.getLogger(__name__)

UNKNOWN_WEBHOOK = 10015
TAKE_UP_AGAIN_S = 900.0
"""Replies that a crash cut off are finished when they are no older; later nobody waits for them."""


@dataclass(frozen=True)
class Asked:
    """A message to answer. `event_id` is Discord's id of what asked: the message or the interaction."""

    event_id: int
    author_id: int
    author_name: str
    text: str


@dataclass(frozen=True)
class _Running:
    stream: ReplyStream
    asked_by: int


@dataclass
class Answerer:
    """Answers in any number of channels at once; each reply runs in the task of the event that asked for it.

    `stop_view` makes the Stop button of the reply to an event.
    """

    store: Store
    engine: Engine
    conversations: Conversations
    voices: Voices
    stop_view: Callable[[int], discord.ui.View]
    _running: dict[int, _Running] = field(default_factory=dict)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def answer(self, asked: Asked, persona: Persona, channel: SpeakChannel) -> None:
        """Keep what was said, then reply as the persona. An event that was answered before is left alone."""
        guild_id, now = channel.guild.id, time.time()
        seq = self.store.messages.append(
            guild_id=guild_id,
            channel_id=channel.id,
            author_id=asked.author_id,
            author_name=asked.author_name,
            text=asked.text,
            at=now,
            discord_message_id=asked.event_id,
        )
        if not self.store.replies.begin(asked.event_id, channel.id, persona.id, now, seq):
            log.info("event %d was answered before", asked.event_id)
            return
        await self._reply(asked.event_id, asked.author_id, persona, channel, seq)

    def is_running(self, event_id: int) -> bool:
        """Whether the reply to this event is still being made."""
        return event_id in self._running

    def stop(self, event_id: int, user: discord.abc.User) -> str | None:
        """Stop a running reply for whoever asked for it, or a moderator. Gives the words of a refusal."""
        running = self._running[event_id]
        if user.id != running.asked_by and not is_moderator(user):
            return "Only the one who asked, or a moderator, can stop this reply."
        running.stream.cancel()
        return None

    async def close(self) -> None:
        """Let go of the replies that are being made; they stay unfinished in the store and are taken up again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def greet(self, persona: Persona, channel: SpeakChannel) -> None:
        """Let a persona say its card's greeting in its new home."""
        if persona.first_mes:
            voice = await self.voices.of(persona, channel)
            await voice.say(f"{persona.first_mes}\n-# a greeting by this persona's author")

    async def take_up(self, client: discord.Client) -> None:
        """Finish the replies that a crash or a restart cut off."""
        for cut in self.store.replies.unfinished():
            try:
                await self._take_up(cut, client.get_channel(cut.channel_id))
            except Exception:  # one that cannot be finished must not keep the others from it
                log.exception("the reply %d could not be finished", cut.event_id)
                self.store.replies.finish(cut.event_id, "failed")

    async def _take_up(self, cut: StoredReply, channel: object) -> None:
        persona = self.conversations.personas.get(cut.persona_id)
        if persona is None or not isinstance(channel, SpeakChannel):
            self.store.replies.finish(cut.event_id, "failed")
        elif cut.trigger_seq is None or time.time() - cut.created_at > TAKE_UP_AGAIN_S:
            self.store.replies.finish(cut.event_id, "failed")
            if cut.webhook_message_id:
                voice = await self.voices.of(persona, channel)
                await voice.change(cut.webhook_message_id, "-# This reply was cut off. Ask again.")
        else:
            log.info("finishing a reply of %s in #%s that was cut off", persona.name, channel)
            await self._reply(cut.event_id, 0, persona, channel, cut.trigger_seq, cut.webhook_message_id)

    async def _reply(
        self,
        event_id: int,
        asked_by: int,
        persona: Persona,
        channel: SpeakChannel,
        seq: int,
        message: int | None = None,
    ) -> None:
        request = self.conversations.request(persona, channel.id, seq)
        with self._closeable():
            live = await self._begin(event_id, persona, channel, message)
            live.lore = request.lore
            await self._stream(event_id, asked_by, request, live, channel)

    async def _stream(
        self, event_id: int, asked_by: int, request: ChatRequest, live: LiveReply, channel: SpeakChannel
    ) -> None:
        try:
            reply = await self._follow(event_id, asked_by, request, live)
        except Exception as error:  # nobody above could say it where the reply was to be
            self.store.replies.finish(event_id, "failed")
            await self._fail(live, error)
        else:
            self._keep(event_id, channel, live, reply)
        finally:
            if running := self._running.pop(event_id, None):
                running.stream.cancel()

    async def _follow(self, event_id: int, asked_by: int, request: ChatRequest, live: LiveReply) -> Reply:
        """The reply; by the base model when the live adapter turns out to be damaged, which the operator is told."""
        try:
            stream = self.engine.submit(request)
            self._running[event_id] = _Running(stream, asked_by)
            return await live.follow(stream)
        except AdapterError as error:
            log.error("the base model answers instead: %s", error)
            return await self._follow(event_id, asked_by, replace(request, adapter=None), live)

    async def _fail(self, live: LiveReply, error: Exception) -> None:
        try:
            await live.fail(words_for(error))
        except discord.HTTPException as unsaid:
            log.warning("a reply failed, and so did saying so: %s", unsaid)

    @contextmanager
    def _closeable(self) -> Iterator[None]:
        """While in the block, the task can be ended by `close`."""
        task = asyncio.current_task()
        assert task is not None  # a coroutine always runs in one
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    async def _begin(self, event_id: int, persona: Persona, channel: SpeakChannel, message: int | None) -> LiveReply:
        """Make the message that will grow; once more with a new webhook if the old one turns out to be deleted."""
        for attempt in range(2):
            voice = await self.voices.of(persona, channel)
            live = LiveReply(voice, self.stop_view(event_id))
            try:
                await live.begin(message)
            except discord.NotFound as error:
                if attempt:
                    raise
                if error.code == UNKNOWN_WEBHOOK:
                    self.voices.forget(channel)
                message = None
            else:
                self.store.replies.streaming(event_id, live.parts[0])
                return live
        raise AssertionError("the second attempt returns or raises")

    def _keep(self, event_id: int, channel: SpeakChannel, live: LiveReply, reply: Reply) -> None:
        self.store.messages.append(
            guild_id=channel.guild.id,
            channel_id=channel.id,
            author_id=0,
            author_name=live.voice.persona.name,
            text=reply.text,
            at=time.time(),
            discord_message_id=live.parts[0],
            persona_id=live.voice.persona.id,
            adapter_version=reply.version,
        )
        state: Any = "stopped" if reply.finish == "cancelled" else "done"
        self.store.replies.finish(event_id, state, reply.version, reply.seed)
