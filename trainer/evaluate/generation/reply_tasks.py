"""Generation tasks: prompts, replies, their statistics over runs, and the shipped evaluation data."""

import json
import statistics
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas.schemas.scorecard import FACTS_TASK, FACTS_WITHOUT_LORE_TASK, HELDOUT_TASK, SMALL_TALK_TASK, MeanStd, Side
from trainer.data.quality_filters import find_language_file

PERSONA_TASKS = (HELDOUT_TASK, FACTS_TASK, FACTS_WITHOUT_LORE_TASK, SMALL_TALK_TASK)
"""Tasks with messages that the persona would get in a channel."""
DATA_FOLDER = Path(__file__).parents[3] / "data"
EVALUATION_FOLDER = DATA_FOLDER / "evaluation"
SMALL_TALK_FILE = DATA_FOLDER / "questions" / "small_talk.txt"
FACTS_FILE, SAFETY_FILE, OUT_OF_CHARACTER_FILE = "facts.jsonl", "safety.jsonl", "out_of_character.toml"


@dataclass(frozen=True)
class EvaluationPrompt:
    """A rendered prompt: number `number` of its task. `once`: only the first seed is used.

    `message` is its last message, `asker` that message's author (empty: none). A reply ends before it continues as
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
        """Return the seeds to generate with."""
        return tuple(seeds[:1] if self.once else seeds)


@dataclass(frozen=True)
class GeneratedReply:
    """A side's reply. `ended` is False if it was cut off by the token limit."""

    prompt: EvaluationPrompt
    side: Side
    seed: int
    text: str
    tokens: int
    ended: bool


def select_replies(
    answers: Iterable[GeneratedReply], *tasks: str, side: Side, seed: int | None = None
) -> list[GeneratedReply]:
    """Select one side's replies to the prompts of some tasks, in prompt order, for one seed or all."""
    selected = [it for it in answers if it.prompt.task in tasks and it.side == side and seed in (None, it.seed)]
    return sorted(selected, key=lambda it: (it.prompt.task, it.prompt.number, it.seed))


def mean_std(values: Sequence[float]) -> MeanStd:
    """Return mean and standard deviation (n - 1) over runs. Raises `ValueError` for no values."""
    if not values:
        raise ValueError("no runs to take the mean of")
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return MeanStd(mean=statistics.fmean(values), sd=sd, runs=len(values))


def true_share(truths: Iterable[bool]) -> float:
    """Return the share of true values; 0 for none."""
    listed = list(truths)
    return sum(listed) / len(listed) if listed else 0.0


def read_jsonl(name: str, language: str = "en") -> list[dict[str, Any]]:
    """Read the rows of an evaluation file in JSON Lines, in a language if there are some, else in English."""
    file = EVALUATION_FOLDER / name
    lines = (find_language_file(file, language) or file).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def read_toml(name: str) -> dict[str, Any]:
    """Read the tables of a TOML file."""
    return tomllib.loads((EVALUATION_FOLDER / name).read_text(encoding="utf-8"))


def read_small_talk(language: str) -> list[str]:
    """Read messages that need no lore in a language; empty if there are none."""
    file = find_language_file(SMALL_TALK_FILE, language)
    return file.read_text(encoding="utf-8").splitlines() if file else []
