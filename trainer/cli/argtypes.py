"""Types of arguments, and how a command is added."""

import argparse
from collections.abc import Sequence
from typing import TypeAlias

from personas.errors import RequestError
from personas.schemas.base import right_error
from personas.schemas.hyperparameters import Hyperparameters, parse_settings

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands, name: str, summary: str, description: str
) -> argparse.ArgumentParser:
    """Add a command; its description keeps its line breaks."""
    formatter = argparse.RawDescriptionHelpFormatter
    return commands.add_parser(
        name, help=summary, description=description, formatter_class=formatter
    )


def positive_int(text: str) -> int:
    """Parse a positive integer. Raises `ArgumentTypeError`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)


def unit_fraction(text: str) -> float:
    """Parse a number from 0 to 1. Raises `ArgumentTypeError`."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return share


def positive_seconds(text: str) -> float:
    """Parse a number of seconds. Raises `ArgumentTypeError`."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, got {text!r}")
    return seconds


def parse_setting_args(options: argparse.Namespace) -> Hyperparameters:
    """Parse `--set`, and `--max-length` if the command has it. Raises `RequestError`."""
    pairs = list(options.settings)
    longest = getattr(options, "max_length", None)
    if longest is not None:
        if any(pair.partition("=")[0].strip() == "max_length" for pair in pairs):
            raise RequestError("--max-length and --set both set max_length.", "Give one of them.")
        pairs.append(f"max_length={longest}")
    return parse_settings(pairs)


def column_mapping(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Parse `--map`. Raises `RequestError` for contradictory pairs."""
    mapping: dict[str, str] = {}
    for left, right in pairs:
        if mapping.get(left, right) != right:
            raise RequestError(
                f"--map gives {left} twice: {mapping[left]!r} and {right!r}.",
                "Give each one column.",
            )
        mapping[left] = right
    return mapping


def key_value(text: str) -> tuple[str, str]:
    """Parse `a=b`, for argparse."""
    left, equals, right = text.partition("=")
    if not (left and equals and right):
        raise argparse.ArgumentTypeError(f"expected ROLE=COLUMN, got {text!r}")
    return left, right


def right_name(text: str) -> str:
    """Parse a right, for argparse."""
    wrong = right_error(text)
    if wrong:
        raise argparse.ArgumentTypeError(f"{text!r} {wrong}")
    return text
