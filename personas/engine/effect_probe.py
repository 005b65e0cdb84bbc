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

from personas.errors import AdapterError
from personas.home.adapters import WEIGHTS_FILE, require_manifest
from personas.home.effect_probe import EffectResults, read_effect_probe
from personas.schemas.chat import AdapterRef
from personas.schemas.effect_probe import (
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

    `share` is that of the expected shift, `shift` the least difference in nats per token, and
    `base` the difference of the base model's log-probabilities.
    """

    share: float
    shift: float
    base: float


TOLERANCES = {
    "float32": PrecisionTolerance(share=0.1, shift=0.02, base=0.05),
    "bfloat16": PrecisionTolerance(share=0.1, shift=0.02, base=0.05),
    "float16": PrecisionTolerance(share=0.1, shift=0.02, base=0.05),
    "int8": PrecisionTolerance(share=0.1, shift=0.03, base=0.1),
    "q8_0": PrecisionTolerance(share=0.1, shift=0.03, base=0.1),
}
COARSE_TOLERANCE = PrecisionTolerance(share=0.15, shift=0.05, base=0.4)
"""Of 4 to 6 bits a weight, and of precisions that are not known."""
WEAK_SHIFT_FACTOR = 2.0
"""A shift below so many tolerances cannot be told from none."""


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
class PendingEffect:
    """An effect that an engine still has to show of an adapter.

    `judge` gets the replies' log-probabilities under the base model and under the adapter, and the
    seconds that they took. It raises `EffectError` for another adapter's.
    """

    replies: Sequence[TokenizedReply]
    judge: Callable[[Sequence[TokenLogprobs], Sequence[TokenLogprobs], float], None]


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

    async def check(self, scorer: ReplyScorer, adapter: AdapterRef) -> None:
        """Have an engine show an adapter's effect unless it has. Raises `EffectError`, or the
        engine's own `UnderstudyError`.
        """
        effect = await asyncio.to_thread(self.pending, adapter, scorer.place)
        if effect is None:
            return
        begun = time.monotonic()
        base = await scorer.score_replies(None, effect.replies)
        tuned = await scorer.score_replies(adapter, effect.replies)
        seconds = time.monotonic() - begun
        await asyncio.to_thread(effect.judge, base, tuned, seconds)

    def _judge(
        self,
        adapter: AdapterRef,
        place: str,
        probe: EffectProbe,
        digest: str,
        base: Sequence[TokenLogprobs],
        tuned: Sequence[TokenLogprobs],
        seconds: float,
    ) -> None:
        """Store the result of a probe. Raises `EffectError` unless the engine has shown it."""
        measured = compare_effect(probe, base, tuned, self.precision)
        result = EffectResult(
            persona=adapter.persona_id,
            version=adapter.version,
            probe=digest,
            engine=place,
            precision=self.precision,
            seconds=round(seconds, 3),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            **asdict(measured),
        )
        self.results.store(result)
        _require_shown(result, adapter)


@dataclass(frozen=True)
class EffectComparison:
    """Figures of a probe as in `EffectResult`, and the verdict on them."""

    verdict: EffectVerdict
    tokens: int
    expected_base: float
    shown_base: float
    expected_shift: float
    shown_shift: float
    shift_error: float
    tolerance: float


def compare_effect(
    probe: EffectProbe,
    base: Sequence[TokenLogprobs],
    tuned: Sequence[TokenLogprobs],
    precision: str,
) -> EffectComparison:
    """Compare what an engine shows of a probe with what training measured, over the tokens that the
    engine told of both sides. Raises `EffectError` where it told none.
    """
    rows: list[tuple[float, float, float, float]] = []
    gaps: list[float] = []  # of each reply: the mean difference of the two shifts
    for reply, base_logprobs, tuned_logprobs in zip(probe.replies, base, tuned, strict=True):
        own = []
        for row in zip(reply.base, reply.tuned, base_logprobs, tuned_logprobs, strict=True):
            if row[2] is not None and row[3] is not None:
                own.append((row[0], row[1], row[2], row[3]))
        if own:
            means = np.mean(own, axis=0)
            gaps.append(float(means[3] - means[2] - (means[1] - means[0])))
        rows += own
    if not rows:
        raise EffectError(
            "The engine tells no log-probabilities of given replies.", NO_EFFECT_ADVICE
        )
    expected_base, expected_tuned, shown_base, shown_tuned = np.mean(rows, axis=0).tolist()
    expected_shift = expected_tuned - expected_base
    shown_shift = shown_tuned - shown_base
    limits = TOLERANCES.get(precision, COARSE_TOLERANCE)
    tolerance = max(limits.shift, limits.share * expected_shift)
    verdict: EffectVerdict = "shown"
    if (
        abs(shown_base - expected_base) > limits.base
        or abs(shown_shift - expected_shift) > tolerance
    ):
        verdict = "refused"
    elif expected_shift < WEAK_SHIFT_FACTOR * tolerance:
        verdict = "too weak"
    return EffectComparison(
        verdict=verdict,
        tokens=len(rows),
        expected_base=expected_base,
        shown_base=shown_base,
        expected_shift=expected_shift,
        shown_shift=shown_shift,
        shift_error=float(np.std(gaps, ddof=1) / len(gaps) ** 0.5) if len(gaps) > 1 else 0.0,
        tolerance=tolerance,
    )


def _require_shown(result: EffectResult, adapter: AdapterRef) -> None:
    """Raise `EffectError` with the expected and the shown figures for a refused result."""
    if result.verdict != "refused":
        return
    name = f"{adapter.persona_id} {adapter.version}"
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
        f"{result.expected_shift:.3f} (± {result.tolerance:.3f}).",
        NO_EFFECT_ADVICE,
    )
