"""The batch: requests join and leave between two steps, and each step makes one token for every row.

A step drops what has ended, admits what waits, computes a piece of the prompts that are new (so that the other rows go
on meanwhile), then the next token of all rows, and hands the tokens out.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from personas.contracts import AdapterRef
from personas.engine.ahead import Ahead
from personas.engine.decoder import Decoder, Span
from personas.engine.rows import Job, Row
from personas.engine.sampling import draw
from personas.engine.scheduler import Scheduler, Ticket
from personas.engine.seats import Seat, Seats
from personas.errors import AdapterError, EngineBusyError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """`rows` replies are made at once, and up to `newcomers` more for servers that have fewer than their share of the
    rows. Prompts are computed in pieces of `piece_tokens`, or `lone_piece_tokens` while nobody is kept waiting by that.
    A request waits at most `wait_s`; a reply ends after `reply_s` with what there is.
    """

    rows: int = 32
    newcomers: int = 16
    piece_tokens: int = 256
    lone_piece_tokens: int = 512
    wait_s: float = 120.0
    reply_s: float = 300.0


class Batch:
    """The rows and those who wait. Used by one thread."""

    def __init__(
        self,
        decoder: Decoder,
        plain: Decoder,
        seats: Seats,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`plain` computes the rows whose adapters have no slot, one after the other."""
        self._decoder, self._plain = decoder, plain
        self._seats, self._limits, self._clock = seats, limits, clock
        self._waiting: Scheduler[Job] = Scheduler()
        self._rows: list[Row] = []
        self._seat: Seat | None = None
        self._ahead = Ahead(decoder, seats, limits.piece_tokens)

    def add(self, job: Job) -> None:
        """Have a job wait for its turn."""
        self._waiting.add(Ticket(job.request.guild_id, len(job.prompt), self._clock(), job))

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

    def forget_texts(self) -> None:
        """Let go of what is kept of prompts and replies; what is being made now is not kept either."""
        self._ahead.clear()
        for decoder in (self._decoder, self._plain):
            if decoder.prefixes:
                decoder.prefixes.clear()
        for row in self._rows:
            row.is_kept = False

    def hand_over(self, other: Batch) -> None:
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

    def _end(self, row: Row) -> None:
        self._leave(row)
        self._keep(row)
        row.job.listener.finish(row.reply())
        row.job.ended()

    def _fail_row(self, row: Row, error: Exception) -> None:
        self._leave(row)
        row.job.listener.push(error)
        row.job.ended()

    def _keep(self, row: Row) -> None:
        if row.is_kept and row.decoder.prefixes:
            row.decoder.prefixes.keep(row.seat.name, row.cache)

    def _leave(self, row: Row) -> None:
        self._rows.remove(row)
        self._waiting.end(row.job.request.guild_id)
        self._seats.give_back(row.seat)

    def _fail_ticket(self, ticket: Ticket[Job], error: Exception) -> None:
        self._waiting.remove(ticket)
        if ticket.item.listener.begin():
            ticket.item.listener.push(error)
        ticket.item.ended()

    # ---------------------------------------------------------------------------------------- joining

    def _admit(self) -> None:
        most = self._limits.rows + self._limits.newcomers
        while len(self._rows) < most and (ticket := self._waiting.next(self._can_begin)):
            seat = self._seat
            assert seat is not None  # `_can_begin` took it
            if ticket.item.listener.begin():
                decoder = self._plain if seat.slot is None else self._decoder
                self._rows.append(Row(ticket.item, seat, decoder, self._clock()))
            else:
                self._seats.give_back(seat)
                self._waiting.end(ticket.guild_id)
                ticket.item.ended()
        waiting = [ref for ticket in self._waiting.in_order() if (ref := _adapter(ticket))]
        self._seats.read_ahead([*waiting, *self._ahead.adapters])

    def _can_begin(self, ticket: Ticket[Job]) -> bool | None:
        ref = _adapter(ticket)
        if len(self._rows) >= self._limits.rows and not self._may_have_more(ticket.guild_id):
            return None
        try:
            self._seat = self._seats.take(ref)
        except AdapterError as error:
            self._fail_ticket(ticket, error)
            return None
        if self._seat is None and ref and not self._seats.is_read(ref):
            return None
        return self._seat is not None

    def _may_have_more(self, guild_id: int) -> bool:
        """Whether a server gets a further row although all are taken: below its share, and leaving some to others.

        Rows that were begun together end together, so who only waited for the next that ends might wait for a whole
        reply. The n-th row of a server needs n of the further ones free: one that has none yet can take the last.
        """
        running = self._waiting.running(guild_id)
        share = max(1, self._limits.rows // self._waiting.guilds)
        return running < share and len(self._rows) + running < self._limits.rows + self._limits.newcomers

    # ---------------------------------------------------------------------------------------- computing

    def _compute_prompts(self) -> None:
        others = any(row.last is not None for row in self._rows)
        room = self._limits.piece_tokens if others else self._limits.lone_piece_tokens
        parts: list[tuple[Row, Sequence[int]]] = []
        for row in _in_turns(row for row in self._rows if row.last is None):
            if not row.cache.tokens and row.decoder.prefixes:
                row.decoder.prefixes.take_over(row.seat.name, row.job.prompt, row.cache)
            if part := row.prompt_part(room):
                parts.append((row, part))
                room -= len(part)
        self._compute(parts)

    def _compute_next(self) -> None:
        self._compute([(row, (row.last,)) for row in self._rows if row.last is not None])

    def _compute(self, parts: Iterable[tuple[Row, Sequence[int]]]) -> None:
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

    def _advance(self, parts: Sequence[tuple[Row, Sequence[int]]]) -> None:
        spans = [
            Span(row.cache, tokens, row.seat, wanted=len(row.cache.tokens) + len(tokens) >= len(row.job.prompt))
            for row, tokens in parts
        ]
        logits = parts[0][0].decoder.forward(spans)
        rows = [row for (row, _), span in zip(parts, spans, strict=True) if span.wanted]
        if not rows:
            return
        for row, numbers, best in zip(rows, logits, logits.argmax(-1).tolist(), strict=True):
            try:
                drawn = draw(numbers, best, row.draws)
            except Exception as error:  # of its own settings: the others go on
                self._fail_row(row, error)
                continue
            if row.last is None:
                self._keep(row)
            row.take(drawn)
            self._waiting.serve(row.job.request.guild_id, new_tokens=1)
            if row.ended:
                self._end(row)


def _in_turns(rows: Iterable[Row]) -> list[Row]:
    """Rows in their order, but no guild's second before every guild's first."""
    before: Counter[int] = Counter()
    turns: list[tuple[int, Row]] = []
    for row in rows:
        guild_id = row.job.request.guild_id
        turns.append((before[guild_id], row))
        before[guild_id] += 1
    return [row for _, row in sorted(turns, key=lambda turn: turn[0])]


def _adapter(ticket: Ticket[Job]) -> AdapterRef | None:
    return ticket.item.request.adapter
