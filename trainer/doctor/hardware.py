"""Checks of what computes, and of the memory it has: graphics cards, processor, main memory."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from trainer.doctor.check import GIB, Check
from trainer.loop.memory import machine_bytes
from trainer.machine import BF16_CAPABILITY, Card, Machine, has_bfloat16

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
CUDA_TORCH = 'remove .venv, then make setup TORCH_ARGS="--index-url …", naming an index of CUDA builds'


@dataclass(frozen=True)
class Torch:
    """What torch says of itself. `cuda` is the CUDA that it was built for, empty for a build without."""

    version: str
    cuda: str
    sees_gpu: bool
    best: str


def graphics(cards: Sequence[Card], torch: Torch | None) -> Check:
    """The graphics cards, and whether torch computes on them."""
    if not cards:
        return Check("graphics card", "ok", "none: everything is computed on the processor")
    named = "; ".join(
        f"{card.name}, {card.free_bytes / GIB:.1f} of {card.memory_bytes / GIB:.1f} GiB free, driver {card.driver}"
        for card in cards
    )
    if torch is None:
        return Check("graphics card", "warn", named, "see torch")
    if not torch.cuda:
        return Check("graphics card", "warn", f"{named}; torch {torch.version} computes without CUDA", CUDA_TORCH)
    if not torch.sees_gpu:
        found = f"{named}; torch {torch.version}, built for CUDA {torch.cuda}, does not see it"
        return Check("graphics card", "fail", found, "update the driver to one for that CUDA, or restart the machine")
    precision = "bfloat16" if cards[0].capability >= BF16_CAPABILITY else "float16 only"
    return Check("graphics card", "ok", f"{named}; CUDA {torch.cuda}, {precision}")


def processor() -> Check:
    """Cores that may be used, and the 16-bit products they have."""
    cores, present = usable_cores(), os.cpu_count() or 1
    of = "" if cores == present else f" of {present}"
    flags = _flags()
    tiles = ", AMX" if "amx_bf16" in flags else ""
    if has_bfloat16():
        return Check("processor", "ok", f"{_model()}: {cores:g}{of} cores, bfloat16{tiles}")
    found = f"{_model()}: {cores:g}{of} cores, no bfloat16"
    return Check(
        "processor", "warn", found, "runs are some four times slower; a processor with AVX512-BF16 or AMX helps"
    )


def usable_cores() -> float:
    """Those that this process may run on, of which a container may have a share."""
    allowed = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = CPU_QUOTA.read_text(encoding="ascii").split()
        return min(allowed, int(quota) / int(period))
    except (OSError, ValueError):  # no container, or one without a quota ("max")
        return allowed


def memory(machine: Machine, least_bytes: int) -> Check:
    """Memory for a run, of which the lightest recipe needs `least_bytes` over the chosen base model."""
    total, swap = machine_bytes(), psutil.swap_memory().total
    found = f"{_gib(machine.free_bytes)} of {_gib(machine.memory_bytes)} free, {machine.device}"
    if machine.has_cuda:
        found += f"; {_gib(total)} of main memory"
    if total < (installed := int(psutil.virtual_memory().total)):
        found += f", a container's share of {_gib(installed)}"
    found += f"; {_gib(swap)} of swap"
    needs = f"the lightest recipe takes {_gib(least_bytes)}"
    if least_bytes > machine.memory_bytes:
        return Check(
            "memory", "fail", f"{found}; {needs}", "choose a smaller BASE_MODEL, or a machine with more memory"
        )
    if least_bytes > machine.free_bytes:
        return Check("memory", "warn", f"{found}; {needs}", "close other programs, or wait until they have ended")
    return Check("memory", "ok", found)


def _flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def _model() -> str:
    named = (line.partition(":")[2].strip() for line in _flags().splitlines() if line.startswith("model name"))
    return next(named, platform.machine())


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
