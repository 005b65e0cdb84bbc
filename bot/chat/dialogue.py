"""Dialogue between two personas: whose turn it is, when it ends, and how it runs in a Discord channel."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import discord

from bot.chat.discord_channels import ChannelRef, GuildChannel, channel_ref
from bot.chat.model_names import ChatModel, build_model_request
from bot.chat.reply_service import ReplyService
from bot.chat.streaming_reply import StreamingReply
from bot.errors import error_text
from bot.store import StoredMessage
from personas.engine import ReplyStream
from personas.schemas.chat import ChatReply, Persona, Turn

MIN_TURNS, DEFAULT_TURNS, MAX_TURNS = 2, 6, 20  # turns of a duet
REPETITION_WORDS = 8  # consecutive words that count as a repetition when they recur; sayings and names are shorter
WORD_PATTERN = re.compile(r"\w+")
DialogueEnd = Literal["limit", "repeats", "silent"]
"""Reason why a duet ended by itself: all turns taken, a repetition, or an empty reply."""
DIALOGUE_END_TEXTS: dict[DialogueEnd, str] = {
    "limit": "all turns taken",
    "repeats": "it began to repeat itself",
    "silent": "there was nothing more to say",
}
PAUSE_S = 1.5  # between two lines, so that they can be read, and Discord's limits are not met
POLL_INTERVAL_S = 0.25  # interval between checks for a reason to end
SHUTDOWN_TIMEOUT_S = 2.0  # time that a shutdown waits for duets to announce their end
MEMBER_SPOKE_TEXT, MUTED_TEXT, PERSONA_REMOVED_TEXT = (
    "somebody spoke",
    "a moderator silenced one of them",
    "one of them is no longer here",
)
STOPPED_TEXT, FAILED_TEXT, LINE_DELETED_TEXT, SHUTDOWN_TEXT = (
    "stopped",
    "it could not go on",
    "a line was deleted",
    "the bot was stopped",
)


@dataclass
class Dialogue:
    """A duet between two who bear these names, after what somebody said to both."""

    names: tuple[str, str]
    opening: Turn
    limit: int = DEFAULT_TURNS
    lines: list[str] = field(default_factory=list)

    @property
    def next(self) -> int:
        """Index of the persona whose turn it is: 0 or 1."""
        return len(self.lines) % 2

    def turns(self) -> tuple[Turn, ...]:
        """The talk as it is shown to whoever is next; it ends with what they answer."""
        own = self.next
        said = (Turn(self.names[at % 2], line, by_persona=at % 2 == own) for at, line in enumerate(self.lines))
        return (self.opening, *said)

    def take(self, line: str) -> DialogueEnd | None:
        """Take the next line; says why the duet ends with it, if it does."""
        repeated = is_repetition(line, [self.opening.text, *self.lines])
        self.lines.append(line)
        if not line.strip():
            return "silent"
        if repeated:
            return "repeats"
        return "limit" if len(self.lines) >= self.limit else None


def is_repetition(line: str, before: list[str]) -> bool:
    """Report whether a line repeats an earlier one: all of it, or `REPETITION_WORDS` words in a row."""
    words = _words(line)
    for said in map(_words, before):
        if words and words == said:
            return True
        if _ngrams(words) & _ngrams(said):
            return True
    return False


def _words(text: str) -> tuple[str, ...]:
    return tuple(WORD_PATTERN.findall(text.casefold()))


def _ngrams(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    return {words[at : at + REPETITION_WORDS] for at in range(len(words) - REPETITION_WORDS + 1)}


@dataclass
class ChannelDialogue:
    """A duet in a channel. `begun_at` is the `seq` of its opening in the store: what members say later ends it.

    `buttons` are those under a line that is being written; `over` is told in words why it has ended.
    """

    channel: GuildChannel
    personas: tuple[Persona, Persona]
    duet: Dialogue
    asked_by: int
    begun_at: int
    buttons: Callable[[], discord.ui.View]
    over: Callable[[str], Awaitable[None]]
    stopped: str = ""
    stream: ReplyStream | None = None

    @property
    def place(self) -> ChannelRef:
        """The channel's ids."""
        return channel_ref(self.channel)

    def stop(self, why: str = STOPPED_TEXT) -> None:
        """End it now, in mid-word; the first reason counts."""
        self.stopped = self.stopped or why
        if self.stream:
            self.stream.cancel()


