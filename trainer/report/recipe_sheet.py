"""A recipe for people: its values with their comments, what it takes over a base model, what cannot be done here."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from personas.base_model import locate
from personas.hyperparameters import Hyperparameters, allowed
from trainer.auto import for_run, for_samples
from trainer.auto_rules import Replies
from trainer.fitted import fitted, warnings_about
from trainer.loop.memory import machine_bytes
from trainer.machine import machine_guessed
from trainer.plan import recipe_named
from trainer.predict.estimate import Speed, Workload, estimate
from trainer.recipe import RECIPES, recipe_names

VALUE = re.compile(r"^(?P<name>\w+)\s*=\s*(?P<value>.*?)(?:\s+#\s*(?P<comment>.*))?$")
EXPLAINING = "demo-cpu"
"""Says what each value does; the others may say why it is as it is."""


def all_recipes() -> dict[str, str]:
    """Name and first sentence of each."""
    return {name: _about(name).split(". ")[0].rstrip(".") + "." for name in recipe_names()}


def comments_of(name: str) -> Mapping[str, str]:
    """The comment of each value that a recipe's file sets; empty where there is none."""
    found = {}
    for line in (RECIPES / f"{name}.toml").read_text(encoding="utf-8").splitlines():
        if value := VALUE.match(line):
            found[value["name"]] = value["comment"] or ""
    return found


def recipe_sheet(name: str, changes: Hyperparameters, base_model: str, samples: int) -> dict[str, Any]:
    """The published object of `recipes NAME --json`. Raises `RequestError`, or `BaseModelError`.

    `memory_bytes` is reckoned with samples of the full length; `settings` has the values as they would be used.
    """
    shipped, base, machine = recipe_named(name), locate(base_model), machine_guessed()
    own, explained = comments_of(name), _explained()
    recipe = for_samples(name, recipe_named(name, changes), base, machine=machine)
    full = Replies(samples, recipe.max_length, samples * recipe.max_length)
    chosen = for_run(name, recipe, base, full, machine=machine)
    recipe = chosen.recipe
    work = Workload([recipe.max_length] * samples, [recipe.max_length])
    took = estimate(name, recipe, base, work, Speed(1.0, ""))
    fit = fitted(recipe, machine)
    has = machine_bytes()
    return {
        "recipe": name,
        "about": _about(name),
        "settings": [
            {
                "name": key,
                "value": value,
                "recipes": getattr(shipped, key),
                "comment": own.get(key) or explained[key],
                "allowed": allowed(key),
            }
            for key, value in recipe.model_dump().items()
        ],
        "base_model": base.name,
        "samples": samples,
        "max_length": recipe.max_length,
        "steps": took["steps"],
        "memory_bytes": took["memory_bytes"],
        "machine_bytes": has,
        "fits": took["memory_bytes"] <= has,
        "warnings": [*chosen.why, *fit.notes, *warnings_about(recipe, samples)],
    }


@functools.cache
def _explained() -> Mapping[str, str]:
    return comments_of(EXPLAINING)


def _about(name: str) -> str:
    """The comment at the file's beginning, without the name."""
    lines = (RECIPES / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    head = [line.removeprefix("#").strip() for line in lines[: lines.index("")]]
    about = " ".join(head).partition(": ")[2]
    return about[:1].upper() + about[1:]
