"""Effect probe: an engine has to show the shift that a version's training measured before the
version speaks there.

An engine can answer without the adapter that it was asked for and report no error, or with another
adapter's weights. The log-probabilities of a few replies tell: the trained adapter makes them
likelier by an amount that its training stored (`personas.schemas.effect_probe`).
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from personas.engine.leak_probe import CacheAnswers
from personas.errors import AdapterError
from personas.home.effect_probe import EffectResults, StoredProbe, read_effect_probe
from personas.schemas.chat import AdapterRef
from personas.schemas.effect_probe import (
    CacheFigures,
    EffectFigures,
    EffectProbe,
    EffectResult,
    EffectVerdict,
    TokenizedReply,
)

TokenLogprobs = Sequence[float | None]
"""Natural log-probabilities of a reply's tokens; None where an engine does not tell."""
NO_EFFECT_ADVICE = "See the engine's log, or serve this version with another engine."


@dataclass(frozen=True)
class EffectTolerance:
    """How far the figures of a right engine may lie from those of training.

    `strength` and `deviation` are those of `EffectResult`. `noise` is the root mean square, in nats
    per token, that rounding adds to the shifts: a smaller effect cannot be told from none. `base`
    is the difference of the base model's mean log-probability, in nats per token.
    """

    strength: float
    deviation: float
    noise: float
    base: float


FINE_PRECISIONS = frozenset("float32 bfloat16 float16 int8 f32 bf16 f16 q8_0".split())
FINE_TOLERANCE = EffectTolerance(strength=0.1, deviation=0.2, noise=0.08, base=0.1)
"""For 8 bits and more, and where training measured the same 4 bits that are served.

Two personas' adapters over the bundled model, measured in float32 on 320 tokens each, showed a
strength of 0.998 in bfloat16 and of 0.988 to 1.012 in int8, and a deviation of 0.02 and 0.06. With
alpha halved they showed 0.62 to 0.74 and 0.32 to 0.43, with every other layer empty 0.64 to 0.78
and 0.33 to 0.43, and the other persona's adapter 0.39 to 0.52 and 0.75 to 0.91.
"""
COARSE_TOLERANCE = EffectTolerance(strength=0.4, deviation=0.75, noise=0.4, base=0.5)
"""For 4 to 6 bits where training measured other weights, and for precisions that are not known.

Where the bundled model's weights were rounded to NF4 and to Q4_0, by which it loses 0.09 to 0.25
nats per token, the same adapters showed a strength of 0.72 to 1.10 and a deviation of 0.45 to 0.60;
the other persona's 0.22 to 0.37 and 0.91 to 1.05. An adapter at half its strength showed 0.43 to
0.71, and can pass: rounding to 4 bits costs so small a model as much.
"""
SMALLEST_EFFECT = 1e-6  # nats; shares of less mean nothing


class EffectError(AdapterError):
    """An engine that shows another effect of an adapter than its training measured."""


class CacheLeakError(AdapterError):
    """An engine whose prompt cache mixes the adapters of two versions."""


class ReplyScorer(Protocol):
    """The part of an engine that both probes ask. It computes with what replies are computed with:
    the same server, adapter path, precision and kernels.

    All methods raise an `UnderstudyError` where the engine is away or refuses.
    """

    @property
    def place(self) -> str:
        """The engine, where it runs and what it runs, such as `vllm http://…`: a result holds as
        long as it is the same. A server that was restarted is another place.
        """

    async def score_replies(
        self, adapter: AdapterRef | None, replies: Sequence[TokenizedReply]
    ) -> list[TokenLogprobs]:
        """Return the log-probability of each token of each reply, after its prompt and the tokens
        before it, at temperature 1 and without filters. None as the adapter is the base model.

        Nothing is read from a prompt cache but what this call has computed. An engine that tells
        only some tokens (the likeliest, or every other one) returns None for the others; the same
        tokens have to be told for the base model and the adapter, or they do not count.
        """

    async def next_tokens(
        self, adapter: AdapterRef | None, text: Sequence[int], *, cached: bool
    ) -> Mapping[int, float]:
        """Return the likeliest tokens after a text with their log-probabilities, some five of them.

        `cached` is True for a request as replies are: it reads and fills the same prompt cache, on
        the same slot for all adapters where the engine lets choose. Otherwise the whole text is
        computed, and nothing is kept.
        """


