"""Engine state and per-request metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AdapterStatus:
    """An adapter that is in memory: its name, how many replies it is making, and whether it has a slot of the stack.

    One without a slot is computed by peft, a reply at a time.
    """

    name: str
    replies: int
    in_slot: bool


@dataclass(frozen=True)
class EngineState:
    """How an engine stands at one moment.

    `running` of at most `rows` replies are being made, `waiting` requests wait. `adapters` are those in memory, of
    which `slots` can have a place in the stack. `kept_bytes` of at most `kept_most_bytes` hold what prompts share.
    """

    model: str
    device: str
    precision: str
    context_tokens: int
    running: int
    rows: int
    waiting: int
    slots: int
    adapters: tuple[AdapterStatus, ...]
    kept_bytes: int
    kept_most_bytes: int


@dataclass(frozen=True)
class RequestMetrics:
    """How one request went. `first_s` is how long it took to the first text (None: there was none), `whole_s` to the
    end, in seconds; the tokens are 0 where it failed or was stopped before its turn."""

    first_s: float | None
    whole_s: float
    prompt_tokens: int
    new_tokens: int
    finish: Literal["stop", "length", "cancelled", "failed"]


MetricsCallback = Callable[[RequestMetrics], None]
"""Is told of each request as it ends, on the engine's thread or the event loop's: it must take no time."""


def ignore_metrics(told: RequestMetrics) -> None:
    """Where nobody watches."""
