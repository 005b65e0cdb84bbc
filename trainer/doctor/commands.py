"""`python -m trainer doctor`."""

from __future__ import annotations

import argparse
import json
import sys

from personas.base_model import EMBEDDED
from personas.command_line import in_colour
from personas.errors import UnderstudyError

DOCTOR_HELP = """\
Says what this machine is and has, what of that keeps runs from working or slows them, what to do about it, and which
recipes fit which base models, here and on graphics cards of usual sizes. Takes half a minute, and fetches nothing.

  python -m trainer doctor
  python -m trainer doctor --base-model ~/models/my-model
  python -m trainer doctor --fix-hints                     only what to do

Exit codes: 0 runs work (something may be slower than it could be), 1 they do not.
"""


def add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Adds `doctor`."""
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


def doctor(options: argparse.Namespace) -> None:
    """Runs `doctor`. Raises `UnderstudyError` where runs do not work."""
    from trainer.doctor.report import examined, hints, lines
    from trainer.home import home

    report = examined(options.base_model, home(), _heard)
    _heard("")
    if options.json:
        print(json.dumps(report.as_json(), ensure_ascii=False))
    else:
        coloured = in_colour()
        print("\n".join(hints(report) if options.fix_hints else lines(report, coloured=coloured)))
    if report.failed:
        raise UnderstudyError(f"Runs do not work here: {', '.join(report.failed)}.", "The remedies stand beside them.")


def _heard(what: str) -> None:
    """One line that is written over, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what and f'looking at {what} …'}", end="", file=sys.stderr, flush=True)
