"""Replies while they are generated: as messages on Discord that are edited, and as pieces of text.

Model text carries no authority: links and invites are left out everywhere, and on Discord nothing
in it is shown as a mention, a command, a link behind words or a footer.
"""

import asyncio
import datetime
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import discord

from bot.chat.delivery import DELIVERY_ERRORS
from bot.chat.places import UNKNOWN_WEBHOOK_CODE, MessageSender
from bot.platform.errors import error_text
from bot.store import VoteCounts
from bot.training.resource_sharing import TrainerThrottle
from personas.engine import Engine, ReplyStream
from personas.prompt.renderer import PromptTooLongError
from personas.schemas.chat import EARLIER_SOURCE, MEMORY_SOURCE, ChatReply, ChatRequest

log = logging.getLogger(__name__)
MAX_MESSAGE_CHARS = 2000
"""Characters in one Discord message."""
MAX_FOOTER_CHARS, MAX_NAME_CHARS = 240, 90
"""Characters of a footer, and of the name that `BotSender` puts before a text."""
MAX_PART_CHARS = MAX_MESSAGE_CHARS - MAX_FOOTER_CHARS - MAX_NAME_CHARS
FIRST_EDIT_DELAY_S, EDIT_INTERVAL_S = 0.4, 1.0
"""The first words are shown soon, then edits follow at the rate that Discord allows."""
MAX_EDIT_INTERVAL_S = 30.0
"""Longest interval between edits while they fail; it is doubled after each failure."""
GROWING_EDIT_TIMEOUT_S = 5.0
"""Timeout of an edit before the last one, which is left out then: the next edit shows more."""
PLACEHOLDER = "…"
FINISH_NOTES = {"cancelled": "stopped", "length": "cut off at the length limit"}
MEMBER_SOURCES = (MEMORY_SOURCE, EARLIER_SOURCE)
"""Sources in a footer that are no files of lore."""
LINK_PREFIXES = (
    "https://", "http://", "steam://", "discord://", "://", "www.", "discord.gg/", "discord.gg\\", "discord.gift/",
    "discord.new/", "discord.com/", "discordapp.com/",
)  # fmt: skip
"""Beginnings of what can be clicked on: Discord's clients also open invites and gifts without a
scheme.
"""
LINK_PREFIX_PATTERN = re.compile("|".join(map(re.escape, LINK_PREFIXES)), re.IGNORECASE)
LINK_PATTERN = re.compile(rf"(?:{LINK_PREFIX_PATTERN.pattern})\S+", re.IGNORECASE)
LINK_PLACEHOLDER = "(link left out)"
CLOSING_SIGNS = ".,;:!?)]}>\"'”"
LAST_WORD_PATTERN = re.compile(r"\S*\Z")
INVISIBLE_PATTERN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of what follows. Links could be split by
them.
"""
MARKUP_PREFIXES = ("@everyone", "@here", "-#", "](", "<")
MARKUP_PATTERN = re.compile(
    r"@(?=everyone|here)|-(?=#)|\](?=\()"
    r"|<(?=[@#+]|id:|/[^<>\n]{1,110}:\d{1,20}>|[^<>\s]{1,64}@[^<>\s]{1,255}>)",
    re.IGNORECASE,
)
"""Mentions, channels, telephone numbers, navigation, commands, e-mail addresses; links behind
words; footers.
"""
OPEN_MARKUP_PATTERN = re.compile(r"<[^<>\n]{0,330}\Z")
ZERO_WIDTH_SPACE = "\u200b"


class ReplyViews(Protocol):
    """Creates the buttons under a growing and an ended reply; they carry the event's id, so they
    outlive a restart.
    """

    def growing(self, event_id: int) -> discord.ui.View: ...
    def ended(self, event_id: int, votes: VoteCounts) -> discord.ui.View: ...


@dataclass
class StreamingReply:
    """One reply from the first word to the last, over as many messages as it needs.

    `parts` are the messages that it fills; at the start those of an earlier attempt, whose text
    `before` is restored when this one fails. `on_parts` is called whenever they change. `growing`
    and `ended` create the buttons. `renew` replaces the sender when its webhook is deleted
    meanwhile; the reply goes on in a new message. `dialogue` names the dialogue adapter that the
    version is a copy of, `damaged` is the live version where it cannot be read; `wanted` is the
    version that should answer, which the engine may not serve. `stretch_s` returns how much later
    edits follow, in seconds, under load.
    """

    sender: MessageSender
    growing: Callable[[], discord.ui.View]
    ended: Callable[[], discord.ui.View]
    on_parts: Callable[[list[int]], None]
    renew: Callable[[MessageSender], Awaitable[MessageSender]]
    dialogue: str | None = None
    damaged: str = ""
    wanted: str = ""
    parts: list[int] = field(default_factory=list)
    before: str = ""
    stretch_s: Callable[[], float] = lambda: 0.0
    _generated: str = ""
    _text: str = ""  # of what was generated, as it is shown
    _done: int = 0  # characters that finished parts show
    _tried_at: datetime.datetime | None = None  # when a message was sent without an answer

    async def begin(self) -> None:
        """Post a placeholder: in a new message, or in the first of an earlier attempt."""
        if self.parts:
            first, *others = self.parts
            await self.sender.change(first, PLACEHOLDER, self.growing())
            for message_id in others:
                await self.sender.remove(message_id)
            self.parts = [first]
            self.on_parts(self.parts)
        else:
            await self._post()

    async def _post(self) -> None:
        """Post a further message; it is deleted again where its id cannot be stored."""
        message_id = await self._say(PLACEHOLDER, self.growing())
        try:
            self.on_parts([*self.parts, message_id])
        except Exception:
            await self.sender.remove(message_id)
            raise
        self.parts.append(message_id)

    async def _say(self, text: str, view: discord.ui.View | None) -> int:
        """Send a message; what Discord posted at an earlier try, though it answered with an error,
        counts as sent.
        """
        since = self._tried_at
        self._tried_at = self._tried_at or discord.utils.utcnow()
        message_id = await self.sender.say(text, view, since)
        self._tried_at = None
        return message_id

    async def follow(self, stream: ReplyStream) -> ChatReply:
        """Edit the message until the stream ends, whose reply `end` shows. Raises the errors of the
        stream.

        Edits are left out while they fail, and follow more slowly. Raises `discord.NotFound` if the
        message is gone.
        """
        now = asyncio.get_running_loop().time
        next_at = now() + FIRST_EDIT_DELAY_S
        interval_s = EDIT_INTERVAL_S
        async for piece in stream:
            self._generated += piece
            if now() >= next_at:
                is_shown = await self._show_growing()
                interval_s = (
                    EDIT_INTERVAL_S if is_shown else min(2 * interval_s, MAX_EDIT_INTERVAL_S)
                )
                next_at = now() + interval_s + self.stretch_s()
        return stream.reply

    async def _show_growing(self) -> bool:
        """Show the text so far. False if that failed, which costs nothing: a later edit shows all
        of it.
        """
        self._text = discord_text(self._generated, is_whole=False)
        try:
            async with asyncio.timeout(GROWING_EDIT_TIMEOUT_S):
                await self._show(self.growing())
        except discord.NotFound:
            raise
        except DELIVERY_ERRORS as error:
            log.info("an edit of a growing reply is left out: %s", error)
            return False
        return True

    @property
    def text_so_far(self) -> str:
        """The generated text as the model wrote it; that of the earlier attempt while there is
        none.
        """
        return self._generated or self.before

    def footer(self, reply: ChatReply) -> str:
        """The note under the finished reply."""
        return reply_footer(reply, self.dialogue, self.damaged, self.wanted)

    async def end(self, reply: ChatReply) -> None:
        """Show the finished reply."""
        self._text = discord_text(reply.text)
        await self._show(self.ended(), f"\n{self.footer(reply)}")

    async def restore(self, text: str, note: str) -> None:
        """Show how a reply ended, whatever its messages show now."""
        *full, last = split_message(text, note)
        for number, part in enumerate([*full, last.strip()]):
            if number == len(self.parts):
                await self._post()
            await self._put(
                number,
                part[: MAX_PART_CHARS + MAX_FOOTER_CHARS],
                self.ended() if number == len(full) else None,
            )
        for message_id in self.parts[len(full) + 1 :]:
            await self.sender.remove(message_id)
        self.parts = self.parts[: len(full) + 1]
        self.on_parts(self.parts)

    async def fail(self, note: str, event_id: int) -> None:
        """End the reply with a note below the text so far, else below the earlier attempt's.

        A message that Discord posted, though it answered with an error, is deleted.
        """
        await self.restore(self.text_so_far, note)
        if self._tried_at:
            for message_id in await self.sender.find(event_id):
                if message_id not in self.parts:
                    await self.sender.remove(message_id)

    async def _show(self, view: discord.ui.View | None, footer: str = "") -> None:
        while len(self._text) - self._done > MAX_PART_CHARS:
            await self._next_part()
        text = self._text[self._done :].strip() or ("" if footer else PLACEHOLDER)
        await self._put(len(self.parts) - 1, (text + footer).strip(), view)

    async def _put(self, number: int, text: str, view: discord.ui.View | None = None) -> None:
        """Edit the message of a part. Raises `discord.NotFound` when it was deleted."""
        try:
            await self.sender.change(self.parts[number], text, view)
        except discord.NotFound as error:
            if error.code != UNKNOWN_WEBHOOK_CODE:
                raise
            self.sender = await self.renew(self.sender)
            self.parts[number] = await self._say(text, view)
            self.on_parts(self.parts)

    async def _next_part(self) -> None:
        cut = self._done + split_index(self._text[self._done :], MAX_PART_CHARS)
        await self._put(len(self.parts) - 1, self._text[self._done : cut].strip() or PLACEHOLDER)
        await self._post()
        self._done = cut  # last: what fails before is done again


def reply_footer(
    reply: ChatReply, dialogue: str | None = None, damaged: str = "", wanted: str = ""
) -> str:
    """The note under a reply: that it is AI-written, its version with the dialogue adapter that
    this is a copy of, the number of candidates, its memory, earlier talk and lore, the version
    `wanted` where the base model answered instead, and the `damaged` one if any.
    """
    if not reply.text:
        return (
            "-# stopped before it began"
            if reply.finish == "cancelled"
            else "-# AI-written · nothing came out"
        )
    copy_of = f" (dialogue/{dialogue})" if reply.version and dialogue else ""
    base = f"base model instead of {wanted}" if wanted and not damaged else "base model"
    parts = ["AI-written", (reply.version or base) + copy_of]
    if damaged:
        parts.append(f"{damaged} cannot be read, moderators can `/finetune rollback`")
    if reply.candidates > 1:
        parts.append(f"best of {reply.candidates}")
    if reply.finish in FINISH_NOTES:
        parts.append(FINISH_NOTES[reply.finish])
    sources = dict.fromkeys(hit.source for hit in reply.lore)
    parts += [source for source in MEMBER_SOURCES if source in sources]
    if files := [source for source in sources if source not in MEMBER_SOURCES]:
        parts.append("lore: " + ", ".join(files))
    footer = "-# " + " · ".join(parts)
    return footer if len(footer) <= MAX_FOOTER_CHARS else f"{footer[: MAX_FOOTER_CHARS - 1]}…"


def remove_links(text: str) -> str:
    """The text without links and invites, which personas may not post."""
    return _without_links(INVISIBLE_PATTERN.sub("", text)).strip()


def discord_text(text: str, *, is_whole: bool = True) -> str:
    """A model's text for Discord: without links, and nothing in it has an effect beyond its
    message.

    Of a text that goes on, this is the part that nothing that follows can change, so it is a
    beginning of the whole.
    """
    text = INVISIBLE_PATTERN.sub("", text)
    text = _without_links(text if is_whole else text[: _final_length(text)])
    if not is_whole:
        text = text[: _final_length(text, MARKUP_PREFIXES)]
        opened = OPEN_MARKUP_PATTERN.search(text)
        text = text[: opened.start()] if opened else text
    return MARKUP_PATTERN.sub(lambda found: found[0] + ZERO_WIDTH_SPACE, text)


def _without_links(text: str) -> str:
    """Replace links, but not the punctuation and brackets that close what stands around them."""
    return LINK_PATTERN.sub(
        lambda it: LINK_PLACEHOLDER + it[0][len(it[0].rstrip(CLOSING_SIGNS)) :], text
    )


def split_message(text: str, footer: str) -> list[str]:
    """A finished text as messages, the last one with the footer."""
    parts = []
    left = discord_text(text).strip()
    while len(left) > MAX_PART_CHARS:
        cut = split_index(left, MAX_PART_CHARS)
        parts.append(left[:cut])
        left = left[cut:]
    return [*parts, f"{left}\n{footer}"]


def split_index(text: str, limit: int) -> int:
    """Return where to split a text longer than `limit`: after a paragraph, a sentence or a word,
    else at the limit.
    """
    window = text[:limit]
    for mark in ("\n\n", "\n", ". ", "! ", "? ", " "):
        at = window.rfind(mark)
        if at > limit // 2:
            return at + len(mark)
    return limit


class FilteredReply:
    """A reply that is being generated. Iterate for pieces of text; afterwards `text` and `reply`
    are complete.
    """

    def __init__(self, stream: ReplyStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[str]:
        links = LinkFilter()
        async for piece in self._stream:
            if text := links.take(piece):
                yield text
        if text := links.end():
            yield text

    @property
    def reply(self) -> ChatReply:
        """The engine's reply, once it has ended."""
        return self._stream.reply

    @property
    def text(self) -> str:
        """The whole text; shorter than the streamed one where that began to repeat itself."""
        return remove_links(self.reply.text)

    def cancel(self) -> None:
        """Stop generating."""
        self._stream.cancel()


