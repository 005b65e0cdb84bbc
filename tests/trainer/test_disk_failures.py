"""A disk that fills up, a folder that turns read-only, files that vanish, all while a run trains:
one clear message, the job kept, and the same adapter in the end.
"""

from __future__ import annotations

import resource
import sys
from contextlib import contextmanager

import pytest
import torch

from personas.errors import MaterialError
from personas.home.adapters import verify_adapter
from personas.prompt.renderer import TokenizedSample
from personas.schemas.training_events import Done, Epoch, Progress
from tests.trainer.job_folders import persona_job
from tests.unprivileged import without_overrides
from trainer.process.events import failed_event
from trainer.process.run_control import JobGoneError
from trainer.recipe.machine_fit import fit_to_hardware
from trainer.run import run_job
from trainer.train.checkpoint import list_checkpoints, trainable_weights
from trainer.train.losses import mean_loss, measure_reply_losses
from trainer.train.sft_trainer import train_sft
from trainer.train.trainer_base import StageInputs
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")

SMALL_BYTES = 4096


def limit_files(size_bytes: int | None) -> None:
    """As on a full disk, writing beyond the limit fails; None takes the limit away."""
    # Else a part of the bytecode of a module that is imported meanwhile would stay (tests.full_disk).
    sys.dont_write_bytecode = size_bytes is not None
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size_bytes is None else size_bytes, hard))


@pytest.fixture(autouse=True)
def _room_again():
    yield
    limit_files(None)


def samples(count):
    return [
        TokenizedSample((5, 6, 7, 8, 20 + n % 5, 40 + n % 3, 2), (False,) * 5 + (True,) * 2)
        for n in range(count)
    ]


def trained(base, renderer, recipe, folder, received, listen=lambda event: None, **changes):
    """A short run that keeps a checkpoint at every step."""

    def receive(event):
        received.append(event)
        listen(event)

    short = {"lora_r": 4, "lora_alpha": 8, "gradient_accumulation_steps": 1}
    fit = fit_to_hardware(recipe.model_copy(update={**short, **changes}))
    course = StageInputs(
        samples(16), samples(3), fit, receive, control=RunControl(checkpoint_s=0), folder=folder
    )
    return train_sft(base, renderer.tokenizer, course)


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_nothing_else(
    tiny_base, renderer, recipe, tmp_path, caplog, monkeypatch
):
    def fill_up(event):
        if isinstance(event, Progress) and event.step in (2, 5):
            limit_files(SMALL_BYTES if event.step == 2 else None)

    received = []
    ended = trained(tiny_base, renderer, recipe, tmp_path / "full", received, fill_up)
    trouble = {event.step: event.trouble for event in received if isinstance(event, Progress)}
    assert [number for number, text in trouble.items() if text] == [3, 4, 5]
    assert "No checkpoint" in trouble[3] and "at step 2. The disk is full" in trouble[3]
    assert "Training goes on" in caplog.text and len(trouble) == 8
    assert list_checkpoints(tmp_path / "full")[0].name == "checkpoint-8"
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    free = trained(tiny_base, renderer, recipe, tmp_path / "free", [])
    assert sys.dont_write_bytecode, "of a module that is imported late, a part would stay"
    one = trainable_weights(ended.model)
    other = trainable_weights(free.model)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_the_best_adapter_is_given_although_its_checkpoint_could_not_be_written(
    tiny_base, renderer, recipe, tmp_path
):
    received = []
    worsening = {
        "learning_rate": 1e-2, "lr_scheduler_type": "constant", "num_train_epochs": 30, "max_grad_norm": 1000.0,
        "early_stopping_patience": 1, "gradient_accumulation_steps": 2,
    }  # fmt: skip
    limit_files(SMALL_BYTES)
    try:
        ended = trained(tiny_base, renderer, recipe, tmp_path / "full", received, **worsening)
    finally:
        limit_files(None)  # here, not in a fixture: what pytest prints next may go to a file too
    losses = [event.eval_loss for event in received if isinstance(event, Epoch)]
    assert losses.index(min(losses)) < len(losses) - 1 and not list_checkpoints(tmp_path / "full")
    assert mean_loss(measure_reply_losses(ended.model, samples(3))) == pytest.approx(
        min(losses), abs=1e-6
    )


class Disturbed:
    """A job that is run again and again, with something done to it when it has come so far."""

    def __init__(self, folder, base):
        self.folder = persona_job(
            folder / "job", base.source, hyperparameters={"num_train_epochs": 4}
        )

    def run(self, when=lambda event: False, disturb=lambda: None):
        received = []

        def emit(event):
            received.append(event)
            if when(event):
                disturb()

        run_job(self.folder, RunControl(emit, checkpoint_s=0))
        return received

    @property
    def kept(self):
        return [path.name for path in list_checkpoints(self.folder / "checkpoints")]

    def fails(self, kind, when, disturb):
        """What is told of the run that ends so; nothing half-made has the adapter's name then."""
        with pytest.raises(kind) as caught:
            self.run(when, disturb)
        return failed_event(caught.value)


def at_step(number):
    return lambda event: isinstance(event, Progress) and event.step == number


@contextmanager
def renamed(path):
    """Inside, it is elsewhere."""
    away = path.with_name(f"{path.name}-away")
    if path.exists():
        path.rename(away)
    yield away
    away.rename(path)


def test_one_job_through_all_that_can_happen_to_its_folder(tmp_path, tiny_base):
    job = Disturbed(tmp_path, tiny_base)
    folder = job.folder

    away = folder.with_name("job-away")
    result = job.fails(JobGoneError, at_step(4), lambda: folder.rename(away))
    assert (
        result.cause == f"The job folder {folder} is gone."
        and result.retry
        and "Put it back" in result.advice
    )
    assert not folder.exists(), "nothing is made where the folder was"
    away.rename(folder)
    assert job.kept[0] == "checkpoint-3"

    with renamed(folder / "material" / "talk.json"):
        result = job.fails(MaterialError, lambda event: False, lambda: None)
        assert (
            "talk.json cannot be read" in result.cause
            and "Put it back" in result.advice
            and result.retry
        )
        assert job.kept[0] == "checkpoint-3"

    # What vanishes while it trains is in memory already; that the disk is full counts only when the
    # adapter is written.
    material = folder / "material"
    result = job.fails(
        Exception,
        at_step(5),
        lambda: (material.rename(tmp_path / "away"), limit_files(SMALL_BYTES)),
    )
    assert (result.cause, result.retry) == ("The disk is full.", True) and job.kept[
        0
    ] == "checkpoint-4"
    limit_files(None)
    (tmp_path / "away").rename(material)

    with without_overrides():
        locked = (folder / "checkpoints", folder)
        result = job.fails(
            PermissionError, at_step(6), lambda: [path.chmod(0o500) for path in locked]
        )
    for path in reversed(locked):
        path.chmod(0o700)
    assert "Permission denied" in result.cause and result.retry and job.kept[0] == "checkpoint-5"
    assert not (folder / "adapter").exists()

    received = job.run()
    assert next(event.step for event in received if isinstance(event, Progress)) == 6
    assert isinstance(received[-1], Done) and verify_adapter(folder / "adapter")
