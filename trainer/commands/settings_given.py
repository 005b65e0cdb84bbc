"""Settings of a recipe on the command line: `--set name=value`."""

from __future__ import annotations

import argparse

from personas.errors import RequestError
from personas.hyperparameters import Hyperparameters, settings_of

SET_HELP = "a setting of the recipe, such as learning_rate=2e-4 (`recipes` explains them); may repeat"


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds `--set`."""
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help=SET_HELP)


def settings_given(options: argparse.Namespace) -> Hyperparameters:
    """What `--set` says, and `--max-length` where a command has it. Raises `RequestError`, in its own words."""
    pairs = list(options.settings)
    if (longest := getattr(options, "max_length", None)) is not None:
        if any(pair.partition("=")[0].strip() == "max_length" for pair in pairs):
            raise RequestError("--max-length and --set both say how long a sample may be.", "Give one of them.")
        pairs.append(f"max_length={longest}")
    return settings_of(pairs)
