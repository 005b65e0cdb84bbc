"""Recognises the copies that proxy bots such as PluralKit make of members' messages.

A proxy posts a member's text once more through a webhook, under another name, and deletes the
original. A message of a webhook is taken for such a copy only if all of this holds, so that no
persona ever answers a webhook of its own bot or of another persona bot:

- a member wrote a message to a persona in the same channel, at most `PROXY_WINDOW_S` seconds before;
- that message is deleted, before or after the copy comes, within the same time;
- the copy's text is the message's, or most of it, or all but a short tag before or behind it, or but the signs around
  it: proxies leave out the tags that name a character; without a text, beside no more than such a tag, it has the same
  files;
- the webhook is none of this bot's, and the copy has no buttons, as replies of personas have.
"""

import asyncio
import re
import time
from collections import OrderedDict
from dataclasses import dataclass, field

import discord

from bot.chat.message_text import raw_text

PROXY_WINDOW_S = 10.0
"""Longest time between a message, its copy and its deletion."""
PROXY_WAIT_S = 3.0
"""Time for which messages of members with a proxy wait to be deleted before they are answered."""
MAX_ORIGINALS = 1000
MAX_PROXIED_MEMBERS = 10_000
MAX_TAG_CHARS = 16
"""Longest tag around a text that is less than half of the message."""
OUTER_SIGNS_PATTERN = re.compile(r"^\W+|\W+$")
"""Signs around a text, such as brackets."""


@dataclass(eq=False)
class ProxiedMessage:
    """A member's message to a persona, and its copy once one has come."""

    message: discord.Message
    at: float
    copy: discord.Message | None = None
    deleted: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def has_moved(self) -> bool:
        """True once the copy stands in place of the message."""
        return self.copy is not None and self.deleted.is_set()


class ProxyWatch:
    """The latest messages to personas, each until it is too old to be copied."""

    def __init__(self) -> None:
        self._originals: OrderedDict[int, ProxiedMessage] = OrderedDict()
        self._members: OrderedDict[tuple[int, int], None] = OrderedDict()

    def note(self, message: discord.Message) -> None:
        """Note a member's message to a persona."""
        if message.guild is None:  # there are no proxies in direct messages
            return
        # The oldest are first, so that a flood does not cost all of them each time.
        while self._originals and self._has_no_place(self._oldest()):
            self._originals.popitem(last=False)
        self._originals.setdefault(message.id, ProxiedMessage(message, time.monotonic()))

    def _has_no_place(self, oldest: ProxiedMessage) -> bool:
        return len(self._originals) >= MAX_ORIGINALS or self._is_old(oldest)

    def _oldest(self) -> ProxiedMessage:
        return next(iter(self._originals.values()))

    def note_copy(self, message: discord.Message) -> ProxiedMessage | None:
        """Note a webhook's message. Returns the original whose place it takes, if that is deleted
        already.
        """
        own_application_id = message._state.application_id
        is_own = message.application_id is not None and message.application_id == own_application_id
        if message.guild is None or message.components or is_own:
            return None
        for original in self._originals.values():
            is_here = original.message.channel.id == message.channel.id
            if not is_here or original.copy is not None or self._is_old(original):
                continue
            if _is_copy(message, original.message):
                original.copy = message
                return original if original.has_moved else None
        return None

    def note_deletion(self, message_id: int) -> ProxiedMessage | None:
        """Note that a message was deleted. Returns it if its copy has come."""
        original = self._originals.get(message_id)
        if original is None or self._is_old(original) or original.deleted.is_set():
            return None
        original.deleted.set()
        return original if original.has_moved else None

    def note_member(self, original: ProxiedMessage) -> None:
        """Note that a member has a proxy: their next messages wait for it."""
        self._members[self._key(original.message)] = None
        while len(self._members) > MAX_PROXIED_MEMBERS:
            self._members.popitem(last=False)

    async def wait(self, message: discord.Message) -> None:
        """Wait until the message of a member with a proxy is deleted, or would be."""
        original = self._originals.get(message.id)
        if original is None or self._key(message) not in self._members:
            return
        try:
            async with asyncio.timeout(PROXY_WAIT_S):
                await original.deleted.wait()
        except TimeoutError:
            return

    @staticmethod
    def _is_old(original: ProxiedMessage) -> bool:
        return time.monotonic() - original.at > PROXY_WINDOW_S

    @staticmethod
    def _key(message: discord.Message) -> tuple[int, int]:
        return message.guild.id if message.guild else 0, message.author.id


def _is_copy(message: discord.Message, original: discord.Message) -> bool:
    """Report whether a message may be a proxy's copy of a member's, by its text, or by its files where
    it has none.
    """
    text = raw_text(message)
    if text.strip():
        return is_without_tags(text, raw_text(original))
    is_tag = len(raw_text(original).strip()) <= MAX_TAG_CHARS
    return is_tag and bool(message.attachments) and _files(message) == _files(original)


def _files(message: discord.Message) -> list[tuple[str, int]]:
    return [(attachment.filename, attachment.size) for attachment in message.attachments]


def is_without_tags(text: str, original: str) -> bool:
    """Report whether a text may be a member's message without a proxy's tags. Spaces do not
    count.
    """
    text = " ".join(text.split())
    original = " ".join(original.split())
    if not text or text not in original:
        return False
    is_most = 2 * len(text) >= len(original)
    is_at_edge = original.startswith(text) or original.endswith(text)
    is_tagged = is_at_edge and len(original) - len(text) <= MAX_TAG_CHARS
    has_same_words = OUTER_SIGNS_PATTERN.sub("", text) == OUTER_SIGNS_PATTERN.sub("", original)
    return is_most or is_tagged or has_same_words
