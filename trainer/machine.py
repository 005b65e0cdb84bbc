"""Describes the machine: GPU, precision, total and free memory, and the memory a run holds."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from personas.models.base_model import best_precision, load_torch

MEMORY_POLL_INTERVAL_S = 1.0  # looking for processes below this one reads the whole process table
CGROUP_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
PROC_STATUS = Path("/proc/self/status")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
NVIDIA_SMI_COMMAND = ("nvidia-smi", "--format=csv,noheader,nounits")
NVIDIA_SMI_TIMEOUT_S = 10
MAIN_MEMORY = "main memory"
MIN_BF16_CAPABILITY = 8.0  # compute capability of Ampere, the first with bfloat16 products


@dataclass(frozen=True)
class MemoryPeak:
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

    def peak(self) -> MemoryPeak:
        """The most so far, over all processes that a run took."""
        torch = load_torch()
        if torch.cuda.is_available():
            device = torch.cuda.get_device_properties(torch.cuda.current_device())
            most = int(torch.cuda.max_memory_reserved())
            return MemoryPeak(max(most, self.peak_before), int(device.total_memory), str(device.name))
        most = self._own_peak() + max(self._most_below, self._held_below())
        return MemoryPeak(max(most, self.peak_before), total_memory_bytes(), "main memory")

    def _held_below(self) -> int:
        if time.monotonic() - self._looked_at > MEMORY_POLL_INTERVAL_S:
            self._below = sum(process_memory_bytes(child) for child in self._process.children(recursive=True))
            self._most_below = max(self._most_below, self._below)
            self._looked_at = time.monotonic()
        return self._below

    def _own_peak(self) -> int:
        """As the kernel has kept it; where it keeps none, what is held now."""
        try:
            lines = PROC_STATUS.read_text(encoding="ascii", errors="replace").splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
        except (OSError, StopIteration):
            return int(self._process.memory_info().rss)


def total_memory_bytes() -> int:
    """The machine's memory, or what a container may have of it."""
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int(CGROUP_MEMORY_LIMIT.read_text(encoding="ascii")))
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


def process_memory_bytes(process: psutil.Process) -> int:
    """Resident memory of a process; 0 when it has just ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


@dataclass(frozen=True)
class MachineSpec:
    """`best`: the precision that it trains in fastest: `bf16`, `fp16` (older GPUs) or `fp32`.

    `memory_bytes` is what there is of the memory that a run is held in, the GPU's or this container's, and
    `free_memory_bytes` what of it is free now; 0 where nobody has looked. `device` names it.
    """

    has_cuda: bool
    best: str
    memory_bytes: int = 0
    free_bytes: int = 0
    device: str = MAIN_MEMORY


def probe_machine() -> MachineSpec:
    """This machine, by torch's word."""
    torch = load_torch()
    if not torch.cuda.is_available():
        return MachineSpec(
            False, "bf16" if best_precision() == "bfloat16" else "fp32", total_memory_bytes(), free_memory_bytes()
        )
    free, total = torch.cuda.mem_get_info()
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return MachineSpec(True, "bf16" if native else "fp16", int(total), int(free), str(torch.cuda.get_device_name()))


def probe_machine_without_torch() -> MachineSpec:
    """This machine as it looks without loading torch, which takes seconds: for what is only told."""
    is_cpu_build = importlib.metadata.version("torch").endswith("+cpu")
    if is_cpu_build or not NVIDIA_DRIVER.exists() or not (cards := list_gpus()):
        return MachineSpec(False, "bf16" if has_bfloat16() else "fp32", total_memory_bytes(), free_memory_bytes())
    card = cards[0]
    best = "bf16" if card.capability >= MIN_BF16_CAPABILITY else "fp16"
    return MachineSpec(True, best, card.memory_bytes, card.free_bytes, card.name)


@dataclass(frozen=True)
class Gpu:
    """A graphics card by its driver's word. `capability` is CUDA's compute capability."""

    name: str
    driver: str
    capability: float
    memory_bytes: int
    free_bytes: int


def list_gpus() -> list[Gpu]:
    """NVIDIA's cards here, as `nvidia-smi` lists them; none where it does not run."""
    fields = "name,driver_version,compute_cap,memory.total,memory.free"
    try:
        said = subprocess.run(
            [*NVIDIA_SMI_COMMAND, f"--query-gpu={fields}"],
            capture_output=True,
            text=True,
            timeout=NVIDIA_SMI_TIMEOUT_S,
            check=True,
        )
        return [_parse_gpu(line) for line in said.stdout.splitlines() if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def _parse_gpu(line: str) -> Gpu:
    name, driver, capability, total, free = (field.strip() for field in line.rsplit(",", 4))
    return Gpu(name, driver, float(capability), int(total) * 2**20, int(free) * 2**20)


def free_memory_bytes() -> int:
    """Main memory that is free now, of what this container may have."""
    return min(int(psutil.virtual_memory().available), total_memory_bytes())


def has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return os.uname().machine == "arm64"  # Apple's do
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))
