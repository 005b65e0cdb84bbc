"""Command-line helpers: examples in help, shell completion, settings, colours, and progress lines
for logs.
"""

import argparse
import difflib
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from dotenv import dotenv_values

from personas.schemas.hyperparameters import similar_settings
from personas.shipped_folders import IS_SOURCE_TREE, SHIPPED_DOCS

CommandParsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
SHELLS = ("bash", "zsh", "fish")
SCRIPTS = {
    "python -m bot": "understudy",
    "python -m trainer": "understudy-trainer",
    "python -m personas": "understudy-personas",
}
"""Scripts of pyproject.toml by the commands that they are the same as."""
STARTED_SCRIPTS = (*SCRIPTS.values(), "model_inference")
COMMAND_PATTERN = re.compile(r"\bpython -m (?:bot|trainer|personas)\b(?!\.)")
DOCUMENT_PATTERN = re.compile(r"\bdocs/(?=[a-z/-]+\.md\b)")
FOLDER_METAVARS = ("DIR", "FOLDER", "ADAPTER_FOLDER")
"""Metavars that stand for a folder; other paths are completed as files."""

PROGRESS_INTERVAL_S = 10.0


class CommandParser(argparse.ArgumentParser):
    """A parser whose commands report arguments that they do not know themselves, below their own
    usage: argparse leaves that to the parser of the whole program.
    """

    def parse_known_args(self, *arguments: Any, **named: Any) -> Any:
        parsed, unknown = super().parse_known_args(*arguments, **named)
        if unknown:
            self.error(f"unknown arguments: {' '.join(unknown)}{self._advice(*unknown)}")
        return parsed, unknown

    def _advice(self, first: str, *others: str) -> str:
        """Say what an unknown argument may have been meant as; empty where nothing is like it."""
        if not first.startswith("--"):
            return ""
        option, _, value = first.partition("=")
        value = value or next(iter(others), "VALUE")
        near = difflib.get_close_matches(option, self._option_string_actions, n=1, cutoff=0.75)
        meant = list(near)
        if "--set" in self._option_string_actions:
            settings = similar_settings(option.removeprefix("--").replace("-", "_"))
            meant += [f"--set {setting}={value}" for setting in settings[:1]]
        return f" (did you mean {', or '.join(meant)}?)" if meant else ""


def int_from(least: int, most: int, unit: str = "") -> Callable[[str], int]:
    """Return a type that parses an integer from `least` to `most`; `unit` is for its error, an
    `ArgumentTypeError`.
    """

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            allowed = f"{least} to {most} {unit}".rstrip()
            raise argparse.ArgumentTypeError(f"expected {allowed}, got {text!r}")
        return int(text)

    return parse


seed_number = int_from(0, 2**32 - 1)


