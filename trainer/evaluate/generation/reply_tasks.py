"""Generation tasks: prompts, replies, their summary over runs, and the evaluation data that ships."""

from __future__ import annotations

import json
import statistics
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas.schemas.scorecard import FACTS_TASK, FACTS_WITHOUT_LORE_TASK, HELDOUT_TASK, SMALL_TALK_TASK, MeanStd, Side

"""The tasks. `FACTS_WITHOUT_LORE_TASK` asks the questions of `FACTS_TASK` without the lore that answers them."""


PERSONA_TASKS = (HELDOUT_TASK, FACTS_TASK, FACTS_WITHOUT_LORE_TASK, SMALL_TALK_TASK)


"""Tasks in which the persona is asked what it would be asked in a channel."""


@dataclass(frozen=True)
class EvaluationPrompt:
    """A rendered prompt: the `number`-th of its task. Tasks that are asked `once` take the first seed alone.

    `message` is its last message, `asker` whose name that came under (empty: none). A reply ends before it goes on as
    somebody in `stop`.
    """

    task: str
    number: int
    ids: tuple[int, ...]
    message: str
    asker: str = ""
    stop: tuple[str, ...] = ()
    once: bool = False

    def seeds(self, seeds: Sequence[int]) -> tuple[int, ...]:
        """The seeds with which it is asked."""
        return tuple(seeds[:1] if self.once else seeds)


@dataclass(frozen=True)
class GeneratedReply:
    """A side's reply. `ended` says whether it ended by itself, not where the room for it did."""

    asked: EvaluationPrompt
    side: Side
    seed: int
    text: str
    tokens: int
    ended: bool


def select_replies(
    answers: Iterable[GeneratedReply], *tasks: str, side: Side, seed: int | None = None
) -> list[GeneratedReply]:
    """One side's answers to the prompts of some tasks, in the order of the prompts; of one seed, or of all."""
    found = [it for it in answers if it.asked.task in tasks and it.side == side and seed in (None, it.seed)]
    return sorted(found, key=lambda it: (it.asked.task, it.asked.number, it.seed))


def mean_std(values: Sequence[float]) -> MeanStd:
    """Mean and standard deviation (n - 1) of the runs. Raises `ValueError` without any."""
    if not values:
        raise ValueError("no runs to take the mean of")
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return MeanStd(mean=statistics.fmean(values), sd=sd, runs=len(values))


def true_share(truths: Iterable[bool]) -> float:
    """The share of what is true; 0 where there is nothing."""
    listed = list(truths)
    return sum(listed) / len(listed) if listed else 0.0


DATA_FOLDER = Path(__file__).parents[3] / "data"


EVALUATION_FOLDER = DATA_FOLDER / "evaluation"


FACTS_FILE, SAFETY_FILE, OUT_OF_CHARACTER_FILE = "facts.jsonl", "safety.jsonl", "out_of_character.toml"


SMALL_TALK_FILE = DATA_FOLDER / "questions" / "small_talk.txt"


def read_jsonl(name: str) -> list[dict[str, Any]]:
    """The rows of one of the files, one JSON object a line."""
    lines = (EVALUATION_FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def read_toml(name: str) -> dict[str, Any]:
    """The tables of a TOML file."""
    return tomllib.loads((EVALUATION_FOLDER / name).read_text(encoding="utf-8"))


def read_small_talk() -> list[str]:
    """Messages that ask for no lore."""
    return SMALL_TALK_FILE.read_text(encoding="utf-8").splitlines()
