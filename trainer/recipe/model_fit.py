"""Fits a recipe to its base model: the linear layers to adapt, and the context length."""

import math

from personas.errors import RequestError
from personas.models.base_model import BaseModel, max_positions
from personas.schemas.hyperparameters import MAX_ROPE_FACTOR
from trainer.recipe.target_modules import find_target_modules
from trainer.schemas import Recipe

ROPE_FACTOR_QUARTERS = 4
"""Proposed factors are multiples of a quarter."""


def match_target_modules(recipe: Recipe, base: BaseModel) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe with the model's layers, RoPE scaling and stored form, and notes on what
    differs.
    """
    targets = find_target_modules(base, recipe.target_modules)
    changes: dict[str, object] = {"target_modules": targets.names}
    if base.scaling:
        changes["rope_scaling_factor"] = base.scaling.factor
    if base.quantisation and recipe.quant_type != "none":
        stored = base.quantisation
        changes |= {"quant_type": stored.quant_type or "none", "double_quant": stored.double_quant}
    return recipe.model_copy(update=changes), targets.notes


def context_length_error(base: BaseModel, longest: int) -> RequestError | None:
    """Return an error about samples that exceed the model's context length; None if none do."""
    reads = max_positions(base)
    if reads is None or longest <= reads:
        return None
    own = reads / (base.scaling.factor if base.scaling else 1)
    factor = math.ceil(longest / own * ROPE_FACTOR_QUARTERS) / ROPE_FACTOR_QUARTERS
    if factor <= MAX_ROPE_FACTOR:
        advice = f"Set rope_scaling_factor={factor:g}, or max_length={reads}."
    else:
        advice = f"Set max_length={reads}: rope_scaling_factor is at most {MAX_ROPE_FACTOR:g}."
    return RequestError(
        f"The longest sample has {longest} tokens; the base model {base.name} reads {reads}.",
        advice,
    )
