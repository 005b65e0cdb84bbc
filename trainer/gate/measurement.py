"""Measurements that the gate's criteria are judged by."""

from collections.abc import Mapping
from dataclasses import dataclass

from personas.schemas.scorecard import (
    GENERAL_VOICE,
    MEMBERS_VOICE,
    SAFETY_TITLES,
    LossCurve,
    ScoreCard,
    Side,
    VoiceScores,
)
from trainer.gate.significance import PValue

UNIT_NATS = "nats per token"
UNIT_SHARE = "share"
MIN_STEADY_STEPS = 60


@dataclass(frozen=True)
class CriterionInfo:
    """A criterion's title and unit; `at_least` marks values where more is better."""

    title: str
    unit: str = UNIT_SHARE
    at_least: bool = False


CRITERIA: Mapping[str, CriterionInfo] = {
    "better_than_base": CriterionInfo("better than the base model", UNIT_NATS),
    "no_worse_than_live": CriterionInfo("no worse than the live version", UNIT_NATS),
    "people": CriterionInfo("measured with people's replies", at_least=True),
    "own_adapter": CriterionInfo("its own adapter fits best", at_least=True),
    "voice": CriterionInfo("speaks in the persona's voice", "of the ceiling", at_least=True),
    "voice_over_base": CriterionInfo("closer to the voice than the base model", at_least=True),
    "voice_kept": CriterionInfo("voice no worse than the live version's", "share fewer"),
    "facts": CriterionInfo("knows the lore", "share fewer"),
    "contradictions": CriterionInfo("does not contradict the lore", "share more"),
    "in_character": CriterionInfo("stays in character", "share do not"),
    "ends": CriterionInfo("ends its replies", at_least=True),
    "general": CriterionInfo("general dialogue kept"),
    "instructions": CriterionInfo("instructions kept"),
    "verbatim": CriterionInfo("not memorised"),
    "fitting": CriterionInfo("not overfitted", UNIT_NATS),
    "safety": CriterionInfo(SAFETY_TITLES["safety"], "share more"),
    "claims_human": CriterionInfo(SAFETY_TITLES["claims_human"], "of the answers do"),
    "care": CriterionInfo(SAFETY_TITLES["care"], "of the answers do not"),
    "members": CriterionInfo("members do not prefer the other", at_least=True),
    "thumbs": CriterionInfo("members do not dislike it more", at_least=True),
    "enough": CriterionInfo("enough training data", "replies", at_least=True),
    "repeated": CriterionInfo("no duplicates"),
    "unseen": CriterionInfo("held-out replies unseen"),
    "speakers": CriterionInfo("speakers labelled correctly"),
    "one_voice": CriterionInfo("one persona's words"),
    "steady": CriterionInfo("steady training"),
    "private": CriterionInfo(SAFETY_TITLES["private"], "pieces"),
    "base_is_base": CriterionInfo("base model unchanged", "in logits"),
}


@dataclass(frozen=True)
class CriterionMeasurement:
    """A measured value of one of `CRITERIA`, None if it was not measured.

    `shown` replaces the value in the comparison with the warning threshold. `chance` gives a test's
    p-value: the probability of this measurement or a worse one if the truth were exactly at a
    threshold. `cases` is the number of prompts or replies behind the value, which may be too small
    to judge; `few` then takes the place of `why`, which may accuse somebody.
    """

    name: str
    value: float | None
    why: str
    shown: float | None = None
    chance: PValue | None = None
    cases: int | None = None
    few: str = ""

    @property
    def info(self) -> CriterionInfo:
        """The criterion's title, unit and direction."""
        return CRITERIA[self.name]


def reference_side(card: ScoreCard) -> Side:
    """Return the side that the new version is compared with: the live version if there is one, else
    the base model.
    """
    return "live" if "live" in card.adapters else "base"


def loss_rise(curve: LossCurve) -> float:
    """Return the share by which the training loss rose above its start, 0 or less if it did not.

    The means over a few steps of a short run move by several hundredths: its end decides.
    """
    highest = curve.highest if curve.steps >= MIN_STEADY_STEPS else curve.last
    return highest / curve.first - 1


def other_personas(voice: VoiceScores, persona: str | None) -> dict[str, float]:
    """Return the shares of the persona's trained replies that are attributed to other personas."""
    known = {persona, MEMBERS_VOICE, GENERAL_VOICE, "nobody"}  # nobody: texts without letters
    return {name: share for name, share in voice.trained_as.items() if name not in known}
