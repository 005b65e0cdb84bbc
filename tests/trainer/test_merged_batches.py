"""The batches of a step are merged where samples are short or a GPU computes, and that is said."""

import json
from dataclasses import replace

import pytest

from personas.schemas.hyperparameters import Hyperparameters
from tests.trainer.job_folders import persona_job
from tests.trainer.test_run import run
from trainer.estimate.run_estimate import estimate_memory
from trainer.estimate.workload import Workload
from trainer.machine import MachineSpec
from trainer.recipe.machine_fit import (
    MAX_ACTIVATION_MEMORY_SHARE,
    MERGED_BATCH_TOKENS,
    fit_notes,
    fit_to_hardware,
    fit_to_machine,
    memory_test,
    merge_batches,
)
from trainer.recipe.recipe_file import load_recipe
from trainer.recipe.resolve import resolve_run
from trainer.schemas import ResolvedRecipe
from trainer.train.job import prepare_job_without_torch

CPU = MachineSpec(has_cuda=False, best="bf16")
CUDA = MachineSpec(has_cuda=True, best="bf16")
MUCH = 2**50
SHORT = Workload([130] * 60, [130])
FEW_LONG = Workload([130] * 57 + [800] * 3, [130])


def batches(recipe):
    return recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps


def fitted(base, recipe="demo-cpu", work=SHORT, machine=CPU, free_bytes=MUCH, **changes):
    asked = load_recipe(recipe, Hyperparameters(**changes))
    return fit_to_machine(recipe, asked, base, work, machine=machine, free_bytes=free_bytes)


def test_short_samples_of_a_step_are_computed_together(tiny_base):
    merged = fitted(tiny_base)
    assert batches(merged) == (8, 1)
    note = fit_notes(load_recipe("demo-cpu"), merged)[-1]
    assert "per_device_train_batch_size is 8" in note and "still has 8 samples" in note


@pytest.mark.parametrize(
    ("changes", "unmerged"),
    [
        ({"work": Workload([MERGED_BATCH_TOKENS // 8 + 1] * 60, [130])}, (4, 2)),
        ({"work": Workload([130] * 60, [130], judged="kto")}, (4, 2)),
        ({"machine": CUDA, "work": Workload([130] * 60, [130], judged="kto")}, (4, 2)),
        ({"machine": CUDA, "per_device_train_batch_size": 4}, (4, 2)),
        ({"per_device_train_batch_size": 4}, (4, 2)),
        ({"gradient_accumulation_steps": 4}, (4, 4)),
        ({"recipe": "s0-6gb"}, (1, 16)),
    ],
    ids=[
        "long samples",
        "preferences",
        "preferences on a GPU",
        "batches that were asked for on a GPU",
        "batches that were asked for",
        "steps too",
        "a published recipe",
    ],
)
def test_batches_stay_as_they_are(tiny_base, changes, unmerged):
    assert batches(fitted(tiny_base, **changes)) == unmerged


@pytest.mark.parametrize("recipe", ["demo-cpu", "s0-6gb", "s1-t4", "s3-persona-16gb"])
def test_a_gpu_computes_a_step_at_once_where_its_memory_allows(tiny_base, recipe):
    asked = load_recipe(recipe)
    batch, accumulation = batches(asked)
    whole = fitted(tiny_base, recipe, work=Workload([500] * 60, [130]), machine=CUDA)
    assert batches(whole) == (batch * accumulation, 1)
    assert fit_notes(asked, whole)[-1].endswith(f"still has {batch * accumulation} samples.")
    assert batches(fitted(tiny_base, recipe, machine=CUDA, free_bytes=1)) == (batch, accumulation)


def test_a_shared_beginning_does_not_count(tiny_base):
    long = Workload([500] * 60, [500])
    assert batches(fitted(tiny_base, work=long)) == (4, 2)
    assert batches(fitted(tiny_base, work=replace(long, shared=400))) == (8, 1)


def test_a_few_long_samples_among_short_ones_do_not_prevent_it(tiny_base):
    assert batches(fitted(tiny_base, work=FEW_LONG)) == (8, 1)
    many = Workload([130] * 30 + [800] * 30, [130])
    assert batches(fitted(tiny_base, work=many)) == (4, 2)


@pytest.mark.parametrize("work", [SHORT, FEW_LONG], ids=["short", "a few long ones"])
def test_batches_that_would_not_fit_into_memory_are_not_merged(tiny_base, recipe, work):
    merged = recipe.model_copy(
        update={"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    )
    needed = estimate_memory(merged, tiny_base, work, CPU).total
    for more, expected in ((9, (8, 1)), (-9, (4, 2))):
        room = round(needed / MAX_ACTIVATION_MEMORY_SHARE) + more
        fits = memory_test(tiny_base, work, CPU, room)
        assert batches(merge_batches(recipe, work, fits)) == expected


def test_as_many_are_merged_as_fit_into_a_batch(recipe):
    recipe = recipe.model_copy(
        update={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 12}
    )
    work = Workload([MERGED_BATCH_TOKENS // 10] * 60, [130])
    assert batches(merge_batches(recipe, work, lambda merged: True)) == (8, 3)


@pytest.mark.parametrize("began_with", [(8, 1), (4, 2)])
def test_a_resumed_run_keeps_its_batches(tmp_path, tiny_base, began_with):
    job = prepare_job_without_torch(persona_job(tmp_path, tiny_base.source))
    assert batches(job.recipe) == (4, 2)
    begun = fit_to_hardware(job.recipe).with_values(
        per_device_train_batch_size=began_with[0], gradient_accumulation_steps=began_with[1]
    )
    resumed = resolve_run(
        "demo-cpu", job.recipe, job.base, job.data, work=job.workload, stored=ResolvedRecipe(begun)
    )
    assert resumed.recipe == begun
    assert any("still has 8 samples" in note for note in resumed.notes) == (began_with == (8, 1))


@pytest.mark.slow
def test_a_run_has_as_many_steps_as_before_and_says_so(tmp_path, tiny_base):
    folder = persona_job(tmp_path, tiny_base.source, hyperparameters={"num_train_epochs": 1})
    code, _, log = run(folder)
    assert code == 0, log
    manifest = json.loads((folder / "adapter" / "manifest.json").read_text())
    set_in_run = manifest["hyperparameters"]
    assert (
        set_in_run["per_device_train_batch_size"],
        set_in_run["gradient_accumulation_steps"],
    ) == (8, 1)
    assert any("A step still has 8 samples." in caveat for caveat in manifest["caveats"])
