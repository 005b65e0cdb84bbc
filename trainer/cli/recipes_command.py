"""`python -m trainer recipes`."""

import argparse
import json
from typing import Any

from trainer.cli.argtypes import Commands, add_command, add_settings, parse_setting_args, positive_int
from trainer.recipe.parent_adapter import format_setting
from trainer.recipe.recipe_sheet import make_recipe_sheet, recipe_summaries

RECIPES_HELP = """\
Lists the recipes, or explains the values of one, its cost, and what is unavailable on this machine.

  python -m trainer recipes
  python -m trainer recipes s0-6gb --base-model Qwen/Qwen2.5-3B-Instruct
  python -m trainer recipes demo-cpu --set max_length=512
"""
DEFAULT_SAMPLES = 1000  # number of samples that `recipes NAME` assumes by default


def add_recipes(commands: Commands) -> argparse.ArgumentParser:
    """Add `recipes`."""
    recipes = add_command(commands, "recipes", "list recipes, their values and their cost", RECIPES_HELP)
    recipes.add_argument("name", nargs="?", metavar="NAME", help="a recipe (default: list all)")
    recipes.add_argument("--base-model", default="embedded", metavar="M", help="base model (default: embedded)")
    text = f"number of samples (default: {DEFAULT_SAMPLES:,})"
    recipes.add_argument("--samples", type=positive_int, default=DEFAULT_SAMPLES, metavar="N", help=text)
    add_settings(recipes)
    recipes.add_argument("--json", action="store_true", help="print one JSON object")
    return recipes


def show_recipes(options: argparse.Namespace) -> None:
    """Run `recipes`."""
    if options.name is None:
        summaries = recipe_summaries()
        lines = [f"{name:<18} {summary}" for name, summary in summaries.items()]
        print(json.dumps({"recipes": summaries}, ensure_ascii=False) if options.json else "\n".join(lines))
        return
    sheet = make_recipe_sheet(options.name, parse_setting_args(options), options.base_model, options.samples)
    print(json.dumps(sheet, ensure_ascii=False) if options.json else "\n".join(_recipe_lines(sheet)))


def _recipe_lines(sheet: dict[str, Any]) -> list[str]:
    settings = {it["name"]: f"{it['name']} = {format_setting(it['value'])}" for it in sheet["settings"]}
    width = max(len(setting) for name, setting in settings.items() if name != "target_modules")
    lines = [f"{sheet['recipe']}: {sheet['about']}", ""]
    for it in sheet["settings"]:
        changed = f" (the recipe's: {format_setting(it['recipes'])})" if it["value"] != it["recipes"] else ""
        setting = settings[it["name"]]
        lines.append(f"{setting:<{width}}  {it['comment']}{changed}".rstrip())
        lines.append(f"{'':<{width}}  may be {it['allowed']}")
    takes, has = sheet["memory_bytes"] / 2**30, sheet["machine_bytes"] / 2**30
    verdict = "fits" if sheet["fits"] else "does not fit"
    return [
        *lines,
        "",
        f"Over {sheet['base_model']} with {sheet['samples']:,} samples of {sheet['max_length']} tokens: "
        f"{sheet['steps']:,} steps, {takes:.1f} GiB of memory; this machine has {has:.1f} GiB: it {verdict}.",
        *(f"note: {warning}" for warning in sheet["warnings"]),
    ]
