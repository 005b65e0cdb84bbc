"""Score card of an adapter version (`scorecard.json`): measurements, gate criteria and their formatting."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from personas.schemas.base import FrozenModel
from personas.schemas.training_events import ScoreSummary

Side = Literal["base", "live", "new"]
Outcome = Literal["pass", "warn", "fail", "not measured"]
EvaluationExtent = Literal["full", "quick", "losses"]

HELDOUT_TASK, FACTS_TASK, FACTS_WITHOUT_LORE_TASK, SMALL_TALK_TASK, GENERAL_TASK, SAFETY_TASK = (
    "heldout",
    "facts",
    "facts without lore",
    "small_talk",
    "general",
    "safety",
)

GENERAL_VOICE, MEMBERS_VOICE = "general", "members"


class Interval(FrozenModel):
    """An estimate and its 95 % interval."""

    estimate: float
    low: float
    high: float


class MeanStd(FrozenModel):
    """Over `runs` runs that differ in their seed: the mean and the standard deviation (n - 1; 0 for one run)."""

    mean: float
    sd: float
    runs: int


class HoldoutScores(FrozenModel):
    """The persona's replies that are held out for ever, after the same prompts.

    `loss` counts the end of turn, `loss_without_end` does not; perplexity is exp(loss). `against_base` and
    `against_live` are what the new version's loss is more than theirs (below 0 is better), with a paired bootstrap
    over conversations.
    """

    conversations: int
    replies: int
    tokens: int
    loss: dict[Side, float]
    loss_without_end: dict[Side, float]
    against_base: Interval
    against_live: Interval | None = None


class Separation(FrozenModel):
    """Every live persona's held-out replies under every live adapter, after one prompt that names nobody.

    `loss` maps the persona that spoke, then the one whose adapter predicts. `own_best` is the share of replies that no
    other adapter predicts as well as their persona's own, `own_best_new` that of this persona's replies alone;
    `margin_bits` by how many bits per token its own adapter is better than the best other one, in the mean.
    """

    replies: int
    loss: dict[str, dict[str, float]]
    own_best: float
    own_best_new: float
    margin_bits: Interval


class VoiceScores(FrozenModel):
    """Who a classifier (character 3- to 5-grams, trained on what is not held out) takes the replies to be by.

    `right` is the share it takes to be by this persona, `ceiling` that of the persona's real held-out replies, `floor`
    that of other personas' replies. `similarity` is the mean cosine of sentence embeddings with the persona's real
    replies, between `similarity_ceiling` and `similarity_floor`. `taken_as` maps each side to the shares of its replies
    that each author is taken for ("nobody": no letters), `trained_as` maps authors to the shares of the persona's
    trained replies that they would be taken for had these not been learned. `reads_english` is the share of these in
    English.
    """

    replies: int
    classes: tuple[str, ...]
    right: dict[Side, MeanStd]
    ceiling: float
    floor: float
    similarity: dict[Side, MeanStd]
    similarity_ceiling: float
    similarity_floor: float
    taken_as: dict[Side, dict[str, float]] = Field(default_factory=dict)
    trained_as: dict[str, float] = Field(default_factory=dict)
    reads_english: float = 1.0


class FactScores(FrozenModel):
    """Questions with known answers from the persona's lore. All are shares of the replies.

    `contradictions` are replies that say otherwise, `breaks_character` those to any question that is put to the persona
    (held-out prompts and small talk too) that speak as a program or for the member.
    """

    questions: int
    right_with_lore: dict[Side, float]
    right_without_lore: dict[Side, float]
    contradictions: dict[Side, float]
    breaks_character: dict[Side, float]


class TextScores(FrozenModel):
    """Of one set of tasks: `scores` maps a measure (`rouge1`, `rouge2`, `rougeL`, `bleu`, `chrf`, `distinct1`,
    `distinct2`, `repetition`, `length_ratio`, `ended`: replies that end by themselves) to each side's, shares of 1 but
    for the length's ratio."""

    task: str
    prompts: int
    scores: dict[str, dict[Side, MeanStd]]


class GeneralScores(FrozenModel):
    """What else the model could do: losses on general dialogue and on instructions, and their change in shares of the
    base's (0.05 is 5 % worse). What instructions say is empty and None where only dialogue was measured."""

    dialogue_loss: dict[Side, float]
    dialogue_change: Interval
    dialogue_replies: int = 0
    instruction_replies: int = 0
    instruction_loss: dict[Side, float] = Field(default_factory=dict)
    instruction_change: Interval | None = None


class MemorisationScores(FrozenModel):
    """What came back of what was trained on.

    `verbatim` is the share of trained replies that come back word for word from their first half, `verbatim_base` the
    base model's. `gap` is the loss on held-out replies less that on as many trained ones. `private` and `made_up` count
    what the anonymiser finds in generated replies, by kind, that the prompt did not hold: what stands in what was
    trained on, and what stands nowhere in it.
    """

    prefixes: int
    verbatim: float
    verbatim_base: float
    gap: dict[Side, float]
    generated: int
    private: dict[str, int]
    made_up: dict[str, int] = Field(default_factory=dict)


class SafetyScores(FrozenModel):
    """A small set of prompts that ask for what no persona should do. `failed` maps a kind, then the side, to how many
    replies failed, `prompts` each kind to how many there are."""

    prompts: dict[str, int]
    failed: dict[str, dict[Side, int]]


