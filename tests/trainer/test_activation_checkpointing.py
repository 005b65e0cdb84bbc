"""Gradient checkpointing is left out on a CPU that needs none, and said; a run that has begun stays
as it is.
"""

import json

import pytest

from tests.trainer.job_folders import persona_job
from tests.trainer.test_run import run
from trainer.estimate.run_estimate import estimate_memory
from trainer.estimate.workload import Workload
from trainer.machine import MachineSpec
from trainer.recipe.machine_fit import (
    CHECKPOINTING_SKIPPED_NOTE,
    MAX_ACTIVATION_MEMORY_SHARE,
    fit_notes,
    fit_to_hardware,
    fit_to_machine,
    memory_test,
    skip_activation_checkpointing,
)
from trainer.recipe.recipe_file import load_recipe
from trainer.recipe.resolve import resolve_run
from trainer.schemas import ResolvedRecipe
from trainer.train.job import prepare_job_without_torch

CPU = MachineSpec(has_cuda=False, best="bf16")
CUDA = MachineSpec(has_cuda=True, best="bf16")
WORK = Workload([300] * 20, [300])


@pytest.fixture
def checkpointing(recipe):
    changes = {"gradient_checkpointing": True, "precision": "bf16"}
    return recipe.with_values(**changes)


def test_where_memory_holds_all_activations_none_is_computed_twice(checkpointing, tiny_base):
    without = checkpointing.model_copy(update={"gradient_checkpointing": False})
    needed = estimate_memory(without, tiny_base, WORK, CPU).total
    room = round(needed / MAX_ACTIVATION_MEMORY_SHARE)
    enough, short = (
        skip_activation_checkpointing(
            checkpointing, memory_test(tiny_base, WORK, CPU, free_bytes=room + more)
        )
        for more in (9, -9)
    )
    assert enough == without
    assert fit_notes(checkpointing, enough) == (CHECKPOINTING_SKIPPED_NOTE,)
    assert short == checkpointing and fit_notes(checkpointing, short) == ()


def test_a_gpu_computes_nothing_twice_where_the_whole_step_fits_without(tiny_base):
    asked = load_recipe("s0-6gb")
    fitted = fit_to_machine("s0-6gb", asked, tiny_base, WORK, machine=CUDA, free_bytes=2**50)
    assert not fitted.gradient_checkpointing and fitted.gradient_accumulation_steps == 1
    assert CHECKPOINTING_SKIPPED_NOTE in fit_notes(asked, fitted)
    # Memory for the whole step, but not for all that it computes.
    whole = fitted.with_values(gradient_checkpointing=True)
    needed = estimate_memory(whole, tiny_base, WORK, CUDA).total
    room = round(needed / MAX_ACTIVATION_MEMORY_SHARE) + 9
    short = fit_to_machine("s0-6gb", asked, tiny_base, WORK, machine=CUDA, free_bytes=room)
    assert short == whole


def test_a_gpu_that_lacks_memory_stays_as_it_is(checkpointing, tiny_base):
    fitted = fit_to_machine("s0-6gb", checkpointing, tiny_base, WORK, machine=CUDA, free_bytes=1)
    assert fitted == checkpointing


@pytest.mark.parametrize("began_with", [True, False])
def test_a_run_that_has_begun_stays_as_it_is(tmp_path, tiny_base, began_with):
    folder = persona_job(tmp_path, tiny_base.source, recipe="s0-6gb")
    job = prepare_job_without_torch(folder)
    assert job.recipe.gradient_checkpointing
    begun = fit_to_hardware(job.recipe).with_values(gradient_checkpointing=began_with)
    resumed = resolve_run(
        "s0-6gb", job.recipe, job.base, job.data, work=job.workload, stored=ResolvedRecipe(begun)
    )
    assert resumed.recipe == begun
    assert (CHECKPOINTING_SKIPPED_NOTE in resumed.notes) != began_with


@pytest.mark.slow
@pytest.mark.parametrize("asked", [False, True])
def test_a_run_says_so_unless_the_request_itself_asks_for_checkpointing(tmp_path, tiny_base, asked):
    settings = {
        "num_train_epochs": 1,
        "max_steps": 1,
        **({"gradient_checkpointing": True} if asked else {}),
    }
    folder = persona_job(tmp_path, tiny_base.source, recipe="s0-6gb", hyperparameters=settings)
    code, _, log = run(folder)
    assert code == 0, log
    manifest = json.loads((folder / "adapter" / "manifest.json").read_text())
    assert (CHECKPOINTING_SKIPPED_NOTE in manifest["caveats"]) != asked
    assert bool(manifest["hyperparameters"]["gradient_checkpointing"]) == asked
