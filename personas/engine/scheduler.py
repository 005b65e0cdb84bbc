"""Fair scheduling: chooses the sequences that run and the tokens that each step computes. Imports
no model library.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Generic, Literal

from personas.engine.admission import AdapterState, QueuedT, SchedulerLimits
from personas.errors import EngineBusyError

if TYPE_CHECKING:  # these import torch
    from personas.engine.lora_slots import LoraSlots
    from personas.engine.model_runner import ModelRunner, ScheduledTokens, Sequence
    from personas.engine.sampler import SampledToken

log = logging.getLogger(__name__)
NEW_TOKEN_COST_IN_PROMPT_TOKENS = 2
"""Weight of a generated token in a guild's service; prompt tokens are cheaper because they are
computed together.
"""
# Sequences that may overtake one that waits for a LoRA slot; after that, none starts before it.
MAX_OVERTAKEN = 8
Phase = Literal["prefill", "decode"]


@dataclass(frozen=True)
class ScheduledBatch:
    """Sequences of one forward pass, and the tokens that each of them contributes."""

    runner: ModelRunner
    sequences: list[Sequence]
    tokens: list[ScheduledTokens]

    @property
    def sampled(self) -> list[Sequence]:
        """The sequences that get a new token: all but those with prompt tokens left."""
        return [
            seq for seq, tokens in zip(self.sequences, self.tokens, strict=True) if tokens.logits
        ]

    def split(self) -> list[ScheduledBatch]:
        """Return a batch of its own for each sequence."""
        pairs = zip(self.sequences, self.tokens, strict=True)
        return [ScheduledBatch(self.runner, [seq], [tokens]) for seq, tokens in pairs]


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
            least = min((self.served[it] for it in self.requests), default=None)
            self.served = {
                it: tokens
                for it, tokens in self.served.items()
                if it in self.requests or (least is not None and tokens > least)
            }
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
    other members, of which `running` sequences of its own member run.
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
        guilds = (guild for guild in self._guilds.values() if guild.waiting)
        return [guild.waiting[self._members(guild)[0]][0] for guild in guilds]

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
        return self._counters.served[seq.guild_id], self._guilds[seq.guild_id].counters.served[
            seq.member_id
        ]

    def running_of_member(self, seq: QueuedT) -> int:
        """Count the running sequences of a waiting one's member."""
        return self._guilds[seq.guild_id].running[seq.member_id]

    def add(self, seq: QueuedT, *, first: bool = False) -> None:
        """Queue a sequence, behind its member's others unless `first`."""
        self._counters.enter(seq.guild_id)
        guild = self._guilds.setdefault(seq.guild_id, GuildQueue())
        guild.counters.enter(seq.member_id)
        of_member = guild.waiting.setdefault(seq.member_id, [])
        of_member.insert(0 if first else len(of_member), seq)
        self._length += 1

    def remove(self, seq: QueuedT) -> None:
        self._take(seq)
        self._leave(seq)

    def start(self, seq: QueuedT) -> None:
        """Move a sequence from waiting to running; its prompt counts as served."""
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
        waiting = {
            guild_id: guild.waiting for guild_id, guild in self._guilds.items() if guild.waiting
        }
        served = self._counters.served
        return sorted(
            waiting,
            key=lambda it: (served[it], min(of[0].queued_at for of in waiting[it].values())),
        )

    def _members(self, guild: GuildQueue[QueuedT]) -> list[int]:
        """Order the guild's members with waiting sequences, the next one first."""

        def order(member_id: int) -> tuple[bool, float, float]:
            head = guild.waiting[member_id][0]
            is_due = self._is_due(head, guild.running[member_id])
            return not is_due, 0.0 if is_due else guild.counters.served[member_id], head.queued_at

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


