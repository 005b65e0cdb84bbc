"""Fits a recipe to this machine: precision, optimiser, gradient checkpointing, and batches."""

import statistics
from collections.abc import Callable
from dataclasses import replace

from personas.models.base_model import BaseModel
from personas.schemas.hyperparameters import MAX_BATCH_SAMPLES
from trainer.estimate.run_estimate import estimate_memory
from trainer.estimate.workload import Workload
from trainer.machine import MachineSpec, probe_machine
from trainer.recipe.auto_recipe import AUTO_RECIPE
from trainer.schemas import Recipe, optimiser_steps

OPTIMISERS_WITHOUT_CUDA = {
    "paged_adamw_8bit": "adamw_8bit",
    "paged_adamw_32bit": "adamw_torch_fused",
}
"""Paged optimisers move their state between a GPU's memory and the machine's."""
FUSED_OPTIMISER = "adamw_torch_fused"
"""AdamW with 32-bit state, which updates all weights in a few kernels: those of bitsandbytes start
one for each of some hundred matrices.
"""
MAX_ACTIVATION_MEMORY_SHARE = 0.8
"""The share of free memory that a run without checkpointing may take: estimates are not exact."""
CHECKPOINTING_SKIPPED_NOTE = (
    "gradient_checkpointing is off: the machine's memory holds all activations."
)
CHECKPOINTING_REDUCED_NOTE = (
    "gradient_checkpointing recomputes one layer in {every}: the GPU's memory holds the other layers' "
    "activations."
)
MAX_CHECKPOINT_INTERVAL = 8
"""All layers are a forward pass to recompute; of less than an eighth of them, little is saved."""
CHECKPOINTING_NOTES = frozenset(
    CHECKPOINTING_REDUCED_NOTE.format(every=every)
    for every in range(2, MAX_CHECKPOINT_INTERVAL + 1)
) | {CHECKPOINTING_SKIPPED_NOTE}
MERGED_BATCH_TOKENS = 2048
"""Batches of an optimiser step are merged if they then have at most so many tokens on average,
without those that all samples share: larger ones are hardly faster on a CPU. A few batches may be
larger, if they fit into memory. On a GPU memory alone decides.
"""
FITTED_SETTINGS = (
    "precision",
    "optim",
    "gradient_checkpointing",
    "checkpoint_every_n_layers",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
)
"""Settings that a machine decides."""
MemoryTest = Callable[[Recipe], bool]
"""Tells whether a recipe's run fits into memory."""
OWN_RECIPES = (AUTO_RECIPE, "demo-cpu", "quick", "mixed-80-20", "two-stage")
"""Recipes of this project; on a CPU, the batches of published ones stay as published."""


def fit_to_machine(
    name: str,
    recipe: Recipe,
    base: BaseModel,
    work: Workload,
    *,
    machine: MachineSpec,
    free_bytes: int,
) -> Recipe:
    """Fit a recipe to a machine's precision, GPU and free memory; `fit_notes` says what changed.

    Settings that the request itself names stay as they are.
    """
    fitted = fit_to_hardware(recipe, machine)
    fits = memory_test(base, work, machine, free_bytes)
    requested = recipe.model_fields_set
    merges = requested.isdisjoint(("per_device_train_batch_size", "gradient_accumulation_steps"))
    if machine.has_cuda and merges:
        # With single samples a GPU waits for the host: larger batches come first.
        fitted = merge_batches(fitted, work, fits, is_on_gpu=True)
    if machine.has_cuda and "optim" not in requested:
        fitted = use_fused_optimiser(fitted, fits)
    if "gradient_checkpointing" not in requested:
        fitted = skip_activation_checkpointing(fitted, fits)
        if machine.has_cuda:
            fitted = checkpoint_fewer_layers(fitted, fits)
    if name in OWN_RECIPES and merges and not machine.has_cuda:
        fitted = merge_batches(fitted, work, fits)
    return fitted


def fit_to_hardware(recipe: Recipe, machine: MachineSpec | None = None) -> Recipe:
    """Replace settings that the machine does not support; by default this machine, as torch
    describes it.
    """
    machine = machine or probe_machine()
    changes: dict[str, str] = {}
    if (
        recipe.precision == "auto"
        or (recipe.precision == "fp16" and not (machine.has_cuda or machine.cpu_fp16))
        or (recipe.precision == "bf16" and machine.best != "bf16")
    ):
        changes["precision"] = machine.best
    if not machine.has_cuda and recipe.optim in OPTIMISERS_WITHOUT_CUDA:
        changes["optim"] = OPTIMISERS_WITHOUT_CUDA[recipe.optim]
    return recipe.model_copy(update=changes)


def memory_test(
    base: BaseModel, work: Workload, machine: MachineSpec, free_bytes: int
) -> MemoryTest:
    """Return a test whether a recipe's training would fit into these free bytes, with some to spare.
    What writes replies before it changes no setting of it.
    """
    work = replace(work, drafts=0)
    room = free_bytes * MAX_ACTIVATION_MEMORY_SHARE

    def fits(recipe: Recipe) -> bool:
        return estimate_memory(recipe, base, work, machine).total <= room

    return fits


