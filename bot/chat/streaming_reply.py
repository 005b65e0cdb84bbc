"""Shows a reply on Discord while it is generated, in as many messages as it needs."""

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import discord

from bot.chat.delivery import DELIVERY_ERRORS
from bot.chat.reply_text import (
    MAX_FOOTER_CHARS,
    MAX_PART_CHARS,
    discord_text,
    reply_footer,
    split_index,
    split_message,
)
from bot.chat.senders import UNKNOWN_WEBHOOK_CODE, MessageSender
from bot.store import VoteCounts
from personas.engine import ReplyStream
from personas.schemas.chat import ChatReply

log = logging.getLogger(__name__)
FIRST_EDIT_DELAY_S = 0.4
EDIT_INTERVAL_S = 1.0
"""The first words are shown soon, then edits follow at the rate that Discord allows."""
MAX_EDIT_INTERVAL_S = 30.0
"""Longest interval between edits while they fail; it is doubled after each failure."""
GROWING_EDIT_TIMEOUT_S = 5.0
"""Timeout of an edit before the last one, which is left out then: the next edit shows more."""
PLACEHOLDER = "…"


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