class FairScheduler(ABC, Generic[QueuedT]):
    """Owns the waiting and running sequences: starts them in fair order and ends them. Used by one
    thread.

    Subclasses know what a sequence needs to run.
    """

    def __init__(
        self, limits: SchedulerLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.queue: FairQueue[QueuedT] = FairQueue(self._is_due)
        self.running: list[QueuedT] = []

    @property
    def max_overtaken(self) -> int:
        """Number of sequences that may overtake one that waits for a LoRA slot; after that, none
        starts before it.
        """
        return MAX_OVERTAKEN

    @abstractmethod
    def _state(self, seq: QueuedT) -> AdapterState:
        """Answer whether a sequence can start. Changes nothing."""

    @abstractmethod
    def _acquire(self, seq: QueuedT) -> None:
        """Give a sequence all that it needs to run, and start it; or raise, and give it nothing."""

    @abstractmethod
    def _release(self, seq: QueuedT) -> None:
        """Take back what a sequence was given."""

    def add(self, seq: QueuedT) -> None:
        seq.queued_at = self.clock()
        self.queue.add(seq)

    def requeue(self, seq: QueuedT, queued_at: float) -> None:
        """Return a running sequence to the queue, before its guild's others: it lost what it ran
        on.
        """
        self._leave(seq)
        seq.queued_at = queued_at
        self.queue.add(seq, first=True)

    def admit(self) -> None:
        """Start waiting sequences as long as there are rows and LoRA slots for them."""
        while self.queue and len(self.running) < self.limits.max_rows:
            seq, overtaken = self._select_next()
            if seq is None:
                return
            self._start(seq, overtaken)

    def _select_next(self) -> tuple[QueuedT | None, list[QueuedT]]:
        """Find the next sequence to start, or to fail with its adapter, and those before it that
        wait for a slot.
        """
        overtaken: list[QueuedT] = []
        share = max(1, self.limits.rows // max(1, self.queue.guilds))
        crowded = self._crowded_guilds()
        due = self._due()
        for seq in [*due, *(seq for seq in self.queue if seq not in due)] if due else self.queue:
            if seq.guild_id in crowded or (seq not in due and not self._has_row(seq, share)):
                continue
            state = self._state(seq)
            if state in (AdapterState.READY, AdapterState.FAILED):
                return seq, overtaken
            if state is AdapterState.NO_SLOT:
                if seq.overtaken >= self.max_overtaken:
                    break
                overtaken.append(seq)
        return None, []

    def _crowded_guilds(self) -> Collection[int]:
        """List the guilds whose next sequences stay in the queue, where they can still be overtaken
        by others.
        """
        return ()

    def _due(self) -> list[QueuedT]:
        """List the guilds' first sequences that precede all others, the next one first, and may use
        overflow rows.
        """
        due = [
            seq for seq in self.queue.heads if self._is_due(seq, self.queue.running(seq.guild_id))
        ]
        return sorted(due, key=lambda seq: seq.queued_at)

    def _is_due(self, seq: QueuedT, running: int) -> bool:
        """Return whether a sequence has waited too long; `running` are those of its guild, or of
        its member.

        Fairness alone would let one who was served wait for all who come for the first time. So a
        sequence is due once it has waited half as long as it may if none of them is running, and
        after three quarters if one is.
        """
        return running <= 4 * (self.clock() - seq.queued_at) / self.limits.wait_s - 2

    def _has_row(self, seq: QueuedT, share: int) -> bool:
        """Return whether a sequence may start; `share` is each guild's share of the rows.

        Once all rows are taken, a guild below its share may use overflow rows; its n-th sequence
        needs n free ones, so the last is left to guilds that have none. Beyond its share, a guild
        may use half of them, at most a quarter of the rows, for members with fewer sequences than
        its members run on average; as many are left to guilds below theirs. Sequences that start
        together end together: without overflow rows a new guild or member might wait for a whole
        reply.
        """
        if len(self.running) < self.limits.rows:
            return True
        free = self.limits.max_rows - len(self.running)
        of_guild = self.queue.running(seq.guild_id)
        of_member = self.queue.running_of_member(seq)
        if of_guild < share:
            return of_guild < free
        for_members = min(self.limits.overflow_rows // 2, max(1, self.limits.rows // 4))
        is_light = of_member * self.queue.members(seq.guild_id) < of_guild
        return is_light and of_guild < share + for_members and of_member < free - for_members

    def _start(self, seq: QueuedT, overtaken: list[QueuedT]) -> None:
        try:
            if not seq.begin():
                self._discard(seq)
                return
            self._acquire(seq)
        except (
            Exception
        ) as error:  # of its adapter, or memory for its keys and values: it fails alone
            self.fail_waiting(seq, error)
            return
        for other in overtaken:
            other.overtaken += 1
        self.queue.start(seq)
        self.running.append(seq)

    def expire(self) -> None:
        """End sequences that were cancelled or ran too long, and fail those that waited too
        long.
        """
        now = self.clock()
        for seq in list(self.running):
            if seq.is_finished or now - seq.started_at > self.limits.reply_s:
                self.finish(seq)
        for seq in list(self.queue):
            if seq.is_cancelled:
                self._discard(seq)
            elif now - seq.queued_at > self.limits.wait_s:
                what = f"The request waited {self.limits.wait_s:.0f} s without being started."
                self.fail_waiting(seq, EngineBusyError(what, "Ask again later."))

    def finish(self, seq: QueuedT) -> None:
        run_or_log(partial(self._leave, seq))
        run_or_log(seq.finish)

    def fail(self, seq: QueuedT, error: Exception) -> None:
        run_or_log(partial(self._leave, seq))
        run_or_log(partial(seq.fail, error))

    def fail_all(self, error: Exception) -> None:
        for seq in list(self.running):
            self.fail(seq, error)
        for seq in list(self.queue):
            self.fail_waiting(seq, error)

    def fail_waiting(self, seq: QueuedT, error: Exception) -> None:
        """Fail a sequence of the queue."""
        self.queue.remove(seq)
        run_or_log(partial(seq.fail, error))

    def _discard(self, seq: QueuedT) -> None:
        self.queue.remove(seq)
        run_or_log(seq.discard)

    def _leave(self, seq: QueuedT) -> None:
        self.running.remove(seq)
        self.queue.end(seq)
        self._release(seq)


class Scheduler(FairScheduler["Sequence"]):
    """Pins and unpins the LoRA slots of its sequences. Used by the engine's thread."""

    def __init__(
        self,
        limits: SchedulerLimits,
        lora: LoraSlots,
        runner: ModelRunner,
        fallback: ModelRunner,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fallback` computes sequences whose adapters fit into no slot, one at a time."""
        super().__init__(limits, clock)
        self._lora = lora
        self._runner = runner
        self._fallback = fallback

    def transfer_queue(self, other: Scheduler) -> None:
        for seq in list(self.queue):
            self.queue.remove(seq)
            other.queue.add(seq)

    def schedule(self, phase: Phase) -> list[ScheduledBatch]:
        """Choose the tokens to compute: chunks of unfinished prompts, or the last token of every
        decoding sequence.

        Sequences with a stacked adapter or none share one batch; each of the others is a batch of
        its own.
        """
        chosen = self._prompt_chunks() if phase == "prefill" else self._last_tokens()
        together = [(seq, tokens) for seq, tokens in chosen if seq.runner is self._runner]
        alone = [[(seq, tokens)] for seq, tokens in chosen if seq.runner is not self._runner]
        groups = [group for group in (together, *alone) if group]
        return [
            ScheduledBatch(
                group[0][0].runner, [seq for seq, _ in group], [tokens for _, tokens in group]
            )
            for group in groups
        ]

    @property
    def _prefill_budget(self) -> int:
        """Prompt tokens that a step may compute."""
        if all(seq.is_prefilling for seq in self.running):
            return self.limits.solo_prefill_tokens
        is_busy = len(self.running) >= self.limits.rows / 2
        return self.limits.busy_prefill_tokens if is_busy else self.limits.prefill_tokens

    def _crowded_guilds(self) -> Collection[int]:
        """List the guilds with unfinished prompts once these take a whole step.

        What starts too early holds a row and makes no tokens while prompts of members who were
        served less come first.
        """
        prompts = self._unfinished_prompts
        is_full = sum(seq.prompt_tokens_left for seq in prompts) >= self._prefill_budget
        return {seq.guild_id for seq in prompts} if is_full else ()

    @property
    def _unfinished_prompts(self) -> list[Sequence]:
        return [seq for seq in self._computing() if seq.is_prefilling]

    def _prompts_by_service(self) -> list[Sequence]:
        """Order unfinished prompts like the queue: of the guild served least first, in it of the
        member served least.

        Tokens that are still to be computed are no service yet, though the queue has counted them.
        """
        left = Counter[int | tuple[int, int]]()
        for seq in self._unfinished_prompts:
            left[seq.guild_id] += seq.prompt_tokens_left
            left[seq.guild_id, seq.member_id] += seq.prompt_tokens_left

        def order(seq: Sequence) -> tuple[float, float]:
            of_guild, of_member = self.queue.service(seq)
            return of_guild - left[seq.guild_id], of_member - left[seq.guild_id, seq.member_id]

        return sorted(self._unfinished_prompts, key=order)

    def _prompt_chunks(self) -> list[tuple[Sequence, ScheduledTokens]]:
        """Choose chunks of unfinished prompts: the first of them whole, however busy, up to a lone
        prompt's size.
        """
        prompts = self._prompts_by_service()
        chosen = []
        first = prompts[0].prompt_tokens_left if prompts else 0
        budget = max(self._prefill_budget, min(first, self.limits.solo_prefill_tokens))
        for seq in prompts:
            scheduled = self._next_tokens(seq, budget)
            if scheduled and scheduled.tokens:
                chosen.append((seq, scheduled))
                budget -= len(scheduled.tokens)
        return chosen

    def _last_tokens(self) -> list[tuple[Sequence, ScheduledTokens]]:
        decoding = [seq for seq in self._computing() if not seq.is_prefilling]
        scheduled = [(seq, self._next_tokens(seq, 1)) for seq in decoding]
        return [(seq, tokens) for seq, tokens in scheduled if tokens]

    def _computing(self) -> list[Sequence]:
        return [seq for running in self.running for seq in running.unfinished]

    def _next_tokens(self, seq: Sequence, limit: int) -> ScheduledTokens | None:
        try:
            return seq.next_tokens(limit)
        except Exception as error:  # of this sequence: the others go on
            self.fail(seq.original or seq, error)
            return None

    def _state(self, seq: Sequence) -> AdapterState:
        return self._lora.state(seq.adapter)

    def _acquire(self, seq: Sequence) -> None:
        """Give a sequence its LoRA slot and its KV cache, or neither."""
        slot = self._lora.acquire(seq.adapter)
        try:
            seq.start(slot, self._fallback if slot.index is None else self._runner, self.clock())
        except Exception:
            self._lora.release(slot)
            raise
        run_or_log(seq.load_prefix)  # without it, the whole prompt is computed

    def _release(self, seq: Sequence) -> None:
        self._lora.release(seq.slot)

    def postprocess(self, sampled: list[tuple[Sequence, SampledToken | Exception]]) -> None:
        """Append the sampled tokens, stream their text, and end the sequences that are finished or
        failed.
        """
        for seq, token in sampled:
            try:
                if isinstance(token, Exception):
                    raise token
                if seq.is_prefilling:
                    run_or_log(seq.store_prefix)
                seq.append(token)
            except Exception as error:  # of this sequence: the others go on
                self.fail(seq, error)
                continue
            self.queue.count_token(seq)
            if seq.is_finished:
                self.finish(seq)

    def finish(self, seq: Sequence) -> None:
        run_or_log(seq.store_prefix)
        super().finish(seq)


def run_or_log(action: Callable[[], None]) -> None:
    """Run what belongs to one request; its error is logged and must not reach the others."""
    try:
        action()
    except Exception:
        log.exception("a step of one request failed; the others go on")
