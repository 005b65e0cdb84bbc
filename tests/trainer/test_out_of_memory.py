"""Memory that runs out in the middle of a run: smaller batches or checkpointed activations, from the
last checkpoint on, and a word about it.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

import trainer.train.sft_trainer
from personas.home.adapters import verify_adapter
from personas.schemas.training_events import Phase, Progress
from tests.trainer.job_folders import persona_job
from trainer.machine import MachineSpec
from trainer.process.run_control import RunCancelled
from trainer.recipe.machine_fit import CHECKPOINTING_SKIPPED_NOTE
from trainer.run import run_job
from trainer.train.resume_config import ResumeConfig, lock_config
from trainer.train.training_run import RunControl

CARD = MachineSpec(has_cuda=True, best="bf16", memory_bytes=2**40, free_bytes=2**40)
CPU_ERROR = RuntimeError(
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 12345 bytes."
)
CARD_ERROR = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 5.78 GiB of which "
    "1.12 GiB is free."
)
pytestmark = pytest.mark.usefixtures("blank_charts")


def out_of_memory_at(monkeypatch, step, times, error=CPU_ERROR):
    """Training fails for want of memory after a step, the first so many times. Returns a list that
    gets each attempt's batch size, and whether its activations are checkpointed.
    """
    train_adapter = trainer.train.sft_trainer.train_sft
    left = [times]
    attempts = []

    def failing(base, tokenizer, course):
        def listen(event):
            course.listen(event)
            if left[0] and isinstance(event, Progress) and event.step >= step:
                left[0] -= 1
                raise error

        recipe = course.recipe
        attempts.append((recipe.per_device_train_batch_size, recipe.gradient_checkpointing))
        return train_adapter(base, tokenizer, dataclasses.replace(course, listen=listen))

    monkeypatch.setattr(trainer.train.sft_trainer, "train_sft", failing)
    return attempts


@pytest.mark.slow
def test_it_goes_on_with_smaller_batches_and_says_so(tmp_path, tiny_base, monkeypatch):
    folder = persona_job(tmp_path, tiny_base.source, hyperparameters={"num_train_epochs": 4})
    out_of_memory_at(monkeypatch, step=5, times=1)
    received = []
    run_job(folder, RunControl(received.append, checkpoint_s=0))
    manifest = verify_adapter(folder / "adapter")
    assert (
        manifest.hyperparameters["per_device_train_batch_size"] == 4
    )  # of 8, the recipe's two batches merged
    assert manifest.hyperparameters["gradient_accumulation_steps"] == 2
    assert any(
        "with batches of 8" in caveat and "last bit" in caveat for caveat in manifest.caveats
    )
    steps = [event.step for event in received if isinstance(event, Progress)]
    again = steps.index(5) + 1
    assert 1 < steps[again] <= 5, "it goes on from a checkpoint, not from the beginning"
    assert steps[again:] == list(range(steps[again], steps[-1] + 1)) and steps[-1] == total_of(
        received
    )
    assert any(
        "batches of 4 instead of 8" in event.detail
        for event in received
        if isinstance(event, Phase)
    )


def total_of(received):
    return next(event.of for event in received if isinstance(event, Progress))


@pytest.mark.slow
def test_where_one_sample_is_too_much_it_is_an_error(tmp_path, tiny_base, monkeypatch):
    folder = persona_job(tmp_path, tiny_base.source)
    out_of_memory_at(monkeypatch, step=1, times=10)
    with pytest.raises(RuntimeError, match="allocate memory"):
        run_job(folder, RunControl(checkpoint_s=0))
    assert not (folder / "adapter").exists()


@pytest.fixture
def card(monkeypatch):
    """A graphics card with much memory, by the description of the machine."""
    for module in ("recipe.resolve", "train.stages", "train.sft_trainer", "estimate.memory_check"):
        monkeypatch.setattr(f"trainer.{module}.probe_machine", lambda: CARD)


@pytest.mark.slow
def test_a_card_checkpoints_activations_before_it_takes_smaller_batches(
    tmp_path, tiny_base, monkeypatch, card
):
    """The estimate promised too much: a step's activations do not fit. A resumed run knows."""
    settings = {"max_steps": 4, "optim": "adamw_torch", "precision": "fp32"}
    folder = persona_job(tmp_path, tiny_base.source, recipe="s0-6gb", hyperparameters=settings)
    attempts = out_of_memory_at(monkeypatch, step=2, times=2, error=CARD_ERROR)
    received = []

    def stop_later(event):
        received.append(event)
        if isinstance(event, Progress) and event.step == 3:
            raise RunCancelled("the test")

    with pytest.raises(RunCancelled):
        run_job(folder, RunControl(stop_later, checkpoint_s=0))
    assert attempts == [(16, False), (16, True), (8, True)]
    details = [event.detail for event in received if isinstance(event, Phase)]
    assert any("with gradient checkpointing because memory ran out" in detail for detail in details)

    before = len(received)
    run_job(folder, RunControl(received.append, checkpoint_s=0))
    assert attempts[3:] == [(8, True)]
    steps = [event.step for event in received[before:] if isinstance(event, Progress)]
    assert steps[0] > 1, "it goes on from a checkpoint"
    manifest = verify_adapter(folder / "adapter")
    assert manifest.hyperparameters["gradient_checkpointing"]
    assert any("trained with gradient_checkpointing" in caveat for caveat in manifest.caveats)
    assert CHECKPOINTING_SKIPPED_NOTE not in manifest.caveats, "which was an error"


def test_where_some_layers_are_checkpointed_a_card_checkpoints_all_before_smaller_batches(recipe):
    config = begun_with(recipe, gradient_checkpointing=True, checkpoint_every_n_layers=4)
    seen = []
    while config := config.with_less_memory(is_on_gpu=True):
        used = config.used
        seen.append((used.per_device_train_batch_size, used.checkpoint_every_n_layers))
    assert seen == [(4, 1), (2, 1), (1, 1)]


def begun_with(recipe, **changes):
    """The configuration of a run that begins."""
    begun = recipe.with_values(per_device_train_batch_size=4, **changes)
    return ResumeConfig(
        recipe=begun, used=begun, batches="", base_model_hash="", threads=1, packages={}
    )


def test_a_processor_takes_smaller_batches_first_and_checkpoints_at_last(tmp_path, recipe):
    config = begun_with(recipe)
    seen = []
    while config := config.with_less_memory(is_on_gpu=False):
        used = config.used
        seen.append((used.per_device_train_batch_size, used.gradient_checkpointing))
        last = config
    assert seen == [(2, False), (1, False), (1, True)]
    wanted = last.model_copy(update={"used": last.recipe})
    lock_config(tmp_path, last)
    assert lock_config(tmp_path, wanted) == last, "a resumed run stays as it became"
