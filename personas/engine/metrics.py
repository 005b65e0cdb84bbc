"""Engine state and per-request metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AdapterStatus:
    """An adapter in memory: its name, the number of replies it generates, and whether it has a LoRA slot.

    Adapters without a slot are computed by peft, one reply at a time.
    """

    name: str
    replies: int
    in_slot: bool


@dataclass(frozen=True)
class EngineState:
    """Load of an engine: `running` of `rows` replies, `waiting` requests, and the adapters in memory.

    `slots` is the number of LoRA slots; `kept_bytes` of `kept_most_bytes` hold shared prompt prefixes.
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
    """Measurements of one request: seconds to the first text (None without any) and to the end, and tokens.

    The tokens are 0 for a request that failed or was cancelled before it started.
    """

    first_s: float | None
    whole_s: float
    prompt_tokens: int
    new_tokens: int
    finish: Literal["stop", "length", "cancelled", "failed"]


MetricsCallback = Callable[[RequestMetrics], None]
"""Called when a request ends, on the engine's thread or on the event loop's; it must not block."""


def ignore_metrics(metrics: RequestMetrics) -> None:
    """Discard the metrics."""
