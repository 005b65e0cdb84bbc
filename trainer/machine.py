"""What a machine computes with, as far as it decides how a recipe runs there."""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import dataclass
from pathlib import Path

from personas.base_model import best_precision, load_torch

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Machine:
    """`best`: the precision that it computes in fastest, `bf16` or `fp32`."""

    has_cuda: bool
    best: str


def machine_here() -> Machine:
    """This machine, by torch's word."""
    return Machine(load_torch().cuda.is_available(), "bf16" if best_precision() == "bfloat16" else "fp32")


def machine_guessed() -> Machine:
    """This machine as it looks without loading torch, which takes seconds: for what is only told."""
    has_cuda = NVIDIA_DRIVER.exists() and not importlib.metadata.version("torch").endswith("+cpu")
    return Machine(has_cuda, "bf16" if has_cuda or has_bfloat16() else "fp32")


def has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return os.uname().machine == "arm64"  # Apple's do
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))
