"""How many of something, on the command line."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """One or more. Raises `ArgumentTypeError`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)


REVIEW_DAYS = 14
"""How long what was anonymised can be checked, unless something else is asked for."""


def days(text: str) -> int:
    """1 to 365 days, for argparse."""
    if not text.isdecimal() or not 1 <= int(text) <= 365:
        raise argparse.ArgumentTypeError(f"expected 1 to 365 days, got {text!r}")
    return int(text)


def add_telling(parser: argparse.ArgumentParser) -> None:
    """Adds how often work says how far it is where there is no terminal."""
    parser.add_argument(
        "--tell-every", type=_seconds, default=10.0, metavar="SECONDS", help="how often a pipe is told how far it is"
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, got {text!r}")
    return seconds
