"""Runs in two stages: general dialogue first, then the persona's own over it; taken up in either
they end the same.
"""

from __future__ import annotations

import csv
import json
import re
import time

import pytest
import torch
from safetensors.torch import load_file

from personas.errors import TrainingError
from personas.home.adapters import verify_adapter
from personas.home.job_attempt import CHECKPOINTS_FOLDER
from personas.schemas.training_events import Epoch, Phase, Progress
from tests.trainer.job_folders import mixing_job, stopping
from trainer.process.run_control import RunCancelled
from trainer.report.run_plan import plan_job
from trainer.run import run_job
from trainer.schemas import optimiser_steps
from trainer.train.checkpoint import list_checkpoints
from trainer.train.job import prepare_job_without_torch
from trainer.train.stages import FIRST_STAGE_FOLDER
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")

SMALL = {
    "lora_r": 4,
    "lora_alpha": 8,
    "gradient_accumulation_steps": 2,
    "per_device_train_batch_size": 2,
}
SETTINGS = {
    **SMALL,
    "num_train_epochs": 2,
    "first_stage_epochs": 2,
    "max_length": 128,
    "gradient_checkpointing": False,
}
RATE = 5e-4


@pytest.fixture(scope="module")
def job(tiny_base, tmp_path_factory):
    """A job in two stages, by the recipe of that name."""

    def made(**changes):
        settings = {**SETTINGS, "first_stage_learning_rate": RATE, **changes}
        of = {"recipe": "two-stage", "hyperparameters": settings}
        return mixing_job(tmp_path_factory.mktemp("job"), tiny_base.source, 24, **of)

    return made


@pytest.fixture(scope="module")
def whole(job):
    """The folder of a run that nobody disturbed, and its events."""
    folder = job()
    received = []
    control = RunControl(received.append)
    started = time.perf_counter()
    run_job(folder, control)
    took_s = time.perf_counter() - started
    assert control.usage.seconds < 1.2 * took_s, "the first stage counts once"
    return folder, received


def steps_in(folder, **changes):
    """Of both stages."""
    prepared = prepare_job_without_torch(folder)
    settings = SETTINGS | changes
    stages = (("first", "first_stage_epochs"), ("train", "num_train_epochs"))
    recipes = (
        prepared.recipe.model_copy(update={"num_train_epochs": settings[epochs]})
        for _, epochs in stages
    )
    return [
        optimiser_steps(recipe, len(getattr(prepared.data, part)))
        for recipe, (part, _) in zip(recipes, stages, strict=True)
    ]


def test_steps_count_over_both_and_each_has_its_own_schedule(whole):
    folder, received = whole
    first, second = steps_in(folder)
    progress = [event for event in received if isinstance(event, Progress)]
    assert [event.step for event in progress] == list(range(1, first + second + 1))
    assert {event.of for event in progress} == {first + second}
    assert [event.stage for event in progress] == [1] * first + [2] * second
    epochs = [
        (event.stage, event.epoch, event.step) for event in received if isinstance(event, Epoch)
    ]
    assert epochs == [
        (1, 1, first // 2),
        (1, 2, first),
        (2, 1, first + second // 2),
        (2, 2, first + second),
    ]
    rates = [[event.lr for event in progress if event.stage == stage] for stage in (1, 2)]
    assert max(rates[0]) == pytest.approx(RATE, rel=0.05) and max(rates[1]) == pytest.approx(
        1e-4, rel=0.05
    )
    assert rates[0][-1] < RATE / 20 and rates[1][0] < 1e-4  # down to zero, then up again
    assert all(earlier.eta_s > 0 for earlier in progress[:-1])
    details = [
        event.detail for event in received if isinstance(event, Phase) and event.name == "training"
    ]
    assert [detail.split(":")[0] for detail in details] == ["stage 1 of 2", "stage 2 of 2"]


def test_a_plan_counts_both_stages_and_says_what_share_was_reached(job):
    folder = job(general_share=0.9, first_stage_epochs=3, warmup_steps=100)
    result = plan_job(folder).as_json(())
    mine = next(it for it in result["recipes"] if it["recipe"] == "two-stage")
    data, (first, second) = (
        prepare_job_without_torch(folder).data,
        steps_in(folder, first_stage_epochs=3),
    )
    assert mine["steps"] == first + second and result["samples"]["train"] == len(data.first) + len(
        data.train
    )
    lengths = [sum(len(sample.ids) for sample in part) for part in (data.first, data.train)]
    assert mine["trained_tokens"] == 3 * lengths[0] + 2 * lengths[1]
    warnings = " ".join(mine["warnings"])
    assert "General dialogue was to be 90%" in warnings
    assert re.search("first stage: .*warm-up of 100 steps", warnings)


def test_the_report_names_the_stages_and_the_manifest_counts_both(whole):
    folder, _ = whole
    manifest = verify_adapter(folder / "adapter")
    report = folder / "adapter" / "report"
    data = prepare_job_without_torch(folder).data
    assert (
        manifest.recipe == "two-stage"
        and manifest.dataset["samples_general"] == len(data.first) > 0
    )
    assert manifest.dataset["samples_train"] == len(data.first) + len(data.train)
    assert manifest.hyperparameters["first_stage_epochs"] == 2
    page = (report / "README.md").read_text()
    assert (
        "| stage | epoch |" in page
        and "| 1: general dialogue | 1 |" in page
        and "| 2: the persona | 2 |" in page
    )
    with (report / "steps.csv").open(newline="") as file:
        stages = [row["stage"] for row in csv.DictReader(file)]
    assert stages == ["1"] * steps_in(folder)[0] + ["2"] * steps_in(folder)[1]
    seconds = [
        float(line.split(",")[6]) for line in (report / "steps.csv").read_text().splitlines()[1:]
    ]
    assert (
        seconds == sorted(seconds)
        and json.loads((report / "training.json").read_text())["seconds"] >= seconds[-1]
    )


def test_stopped_in_the_first_between_and_in_the_second_it_ends_with_the_same_weights_and_history(
    job, whole
):
    folder = job()
    first = steps_in(whole[0])[0]
    for number, (kind, step) in enumerate(((Progress, 1), (Epoch, first), (Progress, first + 1))):
        with pytest.raises(RunCancelled):
            run_job(folder, stopping(step, kind))
        assert list_checkpoints(folder / CHECKPOINTS_FOLDER / FIRST_STAGE_FOLDER)
        assert bool(list_checkpoints(folder / CHECKPOINTS_FOLDER)) == (number == 2)
    received = []
    run_job(folder, RunControl(received.append))
    assert (
        min(event.step for event in received if isinstance(event, Progress)) == first + 3
    )  # nothing is done again
    kept, other = (
        load_file(it / "adapter" / "adapter_model.safetensors") for it in (folder, whole[0])
    )
    assert all(torch.equal(kept[name], other[name]) for name in kept)
    tables = [
        (it / "adapter" / "report" / "epochs.csv").read_text().splitlines()
        for it in (folder, whole[0])
    ]
    assert [line.split(",")[:4] for line in tables[0]] == [
        line.split(",")[:4] for line in tables[1]
    ]


def test_a_first_stage_that_diverges_names_its_own_rate(job, monkeypatch):
    monkeypatch.setattr(
        "trainer.train.divergence.DIVERGENCE_RISE_NATS", -100.0
    )  # every loss is too high
    monkeypatch.setattr("trainer.train.divergence.DIVERGENCE_WINDOW_STEPS", 1)
    with pytest.raises(TrainingError, match=r"first stage: .*first_stage_learning_rate=5e-05"):
        run_job(job(), RunControl())
