"""Shared command-line helpers: examples in help, shell completion, colours and progress for logs."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

SHELLS = ("bash", "zsh", "fish")

FOLDER_METAVARS = ("DIR", "FOLDER", "ADAPTER_FOLDER")
"""Placeholders in help texts that stand for a folder."""

PROGRESS_INTERVAL_S = 10.0


def add_examples(parser: argparse.ArgumentParser, *lines: str) -> argparse.ArgumentParser:
    """The parser with examples at the end of its help; they begin with its `prog`."""
    examples = "\n".join(f"  {line}" for line in lines)
    parser.epilog = "\n\n".join(filter(None, [parser.epilog, f"examples:\n{examples}"]))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def supports_colour() -> bool:
    """Whether standard output shows colours, and is to."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def completion_script(parsers: Iterable[argparse.ArgumentParser], shell: str) -> str:
    """A script for these commands, each under its `prog`, in one of `SHELLS`."""
    import shtab  # nothing else needs it

    scripts = {}
    for parser in parsers:
        for each in iter_parsers(parser):
            _complete_paths(each)
        scripts[parser.prog] = shtab.complete(parser, shell=shell)
    if shell == "zsh":
        return _zsh_script(scripts)
    kept = "  local sub_parsers\n"  # else `line` of whoever is at the shell is lost
    return "\n".join(script.replace(kept, f"{kept}  local line\n") for script in scripts.values())


def _zsh_script(scripts: Mapping[str, str]) -> str:
    """One script of several: found in `fpath` under each command's name, or read by `eval` or `source`."""
    bodies = (script.partition("\n")[2].partition("\ntypeset -A opt_args\n")[0] for script in scripts.values())
    functions = "\n".join(bodies).replace("  local context", "  local -A opt_args\n  local context")
    at_once = "\n".join(f"  compdef _shtab_{name.replace('-', '_')} {name}" for name in scripts)
    return f"""\
#compdef {" ".join(scripts)}
{functions}
if [[ $zsh_eval_context[-1] == (eval|file) ]]; then
{at_once}
else
  _shtab_${{service//-/_}} "$@"
fi"""


def iter_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser and those of all its commands, in the order of their help."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):  # one may have several names
                yield from iter_parsers(command)


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    """Have what takes a path complete paths."""
    import shtab

    for action in parser._actions:
        if _is_path_action(action):
            is_folder = action.metavar in FOLDER_METAVARS
            action.complete = shtab.DIRECTORY if is_folder else shtab.FILE  # type: ignore[attr-defined]


def _is_path_action(action: argparse.Action) -> bool:
    read = action.type
    if read is Path:
        return True
    told = getattr(read, "__annotations__", {}).get("return")
    return told in (Path, "Path")  # a function that gives one


class LogProgress:
    """Lines on standard error for a log or a pipe; none before it takes long, none where a bar is seen."""

    def __init__(self, every_s: float = PROGRESS_INTERVAL_S) -> None:
        self._every_s, self._said = every_s, time.monotonic()

    def say(self, line: str) -> None:
        """Print the line unless it is too soon, or standard error is a terminal."""
        now = time.monotonic()
        if now - self._said >= self._every_s and not sys.stderr.isatty():
            self._said = now
            print(line, file=sys.stderr, flush=True)
