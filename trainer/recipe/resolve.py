"""Resolves the recipe of a run: the only place where one is changed, in two steps around its
samples.

`resolve_job` decides what samples are made by: recipe file and request, the adapter that is trained
further, the base model (its linear layers and context length). `resolve_run` decides the rest from
the samples and this machine.
"""

import difflib
import json
import math
import statistics
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from personas.errors import RequestError, TrainingError
from personas.models.base_model import (
    BaseModel,
    apply_rope_settings,
    apply_template_setting,
    locate,
    max_positions,
    read_config,
    unreadable_file_error,
)
from personas.models.base_notes import base_model_notes
from personas.models.stored_quantisation import require_unpackable
from personas.schemas.base import explain_validation_error
from personas.schemas.hyperparameters import MAX_ROPE_FACTOR, Hyperparameters
from personas.schemas.training import JobSpec, TrainingRequest
from trainer.dataset.dataset import Dataset
from trainer.dataset.job_inputs import JobInputs, read_job_preferences
from trainer.dataset.preference_policy import plan_preferences
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
    sample_stats,
    with_values,
)
from trainer.recipe.parent_adapter import ParentAdapter, find_parent_adapter
from trainer.schemas import Recipe, ResolvedRecipe, optimiser_steps

RECIPES_FOLDER = Path(__file__).parent / "recipes"
OPTIMISERS_WITHOUT_CUDA = {
    "paged_adamw_8bit": "adamw_8bit",
    "paged_adamw_32bit": "adamw_torch_fused",
}
"""Paged optimisers move their state between a GPU's memory and the machine's."""
MAX_ACTIVATION_MEMORY_SHARE = 0.8
"""The share of free memory that a run without checkpointing may take: estimates are not exact."""
CHECKPOINTING_SKIPPED_NOTE = (
    "gradient_checkpointing is off: the machine's memory holds all activations."
)
MERGED_BATCH_TOKENS = 2048
"""Batches of an optimiser step are merged if they then have at most so many tokens on average,
without those that all samples share: larger ones are hardly faster on a CPU. A few batches may be
larger, if they fit into memory.
"""
OWN_RECIPES = (AUTO_RECIPE, "demo-cpu", "mixed-80-20", "two-stage")
"""Recipes of this project; the batches of published ones stay as published."""

FUSED_QKV_MODULES = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "wqkv", "W_pack")
"""A fused layer for queries, keys and values: Phi-3; Falcon, GPT-NeoX; GPT-2; MPT; InternLM2;
Baichuan.
"""
LATENT_KV_MODULES = ("kv_a_proj_with_mqa", "kv_b_proj")
"""Low-rank projections of keys and values: DeepSeek-V2 and V3."""
MODULE_ALIASES: dict[str, tuple[str, ...]] = {
    "q_proj": (*FUSED_QKV_MODULES, "q_a_proj", "q_b_proj"),
    "k_proj": (*FUSED_QKV_MODULES, *LATENT_KV_MODULES),
    "v_proj": (*FUSED_QKV_MODULES, *LATENT_KV_MODULES),
    "o_proj": ("dense", "out_proj", "wo", "c_proj"),
    "gate_proj": ("gate_up_proj", "w1"),
    "up_proj": ("gate_up_proj", "w3", "fc1", "c_fc", "dense_h_to_4h"),
    "down_proj": ("w2", "fc2", "c_proj", "dense_4h_to_h"),
}
OTHER_TOWERS = frozenset(
    "vision_tower vision_model visual vision_encoder vision_embedder audio_tower audio_encoder "
    "audio_model "
    "speech_encoder multi_modal_projector embed_vision embed_audio".split()
)
"""Parts of multimodal models that read no text, by their names in transformers: no adapter is
trained there.
"""
STATE_MODULES = ("in_proj", "receptance", "key", "value")
"""Linear layers of models without attention, in place of all that a recipe names: Mamba's; RWKV's.
Mamba's fused CUDA kernels read the other matrices past their layers, so that an adapter there would
change nothing.
"""
ATTENTION_MODULES = ("q_proj", *FUSED_QKV_MODULES, "q_a_proj")
PEFT_REFUSED_MODULES = ("out_proj", "conv1d")
PEFT_REFUSING_KINDS = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""Modules that peft adapts in no model of these kinds, for the same reason
(`_check_lora_target_modules_mamba`).
"""
SAFETENSORS_SIZE_BYTES = 8
"""Size of the field that holds the header's length."""
EXPERTS_MODULE = "experts"
FEED_FORWARD_MODULES = ("gate_proj", "up_proj", "down_proj")
"""In a mixture of experts, peft would adapt the stacked weights of all experts under these names,
which allows neither dropout nor several adapters on one model.
"""
ROPE_FACTOR_QUARTERS = 4
"""Proposed factors are multiples of a quarter."""


