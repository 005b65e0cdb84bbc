"""The data set folder of a run: built once, loaded by whoever needs the samples, built anew when
anything changes.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bot.privacy.home_files import HomeFiles
from bot.privacy.identifier_matcher import IdentifierMatcher
from bot.privacy.identifiers import PersonIdentifiers
from personas.errors import MaterialError
from personas.home.data_subjects import CONSENT_FILE
from personas.home.job_folder import DATASET_FOLDER, read_spec
from personas.home.pseudonyms import JOB_KEYS_FILE, JobKeys
from personas.schemas.training_events import Phase, Progress
from tests.trainer.job_folders import export, mixing_job, persona_job, stopping, talks
from trainer.dataset import run_dataset
from trainer.process.run_control import RunCancelled
from trainer.run import run_job
from trainer.train.job import prepare_job, prepare_job_without_torch
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")

WEIGHTS = Path("adapter") / "adapter_model.safetensors"


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """Counts how often talk is read and rendered."""
    counted: list[int] = []
    read = run_dataset.read_job_talk

    def counting(*arguments):
        counted.append(1)
        return read(*arguments)

    monkeypatch.setattr(run_dataset, "read_job_talk", counting)
    return counted


def store(folder: Path):
    """The samples of a job, whose data set stays in its folder."""
    return prepare_job(folder, read_spec(folder), stores_dataset=True).data


def test_what_was_built_for_a_run_is_loaded_by_others(tmp_path, tiny_base, reads):
    folder = mixing_job(tmp_path, tiny_base.source, 9, 6, recipe="mixed-80-20")
    built = store(folder)
    assert len(reads) == 1
    for loaded in (prepare_job_without_torch(folder).data, store(folder)):
        own = {
            "held_out": built.held_out,
            "lore": built.lore,
        }  # arrays and an index, which do not compare
        assert replace(loaded, **own) == built and len(loaded.held_out) == len(built.held_out)
    assert len(reads) == 1


def test_whoever_only_looks_leaves_nothing_in_the_job_folder(tmp_path, tiny_base):
    folder = persona_job(tmp_path, tiny_base.source)
    before = sorted(folder.rglob("*"))
    prepare_job_without_torch(folder)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("change", ["keys", "consent", "settings", "damage"])
def test_it_is_built_anew_when_anything_changes_that_it_follows_from(
    tmp_path, tiny_base, reads, change
):
    folder = persona_job(tmp_path, tiny_base.source)
    before = store(folder)
    if change == "keys":
        (folder / JOB_KEYS_FILE).unlink()
        JobKeys(b"q" * 32, b"k" * 32).write(folder)
    elif change == "consent":
        (folder / CONSENT_FILE).write_text("{}")
    elif change == "settings":
        request = folder / "request.json"
        request.write_text(
            request.read_text().replace('"lora_r": 4', '"lora_r": 4, "max_length": 512')
        )
    else:
        (folder / DATASET_FOLDER / run_dataset.RUN_SET_FILE).write_text("{")
    again = store(folder)
    assert len(reads) == 2
    assert (again.hash == before.hash) == (change in ("consent", "damage", "settings"))


def test_damaged_samples_are_named(tmp_path, tiny_base):
    folder = persona_job(tmp_path, tiny_base.source)
    store(folder)
    (folder / DATASET_FOLDER / "train.jsonl").write_text("{\n")
    with pytest.raises(MaterialError, match=r"train\.jsonl cannot be read") as error:
        store(folder)
    assert "run the same job again" in error.value.advice


@pytest.mark.slow  # two and a half trainings; the next test resumes over a folder that is there
def test_a_job_that_was_interrupted_before_there_were_such_folders_resumes(tmp_path, tiny_base):
    jobs = [persona_job(tmp_path / name, tiny_base.source) for name in ("whole", "before")]
    received: list[object] = []
    run_job(jobs[0], RunControl(received.append))
    with pytest.raises(RunCancelled):
        run_job(jobs[1], stopping(3))
    shutil.rmtree(jobs[1] / DATASET_FOLDER)
    resumed: list[object] = []
    run_job(jobs[1], RunControl(resumed.append))
    assert min(event.step for event in resumed if isinstance(event, Progress)) >= 3
    assert (jobs[0] / WEIGHTS).read_bytes() == (jobs[1] / WEIGHTS).read_bytes()


def test_a_resumed_run_loads_what_the_first_one_built(tmp_path, tiny_base, reads):
    folder = persona_job(tmp_path, tiny_base.source)

    def stop(event):
        if isinstance(event, Phase) and event.name == "base model":
            raise RunCancelled("the test")

    for _ in range(2):
        with pytest.raises(RunCancelled):
            run_job(folder, RunControl(stop))
    assert len(reads) == 1


def test_a_kill_while_it_is_built_leaves_nothing_that_stays(tmp_path, tiny_base):
    folder = persona_job(tmp_path, tiny_base.source)
    (folder / f".{DATASET_FOLDER}.killed").mkdir()
    store(folder)
    assert not list(folder.glob(f".{DATASET_FOLDER}.*"))


def test_forgetting_finds_a_person_in_it(tmp_path):
    """A name that stands nowhere else in the job's folder, as where the material has gone."""
    folder = persona_job(
        tmp_path / "jobs" / "1",
        "embedded",
        export(talks(16, "Ask Wigbert Thorne, clock {} is his.")),
    )
    store(folder)
    shutil.rmtree(folder / "material")
    sample = next((folder / DATASET_FOLDER).glob("train.jsonl"))
    sample.write_text(sample.read_text().replace("clock", "Zaphira Quell's clock"))
    person = IdentifierMatcher(PersonIdentifiers(ids=("77",), names=("Zaphira Quell",)))
    files = HomeFiles(tmp_path, person, people=())
    assert files.contains_person(folder)
    assert files.erase(derived_only=True).deleted == ["jobs/1"] and not folder.exists()
