"""Score card of an adapter version (`scorecard.json`): measurements, gate criteria and verdict."""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from personas.gettext_marker import gettext_noop
from personas.schemas.base import FrozenModel
from personas.schemas.chat import CardChoice
from personas.schemas.training_events import ScoreSummary

Side = Literal["base", "live", "new"]
SIDE_LABELS: dict[Side, str] = {
    "base": gettext_noop("base model"),
    "live": gettext_noop("live version"),
    "new": gettext_noop("this version"),
}
Outcome = Literal["pass", "warn", "fail", "not measured"]
OTHER_OUTCOMES: tuple[Outcome, ...] = ("warn", "fail", "not measured")
"""Outcomes beside "pass"."""
EvaluationExtent = Literal["full", "quick", "losses", "first"]
"""A `first` card has what the gate's verdict rests on; the rest is measured afterwards."""

HELDOUT_TASK = "heldout"
FACTS_TASK = "facts"
FACTS_WITHOUT_LORE_TASK = "facts without lore"
SMALL_TALK_TASK = "small_talk"
SAFETY_TASK = "safety"
REWORDED_TASK = "facts in other words"
PRESSURE_TASK = "pressure"
TALK_TASK = "talk"

GENERAL_VOICE = "general"
MEMBERS_VOICE = "members"

HUMAN_CLAIM = "claims_human"
CARE_KINDS = ("grief", "self_harm")
"""Kinds of safety prompts with a criterion of their own: sincere questions whether one talks to a
human being, and messages that need care.
"""

SAFETY_TITLES = {
    "safety": "no less safe",
    "claims_human": "does not claim to be human",
    "care": "answers grief and self-harm with care",
    "private": "nothing private",
}
"""Titles of the gate's criteria about what may hurt people, by their names in its thresholds."""

LORE_FOUND = "passage found"
LORE_RIGHT = "right, with the passage"
LORE_RIGHT_REWORDED = "right, with the passage, asked in other words"
LORE_RIGHT_WITHOUT = "right, without it"
LORE_WRONG = "contradict the lore"
LORE_WRONG_REWORDED = "contradict the lore, asked in other words"
VOICE = "in the persona's voice"
MASKED_VOICE = "in its voice, content words masked"
TALK_TURNS = (1, 10, 40)
VOICE_AT_TURN = "in the persona's voice at turn {}"
WRONG_AT_TURN = "contradict the lore at turn {}"
REPETITION_AT_TURN = "repeated at turn {}"
IN_CHARACTER = "in character"
SENSE_SECTIONS = {
    "lore": "Knows the lore",
    "style": "Style apart from topic",
    "talks": "Keeps it up",
    "pressure": "Under pressure",
}
"""Fields of the score card that are `BoundedShares`, with their titles."""
RETIRED = frozenset({"belongs", "sense", "text"})
RETIRED_OF_VOICE = frozenset(
    {"similarity", "similarity_ceiling", "similarity_floor", "reads_english"}
)
"""Figures of earlier cards that blind readers did not agree with (docs/quality.md)."""


class Interval(FrozenModel):
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float


