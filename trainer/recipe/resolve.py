"""Resolves the recipe of a run: the only place where one is changed, in two steps around its samples.

`resolve_job` decides what samples are made by: recipe file and request, the adapter that is trained further, the base
model. `resolve_run` decides the rest from the samples and this machine.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from personas.errors import RequestError
from personas.models.base_model import BaseModel, apply_rope_settings, locate
from personas.schemas.base import explain_validation_error
from personas.schemas.hyperparameters import Hyperparameters
from personas.schemas.training import JobSpec, TrainingRequest
from trainer.data.preference_policy import only_filters
from trainer.estimate.memory_check import available_memory_bytes
from trainer.estimate.run_estimate import estimate_memory
from trainer.estimate.workload import Workload
from trainer.machine import MachineSpec, probe_machine, probe_machine_without_torch
from trainer.recipe.auto_recipe import (
    AUTO_RECIPE,
    AUTO_SETTINGS,
    RecipeChooser,
    SampleStats,
    choose_recipe,
    model_traits,
    with_values,
)
from trainer.recipe.model_fit import match_target_modules
from trainer.recipe.parent_adapter import ParentAdapter, find_parent_adapter
from trainer.schemas import Recipe, ResolvedRecipe, optimiser_steps

RECIPES_FOLDER = Path(__file__).parent / "recipes"
OPTIMISERS_WITHOUT_CUDA = {"paged_adamw_8bit": "adamw_8bit", "paged_adamw_32bit": "adamw_torch_fused"}
"""Paged optimisers move their state between a GPU's memory and the machine's."""
MAX_ACTIVATION_MEMORY_SHARE = 0.8
"""The share of free memory that the run may take then: others want some, and predictions are not exact."""
CHECKPOINTING_SKIPPED_NOTE = (
    "Activations are kept, not computed twice (gradient_checkpointing): the machine's memory holds them."
)


def make_request(**fields: Any) -> TrainingRequest:
    """A request of what a command line says, whose recipe there is. Raises `RequestError` that names what is wrong."""
    _read_recipe_file(str(fields["recipe"]))
    try:
        return TrainingRequest(**fields)
    except ValidationError as error:
        raise explain_validation_error(error) from None


def resolve_recipe(request: TrainingRequest) -> Recipe:
    """The request's recipe with the request's values in it; `model_fields_set` are those that the request sets.

    Raises `RequestError` naming what is unknown or wrong.
    """
    table = _read_recipe_file(request.recipe)
    overrides = request.hyperparameters.model_dump(exclude_none=True)
    try:
        recipe = Recipe.model_validate({**table, **overrides})
    except ValidationError as error:
        raise explain_validation_error(error) from None
    return Recipe.model_construct(_fields_set=set(overrides), **dict(recipe))


def recipe_names() -> list[str]:
    """The recipes that ship."""
    return sorted(path.stem for path in RECIPES_FOLDER.glob("*.toml"))


def _read_recipe_file(name: str) -> dict[str, object]:
    known = recipe_names()
    if name not in known:
        meant = "".join(f"Did you mean {near!r}? " for near in difflib.get_close_matches(name, known, n=1))
        raise RequestError(f"There is no recipe {name!r}.", f"{meant}Known: {', '.join(known)}.")
    return tomllib.loads((RECIPES_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def load_recipe(name: str, changes: Hyperparameters | None = None) -> Recipe:
    """A recipe as it ships, but for what is changed. Raises `RequestError`."""
    changes = changes or Hyperparameters()
    return resolve_recipe(make_request(job_name="plan", task_type="dialogue", recipe=name, hyperparameters=changes))


# ------------------------------------------------------------------------------------------ before there are samples


@dataclass(frozen=True)
class JobRecipe:
    """The recipe that a job's samples are made by, its base model, and the adapter that it trains further.

    `parent` is None for a new adapter; `notes` say what is not as asked for.
    """

    recipe: Recipe
    base: BaseModel
    parent: ParentAdapter | None
    notes: tuple[str, ...]


def resolve_job(folder: Path, spec: JobSpec, begun: ResolvedRecipe | None = None) -> JobRecipe:
    """Resolve what a job's samples are made by; `begun` is the recipe of a run that is resumed.

    Raises `UnderstudyError`.
    """
    request = spec.request
    recipe = resolve_recipe(request)
    base = apply_rope_settings(locate(request.base_model), recipe.rope_scaling_type, recipe.rope_scaling_factor)
    parent = find_parent_adapter(folder, spec, base)
    if parent and only_filters(folder, spec, recipe):
        default = resolve_recipe(TrainingRequest(job_name="again", task_type="dialogue"))
        recipe, parent = parent.trained_by(recipe, request.hyperparameters, default), None
    recipe = resolve_for_data(request.recipe, recipe, base, begun)
    if parent:
        recipe = parent.shaped(recipe, request.hyperparameters)
    recipe, notes = match_target_modules(recipe, base)
    return JobRecipe(recipe, base, parent, (*notes, *(parent.notes if parent else ())))


def resolve_for_data(
    name: str, recipe: Recipe, base: BaseModel, begun: ResolvedRecipe | None = None, machine: MachineSpec | None = None
) -> Recipe:
    """Choose what `auto` leaves open of the settings that shape samples; any other recipe stays as it is."""
    if name != AUTO_RECIPE:
        return recipe
    if begun:
        return with_values(
            recipe, **{key: getattr(begun.recipe, key) for key in AUTO_SETTINGS - recipe.model_fields_set}
        )
    choice = RecipeChooser(recipe, model_traits(base), machine or probe_machine_without_torch())
    choice.choose_data_settings()
    return choice.recipe


# ------------------------------------------------------------------------------------------ with the samples


def resolve_run(
    request: TrainingRequest,
    recipe: Recipe,
    base: BaseModel,
    replies: SampleStats,
    work: Workload,
    begun: ResolvedRecipe | None = None,
) -> ResolvedRecipe:
    """Resolve the recipe of a run over these samples on this machine; `begun` is that of a run that is resumed."""
    chosen = resolve_for_run(request.recipe, recipe, base, replies, begun)
    machine = probe_machine()
    fit = fit_to_machine(chosen.recipe, base, work, machine, available_memory_bytes(machine), begun)
    return replace(fit, chosen=chosen.chosen)


def resolve_for_run(
    name: str,
    recipe: Recipe,
    base: BaseModel,
    replies: SampleStats,
    begun: ResolvedRecipe | None = None,
    machine: MachineSpec | None = None,
) -> ResolvedRecipe:
    """Choose all that `auto` leaves open, as `begun` has it where that is given; another recipe stays as it is."""
    if name != AUTO_RECIPE:
        return ResolvedRecipe(recipe)
    if begun:
        return ResolvedRecipe(recipe, begun.chosen)
    return choose_recipe(recipe, model_traits(base), replies, machine or probe_machine_without_torch())


def fit_to_machine(
    recipe: Recipe,
    base: BaseModel,
    work: Workload,
    machine: MachineSpec,
    free_bytes: int,
    begun: ResolvedRecipe | None = None,
) -> ResolvedRecipe:
    """Fit a recipe to a machine: to what it computes with, and to its free memory.

    Gradient checkpointing that the request itself asks for stays.
    """
    fit = fit_to_hardware(recipe, machine)
    if recipe.gradient_checkpointing and "gradient_checkpointing" in recipe.model_fields_set:
        return fit
    return skip_activation_checkpointing(fit, base, work, machine, free_bytes, begun.recipe if begun else None)


def fit_to_hardware(recipe: Recipe, machine: MachineSpec | None = None) -> ResolvedRecipe:
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
    return ResolvedRecipe(recipe.model_copy(update=changes), notes=tuple(notes))


def recipe_warnings(recipe: Recipe, samples: int) -> list[str]:
    """Returns warnings about settings of a recipe that are likely mistakes for a run over so many samples."""
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


def skip_activation_checkpointing(
    fit: ResolvedRecipe,
    base: BaseModel,
    work: Workload,
    machine: MachineSpec,
    free_bytes: int,
    began: Recipe | None = None,
) -> ResolvedRecipe:
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
    return replace(fit, recipe=without, notes=(*fit.notes, CHECKPOINTING_SKIPPED_NOTE)) if keeps else fit
