"""`python -m trainer recipes`: a recipe's values with comments, what it takes, and what this
machine cannot do.
"""

import argparse
import json
import re
from collections.abc import Mapping
from typing import Any

from personas.home.recipe_files import BASE_RECIPE, recipe_about, recipe_summary
from personas.models.base_model import locate
from personas.schemas.hyperparameters import Hyperparameters, describe_allowed_values
from trainer.cli.argtypes import Commands, add_command, parse_setting_args, positive_int
from trainer.cli.options import BASE_MODEL, JSON, SET, add_options, option
from trainer.estimate.run_estimate import MachineSpeed, estimate_run
from trainer.estimate.workload import Workload
from trainer.machine import probe_machine_without_torch, total_memory_bytes
from trainer.recipe.auto_recipe import SampleStats, choose_sample_settings, choose_settings
from trainer.recipe.machine_fit import fit_notes, fit_to_hardware, recipe_warnings
from trainer.recipe.recipe_file import RECIPES_FOLDER, load_recipe, recipe_names
from trainer.schemas import format_setting

RECIPES_HELP = """\
Lists the recipes, or explains a recipe: its values, its cost, and its settings that this machine lacks.

  python -m trainer recipes
  python -m trainer recipes s0-6gb --base-model Qwen/Qwen2.5-3B-Instruct
  python -m trainer recipes demo-cpu --set max_length=512
"""
SETTING_LINE = re.compile(r"^(?P<name>\w+)\s*=\s*(?P<value>.*?)(?:\s+#\s*(?P<comment>.*))?$")
DEFAULT_SAMPLES = 1000  # number of samples that `recipes NAME` assumes by default


def add_recipes(commands: Commands) -> argparse.ArgumentParser:
    """Add `recipes`."""
    recipes = add_command(
        commands, "recipes", "list recipes, their values and their cost", RECIPES_HELP
    )
    add_options(
        recipes,
        [
            option("name", "NAME", "a recipe (default: list all)", nargs="?"),
            BASE_MODEL.but(help="base model (default: BASE_MODEL, else embedded)"),
            option(
                "--samples",
                "N",
                f"number of samples (default: {DEFAULT_SAMPLES:,})",
                type=positive_int,
                default=DEFAULT_SAMPLES,
            ),
            SET,
            JSON,
        ],
    )
    return recipes


def show_recipes(options: argparse.Namespace) -> None:
    """Run `recipes`."""
    if options.name is None:
        summaries = recipe_summaries()
        if options.json:
            print(json.dumps({"recipes": summaries}, ensure_ascii=False))
        else:
            print("\n".join(f"{name:<18} {summary}" for name, summary in summaries.items()))
        return
    changes = parse_setting_args(options)
    sheet = make_recipe_sheet(options.name, changes, options.base_model, options.samples)
    if options.json:
        print(json.dumps(sheet, ensure_ascii=False))
    else:
        print("\n".join(_recipe_lines(sheet)))


def _recipe_lines(sheet: dict[str, Any]) -> list[str]:
    settings: dict[str, str] = {}
    for row in sheet["settings"]:
        settings[row["name"]] = f"{row['name']} = {format_setting(row['value'])}"
    # `target_modules` is as long as a line, and would move all comments to its end.
    width = max(len(setting) for name, setting in settings.items() if name != "target_modules")
    lines = [f"{sheet['recipe']}: {sheet['about']}", ""]
    for row in sheet["settings"]:
        comment = row["comment"]
        if row["value"] != row["recipes"]:
            comment += f" (the recipe's: {format_setting(row['recipes'])})"
        setting = settings[row["name"]]
        lines.append(f"{setting:<{width}}  {comment}".rstrip())
        lines.append(f"{'':<{width}}  may be {row['allowed']}")
    takes = sheet["memory_bytes"] / 2**30
    has = sheet["machine_bytes"] / 2**30
    verdict = "fits" if sheet["fits"] else "does not fit"
    return [
        *lines,
        "",
        f"Over {sheet['base_model']} with {sheet['samples']:,} samples of {sheet['max_length']} "
        "tokens: "
        f"{sheet['steps']:,} steps, {takes:.1f} GiB of memory; this machine has {has:.1f} GiB: it "
        f"{verdict}.",
        *(f"note: {warning}" for warning in sheet["warnings"]),
    ]


def recipe_summaries() -> dict[str, str]:
    """Return what each recipe is for, by name."""
    return {name: recipe_summary(RECIPES_FOLDER / f"{name}.toml") for name in recipe_names()}


def recipe_comments(name: str) -> Mapping[str, str]:
    """Return the comment, possibly empty, of each setting in a recipe's file."""
    lines = (RECIPES_FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    settings = filter(None, map(SETTING_LINE.match, lines))
    return {setting["name"]: setting["comment"] or "" for setting in settings}


def make_recipe_sheet(
    name: str, changes: Hyperparameters, base_model: str, samples: int
) -> dict[str, Any]:
    """Make the object of `recipes NAME --json`, for full-length samples. Raises `RequestError` or
    `BaseModelError`.
    """
    shipped = load_recipe(name)
    base = locate(base_model)
    machine = probe_machine_without_torch()
    comments = recipe_comments(name)
    defaults = recipe_comments(BASE_RECIPE)
    recipe = choose_sample_settings(name, load_recipe(name, changes), base, machine=machine)
    full = SampleStats(samples, recipe.max_length, samples * recipe.max_length)
    chosen = choose_settings(name, recipe, base, full, machine=machine)
    recipe = chosen.recipe
    work = Workload([recipe.max_length] * samples, [recipe.max_length])
    cost = estimate_run(name, recipe, base, work=work, speed=MachineSpeed(1.0, ""))
    fitting_notes = fit_notes(recipe, fit_to_hardware(recipe, machine))
    machine_bytes = total_memory_bytes()
    settings = []
    for key in Hyperparameters.model_fields:
        row = {
            "name": key,
            "value": getattr(recipe, key),
            "recipes": getattr(shipped, key),
            "comment": comments.get(key) or defaults[key],
            "allowed": describe_allowed_values(key),
        }
        settings.append(row)
    return {
        "recipe": name,
        "about": recipe_about(RECIPES_FOLDER / f"{name}.toml"),
        "settings": settings,
        "base_model": base.name,
        "samples": samples,
        "max_length": recipe.max_length,
        "steps": cost["steps"],
        "memory_bytes": cost["memory_bytes"],
        "machine_bytes": machine_bytes,
        "fits": cost["memory_bytes"] <= machine_bytes,
        "warnings": [*chosen.chosen, *fitting_notes, *recipe_warnings(recipe, samples)],
    }
