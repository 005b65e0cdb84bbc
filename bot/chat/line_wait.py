"""Waits for further lines of a member before their message is answered, so that one reply answers
all of them.

Each line is stored at once, with the reply that will answer it: a bot that is killed during the
wait answers all of them at its next start (`bot.chat.recovery`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import discord

from bot.chat.delivery import DELIVERY_ERRORS

MAX_LINES = 8
"""Lines that one reply answers: a prompt with a small context has as many messages."""
MAX_WAITS = 4
"""The longest wait as a multiple of the time for one line, which each line starts anew."""
TYPING_INTERVAL_S = 8.0
"""Discord shows typing for ten seconds."""


@dataclass(eq=False)
class LineWait:
    """A reply, or those of several personas, that waits for further lines of its member in a
    channel.
    """

    event_id: int
    persona_ids: tuple[str, ...]
    wait_s: float
    began: float = field(default_factory=time.monotonic)
    _further: list[int] = field(default_factory=list)
    _is_over: bool = False
    _has_more: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def lines(self) -> tuple[int, ...]:
        """The messages that the reply will answer: its event's, and the further ones."""
        return (self.event_id, *self._further)

    @property
    def is_full(self) -> bool:
        """Whether no further line may join."""
        return self._is_over or len(self.lines) >= MAX_LINES

    def is_of(self, persona_ids: Collection[str]) -> bool:
        """Report whether exactly these personas will reply."""
        return set(self.persona_ids) == set(persona_ids)

    def add_line(self, event_id: int) -> None:
        """Start the wait anew for a further line."""
        self._further.append(event_id)
        self._has_more.set()

    def cut_short(self) -> None:
        """Let no further line join, and `end` return."""
        self._is_over = True
        self._has_more.set()

    async def end(self) -> None:
        """Wait until no line came for a while, or the limit of lines or of time is reached."""
        last = self.began + MAX_WAITS * self.wait_s
        while not self.is_full and time.monotonic() < last:
            self._has_more.clear()
            try:
                async with asyncio.timeout(min(self.wait_s, last - time.monotonic())):
                    await self._has_more.wait()
            except TimeoutError:
                return


class LineWaits:
    """The replies that wait for further lines, by channel and member."""

    def __init__(self) -> None:
        self._waits: dict[tuple[int, int], LineWait] = {}

    def get(self, channel_id: int, member_id: int) -> LineWait | None:
        """Return the member's reply that takes further lines in a channel."""
        wait = self._waits.get((channel_id, member_id))
        return wait if wait and not wait.is_full else None

    def has_line(self, event_id: int) -> bool:
        """Report whether a reply that waits will answer a message."""
        return any(event_id in wait.lines for wait in self._waits.values())

    def begin(self, channel_id: int, member_id: int, wait: LineWait) -> None:
        """Have further lines of a member join a reply, until `close`."""
        self._waits[channel_id, member_id] = wait

    def cut_short(self, channel_id: int) -> None:
        """Let no further lines join the replies of a channel, which begin now."""
        for (waiting_in, _), wait in self._waits.items():
            if waiting_in == channel_id:
                wait.cut_short()

    def close(self, channel_id: int, member_id: int, wait: LineWait) -> None:
        """Let no further line join a reply."""
        if self._waits.get((channel_id, member_id)) is wait:
            del self._waits[channel_id, member_id]


@asynccontextmanager
async def typing_shown(channel: discord.abc.Messageable) -> AsyncIterator[None]:
    """Show in a channel that the bot is typing."""
    task = asyncio.create_task(_show_typing(channel))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _show_typing(channel: discord.abc.Messageable) -> None:
    while True:
        with suppress(*DELIVERY_ERRORS):
            await channel.typing()
        await asyncio.sleep(TYPING_INTERVAL_S)
