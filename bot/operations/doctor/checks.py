"""The result of a doctor's check."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

CheckState = Literal["ok", "warn", "fail"]
"""`warn`: the bot runs, but something is slower or missing; `fail`: something does not work."""


@dataclass(frozen=True)
class BotCheck:
    """A check's result. `found` is text for people; `remedy` is the advice, empty where all is well."""

    name: str
    state: CheckState
    found: str
    remedy: str = ""


def failed_checks(checks: Iterable[BotCheck]) -> list[str]:
    """Return the names of the failed checks, each once."""
    return list(dict.fromkeys(check.name for check in checks if check.state == "fail"))
