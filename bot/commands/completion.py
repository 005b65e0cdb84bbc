"""`python -m bot completion`: scripts by which shells complete the commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from bot import one_question
from personas.command_line import SHELLS, completion_script

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

PROGRAM = "understudy"
"""The command's name for shells: they complete the first word, and `python` is everybody's."""

NOTES = """\
examples:
  python -m bot completion bash | tee ~/.local/share/bash-completion/completions/{understudy,model_inference}
  python -m bot completion zsh > ~/.zfunc/_understudy
  python -m bot completion fish | tee ~/.config/fish/completions/{understudy,model_inference}.fish

It completes `understudy`, which is `python -m bot` under a name of its own, and `model_inference`; both lie in
.venv/bin. The folders have to be there; in zsh, ~/.zfunc in fpath before compinit. bash (with bash-completion) and fish
look for a file of the command's name. For this terminal alone, in bash or zsh: source <(.venv/bin/understudy completion
bash), and in fish: .venv/bin/understudy completion fish | source. The trainer's commands are `understudy-trainer`:
python -m trainer completion bash."""


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
        print(completion_script([parser(PROGRAM), one_question.parser()], arguments.shell))
        return 0

    command.set_defaults(before_settings=run)
