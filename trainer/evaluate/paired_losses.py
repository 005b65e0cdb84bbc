"""Losses of the same replies under several candidates, with bootstrap intervals, and their score
card sections.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from personas.prompt.renderer import Renderer, TokenizedSample
from personas.schemas.scorecard import GeneralScores, HoldoutScores, Interval, Side
from trainer.dataset.dataset import Dataset
from trainer.dataset.quality_filters import find_language_file
from trainer.evaluate.candidates import BASE, LIVE, NEW, Candidates
from trainer.schemas import PromptReply
from trainer.train.losses import ReplyLoss, TokenLosses, mean_loss, measure_token_losses

INSTRUCTIONS_FILE = Path(__file__).parents[2] / "data" / "instructions" / "instructions.jsonl"
"""Short tasks and answers, which no run trains on."""
REPLIES_PER_STEP = 16  # replies measured under each side between two checks of the time
PERMUTATION_SEED = 0
CandidateName = TypeVar("CandidateName", bound=str)
UseCandidate = Callable[[CandidateName], AbstractContextManager[Any]]
RESAMPLES = 10_000
SEED = 0
CONFIDENCE_LEVEL = 0.95
MIN_PERCENTILE_TALKS = 10
MAX_DRAWS_PER_ARRAY = 2**22  # conversations drawn into one array of some 100 MB
FloatArray = NDArray[np.float64]


class TimeBudget:
    """Seconds for a part of the evaluation, counted from construction.

    Sections reduce their number of prompts when little is left, but never to none, and report the
    number.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.seconds = seconds
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Remaining seconds, at least 0."""
        return max(0.0, self._end - self.clock())

    @property
    def is_spent(self) -> bool:
        """True if no time is left."""
        return self.left <= 0

    def part(self, share: float) -> TimeBudget:
        """Return a budget of a share (0 to 1) of the remaining time, starting now."""
        return TimeBudget(self.left * share, self.clock)


@dataclass(frozen=True)
class PairedLosses(Generic[CandidateName]):
    """`places` are the indices of the measured samples, in order; `losses` their losses by side."""

    places: tuple[int, ...]
    losses: Mapping[CandidateName, Sequence[TokenLosses]]

    def whole(self, name: CandidateName) -> list[ReplyLoss]:
        """Return each reply's loss under a side, end of turn included."""
        return [losses.whole for losses in self.losses[name]]

    def means(self) -> dict[CandidateName, float]:
        """Return nats per reply token, by side."""
        return {name: mean_loss(self.whole(name)) for name in self.losses}

    def chosen(self, items: Sequence[Any]) -> list[Any]:
        """Select the items of the measured samples."""
        return [items[place] for place in self.places]


def paired_losses(
    use: UseCandidate[CandidateName],
    names: Sequence[CandidateName],
    samples: Sequence[TokenizedSample],
    budget: TimeBudget | None = None,
    *,
    between: Callable[[], None] = lambda: None,
    known: Mapping[CandidateName, Sequence[TokenLosses]] | None = None,
) -> PairedLosses[CandidateName]:
    """Measure the losses of the samples under each side.

    With a budget, samples are measured in a fixed random order until it is spent, at least
    `REPLIES_PER_STEP`. `known` are losses of all samples for sides measured before.
    """
    order = list(range(len(samples)))
    step = max(1, len(samples))
    if budget:
        # All sides measure a few samples before any measures more, so that each has the same ones
        # whenever time runs out. A random order makes them a fair sample; a fixed one makes two
        # evaluations comparable.
        order = np.random.default_rng(PERMUTATION_SEED).permutation(len(samples)).tolist()
        step = REPLIES_PER_STEP
    by_side: dict[CandidateName, dict[int, TokenLosses]] = {name: {} for name in names}

    def measure(places: Sequence[int]) -> None:
        chosen = [samples[place] for place in places]
        for name, losses in by_side.items():
            if known and name in known:
                losses.update((place, known[name][place]) for place in places)
                continue
            with use(name) as model:
                measured = measure_token_losses(model, chosen, between)
            losses.update(zip(places, measured, strict=True))

    for begin in range(0, len(order), step):
        if begin and budget and budget.is_spent:
            break
        measure(order[begin : begin + step])
    places = tuple(sorted(next(iter(by_side.values()), {})))
    losses_in_order: dict[CandidateName, list[TokenLosses]] = {}
    for name, losses in by_side.items():
        losses_in_order[name] = [losses[place] for place in places]
    return PairedLosses(places, losses_in_order)


def bootstrap_ratio(
    talks: Sequence[str], above: Sequence[float], below: Sequence[float]
) -> Interval:
    """Return the ratio of the sums of `above` and `below` (one value each per reply) with its 95 %
    interval.

    A seeded percentile bootstrap over the conversations (`talks`) of the replies. As percentile
    intervals are slightly narrow, they are widened by the ratio of Student's t to the normal
    distribution (the expanded percentile interval of Hesterberg, arXiv 1411.5279). With fewer than
    `MIN_PERCENTILE_TALKS` conversations, the interval is Student's t with the bootstrap's standard
    error. Replies of a single conversation are resampled individually. Raises `ValueError` for no
    replies.
    """
    if not talks:
        raise ValueError("no replies to resample")
    units = talks
    if len(set(talks)) == 1:
        units = [str(place) for place in range(len(talks))]
    sums = _sums_by_unit(units, above, below)
    estimate = float(sums[0].sum() / sums[1].sum())
    count = sums.shape[1]
    if count < 2:
        return Interval(estimate=estimate, low=estimate, high=estimate)
    resampled = _resample_ratios(sums)
    wider = _student_factor(count)
    if count < MIN_PERCENTILE_TALKS:
        reach = wider * float(resampled.std())
        return Interval(estimate=estimate, low=estimate - reach, high=estimate + reach)
    tail = NormalDist().cdf(-wider)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(estimate=estimate, low=float(low), high=float(high))