def add_command(
    commands: CommandParsers, name: str, summary: str, notes: str
) -> argparse.ArgumentParser:
    """Add a command with a line in the list of commands, and with notes below its own help."""
    return commands.add_parser(
        name, help=summary, epilog=notes, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def confirm(question: str) -> bool:
    """Ask on a terminal; False without one."""
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def add_examples(parser: argparse.ArgumentParser, *lines: str) -> argparse.ArgumentParser:
    """Append examples to the help of a parser, and return it. Each line begins with the parser's
    `prog`.
    """
    examples = "\n".join(f"  {line}" for line in lines)
    parser.epilog = "\n\n".join(filter(None, [parser.epilog, f"examples:\n{examples}"]))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def read_setting(name: str) -> str:
    """Return a setting of the environment or of `.env` here, as the bot finds it; empty if there is
    none.
    """
    stated = os.environ.get(name, "").strip()
    return stated or (dotenv_values(".env", interpolate=False).get(name) or "").strip()


def supports_colour() -> bool:
    """Return True if standard output is a terminal that shows colours, and NO_COLOR is not set."""
    return (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def completion_script(parsers: Iterable[argparse.ArgumentParser], shell: str) -> str:
    """Build the completion script of these commands, each under its `prog`, for one of `SHELLS`."""
    import shtab  # takes 30 ms, and only completion needs it

    scripts = {}
    for parser in parsers:
        for each in iter_parsers(parser):
            _complete_paths(each)
        scripts[parser.prog] = shtab.complete(parser, shell=shell)  # nosec B604  # the shell's name
    if shell == "zsh":
        return _zsh_script(scripts)
    # Without `local line` the script overwrites a variable of the user's shell.
    local = "  local sub_parsers\n"
    return "\n".join(script.replace(local, f"{local}  local line\n") for script in scripts.values())


def _zsh_script(scripts: Mapping[str, str]) -> str:
    """Join zsh scripts into one that works in `fpath` under each command's name, and with `eval` or
    `source`.
    """
    bodies = []
    for script in scripts.values():  # without the first line and what is run when it is loaded
        bodies.append(script.partition("\n")[2].partition("\ntypeset -A opt_args\n")[0])
    functions = "\n".join(bodies).replace("  local context", "  local -A opt_args\n  local context")
    compdefs = "\n".join(f"  compdef _shtab_{name.replace('-', '_')} {name}" for name in scripts)
    return f"""\
#compdef {" ".join(scripts)}
{functions}
if [[ $zsh_eval_context[-1] == (eval|file) ]]; then
{compdefs}
else
  _shtab_${{service//-/_}} "$@"
fi"""


def commands_as_typed(text: str) -> str:
    """Name the installed scripts in place of `python -m …`, if one of them was started. A text
    without such a command is returned as the object that it is: it may be localisable.
    """
    if "python -m " not in text or Path(sys.argv[0]).stem not in STARTED_SCRIPTS:
        return text
    return COMMAND_PATTERN.sub(lambda command: SCRIPTS[command[0]], text)


def as_typed(text: str) -> str:
    """Do the same, and name the documents by their paths, if the project is installed as a
    package.
    """
    text = commands_as_typed(text)
    if not IS_SOURCE_TREE:
        text = DOCUMENT_PATTERN.sub(f"{SHIPPED_DOCS}/", text)
    return text


def name_as_typed(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Do the same in the help of a parser and of its subcommands; return the parser."""
    for each in iter_parsers(parser):
        each.prog = as_typed(each.prog)
        each.description = as_typed(each.description or "") or None
        each.epilog = as_typed(each.epilog or "") or None
    return parser


class ShowVersion(argparse.Action):
    """`--version`: prints the version of the installed project."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_values: object) -> NoReturn:
        from importlib.metadata import version  # takes 15 ms, and only this needs it

        print(f"understudy {version('understudy')}")
        parser.exit()


def iter_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parser and those of all its subcommands, in the order of their help."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):  # a command may have aliases
                yield from iter_parsers(command)


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    import shtab  # as above

    for action in parser._actions:
        if _is_path_action(action):
            is_folder = action.metavar in FOLDER_METAVARS
            action.complete = shtab.DIRECTORY if is_folder else shtab.FILE  # type: ignore[attr-defined]


def _is_path_action(action: argparse.Action) -> bool:
    if action.type is Path:
        return True
    returned = getattr(action.type, "__annotations__", {}).get("return")
    return returned in (Path, "Path")  # a function that returns a path


class LogProgress:
    """Progress lines on standard error for a log or a pipe. A terminal shows a progress bar
    instead.
    """

    def __init__(self, interval_s: float = PROGRESS_INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._last_s = time.monotonic()

    def update(self, line: str) -> None:
        """Print the line, unless the last one is less than the interval ago or standard error is a
        terminal.
        """
        now = time.monotonic()
        if now - self._last_s >= self._interval_s and not sys.stderr.isatty():
            self._last_s = now
            print(line, file=sys.stderr, flush=True)