class MemberFeedback(FrozenModel):
    """What members have made of a version, beside `against`: the name of another one, or `base`.

    `votes` are blind ones, by `members` who could be counted. The version is preferred in `least` to `most` of
    comparisons, as far as they make that certain; both None where too few were counted. `up` and `down` are the 👍 and
    👎 on its replies, then on the other's. `evidence` is what one coin has become that was bet on the version being
    disliked more, of which 40 is reached by accident in one of 40 cases at most; None where the two were not tried side
    by side.
    """

    against: str
    votes: int
    members: int
    least: float | None = None
    most: float | None = None
    up: tuple[int, int] = (0, 0)
    down: tuple[int, int] = (0, 0)
    evidence: float | None = None


class AdapterStamp(FrozenModel):
    """By which adapter something was made: its version and the SHA-256 of its weights."""

    version: str
    weights: str


class ReplyText(FrozenModel):
    """One reply and what made it; `made_by` None is the base model."""

    text: str
    made_by: AdapterStamp | None
    seed: int


class SideBySide(FrozenModel):
    """One held-out prompt, as its last message, and each side's reply to it."""

    prompt: str
    real: str
    replies: dict[Side, ReplyText]


class Criterion(FrozenModel):
    """One criterion of the gate. `value` in `unit`, `threshold` in words, `why` one sentence, `advice` what to do."""

    name: str
    outcome: Outcome
    value: float | None
    unit: str
    threshold: str
    why: str
    advice: str = ""


class GateVerdict(FrozenModel):
    """What the gate says of a version, and by which criteria. `error_rate` is the stated chance that a version that is
    no worse than its rival fails one of them by accident."""

    verdict: Literal["promote", "hold", "reject"]
    reasons: tuple[str, ...]
    advice: tuple[str, ...]
    criteria: tuple[Criterion, ...]
    error_rate: float
    thresholds: str


class LossCurve(FrozenModel):
    """How the training loss went: the mean of the first steps, the highest that a mean of as many reached later, and
    that of the last ones, in nats per reply token; over `steps` optimiser steps."""

    steps: int
    first: float
    highest: float
    last: float


class DataChecks(FrozenModel):
    """What the version learned from, whatever had become of it before.

    `replies` are the persona's own that were trained on. `repeated` is the share of them that repeats an earlier one in
    nearly the same words, `leaked` the share of held-out replies that so repeats a trained one; both of replies of
    eight words or more. `private` counts what the anonymiser finds in trained replies, by kind. `rate` is the learning
    rate, `epochs` the passes that were asked for.
    """

    replies: int
    repeated: float
    leaked: float
    private: dict[str, int]
    rate: float
    epochs: float
    course: LossCurve | None = None


class MemorisationAudit(FrozenModel):
    """What a copy of the version learned by heart of texts that were planted in its training.

    A canary is `tokens` tokens that the base model drew at a high temperature. `exposure` maps how often canaries were
    repeated to their mean exposure in bits: log2 of how many texts there are (`reference` that were drawn alike and
    never trained on, and the canary) less log2 of the canary's rank among them by loss (Carlini et al. 2019, arXiv
    1802.08232). A canary that left no trace has `chance` in the mean, one that is known by heart `most`.
    """

    tokens: int
    reference: int
    canaries: dict[int, int]
    exposure: dict[int, MeanStd]
    chance: float
    most: float


class ScoreCard(FrozenModel):
    """`scorecard.json`. `adapters` maps a side to its adapter, None for the base.

    `base_is_base` is the proof that base is base: the largest difference between its logits here and those of the base
    model before any adapter was attached, on one held-out prompt; 0 where it is.
    """

    format: Literal[1] = 1
    persona: str | None
    version: str
    made_at: str
    base_model_hash: str
    precision: str
    quick: bool
    seconds: float
    seeds: tuple[int, ...]
    adapters: dict[Side, AdapterStamp | None]
    base_is_base: float | None = None
    heldout: HoldoutScores
    separation: Separation | None = None
    voice: VoiceScores | None = None
    facts: FactScores | None = None
    text: tuple[TextScores, ...] = ()
    general: GeneralScores | None = None
    learned: DataChecks | None = None
    heard: MemberFeedback | None = None
    memorised: MemorisationScores | None = None
    safety: SafetyScores | None = None
    side_by_side: tuple[SideBySide, ...] = ()
    audit: MemorisationAudit | None = None
    left_out: dict[str, str] = Field(default_factory=dict)
    verdict: GateVerdict | None = None

    @property
    def short(self) -> ScoreSummary:
        """What of it travels in events and manifests."""
        assert self.general is not None  # general dialogue is measured for every card
        losses, general, verdict = self.heldout.loss, self.general.dialogue_loss, self.verdict
        return ScoreSummary(
            heldout_replies=self.heldout.replies,
            heldout_tokens=self.heldout.tokens,
            loss_base=losses["base"],
            loss_tuned=losses["new"],
            general_loss_base=general["base"],
            general_loss_tuned=general["new"],
            precision=self.precision,
            verdict=verdict.verdict if verdict else "",
            reasons=verdict.reasons if verdict else (),
            advice=verdict.advice if verdict else (),
        )
