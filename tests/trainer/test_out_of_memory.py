"""Memory that runs out in the middle of a run: smaller batches, from the last checkpoint on, and a
word about it.
"""

from __future__ import annotations

import dataclasses

import pytest

import trainer.train.sft_trainer
from personas.home.adapters import verify_adapter
from personas.schemas.training_events import Phase, Progress
from tests.trainer.job_folders import persona_job
from trainer.run import run_job
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")


def out_of_memory_at(monkeypatch, step, times):
    """Training fails for want of memory after a step, the first so many times."""
    train_adapter = trainer.train.sft_trainer.train_sft
    left = [times]

    def failing(base, tokenizer, course):
        def listen(event):
            course.listen(event)
            if left[0] and isinstance(event, Progress) and event.step >= step:
                left[0] -= 1
                raise RuntimeError(
                    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 12345 bytes."
                )

        return train_adapter(base, tokenizer, dataclasses.replace(course, listen=listen))

    monkeypatch.setattr(trainer.train.sft_trainer, "train_sft", failing)


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


def test_where_one_sample_is_too_much_it_is_an_error(tmp_path, tiny_base, monkeypatch):
    folder = persona_job(tmp_path, tiny_base.source)
    out_of_memory_at(monkeypatch, step=1, times=10)
    with pytest.raises(RuntimeError, match="allocate memory"):
        run_job(folder, RunControl(checkpoint_s=0))
    assert not (folder / "adapter").exists()
