"""`python -m bot completion`: scripts by which shells complete the commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from bot import model_inference
from personas.command_line import SHELLS, completion_script

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

PROGRAM = "understudy"
"""The command's name for shells: they complete the first word, and `python` is everybody's."""

NOTES = """\
examples:
  python -m bot completion bash > ~/.local/share/bash-completion/completions/understudy
  python -m bot completion zsh > ~/.zfunc/_understudy
  python -m bot completion fish > ~/.config/fish/completions/understudy.fish

It completes `understudy`, which is `python -m bot` under a name of its own, and `model_inference`; both lie in
.venv/bin. In bash for this terminal alone: source <(.venv/bin/understudy completion bash). The trainer's commands are
`understudy-trainer`: python -m trainer completion bash."""


def add_commands(commands: Commands, parser: Callable[[str], argparse.ArgumentParser]) -> None:
    """Add `completion`, which needs no settings; `parser` makes the whole parser under a name."""
    command = commands.add_parser(
        "completion",
        help="a script that completes these commands in a shell",
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("shell", choices=SHELLS, help="which shell")

    def run(arguments: argparse.Namespace) -> int:
        print(completion_script([parser(PROGRAM), model_inference.parser()], arguments.shell))
        return 0

    command.set_defaults(before_settings=run)
