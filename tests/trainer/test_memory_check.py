"""What does not fit into memory is refused before a model is loaded, with settings that would; and
nothing is lost.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

import trainer.cli.main
import trainer.estimate.memory_check
import trainer.report.run_plan
import trainer.run
from personas.errors import NoMemoryError
from personas.models import serving_model
from personas.models.base_model import EMBEDDED, locate
from personas.schemas.hyperparameters import parse_settings
from tests.trainer.job_folders import persona_job
from trainer.estimate.memory_check import available_memory_bytes, require_memory
from trainer.estimate.workload import Workload
from trainer.machine import MachineSpec
from trainer.process.events import failed_event
from trainer.process.run_control import RunCancelled
from trainer.recipe.recipe_file import load_recipe
from trainer.run import run_job
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")

GIB = 2**30
LONG = Workload(train=[1000] * 40, heldout=[900] * 20, shared=100, reply_tokens=100)


def small(gib, has_cuda=False):
    return MachineSpec(
        has_cuda,
        "bf16",
        memory_bytes=round(gib * GIB),
        free_bytes=round(gib * GIB),
        device="a small machine",
    )


@pytest.fixture
def alone(monkeypatch):
    """This process holds nothing."""
    monkeypatch.setattr(trainer.estimate.memory_check, "own_memory_bytes", lambda: 0)


@pytest.mark.parametrize("has_cuda", [False, True])
@pytest.mark.parametrize("gib", [2.2, 2.5, 3.5])
def test_the_advice_followed_fits(gib, has_cuda, alone):
    recipe = load_recipe(
        "demo-cpu",
        parse_settings(["per_device_train_batch_size=16", "max_length=1024", "lora_r=64"]),
    )
    base = locate(EMBEDDED)
    machine = small(gib, has_cuda)
    with pytest.raises(NoMemoryError) as refused:
        require_memory(recipe, base, LONG, machine)
    assert (
        f"{gib:.1f} GiB are free" in refused.value.message
        and "--ignore-memory" in refused.value.advice
    )
    words = [word for word in refused.value.advice.split() if "=" in word]
    changed = parse_settings(words).model_dump(exclude_none=True)
    within = replace(
        LONG, train=[min(tokens, changed.get("max_length", 1024)) for tokens in LONG.train]
    )
    require_memory(recipe.model_copy(update=changed), base, within, machine)


def test_a_machine_that_is_too_small_for_anything_is_reported(alone):
    with pytest.raises(NoMemoryError) as refused:
        require_memory(load_recipe("demo-cpu"), locate(EMBEDDED), LONG, small(0.5))
    assert "No settings" in refused.value.advice


def test_what_this_process_holds_already_is_free_for_it(monkeypatch):
    monkeypatch.setattr(trainer.estimate.memory_check, "own_memory_bytes", lambda: GIB)
    assert (
        available_memory_bytes(small(2)) == 3 * GIB
        and available_memory_bytes(small(2, has_cuda=True)) == 2 * GIB
    )


class LoadedError(Exception):
    """A model was to be loaded."""


def test_a_run_is_refused_before_a_model_is_loaded_and_goes_on_when_there_is_room(
    tmp_path, tiny_base, monkeypatch
):
    folder = persona_job(tmp_path, tiny_base.source)
    received = []

    def load_served(*_):
        raise LoadedError

    monkeypatch.setattr(serving_model, "load_serving_model", load_served)
    monkeypatch.setattr(trainer.estimate.memory_check, "own_memory_bytes", lambda: 0)
    monkeypatch.setattr(trainer.estimate.memory_check, "probe_machine", lambda: small(0.25))
    with pytest.raises(NoMemoryError) as refused:
        run_job(folder, RunControl(received.append))
    assert failed_event(refused.value).retry and not (folder / "adapter").exists()
    assert "base model" not in [getattr(event, "name", "") for event in received]
    with pytest.raises(LoadedError):
        run_job(folder, RunControl(received.append, skips_memory_check=True))
    monkeypatch.setattr(trainer.estimate.memory_check, "probe_machine", lambda: small(4))
    with pytest.raises(LoadedError):
        run_job(folder, RunControl(received.append))


@pytest.mark.parametrize("words", [[], ["--ignore-memory"]])
def test_the_command_line_says_whether_it_is_ignored(tmp_path, words, monkeypatch):
    begun = []

    def run_job(_folder, run):
        begun.append(run.skips_memory_check)
        raise RunCancelled("the test")

    monkeypatch.setattr(trainer.cli.main, "run_job", run_job)
    options = trainer.cli.main.build_parser().parse_args(["run", str(tmp_path), *words])
    seam = SimpleNamespace(emit=lambda event: None, check=lambda: None)
    assert (
        trainer.cli.main._locked_run(options, seam, seam, seam, seam, seam)
        == trainer.cli.main.EXIT_STOPPED
    )
    assert begun == [bool(words)]


def test_a_plan_that_does_not_fit_says_what_would(tmp_path, tiny_base, command, monkeypatch):
    folder = persona_job(tmp_path / "job", tiny_base.source)
    monkeypatch.setattr(trainer.report.run_plan, "probe_machine_without_torch", lambda: small(0.25))
    assert "not fit: 0.2 GiB are free" in command("run", str(folder), "--dry-run")[1]
