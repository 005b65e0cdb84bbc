"""The interface of a model runner: a forward pass over tokens of many sequences."""

from collections import abc
from dataclasses import dataclass
from typing import Any, Protocol

from personas.engine.kv_cache import PrefixCache
from personas.engine.lora_slots import BASE_MODEL_SLOT, LoraSlot


@dataclass
class ScheduledTokens:
    """Tokens of one sequence to compute after those in its KV cache.

    `logits` is the number of last tokens whose logits are returned: none for a part of a prompt
    that leaves tokens for later. `negative` are tokens without the persona, from whose logits the
    reply is guided away by `guidance_scale` (`personas.engine.guidance`).
    """

    kv: Any
    tokens: abc.Sequence[int]
    slot: LoraSlot = BASE_MODEL_SLOT
    logits: int = 1
    negative: "ScheduledTokens | None" = None
    guidance_scale: float = 1.0


class ForwardBackend(Protocol):
    """Computes scheduled tokens and appends them, with their keys and values, to their KV
    caches.
    """

    def forward(self, scheduled: abc.Sequence[ScheduledTokens]) -> Any:
        """Return float32 logits after the last `logits` tokens of each item, `[all of them,
        vocabulary]`.
        """


class KernelBackend(ForwardBackend, Protocol):
    """A compiled forward pass, which owns threads and memory."""

    def close(self) -> None:
        """Free the threads and the memory."""


class ModelRunner(Protocol):
    """A model with the KV caches of its sequences."""

    prefixes: (
        PrefixCache | None
    )  # keys and values that its sequences share; None where they are not stored

    @property
    def backend(self) -> ForwardBackend:
        """The forward pass to use for the next batch."""

    def new_kv_cache(self, capacity: int) -> Any:
        """Create the KV cache of a sequence of at most `capacity` tokens."""

    def kv_bytes(self, tokens: int) -> int:
        """Return the bytes of the KV cache of so many tokens; 0 where that is unknown."""
