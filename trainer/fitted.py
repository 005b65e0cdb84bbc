"""A recipe on this machine: what cannot be done here is done the nearest way, and said."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.machine import Machine, machine_here
from trainer.recipe import Recipe

WITHOUT_CUDA = {"paged_adamw_8bit": "adamw_8bit", "paged_adamw_32bit": "adamw_torch_fused"}
"""Paged optimisers move their state between a GPU's memory and the machine's."""


@dataclass(frozen=True)
class Fitted:
    """`recipe` has `precision` resolved and names only what exists here; `notes` say what was changed, and why."""

    recipe: Recipe
    notes: tuple[str, ...]


def fitted(recipe: Recipe, machine: Machine | None = None) -> Fitted:
    """The recipe as a machine can run it: this one, by torch's word, where none is given."""
    machine = machine or machine_here()
    has_cuda, best = machine.has_cuda, machine.best
    changes: dict[str, str] = {}
    notes = []
    if recipe.precision == "auto":
        changes["precision"] = best
    elif (recipe.precision == "fp16" and not has_cuda) or (recipe.precision == "bf16" and best != "bf16"):
        changes["precision"] = best
        notes.append(f"This machine does not compute in {recipe.precision}: {best} takes its place.")
    if not has_cuda and recipe.optim in WITHOUT_CUDA:
        changes["optim"] = WITHOUT_CUDA[recipe.optim]
        notes.append(f"{recipe.optim} needs CUDA: {changes['optim']} takes its place.")
    return Fitted(recipe.model_copy(update=changes), tuple(notes))


def steps_of(recipe: Recipe, samples: int) -> int:
    """Optimiser steps of a run over so many samples. `max_steps` alone decides where it is set, as in transformers."""
    return recipe.max_steps or math.ceil(recipe.num_train_epochs * _steps_an_epoch(recipe, samples))


def epochs_of(recipe: Recipe, samples: int) -> float:
    """How often a run goes over so many samples."""
    if not recipe.max_steps:
        return recipe.num_train_epochs
    return recipe.max_steps / max(_steps_an_epoch(recipe, samples), 1)


def _steps_an_epoch(recipe: Recipe, samples: int) -> int:
    batches = math.ceil(samples / recipe.per_device_train_batch_size)
    return math.ceil(batches / recipe.gradient_accumulation_steps)


def warnings_about(recipe: Recipe, samples: int) -> list[str]:
    """What in a recipe is hardly meant, for a run over so many samples."""
    steps = steps_of(recipe, samples)
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


def warnings_in_stages(recipe: Recipe, samples: int, first: int) -> list[str]:
    """The same for a run that may have a first stage, over so many samples there."""
    early = warnings_about(recipe.first_stage, first) if first else []
    return [*(f"In the first stage: {warning}" for warning in early), *warnings_about(recipe, samples)]
