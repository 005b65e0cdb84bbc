"""Fits a recipe to the hardware: precision, optimiser and activation checkpointing, with notes."""

from __future__ import annotations

from dataclasses import dataclass

from personas.models.base_model import BaseModel
from trainer.estimate.run_estimate import estimate_memory
from trainer.estimate.workload import Workload
from trainer.machine import MachineSpec, probe_machine
from trainer.schemas import Recipe, optimiser_steps

OPTIMISERS_WITHOUT_CUDA = {"paged_adamw_8bit": "adamw_8bit", "paged_adamw_32bit": "adamw_torch_fused"}


"""Paged optimisers move their state between a GPU's memory and the machine's."""


@dataclass(frozen=True)
class HardwareFit:
    """`recipe` has `precision` resolved and names only what exists here; `notes` say what was changed, and why."""

    recipe: Recipe
    notes: tuple[str, ...]


def fit_to_hardware(recipe: Recipe, machine: MachineSpec | None = None) -> HardwareFit:
    """The recipe as a machine can run it: this one, by torch's word, where none is given."""
    machine = machine or probe_machine()
    has_cuda, best = machine.has_cuda, machine.best
    changes: dict[str, str] = {}
    notes = []
    if recipe.precision == "auto":
        changes["precision"] = best
    elif (recipe.precision == "fp16" and not has_cuda) or (recipe.precision == "bf16" and best != "bf16"):
        changes["precision"] = best
        notes.append(f"This machine does not compute in {recipe.precision}: {best} takes its place.")
    if not has_cuda and recipe.optim in OPTIMISERS_WITHOUT_CUDA:
        changes["optim"] = OPTIMISERS_WITHOUT_CUDA[recipe.optim]
        notes.append(f"{recipe.optim} needs CUDA: {changes['optim']} takes its place.")
    return HardwareFit(recipe.model_copy(update=changes), tuple(notes))


def recipe_warnings(recipe: Recipe, samples: int) -> list[str]:
    """What in a recipe is hardly meant, for a run over so many samples."""
    steps = optimiser_steps(recipe, samples)
    found = []
    if recipe.warmup_steps >= steps:
        found.append(
            f"The warm-up of {recipe.warmup_steps} steps is not shorter than the run of {steps}: the learning rate "
            f"never reaches {recipe.learning_rate:g}."
        )
    if recipe.eval_strategy == "steps" and recipe.eval_steps > steps:
        found.append(
            f"Held-out replies are measured every {recipe.eval_steps} steps, and the run has {steps}: only its end is "
            "measured."
        )
    return found


def stage_warnings(recipe: Recipe, samples: int, first: int) -> list[str]:
    """The same for a run that may have a first stage, over so many samples there."""
    early = recipe_warnings(recipe.first_stage, first) if first else []
    return [*(f"In the first stage: {warning}" for warning in early), *recipe_warnings(recipe, samples)]


MAX_ACTIVATION_MEMORY_SHARE = 0.8


"""The share of free memory that the run may take then: others want some, and predictions are not exact."""


CHECKPOINTING_SKIPPED_NOTE = (
    "Activations are kept, not computed twice (gradient_checkpointing): the machine's memory holds them."
)


def skip_activation_checkpointing(
    fit: HardwareFit,
    base: BaseModel,
    work: Workload,
    machine: MachineSpec,
    free_bytes: int,
    began: Recipe | None = None,
) -> HardwareFit:
    """The recipe without gradient checkpointing, where so much free memory is enough for that; else as it is.

    A run that `began` goes on in the way in which it began, however much is free now.
    """
    recipe = fit.recipe
    without = recipe.model_copy(update={"gradient_checkpointing": False})
    if machine.has_cuda or not recipe.gradient_checkpointing:
        return fit
    if began:
        keeps = not began.gradient_checkpointing
    else:
        keeps = estimate_memory(without, base, work, machine).total <= free_bytes * MAX_ACTIVATION_MEMORY_SHARE
    return HardwareFit(without, (*fit.notes, CHECKPOINTING_SKIPPED_NOTE)) if keeps else fit