def skip_activation_checkpointing(recipe: Recipe, fits: MemoryTest) -> Recipe:
    """Switch gradient checkpointing off where memory is enough without it."""
    without = recipe.model_copy(update={"gradient_checkpointing": False})
    if recipe.gradient_checkpointing and fits(without):
        return without
    return recipe


def checkpoint_fewer_layers(recipe: Recipe, fits: MemoryTest) -> Recipe:
    """Recompute as few layers, evenly spread, as memory allows; all of them where it is short."""
    if not recipe.gradient_checkpointing:
        return recipe
    for every in range(MAX_CHECKPOINT_INTERVAL, 1, -1):
        fewer = recipe.model_copy(update={"checkpoint_every_n_layers": every})
        if fits(fewer):
            return fewer
    return recipe


def use_fused_optimiser(recipe: Recipe, fits: MemoryTest) -> Recipe:
    """Replace an optimiser of bitsandbytes by torch's fused one where memory holds its state."""
    fused = recipe.model_copy(update={"optim": FUSED_OPTIMISER})
    is_slow = recipe.optim.endswith(("8bit", "32bit"))
    return fused if is_slow and fits(fused) else recipe


def merge_batches(
    recipe: Recipe, work: Workload, fits: MemoryTest, *, is_on_gpu: bool = False
) -> Recipe:
    """Merge the batches of an optimiser step where memory is enough and, on a CPU, the samples are
    short.

    The step has as many samples.
    """
    lengths = work.seen(recipe)
    if work.judged or not lengths:
        return recipe
    # Tokens that all samples share are computed once, however large the batch is. The mean decides:
    # by the longest, one long history would keep the batches of a whole run apart. What the few
    # large batches take is left to `fits`.
    own_tokens = statistics.fmean(lengths) - work.shared
    batch = recipe.per_device_train_batch_size
    accumulation = recipe.gradient_accumulation_steps
    for factor in range(accumulation, 1, -1):
        samples = batch * factor
        if accumulation % factor or samples > MAX_BATCH_SAMPLES:
            continue
        if not is_on_gpu and samples * own_tokens > MERGED_BATCH_TOKENS:
            continue
        merged = recipe.model_copy(
            update={
                "per_device_train_batch_size": samples,
                "gradient_accumulation_steps": accumulation // factor,
            }
        )
        if fits(merged):
            return merged
    return recipe


def fit_notes(recipe: Recipe, fitted: Recipe) -> tuple[str, ...]:
    """Say for people in which settings a machine's recipe differs from the one that it was given.

    Both recipes are compared, so that a resumed run, whose fitted one is stored, says the same.
    """
    notes = []
    if recipe.precision not in ("auto", fitted.precision):
        notes.append(
            f"This machine does not compute in {recipe.precision}: {fitted.precision} is used "
            "instead."
        )
    if recipe.optim != fitted.optim:
        notes.append(_optimiser_note(recipe, fitted))
    if recipe.gradient_checkpointing and not fitted.gradient_checkpointing:
        notes.append(CHECKPOINTING_SKIPPED_NOTE)
    every = fitted.checkpoint_every_n_layers
    if fitted.gradient_checkpointing and every > 1:
        notes.append(CHECKPOINTING_REDUCED_NOTE.format(every=every))
    batch = fitted.per_device_train_batch_size
    if recipe.per_device_train_batch_size != batch:
        accumulation = fitted.gradient_accumulation_steps
        notes.append(
            f"per_device_train_batch_size is {batch}, gradient_accumulation_steps {accumulation}: "
            "the samples are short, and larger batches are faster. A step still has "
            f"{batch * accumulation} samples."
        )
    return tuple(notes)


def _optimiser_note(recipe: Recipe, fitted: Recipe) -> str:
    if fitted.optim == FUSED_OPTIMISER:
        return (
            f"optim is {fitted.optim} instead of {recipe.optim}: the same AdamW, with 32-bit state "
            "that stays in memory."
        )
    return (
        f"{recipe.optim} needs CUDA: {fitted.optim} is used instead, the same AdamW without paged "
        "memory."
    )


def recipe_warnings(recipe: Recipe, samples: int) -> list[str]:
    """Return warnings about settings that are likely mistakes for a run over so many samples."""
    steps = optimiser_steps(recipe, samples)
    warnings = []
    if recipe.warmup_steps >= steps:
        warnings.append(
            f"The warm-up of {recipe.warmup_steps} steps is not shorter than the run of {steps}: "
            f"the learning rate never reaches {recipe.learning_rate:g}."
        )
    if recipe.eval_strategy == "steps" and recipe.eval_steps > steps:
        warnings.append(
            f"Held-out replies are measured every {recipe.eval_steps} steps, and the run has "
            f"{steps}: only its end is measured."
        )
    return warnings


def stage_warnings(recipe: Recipe, samples: int, first: int) -> list[str]:
    """Return the warnings of a run that may have a first stage, with so many samples in it."""
    warnings = []
    if first:
        early = recipe_warnings(recipe.first_stage, first)
        warnings += [f"In the first stage: {warning}" for warning in early]
    return warnings + recipe_warnings(recipe, samples)
