"""The shell completion of `python -m bot` and `model_inference`."""

import argparse

from bot.cli.ask import build_ask_parser
from bot.cli.parser import build_parser
from personas.cli_common import completion_script

# Shells complete by the first word, and `python` is too general.
PROGRAM_NAME = "understudy"


def run_completion(arguments: argparse.Namespace) -> int:
    """Print the completion script for a shell."""
    print(completion_script([build_parser(PROGRAM_NAME), build_ask_parser()], arguments.shell))
    return 0
