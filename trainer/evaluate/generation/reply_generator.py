"""Generates the replies of all candidates in one batch with the serving engine."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

from personas.cli_common import read_setting
from personas.engine.cpu_kernel import kernel_runner
from personas.engine.engine_parts import EngineParts
from personas.engine.lora_slots import read_unverified_adapter
from personas.models.base_model import RECOMMENDED_SAMPLING, BaseModel, recommended_sampling
from personas.prompt.renderer import RenderedPrompt, Renderer
from personas.schemas.chat import (
    DEFAULT_CANDIDATES,
    MAX_CANDIDATES,
    AdapterRef,
    ChatReply,
    ChatRequest,
    SamplingParams,
)
from personas.schemas.scorecard import Side
from trainer.evaluate.candidates import MAX_BATCH_ROWS
from trainer.evaluate.generation.reply_tasks import EvaluationPrompt, GeneratedReply
from trainer.evaluate.measurement_cache import (
    NO_CACHE,
    MeasurementCache,
    StoredReply,
    reply_key,
)
from trainer.evaluate.time_budget import TimeBudget

log = logging.getLogger(__name__)
KEPT_AT_ONCE = 16
STATED_SAMPLING: dict[str, tuple[str, type[float], float, float]] = {
    "temperature": ("TEMPERATURE", float, *RECOMMENDED_SAMPLING["temperature"]),
    "top_p": ("TOP_P", float, *RECOMMENDED_SAMPLING["top_p"]),
    "max_new_tokens": ("MAX_NEW_TOKENS", int, 1, 1024),
    "candidates": ("REPLY_CANDIDATES", int, 1, MAX_CANDIDATES),
}
"""The bot's settings of sampling: the name of each, its type, the least and the largest value."""
FollowUp = Callable[[GeneratedReply], Sequence[EvaluationPrompt]]
"""Returns the prompts that can be rendered once a reply is known."""


def served_sampling(base: BaseModel) -> SamplingParams:
    """Return the sampling of a bot's replies in channels: what its settings state, over what suits
    the base model.

    Raises `BaseModelError` if the base model's configuration cannot be read.
    """
    most = _read_stated("MAX_REPLY_CANDIDATES", int, 1, MAX_CANDIDATES, usual=DEFAULT_CANDIDATES)
    candidates = 1
    if read_setting("ENGINE").lower() in ("", "local"):  # other engines make one candidate
        candidates = min(DEFAULT_CANDIDATES, int(most))
    usual = replace(recommended_sampling(base), candidates=candidates)
    stated: dict[str, Any] = {}
    for name, (setting, kind, least, largest) in STATED_SAMPLING.items():
        stated[name] = _read_stated(setting, kind, least, largest, usual=getattr(usual, name))
    return replace(usual, **stated)


def _read_stated(
    name: str, kind: type[float], least: float, largest: float, *, usual: float
) -> float:
    stated = read_setting(name)
    if not stated:
        return usual
    with suppress(ValueError):
        value = kind(stated)
        if least <= value <= largest:
            return value
    # The bot refuses such a setting at its start; an evaluation has a value to go on with.
    log.warning("%s=%s is no number from %g to %g: %g is used", name, stated, least, largest, usual)
    return usual


