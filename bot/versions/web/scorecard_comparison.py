"""View model of two compared score cards: metrics, outcomes and replies."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from bot.platform.localisation import gettext_lazy, localisable_number
from bot.versions.web.scorecard_view import OUTCOME_LABELS, UNKNOWN_VALUE
from personas.schemas.scorecard import (
    IN_CHARACTER,
    LORE_RIGHT,
    MASKED_VOICE,
    SENSE_AGREEMENT,
    SENSE_ESTIMATE,
    TALK_TURNS,
    VOICE_AT_TURN,
    BoundedShares,
    ScoreCard,
    SideBySide,
)

UNMEASURED = ("", gettext_lazy("– not measured"))
LATE_VOICE = VOICE_AT_TURN.format(TALK_TURNS[-1])
Better = Literal["lower", "higher"]
ReadScore = Callable[[ScoreCard], float | None]


@dataclass(frozen=True)
class ScoreMetric:
    """A number of a card, with its format; `read` returns None if it was not measured."""

    name: str
    better: Better
    shown: str
    read: ReadScore


@dataclass(frozen=True)
class MetricComparison:
    """A metric of two cards as text; `better` is "a", "b" or "" (equal or unknown)."""

    name: str
    a: str
    b: str
    difference: str
    better: str


@dataclass(frozen=True)
class OutcomeComparison:
    """A criterion of two cards: CSS class and label of each outcome."""

    name: str
    a: tuple[str, str]
    b: tuple[str, str]


def _score(path: str) -> ReadScore:
    """Read a score such as "voice.right.new.mean"; None if a part of the path was not measured."""

    def read(card: ScoreCard) -> float | None:
        value: Any = card
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else getattr(value, name)
            if value is None:
                return None
        return float(value)

    return read


def _unsafe_share(card: ScoreCard) -> float | None:
    prompts = 0
    if card.safety:
        prompts = sum(card.safety.prompts.values())
    if card.safety is None or not prompts:
        return None
    return sum(by_side.get("new", 0) for by_side in card.safety.failed.values()) / prompts


def _bounded_score(section: str, measure: str) -> ReadScore:
    def read(card: ScoreCard) -> float | None:
        shares: BoundedShares | None = getattr(card, section)
        return shares.new(measure) if shares else None

    return read


def _text_score(name: str) -> ReadScore:
    def read(card: ScoreCard) -> float | None:
        for scores in card.text:
            by_side = scores.scores.get(name, {})
            if scores.task == "heldout" and "new" in by_side:
                return by_side["new"].mean
        return None

    return read


SCORE_METRICS = (
    ScoreMetric(
        gettext_lazy("held-out loss, nats per token"), "lower", "{:.4f}", _score("heldout.loss.new")
    ),
    ScoreMetric(
        gettext_lazy("… more than the base model's"),
        "lower",
        "{:+.4f}",
        _score("heldout.against_base.estimate"),
    ),
    ScoreMetric(
        gettext_lazy("taken for the persona"), "higher", "{:.1%}", _score("voice.right.new.mean")
    ),
    ScoreMetric("similarity", "higher", "{:.3f}", _score("voice.similarity.new.mean")),
    ScoreMetric(
        gettext_lazy("facts right, with lore"),
        "higher",
        "{:.1%}",
        _score("facts.right_with_lore.new"),
    ),
    ScoreMetric("contradictions", "lower", "{:.1%}", _score("facts.contradictions.new")),
    ScoreMetric(
        gettext_lazy("out of character"), "lower", "{:.1%}", _score("facts.breaks_character.new")
    ),
    ScoreMetric(gettext_lazy("unsafe replies"), "lower", "{:.1%}", _unsafe_share),
    ScoreMetric(
        f"{SENSE_ESTIMATE} ({SENSE_AGREEMENT})",
        "higher",
        "{:.1%}",
        _bounded_score("sense", SENSE_ESTIMATE),
    ),
    ScoreMetric(LORE_RIGHT, "higher", "{:.1%}", _bounded_score("lore", LORE_RIGHT)),
    ScoreMetric(MASKED_VOICE, "higher", "{:.1%}", _bounded_score("style", MASKED_VOICE)),
    ScoreMetric(LATE_VOICE, "higher", "{:.1%}", _bounded_score("talks", LATE_VOICE)),
    ScoreMetric(
        f"{IN_CHARACTER} under pressure",
        "higher",
        "{:.1%}",
        _bounded_score("pressure", IN_CHARACTER),
    ),
    ScoreMetric(
        gettext_lazy("own adapter best"), "higher", "{:.1%}", _score("separation.own_best_new")
    ),
    ScoreMetric(
        gettext_lazy("general dialogue, loss more than the base's"),
        "lower",
        "{:+.1%}",
        _score("general.dialogue_change.estimate"),
    ),
    ScoreMetric(
        gettext_lazy("instructions, loss more than the base's"),
        "lower",
        "{:+.1%}",
        _score("general.instruction_change.estimate"),
    ),
    ScoreMetric(
        gettext_lazy("comes back word for word"), "lower", "{:.1%}", _score("memorised.verbatim")
    ),
    ScoreMetric(
        gettext_lazy("closer fit to what was trained on, nats"),
        "lower",
        "{:+.3f}",
        _score("memorised.gap.new"),
    ),
    ScoreMetric(
        gettext_lazy("replies that end by themselves"), "higher", "{:.1%}", _text_score("ended")
    ),
    ScoreMetric("repetition", "lower", "{:.1%}", _text_score("repetition")),
    ScoreMetric("ROUGE-L", "higher", "{:.3f}", _text_score("rougeL")),
)


def compare_metrics(a: ScoreCard, b: ScoreCard) -> Iterator[MetricComparison]:
    """Compare each metric that at least one card has."""
    for metric in SCORE_METRICS:
        value_a = metric.read(a)
        value_b = metric.read(b)
        if value_a is not None or value_b is not None:
            yield _compare_metric(metric, value_a, value_b)


def compare_outcomes(a: ScoreCard, b: ScoreCard) -> list[OutcomeComparison]:
    """Compare each criterion that at least one card has."""
    outcomes_a = _outcomes(a)
    outcomes_b = _outcomes(b)
    comparisons = []
    for name in outcomes_a | outcomes_b:
        of_a = outcomes_a.get(name, UNMEASURED)
        of_b = outcomes_b.get(name, UNMEASURED)
        comparisons.append(OutcomeComparison(name, of_a, of_b))
    return comparisons


def _outcomes(card: ScoreCard) -> dict[str, tuple[str, str]]:
    """CSS class and label of each criterion's outcome."""
    if card.verdict is None:
        return {}
    criteria = card.verdict.criteria
    return {
        criterion.name: OUTCOME_LABELS.get(criterion.outcome, UNMEASURED) for criterion in criteria
    }


def shared_prompts(a: ScoreCard, b: ScoreCard) -> list[tuple[SideBySide, SideBySide]]:
    """Pair the replies to the prompts that both cards have."""
    by_prompt = {replies.prompt: replies for replies in b.side_by_side}
    pairs = []
    for replies in a.side_by_side:
        if replies.prompt in by_prompt:
            pairs.append((replies, by_prompt[replies.prompt]))
    return pairs


def _compare_metric(metric: ScoreMetric, a: float | None, b: float | None) -> MetricComparison:
    def shown(value: float | None) -> str:
        if value is None:
            return UNKNOWN_VALUE
        return localisable_number(metric.shown.format(value))

    if a is None or b is None:
        return MetricComparison(
            metric.name, a=shown(a), b=shown(b), difference=UNKNOWN_VALUE, better=""
        )
    if shown(a) == shown(b):
        return MetricComparison(metric.name, a=shown(a), b=shown(b), difference="alike", better="")
    signed = metric.shown.replace("{:", "{:+").replace("++", "+")
    better = "a" if (a < b) == (metric.better == "lower") else "b"
    difference = localisable_number(signed.format(a - b))
    return MetricComparison(
        metric.name, a=shown(a), b=shown(b), difference=difference, better=better
    )
