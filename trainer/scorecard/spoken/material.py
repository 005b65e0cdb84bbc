"""What ships to ask everybody: questions about lore, prompts that should be refused, words that break character."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).parents[3] / "data"
EVALUATION = SHIPPED / "evaluation"
FACTS_FILE, SAFETY_FILE, BREAKS_FILE = "facts.jsonl", "safety.jsonl", "out_of_character.toml"
SMALL_TALK_FILE = SHIPPED / "questions" / "small_talk.txt"


def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows of one of the files, one JSON object a line."""
    lines = (EVALUATION / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def tables_of(name: str) -> dict[str, Any]:
    """The tables of a TOML file."""
    return tomllib.loads((EVALUATION / name).read_text(encoding="utf-8"))


def small_talk() -> list[str]:
    """Messages that ask for no lore."""
    return SMALL_TALK_FILE.read_text(encoding="utf-8").splitlines()
