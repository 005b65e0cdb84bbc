"""Gradient checkpointing is left out where memory needs none of it or, on a GPU, not all of it, and
said; so are optimisers that save memory. A run that has begun stays as it is.
"""

import json

import pytest

from personas.models.loading import load_model
from personas.schemas.hyperparameters import Hyperparameters
from tests.model_families import FAMILIES
from tests.trainer.job_folders import persona_job
from tests.trainer.model_sizes import QWEN_3B
from tests.trainer.test_run import run
from tools.tiny_models import make_model
from trainer.estimate.run_estimate import estimate_memory
from trainer.estimate.workload import Workload
from trainer.machine import MachineSpec
from trainer.recipe.machine_fit import (
    CHECKPOINTING_NOTES,
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
from trainer.train.sft_trainer import checkpoint_some_layers

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


@pytest.fixture
def three_billion(tiny_base, monkeypatch):
    """A base model with the sizes of Qwen2.5-3B, which nothing is loaded of."""
    monkeypatch.setattr("trainer.estimate.run_estimate.model_shape_of", lambda base: QWEN_3B.shape)
    return tiny_base


def room_for(recipe, base):
    needed = estimate_memory(recipe, base, WORK, CUDA).total
    return round(needed / MAX_ACTIVATION_MEMORY_SHARE) + 9


@pytest.mark.parametrize("every", [8, 4, 2])
def test_a_gpu_computes_as_few_layers_twice_as_its_memory_asks_for(three_billion, every):
    asked = load_recipe("s0-6gb")
    much = fit_to_machine("s0-6gb", asked, three_billion, WORK, machine=CUDA, free_bytes=2**50)
    some = much.with_values(gradient_checkpointing=True, checkpoint_every_n_layers=every)
    room = room_for(some, three_billion)
    fitted = fit_to_machine("s0-6gb", asked, three_billion, WORK, machine=CUDA, free_bytes=room)
    assert fitted == some
    (note,) = CHECKPOINTING_NOTES & set(fit_notes(asked, fitted))
    assert f"one layer in {every}:" in note
    requested = load_recipe("s0-6gb", Hyperparameters(gradient_checkpointing=True))
    fitted = fit_to_machine("s0-6gb", requested, three_billion, WORK, machine=CUDA, free_bytes=room)
    assert fitted.gradient_checkpointing and fitted.checkpoint_every_n_layers == 1


def test_a_processor_computes_all_layers_twice_or_none(three_billion):
    asked = load_recipe("s0-6gb")
    some = fit_to_hardware(asked, CPU).with_values(checkpoint_every_n_layers=8)
    room = round(
        estimate_memory(some, three_billion, WORK, CPU).total / MAX_ACTIVATION_MEMORY_SHARE
    )
    fitted = fit_to_machine("s0-6gb", asked, three_billion, WORK, machine=CPU, free_bytes=room + 9)
    assert fitted.gradient_checkpointing and fitted.checkpoint_every_n_layers == 1


@pytest.mark.parametrize("name", ["s0-6gb", "s1-t4", "s3-persona-16gb"])
def test_a_gpu_takes_the_fused_optimiser_where_its_state_fits(three_billion, name):
    asked = load_recipe(name)
    much = fit_to_machine(name, asked, three_billion, WORK, machine=CUDA, free_bytes=2**50)
    assert much.optim == "adamw_torch_fused"
    assert any(note.startswith("optim is adamw_torch_fused") for note in fit_notes(asked, much))
    short = fit_to_machine(name, asked, three_billion, WORK, machine=CUDA, free_bytes=1)
    assert short.optim == asked.optim and fit_notes(asked, short) == ()
    named = load_recipe(name, Hyperparameters(optim=asked.optim))
    kept = fit_to_machine(name, named, three_billion, WORK, machine=CUDA, free_bytes=2**50)
    assert kept.optim == asked.optim, "a request that names an optimiser gets it"


def test_whoever_enables_it_every_second_layer_is_computed_twice(tmp_path):
    """TRL disables it for the reference model and enables it again."""
    model = load_model(make_model(FAMILIES["Qwen2.5"], tmp_path / "model"), "float32")
    checkpoint_some_layers(model, 2)
    for _ in range(2):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=None)
        recomputed = [layer.gradient_checkpointing for layer in model.model.layers]
        assert recomputed == [place % 2 == 0 for place in range(len(recomputed))]
        assert len(set(recomputed)) == 2
        model.activation_checkpointing_disable()


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
