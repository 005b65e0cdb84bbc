"""Time and memory of a run, over all processes that it took: kept in its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from trainer.loop.memory import MemoryWatch


class Account:
    """Counts from when it is made. What was spent after the last checkpoint of an earlier process is not known."""

    def __init__(self) -> None:
        self.memory = MemoryWatch()
        self._begun = time.perf_counter()
        self._seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Since the run began, without the time in which nothing ran."""
        return self._seconds_before + time.perf_counter() - self._begun

    def as_kept(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"seconds": self.seconds, "peak_bytes": self.memory.peak().bytes}

    def go_on_from(self, kept: Mapping[str, Any]) -> None:
        """Add what an earlier process spent, as a checkpoint has it; nothing where there is none."""
        if not kept:
            return
        self._seconds_before = float(kept.get("seconds", 0.0))
        self.memory.peak_before = int(kept.get("peak_bytes", 0))
