"""Resolves the recipe of a run in two steps: before its samples are made, and with them.

`resolve_job` decides what samples are made by: recipe file and request, the adapter that is trained
further, the base model (its linear layers and context length). `resolve_run` decides the rest from
the samples and this machine. A run that is resumed keeps the settings that it began with, so that
its checkpoints stay valid: free memory differs from one start to the next.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from personas.models.base_model import (
    BaseModel,
    apply_rope_factor,
    locate,
    read_config,
)
from personas.models.base_notes import base_model_notes
from personas.models.known_tokens import require_known_tokens
from personas.prompt.renderer import TokenizedSample
from personas.schemas.training import JobSpec, TrainingRequest
from trainer.dataset.dataset import Dataset
from trainer.dataset.job_inputs import JobInputs, read_job_preferences
from trainer.dataset.preference_policy import plan_preferences
from trainer.estimate.memory_check import available_memory_bytes
from trainer.estimate.workload import Workload
from trainer.machine import probe_machine
from trainer.recipe.auto_recipe import (
    AUTO_RECIPE,
    AUTO_SETTINGS,
    choose_sample_settings,
    choose_settings,
    sample_stats,
)
from trainer.recipe.machine_fit import (
    FITTED_SETTINGS,
    fit_notes,
    fit_to_hardware,
    fit_to_machine,
    stage_warnings,
)
from trainer.recipe.model_fit import context_length_error, match_target_modules
from trainer.recipe.parent_adapter import ParentAdapter, find_parent_adapter
from trainer.recipe.recipe_file import requested_recipe
from trainer.schemas import Recipe, ResolvedRecipe


@dataclass(frozen=True)
class JobRecipe:
    """The recipe that a job's samples are made by, its base model, and the adapter that it trains
    further.

    `parent` is None for a new adapter; `notes` say what differs from the request.
    """

    recipe: Recipe
    base: BaseModel
    parent: ParentAdapter | None
    notes: tuple[str, ...]

    def require_readable(self, samples: Sequence[TokenizedSample], tokenizer: Any) -> None:
        """Raise `BaseModelError` if the base model lacks tokens of the samples, `RequestError` if
        one is longer than its context.
        """
        vocabulary = read_config(self.base).get("vocab_size")
        require_known_tokens((sample.ids for sample in samples), vocabulary, tokenizer)
        # A `max_length` above the context length does no harm as long as no sample is that long.
        longest = max(len(sample.ids) for sample in samples)
        if error := context_length_error(self.base, longest):
            raise error


def resolve_job(
    spec: JobSpec, inputs: JobInputs, stored: ResolvedRecipe | None = None
) -> JobRecipe:
    """Resolve what a job's samples are made by; `stored` is the recipe of a run that is resumed.

    Raises `UnderstudyError`.
    """
    request = spec.request
    recipe = requested_recipe(request)
    base = apply_rope_factor(locate(request.base_model), recipe.rope_scaling_factor)

    parent = find_parent_adapter(inputs.parent, base)
    if parent and request.task_type == "preference":
        plan = plan_preferences(read_job_preferences(inputs), recipe)
        if plan.only_filters:
            # Too few preferences to learn from: the adapter is trained anew, without the replies
            # that were voted down.
            default = requested_recipe(TrainingRequest(job_name="again", task_type="dialogue"))
            recipe = parent.trained_by(recipe, request.hyperparameters, default)
            parent = None

    if stored and request.recipe == AUTO_RECIPE:
        recipe = _keep(recipe, stored, AUTO_SETTINGS - recipe.model_fields_set)
    else:
        recipe = choose_sample_settings(request.recipe, recipe, base)
    if parent:
        recipe = parent.shaped(recipe, request.hyperparameters)
    recipe, layer_notes = match_target_modules(recipe, base)
    parent_notes = parent.notes if parent else ()
    return JobRecipe(
        recipe=recipe,
        base=base,
        parent=parent,
        notes=(*base_model_notes(base), *layer_notes, *parent_notes),
    )


def resolve_run(
    name: str,
    recipe: Recipe,
    base: BaseModel,
    data: Dataset,
    *,
    work: Workload,
    stored: ResolvedRecipe | None = None,
) -> ResolvedRecipe:
    """Resolve the recipe of a run over these samples on this machine.

    `stored` is the recipe of a run that is resumed. The notes end with warnings about settings that
    are likely mistakes.
    """
    machine = probe_machine()
    if stored:
        # `resolve_job` has kept what the recipe `auto` chose. The machine may be another one, which
        # does not support all that the first one did.
        chosen = ResolvedRecipe(recipe, stored.chosen)
        fitted = fit_to_hardware(_keep(recipe, stored, FITTED_SETTINGS), machine)
        order_batch = stored.order_batch
    else:
        replies = sample_stats(data.train)
        made = recipe.max_length
        chosen = choose_settings(name, recipe, base, replies, made_length=made)
        free_bytes = available_memory_bytes(machine)
        fitted = fit_to_machine(
            name, chosen.recipe, base, work, machine=machine, free_bytes=free_bytes
        )
        # Rows on a GPU gain nothing from samples of similar length: they stay in the recipe's order.
        order_batch = chosen.recipe.per_device_train_batch_size if machine.has_cuda else 0
    warnings = stage_warnings(fitted, len(data.train), len(data.first))
    return ResolvedRecipe(
        recipe=fitted,
        chosen=chosen.chosen,
        notes=(*fit_notes(chosen.recipe, fitted), *warnings),
        order_batch=order_batch,
    )


def _keep(recipe: Recipe, stored: ResolvedRecipe, names: Iterable[str]) -> Recipe:
    """Return the recipe with these settings as the run began with them."""
    return recipe.with_values(**{name: getattr(stored.recipe, name) for name in names})
