"""Two score cards side by side: each measure of both, and which is better."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from bot.web.cards.view import OUTCOMES, UNKNOWN
from personas.scorecard import FullScoreCard, SideBySide

Better = Literal["lower", "higher"]
Read = Callable[[FullScoreCard], float | None]


@dataclass(frozen=True)
class Measure:
    """One number of a card. `shown` is its format; `read` gives None where it was not measured."""

    name: str
    better: Better
    shown: str
    read: Read


@dataclass(frozen=True)
class Row:
    """A measure of two cards in words; `better` is "a", "b" or "" (alike, or not to be said)."""

    name: str
    a: str
    b: str
    difference: str
    better: str


@dataclass(frozen=True)
class OutcomeRow:
    """A criterion of two cards: CSS class and words of each outcome."""

    name: str
    a: tuple[str, str]
    b: tuple[str, str]


MEASURES = (
    Measure("held-out loss, nats per token", "lower", "{:.4f}", lambda it: it.heldout.loss["new"]),
    Measure("… more than the base model's", "lower", "{:+.4f}", lambda it: it.heldout.against_base.estimate),
    Measure("taken for the persona", "higher", "{:.1%}", lambda it: it.voice.right["new"].mean if it.voice else None),
    Measure("similarity", "higher", "{:.3f}", lambda it: it.voice.similarity["new"].mean if it.voice else None),
    Measure("facts right, with lore", "higher", "{:.1%}",
            lambda it: it.facts.right_with_lore["new"] if it.facts else None),
    Measure("contradictions", "lower", "{:.1%}", lambda it: it.facts.contradictions["new"] if it.facts else None),
    Measure("out of character", "lower", "{:.1%}", lambda it: it.facts.breaks_character["new"] if it.facts else None),
    Measure("unsafe replies", "lower", "{:.1%}", lambda it: _unsafe(it)),
    Measure("own adapter best", "higher", "{:.1%}",
            lambda it: it.separation.own_best_new if it.separation else None),
    Measure("general dialogue, loss more than the base's", "lower", "{:+.1%}",
            lambda it: it.general.dialogue_change.estimate if it.general else None),
    Measure("instructions, loss more than the base's", "lower", "{:+.1%}",
            lambda it: _instructions(it)),
    Measure("comes back word for word", "lower", "{:.1%}", lambda it: it.memorised.verbatim if it.memorised else None),
    Measure("closer fit to what was trained on, nats", "lower", "{:+.3f}",
            lambda it: it.memorised.gap["new"] if it.memorised else None),
    Measure("replies that end by themselves", "higher", "{:.1%}", lambda it: _text(it, "ended")),
    Measure("repetition", "lower", "{:.1%}", lambda it: _text(it, "repetition")),
    Measure("ROUGE-L", "higher", "{:.3f}", lambda it: _text(it, "rougeL")),
)  # fmt: skip


def measured(a: FullScoreCard, b: FullScoreCard) -> Iterator[Row]:
    """Each measure that at least one of both has."""
    for measure in MEASURES:
        one, other = measure.read(a), measure.read(b)
        if one is not None or other is not None:
            yield _row(measure, one, other)


def outcomes(a: FullScoreCard, b: FullScoreCard) -> list[OutcomeRow]:
    """Each criterion of the gate, with the outcome of both."""
    by_name = [{it.name: it.outcome for it in card.verdict.criteria} if card.verdict else {} for card in (a, b)]
    names = dict.fromkeys(name for found in by_name for name in found)

    def shown(found: dict[str, str], name: str) -> tuple[str, str]:
        return OUTCOMES.get(found.get(name, ""), ("", f"{UNKNOWN} not measured"))

    return [OutcomeRow(name, shown(dict(by_name[0]), name), shown(dict(by_name[1]), name)) for name in names]


def same_prompts(a: FullScoreCard, b: FullScoreCard) -> list[tuple[SideBySide, SideBySide]]:
    """Prompts that both versions answered."""
    others = {it.prompt: it for it in b.side_by_side}
    return [(it, others[it.prompt]) for it in a.side_by_side if it.prompt in others]


def _row(measure: Measure, a: float | None, b: float | None) -> Row:
    def shown(value: float | None) -> str:
        return UNKNOWN if value is None else measure.shown.format(value)

    if a is None or b is None:
        return Row(measure.name, shown(a), shown(b), UNKNOWN, "")
    if shown(a) == shown(b):
        return Row(measure.name, shown(a), shown(b), "alike", "")
    signed = measure.shown.replace("{:", "{:+").replace("++", "+")
    better = "a" if (a < b) == (measure.better == "lower") else "b"
    return Row(measure.name, shown(a), shown(b), signed.format(a - b), better)


def _unsafe(card: FullScoreCard) -> float | None:
    if card.safety is None or not (asked := sum(card.safety.prompts.values())):
        return None
    return sum(by.get("new", 0) for by in card.safety.failed.values()) / asked


def _instructions(card: FullScoreCard) -> float | None:
    change = card.general.instruction_change if card.general else None
    return change.estimate if change else None


def _text(card: FullScoreCard, name: str) -> float | None:
    found = next((it for it in card.text if it.task == "heldout"), None)
    by_side = found.scores.get(name, {}) if found else {}
    return by_side["new"].mean if "new" in by_side else None
