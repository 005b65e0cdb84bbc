"""What a machine computes with, as far as it decides how a recipe runs there."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from personas.base_model import best_precision, load_torch
from trainer.loop.memory import machine_bytes

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
NVIDIA_SMI = ("nvidia-smi", "--format=csv,noheader,nounits")
ASKING_S = 10
MAIN_MEMORY = "main memory"


@dataclass(frozen=True)
class Machine:
    """`best`: the precision that it trains in fastest: `bf16`, `fp16` (older GPUs) or `fp32`.

    `memory_bytes` is what there is of the memory that a run is held in, the GPU's or this container's, and `free_bytes`
    what of it is free now; 0 where nobody has looked. `device` names it.
    """

    has_cuda: bool
    best: str
    memory_bytes: int = 0
    free_bytes: int = 0
    device: str = MAIN_MEMORY


def machine_here() -> Machine:
    """This machine, by torch's word."""
    torch = load_torch()
    if not torch.cuda.is_available():
        return Machine(False, "bf16" if best_precision() == "bfloat16" else "fp32", machine_bytes(), free_bytes())
    free, total = torch.cuda.mem_get_info()
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return Machine(True, "bf16" if native else "fp16", int(total), int(free), str(torch.cuda.get_device_name()))


def machine_guessed() -> Machine:
    """This machine as it looks without loading torch, which takes seconds: for what is only told."""
    is_cpu_build = importlib.metadata.version("torch").endswith("+cpu")
    if is_cpu_build or not NVIDIA_DRIVER.exists() or not (cards := graphics_cards()):
        return Machine(False, "bf16" if has_bfloat16() else "fp32", machine_bytes(), free_bytes())
    card = cards[0]
    best = "bf16" if card.capability >= BF16_CAPABILITY else "fp16"
    return Machine(True, best, card.memory_bytes, card.free_bytes, card.name)


@dataclass(frozen=True)
class Card:
    """A graphics card by its driver's word. `capability` is CUDA's compute capability."""

    name: str
    driver: str
    capability: float
    memory_bytes: int
    free_bytes: int


BF16_CAPABILITY = 8.0
"""From Ampere on GPUs multiply in bfloat16."""


def graphics_cards() -> list[Card]:
    """NVIDIA's cards here, as `nvidia-smi` lists them; none where it does not run."""
    fields = "name,driver_version,compute_cap,memory.total,memory.free"
    try:
        said = subprocess.run(
            [*NVIDIA_SMI, f"--query-gpu={fields}"], capture_output=True, text=True, timeout=ASKING_S, check=True
        )
        return [_card(line) for line in said.stdout.splitlines() if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def _card(line: str) -> Card:
    name, driver, capability, total, free = (field.strip() for field in line.rsplit(",", 4))
    return Card(name, driver, float(capability), int(total) * 2**20, int(free) * 2**20)


def free_bytes() -> int:
    """Main memory that is free now, of what this container may have."""
    return min(int(psutil.virtual_memory().available), machine_bytes())


def has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return os.uname().machine == "arm64"  # Apple's do
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))
