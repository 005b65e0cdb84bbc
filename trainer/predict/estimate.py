"""What a run would take: steps, seconds and memory by recipe.

Both follow from the recipe, the model's shape and the samples' lengths (`trainer.predict`). How fast this machine is,
the latest runs over the same base model tell, where their adapter folders are at hand: what each computed a second
against what it would have computed on the reference machine. Short runs tell little, and one that was disturbed is
outvoted by two others. Where there is none, both machines' matrix products are compared, and on a GPU nothing is known.
`basis` says which it was.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from personas.base_model import BaseModel
from personas.errors import UnderstudyError
from trainer.fitted import steps_of
from trainer.machine import Machine, machine_guessed
from trainer.predict.memory import Memory, memory_of, value_bytes_of
from trainer.predict.shape import config_of
from trainer.predict.time import startup_s, work_of
from trainer.predict.work import Workload as Workload
from trainer.preference.judged import GOOD_REPLIES
from trainer.recipe import Recipe

REFERENCE_GFLOPS = 258.0
"""Of the reference machine, two cores with bfloat16 in hardware, where numpy multiplies float32 matrices."""

GPU_PACE = 30.0
"""Where no run has been on the GPU: a guess, and called one."""

PROBED, PROBES = 384, 60

ENOUGH_STEPS, ENOUGH_S = 10, 60.0
"""Of a run whose speed is to be believed; and how many of them are asked:"""
ASKED = 3


@dataclass(frozen=True)
class Speed:
    """How many times as fast as the reference machine this one is, and where the number comes from."""

    pace: float
    basis: str


def estimate(
    name: str, recipe: Recipe, base: BaseModel, work: Workload, speed: Speed, machine: Machine | None = None
) -> dict[str, Any]:
    """What the recipe would take; seconds for the whole run, bytes at the peak and what holds them."""
    machine = machine or machine_guessed()
    shape, samples = config_of(base), len(work.fitting(recipe))
    computed = work_of(recipe, shape, work, value_bytes_of(recipe, machine))
    memory = memory_in(recipe, base, work, machine)
    return {
        "recipe": name,
        "samples": samples,
        "steps": steps_of(recipe, work.counted(recipe)),
        "trained_tokens": round(computed.trained_tokens),
        "seconds": round(startup_s(shape) + (computed.training_s + computed.measuring_s) / speed.pace),
        "memory_bytes": memory.total,
        "memory": dict(memory.parts),
        "tokens_per_s": round(computed.trained_tokens / max(computed.training_s, 1e-9) * speed.pace),
        "basis": speed.basis,
    }


def memory_in(recipe: Recipe, base: BaseModel, work: Workload, machine: Machine) -> Memory:
    """The most memory that a run over these samples would hold on a machine."""
    batches = (work.largest_trained(recipe), work.largest_measured(recipe))
    return memory_of(recipe, config_of(base), *batches, machine)


def speed_of(base: BaseModel, recipe: Recipe, work: Workload, adapters: Iterable[Path]) -> Speed:
    """The speed to expect; `adapters` are folders of earlier runs on this machine, the latest first.

    Of such a run it is known what it was set to, not how long its samples were: they count as long as those of `work`.
    """
    machine = machine_guessed()
    if found := list(islice(_measured(base, recipe, work, adapters, machine), ASKED)):
        return min(found, key=lambda it: abs(it.pace - statistics.median_high(run.pace for run in found)))
    if machine.has_cuda:
        return Speed(GPU_PACE, "a guess: no run on this GPU was long enough to tell")
    return Speed(_probe() / REFERENCE_GFLOPS, "measured runs, scaled to this machine's matrix products")


def adapters_in(home: Path) -> list[Path]:
    """The adapter folders of the runs under a bot's home, the latest first."""
    places = ("jobs/*/adapter", "runs/*/adapter", "models/persona_adapters/*/*")
    folders = [folder for place in places for folder in home.glob(place)]
    return sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)


def _measured(
    base: BaseModel, recipe: Recipe, work: Workload, adapters: Iterable[Path], machine: Machine
) -> Iterator[Speed]:
    """The speed of each run that was long enough."""
    for folder in adapters:
        try:
            if speed := _speed_in(base, recipe, work, folder, machine):
                yield speed
        except (OSError, ValueError, LookupError, TypeError, ZeroDivisionError, ValidationError, UnderstudyError):
            continue  # not a finished run's


def _speed_in(base: BaseModel, recipe: Recipe, work: Workload, folder: Path, machine: Machine) -> Speed | None:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    with (folder / "report" / "steps.csv").open(encoding="utf-8", newline="") as file:
        first, *_, last = csv.DictReader(file)
    took_s = float(last["seconds"]) - float(first["seconds"])
    if manifest["base_model"] != base.name or int(last["step"]) < ENOUGH_STEPS or took_s < ENOUGH_S:
        return None
    if GOOD_REPLIES in manifest["dataset"]:  # the reference computed, too
        return None
    known = {key: value for key, value in manifest["hyperparameters"].items() if key in Recipe.model_fields}
    then = Recipe.model_validate({**recipe.model_dump(), **known, "max_length": recipe.max_length})
    computed = work_of(then, config_of(base), replace(work, judged=None), value_bytes_of(then, machine))
    pace = float(last["tokens_per_s"]) / (computed.trained_tokens / computed.training_s)
    return Speed(pace, f"the run of {manifest['created_at'][:16]} on this machine")


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
