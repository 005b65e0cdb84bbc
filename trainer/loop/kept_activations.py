"""Gradient checkpointing left out where it saves nothing: on a CPU whose memory holds all activations.

Recipes for small GPUs ask for it. Computed twice or kept, activations are the same, and so are the losses; what is kept
is not computed again, and the prompts' common beginning can be shared.
"""

from __future__ import annotations

from personas.base_model import BaseModel
from trainer.fitted import Fitted
from trainer.machine import Machine
from trainer.predict.estimate import memory_in
from trainer.predict.work import Workload
from trainer.recipe import Recipe

ROOM = 0.8
"""The share of free memory that the run may take then: others want some, and predictions are not exact."""
NOTE = "Activations are kept, not computed twice (gradient_checkpointing): the machine's memory holds them."


def kept_activations(
    fit: Fitted, base: BaseModel, work: Workload, machine: Machine, free_bytes: int, began: Recipe | None = None
) -> Fitted:
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
        keeps = memory_in(without, base, work, machine).total <= free_bytes * ROOM
    return Fitted(without, (*fit.notes, NOTE)) if keeps else fit
