"""`python -m trainer plan`, and `run FOLDER --dry-run`."""

import argparse
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from personas.errors import RequestError, UnderstudyError
from personas.home.built_dataset import STATS_FILE, is_built_dataset
from personas.home.data_subjects import read_consent
from personas.home.job_folder import MATERIAL_FOLDER
from personas.home.teacher_setting import OWN_TEACHER_NOTE
from personas.schemas.scorecard import EvaluationExtent
from trainer.cli.argtypes import Commands, add_command, parse_setting_args
from trainer.cli.create_job import chosen_recipe, draft_job
from trainer.cli.dataset_args import default_source, load_persona, make_build_spec
from trainer.cli.dataset_command import add_sources, record_lines
from trainer.cli.error_handling import resolve_home
from trainer.cli.options import (
    FROM_CARD,
    LORE_PAIRS,
    PLAN_OUTPUT,
    TEACHER_OPTIONS,
    add_options,
    option,
)
from trainer.cli.progress_view import ProgressCounter
from trainer.dataset.layout import read_stats
from trainer.estimate.memory_check import settings_as_options
from trainer.estimate.memory_model import WRITING_PART
from trainer.estimate.run_estimate import adapters_by_recency
from trainer.report.run_plan import RunPlan, plan_dataset, plan_job, plan_sources
from trainer.report.run_report import format_duration
from trainer.train.job_folder import JobDraft, temporary_job_folder

PLAN_HELP = """\
Plans a run without writing anything: data used and dropped with reasons, time, and memory.

  python -m trainer plan --persona ballast                            its own chat log, as in `/finetune start`
  python -m trainer plan --persona ballast --source talk.json --mix 80:20 …      sources as for `dataset build`
  python -m trainer plan --dataset build/ballast                      a built data set
  python -m trainer plan --persona ballast --dataset harbour-talk     an entry of catalogue.toml
  python -m trainer plan --persona oda --lore-pairs 0.3               pairs from its lore besides, as in `train`
  python -m trainer plan --persona oda --from-card                    replies that a model writes from its card first
"""
SOURCE_OPTIONS = (
    *("source", "mix", "two_stage", "map", "tree_paths", "languages"),
    *("min_reply_words", "max_reply_words", "corrections", "seed"),
)
"""Options of `dataset build` that `train` lacks."""
BAR_WIDTH_CHARS = 40


def add_plan(commands: Commands) -> argparse.ArgumentParser:
    """Add `plan`."""
    plan = add_command(commands, "plan", "plan a run without executing it", PLAN_HELP)
    add_sources(plan, required=False)
    add_options(
        plan,
        [
            option("--dataset", "D", "a built data set's folder, a source, or a catalogue entry"),
            LORE_PAIRS,
            FROM_CARD,
            *TEACHER_OPTIONS,
            *PLAN_OUTPUT,
        ],
    )
    defaults = {name: plan.get_default(name) for name in SOURCE_OPTIONS}
    plan.set_defaults(
        source_defaults=defaults, dialogue=False, general=None, start_from=None, recipe=None
    )
    return plan


def show_plan(options: argparse.Namespace) -> None:
    """Run `plan`."""
    home = resolve_home(options.home)
    options.recipe = chosen_recipe(options)
    if options.lore_pairs or options.from_card:
        named = "--from-card" if options.from_card else "--lore-pairs"
        for name, default in options.source_defaults.items():
            if getattr(options, name) != default:
                advice = "Name a --dataset; without one, it is the persona's own log."
                raise RequestError(f"{named} goes without --{name.replace('_', '-')}.", advice)
        return show_draft_plan(draft_job(options, home), options)
    _print_plan(_make_plan(options, home), adapters_by_recency(home), options)


def show_draft_plan(draft: JobDraft, options: argparse.Namespace) -> None:
    """Plan a job that has no folder yet, in a temporary one."""
    with temporary_job_folder(draft, Path(tempfile.gettempdir())) as (folder, _):
        options.folder = folder
        originals: dict[Path, Path] = {}
        for material in draft.materials:
            for path, place in material.copies:
                originals[folder / MATERIAL_FOLDER / place] = path
        _show_job_plan(options, originals)


def show_run_plan(options: argparse.Namespace) -> None:
    """Run `run FOLDER --dry-run`."""
    os.nice(options.nice)
    _show_job_plan(options, {})


def _show_job_plan(options: argparse.Namespace, originals: Mapping[Path, Path]) -> None:
    """Plan a job's folder. `originals` maps copies in the folder to their original paths, for
    errors.
    """
    try:
        plan = plan_job(options.folder)
    except UnderstudyError as cause:
        error = _with_original_paths(cause, originals)
        if options.json:
            # On standard output, since standard error may also hold other lines.
            print(json.dumps({"error": error.message, "advice": error.advice}, ensure_ascii=False))
        raise error from cause
    _print_plan(plan, adapters_by_recency(resolve_home(options.home)), options)


def _with_original_paths(error: UnderstudyError, originals: Mapping[Path, Path]) -> UnderstudyError:
    message = error.message
    advice = error.advice
    # The longest first: a path may be the prefix of another.
    for copy in sorted(originals, key=lambda path: len(str(path)), reverse=True):
        original = str(originals[copy])
        message = message.replace(str(copy), original)
        advice = advice.replace(str(copy), original)
    return UnderstudyError(message, advice)


