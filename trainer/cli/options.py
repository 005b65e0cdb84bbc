"""Declares options of commands: an option is an object, and commands share those that they have in
common.
"""

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from personas.cli_common import int_from
from personas.models.base_model_setting import base_model_name
from personas.schemas.base import RIGHTS
from trainer.cli.argtypes import (
    key_value,
    positive_seconds,
    right_name,
    unit_fraction,
)

DEFAULT_REVIEW_DAYS = 14  # days until a list of replaced personal data is deleted


class OptionContainer(Protocol):
    """A parser, or a group of one."""

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """Add an option or argument."""


@dataclass(frozen=True)
class Option:
    """An option, or a positional argument if its name has no dashes, with argparse's settings."""

    name: str
    settings: Mapping[str, Any]

    def but(self, **changes: Any) -> "Option":
        """Return the option with other settings, such as another help text."""
        return Option(self.name, {**self.settings, **changes})


def add_options(parser: OptionContainer, options: Iterable[Option]) -> None:
    """Add options to a parser, or to a group of one, in the order of its help."""
    for declared in options:
        parser.add_argument(declared.name, **declared.settings)


def option(name: str, metavar: str | None, help_text: str | None, **settings: Any) -> Option:
    """Return an option with one value, or a positional argument."""
    return Option(name, {"metavar": metavar, "help": help_text, **settings})


def choice(name: str, choices: tuple[str, ...], help_text: str, **settings: Any) -> Option:
    """Return an option whose value is one of `choices`."""
    return Option(name, {"choices": choices, "help": help_text, **settings})


def flag(name: str, help_text: str) -> Option:
    """Return an option without a value: True if it is named."""
    return Option(name, {"action": "store_true", "help": help_text})


def repeated(name: str, metavar: str, help_text: str | None, **settings: Any) -> Option:
    """Return an option that may be named several times; its value is a list."""
    return option(name, metavar, help_text, action="append", **{"default": [], **settings})


def listed(name: str, metavar: str, help_text: str, **settings: Any) -> Option:
    """Return an option with several values at once, which may be named several times, too."""
    return option(name, metavar, help_text, nargs="+", action="extend", default=[], **settings)


# --------------------------------------------------------------- options that several commands have

JSON = flag("--json", "print one JSON object")
HOME = option(
    "--home", "DIR", "the bot's home (default: UNDERSTUDY_HOME, ~/.understudy)", type=Path
)
PERSONA = option("--persona", "P", "a persona's id or name, or a card file")
NAMES = repeated("--as", "NAME", "P's name in the chats; may repeat", dest="names")
COLUMNS = listed(
    "--map", "ROLE=COLUMN", "columns by role, as for `dataset inspect`", type=key_value
)
RIGHT = option(
    "--right",
    "R",
    f"the right to sources without rights.toml: {', '.join(RIGHTS)}",
    type=right_name,
)
SET = repeated(
    "--set",
    "NAME=VALUE",
    "change a setting of the recipe, such as learning_rate=2e-4 (see `recipes`); may repeat",
    dest="settings",
)
RECIPE = option("--recipe", "R", "the recipe (default: demo-cpu)", default="demo-cpu")
BASE_MODEL = option(
    "--base-model",
    "M",
    "`embedded`, a model folder, a GGUF file, or a hub id (default: BASE_MODEL, else embedded)",
    type=base_model_name,
    default="",
)
LORE = option("--lore", "DIR", "lore folders by persona (default: the bot's)", type=Path)
LORE_PAIRS = option(
    "--lore-pairs",
    "S",
    "share of the replies that come from P's lore, extracted and synthesised; 1 is lore alone "
    "(default: 0)",
    type=unit_fraction,
)
FROM_CARD = option(
    "--from-card",
    "S",
    "share of the replies that a model writes from P's card and lore first (without a number: 1, "
    "which needs no others); the recipe is then `card` unless another is named",
    type=unit_fraction,
    nargs="?",
    const=1.0,
)
TEACHER_OPTIONS = (
    option(
        "--teacher",
        "T",
        "with --from-card, the model that writes: a base model here, or the address of a server with "
        "OpenAI's API, ending in /v1 (default: TEACHER, else the base model, whose name sets TEACHER "
        "aside); its key, if it takes one, in TEACHER_KEY",
        default="",
    ),
    option("--teacher-model", "M", "the model's name at that server", default=""),
    option("--teacher-licence", "L", "the licence under which it writes", default=""),
)
HELD_OUT = option(
    "--held-out",
    "D",
    "with --from-card, a file of exchanges that will measure it: no question like theirs is asked",
)
ADAPTER = option("--adapter", "DIR", "the folder of a version", type=Path, required=True)
JOB = option("--job", "FOLDER", "the folder of the job that trained the adapter", type=Path)
OUT = option("--out", "DIR", "the output folder", type=Path)
DRY_RUN = flag("--dry-run", "only plan the run, as `plan` does")
RUN_FOLDER_OPTIONS = (
    OUT.but(help="the run's folder"),
    flag("--make-only", "create the folder without running it"),
    DRY_RUN,
)
PLAN_OUTPUT = (HOME, flag("--samples", "show three samples, with trained text in ⟦ ⟧"), JSON)
"""How a plan is printed, and the home with earlier runs."""
CORRECTIONS = option(
    "--corrections", "FILE", "names to keep or to replace, as for `anonymise`", type=Path
)
REVIEW_DAYS = option(
    "--review-days",
    "N",
    f"delete that list after so many days (default: {DEFAULT_REVIEW_DAYS})",
    type=int_from(1, 365, "days"),
    default=DEFAULT_REVIEW_DAYS,
)
PROGRESS_INTERVAL = option(
    "--tell-every",
    "SECONDS",
    "interval of progress lines when standard error is not a terminal (default: 10)",
    type=positive_seconds,
    default=10.0,
)