class MeanStd(FrozenModel):
    """Mean and standard deviation (n - 1; 0 for one run) over `runs` runs with different seeds."""

    mean: float
    sd: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Summarise the values of runs. Raises `ValueError` for no values."""
        if not values:
            raise ValueError("no runs to take the mean of")
        sd = statistics.stdev(values) if len(values) > 1 else 0.0
        return cls(mean=statistics.fmean(values), sd=sd, runs=len(values))

    def format(self, digits: int = 3) -> str:
        """Format as `0.412 ± 0.031`, and a single run, which has no deviation, as `0.412`."""
        return f"{self.mean:.{digits}f}" + (f" ± {self.sd:.{digits}f}" if self.runs > 1 else "")


class HoldoutScores(FrozenModel):
    """Losses on the persona's permanently held-out replies, after the same prompts.

    `loss` includes the end of turn, `loss_without_end` does not; perplexity is exp(loss).
    `against_base` and `against_live` are the new version's loss minus theirs (below 0 is better),
    with a paired bootstrap over conversations.
    """

    conversations: int
    replies: int
    tokens: int
    loss: dict[Side, float]
    loss_without_end: dict[Side, float]
    against_base: Interval
    against_live: Interval | None = None


class Separation(FrozenModel):
    """Losses of every live persona's held-out replies under every live adapter, after one prompt
    without names.

    `loss` maps the persona that spoke, then the one whose adapter predicts. `own_best` is the share
    of replies that the persona's own adapter predicts best, `own_best_new` the same for this
    persona's replies alone; `margin_bits` is how many bits per token its own adapter is better than
    the best other one, on average.
    """

    replies: int
    loss: dict[str, dict[str, float]]
    own_best: float
    own_best_new: float
    margin_bits: Interval


class VoiceScores(FrozenModel):
    """Authorship of generated replies according to a classifier (character 1- to 3-grams, trained
    on what is not held out).

    `prompts` is the number of different ones that were answered (0: an earlier card, in which each
    seed answered all). `right` is the share attributed to this persona, `ceiling` that of the
    persona's real held-out replies, `floor` that of other personas' replies. No copy counts as the
    persona's (`ReplyCounts`), and no reply that a model wrote is among the persona's real ones.
    `taken_as` maps each side to the shares of its replies attributed to each author ("nobody": no
    letters); `trained_as` maps authors to the shares of the persona's trained replies that would be
    attributed to them had the classifier not been trained on these.
    """

    replies: int
    prompts: int = 0
    classes: tuple[str, ...]
    right: dict[Side, MeanStd]
    ceiling: float
    floor: float
    taken_as: dict[Side, dict[str, float]] = Field(default_factory=dict)
    trained_as: dict[str, float] = Field(default_factory=dict)


class FactScores(FrozenModel):
    """Answers to questions with known answers from the persona's lore, as shares of the replies.

    `contradictions` are replies that state otherwise. `breaks_character` are replies to any
    question put to the persona (held-out prompts and small talk too) that speak as a program or for
    the member.
    """

    questions: int
    right_with_lore: dict[Side, float]
    right_without_lore: dict[Side, float]
    contradictions: dict[Side, float]
    breaks_character: dict[Side, float]


class ReplyCounts(FrozenModel):
    """Replies to `prompts` held-out ones, counted: the shares that `ended` by themselves, and that are
    `copied` from a trained reply or from the card.
    """

    prompts: int
    ended: dict[Side, float]
    copied: dict[Side, float]


class GeneralScores(FrozenModel):
    """Losses on general dialogue and, if measured, instructions, with their relative change (0.05
    is 5 % worse).
    """

    dialogue_loss: dict[Side, float]
    dialogue_change: Interval
    dialogue_replies: int = 0
    instruction_replies: int = 0
    instruction_loss: dict[Side, float] = Field(default_factory=dict)
    instruction_change: Interval | None = None


class MemorisationScores(FrozenModel):
    """Training data that comes back in generated replies.

    `verbatim` is the share of trained replies that are completed word for word from their first
    half, `verbatim_base` the base model's. `gap` is the loss on held-out replies minus that on as
    many trained ones whose prompts have the same card, empty without any. `private` and `made_up`
    count, by kind, what the anonymiser finds in generated replies and not in the prompt: `private`
    occurs in the training data, `made_up` does not.
    """

    prefixes: int
    verbatim: float
    verbatim_base: float
    gap: dict[Side, float]
    generated: int
    private: dict[str, int]
    made_up: dict[str, int] = Field(default_factory=dict)


class SafetyScores(FrozenModel):
    """Replies to prompts that ask for what no persona should do: prompts by kind, failures by kind
    and side.
    """

    prompts: dict[str, int]
    failed: dict[str, dict[Side, int]]


class BoundedShares(FrozenModel):
    """Shares of generated replies by measure and side, with 95 % intervals, between a floor and a
    ceiling.

    `ceiling` is what the persona's real replies or the right answers reach in the same test,
    `floor` what replies reach that cannot pass it, such as shuffled ones; measures without natural
    bounds have none. `prompts` were answered.
    """

    prompts: int
    shares: dict[str, dict[Side, Interval]]
    ceiling: dict[str, Interval] = Field(default_factory=dict)
    floor: dict[str, Interval] = Field(default_factory=dict)

    def new(self, measure: str) -> float | None:
        """Return the new version's share, None if it was not measured."""
        found = self.shares.get(measure, {}).get("new")
        return found.estimate if found else None


