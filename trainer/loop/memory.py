"""How much memory a run holds: of the device that computes, or, on a CPU, of this process and all below it."""

from __future__ import annotations

import ctypes
import gc
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from personas.base_model import load_torch

LOOK_EVERY_S = 1.0
"""Looking for processes below this one reads the whole process table."""

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Peak:
    """The most that was held, how much there is (bytes), and of what."""

    bytes: int
    of_bytes: int
    device: str

    @property
    def share(self) -> float:
        """Of what there is."""
        return self.bytes / self.of_bytes


class MemoryWatch:
    """Looks when asked to, and remembers the most. `peak_before` is what an earlier process of the run held."""

    def __init__(self) -> None:
        self.peak_before = 0
        self._process = psutil.Process()
        self._below = self._most_below = 0
        self._looked_at = float("-inf")

    def held(self) -> int:
        """Bytes now: what torch holds of the GPU, or resident memory of the process tree."""
        torch = load_torch()
        if torch.cuda.is_available():
            return int(torch.cuda.memory_reserved())
        return int(self._process.memory_info().rss) + self._held_below()

    def peak(self) -> Peak:
        """The most so far, over all processes that a run took."""
        torch = load_torch()
        if torch.cuda.is_available():
            device = torch.cuda.get_device_properties(torch.cuda.current_device())
            most = int(torch.cuda.max_memory_reserved())
            return Peak(max(most, self.peak_before), int(device.total_memory), str(device.name))
        most = self._own_peak() + max(self._most_below, self._held_below())
        return Peak(max(most, self.peak_before), machine_bytes(), "main memory")

    def _held_below(self) -> int:
        if time.monotonic() - self._looked_at > LOOK_EVERY_S:
            self._below = sum(held_bytes(child) for child in self._process.children(recursive=True))
            self._most_below = max(self._most_below, self._below)
            self._looked_at = time.monotonic()
        return self._below

    def _own_peak(self) -> int:
        """As the kernel has kept it; where it keeps none, what is held now."""
        try:
            lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
        except (OSError, StopIteration):
            return int(self._process.memory_info().rss)


def machine_bytes() -> int:
    """The machine's memory, or what a container may have of it."""
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int(CGROUP_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return total


def release_memory() -> None:
    """Give back what is no longer used, as between two models.

    glibc, as a run sets it up (`trainer.process.environment`), keeps what is freed, in pieces between what is still
    held, and the next model's larger tensors fit into none of them.
    """
    torch = load_torch()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def held_bytes(process: psutil.Process) -> int:
    """Resident memory of a process; 0 when it has just ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
