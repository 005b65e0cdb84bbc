"""Generation tasks: prompts, replies, values and statistics of replies, and the shipped evaluation
data.
"""

import json
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from personas.schemas.scorecard import (
    FACTS_TASK,
    FACTS_WITHOUT_LORE_TASK,
    HELDOUT_TASK,
    SMALL_TALK_TASK,
    BoundedShares,
    Interval,
    Side,
)
from personas.shipped_folders import SHIPPED_DATA
from trainer.evaluate.bootstrap import bootstrap_ratio
from trainer.languages import find_language_file

PERSONA_TASKS = (HELDOUT_TASK, FACTS_TASK, FACTS_WITHOUT_LORE_TASK, SMALL_TALK_TASK)
"""Tasks with messages that the persona would get in a channel."""
EVALUATION_FOLDER = SHIPPED_DATA / "evaluation"
SMALL_TALK_FILE = SHIPPED_DATA / "questions" / "small_talk.txt"
SAFETY_FILE = "safety.jsonl"
OUT_OF_CHARACTER_FILE = "out_of_character.toml"
MIN_PAIRED_UNITS = 5  # of fewer, a bootstrap is certain of anything
PRESSURE_FILE = "pressure.jsonl"
TALKS_FILE = "talks.jsonl"
MARKS_FILE = "marks.jsonl"


@dataclass(frozen=True)
class EvaluationPrompt:
    """A rendered prompt: number `number` of its task. `once`: only the first seed is used.

    `message` is its last message, `asker` that message's author (empty: none). A reply ends before
    it continues as one of the `speakers`. `own_seeds` are used in place of a run's. `card` is the
    prompt of the card alone.
    """

    task: str
    number: int
    ids: tuple[int, ...]
    message: str
    asker: str = ""
    speakers: tuple[str, ...] = ()
    once: bool = False
    own_seeds: tuple[int, ...] = ()
    card: tuple[int, ...] = ()

    def seeds(self, seeds: Sequence[int]) -> tuple[int, ...]:
        """Return the seeds to generate with."""
        return self.own_seeds or tuple(seeds[:1] if self.once else seeds)


@dataclass(frozen=True)
class GeneratedReply:
    """A side's reply. `ended` is False if it was cut off by the token limit."""

    prompt: EvaluationPrompt
    side: Side
    seed: int
    text: str
    tokens: int
    ended: bool


@dataclass(frozen=True)
class ReplyValue:
    """The value of one reply to prompt `number` of `task`. Replies of one `unit`, such as a
    conversation, correlate.
    """

    unit: str
    task: str
    number: int
    seed: int
    value: float


@dataclass
class MeasuredShares:
    """Values of replies by measure and side, and those of the texts that bound a measure."""

    values: dict[str, dict[Side, list[ReplyValue]]] = field(default_factory=dict)
    ceiling: dict[str, list[ReplyValue]] = field(default_factory=dict)
    floor: dict[str, list[ReplyValue]] = field(default_factory=dict)

    def add(self, measure: str, side: Side, values: Iterable[ReplyValue]) -> None:
        """Add values of a side's replies."""
        self.values.setdefault(measure, {}).setdefault(side, []).extend(values)

    def section(self) -> BoundedShares:
        """Build the score card's section."""
        sides = next(iter(self.values.values()))
        replies = next(iter(sides.values()))
        shares = {}
        for measure, by_side in self.values.items():
            shares[measure] = {side: mean_interval(values) for side, values in by_side.items()}
        prompts = {(reply.unit, reply.task, reply.number) for reply in replies}
        return BoundedShares(
            prompts=len(prompts),
            shares=shares,
            ceiling={measure: mean_interval(values) for measure, values in self.ceiling.items()},
            floor={measure: mean_interval(values) for measure, values in self.floor.items()},
        )


def reply_values(
    replies: Iterable[GeneratedReply], values: Iterable[float], units: Iterable[str]
) -> Iterator[ReplyValue]:
    """Pair replies with their values and units."""
    for reply, value, unit in zip(replies, values, units, strict=True):
        yield ReplyValue(
            unit=unit,
            task=reply.prompt.task,
            number=reply.prompt.number,
            seed=reply.seed,
            value=float(value),
        )


def mean_interval(values: Sequence[ReplyValue]) -> Interval:
    """Return the mean of shares with its interval from a bootstrap over the units. Raises
    `ValueError` for none.

    If all values are 0, or all are 1, every resample is the same. The interval then reaches as far
    as it would if one of the values were the opposite, which is near the exact one of a binomial
    share (Clopper and Pearson 1934).
    """
    mean = _bootstrap_mean(values)
    if mean.estimate not in (0.0, 1.0):
        return mean
    near = _bootstrap_mean([replace(values[0], value=1 - mean.estimate), *values[1:]])
    if mean.estimate == 1.0:
        return mean.model_copy(update={"low": near.low})
    return mean.model_copy(update={"high": near.high})


def _bootstrap_mean(values: Sequence[ReplyValue]) -> Interval:
    units = [value.unit for value in values]
    mean = bootstrap_ratio(units, [value.value for value in values], [1.0] * len(values))
    # Student's t, by which few units are judged, knows no bounds.
    return mean.model_copy(update={"low": max(0.0, mean.low), "high": min(1.0, mean.high)})


def paired_difference(of: Sequence[ReplyValue], to: Sequence[ReplyValue]) -> Interval | None:
    """Return the mean difference over the replies to the same prompts with the same seeds; None for
    too few units.
    """
    others = {(reply.task, reply.number, reply.seed): reply.value for reply in to}
    units = []
    more = []
    for reply in of:
        key = (reply.task, reply.number, reply.seed)
        if key in others:
            units.append(reply.unit)
            more.append(reply.value - others[key])
    if len(set(units)) < MIN_PAIRED_UNITS:
        return None
    return bootstrap_ratio(units, more, [1.0] * len(units))


def select_replies(
    answers: Iterable[GeneratedReply], *tasks: str, side: Side, seed: int | None = None
) -> list[GeneratedReply]:
    """Select one side's replies to the prompts of some tasks, in prompt order, for one seed or
    all.
    """
    selected = []
    for answer in answers:
        if answer.prompt.task in tasks and answer.side == side and seed in (None, answer.seed):
            selected.append(answer)
    return sorted(
        selected, key=lambda answer: (answer.prompt.task, answer.prompt.number, answer.seed)
    )


def true_share(truths: Iterable[bool]) -> float:
    """Return the share of true values; 0 for none."""
    listed = list(truths)
    return sum(listed) / len(listed) if listed else 0.0


def read_jsonl(name: str | Path, language: str = "en") -> list[dict[str, Any]]:
    """Read the rows of an evaluation file in JSON Lines, or of a file elsewhere by its absolute
    path, in a language if there are some, else in English.
    """
    english = EVALUATION_FOLDER / name
    file = find_language_file(english, language) or english
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def read_toml(name: str) -> dict[str, Any]:
    """Read the tables of a TOML file."""
    return tomllib.loads((EVALUATION_FOLDER / name).read_text(encoding="utf-8"))


def read_small_talk(language: str) -> list[str]:
    """Read messages that need no lore in a language; empty if there are none."""
    file = find_language_file(SMALL_TALK_FILE, language)
    if file is None:
        return []
    return file.read_text(encoding="utf-8").splitlines()
