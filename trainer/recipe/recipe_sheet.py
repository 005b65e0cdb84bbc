"""Explains a recipe: its values with comments, what it takes, and what this machine cannot do."""

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
COMMENTED_RECIPE = "demo-cpu"  # its file explains every setting; other recipes comment on their own values only


def recipe_summaries() -> dict[str, str]:
    """Return the first sentence of each recipe's description, by name."""
    return {name: _recipe_header(name).split(". ")[0].rstrip(".") + "." for name in recipe_names()}


def recipe_comments(name: str) -> Mapping[str, str]:
    """Return the comment, possibly empty, of each setting in a recipe's file."""
    lines = (RECIPES_FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    return {match["name"]: match["comment"] or "" for line in lines if (match := SETTING_LINE.match(line))}


def make_recipe_sheet(name: str, changes: Hyperparameters, base_model: str, samples: int) -> dict[str, Any]:
    """Make the object of `recipes NAME --json`, for full-length samples. Raises `RequestError` or `BaseModelError`."""
    shipped, base, machine = load_recipe(name), locate(base_model), probe_machine_without_torch()
    comments, defaults = recipe_comments(name), recipe_comments(COMMENTED_RECIPE)
    recipe = resolve_for_data(name, load_recipe(name, changes), base, machine=machine)
    full = SampleStats(samples, recipe.max_length, samples * recipe.max_length)
    chosen = resolve_for_run(name, recipe, base, full, machine=machine)
    recipe = chosen.recipe
    work = Workload([recipe.max_length] * samples, [recipe.max_length])
    cost = estimate_run(name, recipe, base, work, MachineSpeed(1.0, ""))
    fit, machine_bytes = fit_to_hardware(recipe, machine), total_memory_bytes()
    return {
        "recipe": name,
        "about": _recipe_header(name),
        "settings": [
            {
                "name": key,
                "value": value,
                "recipes": getattr(shipped, key),
                "comment": comments.get(key) or defaults[key],
                "allowed": describe_allowed_values(key),
            }
            for key, value in recipe.model_dump().items()
        ],
        "base_model": base.name,
        "samples": samples,
        "max_length": recipe.max_length,
        "steps": cost["steps"],
        "memory_bytes": cost["memory_bytes"],
        "machine_bytes": machine_bytes,
        "fits": cost["memory_bytes"] <= machine_bytes,
        "warnings": [*chosen.chosen, *fit.notes, *recipe_warnings(recipe, samples)],
    }


def _recipe_header(name: str) -> str:
    """Return the comment at the file's beginning, without the name."""
    lines = (RECIPES_FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    head = [line.removeprefix("#").strip() for line in lines[: lines.index("")]]
    about = " ".join(head).partition(": ")[2]
    return about[:1].upper() + about[1:]
