"""A check: one thing that was looked at, how it is, and the remedy where it is not well."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]
"""`warn`: the bot runs, but something is slower or missing; `fail`: something does not work."""


@dataclass(frozen=True)
class Check:
    """`found` is what was found, for people; `remedy` what to do about it, empty where all is well."""

    name: str
    state: State
    found: str
    remedy: str = ""


def failed(checks: Iterable[Check]) -> list[str]:
    """The names of those that fail, each once."""
    return list(dict.fromkeys(check.name for check in checks if check.state == "fail"))
