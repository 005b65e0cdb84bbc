"""Generates docs/commands.md from the parsers: each command with its options and examples, and all
exit codes.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator

import bot.cli.ask
import bot.cli.parser
import personas.card.card_cli
import sandbox.__main__
import trainer.cli.main
from personas.cli_common import iter_parsers

PARSERS = (
    bot.cli.parser.build_parser,
    bot.cli.ask.build_ask_parser,
    trainer.cli.main.build_parser,
    personas.card.card_cli.build_parser,
    sandbox.__main__.command_line,
)
INTRODUCTION = """\
# Commands

{note}
`--help` of each command prints the same. Results go to standard output, progress to standard error: as a bar on a
terminal, as occasional lines in a pipe. `--json` prints one JSON object instead of text. Colours are omitted in a
pipe, if `NO_COLOR` is set, and if `TERM` is `dumb`. Characters that the terminal's encoding lacks are printed as
question marks. [slash-commands.md](slash-commands.md) lists the commands on Discord.

## Exit codes

| code | meaning |
| --- | --- |
| 0 | success; of the bot and the sandbox: ended by Ctrl-C or SIGTERM while serving |
| 1 | failure, with a message: no such file, name or setting, a full disk; `doctor`: a check failed |
| 2 | wrong usage: an unknown, invalid or missing argument |
| 3 | `python -m trainer run`: another trainer uses this folder |
| 130 | Ctrl-C during a command |
| 141 | the reader of the output has gone (`… \\| head`) |
| 143 | ended by SIGTERM; of the trainer's commands. A run resumes when it is started again |

## Completion

Shells complete the first word of a line, so the bot and the trainer have commands of their own in `.venv/bin`:
`understudy` is `python -m bot`, `understudy-trainer` is `python -m trainer`. For bash, in the current terminal:

```sh
source <(.venv/bin/python -m bot completion bash)
source <(.venv/bin/python -m trainer completion bash)
```

The first of the two also completes `model_inference`. In zsh (after `compinit`), use `zsh` instead of `bash`, in fish
`.venv/bin/python -m bot completion fish | source`. [`completion`](#python--m-bot-completion) explains how to install
them permanently.
"""


def commands(note: str) -> Iterator[str]:
    """Yields the lines of the page."""
    yield INTRODUCTION.format(note=note)
    for make in PARSERS:
        whole = make()
        for parser in iter_parsers(whole):
            yield f"{'##' if parser.prog == whole.prog else '###'} {parser.prog}\n"
            yield from _describe(parser)


def _describe(parser: argparse.ArgumentParser) -> Iterator[str]:
    if parser.description:
        yield from _prose(parser.description)
    formatter = argparse.HelpFormatter(parser.prog, width=1000)
    shown = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    plain = [action for action in shown if not isinstance(action, argparse._SubParsersAction)]
    if plain:
        yield "| | |\n| --- | --- |"
        yield from (f"| {_name(action)} | {_help(formatter, action)} |" for action in plain)
        yield ""
    for action in shown:
        if isinstance(action, argparse._SubParsersAction):
            yield "| command | |\n| --- | --- |"
            for one in action._choices_actions:
                link = f"[`{one.dest}`](#{_anchor(action.choices[one.dest].prog)})"
                yield f"| {link} | {_help(formatter, one)} |"
            yield ""
    if parser.epilog:
        yield from _prose(parser.epilog)


def _prose(text: str) -> Iterator[str]:
    """Yields text unchanged, with indented lines as code blocks."""
    for block in re.split(r"((?:^  .*\n?)+)", text.strip("\n"), flags=re.MULTILINE):
        if block.startswith("  "):
            yield f"```sh\n{textwrap.dedent(block).rstrip()}\n```\n"
        elif block.strip():
            yield f"{block.strip()}\n"


def _name(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else " ".join(_values(action))
    if not action.option_strings:
        return f"`{value}`"
    needed = " (required)" if action.required else ""
    return f"`{' '.join(filter(None, [', '.join(action.option_strings), value]))}`{needed}".replace(
        "|", "\\|"
    )


def _values(action: argparse.Action) -> tuple[str, ...]:
    if isinstance(action.metavar, tuple):
        return action.metavar
    if action.metavar:
        return (action.metavar,)
    return (" or ".join(map(str, action.choices)) if action.choices else action.dest.upper(),)


def _help(formatter: argparse.HelpFormatter, action: argparse.Action) -> str:
    text = formatter._expand_help(action) if action.help else ""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _anchor(heading: str) -> str:
    """Returns the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
