"""A machine for the table of base models: its trainer's sums, its processor's speed, and a model of
a hub.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
from safetensors.numpy import save

from bot.models.weight_read_speed import WeightReadSpeed
from personas.models.catalogue import catalogue_models

GIB = 2**30
COMMIT = "0" * 39 + "1"
PINNED = f"Qwen/Qwen3-0.6B@{COMMIT}"
MODEL = {
    "config.json": b'{"model_type": "qwen3"}',
    "model.safetensors": save({"model.norm.weight": np.ones(2**17, dtype=np.float32)}),
}
"""Files that a hub has at that commit."""
SIZES = {
    "machine": {"has_cuda": False, "memory_bytes": 16 * GIB, "device": "main memory"},
    "fits": [
        {
            "model": model.id,
            "recipe": recipe,
            "here_bytes": factor * model.weight_bytes,
            "fits_here": True,
        }
        for model in catalogue_models()
        for recipe, factor in (("auto", 3), ("s0-6gb", 2))
    ],
}


def trainer_that_says(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"print({text!r})")


def pretend_machine(monkeypatch: Any) -> None:
    """A processor of a known speed, in a machine of 16 GiB without a card."""
    speed = WeightReadSpeed(20e9, "bfloat16", "here", 0.0)
    monkeypatch.setattr("bot.models.weight_read_speed.measure_speed", lambda: speed)
    memory = SimpleNamespace(total=16 * GIB, available=2 * GIB)
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=GIB))
    psutil = SimpleNamespace(virtual_memory=lambda: memory, Process=lambda: process)
    monkeypatch.setattr("bot.models.table.psutil", psutil)
    command = trainer_that_says(json.dumps(SIZES))
    monkeypatch.setattr("bot.models.table.build_table.__defaults__", (command,))
