"""Effect probe: an engine has to show the shift that a version's training measured before the
version speaks there.

An engine can answer without the adapter that it was asked for and report no error, or with another
adapter's weights. The log-probabilities of a few replies tell: the trained adapter makes them
likelier by an amount that its training stored (`personas.schemas.effect_probe`).
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from personas.engine.leak_probe import CacheAnswers
from personas.errors import AdapterError
from personas.home.adapters import WEIGHTS_FILE, require_manifest
from personas.home.effect_probe import EffectResults, read_effect_probe
from personas.schemas.chat import AdapterRef
from personas.schemas.effect_probe import (
    CacheFigures,
    EffectProbe,
    EffectResult,
    EffectVerdict,
    TokenizedReply,
)

TokenLogprobs = Sequence[float | None]
"""Natural log-probabilities of a reply's tokens; None where an engine does not tell."""
NO_EFFECT_ADVICE = "See the engine's log, or serve this version with another engine."


@dataclass(frozen=True)
class PrecisionTolerance:
    """How far the figures of a right engine may lie from those of training.

    `deviation` is the share in `EffectResult`, `noise` the root mean square in nats below which a
    token's shift drowns in rounding, and `base` the difference of the base model's mean
    log-probability, in nats per token.
    """

    deviation: float
    noise: float
    base: float


TOLERANCES = {
    "float32": PrecisionTolerance(deviation=0.2, noise=0.05, base=0.05),
    "bfloat16": PrecisionTolerance(deviation=0.2, noise=0.05, base=0.05),
    "float16": PrecisionTolerance(deviation=0.2, noise=0.05, base=0.05),
    "int8": PrecisionTolerance(deviation=0.2, noise=0.05, base=0.1),
    "q8_0": PrecisionTolerance(deviation=0.2, noise=0.05, base=0.1),
}
COARSE_TOLERANCE = PrecisionTolerance(deviation=0.3, noise=0.1, base=0.4)
"""Of 4 to 6 bits a weight, and of precisions that are not known."""
MAX_TELLING_SHARE = 0.5
"""Tolerance above which a result tells little: an adapter that is half as strong would pass."""
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

        No prompt cache is read. An engine that tells only some tokens (the likeliest, or every
        other one) returns None for the others; the same tokens have to be told for the base model
        and the adapter, or they do not count.
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
        weights = require_manifest(adapter.folder).checksums[WEIGHTS_FILE]
        stored = read_effect_probe(adapter.folder, weights, self.base_model_hash)
        if stored is None:
            return None
        probe, digest = stored
        result = self.results.find(digest, engine=place, precision=self.precision)
        if result is not None:
            _require_shown(result, adapter)
            return None
        return PendingEffect(probe.replies, partial(self._judge, adapter, place, probe, digest))

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
        begun = time.monotonic()
        base = await scorer.score_replies(None, effect.replies)
        tuned = await scorer.score_replies(adapter, effect.replies)
        cache = await _ask_cache(scorer, adapter, other, effect.cache_text)
        measurement = EffectMeasurement(base, tuned, cache, time.monotonic() - begun)
        await asyncio.to_thread(effect.judge, measurement)

    def _judge(
        self,
        adapter: AdapterRef,
        place: str,
        probe: EffectProbe,
        digest: str,
        measurement: EffectMeasurement,
    ) -> None:
        """Store the result of a probe. Raises `EffectError` and `CacheLeakError`."""
        compared = compare_effect(probe, measurement.base, measurement.tuned, self.precision)
        figures = asdict(compared)
        if measurement.cache and measurement.cache.leaks and compared.verdict != "refused":
            figures["verdict"] = "leaks"
        result = EffectResult(
            persona=adapter.persona_id,
            version=adapter.version,
            probe=digest,
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


@dataclass(frozen=True)
class EffectComparison:
    """Figures of a probe as in `EffectResult`, and the verdict on them."""

    verdict: EffectVerdict
    tokens: int
    expected_base: float
    shown_base: float
    expected_shift: float
    shown_shift: float
    deviation: float
    tolerance: float


def compare_effect(
    probe: EffectProbe,
    base: Sequence[TokenLogprobs],
    tuned: Sequence[TokenLogprobs],
    precision: str,
) -> EffectComparison:
    """Compare what an engine shows of a probe with what training measured, over the tokens that the
    engine told of both sides. Raises `EffectError` where it told none.

    The shifts are compared token by token. Their means alone differ little where an adapter is half
    as strong: of the version's own replies, the first half of its effect brings most.
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
    effect = _root_mean_square(expected)
    deviation = _root_mean_square(shown - expected)
    limits = TOLERANCES.get(precision, COARSE_TOLERANCE)
    allowed = max(limits.deviation * effect, limits.noise)
    verdict: EffectVerdict = "shown"
    if deviation > allowed or abs(shown_base - expected_base) > limits.base:
        verdict = "refused"
    elif allowed > effect * MAX_TELLING_SHARE:
        verdict = "too weak"
    return EffectComparison(
        verdict=verdict,
        tokens=len(rows),
        expected_base=expected_base,
        shown_base=shown_base,
        expected_shift=float(expected.mean()),
        shown_shift=float(shown.mean()),
        deviation=deviation / max(effect, SMALLEST_EFFECT),
        tolerance=allowed / max(effect, SMALLEST_EFFECT),
    )


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
    gap = result.shown_base - result.expected_base
    if abs(gap) > TOLERANCES.get(result.precision, COARSE_TOLERANCE).base:
        raise EffectError(
            f"{result.engine} does not compute the base model that {name} was trained on: it gives "
            f"{result.shown_base:.3f} nats per token of its probe, and training measured "
            f"{result.expected_base:.3f}.",
            "Serve the base model that the version's manifest names.",
        )
    raise EffectError(
        f"{result.engine} does not show the effect of {name}: it makes the replies of its probe "
        f"likelier by {result.shown_shift:.3f} nats per token, and training measured "
        f"{result.expected_shift:.3f}; token by token they differ by {result.deviation:.0%} of the "
        f"effect, where {result.precision} allows {result.tolerance:.0%}.",
        NO_EFFECT_ADVICE,
    )
