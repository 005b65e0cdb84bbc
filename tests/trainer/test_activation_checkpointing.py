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
from trainer.recipe.resolve import (
    CHECKPOINTING_SKIPPED_NOTE,
    MAX_ACTIVATION_MEMORY_SHARE,
    skip_activation_checkpointing,
)
from trainer.schemas import ResolvedRecipe

CPU = MachineSpec(has_cuda=False, best="bf16")
CUDA = MachineSpec(has_cuda=True, best="bf16")
WORK = Workload([300] * 20, [300])


@pytest.fixture
def fit(recipe):
    return ResolvedRecipe(
        recipe.model_copy(update={"gradient_checkpointing": True, "precision": "bf16"}),
        notes=("before",),
    )


def test_where_memory_holds_all_activations_none_is_computed_twice(fit, tiny_base):
    needed = estimate_memory(
        fit.recipe.model_copy(update={"gradient_checkpointing": False}), tiny_base, WORK, CPU
    ).total
    enough, short = (
        skip_activation_checkpointing(
            fit, tiny_base, WORK, CPU, round(needed / MAX_ACTIVATION_MEMORY_SHARE) + more
        )
        for more in (9, -9)
    )
    assert not enough.recipe.gradient_checkpointing and enough.notes == (
        "before",
        CHECKPOINTING_SKIPPED_NOTE,
    )
    assert short == fit


def test_a_gpu_and_a_run_that_has_begun_stay_as_they_are(fit, tiny_base):
    much = 2**50
    keeping = fit.recipe.model_copy(update={"gradient_checkpointing": False})
    assert skip_activation_checkpointing(fit, tiny_base, WORK, CUDA, much) == fit
    assert skip_activation_checkpointing(fit, tiny_base, WORK, CPU, much, began=fit.recipe) == fit
    assert skip_activation_checkpointing(
        fit, tiny_base, WORK, CPU, 0, began=keeping
    ) == ResolvedRecipe(keeping, notes=("before", CHECKPOINTING_SKIPPED_NOTE))


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
