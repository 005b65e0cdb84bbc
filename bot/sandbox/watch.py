"""Lets others look on at what goes between bot and sandbox: each request with its answer, and each event told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bot.sandbox.errors import Json


@dataclass(frozen=True)
class Exchange:
    """A request that was answered; the body is None too where it was refused unread."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    status: int
    answer: object


@dataclass(frozen=True)
class Event:
    """What a session of the bot was told."""

    name: str
    data: Json


observers: list[Callable[[Exchange | Event], None]] = []
"""Told of all of this, of every sandbox in this process."""


def tell(what: Exchange | Event) -> None:
    """Tell the observers."""
    for observe in observers:
        observe(what)
