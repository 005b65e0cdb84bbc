"""Measurements that criteria are judged by, and the p-values of the gate's tests (normal, Fisher,
Holm).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

from personas.schemas.scorecard import (
    GENERAL_VOICE,
    MEMBERS_VOICE,
    Interval,
    ScoreCard,
    Side,
    VoiceScores,
)

UNIT_NATS = "nats per token"
UNIT_SHARE = "share"
UNIT_TIMES = "times"

STANDARD_NORMAL = NormalDist()
NORMAL_QUANTILE_975 = STANDARD_NORMAL.inv_cdf(0.975)
"""Standard errors that a 95 % interval reaches to each side."""

PValue = Callable[[float], float]


@dataclass(frozen=True)
class CriterionInfo:
    """A criterion's title and unit; `at_least` marks values where more is better."""

    title: str
    unit: str = UNIT_SHARE
    at_least: bool = False


CRITERIA: Mapping[str, CriterionInfo] = {
    "better_than_base": CriterionInfo("better than the base model", UNIT_NATS),
    "no_worse_than_live": CriterionInfo("no worse than the live version", UNIT_NATS),
    "own_adapter": CriterionInfo("its own adapter fits best", at_least=True),
    "voice": CriterionInfo("speaks in the persona's voice", "of the ceiling", at_least=True),
    "voice_over_base": CriterionInfo("closer to the voice than the base model", at_least=True),
    "voice_kept": CriterionInfo("voice no worse than the live version's", "share fewer"),
    "facts": CriterionInfo("knows the lore", "share fewer"),
    "contradictions": CriterionInfo("does not contradict the lore", "share more"),
    "in_character": CriterionInfo("stays in character", "share do not"),
    "length": CriterionInfo("as long as real replies", UNIT_TIMES),
    "repetition": CriterionInfo("does not repeat itself"),
    "ends": CriterionInfo("ends its replies", at_least=True),
    "general": CriterionInfo("general dialogue kept"),
    "instructions": CriterionInfo("instructions kept"),
    "verbatim": CriterionInfo("not memorised"),
    "fitting": CriterionInfo("not overfitted", UNIT_NATS),
    "safety": CriterionInfo("no less safe", "share more"),
    "members": CriterionInfo("members do not prefer the other", at_least=True),
    "thumbs": CriterionInfo("members do not dislike it more", UNIT_TIMES),
    "enough": CriterionInfo("enough training data", "replies", at_least=True),
    "repeated": CriterionInfo("no duplicates"),
    "unseen": CriterionInfo("held-out replies unseen"),
    "speakers": CriterionInfo("speakers labelled correctly"),
    "one_voice": CriterionInfo("one persona's words"),
    "steady": CriterionInfo("steady training"),
    "private": CriterionInfo("nothing private", "pieces"),
    "base_is_base": CriterionInfo("base model unchanged", "in logits"),
}


@dataclass(frozen=True)
class CriterionMeasurement:
    """A measured value of one of `CRITERIA`, None if it was not measured.

    `shown` replaces the value in the comparison with the warning threshold. `chance` gives a test's
    p-value: the probability of this measurement or a worse one if the truth were exactly at a
    threshold. `cases` is the number of prompts or replies behind the value, which may be too small
    to judge.
    """

    name: str
    value: float | None
    why: str
    shown: float | None = None
    chance: PValue | None = None
    cases: int | None = None

    @property
    def info(self) -> CriterionInfo:
        """The criterion's title, unit and direction."""
        return CRITERIA[self.name]


def reference_side(card: ScoreCard) -> Side:
    """Return the side that the new version is compared with: the live version if there is one, else
    the base model.
    """
    return "live" if "live" in card.adapters else "base"


def other_personas(voice: VoiceScores, persona: str | None) -> dict[str, float]:
    """Return the shares of the persona's trained replies that are attributed to other personas."""
    known = {persona, MEMBERS_VOICE, GENERAL_VOICE, "nobody"}
    return {name: share for name, share in voice.trained_as.items() if name not in known}


def p_value_of_interval(measured: Interval) -> PValue:
    """Return the probability of the estimate or more if the truth were at a threshold.

    Uses the normal distribution with the standard error implied by the interval's lower half, so
    that the p-value is 2.5 % if the interval begins at the threshold.
    """

    def chance(threshold: float) -> float:
        error = (measured.estimate - measured.low) / NORMAL_QUANTILE_975
        above = measured.estimate - threshold
        if error <= 0:
            return 0.0 if above > 0 else 1.0
        return 1 - STANDARD_NORMAL.cdf(above / error)

    return chance


def fisher_p_value(new: float, rival: float, count: int) -> PValue:
    """Return the probability of this share of `count` trials or a larger one if both sides had the
    same rate.

    Fisher's exact test of two shares with as many trials each. Runs with several seeds count as one
    trial because they answer the same prompt. The test only supports a threshold of 0 and raises
    `ValueError` for any other.
    """

    def chance(threshold: float) -> float:
        if threshold:
            raise ValueError("a test of two shares needs a threshold of 0")
        mine = round(new * count)
        both = mine + round(rival * count)
        ways = 0
        # Of all ways to divide these cases between two sides, those with as many or more on mine.
        for cases in range(mine, min(both, count) + 1):
            ways += math.comb(count, cases) * math.comb(count, both - cases)
        return ways / math.comb(2 * count, both)

    return chance


def holm_rejections(chances: Mapping[str, float], error_rate: float) -> frozenset[str]:
    """Return the tests that fail, with a family-wise error rate of at most `error_rate`.

    Holm's step-down procedure (S. Holm, "A simple sequentially rejective multiple test procedure",
    1979).
    """
    failed: set[str] = set()
    for place, name in enumerate(sorted(chances, key=lambda name: (chances[name], name))):
        if chances[name] > error_rate / (len(chances) - place):
            break
        failed.add(name)
    return frozenset(failed)
