"""Refuses runs that do not fit into free memory, and lists recipe changes that would."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import psutil

from personas.errors import NoMemoryError
from personas.home.teacher_setting import SMALLER_TEACHER_ADVICE
from personas.models.base_model import BaseModel
from personas.schemas.formatting import format_gib
from personas.schemas.hyperparameters import MAX_ACCUMULATION_STEPS
from trainer.estimate.run_estimate import MachineSpeed, estimate_memory, estimate_run
from trainer.estimate.workload import Workload
from trainer.machine import MachineSpec, probe_machine, probe_machine_without_torch
from trainer.schemas import Recipe

MIN_RANK = 8
MIN_LENGTH_TOKENS = 128
RecipeChanges = dict[str, int | str]
IGNORE_MEMORY_ADVICE = "--ignore-memory trains all the same"


@dataclass(frozen=True)
class MemoryReduction:
    """Settings to change, and the resulting cost of the run."""

    set: RecipeChanges
    memory_bytes: int
    seconds: int


def settings_as_options(changes: RecipeChanges) -> str:
    """Format settings for a command line."""
    return " ".join(f"--set {name}={str(value).lower()}" for name, value in changes.items())


def memory_reductions(
    recipe: Recipe,
    base: BaseModel,
    work: Workload,
    speed: MachineSpeed,
    *,
    machine: MachineSpec | None = None,
) -> list[MemoryReduction]:
    """Return ways to run the recipe with less and less memory, smallest change first."""
    machine = machine or probe_machine_without_torch()
    ways: list[MemoryReduction] = []
    least = estimate_memory(recipe, base, work, machine).total
    for changes in _candidate_changes(recipe, machine):
        changed = recipe.model_copy(update=changes)
        if "gradient_checkpointing" in changes:  # of all layers, where a request names it
            changed = changed.with_values(checkpoint_every_n_layers=1)
        # History is trimmed to a shorter length, so that hardly a sample is lost to it.
        train = [min(tokens, changed.max_length) for tokens in work.train]
        shortened = replace(work, train=train)
        cost = estimate_run("", changed, base, shortened, speed=speed, machine=machine)
        if cost["memory_bytes"] < least:
            least = cost["memory_bytes"]
            ways.append(MemoryReduction(changes, least, cost["seconds"]))
    return ways


def _candidate_changes(recipe: Recipe, machine: MachineSpec) -> Iterator[RecipeChanges]:
    """Yield cumulative changes; only the batch size is also tried with activation checkpointing as
    it was.
    """
    # In the order of their effect on the result, from none at all.
    yield from _smaller_batches(recipe)
    changes: RecipeChanges = {}
    if not recipe.recomputes_all:
        changes = {"gradient_checkpointing": True}
        yield changes
        for batch in _smaller_batches(recipe):
            yield {**changes, **batch}
    for batch in _smaller_batches(recipe):
        changes = {**changes, **batch}  # the last is the smallest
    for change in _cheaper_numerics(recipe, machine):
        changes = {**changes, **change}
        yield changes
    for change in _smaller_adapters(recipe):
        changes = {**changes, **change}
        yield changes


def _smaller_batches(recipe: Recipe) -> Iterator[RecipeChanges]:
    batch = recipe.per_device_train_batch_size
    accumulation = recipe.gradient_accumulation_steps
    while batch > 1:
        batch = batch // 2
        accumulation = min(MAX_ACCUMULATION_STEPS, accumulation * 2)
        yield {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}


def _cheaper_numerics(recipe: Recipe, machine: MachineSpec) -> Iterator[RecipeChanges]:
    if not recipe.optim.endswith("8bit"):
        yield {"optim": "paged_adamw_8bit" if machine.has_cuda else "adamw_8bit"}
    if recipe.precision == "fp32" and machine.best != "fp32":
        yield {"precision": machine.best}
    if recipe.quant_type == "none" and machine.has_cuda:
        yield {"quant_type": "nf4"}


def _smaller_adapters(recipe: Recipe) -> Iterator[RecipeChanges]:
    rank = recipe.lora_r
    alpha = recipe.lora_alpha
    length = recipe.max_length
    while rank > MIN_RANK:
        # what the adapter adds counts as much
        rank = max(MIN_RANK, rank // 2)
        alpha = max(1, alpha // 2)
        yield {"lora_r": rank, "lora_alpha": alpha}
    while length > MIN_LENGTH_TOKENS:
        length = max(MIN_LENGTH_TOKENS, length // 2)
        yield {"max_length": length}


def require_memory(
    recipe: Recipe, base: BaseModel, work: Workload, machine: MachineSpec | None = None
) -> None:
    """Raise `NoMemoryError` if a run needs more memory than this process can get, naming settings
    that would fit, or the model that writes replies before the training where that is too large.

    `machine` defaults to this one; memory held by this process counts as free.
    """
    machine = machine or probe_machine()
    free = available_memory_bytes(machine)
    estimate = estimate_memory(recipe, base, work, machine)
    needed = estimate.total
    if needed <= free:
        return
    if estimate.is_writing_largest:
        raise NoMemoryError(
            f"The model that writes the replies needs about {format_gib(needed)} of memory "
            f"({machine.device}); {format_gib(free)} are free.",
            f"{SMALLER_TEACHER_ADVICE} {IGNORE_MEMORY_ADVICE}.",
        )
    ways = memory_reductions(recipe, base, work, MachineSpeed(1.0, ""), machine=machine)
    advice = _advice(next((way for way in ways if way.memory_bytes <= free), None))
    need = (
        f"The run needs about {format_gib(needed)} of memory ({machine.device}); "
        f"{format_gib(free)} are free."
    )
    raise NoMemoryError(need, advice)


def available_memory_bytes(machine: MachineSpec) -> int:
    """Return the bytes available to a run in this process."""
    if machine.has_cuda:
        return machine.free_bytes
    # What this process holds already is not free, but the run will use it.
    return machine.free_bytes + own_memory_bytes()


def own_memory_bytes() -> int:
    """Return the bytes held by this process."""
    return int(psutil.Process().memory_info().rss)


def _advice(way: MemoryReduction | None) -> str:
    if way is None:
        return (
            "No settings would make it fit: free some memory, or choose a smaller base model; "
            f"{IGNORE_MEMORY_ADVICE}."
        )
    needed = f"With {settings_as_options(way.set)} it would need {format_gib(way.memory_bytes)}."
    return f"{needed} Or free some memory; {IGNORE_MEMORY_ADVICE}."