@dataclass(frozen=True)
class ReplyGenerator:
    """Generates replies of the sides, each with its adapter (None: the base model), for the given
    seeds. Replies that `cache` has of the sides' `models` (`model_key`) are not generated again. The
    first replies are expected to take `first_s`.
    """

    parts: EngineParts
    renderer: Renderer
    adapters: dict[Side, AdapterRef | None]
    seeds: tuple[int, ...]
    sampling: SamplingParams
    cache: MeasurementCache = NO_CACHE
    models: Mapping[str, str] = field(default_factory=dict)
    first_s: float = 0.0

    def answers(
        self,
        prompts: Sequence[EvaluationPrompt],
        budget: TimeBudget,
        between: Callable[[int, int], None] = lambda done, of: None,
        least: int = 1,
    ) -> list[GeneratedReply]:
        """Generate replies to as many prompts as the time allows, in order, but at least to
        `least`.

        `between` is called after each step with the number of finished replies and the total.
        """
        with self.loaded():
            return self.generate(prompts, budget, between, least)

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Prepare the engine for several calls of `generate`, which share its prefix cache."""
        self._load_adapters()
        with compiled_kernel(self.parts):
            yield
        self.parts.batch.clear_prefix_cache()

    def generate(
        self,
        prompts: Sequence[EvaluationPrompt],
        budget: TimeBudget,
        between: Callable[[int, int], None] = lambda done, of: None,
        least: int = 1,
        follow_up: FollowUp = lambda answer: (),
    ) -> list[GeneratedReply]:
        """Generate replies as `answers`, within `loaded`; each may lead to further prompts by
        `follow_up`.
        """
        run = _GenerationRun(self, list(prompts), budget, least=least, follow_up=follow_up)
        try:
            while run.start_more():
                self.parts.batch.step()
                run.collect()
                between(len(run.answers), run.total)
        finally:
            run.keep_new()
        return run.answers

    def key(self, prompt: EvaluationPrompt, side: Side, seed: int) -> bytes | None:
        """Return the key of a reply in the cache; None for a side that it does not know."""
        if side not in self.models:
            return None
        settings = asdict(replace(self.sampling, seed=seed, speakers=prompt.speakers))
        return reply_key(self.models[side], prompt.ids, card=prompt.card, **settings)

    def _load_adapters(self) -> None:
        """Load adapters into LoRA slots; those beyond plain LoRA are computed by peft on the
        model.
        """
        layers = self.parts.peft.layers
        can_stack = self.parts.stacked is not None
        for ref in filter(None, self.adapters.values()):
            self.parts.lora.add(read_unverified_adapter(ref, layers, can_stack=can_stack))


class _GenerationRun:
    """Waiting prompts, running generations, and finished replies."""

    def __init__(
        self,
        generator: ReplyGenerator,
        waiting: list[EvaluationPrompt],
        budget: TimeBudget,
        *,
        least: int,
        follow_up: FollowUp,
    ) -> None:
        self._generator = generator
        self._waiting = waiting
        self._budget = budget
        self._least = least
        self._follow_up = follow_up
        self._running: list[_PendingReply] = []
        self._next: deque[_PendingReply] = deque()  # of prompts that have begun
        self._recent_s: deque[float] = deque(maxlen=MAX_BATCH_ROWS)
        self.answers: list[GeneratedReply] = []
        self._new: dict[bytes, StoredReply] = {}
        per_side = sum(len(prompt.seeds(generator.seeds)) for prompt in waiting)
        self._wanted = per_side * len(generator.adapters)

    @property
    def total(self) -> int:
        """The number of replies there will be: all, or those that have begun once there is no time for
        more.
        """
        if self._has_time():
            return self._wanted
        return len(self.answers) + len(self._running) + len(self._next)

    def start_more(self) -> bool:
        """Start generations while there is capacity and time. Returns False when all are
        finished.
        """
        # All candidates of a reply have a row, and no reply waits in the engine: while one does,
        # the engine makes fewer candidates, and the sides' replies could not be compared.
        rows = MAX_BATCH_ROWS // self._generator.sampling.candidates
        while len(self._running) < rows:
            if self._next:
                self._start(self._next.popleft())
            elif not self._begin_prompt():
                break
        return bool(self._running)

    def collect(self) -> None:
        """Collect finished replies. Raises a generation's error."""
        for pending in list(self._running):
            if pending.reply is None and pending.error is None:
                continue
            self._running.remove(pending)
            answer = pending.answer()
            self._add(answer)
            self._recent_s.append(time.monotonic() - pending.started)
            key = self._generator.key(answer.prompt, answer.side, answer.seed)
            if key:
                self._new[key] = StoredReply(answer.text, answer.tokens, answer.ended)
        if len(self._new) >= KEPT_AT_ONCE:
            self.keep_new()

    def keep_new(self) -> None:
        """Store the new replies for other evaluations."""
        self._generator.cache.add_replies(self._new)
        self._new = {}

    def _add(self, answer: GeneratedReply) -> None:
        self.answers.append(answer)
        self._waiting += self._follow_up(answer)

    def _has_time(self) -> bool:
        """Report whether a reply as slow as the slowest recent one would finish in time."""
        slowest_s = max(self._recent_s, default=self._generator.first_s)
        return self._least > 0 or self._budget.left > slowest_s

    def _begin_prompt(self) -> bool:
        """Take the next prompt, if there is one and time for it."""
        if not self._waiting or not self._has_time():
            return False
        self._least -= 1
        prompt = self._waiting.pop(0)
        generator = self._generator
        # A prompt that has begun is answered by all sides with all its seeds: sections compare
        # sides by the same prompts.
        pairs = list(product(generator.adapters, prompt.seeds(generator.seeds)))
        keys = {pair: generator.key(prompt, *pair) for pair in pairs}
        known = generator.cache.replies([key for key in keys.values() if key])
        for side, seed in pairs:
            key = keys[side, seed]
            if key and (reply := known.get(key)):
                self._add(GeneratedReply(prompt, side, seed, **vars(reply)))
            else:
                self._next.append(_PendingReply(prompt, side, seed))
        return True

    def _start(self, pending: "_PendingReply") -> None:
        generator = self._generator
        prompt = pending.prompt
        sampling = replace(generator.sampling, seed=pending.seed, speakers=prompt.speakers)
        request = ChatRequest(None, (), adapter=generator.adapters[pending.side], sampling=sampling)
        rendered = RenderedPrompt(prompt.ids, "", 0, card=prompt.card)
        pending.started = time.monotonic()
        generator.parts.batch.submit(request, rendered, generator.renderer, pending)
        self._running.append(pending)


class _PendingReply:
    """A generation, which receives its outcome from the engine."""

    def __init__(self, prompt: EvaluationPrompt, side: Side, seed: int) -> None:
        self.prompt = prompt
        self.side = side
        self.seed = seed
        self.started = 0.0
        self.cancelled = threading.Event()
        self.reply: ChatReply | None = None
        self.error: Exception | None = None

    def begin(self) -> bool:
        return True

    def push(self, piece: object) -> None:
        if isinstance(piece, Exception):
            self.error = piece

    def finish(self, reply: ChatReply) -> None:
        self.reply = reply

    def answer(self) -> GeneratedReply:
        if self.error:
            raise self.error
        reply = self.reply
        assert reply is not None  # else it has not ended
        return GeneratedReply(
            prompt=self.prompt,
            side=self.side,
            seed=self.seed,
            text=reply.text.strip(),
            tokens=reply.new_tokens,
            ended=reply.finish == "stop",
        )


@contextmanager
def compiled_kernel(parts: EngineParts) -> Iterator[None]:
    """Use the compiled kernel if the engine would serve with it."""
    decoder = parts.stacked
    if decoder and kernel_runner.supports_model(decoder.model):
        kernel_runner.compile_kernel(lambda library: kernel_runner.enable_kernel(library, decoder))
    try:
        yield
    finally:
        if decoder:
            decoder.close()