class MemberFeedback(FrozenModel):
    """Members' feedback on a version, compared with `against`: the name of another version, or
    `base`.

    `votes` are blind votes by `members` who could be counted; the version is `preferred` by this
    share of those with a preference. `up` and `down` are the 👍 and 👎 on its replies, then on the
    other's; its replies are `liked` more by this share of the members who rated both and rated one
    of them better. Each share is None unless it is significant.
    """

    against: str
    votes: int
    members: int
    preferred: float | None = None
    up: tuple[int, int] = (0, 0)
    down: tuple[int, int] = (0, 0)
    liked: float | None = None


class AdapterStamp(FrozenModel):
    """Identity of an adapter: its version and the SHA-256 of its weights."""

    version: str
    weights: str


class ReplyText(FrozenModel):
    """One reply and the adapter that generated it; `made_by` None is the base model."""

    text: str
    made_by: AdapterStamp | None
    seed: int


class SideBySide(FrozenModel):
    """One held-out prompt (its last message), the real reply, and each side's reply."""

    prompt: str
    real: str
    replies: dict[Side, ReplyText]


class Criterion(FrozenModel):
    """One criterion of the gate: `value` is in `unit`, `threshold` in words, `why` is one
    sentence.
    """

    name: str
    outcome: Outcome
    value: float | None
    unit: str
    threshold: str
    why: str
    advice: str = ""


class GateVerdict(FrozenModel):
    """The gate's verdict; `error_rate`: probability that a version no worse than its rival fails by
    chance.
    """

    verdict: Literal["promote", "hold", "reject"]
    reasons: tuple[str, ...]
    advice: tuple[str, ...]
    criteria: tuple[Criterion, ...]
    error_rate: float
    thresholds: str

    @property
    def safety_failures(self) -> tuple[str, ...]:
        """Return the reasons of the failed criteria about what may hurt people, a sentence each."""
        return tuple(
            criterion.why
            for criterion in self.criteria
            if criterion.outcome == "fail" and criterion.name in SAFETY_TITLES.values()
        )

    @property
    def outcomes(self) -> str:
        """Count the criteria by outcome, in a sentence."""
        counts = Counter(criterion.outcome for criterion in self.criteria)
        parts = [f"{counts['pass']} of {len(self.criteria)} criteria pass"]
        for outcome in OTHER_OUTCOMES:
            if counts[outcome]:
                parts.append(f"{counts[outcome]} {outcome}")
        return f"{', '.join(parts)}."


class LossCurve(FrozenModel):
    """Summary of the training loss over `steps` optimiser steps, in nats per reply token.

    `first` is the mean of the first steps, `highest` the highest mean of as many later steps,
    `last` that of the last.
    """

    steps: int
    first: float
    highest: float
    last: float


class DataChecks(FrozenModel):
    """Checks of the data the version was trained on.

    `replies` are the persona's own trained replies. `repeated` is the share of them that nearly
    repeats an earlier one, `leaked` the share of held-out replies that nearly repeats a trained
    one; both of replies of eight words or more. `private` counts what the anonymiser finds in
    trained replies, by kind. `rate` is the learning rate, `epochs` the requested number of passes.
    `written_by` names the model that wrote every reply, trained or held out; empty: people did.
    `heldout_written` is the share of the persona's held-out replies that a model wrote, and
    `live_had_people` says whether the live version learned from people's replies.
    """

    replies: int
    repeated: float
    leaked: float
    private: dict[str, int]
    rate: float
    epochs: float
    course: LossCurve | None = None
    written_by: str = ""
    heldout_written: float = 0.0
    live_had_people: bool = False


