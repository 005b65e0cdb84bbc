"""`python -m trainer doctor` and `predictions`: what this machine can train, and how well that is predicted."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from personas.cli_common import supports_colour
from personas.errors import UnderstudyError
from personas.models.base_model import EMBEDDED
from trainer.doctor.doctor_report import remedy_lines, report_lines, run_checks
from trainer.estimate.calibration import CASES, QUICK_CASES, calibration_json, calibration_markdown, run_calibration
from trainer.process.environment import find_home

DOCTOR_HELP = """\
Says what this machine is and has, what of that keeps runs from working or slows them, what to do about it, and which
recipes fit which base models, here and on graphics cards of usual sizes. Takes half a minute, and fetches nothing.

  python -m trainer doctor
  python -m trainer doctor --base-model ~/models/my-model
  python -m trainer doctor --fix-hints                     only what to do

Exit codes: 0 runs work (something may be slower than it could be), 1 they do not.
"""


def add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Adds `show_doctor_report`."""
    doctor = commands.add_parser(
        "doctor",
        help="what this machine can train, what is wrong with it, and what to do about that",
        description=DOCTOR_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("--base-model", default=EMBEDDED, metavar="M", help="over which model (default: embedded)")
    told = doctor.add_mutually_exclusive_group()
    told.add_argument("--json", action="store_true", help="print one JSON object")
    told.add_argument("--fix-hints", action="store_true", help="print only what to do about what is not well")
    return doctor


def show_doctor_report(options: argparse.Namespace) -> None:
    """Runs `show_doctor_report`. Raises `UnderstudyError` where runs do not work."""

    report = run_checks(options.base_model, find_home(), _print_check)
    _print_check("")
    if options.json:
        print(json.dumps(report.as_json(), ensure_ascii=False))
    else:
        coloured = supports_colour()
        print("\n".join(remedy_lines(report) if options.fix_hints else report_lines(report, coloured=coloured)))
    if report.failed:
        raise UnderstudyError(f"Runs do not work here: {', '.join(report.failed)}.", "The remedies stand beside them.")


def _print_check(what: str) -> None:
    """One line that is written over, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what and f'looking at {what} …'}", end="", file=sys.stderr, flush=True)


PREDICTIONS_HELP = """\
Trains for a few steps in a dozen configurations, each in a process of its own, and compares the memory and the time
that were predicted with what was measured. Other programs that compute meanwhile make the times longer.

  python -m trainer predictions --out docs/predictions.md
  python -m trainer predictions --quick --json
"""


def add_predictions(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Adds `show_predictions`."""
    predictions = commands.add_parser(
        "predictions",
        help="how near predicted memory and time are",
        description=PREDICTIONS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    predictions.add_argument("--out", type=Path, metavar="FILE", help="write the tables as a page of markdown")
    predictions.add_argument("--quick", action="store_true", help="only three configurations")
    predictions.add_argument("--json", action="store_true", help="print one JSON object")
    return predictions


def show_predictions(options: argparse.Namespace) -> None:
    """Runs `show_predictions`."""

    with tempfile.TemporaryDirectory(prefix="understudy-predictions-") as folder:
        found = run_calibration(
            QUICK_CASES if options.quick else CASES, Path(folder), lambda text: print(text, file=sys.stderr)
        )
    told = calibration_json(found)
    if options.out:
        options.out.write_text(calibration_markdown(told), encoding="utf-8")
    print(json.dumps(told) if options.json else calibration_markdown(told), end="\n" if options.json else "")
