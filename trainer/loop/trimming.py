"""Giving back what batches of many lengths leave in the heap.

The allocator, as a run sets it up (`trainer.process.environment`), keeps what is freed: the next step finds its pages
there already, which makes training faster. But tensors of another length do not fit where the last ones lay, so over a
whole run the heap grows to a multiple of what one step needs. Trimming gives back every page that holds nothing, and
costs the next step its pages' first touch; so it is done only when the heap has grown beyond what a step needs alone.
"""

from __future__ import annotations

import ctypes
import platform
from typing import Any

import psutil
from transformers import TrainerCallback

from trainer.process.environment import HEAP_SLACK_BYTES


class HeapTrimmer(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Looks after every batch. The most that one held by itself, begun with a trimmed heap, is what is needed."""

    def __init__(self, allowed_bytes: int = HEAP_SLACK_BYTES) -> None:
        self._process, self._allowed = psutil.Process(), allowed_bytes
        self._needed = 0
        self._is_trimmed = True

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._look()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._look()

    def _look(self) -> None:
        held = int(self._process.memory_info().rss)
        if self._is_trimmed:
            self._needed = max(self._needed, held)
        self._is_trimmed = held > self._needed + self._allowed
        if self._is_trimmed:
            ctypes.CDLL(None).malloc_trim(0)


def trims_here(on_cpu: bool) -> bool:
    """Whether the heap is glibc's, and what is computed lies in it."""
    return on_cpu and platform.libc_ver()[0] == "glibc"