def _make_plan(options: argparse.Namespace, home: Path) -> RunPlan:
    if options.dataset and options.source:
        raise RequestError("--dataset and --source both name training data.", "Give one of them.")
    folder = Path(options.dataset or "").expanduser()
    if options.dataset and (is_built_dataset(folder) or (folder / STATS_FILE).is_file()):
        _require_persona(folder, options, home)
        return plan_dataset(folder, options.recipe, parse_setting_args(options), read_consent(home))
    sources = [default_source(options, home)] if not options.source else []
    with ProgressCounter() as counter:
        return plan_sources(make_build_spec(options, sources, home), options.recipe, counter.count)


def _require_persona(folder: Path, options: argparse.Namespace, home: Path) -> None:
    """Raise `RequestError` for another persona's data set."""
    persona = options.persona and load_persona(options.persona, home).id
    built_for = read_stats(folder)["persona"]
    if persona and persona != built_for:
        mismatch = f"{folder} was built for {built_for or 'dialogue'}, not for {persona}."
        raise RequestError(mismatch, "Name another, or no --persona.")


def _print_plan(run_plan: RunPlan, adapters: Iterable[Path], options: argparse.Namespace) -> None:
    # `plan` has no such option; the runs of a bot have.
    card: EvaluationExtent = getattr(options, "card", None) or "full"
    plan = run_plan.as_json(adapters, with_samples=options.samples, card=card)
    if options.json:
        print(json.dumps(plan, ensure_ascii=False))
    else:
        print("\n".join(_plan_table(plan, only_writes=getattr(options, "only_write", False))))


def _plan_table(plan: dict[str, Any], *, only_writes: bool) -> list[str]:
    samples = plan["samples"]
    lines = [
        f"{plan['persona'] or 'dialogue'} over {plan['base_model']}: {samples['train']:,} samples "
        "to train on, "
        f"{samples['eval']:,} held out, {plan['tokens']:,} tokens",
        *record_lines(plan),
        *_lore_pair_lines(plan),
        "tokens per sample",
        *_length_histogram(plan["tokens_per_sample"]),
        f"adapter: {', '.join(plan['adapter']['target_modules'])}; "
        f"{plan['adapter']['coverage']:.1%} of the parameters in the model's blocks",
    ]
    for recipe in plan["recipes"]:
        lines.append(
            f"{recipe['recipe']}: {recipe['steps']:,} steps, about "
            f"{_rounded_duration(recipe['seconds'])}, "
            f"{recipe['memory_bytes'] / 2**30:.1f} GiB of memory ({recipe['basis']})"
        )
        if recipe["recipe"] == plan["recipe"]:
            lines.append(f"  {_phases_text(recipe['phases'])}")
            for warning in recipe["warnings"]:
                here = " Here: --teacher, or TEACHER." if warning == OWN_TEACHER_NOTE else ""
                lines.append(f"  note: {warning}{here}")
            if only_writes:
                lines.append(f"  --only-write: {_writing_text(recipe['phases'])}")
            lines += _memory_advice(recipe, plan)
    return [*lines, *(f"\n{example}" for example in plan.get("examples", []))]


def _writing_text(phases: Mapping[str, float]) -> str:
    """Say how much of a plan is done by a run that ends once the replies are written."""
    writing_s = phases.get("writing replies")
    lasts = "" if writing_s is None else f", after {format_duration(writing_s)}"
    return f"it ends once the replies are written{lasts}; the rest is the training that follows"


def _phases_text(phases: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {format_duration(seconds)}" for name, seconds in phases.items())


def _lore_pair_lines(plan: dict[str, Any]) -> list[str]:
    pairs = plan.get("lore_pairs")
    if not pairs:
        return []
    extracted, synthesised, used, samples = pairs.values()
    share = samples / (plan["samples"]["train"] + plan["samples"]["eval"])
    return [
        f"lore pairs: {extracted:,} extracted, {synthesised:,} synthesised; {used:,} used, "
        f"{share:.0%} of the samples"
    ]


def _memory_advice(recipe: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    """Suggest settings for a run that does not fit."""
    free = plan["free_bytes"]
    if recipe["memory_bytes"] <= free:
        return []
    would = ", and no settings would make it fit"
    if recipe["memory"].get(WRITING_PART):
        would = " for the model that writes the replies"
    # In the order of their effect on the result: the first that fits costs least.
    fitting = [way for way in plan["lighter"] if way["memory_bytes"] <= free]
    if fitting:
        would = f"; with {settings_as_options(fitting[0]['set'])} it would"
    return [f"  It does not fit: {free / 2**30:.1f} GiB are free{would}."]


def _length_histogram(histogram: dict[str, Any]) -> list[str]:
    most = max(histogram["counts"], default=1) or 1
    lines = []
    # There is an edge more than counts.
    for low, count in zip(histogram["edges"], histogram["counts"], strict=False):
        bar = "█" * round(BAR_WIDTH_CHARS * count / most)
        lines.append(f"  from {low:>6,}  {count:>7,}  {bar}".rstrip())
    return lines


def _rounded_duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
