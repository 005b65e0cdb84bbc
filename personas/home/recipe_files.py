"""A recipe's file: its values, and the words about it, the comment with which it begins,
`# NAME: what it is for.`
"""

import tomllib
from pathlib import Path
from typing import Any

BASE_RECIPE = "demo-cpu"
"""Its file has every setting with its meaning; the other files have what differs from it."""


def recipe_values(folder: Path, name: str) -> dict[str, Any]:
    """Return a recipe's value of every setting: its own, or else the base recipe's."""
    values: dict[str, Any] = {}
    for each in (BASE_RECIPE, name):
        values |= tomllib.loads((folder / f"{each}.toml").read_text(encoding="utf-8"))
    return values


def recipe_about(file: Path) -> str:
    """Return the comment at a recipe file's beginning without the name; empty without one."""
    head = file.read_text(encoding="utf-8").split("\n\n")[0]
    lines = [line.removeprefix("#").strip() for line in head.splitlines() if line.startswith("#")]
    about = " ".join(lines).partition(": ")[2]
    return about[:1].upper() + about[1:]


def recipe_summary(file: Path) -> str:
    """Return what a recipe is for, the first sentence of that comment."""
    about = recipe_about(file).split(". ")[0].rstrip(".")
    return f"{about}." if about else ""
