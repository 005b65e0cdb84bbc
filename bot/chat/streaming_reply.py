"""Shows a reply on Discord while it is generated, in as many messages as it needs."""

import asyncio
import datetime
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import discord

from bot.chat.delivery import DELIVERY_ERRORS
from bot.chat.markdown_split import closing_of, split_markdown
from bot.chat.places import ReplyChannel
from bot.chat.reply_text import (
    MAX_FOOTER_CHARS,
    MAX_PART_CHARS,
    discord_text,
    message_text,
    split_message,
)
from bot.chat.senders import UNKNOWN_WEBHOOK_CODE, MessageSender
from bot.chat.webhooks import SenderRegistry
from bot.safety.reply_guard import WITHDRAWN
from bot.store import VoteCounts
from personas.engine import ReplyStream
from personas.schemas.chat import ChatReply, Persona

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
    def ended(
        self, event_id: int, votes: VoteCounts, *, offers_untrained: bool
    ) -> discord.ui.View: ...
    def ended_outside(self, event_id: int, votes: VoteCounts) -> discord.ui.View: ...


@dataclass(kw_only=True)
class StreamingReply:
    """One reply from the first word to the last, over as many messages as it needs.

    `parts` are the messages that it fills; at the start those of an earlier attempt, whose text
    `before` is restored when this one fails. `on_parts` is called whenever they change, and returns
    False if it cannot store them. `growing` and `ended` create the buttons. `stretch_s` returns how
    much later edits follow, in seconds, under load. The text comes below mentions of the members
    `mentioned`.
    """

    senders: SenderRegistry
    persona: Persona
    channel: ReplyChannel
    growing: Callable[[], discord.ui.View]
    ended: Callable[[], discord.ui.View]
    on_parts: Callable[[list[int]], bool]
    parts: list[int] = field(default_factory=list)
    before: str = ""
    stretch_s: Callable[[], float] = lambda: 0.0
    mentioned: tuple[int, ...] = ()
    sender: MessageSender = field(init=False)
    generated: str = field(default="", init=False)
    """The text so far, as the model wrote it."""
    _text: str = field(default="", init=False)
    """The same as it is shown."""
    _done_chars: int = field(default=0, init=False)
    """Characters of it that finished parts show."""
    is_stored: bool = field(default=True, init=False)
    """Whether `on_parts` could store `parts`."""
    _opening: str = field(default="", init=False)
    """What opens again, in the latest part, the markup that the one before it has closed."""
    _kept_buttons: dict[int, str] = field(default_factory=dict, init=False)
    """Texts of full messages that still have buttons, by id (`remove_kept_buttons`)."""
    _starts_over: bool = field(default=False, init=False)
    """Whether several messages show a text that was withdrawn: its successor is shown at the end."""
    _tried_at: datetime.datetime | None = field(default=None, init=False)
    """The time at which a message was sent that Discord has not confirmed."""

    async def find_sender(self) -> None:
        """Find the sender, as `begin` does."""
        self._use(await self.senders.of(self.persona, self.channel))

    def _use(self, sender: MessageSender) -> None:
        self.sender = sender.mentioning(self.mentioned) if self.mentioned else sender

    @property
    def _lead(self) -> str:
        """The line of mentions above the text: Discord notifies members of those alone that a
        message has from the beginning.
        """
        mentions = " ".join(f"<@{member_id}>" for member_id in self.mentioned)
        return mentions and f"{mentions}\n"

    async def begin(self) -> None:
        """Post a placeholder: in a new message, or in the first of an earlier attempt.

        May be called again after an error. A deleted webhook is replaced once.
        """
        await self.find_sender()
        try:
            await self._post_first()
        except discord.NotFound as error:
            if error.code == UNKNOWN_WEBHOOK_CODE:
                self.senders.forget(self.channel)
            await self.find_sender()
            self.parts = []
            await self._post()

    async def _post_first(self) -> None:
        if not self.parts:
            await self._post()
            return
        # A regenerated reply stays in place: the conversation goes on below it.
        first, *others = self.parts
        await self.sender.change(first, f"{self._lead}{PLACEHOLDER}", self.growing())
        for message_id in others:
            await self.sender.remove(message_id)
        self.parts = [first]
        self._store_parts(self.parts)

    async def _post(self) -> None:
        """Post a further message; it is deleted again where its id cannot be stored."""
        lead = "" if self.parts else self._lead
        message_id = await self._say(f"{lead}{PLACEHOLDER}", self.growing())
        try:
            self._store_parts([*self.parts, message_id])
        except Exception:
            await self.sender.remove(message_id)
            raise
        self.parts.append(message_id)

    async def _say(self, text: str, view: discord.ui.View | None) -> int:
        """Send a message. One that Discord posted at an earlier try, though it answered with an
        error, counts as sent.
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
            if piece is WITHDRAWN:
                await self._withdraw()
            self.generated += piece
            if now() >= next_at and not self._starts_over:
                is_shown = await self._show_growing()
                slower_s = min(2 * interval_s, MAX_EDIT_INTERVAL_S)
                interval_s = EDIT_INTERVAL_S if is_shown else slower_s
                next_at = now() + interval_s + self.stretch_s()
        return stream.reply

    async def _withdraw(self) -> None:
        """Begin anew: the text so far is shown no more."""
        self.generated = ""
        self._done_chars = 0
        self._opening = ""
        self._starts_over = len(self.parts) > 1
        if not self._starts_over:
            await self._show_growing()

    async def _show_growing(self) -> bool:
        """Show the text so far. False if that failed, which costs nothing: a later edit shows all
        of it.
        """
        self._text = discord_text(self.generated, is_whole=False, keeps_code=True)
        try:
            async with asyncio.timeout(GROWING_EDIT_TIMEOUT_S):
                await self._show(self.growing())
        except discord.NotFound:
            raise
        except DELIVERY_ERRORS as error:
            log.info("an edit of a growing reply is left out: %s", error)
            return False
        return True

    async def end(self, text: str, footer: str) -> None:
        """Show the finished reply with its footer."""
        if self._starts_over:
            return await self.restore(text, footer)
        self._text = discord_text(text, keeps_code=True)
        await self._show(self.ended(), f"\n{footer}")

    async def restore(self, text: str, note: str) -> None:
        """Show how a reply ended, in place of the text that its messages show now."""
        *full, last = split_message(text, note, self._lead)
        texts = [*full, last.strip()]
        for number, part in enumerate(texts):
            if number == len(self.parts):
                await self._post()
            shown = part[: MAX_PART_CHARS + MAX_FOOTER_CHARS]
            if number < len(full):
                await self._fill(number, shown)
            else:
                await self._put(number, shown, self.ended())
        for message_id in self.parts[len(texts) :]:
            await self.sender.remove(message_id)
        self.parts = self.parts[: len(texts)]
        self._store_parts(self.parts)

    async def fail(self, note: str, event_id: int) -> None:
        """End the reply with a note below the text so far, else below the earlier attempt's.

        A message that Discord posted, though it answered with an error, is deleted.
        """
        await self.restore(self.generated or self.before, note)
        if self._tried_at:
            for message_id in await self.sender.find(event_id):
                if message_id not in self.parts:
                    await self.sender.remove(message_id)

    async def _show(self, view: discord.ui.View | None, footer: str = "") -> None:
        is_whole = bool(footer)
        while True:
            lead = "" if self._done_chars else self._lead
            left = self._opening + self._text[self._done_chars :]
            if len(lead) + len(left) <= MAX_PART_CHARS:
                break
            split = split_markdown(left, MAX_PART_CHARS - len(lead), is_whole=is_whole)
            full = (lead + message_text(split.first, MAX_PART_CHARS + MAX_FOOTER_CHARS)).strip()
            await self._fill(len(self.parts) - 1, full or PLACEHOLDER)
            await self._post()
            # Last: a step that fails is repeated whole.
            self._done_chars += split.cut - len(self._opening)
            self._opening = split.opening
        text = left.strip()
        if not is_whole:
            text = (text + closing_of(text)) or PLACEHOLDER
        text = message_text(text, MAX_PART_CHARS)
        await self._put(len(self.parts) - 1, (lead + text + footer).strip(), view)

    async def _fill(self, number: int, text: str) -> None:
        """Show a message that is full, without buttons; further text goes into the next one.

        Where its id is not stored, it keeps some: after a kill, it is found by them alone. They are
        not those of a growing reply, by which a message that Discord posted in spite of an error is
        told from others.
        """
        view = None if self.is_stored else self.ended()
        await self._put(number, text, view)
        if view:
            self._kept_buttons[self.parts[number]] = text

    async def remove_kept_buttons(self) -> None:
        """Remove the buttons that full messages kept until their ids were stored."""
        for message_id, text in tuple(self._kept_buttons.items()):
            with suppress(discord.NotFound):  # it was deleted meanwhile
                await self.sender.change(message_id, text)
            del self._kept_buttons[message_id]

    def _store_parts(self, parts: list[int]) -> None:
        self.is_stored = self.on_parts(parts)

    async def _put(self, number: int, text: str, view: discord.ui.View | None = None) -> None:
        """Edit the message of a part. Raises `discord.NotFound` when it was deleted.

        If its webhook was deleted, the reply goes on in a new message.
        """
        try:
            await self.sender.change(self.parts[number], text, view)
        except discord.NotFound as error:
            if error.code != UNKNOWN_WEBHOOK_CODE:
                raise
            self._use(await self.senders.renew(self.sender, self.channel))
            self.parts[number] = await self._say(text, view)
            self._store_parts(self.parts)
