"""Engine state and per-request metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AdapterStatus:
    """An adapter in memory and the replies it generates; without a slot peft computes them, one at a time."""

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
    """Seconds to the first text (None: none) and to the end, and tokens (0 if it failed or never started)."""

    first_s: float | None
    whole_s: float
    prompt_tokens: int
    new_tokens: int
    finish: Literal["stop", "length", "cancelled", "failed"]


MetricsCallback = Callable[[RequestMetrics], None]
"""Called when a request ends, on the engine's thread or on the event loop's; it must not block."""