@dataclass
class DialogueRunner:
    """The duets that are under way, at most one in a server."""

    pause_s: float = PAUSE_S
    _talks: dict[int, ChannelDialogue] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def of_guild(self, guild_id: int) -> ChannelDialogue | None:
        """The duet that is under way in a server."""
        return self._talks.get(guild_id)

    @contextmanager
    def begun(self, talk: ChannelDialogue) -> Iterator[None]:
        """While in the block, this is the duet that is under way in its server."""
        self._talks[talk.place.guild_id] = talk
        try:
            yield
        finally:
            del self._talks[talk.place.guild_id]

    async def perform(self, talk: ChannelDialogue, answerer: ReplyService) -> None:
        """Let them talk until it is over."""
        task = asyncio.create_task(_DialogueRun(talk, answerer, self.pause_s).run())
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
            talk.stop(SHUTDOWN_TEXT)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=SHUTDOWN_TIMEOUT_S)


@dataclass(frozen=True)
class _DialogueRun:
    """One duet being performed."""

    talk: ChannelDialogue
    reply_service: ReplyService
    pause_s: float

    async def run(self) -> None:
        """All of it, to the word why it is over."""
        try:
            why = await self._performed()
        except Exception as error:  # nobody above could say it where the duet was to be
            why = error_text(error)
        await self.talk.over(why)

    async def _performed(self) -> str:
        talk = self.talk
        while not self._look():
            line = await self._line(talk.personas[talk.duet.next])
            if line is None:
                return FAILED_TEXT
            if end := talk.duet.take(line):
                return talk.stopped or DIALOGUE_END_TEXTS[end]
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
        talk, store, place = self.talk, self.reply_service.store, self.talk.place
        last = store.messages.recent(place.channel_id, keep=4, block=4)
        if any(_by_member(message, talk.begun_at) for message in last):
            return MEMBER_SPOKE_TEXT
        if any(self.reply_service.rules.muted(persona, place) for persona in talk.personas):
            return MUTED_TEXT
        known = self.reply_service.request_builder.personas
        return "" if all(known.get(persona.id, place.guild_id) for persona in talk.personas) else PERSONA_REMOVED_TEXT

    async def _line(self, persona: Persona) -> str | None:
        """Say the next line, and keep it; None where it could not be said."""
        talk = self.talk
        live = await self.reply_service.begin_message(
            persona,
            talk.channel,
            growing=talk.buttons,
            ended=discord.ui.View,
            on_parts=partial(self._record_parts, persona, []),
        )
        event_id = live.parts[0]
        try:
            reply = await self._followed(persona, live)
        except discord.NotFound:
            talk.stop(LINE_DELETED_TEXT)
            self.reply_service.store.replies.finish(event_id, "stopped")
            return ""
        except Exception as error:  # said in its place
            self.reply_service.store.replies.finish(event_id, "failed")
            with suppress(discord.HTTPException):
                await live.fail(error_text(error))
            return None
        self.reply_service.store_reply(persona, talk.place, event_id, live.parts[0], reply)
        return reply.text

    async def _followed(self, persona: Persona, live: StreamingReply) -> ChatReply:
        talks, talk = self.reply_service.request_builder, self.talk
        speaker = ChatModel(persona, talks.speaking(persona.id), talk.place.guild_id)
        request = build_model_request(talks, speaker, talk.duet.turns(), talks.sampling)
        live.lore = request.lore
        with self.reply_service.throttle.reply():
            talk.stream = stream = self.reply_service.engine.submit(replace(request, guild_id=speaker.guild_id))
            watching = asyncio.create_task(self._watch())
            try:
                return await live.follow(stream)
            finally:
                watching.cancel()
                stream.cancel()
                talk.stream = None

    async def _watch(self) -> None:
        while not self._look():  # noqa: ASYNC110  what is looked for is in the store
            await asyncio.sleep(POLL_INTERVAL_S)

    def _record_parts(self, persona: Persona, seen: list[int], parts: list[int]) -> None:
        """The line fills these messages. It bears the id of the first that it had: no event of Discord's asked for it.

        Like a greeting it answers nobody, so it is not counted where replies are.
        """
        replies, place = self.reply_service.store.replies, self.talk.place
        if not seen:
            seen.append(parts[0])
            replies.begin(
                seen[0],
                guild_id=place.guild_id,
                channel_id=place.channel_id,
                persona_id=persona.id,
                at=time.time(),
            )
        replies.record_parts(seen[0], parts)


def _by_member(message: StoredMessage, since: int) -> bool:
    return message.persona_id is None and message.seq > since
