"""Counts the replies that this process makes, and limits them by member and channel."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from personas.engine.admission import member_busy_error
from personas.errors import EngineBusyError

MAX_REPLIES_TO_MEMBER = 8
MAX_REPLIES_IN_CHANNEL = 32
"""Replies that may be unfinished at once. Discord shows some 30 messages of a webhook a minute."""
REPLY_WAIT_S = 5.0
"""Wait that a refused member is told."""
END_WAIT_S = 10.0
"""Longest wait for a cancelled reply, whose last request to Discord may be under way."""
QUEUE_WAIT_S = 120.0
"""Longest wait for all replies: as long as a full queue takes."""
END_POLL_S = 0.05
EDITS_PER_S = 2.0
"""Edits of a webhook's messages; Discord allows five requests in two seconds."""


@dataclass
class UnfinishedReplies:
    """The replies that are being made, or wait for Discord, by event, member and channel."""

    _counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    _accepted: set[int] = field(default_factory=set)

    def holds(self, event_id: int) -> bool:
        """Report whether the reply to this event is being made, or about to be."""
        return event_id in self._accepted or self._counts["event", event_id] > 0

    def note_accepted(self, event_id: int) -> None:
        """Note that a reply was stored that this process will make: until `counting` begins, a
        notice may be sent first, or its event be held. A new connection must not make it, too.
        """
        self._accepted.add(event_id)

    async def wait_for_all(self) -> None:
        """Wait for the end of all replies that are being made now, at most `QUEUE_WAIT_S`."""
        await self._wait([number for kind, number in self._counts if kind == "event"], QUEUE_WAIT_S)

    async def wait_for_end(self, event_id: int) -> None:
        """Wait for the end of the reply to this event, at most `END_WAIT_S`."""
        await self._wait([event_id], END_WAIT_S)

    async def _wait(self, events: Sequence[int], most_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while any(map(self.holds, events)):  # noqa: ASYNC110  they end in many ways
                    await asyncio.sleep(END_POLL_S)

    def require_place(self, member_id: int, channel_id: int, replies: int = 1) -> None:
        """Refuse replies where too many are unfinished. Raises `EngineBusyError`."""
        if self._counts["member", member_id] + replies > MAX_REPLIES_TO_MEMBER:
            raise member_busy_error(MAX_REPLIES_TO_MEMBER, REPLY_WAIT_S)
        if self._counts["channel", channel_id] + replies > MAX_REPLIES_IN_CHANNEL:
            what = (
                f"{MAX_REPLIES_IN_CHANNEL} replies in this channel are unfinished, as many as it "
                "may have."
            )
            raise EngineBusyError(what, "Try again in a minute.", REPLY_WAIT_S)

    def edit_stretch_s(self, channel_id: int) -> float:
        """Return by how many seconds edits are postponed, so that all replies of a channel keep to
        its webhook's limit together.
        """
        return max(0.0, self._counts["channel", channel_id] / EDITS_PER_S - 1.0)

    @contextmanager
    def counting(self, event_id: int, **owners: int) -> Iterator[None]:
        """Count a reply inside the block; `owners` are its member and channel."""
        self._accepted.discard(event_id)
        keys = Counter([("event", event_id), *owners.items()])
        self._counts += keys
        try:
            yield
        finally:
            self._counts -= keys