def make_request(**fields: Any) -> TrainingRequest:
    """Build the request of a command line. Raises `RequestError` naming an unknown recipe or
    invalid value.
    """
    _read_recipe_file(str(fields["recipe"]))
    try:
        return TrainingRequest(**fields)
    except ValidationError as error:
        raise explain_validation_error(error) from None


def resolve_recipe(request: TrainingRequest) -> Recipe:
    """Return the request's recipe with the request's values; `model_fields_set` are those that the
    request sets.

    Raises `RequestError` naming an unknown recipe or invalid value.
    """
    table = _read_recipe_file(request.recipe)
    overrides = request.hyperparameters.model_dump(exclude_none=True)
    try:
        recipe = Recipe.model_validate({**table, **overrides})
    except ValidationError as error:
        raise explain_validation_error(error) from None
    return Recipe.model_construct(_fields_set=set(overrides), **dict(recipe))


def recipe_names() -> list[str]:
    """Return the names of the built-in recipes."""
    return sorted(path.stem for path in RECIPES_FOLDER.glob("*.toml"))


def _read_recipe_file(name: str) -> dict[str, object]:
    known = recipe_names()
    if name not in known:
        hint = "".join(
            f"Did you mean {near!r}? " for near in difflib.get_close_matches(name, known, n=1)
        )
        raise RequestError(f"There is no recipe {name!r}.", f"{hint}Known: {', '.join(known)}.")
    return tomllib.loads((RECIPES_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def load_recipe(name: str, changes: Hyperparameters | None = None) -> Recipe:
    """Return a built-in recipe with these changes. Raises `RequestError`."""
    changes = changes or Hyperparameters()
    return resolve_recipe(
        make_request(job_name="plan", task_type="dialogue", recipe=name, hyperparameters=changes)
    )


# ------------------------------------------------------------------------------------------ before
# there are samples


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


def resolve_job(spec: JobSpec, inputs: JobInputs, begun: ResolvedRecipe | None = None) -> JobRecipe:
    """Resolve what a job's samples are made by; `begun` is the recipe of a run that is resumed.

    Raises `UnderstudyError`.
    """
    request = spec.request
    recipe = resolve_recipe(request)
    base = apply_rope_settings(
        locate(request.base_model), recipe.rope_scaling_type, recipe.rope_scaling_factor
    )
    base = apply_template_setting(base, recipe.chat_template)
    parent = find_parent_adapter(inputs.parent, base)
    is_preference = request.task_type == "preference"
    if (
        parent
        and is_preference
        and plan_preferences(read_job_preferences(inputs), recipe).only_filters
    ):
        default = resolve_recipe(TrainingRequest(job_name="again", task_type="dialogue"))
        recipe = parent.trained_by(recipe, request.hyperparameters, default)
        parent = None
    recipe = resolve_for_data(request.recipe, recipe, base, begun)
    if parent:
        recipe = parent.shaped(recipe, request.hyperparameters)
    recipe, notes = match_target_modules(recipe, base)
    return JobRecipe(
        recipe, base, parent, (*base_model_notes(base), *notes, *(parent.notes if parent else ()))
    )


def resolve_for_data(
    name: str,
    recipe: Recipe,
    base: BaseModel,
    begun: ResolvedRecipe | None = None,
    machine: MachineSpec | None = None,
) -> Recipe:
    """Choose the settings that the recipe `auto` leaves open and that shape samples; another recipe
    stays the same.
    """
    if name != AUTO_RECIPE:
        return recipe
    if begun:
        return with_values(
            recipe,
            **{key: getattr(begun.recipe, key) for key in AUTO_SETTINGS - recipe.model_fields_set},
        )
    choice = RecipeChooser(recipe, model_traits(base), machine or probe_machine_without_torch())
    choice.choose_data_settings()
    return choice.recipe


@dataclass(frozen=True)
class TargetModules:
    """Linear layers to adapt, by `names`; `notes` say which stand in for requested ones, and which
    were left out.
    """

    names: tuple[str, ...]
    notes: tuple[str, ...]


def find_target_modules(base: BaseModel, wanted: Sequence[str]) -> TargetModules:
    """Find the names of the model's linear layers to adapt.

    Raises `TrainingError` when it has none of them, `BaseModelError` when its weights cannot be
    unpacked.
    """
    require_unpackable(base.name, base.quantisation)
    paths = [path for path in linear_layers(base) if OTHER_TOWERS.isdisjoint(path)]
    refused = (
        PEFT_REFUSED_MODULES if read_config(base).get("model_type") in PEFT_REFUSING_KINDS else ()
    )
    present = {path[-1] for path in paths} - set(refused)
    has_experts = any(EXPERTS_MODULE in path for path in paths)
    names = list[str]()
    missing = list[str]()
    notes = list[str]()
    for name in wanted:
        if has_experts and name in FEED_FORWARD_MODULES:
            continue
        found = (
            [name]
            if name in present
            else [other for other in MODULE_ALIASES.get(name, ()) if other in present]
        )
        names += found
        if found != [name]:
            missing.append(f"{name}: {' and '.join(found) or 'left out'}")
    if not names and not present.intersection(ATTENTION_MODULES):
        names = [name for name in STATE_MODULES if name in present]
        missing = [f"It has no attention, so that these are adapted: {', '.join(names)}"]
    if not names:
        raise TrainingError(
            f"The base model has none of the modules that the recipe adapts: {', '.join(wanted)}.",
            "Set target_modules to linear layers that it has: "
            f"{', '.join(sorted(present)) or 'none were found'}.",
        )
    if missing:
        notes.append(
            f"The base model has other linear layers than the recipe names. {'; '.join(missing)}."
        )
    if has_experts:
        notes.append(
            "The base model is a mixture of experts: its attention is adapted, its experts stay as "
            "they are."
        )
    return TargetModules(tuple(dict.fromkeys(names)), tuple(notes))


def match_target_modules(recipe: Recipe, base: BaseModel) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe with the model's layers, RoPE scaling, template and stored form, and notes
    on what differs.
    """
    targets = find_target_modules(base, recipe.target_modules)
    changes: dict[str, object] = {"target_modules": targets.names}
    if base.scaling:
        changes |= {
            "rope_scaling_factor": base.scaling.factor,
            "rope_scaling_type": base.scaling.type,
        }
    if base.template:
        changes["chat_template"] = base.template
    if base.quantisation and recipe.quant_type != "none":
        stored = base.quantisation
        changes |= {"quant_type": stored.quant_type or "none", "double_quant": stored.double_quant}
    return recipe.model_copy(update=changes), targets.notes


def linear_layers(base: BaseModel) -> list[tuple[str, ...]]:
    """Return the paths of the matrices in the model's layers, such as `("model", "layers", "0",
    "mlp", "up_proj")`.

    Only the headers of the weight files are read: github.com/huggingface/safetensors, "Format".
    Raises `BaseModelError` for a file that is damaged or cut short.
    """
    paths = []
    for file in sorted(base.folder.glob("*.safetensors")):
        for name, about in _safetensors_header(base, file).items():
            *path, kind = name.split(".")
            if (
                kind == "weight"
                and len(about["shape"]) == 2
                and any(part.isdigit() for part in path)
            ):
                paths.append(tuple(path))
    return paths


def _safetensors_header(base: BaseModel, file: Path) -> dict[str, Any]:
    whole = file.stat().st_size
    with file.open("rb") as weights:
        size = int.from_bytes(weights.read(SAFETENSORS_SIZE_BYTES), "little")
        if size > whole:
            raise unreadable_file_error(base, file.name, "it is cut short, or holds no weights")
        try:
            header: dict[str, Any] = json.loads(weights.read(size))
        except ValueError as error:
            raise unreadable_file_error(base, file.name, error) from error
    header.pop("__metadata__", None)
    ends = max((about["data_offsets"][1] for about in header.values()), default=0)
    if SAFETENSORS_SIZE_BYTES + size + ends > whole:
        raise unreadable_file_error(base, file.name, f"it is cut short at {whole:,} bytes")
    return header


def require_context_length(base: BaseModel, longest: int) -> None:
    """Raise `RequestError` if the longest sample, in tokens, exceeds the model's context length.

    A `max_length` above the context length does no harm as long as no sample is that long.
    """
    if error := context_length_error(base, longest):
        raise error


def context_length_error(base: BaseModel, longest: int) -> RequestError | None:
    """Return an error about samples that exceed the model's context length; None if none do."""
    reads = max_positions(base)
    if reads is None or longest <= reads:
        return None
    own = reads / (base.scaling.factor if base.scaling else 1)
    factor = math.ceil(longest / own * ROPE_FACTOR_QUARTERS) / ROPE_FACTOR_QUARTERS
    scale = (
        f"Set rope_scaling_factor={factor:g}, or max_length={reads}."
        if factor <= MAX_ROPE_FACTOR
        else ""
    )
    return RequestError(
        f"The longest sample has {longest} tokens; the base model {base.name} reads {reads}.",
        scale or f"Set max_length={reads}: rope_scaling_factor is at most {MAX_ROPE_FACTOR:g}.",
    )


# ------------------------------------------------------------------------------------------ with
# the samples


def resolve_run(
    request: TrainingRequest,
    recipe: Recipe,
    base: BaseModel,
    data: Dataset,
    work: Workload,
    begun: ResolvedRecipe | None = None,
) -> ResolvedRecipe:
    """Resolve the recipe of a run over these samples on this machine; `begun` is that of a run that
    is resumed.

    The notes end with warnings about settings that are likely mistakes.
    """
    chosen = resolve_for_run(request.recipe, recipe, base, sample_stats(data.train), begun)
    machine = probe_machine()
    fit = fit_to_machine(
        request.recipe, chosen.recipe, base, work, machine, available_memory_bytes(machine), begun
    )
    warnings = stage_warnings(fit.recipe, len(data.train), len(data.first))
    return replace(fit, chosen=chosen.chosen, notes=(*fit.notes, *warnings))


def resolve_for_run(
    name: str,
    recipe: Recipe,
    base: BaseModel,
    replies: SampleStats,
    begun: ResolvedRecipe | None = None,
    machine: MachineSpec | None = None,
) -> ResolvedRecipe:
    """Choose all settings that the recipe `auto` leaves open, or take those of `begun`; other
    recipes stay the same.
    """
    if name != AUTO_RECIPE:
        return ResolvedRecipe(recipe)
    if begun:
        return ResolvedRecipe(recipe, begun.chosen)
    return choose_recipe(
        recipe, model_traits(base), replies, machine or probe_machine_without_torch()
    )


def fit_to_machine(
    name: str,
    recipe: Recipe,
    base: BaseModel,
    work: Workload,
    machine: MachineSpec,
    free_bytes: int,
    begun: ResolvedRecipe | None = None,
) -> ResolvedRecipe:
    """Fit a recipe to a machine's precision, GPU and free memory.

    Gradient checkpointing stays on, and batches stay as they are, if the request itself sets them.
    """
    fit = fit_to_hardware(recipe, machine)
    began = begun.recipe if begun else None
    requested = recipe.model_fields_set
    if "gradient_checkpointing" not in requested:
        fit = skip_activation_checkpointing(fit, base, work, machine, free_bytes, began)
    if name in OWN_RECIPES and requested.isdisjoint(
        ("per_device_train_batch_size", "gradient_accumulation_steps")
    ):
        fit = merge_batches(fit, base, work, machine, free_bytes, began)
    return fit


def fit_to_hardware(recipe: Recipe, machine: MachineSpec | None = None) -> ResolvedRecipe:
    """Replace settings that the machine does not support; by default this machine, as torch
    describes it.
    """
    machine = machine or probe_machine()
    has_cuda = machine.has_cuda
    best = machine.best
    changes: dict[str, str] = {}
    notes = []
    if recipe.precision == "auto":
        changes["precision"] = best
    elif (recipe.precision == "fp16" and not (has_cuda or machine.cpu_fp16)) or (
        recipe.precision == "bf16" and best != "bf16"
    ):
        changes["precision"] = best
        notes.append(
            f"This machine does not compute in {recipe.precision}: {best} is used instead."
        )
    if not has_cuda and recipe.optim in OPTIMISERS_WITHOUT_CUDA:
        changes["optim"] = OPTIMISERS_WITHOUT_CUDA[recipe.optim]
        notes.append(
            f"{recipe.optim} needs CUDA: {changes['optim']} is used instead, the same AdamW "
            "without paged memory."
        )
    return ResolvedRecipe(recipe.model_copy(update=changes), notes=tuple(notes))


def recipe_warnings(recipe: Recipe, samples: int) -> list[str]:
    """Return warnings about settings that are likely mistakes for a run over so many samples."""
    steps = optimiser_steps(recipe, samples)
    warnings = []
    if recipe.warmup_steps >= steps:
        warnings.append(
            f"The warm-up of {recipe.warmup_steps} steps is not shorter than the run of {steps}: "
            "the learning rate "
            f"never reaches {recipe.learning_rate:g}."
        )
    if recipe.eval_strategy == "steps" and recipe.eval_steps > steps:
        warnings.append(
            f"Held-out replies are measured every {recipe.eval_steps} steps, and the run has "
            f"{steps}: only its end is "
            "measured."
        )
    return warnings


def stage_warnings(recipe: Recipe, samples: int, first: int) -> list[str]:
    """Return the warnings of a run that may have a first stage, with so many samples in it."""
    early = recipe_warnings(recipe.first_stage, first) if first else []
    return [
        *(f"In the first stage: {warning}" for warning in early),
        *recipe_warnings(recipe, samples),
    ]


def skip_activation_checkpointing(
    fit: ResolvedRecipe,
    base: BaseModel,
    work: Workload,
    machine: MachineSpec,
    free_bytes: int,
    began: Recipe | None = None,
) -> ResolvedRecipe:
    """Switch gradient checkpointing off on a CPU whose free memory is enough without it.

    A resumed run, which `began` with another recipe, keeps that recipe's choice.
    """
    recipe = fit.recipe
    without = recipe.model_copy(update={"gradient_checkpointing": False})
    if machine.has_cuda or not recipe.gradient_checkpointing:
        return fit
    if began:
        keeps = not began.gradient_checkpointing
    else:
        keeps = (
            estimate_memory(without, base, work, machine).total
            <= free_bytes * MAX_ACTIVATION_MEMORY_SHARE
        )
    return (
        replace(fit, recipe=without, notes=(*fit.notes, CHECKPOINTING_SKIPPED_NOTE))
        if keeps
        else fit
    )


def merge_batches(
    fit: ResolvedRecipe,
    base: BaseModel,
    work: Workload,
    machine: MachineSpec,
    free_bytes: int,
    began: Recipe | None = None,
) -> ResolvedRecipe:
    """Merge the batches of an optimiser step on a CPU where the samples are short and memory is
    enough.

    The step has the same samples. A resumed run, which `began` with another recipe, keeps that
    recipe's batches.
    """
    recipe = fit.recipe
    lengths = work.seen(fit.recipe)
    if machine.has_cuda or work.judged or not lengths:
        return fit
    own_tokens = statistics.fmean(lengths) - work.shared

    def merged(factor: int) -> Recipe:
        batch = recipe.per_device_train_batch_size
        accumulation = recipe.gradient_accumulation_steps
        changes = {
            "per_device_train_batch_size": batch * factor,
            "gradient_accumulation_steps": accumulation // factor,
        }
        return recipe.model_copy(update=changes)

    def is_good(found: Recipe) -> bool:
        if began:
            return found.per_device_train_batch_size == began.per_device_train_batch_size
        return (
            found.per_device_train_batch_size * own_tokens <= MERGED_BATCH_TOKENS
            and estimate_memory(found, base, work, machine).total
            <= free_bytes * MAX_ACTIVATION_MEMORY_SHARE
        )

    steps = recipe.gradient_accumulation_steps
    factors = (factor for factor in range(steps, 1, -1) if steps % factor == 0)
    found = next(filter(is_good, map(merged, factors)), None)
    if found is None:
        return fit
    batch = found.per_device_train_batch_size
    accumulation = found.gradient_accumulation_steps
    note = (
        f"per_device_train_batch_size is {batch}, gradient_accumulation_steps {accumulation}: the "
        "samples are "
        f"short, and larger batches are faster. A step still has {batch * accumulation} samples."
    )
    return replace(fit, recipe=found, notes=(*fit.notes, note))