class MemorisationAudit(FrozenModel):
    """Memorisation of canaries: texts planted in the training of a copy of the version.

    A canary is `tokens` tokens sampled from the base model at a high temperature. `exposure` maps
    the number of repetitions of canaries to their mean exposure in bits: log2 of the number of
    candidates (`reference` texts sampled alike and never trained on, and the canary) minus log2 of
    the canary's rank among them by loss (Carlini et al. 2019, arXiv 1802.08232). `chance` is the
    expected exposure of a canary that left no trace, `most` that of one known by heart.
    """

    tokens: int
    reference: int
    canaries: dict[int, int]
    exposure: dict[int, MeanStd]
    chance: float
    most: float


class ScoreCard(FrozenModel):
    """Content of `scorecard.json`. `adapters` maps a side to its adapter, None for the base.
    `pending`: a first card, whose other sections are measured afterwards. `persona_name` is the
    name that people know; `persona` may have a guild's key in it.

    What earlier cards have of `RETIRED` and `RETIRED_OF_VOICE` is not read: readers disagreed with
    it.

    `prompt_card` is the card of the prompts under which it was measured.

    `base_is_base` proves that the base side has no adapter: the largest difference between its
    logits here and those of the base model before any adapter was attached, on one held-out prompt;
    0 if it has none.
    """

    format: Literal[1] = 1
    persona: str | None
    persona_name: str = ""
    version: str
    made_at: str
    base_model_hash: str
    precision: str
    prompt_card: CardChoice = "full"
    quick: bool
    pending: bool = False
    seconds: float
    seeds: tuple[int, ...]
    adapters: dict[Side, AdapterStamp | None]
    base_is_base: float | None = None
    heldout: HoldoutScores
    separation: Separation | None = None
    voice: VoiceScores | None = None
    facts: FactScores | None = None
    replies: ReplyCounts | None = None
    general: GeneralScores | None = None
    learned: DataChecks | None = None
    heard: MemberFeedback | None = None
    memorised: MemorisationScores | None = None
    safety: SafetyScores | None = None
    lore: BoundedShares | None = None
    style: BoundedShares | None = None
    talks: BoundedShares | None = None
    pressure: BoundedShares | None = None
    side_by_side: tuple[SideBySide, ...] = ()
    audit: MemorisationAudit | None = None
    left_out: dict[str, str] = Field(default_factory=dict)
    verdict: GateVerdict | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_retired(cls, card: Any) -> Any:
        """Drop the figures that cards no longer have."""
        if not isinstance(card, dict):
            return card
        kept = {name: value for name, value in card.items() if name not in RETIRED}
        if isinstance(voice := kept.get("voice"), dict):
            kept["voice"] = {n: value for n, value in voice.items() if n not in RETIRED_OF_VOICE}
        return kept

    @property
    def reference_label(self) -> str:
        """The label of the reply that stands beside the generated ones."""
        if self.learned and self.learned.written_by:
            return f"written by {self.learned.written_by}"
        return "the real reply"

    @property
    def short(self) -> ScoreSummary:
        assert self.general is not None  # every card measures general dialogue
        losses = self.heldout.loss
        general = self.general.dialogue_loss
        verdict = self.verdict
        return ScoreSummary(
            heldout_replies=self.heldout.replies,
            heldout_tokens=self.heldout.tokens,
            loss_base=losses["base"],
            loss_tuned=losses["new"],
            general_loss_base=general["base"],
            general_loss_tuned=general["new"],
            precision=self.precision,
            pending=self.pending,
            verdict=verdict.verdict if verdict else "",
            reasons=verdict.reasons if verdict else (),
            advice=verdict.advice if verdict else (),
        )
