"""Explains a recipe: its values with comments, what it takes, and what this machine cannot do."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from personas.models.base_model import locate
from personas.schemas.hyperparameters import Hyperparameters, describe_allowed_values
from trainer.estimate.run_estimate import MachineSpeed, estimate_run
from trainer.estimate.workload import Workload
from trainer.machine import probe_machine_without_torch, total_memory_bytes
from trainer.recipe.auto_recipe import SampleStats
from trainer.recipe.resolve import (
    RECIPES_FOLDER,
    fit_to_hardware,
    load_recipe,
    recipe_names,
    recipe_warnings,
    resolve_for_data,
    resolve_for_run,
)

SETTING_LINE = re.compile(r"^(?P<name>\w+)\s*=\s*(?P<value>.*?)(?:\s+#\s*(?P<comment>.*))?$")
COMMENTED_RECIPE = "demo-cpu"
"""Says what each value does; the others may say why it is as it is."""


def recipe_summaries() -> dict[str, str]:
    """Name and first sentence of each."""
    return {name: _recipe_header(name).split(". ")[0].rstrip(".") + "." for name in recipe_names()}


def recipe_comments(name: str) -> Mapping[str, str]:
    """The comment of each value that a recipe's file sets; empty where there is none."""
    found = {}
    for line in (RECIPES_FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines():
        if value := SETTING_LINE.match(line):
            found[value["name"]] = value["comment"] or ""
    return found


def make_recipe_sheet(name: str, changes: Hyperparameters, base_model: str, samples: int) -> dict[str, Any]:
    """The published object of `recipes NAME --json`. Raises `RequestError`, or `BaseModelError`.

    `memory_bytes` is reckoned with samples of the full length; `settings` has the values as they would be used.
    """
    shipped, base, machine = load_recipe(name), locate(base_model), probe_machine_without_torch()
    own, explained = recipe_comments(name), _default_comments()
    recipe = resolve_for_data(name, load_recipe(name, changes), base, machine=machine)
    full = SampleStats(samples, recipe.max_length, samples * recipe.max_length)
    chosen = resolve_for_run(name, recipe, base, full, machine=machine)
    recipe = chosen.recipe
    work = Workload([recipe.max_length] * samples, [recipe.max_length])
    took = estimate_run(name, recipe, base, work, MachineSpeed(1.0, ""))
    fit = fit_to_hardware(recipe, machine)
    has = total_memory_bytes()
    return {
        "recipe": name,
        "about": _recipe_header(name),
        "settings": [
            {
                "name": key,
                "value": value,
                "recipes": getattr(shipped, key),
                "comment": own.get(key) or explained[key],
                "allowed": describe_allowed_values(key),
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
        "warnings": [*chosen.chosen, *fit.notes, *recipe_warnings(recipe, samples)],
    }


@functools.cache
def _default_comments() -> Mapping[str, str]:
    return recipe_comments(COMMENTED_RECIPE)


def _recipe_header(name: str) -> str:
    """The comment at the file's beginning, without the name."""
    lines = (RECIPES_FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    head = [line.removeprefix("#").strip() for line in lines[: lines.index("")]]
    about = " ".join(head).partition(": ")[2]
    return about[:1].upper() + about[1:]
