"""Recognises the copies that proxy bots such as PluralKit make of members' messages.

A proxy posts a member's text once more through a webhook, under another name, and deletes the
original. A message of a webhook is taken for such a copy only if all of this holds, so that no
persona ever answers a webhook of its own bot or of another persona bot:

- a member wrote a message to a persona in the same channel, at most `PROXY_WINDOW_S` seconds before;
- that message is deleted, before or after the copy comes, within the same time;
- the copy's text is the message's, or most of it, or all but a short tag before or behind it, or but the signs around
  it: proxies leave out the tags that name a character;
- the webhook is none of this bot's, and the copy has no buttons, as replies of personas have.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Iterator
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
"""Longest tag of which a copy may lack more than half of the message."""


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
        for message_id in [it.message.id for it in self._originals.values() if self._is_old(it)]:
            del self._originals[message_id]
        while len(self._originals) >= MAX_ORIGINALS:
            self._originals.popitem(last=False)
        self._originals.setdefault(message.id, ProxiedMessage(message, time.monotonic()))

    def note_copy(self, message: discord.Message) -> ProxiedMessage | None:
        """Note a webhook's message. Returns the original whose place it takes, if that is deleted
        already.
        """
        is_own = message.application_id is not None and message.application_id == _own_id(message)
        if message.guild is None or message.components or is_own:
            return None
        found = next(
            (
                it
                for it in self._in_channel(message)
                if it.copy is None and _is_copy(message, it.message)
            ),
            None,
        )
        if found is None:
            return None
        found.copy = message
        return found if found.has_moved else None

    def note_deletion(self, message_id: int) -> ProxiedMessage | None:
        """Note that a message was deleted. Returns it if its copy has come."""
        found = self._originals.get(message_id)
        if found is None or self._is_old(found) or found.deleted.is_set():
            return None
        found.deleted.set()
        return found if found.has_moved else None

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

    def _in_channel(self, message: discord.Message) -> Iterator[ProxiedMessage]:
        for original in self._originals.values():
            if original.message.channel.id == message.channel.id and not self._is_old(original):
                yield original

    @staticmethod
    def _is_old(original: ProxiedMessage) -> bool:
        return time.monotonic() - original.at > PROXY_WINDOW_S

    @staticmethod
    def _key(message: discord.Message) -> tuple[int, int]:
        return message.guild.id if message.guild else 0, message.author.id


def _own_id(message: discord.Message) -> int | None:
    """Return the id of this bot's application."""
    return message._state.application_id


def _is_copy(copy: discord.Message, original: discord.Message) -> bool:
    return is_without_tags(raw_text(copy), raw_text(original))


def is_without_tags(text: str, original: str) -> bool:
    """Report whether a text may be what a proxy leaves of a member's message. Spaces do not
    count.
    """
    text = " ".join(text.split())
    original = " ".join(original.split())
    if not text or text not in original:
        return False
    is_most = 2 * len(text) >= len(original)
    is_at_edge = original.startswith(text) or original.endswith(text)
    is_tagged = is_at_edge and len(original) - len(text) <= MAX_TAG_CHARS
    return is_most or is_tagged or _without_signs(text) == _without_signs(original)


def _without_signs(text: str) -> str:
    """Return a text without the signs around it, such as brackets."""
    return re.sub(r"^\W+|\W+$", "", text)
