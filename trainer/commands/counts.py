"""How many of something, on the command line."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """One or more. Raises `ArgumentTypeError`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)
