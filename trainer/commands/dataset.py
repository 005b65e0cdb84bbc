"""The commands about data sets: `python -m trainer dataset …`."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from personas.command_line import with_examples
from personas.entry import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_UNHEARD, discard_output
from personas.errors import UnderstudyError
from trainer.commands.build import EXPORT_EXAMPLE, add_build, add_export, build, export, mapping_of, pair
from trainer.commands.counts import add_telling
from trainer.commands.places import told_of
from trainer.process.stopping import Terminated, terminable

INSPECT_EXAMPLES = (
    "python -m trainer dataset inspect talk.json",
    "python -m trainer dataset inspect rows.csv --map user=question assistant=reply --json",
)
BUILD_EXAMPLE = "python -m trainer dataset build --persona ballast --source data/logs/ballast.json --out build/ballast"
EXIT_TERMINATED = 143


def add_dataset(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds `dataset` and what belongs to it."""
    dataset = commands.add_parser("dataset", help="look into material and make data sets of it")
    with_examples(dataset, *INSPECT_EXAMPLES, BUILD_EXAMPLE, EXPORT_EXAMPLE)
    subcommands = dataset.add_subparsers(required=True, metavar="COMMAND")
    inspect = subcommands.add_parser(
        "inspect", help="what a file or folder holds: its format, conversations, what cannot be used and why"
    )
    with_examples(inspect, *INSPECT_EXAMPLES)
    inspect.add_argument(
        "path", type=_path, metavar="PATH", help="a file, a folder, or the id of a data set on the hub"
    )
    inspect.add_argument("--format", metavar="F", help="read it as this format (default: recognised by its content)")
    inspect.add_argument(
        "--map", type=pair, nargs="+", action="extend", default=[], metavar="ROLE=COLUMN",
        help="which column is what, such as user=question assistant=reply, or messages=talk from=who value=said",
    )  # fmt: skip
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    add_telling(inspect)
    inspect.set_defaults(command=guarded(_inspect))
    add_build(subcommands).set_defaults(command=guarded(build))
    add_export(subcommands).set_defaults(command=guarded(export))


def guarded(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], int]:
    """The command with whatever goes wrong around it told to people in a line or two; returns the exit code."""

    def run(options: argparse.Namespace) -> int:
        try:
            with terminable():
                command(options)
            sys.stdout.flush()  # what cannot be written is to be known here, not when the interpreter ends
        except UnderstudyError as error:
            return _failed(error)
        except (KeyboardInterrupt, Terminated) as stop:
            print(f"Stopped. {stop}".rstrip(), file=sys.stderr)
            return EXIT_INTERRUPTED if isinstance(stop, KeyboardInterrupt) else EXIT_TERMINATED
        except BrokenPipeError:  # whoever read, as `head`, has enough
            discard_output()
            return EXIT_UNHEARD
        except (OSError, sqlite3.OperationalError) as error:
            discard_output()
            return _failed(told_of(error))
        return EXIT_DONE

    return run


def _failed(error: UnderstudyError) -> int:
    print(error, file=sys.stderr)
    return EXIT_FAILED


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def _inspect(options: argparse.Namespace) -> None:
    from trainer.building.inspect import inspect, table
    from trainer.commands.progress import Counting
    from trainer.sources import ReadOptions

    path: Path = options.path
    with Counting(options.tell_every) as counting:
        heard = partial(counting.heard, "reading")
        found = inspect(path, ReadOptions(mapping=mapping_of(options.map)), options.format, heard)
    if options.json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        print("\n".join(table(found, path.name or path.resolve().name)))
