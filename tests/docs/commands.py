"""docs/commands.md, out of the parsers: what each command does, its options and examples, and all exit codes."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator

import bot.cli.ask
import bot.cli.run
import bot.sandbox.__main__
import personas.card.card_cli
import trainer.cli.main
from personas.cli_common import iter_parsers

PARSERS = (
    bot.cli.run.build_parser,
    bot.cli.ask.build_ask_parser,
    trainer.cli.main.build_parser,
    personas.card.card_cli.build_parser,
    bot.sandbox.__main__.command_line,
)
BEGINNING = """\
# Commands

{note}
`--help` behind each of them says the same. What a command prints goes to standard output, what it says of its progress
to standard error: as a bar on a terminal, as a line now and then in a pipe. `--json` prints one JSON object instead of
words. Colours are left out in a pipe, where `NO_COLOR` is set, and where `TERM` is `dumb`. What the
terminal's encoding lacks is printed as a question mark.

## Exit codes

| code | what |
| --- | --- |
| 0 | done; of the bot and the sandbox: ended by Ctrl-C or SIGTERM while they served |
| 1 | could not be done, and says why: no such file, name or setting, a full disk; `doctor`: something does not work |
| 2 | wrong usage: words that the command does not take, a value of another form, or one that is missing |
| 3 | `python -m trainer run`: another trainer works on this folder |
| 130 | Ctrl-C in the middle of a command |
| 141 | nobody reads the output any more (`… \\| head`) |
| 143 | stopped by SIGTERM; of the trainer's commands. A run goes on where it was when it is started again |

## Completion

Shells complete the first word of a line, so the bot and the trainer have commands of their own in `.venv/bin`:
`understudy` is `python -m bot`, `understudy-trainer` is `python -m trainer`. For bash, in this terminal:

```sh
source <(.venv/bin/python -m bot completion bash)
source <(.venv/bin/python -m trainer completion bash)
```

The first of the two completes `model_inference`, too. In zsh (after `compinit`) say `zsh` for `bash`, in fish
`.venv/bin/python -m bot completion fish | source`. How they are installed for good stands under
[`completion`](#python--m-bot-completion).
"""


def commands(note: str) -> Iterator[str]:
    """The lines of the page."""
    yield BEGINNING.format(note=note)
    for make in PARSERS:
        whole = make()
        for parser in iter_parsers(whole):
            yield f"{'##' if parser.prog == whole.prog else '###'} {parser.prog}\n"
            yield from _told(parser)


def _told(parser: argparse.ArgumentParser) -> Iterator[str]:
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
    """Text as it stands; lines that are indented are shown as they are typed."""
    for block in re.split(r"((?:^  .*\n?)+)", text.strip("\n"), flags=re.MULTILINE):
        if block.startswith("  "):
            yield f"```sh\n{textwrap.dedent(block).rstrip()}\n```\n"
        elif block.strip():
            yield f"{block.strip()}\n"


def _name(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else " ".join(_values(action))
    if not action.option_strings:
        return f"`{value}`"
    needed = " (needed)" if action.required else ""
    return f"`{' '.join(filter(None, [', '.join(action.option_strings), value]))}`{needed}".replace("|", "\\|")


def _values(action: argparse.Action) -> tuple[str, ...]:
    if isinstance(action.metavar, tuple):
        return action.metavar
    if action.metavar:
        return (action.metavar,)
    return (" or ".join(map(str, action.choices)) if action.choices else action.dest.upper(),)


def _help(formatter: argparse.HelpFormatter, action: argparse.Action) -> str:
    told = formatter._expand_help(action) if action.help else ""
    return re.sub(r"\s+", " ", told).replace("|", "\\|")


def _anchor(heading: str) -> str:
    """As GitHub names a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