def _student_factor(count: int) -> float:
    """Return the interval's half width in bootstrap standard errors, for at least 2 conversations.

    Uses Student's t; the factor corrects the bootstrap's spread with n in place of n - 1.
    """
    return math.sqrt(count / (count - 1)) * float(stdtrit(count - 1, (1 + CONFIDENCE_LEVEL) / 2))


def _sums_by_unit(
    units: Sequence[str], above: Sequence[float], below: Sequence[float]
) -> FloatArray:
    """Sum both per unit, [2, units]."""
    _, places = np.unique(np.asarray(units), return_inverse=True)
    above_sums = np.bincount(places, weights=np.asarray(above, dtype=np.float64))
    below_sums = np.bincount(places, weights=np.asarray(below, dtype=np.float64))
    return np.stack([above_sums, below_sums])


def _resample_ratios(sums: FloatArray) -> FloatArray:
    """Return the ratio of each resample, [RESAMPLES]."""
    # The same seed every time: a score card that is made again has the same intervals.
    draw = np.random.default_rng(SEED)
    count = sums.shape[1]
    at_once = max(1, MAX_DRAWS_PER_ARRAY // count)
    ratios: list[FloatArray] = []
    for begin in range(0, RESAMPLES, at_once):
        drawn = draw.integers(0, count, (min(at_once, RESAMPLES - begin), count))
        above = sums[0][drawn].sum(1)
        below = sums[1][drawn].sum(1)
        ratios.append(above / below)
    return np.concatenate(ratios)


def heldout_section(
    measured: PairedLosses[Side], pairs: Sequence[PromptReply], end_tokens: int
) -> HoldoutScores:
    """Build the section from losses of all held-out replies. `end_tokens` is the length of the end
    of turn.
    """
    talks = [pair.talk for pair in pairs]
    against_live = None
    if LIVE in measured.losses:
        against_live = loss_difference(talks, measured.whole(NEW), measured.whole(LIVE))
    loss_without_end: dict[Side, float] = {}
    for side, losses in measured.losses.items():
        loss_without_end[side] = mean_loss([reply.without(end_tokens) for reply in losses])
    return HoldoutScores(
        conversations=len(set(talks)),
        replies=len(talks),
        tokens=sum(loss.tokens for loss in measured.whole(NEW)),
        loss=measured.means(),
        loss_without_end=loss_without_end,
        against_base=loss_difference(talks, measured.whole(NEW), measured.whole(BASE)),
        against_live=against_live,
    )


def loss_difference(
    talks: Sequence[str], losses: Sequence[ReplyLoss], compared: Sequence[ReplyLoss]
) -> Interval:
    """Return the difference in loss of the same replies between two sides, in nats per token."""
    more = [loss.nll - other.nll for loss, other in zip(losses, compared, strict=True)]
    return bootstrap_ratio(talks, more, [loss.tokens for loss in losses])


def general_section(
    dialogue: PairedLosses[Side], data: Dataset, instructions: PairedLosses[Side] | None = None
) -> GeneralScores:
    """Build the section from both sets of losses; instructions are optional."""
    talks = [pair.talk for pair in dialogue.chosen(data.general_prompt_replies)]
    section = GeneralScores(
        dialogue_loss=dialogue.means(),
        dialogue_change=_relative_change(talks, dialogue),
        dialogue_replies=len(dialogue.places),
    )
    if instructions is None:
        return section
    units = [str(place) for place in instructions.places]
    fields = {
        "instruction_loss": instructions.means(),
        "instruction_change": _relative_change(units, instructions),
        "instruction_replies": len(instructions.places),
    }
    return section.model_copy(update=fields)


def instruction_losses(
    sides: Candidates, language: str, budget: TimeBudget, between: Callable[[], None]
) -> PairedLosses[Side]:
    """Measure losses on instruction replies in a language, or in English if there are none."""
    samples = instruction_samples(Renderer(sides.tokenizer), language)
    return paired_losses(sides.use, sides.names, samples, budget, between=between)


def instruction_samples(renderer: Renderer, language: str = "en") -> list[TokenizedSample]:
    """Render the shipped instructions with their answers."""
    file = find_language_file(INSTRUCTIONS_FILE, language) or INSTRUCTIONS_FILE
    samples = []
    for line in file.read_text(encoding="utf-8").splitlines():
        *prompt, answer = json.loads(line)["messages"]
        samples.append(renderer.sample_from_messages(prompt, answer["content"]))
    return samples


def _relative_change(talks: Sequence[str], measured: PairedLosses[Side]) -> Interval:
    """Return the increase of the new version's loss relative to the base's."""
    new = [loss.nll for loss in measured.whole(NEW)]
    base = [loss.nll for loss in measured.whole(BASE)]
    more = [loss - other for loss, other in zip(new, base, strict=True)]
    return bootstrap_ratio(talks, more, base)
