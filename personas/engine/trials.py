"""Trials: adapters of the local engine that have to show their effect before they are used, in steps
between those of replies.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial

from personas.engine.effect_probe import EffectMeasurement, PendingEffect
from personas.engine.fair_scheduler import run_or_log
from personas.engine.leak_probe import CacheAnswers
from personas.engine.lora_slots import BASE_MODEL_SLOT, LoraSlot, LoraSlots
from personas.engine.model_runner import ModelRunner
from personas.engine.reply_scoring import next_tokens, score_in_steps
from personas.schemas.effect_probe import CacheFigures

OnTried = Callable[[Exception | None], None]
"""Called with the reason why an adapter is not used, or None."""


class AdapterTrials:
    """Tries adapters one at a time, oldest first. Used by the engine's thread."""

    def __init__(self, runner: ModelRunner, fallback: ModelRunner, lora: LoraSlots) -> None:
        """`fallback` computes adapters that are in no slot."""
        self._runner = runner
        self._fallback = fallback
        self._lora = lora
        self._current: tuple[str, Iterator[None]] | None = None
        self._on_tried: dict[str, list[OnTried]] = {}

    def wait_for(self, name: str, on_tried: OnTried) -> None:
        """Call back when the trial of an adapter has ended, at once if it is not being tried."""
        if name in self._lora.trials:
            self._on_tried.setdefault(name, []).append(on_tried)
        else:
            on_tried(None)

    def step(self) -> bool:
        """Compute a part of the next trial. Returns False when there is none."""
        if self._current is None:
            if not self._lora.trials:
                return False
            name, (slot, effect) = next(iter(self._lora.trials.items()))
            self._current = name, self._try(slot, effect)
        name, steps = self._current
        try:
            next(steps)
        except StopIteration:
            self._end(name, None)
        except Exception as error:  # the adapter is not used; all others go on
            self._end(name, error)
        return True

    def close(self) -> None:
        """Give up all trials: the engine ends, or goes on elsewhere and tries the adapters there."""
        for name in list(self._on_tried):
            self._tell(name, None)

    def _try(self, slot: LoraSlot, effect: PendingEffect) -> Iterator[None]:
        runner = self._fallback if slot.index is None else self._runner
        started_at = time.monotonic()
        base = yield from score_in_steps(runner, BASE_MODEL_SLOT, effect.replies)
        tuned = yield from score_in_steps(runner, slot, effect.replies)
        cache = None
        if runner.prefixes is not None:
            cache = yield from self._ask_cache(runner, slot, effect.cache_text)
        effect.judge(EffectMeasurement(base, tuned, cache, time.monotonic() - started_at))

    def _ask_cache(
        self, runner: ModelRunner, slot: LoraSlot, text: Sequence[int]
    ) -> Generator[None, None, CacheFigures]:
        """Ask by the adapter, by another one in memory or the base model, and by it again."""
        other = self._lora.acquire(self._lora.other_adapter(slot))
        answers = []
        questions = ((slot, False), (other, False), (slot, True), (other, True), (slot, True))
        try:
            for asked, cached in questions:
                answers.append(next_tokens(runner, asked, text, cached=cached))
                yield
        finally:
            self._lora.release(other)
        first_alone, second_alone, first, second, first_again = answers
        return CacheAnswers(
            first_alone=first_alone,
            second_alone=second_alone,
            first=first,
            second=second,
            first_again=first_again,
        ).figures()

    def _end(self, name: str, error: Exception | None) -> None:
        self._current = None
        self._lora.end_trial(name, error)
        self._tell(name, error)

    def _tell(self, name: str, error: Exception | None) -> None:
        for on_tried in self._on_tried.pop(name, []):
            run_or_log(partial(on_tried, error))
