"""Generates the replies of all candidates in one batch with the serving engine."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from personas.engine.cpu_kernel import kernel_runner
from personas.engine.engine_core import EngineParts
from personas.engine.lora_slots import read_unverified_adapter
from personas.prompt import RenderedPrompt, Renderer
from personas.schemas.chat import AdapterRef, ChatReply, ChatRequest, SamplingParams
from personas.schemas.scorecard import Side
from trainer.evaluate.candidates import MAX_BATCH_ROWS
from trainer.evaluate.generation.reply_tasks import EvaluationPrompt, GeneratedReply
from trainer.evaluate.paired_losses import TimeBudget

"""Nobody waits for these replies: neither waiting nor a long reply is given up."""


@dataclass(frozen=True)
class ReplyGenerator:
    """Generates replies of the sides, each with its adapter (None: the base model), for the given seeds."""

    parts: EngineParts
    renderer: Renderer
    adapters: dict[Side, AdapterRef | None]
    seeds: tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)

    def answers(
        self,
        asked: Sequence[EvaluationPrompt],
        budget: TimeBudget,
        between: Callable[[int, int], None] = lambda done, of: None,
        least: int = 1,
    ) -> list[GeneratedReply]:
        """Generate replies to as many prompts as the time allows, in order, but at least to `least`.

        `between` is called after each step with the number of finished replies and the total.
        """
        self._load_adapters()
        with _compiled_kernel(self.parts):
            run = _GenerationRun(self, list(asked), budget, least)
            while run.goes_on():
                self.parts.batch.step()
                run.collect()
                between(len(run.answers), run.replies_of_all)
        self.parts.batch.clear_prefix_cache()
        return run.answers

    def _load_adapters(self) -> None:
        """Load the adapters into LoRA slots. Those beyond plain LoRA are on the model already, where peft computes
        them.
        """
        linears = self.parts.stacked.linears if self.parts.stacked else {}
        for ref in filter(None, self.adapters.values()):
            self.parts.lora.add(read_unverified_adapter(ref, linears))


class _GenerationRun:
    """Waiting prompts, running generations, and finished replies."""

    def __init__(
        self, speakers: ReplyGenerator, waiting: list[EvaluationPrompt], budget: TimeBudget, least: int
    ) -> None:
        self._speakers, self._waiting, self._budget, self._least = speakers, waiting, budget, least
        self._making: list[_PendingReply] = []
        self._recent_s: deque[float] = deque([0.0], maxlen=MAX_BATCH_ROWS)
        self.answers: list[GeneratedReply] = []
        self.replies_of_all = sum(len(asked.seeds(speakers.seeds)) for asked in waiting) * len(speakers.adapters)

    def goes_on(self) -> bool:
        """Start generations while there is capacity and time. Returns False when all are finished."""
        while self._waiting and len(self._making) < MAX_BATCH_ROWS and self._has_time():
            self._begin(self._waiting.pop(0))
        return bool(self._making)

    def collect(self) -> None:
        """Collect finished replies. Raises a generation's error."""
        for made in [making for making in self._making if making.listener.has_ended]:
            self._making.remove(made)
            self.answers.append(made.answer())
            self._recent_s.append(time.monotonic() - made.began)

    def _has_time(self) -> bool:
        """Report whether a reply as slow as the slowest recent one would finish in time."""
        return self._least > 0 or self._budget.left > max(self._recent_s)

    def _begin(self, asked: EvaluationPrompt) -> None:
        speakers, ends = self._speakers, asked.stop
        self._least -= 1
        for side, ref in speakers.adapters.items():
            for seed in asked.seeds(speakers.seeds):
                sampling = replace(speakers.sampling, seed=seed, stop=ends)
                listener = _ReplyWaiter()
                request = ChatRequest(None, (), adapter=ref, sampling=sampling)
                prompt = RenderedPrompt(asked.ids, "", 0)
                speakers.parts.batch.submit(request, prompt, speakers.renderer, listener)
                self._making.append(_PendingReply(asked, side, seed, listener, time.monotonic()))


class _ReplyWaiter:
    """Receives the outcome of a generation."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.reply: ChatReply | None = None
        self.error: Exception | None = None

    @property
    def has_ended(self) -> bool:
        return self.reply is not None or self.error is not None

    def begin(self) -> bool:
        return True

    def push(self, piece: object) -> None:
        if isinstance(piece, Exception):
            self.error = piece

    def finish(self, reply: ChatReply) -> None:
        self.reply = reply


@dataclass(frozen=True, eq=False)
class _PendingReply:
    asked: EvaluationPrompt
    side: Side
    seed: int
    listener: _ReplyWaiter
    began: float

    def answer(self) -> GeneratedReply:
        if self.listener.error:
            raise self.listener.error
        reply = self.listener.reply
        assert reply is not None  # else it has not ended
        return GeneratedReply(
            self.asked, self.side, self.seed, reply.text.strip(), reply.new_tokens, reply.finish == "stop"
        )


@contextmanager
def _compiled_kernel(parts: EngineParts) -> Iterator[None]:
    """Use the compiled kernel if the engine would serve with it."""
    decoder = parts.stacked
    if decoder and kernel_runner.supports_model(decoder.model):
        kernel_runner.compile_kernel(lambda library: kernel_runner.enable_kernel(library, decoder))
    try:
        yield
    finally:
        if decoder:
            decoder.close()
