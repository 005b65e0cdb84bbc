"""Describes the machine: GPU, precision, total and free memory, the memory a run holds, package
versions.
"""

import ctypes
import gc
import importlib.metadata
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from personas.models.graphics_cards import Gpu, list_gpus
from personas.models.loading import best_precision, load_torch

MEMORY_POLL_INTERVAL_S = 1.0  # looking for processes below this one reads the whole process table
CGROUP_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
CPU_INFO = Path("/proc/cpuinfo")
PROC_STATUS = Path("/proc/self/status")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
MAIN_MEMORY = "main memory"
VERSIONED_PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")
MIN_BF16_CAPABILITY = 8.0  # compute capability of Ampere, the first with bfloat16 products


@dataclass(frozen=True)
class MemoryPeak:
    """Peak memory use and total memory of a device, in bytes."""

    bytes: int
    of_bytes: int
    device: str

    @property
    def share(self) -> float:
        """Share of the total."""
        return self.bytes / self.of_bytes


class MemoryWatch:
    """Samples memory use on request and keeps the peak. `peak_before` is that of the run's earlier
    processes.
    """

    def __init__(self) -> None:
        self.peak_before = 0
        self._process = psutil.Process()
        self._below = 0
        self._most_below = 0
        self._looked_at = float("-inf")

    def held(self) -> int:
        """Return the bytes in use now: GPU memory reserved by torch, or resident memory of the
        process tree.
        """
        torch = load_torch()
        if torch.cuda.is_available():
            return int(torch.cuda.memory_reserved())
        return int(self._process.memory_info().rss) + self._held_below()

    def peak(self) -> MemoryPeak:
        """Return the peak so far, over all processes of a run."""
        torch = load_torch()
        if torch.cuda.is_available():
            device = torch.cuda.get_device_properties(torch.cuda.current_device())
            most = max(int(torch.cuda.max_memory_reserved()), self.peak_before)
            return MemoryPeak(most, int(device.total_memory), str(device.name))
        most = self._own_peak() + max(self._most_below, self._held_below())
        return MemoryPeak(max(most, self.peak_before), total_memory_bytes(), "main memory")

    def _held_below(self) -> int:
        if time.monotonic() - self._looked_at > MEMORY_POLL_INTERVAL_S:
            children = self._process.children(recursive=True)
            self._below = sum(map(process_memory_bytes, children))
            self._most_below = max(self._most_below, self._below)
            self._looked_at = time.monotonic()
        return self._below

    def _own_peak(self) -> int:
        """Return the process's peak as the kernel reports it; its current use where the kernel does
        not.
        """
        try:
            lines = PROC_STATUS.read_text(encoding="ascii", errors="replace").splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
        except (OSError, StopIteration):
            return int(self._process.memory_info().rss)


def total_memory_bytes() -> int:
    """Return the machine's memory, or a container's limit."""
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int(CGROUP_MEMORY_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):
        # No container, or one without a limit ("max").
        return total


def release_memory() -> None:
    """Return unused memory to the system, as between two models.

    glibc, as a run configures it (`trainer.process.environment`), keeps freed memory in fragments,
    which are too small for the next model's tensors.
    """
    torch = load_torch()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def process_memory_bytes(process: psutil.Process) -> int:
    """Return a process's resident memory; 0 if it has just ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


@dataclass(frozen=True)
class MachineSpec:
    """The hardware of a run. `best` is its fastest training precision: `bf16`, `fp16` (older GPUs)
    or `fp32`.

    `memory_bytes` and `free_bytes` are those of the GPU, or of this container without one; 0 if not
    probed. `device` names it. `cpu_fp16`: the processor multiplies in float16.
    """

    has_cuda: bool
    best: str
    memory_bytes: int = 0
    free_bytes: int = 0
    device: str = MAIN_MEMORY
    cpu_fp16: bool = False


def probe_machine() -> MachineSpec:
    """Probe this machine with torch."""
    torch = load_torch()
    if not torch.cuda.is_available():
        best = "bf16" if best_precision() == "bfloat16" else "fp32"
        fp16 = bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
        return MachineSpec(False, best, total_memory_bytes(), free_memory_bytes(), cpu_fp16=fp16)
    free, total = torch.cuda.mem_get_info()
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return MachineSpec(
        True,
        "bf16" if native else "fp16",
        int(total),
        free_bytes=int(free),
        device=str(torch.cuda.get_device_name()),
    )


def probe_machine_without_torch() -> MachineSpec:
    """Probe this machine without importing torch, which takes seconds; good enough for
    estimates.
    """
    is_cpu_build = importlib.metadata.version("torch").endswith("+cpu")
    cards: list[Gpu] = []
    if not is_cpu_build and NVIDIA_DRIVER.exists():
        cards = list_gpus()
    if not cards:
        best = "bf16" if has_bfloat16() else "fp32"
        fp16 = _cpu_has("avx512_fp16")
        return MachineSpec(False, best, total_memory_bytes(), free_memory_bytes(), cpu_fp16=fp16)
    card = cards[0]
    best = "bf16" if card.capability >= MIN_BF16_CAPABILITY else "fp16"
    return MachineSpec(True, best, card.memory_bytes, free_bytes=card.free_bytes, device=card.name)


def free_memory_bytes() -> int:
    """Return the free main memory, within this container's limit."""
    return min(int(psutil.virtual_memory().available), total_memory_bytes())


def has_bfloat16() -> bool:
    """Tell whether the processor multiplies in bfloat16."""
    if not CPU_INFO.exists():
        return os.uname().machine == "arm64"  # Apple's do
    return _cpu_has("avx512_bf16", "amx_bf16", " bf16")


def _cpu_has(*flags: str) -> bool:
    try:
        info = CPU_INFO.read_text(encoding="utf-8")
    except OSError:
        return False
    return any(flag in info for flag in flags)


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that compute."""
    return {name: importlib.metadata.version(name) for name in VERSIONED_PACKAGES}
