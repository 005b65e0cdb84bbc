"""What a run would take, from what runs have taken: steps, seconds and memory by recipe.

The speed is that of the latest run on this machine over the same base model, where its adapter folder is at hand. Where
there is none it is a measured run's on another machine, brought to this one by its number of weights and by how fast
both multiply matrices. Either is right within a third or so, and `basis` says which it was.
"""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from personas.base_model import BaseModel
from personas.errors import UnderstudyError
from trainer.fitted import epochs_of, steps_of
from trainer.machine import has_bfloat16
from trainer.recipe import Recipe

REFERENCE_TOKENS_PER_S, REFERENCE_WEIGHTS, REFERENCE_GFLOPS = 1100.0, 134.5e6, 258.0
"""Training on two cores with bfloat16 in hardware, where numpy multiplies float32 matrices at so many GFLOP/s."""

WITHOUT_BFLOAT16 = 0.25
"""float32 products are slower by so much (212 against 970 GFLOP/s on that machine)."""

MEASURING_SPEED = 3.0
"""Without the way back: tokens are measured so much faster than they are trained on."""

STARTUP_S = 12.0
"""Loading libraries, base model twice, and writing."""

BYTES_PER_ACTIVATION, RUNTIME_BYTES, WEIGHT_BYTES, ADAPTER_COPIES = 80, 800 * 2**20, 2, 16
"""Memory: for each token of a batch, layer and unit of width; of the libraries; of a weight; and of an adapter's weight
with its gradient and AdamW's two means."""

PROBED, PROBES = 384, 60


@dataclass(frozen=True)
class Workload:
    """Token counts of the samples that a run would train on, hold out, and measure forgetting with."""

    train: Sequence[int]
    heldout: Sequence[int]
    general: Sequence[int] = ()


@dataclass(frozen=True)
class Speed:
    """Trained tokens a second, and where the number comes from."""

    tokens_per_s: float
    basis: str


def estimate(name: str, recipe: Recipe, base: BaseModel, work: Workload, speed: Speed) -> dict[str, Any]:
    """What the recipe would take; seconds for the whole run, bytes at the peak."""
    fitting = [tokens for tokens in work.train if tokens <= recipe.max_length]
    steps = steps_of(recipe, len(fitting))
    epochs = epochs_of(recipe, len(fitting))
    trained = sum(fitting) * epochs
    passes = 2 + _measurements(recipe, steps, epochs)  # before, after, and on the way
    measured = sum(work.heldout) * passes + 2 * sum(work.general)
    seconds = STARTUP_S + (trained + measured / MEASURING_SPEED) / speed.tokens_per_s
    return {
        "recipe": name,
        "samples": len(fitting),
        "steps": steps,
        "trained_tokens": round(trained),
        "seconds": round(seconds),
        "memory_bytes": _memory(recipe, base, max(fitting, default=0)),
        "tokens_per_s": round(speed.tokens_per_s),
        "basis": speed.basis,
    }


def _measurements(recipe: Recipe, steps: int, epochs: float) -> int:
    """How often held-out replies are measured on the way."""
    if recipe.eval_strategy == "epoch":
        return math.ceil(epochs)
    return steps // recipe.eval_steps if recipe.eval_strategy == "steps" else 0


def speed_of(base: BaseModel, adapters: Iterable[Path]) -> Speed:
    """The speed to expect; `adapters` are folders of earlier runs on this machine, the latest first."""
    for folder in adapters:
        if speed := _measured(base, folder):
            return speed
    factor = _probe() / REFERENCE_GFLOPS * REFERENCE_WEIGHTS / (base.weight_bytes / WEIGHT_BYTES)
    if has_bfloat16():
        return Speed(REFERENCE_TOKENS_PER_S * factor, "a measured run, scaled to this machine's matrix products")
    slow = REFERENCE_TOKENS_PER_S * factor * WITHOUT_BFLOAT16
    return Speed(slow, "a measured run, scaled to this machine's matrix products without bfloat16 in hardware")


def adapters_in(home: Path) -> list[Path]:
    """The adapter folders of the runs under a bot's home, the latest first."""
    folders = [*home.glob("jobs/*/adapter"), *home.glob("models/persona_adapters/*/*")]
    return sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)


def _measured(base: BaseModel, folder: Path) -> Speed | None:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        with (folder / "report" / "steps.csv").open(encoding="utf-8", newline="") as file:
            last = list(csv.DictReader(file))[-1]
        if manifest["base_model"] != base.name:
            return None
        return Speed(float(last["tokens_per_s"]), f"the run of {manifest['created_at'][:16]} on this machine")
    except (OSError, ValueError, LookupError, TypeError, UnderstudyError):
        return None  # not a finished run's


def _memory(recipe: Recipe, base: BaseModel, longest: int) -> int:
    config = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config", config)
    width, layers = int(config.get("hidden_size", 0)), int(config.get("num_hidden_layers", 0))
    tokens = recipe.per_device_train_batch_size * longest
    # Both matrices of a projection together are some three widths long.
    adapter = recipe.lora_r * width * layers * len(recipe.target_modules) * 3
    return round(
        RUNTIME_BYTES + base.weight_bytes + adapter * ADAPTER_COPIES + tokens * layers * width * BYTES_PER_ACTIVATION
    )


def _probe() -> float:
    """GFLOP/s of float32 matrix products on all cores: one core's best, as if nothing else ran, times their number."""
    matrix = np.ones((PROBED, PROBED), dtype=np.float32)
    took = []
    with threadpool_limits(1):
        for _ in range(PROBES):
            begun = time.perf_counter()
            matrix @ matrix
            took.append(time.perf_counter() - begun)
    return float(2 * PROBED**3 / min(took) / 1e9) * (os.cpu_count() or 1)
