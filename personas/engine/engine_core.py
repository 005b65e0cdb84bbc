"""The engine's inner loop: schedule, run the model, hand out tokens; built around a loaded model."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from personas.engine.hugepages import move_weights_to_huge_pages
from personas.engine.lora_slots import MAX_STACKED_RANK, AdapterWeights, LoraSlot, LoraSlots, read_adapter
from personas.engine.metrics import EngineState
from personas.engine.model_runner import ModelRunner, ScheduledTokens, StackedLoraRunner
from personas.engine.peft_runner import PeftRunner, PeftSwitcher
from personas.engine.prefix_warmup import PrefixWarmer
from personas.engine.sampler import sample_token
from personas.engine.scheduler import QueuedRequest, Scheduler
from personas.engine.sequence import EngineRequest, RunningSequence
from personas.errors import AdapterError, EngineBusyError
from personas.models.serving_model import precision_of
from personas.schemas.chat import AdapterRef

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SchedulerLimits:
    """`rows` replies are made at once, and up to `newcomers` more for servers that have fewer than their share of the
    rows. Prompts are computed in pieces of `piece_tokens`, or `lone_piece_tokens` while nobody is kept waiting by that.
    A request waits at most `wait_s`; a reply ends after `reply_s` with what there is.
    """

    rows: int = 32
    overflow_rows: int = 16
    prefill_tokens: int = 256
    solo_prefill_tokens: int = 512
    wait_s: float = 120.0
    reply_s: float = 300.0


class BatchGenerator:
    """The rows and those who wait. Used by one thread."""

    def __init__(
        self,
        decoder: ModelRunner,
        plain: ModelRunner,
        seats: LoraSlots,
        limits: SchedulerLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`plain` computes the rows whose adapters have no slot, one after the other."""
        self._decoder, self._plain = decoder, plain
        self._seats, self._limits, self._clock = seats, limits, clock
        self._waiting: Scheduler[EngineRequest] = Scheduler()
        self._rows: list[RunningSequence] = []
        self._seat: LoraSlot | None = None
        self._ahead = PrefixWarmer(decoder, seats, limits.prefill_tokens)

    def add(self, job: EngineRequest) -> None:
        """Have a job wait for its turn."""
        self._waiting.add(QueuedRequest(job.request.guild_id, len(job.prompt), self._clock(), job))

    def prepare(self, adapter: AdapterRef | None, tokens: Sequence[int]) -> None:
        """Compute what later prompts under an adapter begin with, once there is nothing else to do."""
        self._ahead.add(adapter, tokens)

    @property
    def running(self) -> int:
        """How many replies are being made."""
        return len(self._rows)

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._waiting)

    def step(self) -> bool:
        """One step; False when nothing could be computed: nobody waits, or all wait for adapters to be read.

        While nobody does, a piece of what was to be prepared is computed.
        """
        self._drop()
        self._admit()
        computed = bool(self._rows)
        self._compute_prompts()
        self._compute_next()
        return computed or (not self.waiting and self._ahead.step())

    def clear_prefix_cache(self) -> None:
        """Let go of what is kept of prompts and replies; what is being made now is not kept either."""
        self._ahead.clear()
        for decoder in (self._decoder, self._plain):
            if decoder.prefixes:
                decoder.prefixes.clear()
        for row in self._rows:
            row.is_cacheable = False

    def transfer_queue(self, other: BatchGenerator) -> None:
        """Have those who wait begin in another batch."""
        for ticket in list(self._waiting.in_order()):
            self._waiting.remove(ticket)
            other._waiting.add(ticket)

    def fail(self, error: Exception) -> None:
        """End everything with an error."""
        for row in list(self._rows):
            self._fail_row(row, error)
        for ticket in list(self._waiting.in_order()):
            self._fail_ticket(ticket, error)

    # ---------------------------------------------------------------------------------------- leaving

    def _drop(self) -> None:
        now = self._clock()
        for row in list(self._rows):
            if row.ended or now - row.began > self._limits.reply_s:
                self._end(row)
        for ticket in list(self._waiting.in_order()):
            if ticket.item.listener.cancelled.is_set():
                self._waiting.remove(ticket)
                ticket.item.ended()
            elif now - ticket.since > self._limits.wait_s:
                waited = f"After {self._limits.wait_s:.0f} s its turn had not come."
                self._fail_ticket(ticket, EngineBusyError(waited, "Ask again later."))

    def _end(self, row: RunningSequence) -> None:
        self._leave(row)
        self._keep(row)
        row.job.listener.finish(row.reply())
        row.job.ended()

    def _fail_row(self, row: RunningSequence, error: Exception) -> None:
        self._leave(row)
        row.job.listener.push(error)
        row.job.ended()

    def _keep(self, row: RunningSequence) -> None:
        if row.is_cacheable and row.decoder.prefixes:
            row.decoder.prefixes.keep(row.seat.name, row.cache)

    def _leave(self, row: RunningSequence) -> None:
        self._rows.remove(row)
        self._waiting.end(row.job.request.guild_id)
        self._seats.give_back(row.seat)

    def _fail_ticket(self, ticket: QueuedRequest[EngineRequest], error: Exception) -> None:
        self._waiting.remove(ticket)
        if ticket.item.listener.begin():
            ticket.item.listener.push(error)
        ticket.item.ended()

    # ---------------------------------------------------------------------------------------- joining

    def _admit(self) -> None:
        most = self._limits.rows + self._limits.overflow_rows
        while len(self._rows) < most and (ticket := self._waiting.next(self._can_begin)):
            seat = self._seat
            assert seat is not None  # `_can_begin` took it
            if ticket.item.listener.begin():
                decoder = self._plain if seat.slot is None else self._decoder
                self._rows.append(RunningSequence(ticket.item, seat, decoder, self._clock()))
            else:
                self._seats.give_back(seat)
                self._waiting.end(ticket.guild_id)
                ticket.item.ended()
        waiting = [ref for ticket in self._waiting.in_order() if (ref := _adapter_of(ticket))]
        self._seats.prefetch([*waiting, *self._ahead.adapters])

    def _can_begin(self, ticket: QueuedRequest[EngineRequest]) -> bool | None:
        ref = _adapter_of(ticket)
        if len(self._rows) >= self._limits.rows and not self._may_overflow(ticket.guild_id):
            return None
        try:
            self._seat = self._seats.take(ref)
        except AdapterError as error:
            self._fail_ticket(ticket, error)
            return None
        if self._seat is None and ref and not self._seats.is_read(ref):
            return None
        return self._seat is not None

    def _may_overflow(self, guild_id: int) -> bool:
        """Whether a server gets a further row although all are taken: below its share, and leaving some to others.

        Rows that were begun together end together, so who only waited for the next that ends might wait for a whole
        reply. The n-th row of a server needs n of the further ones free: one that has none yet can take the last.
        """
        running = self._waiting.running(guild_id)
        share = max(1, self._limits.rows // self._waiting.guilds)
        return running < share and len(self._rows) + running < self._limits.rows + self._limits.overflow_rows

    # ---------------------------------------------------------------------------------------- computing

    def _compute_prompts(self) -> None:
        others = any(row.last is not None for row in self._rows)
        room = self._limits.prefill_tokens if others else self._limits.solo_prefill_tokens
        parts: list[tuple[RunningSequence, Sequence[int]]] = []
        for row in _round_robin_by_guild(row for row in self._rows if row.last is None):
            if not row.cache.tokens and row.decoder.prefixes:
                row.decoder.prefixes.take_over(row.seat.name, row.job.prompt, row.cache)
            if part := row.prompt_part(room):
                parts.append((row, part))
                room -= len(part)
        self._compute(parts)

    def _compute_next(self) -> None:
        self._compute([(row, (row.last,)) for row in self._rows if row.last is not None])

    def _compute(self, parts: Iterable[tuple[RunningSequence, Sequence[int]]]) -> None:
        """Compute tokens of rows; those whose prompt is complete get their next token."""
        parts = list(parts)
        together = [part for part in parts if part[0].decoder is self._decoder]
        alone = [[part] for part in parts if part[0].decoder is not self._decoder]
        for group in filter(None, [together, *alone]):
            try:
                self._advance(group)
            except Exception as error:  # told to those it concerns; the others go on
                log.debug("a batch failed", exc_info=True)
                for row, _ in group:
                    self._fail_row(row, error)

    def _advance(self, parts: Sequence[tuple[RunningSequence, Sequence[int]]]) -> None:
        spans = [
            ScheduledTokens(
                row.cache, tokens, row.seat, wanted=len(row.cache.tokens) + len(tokens) >= len(row.job.prompt)
            )
            for row, tokens in parts
        ]
        logits = parts[0][0].decoder.forward(spans)
        rows = [row for (row, _), span in zip(parts, spans, strict=True) if span.wanted]
        if not rows:
            return
        for row, numbers, best in zip(rows, logits, logits.argmax(-1).tolist(), strict=True):
            try:
                drawn = sample_token(numbers, best, row.draws)
            except Exception as error:  # of its own settings: the others go on
                self._fail_row(row, error)
                continue
            if row.last is None:
                self._keep(row)
            row.take(drawn)
            self._waiting.serve(row.job.request.guild_id, new_tokens=1)
            if row.ended:
                self._end(row)


def _round_robin_by_guild(rows: Iterable[RunningSequence]) -> list[RunningSequence]:
    """Rows in their order, but no guild's second before every guild's first."""
    before: Counter[int] = Counter()
    turns: list[tuple[int, RunningSequence]] = []
    for row in rows:
        guild_id = row.job.request.guild_id
        turns.append((before[guild_id], row))
        before[guild_id] += 1
    return [row for _, row in sorted(turns, key=lambda turn: turn[0])]


def _adapter_of(ticket: QueuedRequest[EngineRequest]) -> AdapterRef | None:
    return ticket.item.request.adapter


STACKED_ARCHITECTURES = frozenset({"llama", "mistral", "qwen2", "qwen3"})


"""Architectures whose linear layers each see every token once and whose attention is the usual one."""


SLOT_MEMORY_FRACTION = 0.2


"""What all slots together may take of the memory that is free, with adapters of the largest rank on all layers."""


@dataclass(frozen=True)
class EngineParts:
    """`read` verifies and reads an adapter, on any thread; the others belong to the thread that owns the model."""

    batch: BatchGenerator
    stacked: StackedLoraRunner | None
    seats: LoraSlots
    adapted: PeftSwitcher
    read: Callable[[AdapterRef], AdapterWeights]

    def state(self, name: str, context_tokens: int, rows: int) -> EngineState:
        """How it stands. May be asked from any thread."""
        prefixes = self.stacked.prefixes if self.stacked else None
        return EngineState(
            model=name,
            device=self.adapted.model.device.type,
            precision=precision_of(self.adapted.model),
            context_tokens=context_tokens,
            running=self.batch.running,
            rows=rows,
            waiting=self.batch.waiting,
            slots=self.stacked.slots if self.stacked else 0,
            adapters=self.seats.held,
            kept_bytes=prefixes.bytes if prefixes else 0,
            kept_most_bytes=prefixes.max_bytes if prefixes else 0,
        )

    def close(self) -> None:
        """Let go of threads."""
        self.seats.close()
        if self.stacked:
            self.stacked.close()

    def hold(self, weights: AdapterWeights) -> None:
        """Have an adapter here before it is needed, if there is room. Raises `AdapterError` when it does not fit."""
        if weights.pairs is None:
            self.adapted.load(weights.ref)
        self.seats.hold(weights)


def build_engine_parts(
    model: Any, base_hash: str, limits: SchedulerLimits, *, slots: int, prefix_bytes: int, heard: Callable[[], None]
) -> EngineParts:
    """Put an engine together. `heard` is called, on another thread, when an adapter has been read."""
    adapted = PeftSwitcher(model, base_hash)
    plain = PeftRunner(adapted)
    stacked = _build_stacked_runner(model, adapted, slots, prefix_bytes)

    def read(ref: AdapterRef) -> AdapterWeights:
        return read_adapter(ref, base_hash, stacked.linears if stacked else {})

    def put(slot: int, weights: AdapterWeights) -> None:
        assert stacked is not None  # else no adapter has pairs to be put anywhere
        stacked.stack.put(slot, weights)

    def forget(ref: AdapterRef) -> None:
        adapted.drop(ref)
        if stacked and stacked.prefixes:
            stacked.prefixes.forget(ref.name)

    seats = LoraSlots(stacked.slots if stacked else 0, read, put, forget, heard)
    decoder: ModelRunner = stacked or plain
    return EngineParts(BatchGenerator(decoder, plain, seats, limits), stacked, seats, adapted, read)


def _build_stacked_runner(model: Any, adapted: PeftSwitcher, slots: int, prefix_bytes: int) -> StackedLoraRunner | None:
    if model.config.model_type not in STACKED_ARCHITECTURES:
        log.warning("replies of this architecture (%s) are made one after the other", model.config.model_type)
        return None
    move_weights_to_huge_pages(model)
    return StackedLoraRunner(model, min(slots, _max_slots_in_memory(model)), prefix_bytes, lambda: adapted.use(None))


def _max_slots_in_memory(model: Any) -> int:
    widths = sum(m.in_features + m.out_features for m in model.modules() if hasattr(m, "in_features"))
    of_one = widths * MAX_STACKED_RANK * model.dtype.itemsize
    return max(2, int(psutil.virtual_memory().available * SLOT_MEMORY_FRACTION / of_one))
