"""Whether a run fits into the memory that is free; one that does not is refused, with what would fit."""

from __future__ import annotations

import psutil

from personas.base_model import BaseModel
from personas.errors import NoMemoryError
from trainer.machine import Machine, machine_here
from trainer.predict.estimate import Speed, estimate
from trainer.predict.lighter import Way, lighter
from trainer.predict.work import Workload
from trainer.recipe import Recipe

IGNORING = "--ignore-memory trains all the same"


def require_fits(recipe: Recipe, base: BaseModel, work: Workload, machine: Machine | None = None) -> None:
    """Raise `NoMemoryError` when a run would need more than this process could have, naming settings that would fit.

    `machine` is this one, where none is given; what this process holds of it counts as free.
    """
    machine = machine or machine_here()
    free = free_for(machine)
    needed = estimate("", recipe, base, work, Speed(1.0, ""), machine)["memory_bytes"]
    if needed <= free:
        return
    way = next((way for way in lighter(recipe, base, work, Speed(1.0, ""), machine) if way.memory_bytes <= free), None)
    raise NoMemoryError(
        f"The run needs about {_gib(needed)} of memory ({machine.device}); {_gib(free)} are free.", _advice(way)
    )


def free_for(machine: Machine) -> int:
    """Bytes that a run in this process could have."""
    return machine.free_bytes + (0 if machine.has_cuda else held_here())


def held_here() -> int:
    """Bytes that this process holds."""
    return int(psutil.Process().memory_info().rss)


def _advice(way: Way | None) -> str:
    if way is None:
        return f"No settings would make it fit: free some memory, or choose a smaller base model; {IGNORING}."
    return f"With {way.words} it would need {_gib(way.memory_bytes)}. Or free some memory; {IGNORING}."


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
