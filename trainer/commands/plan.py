"""`python -m trainer plan`, and what `run FOLDER --dry-run` prints."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personas.errors import RequestError, UnderstudyError
from trainer.commands.build import add_sources
from trainer.commands.settings_given import settings_given

if TYPE_CHECKING:
    from trainer.building.mix import Source
    from trainer.plan import Planned

PLAN_HELP = """\
Says what a run would do and writes nothing: what is kept, what is dropped and why, how long, how much memory.

  python -m trainer plan --persona ballast                            its own talk, as `/finetune start` would take it
  python -m trainer plan --persona ballast --source talk.json --mix 80:20 …      sources as for `dataset build`
  python -m trainer plan --dataset build/ballast                      a built data set
  python -m trainer plan --persona ballast --dataset harbour-talk     one of catalogue.toml
"""
BAR_WIDTH = 40


def add_plan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Adds `plan`."""
    plan = commands.add_parser(
        "plan", help="what a run would do", description=PLAN_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_sources(plan, required=False)
    plan.add_argument("--dataset", metavar="D", help="a built data set's folder, a source, or a name of the catalogue")
    add_plan_output(plan)
    return plan


def add_plan_output(parser: argparse.ArgumentParser) -> None:
    """Adds how a plan is printed, and where earlier runs lie."""
    parser.add_argument("--home", type=Path, metavar="DIR", help="the bot's home (else UNDERSTUDY_HOME, ~/.understudy)")
    parser.add_argument("--samples", action="store_true", help="show three samples, what is learned between ⟦ and ⟧")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def plan(options: argparse.Namespace) -> None:
    """Runs `plan`."""
    from trainer.predict.estimate import adapters_in

    home = home_of(options.home)
    _print(_planned(options, home), adapters_in(home), options)


def plan_run(options: argparse.Namespace, named: Mapping[Path, Path] | None = None) -> None:
    """Runs `run FOLDER --dry-run`. `named` says of what lies in the folder where it was copied from, for errors."""
    from trainer.plan import plan_of_job
    from trainer.predict.estimate import adapters_in

    os.nice(options.nice)
    try:
        planned = plan_of_job(options.folder)
    except UnderstudyError as told:
        error = _as_named(told, named or {})
        if options.json:  # for whoever cannot tell the error from what else is said
            print(json.dumps({"error": error.message, "advice": error.advice}, ensure_ascii=False))
        raise error from told
    _print(planned, adapters_in(home_of(options.home)), options)


def _as_named(error: UnderstudyError, named: Mapping[Path, Path]) -> UnderstudyError:
    """The error with the places that were named, not those of their copies."""
    texts = [error.message, error.advice]
    for copied in sorted(named, key=lambda path: len(str(path)), reverse=True):  # one may begin as another does
        texts = [text.replace(str(copied), str(named[copied])) for text in texts]
    return UnderstudyError(*texts)


def home_of(named: Path | None) -> Path:
    """The bot's home: as named, or where it is otherwise."""
    from trainer.home import as_home, home

    return as_home(named) if named else home()


def _planned(options: argparse.Namespace, home: Path) -> Planned:
    from personas.consent import read_consent
    from personas.data_set import STATS_FILE, is_data_set
    from trainer.commands.orders import order_of
    from trainer.commands.progress import Counting
    from trainer.plan import plan_of_dataset, plan_of_order

    if options.dataset and options.source:
        raise RequestError("--dataset and --source both say what to learn from.", "Give one of them.")
    folder = Path(options.dataset or "").expanduser()
    if options.dataset and (is_data_set(folder) or (folder / STATS_FILE).is_file()):
        _require_persona(folder, options, home)
        return plan_of_dataset(folder, options.recipe, settings_given(options), read_consent(home))
    sources = [source_of(options, home)] if not options.source else []
    with Counting() as counting:
        return plan_of_order(order_of(options, sources, home), options.recipe, counting.heard)


def source_of(options: argparse.Namespace, home: Path) -> Source:
    """What to learn from where no source is named: a data set by name, or the persona's own talk."""
    from personas.catalogue import read_catalogue
    from trainer.building.mix import parse_source
    from trainer.commands.orders import SHIPPED_DATA, persona_named, source_named

    if not options.dataset and not options.persona:
        raise RequestError("There is nothing to plan.", "Name a --persona, a --source or a --dataset.")
    name = options.dataset or persona_named(options.persona, home).id
    if options.dataset and Path(name).expanduser().exists():
        return parse_source(name)
    if "/" in name:
        raise RequestError(f"There is no file or folder {name}.", "Check the path, or name a data set.")
    if named := source_named(name, home):
        return named
    read = read_catalogue(home)
    known = ", ".join([*sorted(path.stem for path in (SHIPPED_DATA / "logs").glob("*.json")), *read.entries])
    raise RequestError(read.faults.get(name, f"There is no data set {name!r}."), f"Known: {known}; or name a path.")


def _require_persona(folder: Path, options: argparse.Namespace, home: Path) -> None:
    """Raise `RequestError` for another persona's data set."""
    from trainer.building.folder import read_stats
    from trainer.commands.orders import persona_named

    wanted, made_for = options.persona and persona_named(options.persona, home).id, read_stats(folder)["persona"]
    if wanted and wanted != made_for:
        raise RequestError(
            f"{folder} was made for {made_for or 'dialogue'}, not for {wanted}.", "Name another, or no --persona."
        )


def _print(planned: Planned, adapters: Iterable[Path], options: argparse.Namespace) -> None:
    told = planned.as_json(adapters, with_samples=options.samples)
    print(json.dumps(told, ensure_ascii=False) if options.json else "\n".join(_table(told)))


def _table(told: dict[str, Any]) -> list[str]:
    samples, spread = told["samples"], told["tokens_per_sample"]
    sources = ", ".join(f"{name} {count:,}" for name, count in told["sources"].items())
    lines = [
        f"{told['persona'] or 'dialogue'} over {told['base_model']}: {samples['train']:,} samples to train on, "
        f"{samples['eval']:,} held out, {told['tokens']:,} tokens",
        f"from {sources}",
        f"{told['rows_used']:,} of {told['rows']:,} records used",
        *(f"  dropped {rows:>9,}  {reason}" for reason, rows in told["dropped"].items()),
        "tokens per sample",
        *_bars(spread),
    ]
    for recipe in told["recipes"]:
        lines.append(
            f"{recipe['recipe']}: {recipe['steps']:,} steps, about {_duration(recipe['seconds'])}, "
            f"{recipe['memory_bytes'] / 2**30:.1f} GiB of memory ({recipe['basis']})"
        )
        if recipe["recipe"] == told["recipe"]:
            lines += [f"  note: {warning}" for warning in recipe["warnings"]]
            lines += _fit(recipe["memory_bytes"], told)
    lines.append("and then its score card, in as much time again at most (--card quick: a fifth, --card losses: none)")
    return [*lines, *(f"\n{example}" for example in told.get("examples", []))]


def _fit(needed: int, told: dict[str, Any]) -> list[str]:
    """What to do where the run does not fit."""
    free = told["free_bytes"]
    if needed <= free:
        return []
    ways = [way for way in told["lighter"] if way["memory_bytes"] <= free]
    with_less = " ".join(f"--set {name}={str(value).lower()}" for name, value in ways[0]["set"].items()) if ways else ""
    would = f"; with {with_less} it would" if ways else ", and no settings would make it fit"
    return [f"  It does not fit: {free / 2**30:.1f} GiB are free{would}."]


def _bars(spread: dict[str, Any]) -> list[str]:
    most = max(spread["counts"], default=1) or 1
    return [
        f"  from {low:>6,}  {count:>7,}  {'█' * round(BAR_WIDTH * count / most)}".rstrip()
        for low, count in zip(spread["edges"], spread["counts"], strict=False)
    ]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
