"""What of a recipe can be given up so that a run takes less memory, from what changes least.

First what leaves the same to be learned: a smaller batch with more accumulation, and computing activations twice. Then
what changes numbers but hardly what is learned: optimiser state in 8 bits, 16-bit products, 4-bit weights on a GPU.
Then a lower rank, and at last a shorter length, with which prompts hold less history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from personas.base_model import BaseModel
from trainer.machine import Machine, machine_guessed
from trainer.predict.estimate import Speed, Workload, estimate
from trainer.recipe import Recipe

MOST_ACCUMULATION, LOWEST_RANK, SHORTEST = 256, 8, 128

Changes = dict[str, int | str]


@dataclass(frozen=True)
class Way:
    """What to `set`, and what the run takes then."""

    set: Changes
    memory_bytes: int
    seconds: int

    @property
    def words(self) -> str:
        """For a command line."""
        return " ".join(f"--set {name}={str(value).lower()}" for name, value in self.set.items())


def lighter(recipe: Recipe, base: BaseModel, work: Workload, speed: Speed, machine: Machine | None = None) -> list[Way]:
    """Ways to run the recipe with less and less memory, from the one that changes least."""
    machine = machine or machine_guessed()
    ways: list[Way] = []
    least = estimate("", recipe, base, work, speed, machine)["memory_bytes"]
    for changes in _changes(recipe, machine):
        took = _took(recipe.model_copy(update=changes), base, work, speed, machine)
        if took["memory_bytes"] < least:
            least = took["memory_bytes"]
            ways.append(Way(changes, least, took["seconds"]))
    return ways


def _took(changed: Recipe, base: BaseModel, work: Workload, speed: Speed, machine: Machine) -> dict[str, Any]:
    # History is trimmed to a shorter length, so that hardly a sample is lost to it.
    train = [min(tokens, changed.max_length) for tokens in work.train]
    return estimate("", changed, base, replace(work, train=train), speed, machine)


def _changes(recipe: Recipe, machine: Machine) -> Iterator[Changes]:
    """Each on top of those before it, but for the batch, which is tried as it was with activations computed twice."""
    yield from _batches(recipe)
    changes: Changes = {}
    if not recipe.gradient_checkpointing:
        changes = {"gradient_checkpointing": True}
        yield changes
        yield from ({**changes, **batch} for batch in _batches(recipe))
    for batch in _batches(recipe):
        changes = {**changes, **batch}  # the last is the smallest
    for change in _cheaper(recipe, machine):
        changes = {**changes, **change}
        yield changes
    for change in _smaller(recipe):
        changes = {**changes, **change}
        yield changes


def _batches(recipe: Recipe) -> Iterator[Changes]:
    batch, accumulation = recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps
    while batch > 1:
        batch, accumulation = batch // 2, min(MOST_ACCUMULATION, accumulation * 2)
        yield {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}


def _cheaper(recipe: Recipe, machine: Machine) -> Iterator[Changes]:
    if not recipe.optim.endswith("8bit"):
        yield {"optim": "paged_adamw_8bit" if machine.has_cuda else "adamw_8bit"}
    if recipe.precision == "fp32" and machine.best != "fp32":
        yield {"precision": machine.best}
    if recipe.quant_type == "none" and machine.has_cuda:
        yield {"quant_type": "nf4"}


def _smaller(recipe: Recipe) -> Iterator[Changes]:
    rank, alpha, length = recipe.lora_r, recipe.lora_alpha, recipe.max_length
    while rank > LOWEST_RANK:
        rank, alpha = max(LOWEST_RANK, rank // 2), max(1, alpha // 2)  # what the adapter adds counts as much
        yield {"lora_r": rank, "lora_alpha": alpha}
    while length > SHORTEST:
        length = max(SHORTEST, length // 2)
        yield {"max_length": length}
