"""The queue of waiting sequences, fair to guilds and to the members of each guild."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

NEW_TOKEN_COST_IN_PROMPT_TOKENS = 2
"""Weight of a generated token in a guild's service; prompt tokens are cheaper because they are
computed together.
"""


class QueuedSequence(Protocol):
    """A sequence as a `FairScheduler` sees it. `overtaken` counts the sequences that started before
    it.
    """

    prompt: tuple[int, ...]
    queued_at: float
    started_at: float
    overtaken: int

    @property
    def guild_id(self) -> int: ...

    @property
    def member_id(self) -> int: ...

    @property
    def is_cancelled(self) -> bool: ...

    @property
    def is_finished(self) -> bool: ...

    def begin(self) -> bool:
        """Mark the sequence as started. Returns False when it was cancelled before."""

    def finish(self) -> None:
        """Deliver the reply."""

    def fail(self, error: Exception) -> None:
        """Deliver an error."""

    def discard(self) -> None:
        """End a sequence that was cancelled before it started."""


QueuedT = TypeVar("QueuedT", bound=QueuedSequence)


class TokenCounters:
    """The tokens that each key was served, a guild or a member (virtual token counter, OSDI 2024).

    A key without requests that returns counts as served as much as the least served one with
    requests, or more.
    """

    def __init__(self) -> None:
        self.served: dict[int, float] = {}
        self.requests: Counter[int] = Counter()

    def enter(self, key: int) -> None:
        """Count a new request."""
        if not self.requests[key]:
            least = min((self.served[other] for other in self.requests), default=None)
            # Forget keys without requests that would begin at the least anyway.
            for other, tokens in list(self.served.items()):
                if other not in self.requests and (least is None or tokens <= least):
                    del self.served[other]
            # From the least on: from 0, a newcomer would come before all others for long.
            self.served[key] = max(self.served.get(key, 0.0), least or 0.0)
        self.requests[key] += 1

    def leave(self, key: int) -> None:
        """Count the end of a request."""
        self.requests[key] -= 1
        if not self.requests[key]:
            del self.requests[key]


@dataclass
class GuildQueue(Generic[QueuedT]):
    """The waiting sequences of one guild by member, and its members' tokens and running
    sequences.
    """

    waiting: dict[int, list[QueuedT]] = field(default_factory=dict)
    counters: TokenCounters = field(default_factory=TokenCounters)
    running: Counter[int] = field(default_factory=Counter)


class FairQueue(Generic[QueuedT]):
    """The waiting sequences, ordered by how little their guilds were served, and in each guild
    their members.

    `is_due(seq, running)` tells whether a sequence has waited so long that it precedes the guild's
    other members. `running`: sequences that its member has running.
    """

    def __init__(self, is_due: Callable[[QueuedT, int], bool] = lambda seq, running: False) -> None:
        self._is_due = is_due
        self._guilds: dict[int, GuildQueue[QueuedT]] = {}
        self._counters = TokenCounters()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[QueuedT]:
        """Yield the next sequence first: the guild served least, in it the member served least,
        then by arrival.
        """
        for guild_id in self._by_service():
            for member_id in self._members(self._guilds[guild_id]):
                yield from self._guilds[guild_id].waiting[member_id]

    @property
    def heads(self) -> list[QueuedT]:
        """The first waiting sequence of each guild."""
        heads = []
        for guild in self._guilds.values():
            if guild.waiting:
                next_member = self._members(guild)[0]
                heads.append(guild.waiting[next_member][0])
        return heads

    @property
    def guilds(self) -> int:
        """Number of guilds with waiting or running sequences."""
        return len(self._guilds)

    def members(self, guild_id: int) -> int:
        """Count the guild's members with waiting or running sequences."""
        return len(self._guilds[guild_id].counters.requests)

    def running(self, guild_id: int) -> int:
        return self._guilds[guild_id].running.total()

    def service(self, seq: QueuedT) -> tuple[float, float]:
        """Return the tokens that a sequence's guild and member were served."""
        members = self._guilds[seq.guild_id].counters
        return self._counters.served[seq.guild_id], members.served[seq.member_id]

    def running_of_member(self, seq: QueuedT) -> int:
        """Count the running sequences of a waiting one's member."""
        return self._guilds[seq.guild_id].running[seq.member_id]

    def add(self, seq: QueuedT, *, first: bool = False) -> None:
        """Queue a sequence, behind its member's others unless `first`."""
        self._counters.enter(seq.guild_id)
        guild = self._guilds.setdefault(seq.guild_id, GuildQueue())
        guild.counters.enter(seq.member_id)
        member_queue = guild.waiting.setdefault(seq.member_id, [])
        if first:
            member_queue.insert(0, seq)
        else:
            member_queue.append(seq)
        self._length += 1

    def remove(self, seq: QueuedT) -> None:
        self._take(seq)
        self._leave(seq)

    def start(self, seq: QueuedT) -> None:
        """Move a sequence from waiting to running; its prompt counts as served."""
        # At once: several sequences are started before a token of their prompts is computed.
        self._take(seq)
        self._guilds[seq.guild_id].running[seq.member_id] += 1
        self._count(seq, len(seq.prompt))

    def count_token(self, seq: QueuedT) -> None:
        self._count(seq, NEW_TOKEN_COST_IN_PROMPT_TOKENS)

    def end(self, seq: QueuedT) -> None:
        running = self._guilds[seq.guild_id].running
        running[seq.member_id] -= 1
        if not running[seq.member_id]:
            del running[seq.member_id]
        self._leave(seq)

    def _by_service(self) -> list[int]:
        """Order the guilds with waiting sequences: the least served first, then by arrival."""

        def order(guild_id: int) -> tuple[float, float]:
            queues = self._guilds[guild_id].waiting.values()
            return self._counters.served[guild_id], min(queue[0].queued_at for queue in queues)

        waiting = [guild_id for guild_id, guild in self._guilds.items() if guild.waiting]
        return sorted(waiting, key=order)

    def _members(self, guild: GuildQueue[QueuedT]) -> list[int]:
        """Order the guild's members with waiting sequences, the next one first."""

        def order(member_id: int) -> tuple[bool, float, float]:
            head = guild.waiting[member_id][0]
            if self._is_due(head, guild.running[member_id]):
                return False, 0.0, head.queued_at
            return True, guild.counters.served[member_id], head.queued_at

        return sorted(guild.waiting, key=order)

    def _count(self, seq: QueuedT, tokens: float) -> None:
        self._counters.served[seq.guild_id] += tokens
        self._guilds[seq.guild_id].counters.served[seq.member_id] += tokens

    def _take(self, seq: QueuedT) -> None:
        waiting = self._guilds[seq.guild_id].waiting
        waiting[seq.member_id].remove(seq)
        if not waiting[seq.member_id]:
            del waiting[seq.member_id]
        self._length -= 1

    def _leave(self, seq: QueuedT) -> None:
        guild = self._guilds[seq.guild_id]
        self._counters.leave(seq.guild_id)
        guild.counters.leave(seq.member_id)
        if not guild.counters.requests:
            del self._guilds[seq.guild_id]
