"""Dialogue between two personas: whose turn it is, when it ends, and how it runs in a Discord
channel.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal

import discord

from bot.chat.model_names import ChatModel
from bot.chat.places import ChannelRef, GuildChannel, channel_ref
from bot.chat.reply import Reply, ReplyContext
from bot.platform.errors import RefusedError, error_text
from bot.platform.localisation import gettext_lazy, localise
from bot.safety.actions import PLAIN_DISCLOSURE, Disclosure
from bot.safety.human_question import answer_if_human
from bot.store import StoreError
from personas.schemas.chat import ChatReply, Persona, Turn

log = logging.getLogger(__name__)
MIN_TURNS = 2
DEFAULT_TURNS = 6
MAX_TURNS = 20
"""Turns of a duet."""
REPETITION_WORDS = 8
"""Length of a repeated word sequence that counts as repetition; repeated sayings and names are
shorter.
"""
WORD_PATTERN = re.compile(r"\w+")
DialogueEnd = Literal["limit", "repeats", "silent"]
DIALOGUE_END_TEXTS: dict[DialogueEnd, str] = {
    "limit": gettext_lazy("all turns taken"),
    "repeats": gettext_lazy("it began to repeat itself"),
    "silent": gettext_lazy("there was nothing more to say"),
}
PAUSE_S = 1.5
"""Pause between two lines: for readers, and for Discord's rate limits."""
POLL_INTERVAL_S = 0.25
"""Interval of the checks for a reason to end."""
SHUTDOWN_TIMEOUT_S = 2.0
"""How long a shutdown waits for duets to post their end."""
MEMBER_SPOKE_TEXT = gettext_lazy("somebody spoke")
MUTED_TEXT = gettext_lazy("a moderator silenced one of them")
AGE_RESTRICTED_TEXT = gettext_lazy("one of them is age-restricted, and this channel is not")
PERSONA_REMOVED_TEXT = gettext_lazy("one of them is no longer here")
LINE_DELETED_TEXT = gettext_lazy("a line was deleted")
STOPPED_TEXT = gettext_lazy("stopped")
FAILED_TEXT = gettext_lazy("it could not go on")
SHUTDOWN_TEXT = gettext_lazy("the bot was stopped")


@dataclass
class Dialogue:
    """A duet of two personas with these names, after a member's words to both."""

    names: tuple[str, str]
    opening: Turn
    limit: int = DEFAULT_TURNS
    lines: list[str] = field(default_factory=list)

    @property
    def next(self) -> int:
        """Index of the persona whose turn it is: 0 or 1."""
        return len(self.lines) % 2

    def turns(self) -> tuple[Turn, ...]:
        """Return the conversation as the next persona sees it; the last turn is the one to answer."""
        turns = [self.opening]
        for number, line in enumerate(self.lines):
            speaker = number % 2
            turns.append(Turn(self.names[speaker], line, by_persona=speaker == self.next))
        return tuple(turns)

    def take(self, line: str) -> DialogueEnd | None:
        """Add the next line. Return the reason for which the duet ends with it, None if it goes
        on.
        """
        is_repeated = is_repetition(line, [self.opening.text, *self.lines])
        self.lines.append(line)
        if not line.strip():
            return "silent"
        if is_repeated:
            return "repeats"
        if len(self.lines) >= self.limit:
            return "limit"
        return None


def is_repetition(line: str, before: list[str]) -> bool:
    """Report whether a line repeats an earlier one: all of it, or `REPETITION_WORDS` words in a
    row.
    """
    words = _words(line)
    earlier = [_words(text) for text in before]
    if words and words in earlier:
        return True
    return any(_ngrams(words) & _ngrams(other) for other in earlier)


def _words(text: str) -> tuple[str, ...]:
    return tuple(WORD_PATTERN.findall(text.casefold()))


