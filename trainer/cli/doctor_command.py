"""`python -m trainer doctor` and `predictions`: checks the machine, and compares predictions with
measurements.
"""

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

from personas.cli_common import supports_colour
from personas.errors import UnderstudyError
from trainer.cli.argtypes import Commands, add_command
from trainer.cli.options import BASE_MODEL, JSON, OUT, add_options, flag
from trainer.doctor.doctor_report import (
    predict_sizes,
    remedy_lines,
    report_lines,
    run_checks,
    size_lines,
)
from trainer.estimate.calibration import (
    CASES,
    QUICK_CASES,
    calibration_json,
    calibration_markdown,
    run_calibration,
)
from trainer.process.environment import find_home

DOCTOR_HELP = """\
Checks this machine: reports obstacles and slow parts, with remedies, and which recipes fit which base models, here and
on graphics cards of common sizes. Takes half a minute and downloads nothing.

  python -m trainer doctor
  python -m trainer doctor --base-model ~/models/my-model
  python -m trainer doctor --fix-hints                     only the remedies
  python -m trainer doctor --sizes                         only the tables of memory; a moment

Exit codes: 0 runs work (perhaps slowly), 1 they do not.
"""
PREDICTIONS_HELP = """\
Trains for a few steps in a dozen configurations, each in a separate process, and compares predicted with measured
memory and time. Other programs that run at the same time make the times longer.

  python -m trainer predictions --out docs/predictions.md
  python -m trainer predictions --quick --json
"""


def add_doctor(commands: Commands) -> argparse.ArgumentParser:
    """Add `doctor`."""
    doctor = add_command(
        commands,
        "doctor",
        "check this machine, with remedies; list the recipes that fit",
        DOCTOR_HELP,
    )
    add_options(doctor, [BASE_MODEL.but(help="base model (default: BASE_MODEL, else embedded)")])
    add_options(doctor, [flag("--sizes", "print only the memory that recipes need, unchecked")])
    output = doctor.add_mutually_exclusive_group()
    add_options(
        output,
        [
            JSON,
            flag("--fix-hints", "print only the remedies"),
        ],
    )
    return doctor


def show_doctor_report(options: argparse.Namespace) -> None:
    """Run `doctor`. Raises `UnderstudyError` if runs do not work."""
    if options.sizes:
        report = predict_sizes(options.base_model)
        text = json.dumps(report.as_json()) if options.json else "\n".join(size_lines(report))
        print(text)
        return
    report = run_checks(options.base_model, find_home(), _print_check)
    _print_check("")
    if options.json:
        print(json.dumps(report.as_json(), ensure_ascii=False))
    elif options.fix_hints:
        print("\n".join(remedy_lines(report)))
    else:
        print("\n".join(report_lines(report, coloured=supports_colour())))
    if report.failed:
        raise UnderstudyError(
            f"Runs do not work here: {', '.join(report.failed)}.", "See the remedies above."
        )


def _print_check(what: str) -> None:
    """Show the current check on one line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what and f'checking {what} …'}", end="", file=sys.stderr, flush=True)


def add_predictions(commands: Commands) -> argparse.ArgumentParser:
    """Add `predictions`."""
    predictions = add_command(
        commands, "predictions", "compare predicted with measured memory and time", PREDICTIONS_HELP
    )
    add_options(
        predictions,
        [
            OUT.but(metavar="FILE", help="write the tables as a Markdown page"),
            flag("--quick", "only three configurations"),
            JSON,
        ],
    )
    return predictions


def show_predictions(options: argparse.Namespace) -> None:
    """Run `predictions`."""
    with tempfile.TemporaryDirectory(prefix="understudy-predictions-") as folder:
        cases = QUICK_CASES if options.quick else CASES
        results = calibration_json(
            run_calibration(cases, Path(folder), partial(print, file=sys.stderr))
        )
    page = calibration_markdown(results)
    if options.out:
        options.out.write_text(page, encoding="utf-8")
    if options.json:
        print(json.dumps(results))
    else:
        print(page, end="")