@dataclass(frozen=True)
class EffectMeasurement:
    """What an engine tells of a probe: the replies' log-probabilities under the base model and
    under the adapter, what its prompt cache changes (None: it has none), and the seconds of it all.
    """

    base: Sequence[TokenLogprobs]
    tuned: Sequence[TokenLogprobs]
    cache: CacheFigures | None
    seconds: float


@dataclass(frozen=True)
class PendingEffect:
    """An effect that an engine still has to show of an adapter.

    `judge` stores the result. It raises `EffectError` for another adapter's effect, and
    `CacheLeakError` for a cache that mixes adapters.
    """

    replies: Sequence[TokenizedReply]
    judge: Callable[[EffectMeasurement], None]

    @property
    def cache_text(self) -> tuple[int, ...]:
        """The text that is asked for through the prompt cache: the longest of the probe."""
        texts = [(*reply.prompt, *reply.reply) for reply in self.replies]
        return max(texts, key=len)


@dataclass(frozen=True)
class EffectChecks:
    """Finds what an engine still has to show, judges it, and stores the results.

    `precision` is the one in which the engine serves the base model with this hash.
    """

    results: EffectResults
    base_model_hash: str
    precision: str

    def pending(self, adapter: AdapterRef, place: str) -> PendingEffect | None:
        """Return the effect that an engine in this place has to show of a verified adapter. None if
        it has shown it, or if the version has no probe.

        Raises `EffectError` for an adapter that was refused there.
        """
        stored = read_effect_probe(adapter.folder, self.base_model_hash)
        if stored is None:
            return None
        result = self.results.find(stored.digest, engine=place, precision=self.precision)
        if result is not None:
            _require_shown(result, adapter)
            return None
        return PendingEffect(stored.probe.replies, partial(self._judge, adapter, place, stored))

    async def check(
        self, scorer: ReplyScorer, adapter: AdapterRef, other: AdapterRef | None = None
    ) -> None:
        """Have an engine show an adapter's effect unless it has, and that its prompt cache keeps
        the adapter apart from another one (None: from the base model).

        Raises `EffectError`, `CacheLeakError`, or the engine's own `UnderstudyError`.
        """
        effect = await asyncio.to_thread(self.pending, adapter, scorer.place)
        if effect is None:
            return
        started_at = time.monotonic()
        base = await scorer.score_replies(None, effect.replies)
        tuned = await scorer.score_replies(adapter, effect.replies)
        cache = await _ask_cache(scorer, adapter, other, effect.cache_text)
        measurement = EffectMeasurement(base, tuned, cache, time.monotonic() - started_at)
        await asyncio.to_thread(effect.judge, measurement)

    def _judge(
        self,
        adapter: AdapterRef,
        place: str,
        stored: StoredProbe,
        measurement: EffectMeasurement,
    ) -> None:
        """Store the result of a probe. Raises `EffectError` and `CacheLeakError`."""
        compared = compare_effect(stored.probe, measurement.base, measurement.tuned, self.precision)
        figures = compared.model_dump()
        if measurement.cache and measurement.cache.leaks and compared.verdict != "refused":
            figures["verdict"] = "leaks"
        result = EffectResult(
            persona=adapter.persona_id,
            version=adapter.version,
            probe=stored.digest,
            engine=place,
            precision=self.precision,
            cache=measurement.cache,
            seconds=round(measurement.seconds, 3),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            **figures,
        )
        self.results.store(result)
        _require_shown(result, adapter)


async def _ask_cache(
    scorer: ReplyScorer, adapter: AdapterRef, other: AdapterRef | None, text: Sequence[int]
) -> CacheFigures:
    return CacheAnswers(
        first_alone=await scorer.next_tokens(adapter, text, cached=False),
        second_alone=await scorer.next_tokens(other, text, cached=False),
        first=await scorer.next_tokens(adapter, text, cached=True),
        second=await scorer.next_tokens(other, text, cached=True),
        first_again=await scorer.next_tokens(adapter, text, cached=True),
    ).figures()