def _ngrams(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    starts = range(len(words) - REPETITION_WORDS + 1)
    return {words[start : start + REPETITION_WORDS] for start in starts}


@dataclass
class ChannelDialogue:
    """A duet in a channel. `opening_seq` is its opening's `seq` in the store: members' later
    messages end it. All its lines belong to the opening's `conversation`.

    `buttons` creates those under a line that is being written; `on_end` is called with the reason
    of the end.
    """

    channel: GuildChannel
    personas: tuple[Persona, Persona]
    duet: Dialogue
    requested_by: int
    opening_seq: int
    conversation: int | None
    buttons: Callable[[], discord.ui.View]
    on_end: Callable[[str], Awaitable[None]]
    stopped: str = ""
    line: Reply | None = None

    @property
    def place(self) -> ChannelRef:
        """The channel's ids."""
        return channel_ref(self.channel)

    def stop(self, why: str = STOPPED_TEXT) -> None:
        """End it now, even in the middle of a line; the first reason counts."""
        self.stopped = self.stopped or why
        if self.line:
            self.line.cancel()


class DialogueLine(Reply):
    """A line of a duet. Its event id is that of its first message, since no event requested it.

    Like a greeting it answers nobody, so statistics of replies do not count it.
    """

    def __init__(self, context: ReplyContext, talk: ChannelDialogue, persona: Persona) -> None:
        super().__init__(context, persona, talk.channel)
        self.conversation = talk.conversation
        self._talk = talk

    def take_opening(self) -> None:
        """Let the persona's own line answer an opening that asks whether they are human."""
        now = self.context.time_zones.now(self.place.guild_id)
        self.human_answer = answer_if_human(self.persona, self._talk.duet.opening.text, now)
        if self.human_answer:
            self.disclosure = Disclosure(localise(PLAIN_DISCLOSURE))

    def growing_view(self) -> discord.ui.View:
        return self._talk.buttons()

    def record_parts(self, parts: list[int]) -> bool:
        replies = self.context.store.replies
        if not self.event_id:
            replies.begin(
                parts[0],
                guild_id=self.place.guild_id,
                channel_id=self.place.channel_id,
                persona_id=self.persona.id,
                at=time.time(),
            )
            self.event_id = parts[0]
        replies.record_parts(self.event_id, parts)
        return True


@dataclass
class DialogueRunner:
    """The running duets, at most one in a server."""

    pause_s: float = PAUSE_S
    _talks: dict[int, ChannelDialogue] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def of_guild(self, guild_id: int) -> ChannelDialogue | None:
        """The running duet of a server."""
        return self._talks.get(guild_id)

    def require_none(self, guild_id: int) -> None:
        """Raises `RefusedError` while a duet is running in a server."""
        if running := self.of_guild(guild_id):
            raise RefusedError(
                gettext_lazy("A duet is running in {channel}.", channel=running.channel.mention),
                gettext_lazy("Stop it, or wait for its end."),
            )

    @contextmanager
    def running(self, talk: ChannelDialogue) -> Iterator[None]:
        """Register the running duet of its server inside the block."""
        self._talks[talk.place.guild_id] = talk
        try:
            yield
        finally:
            del self._talks[talk.place.guild_id]

    async def perform(self, talk: ChannelDialogue, context: ReplyContext) -> None:
        """Run the duet to its end."""
        task = asyncio.create_task(_DialogueRun(talk, context, self.pause_s).run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await task

    def stop_requested_by(self, user_id: int) -> None:
        """End the duets that a member requested."""
        for talk in self._talks.values():
            if talk.requested_by == user_id:
                talk.stop()

    async def close(self) -> None:
        """End all duets; the last line of each stays as it is."""
        for talk in self._talks.values():
            talk.stop(SHUTDOWN_TEXT)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=SHUTDOWN_TIMEOUT_S)


@dataclass(frozen=True)
class _DialogueRun:
    """One duet being performed."""

    talk: ChannelDialogue
    context: ReplyContext
    pause_s: float

    async def run(self) -> None:
        try:
            why = await self._run_turns()
        except StoreError as error:  # the log says why; members need not
            log.error("a duet ended: %s", error)
            why = FAILED_TEXT
        except Exception as error:  # shown in the channel: the caller cannot
            why = error_text(error)
        await self.talk.on_end(why)

    async def _run_turns(self) -> str:
        """Returns the reason of the end."""
        talk = self.talk
        while not self._check():
            line = await self._generate_line(talk.personas[talk.duet.next])
            if line is None:
                return FAILED_TEXT
            if end := talk.duet.take(line):
                return talk.stopped or DIALOGUE_END_TEXTS[end]
            with suppress(TimeoutError):
                await asyncio.wait_for(self._watch(), self.pause_s)
        return talk.stopped

    def _check(self) -> str:
        """Stop the duet where there is a reason to. Returns the reason, empty while it goes on."""
        if not self.talk.stopped and (why := self._stop_reason()):
            self.talk.stop(why)
        return self.talk.stopped

    def _stop_reason(self) -> str:
        talk = self.talk
        store = self.context.store
        place = talk.place
        latest = store.messages.latest(place.channel_id, 4)
        if any(message.persona_id is None and message.seq > talk.opening_seq for message in latest):
            return MEMBER_SPOKE_TEXT
        if any(self.context.rules.muted(persona, place) for persona in talk.personas):
            return MUTED_TEXT
        age = self.context.rules.age
        if any(age.refuses(persona, talk.channel) for persona in talk.personas):
            return AGE_RESTRICTED_TEXT
        known = self.context.personas
        if not all(known.get(persona.id, place.guild_id) for persona in talk.personas):
            return PERSONA_REMOVED_TEXT
        return ""

    async def _generate_line(self, persona: Persona) -> str | None:
        """Post and store the next line. Returns None where that failed."""
        line = DialogueLine(self.context, self.talk, persona)
        await line.message.begin()
        with self.context.unfinished.counting(line.event_id):
            try:
                generated = await self._stream_line(line)
                await line.end(generated)
            except discord.NotFound:
                self.talk.stop(LINE_DELETED_TEXT)
                self.context.store.replies.record_deleted(line.event_id)
                return ""
            except Exception as error:  # shown in its place
                await line.fail(error)
                return None
        return generated.text

    async def _stream_line(self, line: DialogueLine) -> ChatReply:
        builder = self.context.request_builder
        versions = self.context.served_versions
        talk = self.talk
        persona = line.persona
        guild_id = talk.place.guild_id
        model = ChatModel(persona, versions.speaking(persona.id, guild_id), guild_id)
        sampling = builder.sampling_in(persona, talk.place)
        request = await builder.request_to_model(model, talk.duet.turns(), sampling)
        line.origin = versions.origin_of(request.adapter)
        request = replace(request, needs_adapter=False)  # a line may lack the voice, as any reply
        if len(talk.duet.lines) < len(talk.personas):  # the opening is said to both
            line.take_opening()
        line.submit(replace(request, guild_id=guild_id, member_id=talk.requested_by))
        talk.line = line
        watching = asyncio.create_task(self._watch())
        try:
            return await line.message.follow(line.stream)
        finally:
            watching.cancel()
            line.cancel()
            talk.line = None

    async def _watch(self) -> None:
        while not self._check():  # noqa: ASYNC110  the store is checked, and sends no events
            await asyncio.sleep(POLL_INTERVAL_S)
