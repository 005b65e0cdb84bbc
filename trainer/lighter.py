"""What of a recipe can be given up so that a run takes less memory: the batch first, then the length.

A smaller batch with more accumulation learns the same, only slower. With a shorter length prompts hold less history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from personas.base_model import BaseModel
from trainer.estimate import Speed, Workload, estimate
from trainer.recipe import Recipe

MOST_ACCUMULATION, SHORTEST = 256, 128


def lighter(recipe: Recipe, base: BaseModel, work: Workload, speed: Speed) -> list[dict[str, Any]]:
    """Ways to run the recipe with less memory, from the one that changes least.

    Each says what to `set`, and what it takes then (`memory_bytes`, `seconds`).
    """
    ways: list[dict[str, Any]] = []
    least = estimate("", recipe, base, work, speed)["memory_bytes"]
    for changes in _changes(recipe):
        changed = recipe.model_copy(update=changes)
        # History is trimmed to a shorter length, so that hardly a sample is lost to it.
        train = [min(tokens, changed.max_length) for tokens in work.train]
        took = estimate("", changed, base, replace(work, train=train), speed)
        if took["memory_bytes"] < least:
            least = took["memory_bytes"]
            ways.append({"set": changes, "memory_bytes": least, "seconds": took["seconds"]})
    return ways


def _changes(recipe: Recipe) -> Iterator[dict[str, int]]:
    batch, accumulation, length = (
        recipe.per_device_train_batch_size,
        recipe.gradient_accumulation_steps,
        recipe.max_length,
    )
    changes: dict[str, int] = {}
    while batch > 1:
        batch, accumulation = batch // 2, min(MOST_ACCUMULATION, accumulation * 2)
        changes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        yield changes
    while length > SHORTEST:
        length = max(SHORTEST, length // 2)
        yield {**changes, "max_length": length}