def compare_effect(
    probe: EffectProbe,
    base: Sequence[TokenLogprobs],
    tuned: Sequence[TokenLogprobs],
    precision: str,
) -> EffectFigures:
    """Compare what an engine shows of a probe with what training measured, over the tokens that the
    engine told of both sides. Raises `EffectError` where it told none.

    The shifts are compared token by token. Their means alone differ by 13 to 16 % where an adapter
    is half as strong: of the version's own replies, the first half of its effect brings most.
    """
    rows = []
    for reply, base_logprobs, tuned_logprobs in zip(probe.replies, base, tuned, strict=True):
        tokens = zip(reply.base, reply.tuned, base_logprobs, tuned_logprobs, strict=True)
        rows += [row for row in tokens if row[2] is not None and row[3] is not None]
    if not rows:
        raise EffectError(
            "The engine tells no log-probabilities of given replies.", NO_EFFECT_ADVICE
        )
    figures = np.array(rows, dtype=np.float64)
    expected_base, _, shown_base, _ = figures.mean(axis=0).tolist()
    expected = figures[:, 1] - figures[:, 0]
    shown = figures[:, 3] - figures[:, 2]
    effect = max(_root_mean_square(expected), SMALLEST_EFFECT)
    strength = float(np.mean(expected * shown)) / effect**2
    deviation = _root_mean_square(shown - expected) / effect
    limits = effect_tolerance(probe.precision, precision)
    allowed = max(limits.deviation, limits.noise / effect)
    verdict: EffectVerdict = "shown"
    if abs(shown_base - expected_base) > limits.base or deviation > allowed:
        verdict = "refused"
    elif effect < limits.noise:
        verdict = "too weak"
    elif abs(strength - 1) > limits.strength:
        verdict = "refused"
    return EffectFigures(
        verdict=verdict,
        tokens=len(rows),
        expected_base=expected_base,
        shown_base=shown_base,
        expected_shift=float(expected.mean()),
        shown_shift=float(shown.mean()),
        strength=strength,
        strength_tolerance=limits.strength,
        deviation=deviation,
        deviation_tolerance=allowed,
    )


def effect_tolerance(measured: str, served: str) -> EffectTolerance:
    """Return the tolerance between the precision in which training measured and the served one."""
    is_fine = {measured, served} <= FINE_PRECISIONS
    return FINE_TOLERANCE if is_fine or measured == served else COARSE_TOLERANCE


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _require_shown(result: EffectResult, adapter: AdapterRef) -> None:
    """Raise `EffectError` with the expected and the shown figures for a refused result, and
    `CacheLeakError` for a leak.
    """
    name = f"{adapter.persona_id} {adapter.version}"
    if result.verdict == "leaks" and result.cache:
        raise CacheLeakError(
            f"{result.engine} computes {name} with other adapters' cached prompts: its answers "
            f"through the prompt cache differ by {result.cache.gap:.2f} nats from those without, "
            f"and other adapters' by {result.cache.separation:.2f}.",
            "Switch the engine's prompt cache off (vLLM: --no-enable-prefix-caching).",
        )
    if result.verdict != "refused":
        return
    has_strength = abs(result.strength - 1) <= result.strength_tolerance
    if has_strength and result.deviation <= result.deviation_tolerance:
        raise EffectError(
            f"{result.engine} does not compute the base model that {name} was trained on: it gives "
            f"{result.shown_base:.3f} nats per token of its probe, and training measured "
            f"{result.expected_base:.3f}.",
            "Serve the base model that the version's manifest names.",
        )
    raise EffectError(
        f"{result.engine} does not show the effect of {name}: it makes the replies of its probe "
        f"likelier by {result.shown_shift:.3f} nats per token, and training measured "
        f"{result.expected_shift:.3f}. Token by token, it shows {result.strength:.0%} of the effect "
        f"(100 % ± {result.strength_tolerance:.0%}), and differs by {result.deviation:.0%} (at most "
        f"{result.deviation_tolerance:.0%}).",
        NO_EFFECT_ADVICE,
    )
