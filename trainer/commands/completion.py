"""`python -m trainer completion`: scripts by which shells complete the trainer's commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from personas.command_line import SHELLS, completion_script, with_examples
from trainer.commands.dataset import guarded

PROGRAM = "understudy-trainer"
"""The command's name for shells: they complete the first word, and `python` is everybody's."""


def add_completion(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parser: Callable[[str], argparse.ArgumentParser]
) -> None:
    """Adds `completion`; `parser` makes the whole parser under a name."""
    command = commands.add_parser(
        "completion",
        help="a script that completes these commands in a shell",
        description="Completes `understudy-trainer`: `python -m trainer` under a name of its own, in .venv/bin.",
    )
    with_examples(
        command,
        "python -m trainer completion bash > ~/.local/share/bash-completion/completions/understudy-trainer",
        "python -m trainer completion zsh > ~/.zfunc/_understudy-trainer",
        "python -m trainer completion fish > ~/.config/fish/completions/understudy-trainer.fish",
    )
    command.add_argument("shell", choices=SHELLS, help="which shell")
    command.set_defaults(
        command=guarded(lambda options: print(completion_script([parser(PROGRAM)], options.shell))),
    )
