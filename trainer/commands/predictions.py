"""`python -m trainer predictions`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

PREDICTIONS_HELP = """\
Trains for a few steps in a dozen configurations, each in a process of its own, and compares the memory and the time
that were predicted with what was measured. Other programs that compute meanwhile make the times longer.

  python -m trainer predictions --out docs/predictions.md
  python -m trainer predictions --quick --json
"""


def add_predictions(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Adds `predictions`."""
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


def predictions(options: argparse.Namespace) -> None:
    """Runs `predictions`."""
    from trainer.predict.cases import CASES, QUICK
    from trainer.predict.measured import as_json, compare, page

    with tempfile.TemporaryDirectory(prefix="understudy-predictions-") as folder:
        found = compare(QUICK if options.quick else CASES, Path(folder), lambda text: print(text, file=sys.stderr))
    told = as_json(found)
    if options.out:
        options.out.write_text(page(told), encoding="utf-8")
    print(json.dumps(told) if options.json else page(told), end="\n" if options.json else "")