@asynccontextmanager
async def stream_filtered_reply(
    engine: Engine, throttle: TrainerThrottle, request: ChatRequest
) -> AsyncIterator[FilteredReply]:
    """Generate a reply; it is cancelled at the end of the block. The trainer is paused meanwhile.

    Raises `EngineBusyError`; iteration raises other errors of the engine.
    """
    speech = FilteredReply(throttle.submit(engine, request))
    try:
        yield speech
    finally:
        speech.cancel()


class LinkFilter:
    """Removes links from text that comes in pieces; holds back what may become one."""

    def __init__(self) -> None:
        self._held = ""

    def take(self, piece: str) -> str:
        """Add a piece; returns the text that can be shown now."""
        self._held += INVISIBLE_PATTERN.sub("", piece)
        length = _final_length(self._held)
        text = self._held[:length]
        self._held = self._held[length:]
        return _without_links(text)

    def end(self) -> str:
        """Return the text that was held back, at the end."""
        held = self._held
        self._held = ""
        return _without_links(held)


def _final_length(text: str, prefixes: tuple[str, ...] = LINK_PREFIXES) -> int:
    """Count the characters of a text that no following text can make part of what begins with one
    of `prefixes`.
    """
    last = LAST_WORD_PATTERN.search(text)
    assert last is not None  # it matches at least the empty end
    if prefixes is LINK_PREFIXES and (link := LINK_PREFIX_PATTERN.search(text, last.start())):
        return link.start()
    partial = [
        size
        for prefix in prefixes
        for size in range(1, min(len(prefix), len(last.group()) + 1))
        if text[-size:].casefold() == prefix[:size]
    ]
    return len(text) - max(partial, default=0)


def reply_error_text(error: Exception) -> str:
    """Describe why there is no reply. Unexpected errors get a code that is in the log too."""
    if isinstance(error, PromptTooLongError):
        return (
            "The persona's card leaves no room for messages and a reply of this length. Ask for "
            "fewer tokens."
        )
    return error_text(error)
