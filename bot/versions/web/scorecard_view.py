"""What the page of score cards shows of one card, or of two beside each other: the gate's criteria,
the written replies, and whatever was measured of each side.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from markupsafe import Markup
from pydantic import BaseModel

from bot.platform.web_kit.charts import bar_chart
from bot.safety.stored_replies import shown_reply
from personas.schemas.formatting import UNKNOWN_VALUE, format_value
from personas.schemas.scorecard import (
    SENSE_SECTIONS,
    SIDE_LABELS,
    Criterion,
    Interval,
    MeanStd,
    ScoreCard,
    Side,
    SideBySide,
)

SIDES = frozenset(get_args(Side))
SIDES_BY_INTEREST: tuple[Side, ...] = ("new", "live", "base")
"""The order of a card's columns."""
OUTCOME_LABELS = {
    "pass": ("good", "✓ pass"),
    "warn": ("warn", "! warn"),
    "fail": ("bad", "✗ fail"),
}
UNMEASURED = ("", "– not measured")
VERDICT_CLASSES = {"promote": "good", "hold": "warn", "reject": "bad"}
ALL_LOSSES = ("heldout", "loss")
VOICE_SHARES = ("voice", "right")
EMPTY_REPLY = "(an empty reply)"
Path = tuple[str, ...]


@dataclass(frozen=True)
class CardColumn:
    """A column of the tables: one side of a card."""

    label: str
    card: ScoreCard
    side: Side


@dataclass(frozen=True)
class CriterionCell:
    """What the gate found of one card: CSS class and label of the outcome, and the value."""

    outcome: tuple[str, str]
    value: str
    criterion: Criterion


@dataclass(frozen=True)
class CriterionRow:
    """A criterion of the gate with a cell for each card; None for a card that has not been asked."""

    name: str
    required: str
    cells: tuple[CriterionCell | None, ...]


@dataclass(frozen=True)
class FigureRow:
    """A measure with its values as texts, one for each column."""

    section: str
    measure: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class WrittenReply:
    """A reply beside others; `kind` is "own", "real" or empty."""

    label: str
    text: str
    kind: str = ""


def card_columns(cards: Sequence[ScoreCard], labels: Sequence[str]) -> list[CardColumn]:
    """Return the sides of one card, or of two cards what each version reached and the base model."""
    if len(cards) == 1:
        [card] = cards
        names = SIDE_LABELS | {"new": labels[0]}
        return [
            CardColumn(names[side], card, side)
            for side in SIDES_BY_INTEREST
            if side in card.adapters
        ]
    columns = []
    for label, card in zip(labels, cards, strict=True):
        columns.append(CardColumn(label, card, "new"))
    columns.append(CardColumn(SIDE_LABELS["base"], cards[0], "base"))
    return columns


def criterion_rows(cards: Sequence[ScoreCard]) -> list[CriterionRow]:
    """Return every criterion that was asked of at least one card."""
    asked: dict[str, list[Criterion | None]] = {}
    for number, card in enumerate(cards):
        for criterion in card.verdict.criteria if card.verdict else ():
            asked.setdefault(criterion.name, [None] * len(cards))[number] = criterion
    rows = []
    for name, found in asked.items():
        required = next(criterion.threshold for criterion in found if criterion)
        rows.append(CriterionRow(name, required, tuple(map(_criterion_cell, found))))
    return rows


def _criterion_cell(criterion: Criterion | None) -> CriterionCell | None:
    if criterion is None:
        return None
    outcome = OUTCOME_LABELS.get(criterion.outcome, UNMEASURED)
    return CriterionCell(outcome, format_value(criterion.value, criterion.unit), criterion)


def figure_rows(columns: Sequence[CardColumn]) -> list[FigureRow]:
    """Return every measure that has a value for each side, in the order of the score card."""
    measured = [_measures(column.card) for column in columns]
    rows = []
    for path in dict.fromkeys(path for measures in measured for path in measures):
        values = []
        for column, measures in zip(columns, measured, strict=True):
            values.append(_value_text(measures.get(path, {}).get(column.side)))
        section = SENSE_SECTIONS.get(path[0], path[0].capitalize())
        measure = ", ".join(name.replace("_", " ") for name in path[1:])
        rows.append(FigureRow(section, measure, tuple(values)))
    return rows


def charts(columns: Sequence[CardColumn]) -> list[Markup]:
    """Draw the loss, and the share of replies in the persona's voice where that was measured."""
    losses = []
    shares = []
    for column in columns:
        measures = _measures(column.card)
        losses.append((column.label, measures[ALL_LOSSES][column.side]))
        if share := measures.get(VOICE_SHARES, {}).get(column.side):
            shares.append((column.label, share.mean * 100))
    drawn = [bar_chart("Loss on held-out replies, nats per token (lower is better)", losses)]
    voice = columns[0].card.voice
    if voice and shares:
        shares.append(("the persona's real replies", voice.ceiling * 100))
        shares.append(("others' replies", voice.floor * 100))
        drawn.append(bar_chart("Replies taken to be the persona's", shares, "%"))
    return drawn


def written_replies(
    cards: Sequence[ScoreCard], labels: Sequence[str]
) -> list[tuple[str, list[WrittenReply]]]:
    """Return each prompt that all cards have, with the replies to it."""
    by_prompt = [{pair.prompt: pair for pair in card.side_by_side} for card in cards]
    rows = []
    for prompt, pair in by_prompt[0].items():
        if all(prompt in pairs for pairs in by_prompt):
            replies = _replies(pair, labels[0], ("new",) if cards[1:] else SIDES_BY_INTEREST)
            for label, pairs in zip(labels[1:], by_prompt[1:], strict=True):
                replies += _replies(pairs[prompt], label, ("new",))
            replies.append(WrittenReply(cards[0].reference_label, pair.real, "real"))
            rows.append((prompt, replies))
    return rows


def _replies(pair: SideBySide, label: str, sides: Sequence[Side]) -> list[WrittenReply]:
    replies = []
    for side in sides:
        if reply := pair.replies.get(side):
            text = shown_reply(pair.prompt, reply.text) or EMPTY_REPLY
            if side == "new":
                replies.append(WrittenReply(label, text, "own"))
            else:
                name = SIDE_LABELS[side]
                if reply.made_by:
                    name = f"{name} ({reply.made_by.version})"
                replies.append(WrittenReply(name, text))
    return replies


def _measures(card: ScoreCard) -> dict[Path, Mapping[str, Any]]:
    """Return the values by side of every measure that has such, by its place in the card."""
    measures: dict[Path, Mapping[str, Any]] = {}
    for name, section in card:
        measures.update(_values_by_side(section, (name,)))
    return measures


def _values_by_side(found: Any, path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    if isinstance(found, BaseModel):
        for name, value in found:
            # `shares` only holds the measures of a section.
            within = path if name == "shares" else (*path, name)
            yield from _values_by_side(value, within)
    elif isinstance(found, dict) and found:
        if found.keys() <= SIDES:
            if all(isinstance(each, int | float | MeanStd | Interval) for each in found.values()):
                yield path, found
        else:
            for name, value in found.items():
                yield from _values_by_side(value, (*path, str(name)))


def _value_text(value: float | MeanStd | Interval | None) -> str:
    match value:
        case None:
            return UNKNOWN_VALUE
        case int():
            return str(value)
        case MeanStd():
            return value.format()
        case Interval():
            return f"{value.estimate:.3f} ({value.low:.2f} to {value.high:.2f})"
    return f"{value:.3f}"
