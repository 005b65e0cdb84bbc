"""The commands about data sets: `python -m trainer dataset …`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from personas.errors import UnderstudyError
from trainer.build_commands import add_build, add_export, build, export, pair

EXIT_DONE, EXIT_FAILED = 0, 1


def add_dataset(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds `dataset` and what belongs to it."""
    dataset = commands.add_parser("dataset", help="look into material and make data sets of it")
    subcommands = dataset.add_subparsers(required=True, metavar="COMMAND")
    inspect = subcommands.add_parser(
        "inspect", help="what a file or folder holds: its format, conversations, what cannot be used and why"
    )
    inspect.add_argument("path", type=Path, metavar="PATH", help="a file, a folder, or the id of a data set on the hub")
    inspect.add_argument("--format", metavar="F", help="read it as this format (default: recognised by its content)")
    inspect.add_argument(
        "--map", type=pair, nargs="+", action="extend", default=[], metavar="ROLE=COLUMN",
        help="which column is what, such as user=question assistant=reply, or messages=talk from=who value=said",
    )  # fmt: skip
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(command=guarded(_inspect))
    add_build(subcommands).set_defaults(command=guarded(build))
    add_export(subcommands).set_defaults(command=guarded(export))


def guarded(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], int]:
    """The command with its errors printed for people; returns the exit code."""

    def run(options: argparse.Namespace) -> int:
        try:
            command(options)
        except UnderstudyError as error:
            print(error, file=sys.stderr)
            return EXIT_FAILED
        return EXIT_DONE

    return run


def _inspect(options: argparse.Namespace) -> None:
    from trainer.inspect import inspect, table
    from trainer.sources import ReadOptions

    found = inspect(options.path, ReadOptions(mapping=dict(options.map)), options.format)
    if options.json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        print("\n".join(table(found, options.path.name)))
