"""Checks of the hardware (GPUs, processor, main memory), and the result type of all checks."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import psutil

from trainer.machine import MIN_BF16_CAPABILITY, Gpu, MachineSpec, has_bfloat16, total_memory_bytes

CheckState = Literal["ok", "warn", "fail"]
"""`warn`: runs are slower or some do not work; `fail`: runs with the shipped recipes do not work."""
GIB = 2**30
MAX_ERROR_CHARS = 300
CGROUP_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
CUDA_TORCH_ADVICE = 'remove .venv, then make setup TORCH_ARGS="--index-url …", naming an index of CUDA builds'


@dataclass(frozen=True)
class MachineCheck:
    """A check's result: `found` is for people, `remedy` the advice, empty if all is well."""

    name: str
    state: CheckState
    found: str
    remedy: str = ""


def run_python(code: str, timeout_s: float, environment: Mapping[str, str] | None = None) -> tuple[bool, str]:
    """Run code that may crash or hang in its own process; return success, and the output or the error's last line."""
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment)
    except subprocess.TimeoutExpired:
        return False, f"it did not end within {timeout_s:.0f} s"
    if done.returncode == 0:
        return True, done.stdout.strip()
    errors = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
    return False, errors[-1][:MAX_ERROR_CHARS]


@dataclass(frozen=True)
class TorchBuild:
    """Properties of the installed torch. `cuda` is the CUDA version it was built for, empty without."""

    version: str
    cuda: str
    sees_gpu: bool
    best: str


def check_gpus(cards: Sequence[Gpu], torch: TorchBuild | None) -> MachineCheck:
    """Check that torch can use the GPUs."""
    check = partial(MachineCheck, "graphics card")
    if not cards:
        return check("ok", "none: everything is computed on the processor")
    named = "; ".join(
        f"{card.name}, {card.free_bytes / GIB:.1f} of {card.memory_bytes / GIB:.1f} GiB free, driver {card.driver}"
        for card in cards
    )
    if torch is None:
        return check("warn", named, "see torch")
    if not torch.cuda:
        return check("warn", f"{named}; torch {torch.version} computes without CUDA", CUDA_TORCH_ADVICE)
    if not torch.sees_gpu:
        found = f"{named}; torch {torch.version}, built for CUDA {torch.cuda}, does not see it"
        return check("fail", found, "update the driver to one for that CUDA, or restart the machine")
    precision = "bfloat16" if cards[0].capability >= MIN_BF16_CAPABILITY else "float16 only"
    return check("ok", f"{named}; CUDA {torch.cuda}, {precision}")


def check_processor() -> MachineCheck:
    """Check the available cores and their 16-bit instructions."""
    cores, present = available_cores(), os.cpu_count() or 1
    named = f"{_cpu_model()}: {cores:g}{'' if cores == present else f' of {present}'} cores"
    if has_bfloat16():
        return MachineCheck("processor", "ok", f"{named}, bfloat16{', AMX' if 'amx_bf16' in _cpu_flags() else ''}")
    remedy = "runs are some four times slower; a processor with AVX512-BF16 or AMX helps"
    return MachineCheck("processor", "warn", f"{named}, no bfloat16", remedy)


def available_cores() -> float:
    """Return the cores that this process may use, including a container's CPU quota."""
    allowed = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = CGROUP_CPU_QUOTA.read_text(encoding="ascii").split()
        return min(allowed, int(quota) / int(period))
    except (OSError, ValueError):  # no container, or one without a quota ("max")
        return allowed


def check_memory(machine: MachineSpec, least_bytes: int) -> MachineCheck:
    """Check the memory for a run; the lightest recipe needs `least_bytes` on the base model."""
    total, swap = total_memory_bytes(), psutil.swap_memory().total
    found = f"{_gib(machine.free_bytes)} of {_gib(machine.memory_bytes)} free, {machine.device}"
    if machine.has_cuda:
        found += f"; {_gib(total)} of main memory"
    if total < (installed := int(psutil.virtual_memory().total)):
        found += f", a container's share of {_gib(installed)}"
    found += f"; {_gib(swap)} of swap"
    short = f"{found}; the lightest recipe takes {_gib(least_bytes)}"
    if least_bytes > machine.memory_bytes:
        return MachineCheck("memory", "fail", short, "choose a smaller BASE_MODEL, or a machine with more memory")
    if least_bytes > machine.free_bytes:
        return MachineCheck("memory", "warn", short, "close other programs, or wait until they have ended")
    return MachineCheck("memory", "ok", found)


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def _cpu_model() -> str:
    named = (line.partition(":")[2].strip() for line in _cpu_flags().splitlines() if line.startswith("model name"))
    return next(named, platform.machine())


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
