"""All replies of all sides, made in one batch by the engine that serves, over the model that is measured.

A prompt is answered by all sides with all its seeds or not at all: what is compared was asked alike. Where the time
would not do for all prompts, the last ones are not begun.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from personas.contracts import AdapterRef, ChatRequest, Reply, Sampling
from personas.engine import quick
from personas.engine.adapters import read_unverified
from personas.engine.assembly import Parts, assemble
from personas.engine.batch import Limits
from personas.engine.rows import Job
from personas.engine.text import StreamedText
from personas.prompt import Renderer
from personas.scorecard import Side
from trainer.scorecard.budget import Budget
from trainer.scorecard.spoken.answers import Answer, Asked

ROWS, SLOTS, PREFIX_BYTES = 32, 4, 256 * 2**20
NEVER_S = 1e9
"""Nobody waits for these replies: neither waiting nor a long reply is given up."""


def parts_over(model: Any, base_hash: str) -> Parts:
    """The engine around a served model that no adapter lies over yet. Adapters come over it through `Parts.adapted`."""
    limits = Limits(rows=ROWS, wait_s=NEVER_S, reply_s=NEVER_S)
    return assemble(model, base_hash, limits, slots=SLOTS, prefix_bytes=PREFIX_BYTES, heard=lambda: None)


@dataclass(frozen=True)
class Speakers:
    """Who answers: the sides, each with the adapter it speaks with (None: the base model), and with which seeds."""

    parts: Parts
    renderer: Renderer
    adapters: dict[Side, AdapterRef | None]
    seeds: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)

    def answers(
        self,
        asked: Sequence[Asked],
        budget: Budget,
        between: Callable[[int, int], None] = lambda done, of: None,
        least: int = 1,
    ) -> list[Answer]:
        """The answers to as many of the prompts, from the first on, as the time allows; to so many at least.

        `between` is called after each step with the replies that are made, and how many would be made of all prompts.
        """
        self._seat()
        with _quickened(self.parts):
            run = _Run(self, list(asked), budget, least)
            while run.goes_on():
                self.parts.batch.step()
                run.collect()
                between(len(run.answers), run.replies_of_all)
        self.parts.batch.forget_texts()
        return run.answers

    def _seat(self) -> None:
        """Adapters that are more than two matrices lie over the model already, where peft computes them."""
        linears = self.parts.stacked.linears if self.parts.stacked else {}
        for ref in filter(None, self.adapters.values()):
            self.parts.seats.hold(read_unverified(ref, linears))


class _Run:
    """The prompts that wait, those that are being answered, and the answers."""

    def __init__(self, speakers: Speakers, waiting: list[Asked], budget: Budget, least: int) -> None:
        self._speakers, self._waiting, self._budget, self._least = speakers, waiting, budget, least
        self._making: list[_Making] = []
        self._recent_s: deque[float] = deque([0.0], maxlen=ROWS)
        self.answers: list[Answer] = []
        self.replies_of_all = sum(len(asked.seeds(speakers.seeds)) for asked in waiting) * len(speakers.adapters)

    def goes_on(self) -> bool:
        """Begin what there is room and time for. False when there is nothing to make any more."""
        while self._waiting and len(self._making) < ROWS and self._has_time():
            self._begin(self._waiting.pop(0))
        return bool(self._making)

    def collect(self) -> None:
        """Take what has ended. Raises whatever a reply failed with."""
        for made in [making for making in self._making if making.listener.has_ended]:
            self._making.remove(made)
            self.answers.append(made.answer())
            self._recent_s.append(time.monotonic() - made.began)

    def _has_time(self) -> bool:
        """Whether a reply that takes as long as the longest of the last ones would still be made in time."""
        return self._least > 0 or self._budget.left > max(self._recent_s)

    def _begin(self, asked: Asked) -> None:
        speakers, ends = self._speakers, asked.stop
        self._least -= 1
        for side, ref in speakers.adapters.items():
            for seed in asked.seeds(speakers.seeds):
                sampling = replace(speakers.sampling, seed=seed, stop=ends)
                text = StreamedText(speakers.renderer, ends, _unheard, stop_loops=sampling.stop_loops)
                listener = _Listener()
                request = ChatRequest(None, (), adapter=ref, sampling=sampling)
                speakers.parts.batch.add(Job(request, asked.ids, seed, listener, text, lambda: None))
                self._making.append(_Making(asked, side, seed, listener, time.monotonic()))


class _Listener:
    """Hears how a reply ends."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.reply: Reply | None = None
        self.error: Exception | None = None

    @property
    def has_ended(self) -> bool:
        return self.reply is not None or self.error is not None

    def begin(self) -> bool:
        return True

    def push(self, piece: object) -> None:
        if isinstance(piece, Exception):
            self.error = piece

    def finish(self, reply: Reply) -> None:
        self.reply = reply


@dataclass(frozen=True, eq=False)
class _Making:
    asked: Asked
    side: Side
    seed: int
    listener: _Listener
    began: float

    def answer(self) -> Answer:
        if self.listener.error:
            raise self.listener.error
        reply = self.listener.reply
        assert reply is not None  # else it has not ended
        return Answer(self.asked, self.side, self.seed, reply.text.strip(), reply.new_tokens, reply.finish == "stop")


def _unheard(piece: str) -> None:
    """Nobody reads along."""


@contextmanager
def _quickened(parts: Parts) -> Iterator[None]:
    """With the compiled kernel, where the engine would serve with it."""
    decoder = parts.stacked
    if decoder and quick.can_serve(decoder.model):
        quick.compile_for(lambda library: quick.use(library, decoder))
    try:
        yield
    finally:
        if decoder:
            decoder.close()
