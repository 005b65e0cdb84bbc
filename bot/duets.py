"""Duets on Discord: two personas talk in a channel because a moderator asked for it.

Each line is a message of its own, kept as all that personas say. People come first: a duet ends in mid-word when
somebody speaks to a persona there, when one of the two is silenced, or when it is stopped; and with the bot. One that a
crash cut off is not taken up again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import discord

from bot.answering import Answerer
from bot.duet import ENDED, Duet
from bot.errors import words_for
from bot.place import GuildChannel, Place, place_of
from bot.replies import UNKNOWN_WEBHOOK, LiveReply
from bot.speakers import Speaker, request_to
from bot.store import Message
from personas.contracts import Persona, Reply
from personas.engine import ReplyStream

PAUSE_S = 1.5
"""Between two lines, so that they can be read, and Discord's limits are not met."""
LOOK_S = 0.25
"""How often it is looked whether there is a reason to end."""
GOODBYE_S = 2.0
"""So long the bot's end waits until a duet has said that it is over."""
SPOKEN, SILENCED, GONE = "somebody spoke", "a moderator silenced one of them", "one of them is no longer here"
STOPPED, FAILED, DELETED, BOT_ENDS = "stopped", "it could not go on", "a line was deleted", "the bot was stopped"


@dataclass
class Talk:
    """A duet in a channel. `begun_at` is the `seq` of its opening in the store: what members say later ends it.

    `buttons` are those under a line that is being written; `over` is told in words why it has ended.
    """

    channel: GuildChannel
    personas: tuple[Persona, Persona]
    duet: Duet
    asked_by: int
    begun_at: int
    buttons: Callable[[], discord.ui.View]
    over: Callable[[str], Awaitable[None]]
    stopped: str = ""
    stream: ReplyStream | None = None

    @property
    def place(self) -> Place:
        """Where it is."""
        return place_of(self.channel)

    def stop(self, why: str = STOPPED) -> None:
        """End it now, in mid-word; the first reason counts."""
        self.stopped = self.stopped or why
        if self.stream:
            self.stream.cancel()


@dataclass
class Duets:
    """The duets that are under way, at most one in a server."""

    pause_s: float = PAUSE_S
    _talks: dict[int, Talk] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def of_guild(self, guild_id: int) -> Talk | None:
        """The duet that is under way in a server."""
        return self._talks.get(guild_id)

    @contextmanager
    def begun(self, talk: Talk) -> Iterator[None]:
        """While in the block, this is the duet that is under way in its server."""
        self._talks[talk.place.guild_id] = talk
        try:
            yield
        finally:
            del self._talks[talk.place.guild_id]

    async def perform(self, talk: Talk, answerer: Answerer) -> None:
        """Let them talk until it is over."""
        task = asyncio.create_task(_Performance(talk, answerer, self.pause_s).run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await task

    def stop_asked_by(self, user_id: int) -> None:
        """End the duets that somebody asked for."""
        for talk in self._talks.values():
            if talk.asked_by == user_id:
                talk.stop()

    async def close(self) -> None:
        """End all of them; their last lines are finished as far as they have come."""
        for talk in self._talks.values():
            talk.stop(BOT_ENDS)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GOODBYE_S)


@dataclass(frozen=True)
class _Performance:
    """One duet being performed."""

    talk: Talk
    answerer: Answerer
    pause_s: float

    async def run(self) -> None:
        """All of it, to the word why it is over."""
        try:
            why = await self._performed()
        except Exception as error:  # nobody above could say it where the duet was to be
            why = words_for(error)
        await self.talk.over(why)

    async def _performed(self) -> str:
        talk = self.talk
        while not self._look():
            line = await self._line(talk.personas[talk.duet.next])
            if line is None:
                return FAILED
            if end := talk.duet.take(line):
                return talk.stopped or ENDED[end]
            await self._pause()
        return talk.stopped

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._watch(), self.pause_s)

    def _look(self) -> str:
        """Stop the talk where something stands against it; says what."""
        if not self.talk.stopped and (why := self._against()):
            self.talk.stop(why)
        return self.talk.stopped

    def _against(self) -> str:
        talk, store, place = self.talk, self.answerer.store, self.talk.place
        last = store.messages.recent(place.channel_id, keep=4, block=4)
        if any(_by_member(message, talk.begun_at) for message in last):
            return SPOKEN
        if any(self.answerer.rules.muted(persona, place) for persona in talk.personas):
            return SILENCED
        known = self.answerer.conversations.personas
        return "" if all(known.get(persona.id, place.guild_id) for persona in talk.personas) else GONE

    async def _line(self, persona: Persona) -> str | None:
        """Say the next line, and keep it; None where it could not be said."""
        talk = self.talk
        live = await self._live(persona)
        event_id = live.parts[0]
        try:
            reply = await self._followed(persona, live)
        except discord.NotFound:
            talk.stop(DELETED)
            self.answerer.store.replies.finish(event_id, "stopped")
            return ""
        except Exception as error:  # said in its place
            self.answerer.store.replies.finish(event_id, "failed")
            with suppress(discord.HTTPException):
                await live.fail(words_for(error))
            return None
        self._keep(persona, event_id, live.parts[0], reply)
        return reply.text

    async def _followed(self, persona: Persona, live: LiveReply) -> Reply:
        talks, talk = self.answerer.conversations, self.talk
        speaker = Speaker(persona, talks.speaking(persona.id), talk.place.guild_id)
        request = request_to(talks, speaker, talk.duet.turns(), talks.sampling)
        live.lore = request.lore
        with self.answerer.giving_way.reply():
            talk.stream = stream = self.answerer.engine.submit(replace(request, guild_id=speaker.guild_id))
            watching = asyncio.create_task(self._watch())
            try:
                return await live.follow(stream)
            finally:
                watching.cancel()
                stream.cancel()
                talk.stream = None

    async def _watch(self) -> None:
        while not self._look():  # noqa: ASYNC110  what is looked for is in the store
            await asyncio.sleep(LOOK_S)

    async def _live(self, persona: Persona) -> LiveReply:
        """The message that will grow; by another webhook where somebody has deleted the one there was."""
        channel = self.talk.channel
        for attempt in range(2):
            voice = await self.answerer.voices.of(persona, channel)
            live = LiveReply(
                voice,
                growing=self.talk.buttons,
                ended=discord.ui.View,
                on_parts=partial(self._seen, persona, []),
                renewed=lambda old: self.answerer.voices.renewed(old, channel),
            )
            try:
                await live.begin()
            except discord.NotFound as error:
                if attempt or error.code != UNKNOWN_WEBHOOK:
                    raise
                self.answerer.voices.forget(channel)
            else:
                return live
        raise AssertionError("the second attempt returns or raises")

    def _seen(self, persona: Persona, seen: list[int], parts: list[int]) -> None:
        """The line fills these messages. It bears the id of the first that it had: no event of Discord's asked for it.

        Like a greeting it answers nobody, so it is not counted where replies are.
        """
        replies, place = self.answerer.store.replies, self.talk.place
        if not seen:
            seen.append(parts[0])
            replies.begin(
                seen[0],
                guild_id=place.guild_id,
                channel_id=place.channel_id,
                persona_id=persona.id,
                at=time.time(),
            )
        replies.streaming(seen[0], parts)

    def _keep(self, persona: Persona, event_id: int, message_id: int, reply: Reply) -> None:
        place, store = self.talk.place, self.answerer.store
        if reply.text:
            store.messages.append(
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
        store.replies.finish(event_id, state, reply.version, reply.seed)


def _by_member(message: Message, since: int) -> bool:
    return message.persona_id is None and message.seq > since
