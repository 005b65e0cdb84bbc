"""The supervisor of the trainer, with a stand-in trainer that is a real process: runs that end well
or badly.
"""

import errno
import json
import logging
import os
from pathlib import Path

import pytest

from bot.training.backend_protocol import TrainingFailed, TrainingInterrupted, TrainingSucceeded
from personas.errors import MaterialError, RequestError
from personas.home.adapters import WEIGHTS_FILE, verify_adapter
from personas.home.holdout_index import HOLDOUT_FILE, HoldoutIndex, holdout_file
from personas.home.job_folder import MAX_LOG_BYTES, material_digest
from personas.home.pseudonyms import HomeKey
from personas.schemas.training import JobSpec, TrainingRequest
from personas.schemas.training_events import Progress
from tests.bot.subprocess_trainer import ROOT, Workshop
from tests.full_disk import files_of_at_most
from tests.samples import SCORECARD


@pytest.fixture
def workshop(tmp_path):
    workshop = Workshop(tmp_path)
    yield workshop
    workshop.store.close()


# --------------------------------------------------------------------------------------- a good run


async def test_a_trained_adapter_is_put_in_its_place(workshop):
    outcome = await workshop.run("good")
    place = workshop.home / "models" / "persona_adapters" / "oda" / "v1"
    assert outcome == TrainingSucceeded(place, 1.5, SCORECARD)
    assert verify_adapter(place).job_id == "j1"
    assert [type(event) for event in workshop.events] == [Progress]
    assert (
        await workshop.run("good", workshop.store.jobs.get("j1")) == outcome
    )  # and once more changes nothing


async def test_the_job_folder_is_self_contained(workshop):
    await workshop.run("failing")
    spec = JobSpec.model_validate_json((workshop.folder() / "request.json").read_bytes())
    assert (spec.job_id, spec.version, spec.serving_precision) == ("j1", "v1", "float32")
    assert spec.request == workshop.store.jobs.get("j1").request
    material = workshop.folder() / "material"
    assert {item.kind: item.sha256 for item in spec.materials} == {
        item.kind: material_digest(material / item.path) for item in spec.materials
    }
    assert sorted(
        file.relative_to(material).as_posix() for file in material.rglob("*") if file.is_file()
    ) == [
        "general/chat.jsonl",
        "logs/oda.json",
        "lore/_world/tides.md",
        "lore/oda/soup.md",
        "oda.toml",
    ]
    assert [path.name for path in workshop.folder().parent.iterdir()] == ["j1"]


def kept(workshop, persona="oda"):
    """How many texts the home holds out of a persona's training."""
    return len(
        HoldoutIndex.read(holdout_file(workshop.home, persona), HomeKey.of(workshop.home).people())
    )


@pytest.mark.slow
async def test_what_a_run_has_held_out_the_next_one_is_reported(workshop):
    assert isinstance(await workshop.run("holding_out"), TrainingSucceeded)
    assert kept(workshop) == 1 and not (workshop.folder() / HOLDOUT_FILE).exists()
    assert isinstance(
        await workshop.run("holding_out", workshop.store.jobs.get("j1")), TrainingSucceeded
    )
    await workshop.run("holding_out", workshop.job("j2"))
    assert kept(workshop) == 2 and (workshop.folder("j2") / HOLDOUT_FILE).exists()
    await workshop.run("failing", workshop.job("j3"))
    assert kept(workshop) == 2
    dialogue = workshop.job("j4", persona=None, task_type="dialogue", dataset="general-chat")
    await workshop.run("holding_out", dialogue)
    assert kept(workshop) == 2 and kept(workshop, None) == 1, (
        "a list for each persona, and one for dialogue"
    )


async def test_a_job_that_waited_is_reported_what_was_held_out_meanwhile(workshop):
    job = workshop.job()
    await workshop.run("failing", job)
    await workshop.run("holding_out", workshop.job("j2"))
    await workshop.run("failing", job)
    assert (
        len(HoldoutIndex.read(workshop.folder() / HOLDOUT_FILE, HomeKey.of(workshop.home).people()))
        == 1
    )


async def test_a_damaged_list_of_what_was_held_out_stops_the_job_before_it_trains(workshop):
    await workshop.run("holding_out")
    holdout_file(workshop.home, "oda").write_bytes(b"half")
    outcome = await workshop.run("good", workshop.job("j2"))
    assert "oda.bin is not an index" in outcome.error and "from a backup" in outcome.advice
    assert workshop.events == [workshop.events[0]], "nothing has run"


async def test_a_dialogue_adapter_lies_under_its_jobs_name(workshop):
    job = workshop.job(persona=None, task_type="dialogue", dataset="general-chat")
    outcome = await workshop.run("good", job)
    assert outcome.adapter == workshop.home / "models" / "dialogue" / "manners"
    assert verify_adapter(outcome.adapter).persona is None
    with pytest.raises(RequestError, match="adapter named manners already"):
        workshop.backend("good").check(job.request)
    assert await workshop.run("good", job) == outcome  # but the same job may be run again


async def test_what_is_no_event_is_logged_and_passed_over(workshop, caplog):
    with caplog.at_level(logging.WARNING):
        assert isinstance(await workshop.run("chatty"), TrainingSucceeded)
    text = caplog.text
    assert "Downloading: 100%" in text and "unheard-of" in text and "more than 65536 bytes" in text
    assert max(len(record.getMessage()) for record in caplog.records) < 300


async def test_options_and_environment_of_the_trainer(workshop):
    environ = {
        **os.environ,
        "DISCORD_TOKEN": "x",
        "WANDB_API_KEY": "x",
        "DB_PASSWORD": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "HF_TOKEN": "for gated models",
        "TOKENIZERS_PARALLELISM": "false",
    }
    result = json.loads((await workshop.run("telling", environ=environ)).error)
    options = ["--threads", "2", "--nice", "5", "--card", "full", "--stop-on-eof"]
    assert result["options"] == [*options, "--defer-card"]
    assert not {"DISCORD_TOKEN", "WANDB_API_KEY", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY"} & set(
        result["environ"]
    )
    assert {"HF_TOKEN", "TOKENIZERS_PARALLELISM", "PATH"} <= set(result["environ"])
    assert result["environ"]["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)
    assert result["cwd"] == str(Path.cwd())
    assert result["group"] != os.getpgrp(), "Ctrl-C in the terminal does not reach it"
    assert result["session"] == os.getsid(0), "its niceness counts against the bot"
    backend = workshop.backend("telling", environ=environ, secrets={"WANDB_API_KEY": "y"})
    result = json.loads(
        (await backend.run(workshop.store.jobs.get("j1"), workshop.events.append)).error
    )
    assert result["environ"]["WANDB_API_KEY"] == "y" and "DB_PASSWORD" not in result["environ"]


def test_a_request_is_checked_without_leaving_anything(workshop):
    (workshop.shipped.logs / "rights.toml").write_text("[broken")
    with pytest.raises(MaterialError):
        workshop.backend("good").check(TrainingRequest(job_name="j", persona="oda"))
    assert not (workshop.home / "jobs").exists()


# ----------------------------------------------------------------------------------------- bad runs


@pytest.mark.parametrize(
    ("mode", "error", "advice"),
    [
        ("failing", "The log is empty.", "Fill it."),
        (
            "dying",
            "exit code 1). Its last lines: Traceback: | a line | RuntimeError: the roof fell in",
            "trainer.log",
        ),
        ("silent", "exit code 7). It logged nothing.", "trainer.log"),
        ("foreign", "not of this job", "Train it again"),
    ],
)
async def test_a_run_that_fails_says_why(workshop, mode, error, advice):
    outcome = await workshop.run(mode)
    assert isinstance(outcome, TrainingFailed)
    assert error in outcome.error and advice in outcome.advice and not outcome.can_resume
    assert not (workshop.home / "models").exists()


async def test_a_trainer_killed_from_outside_can_be_tried_again_and_says_what_it_may_be(workshop):
    outcome = await workshop.run("killed")
    assert isinstance(outcome, TrainingInterrupted)
    assert "memory ran out" in outcome.why and "Free memory" in outcome.advice


async def test_last_lines_are_of_this_attempt_only(workshop):
    job = workshop.job()
    assert "roof" in (await workshop.run("dying", job)).error
    assert "roof" not in (await workshop.run("silent", job)).error
    assert "roof" in (workshop.folder() / "trainer.log").read_text()


async def test_a_log_stays_short_and_ends_with_the_reason(workshop):
    outcome = await workshop.run("wordy")
    log = workshop.folder() / "trainer.log"
    assert "the roof fell in" in outcome.error and log.stat().st_size < MAX_LOG_BYTES + 3 * 2**20
    assert log.read_text().rstrip().endswith("the roof fell in")


async def test_a_damaged_adapter_is_not_installed(workshop):
    job = workshop.job()
    await workshop.run("good", job)
    (workshop.folder() / "adapter" / WEIGHTS_FILE).write_bytes(b"rotten")
    outcome = await workshop.run("good", job)
    assert "is damaged" in outcome.error


async def test_material_that_is_gone_meanwhile_and_comes_back(workshop):
    job = workshop.job()
    log = workshop.shipped.logs / "oda.json"
    log.rename(log.with_suffix(".away"))
    outcome = await workshop.run("good", job)
    assert outcome.error == "There is no data set 'oda'." and outcome.can_resume
    log.with_suffix(".away").rename(log)
    assert isinstance(await workshop.run("good", job), TrainingSucceeded)


async def test_a_home_that_cannot_be_written_and_is_mended(workshop):
    job = workshop.job()
    jobs = workshop.home / "jobs"
    jobs.write_text("a file where a folder belongs")
    outcome = await workshop.run("good", job)
    assert (
        "cannot be written" in outcome.error
        and str(workshop.home) in outcome.advice
        and outcome.can_resume
    )
    jobs.unlink()
    assert isinstance(await workshop.run("good", job), TrainingSucceeded)


async def test_the_trainer_says_itself_whether_it_could_go_on(workshop):
    outcome = await workshop.run("full")
    assert (outcome.error, outcome.advice, outcome.can_resume) == (
        "The disk is full.",
        "Free some space.",
        True,
    )


async def test_a_trainer_that_cannot_be_started(workshop):
    backend = workshop.backend("good")
    backend._command = ("/nowhere/python",)
    assert "No such file" in (await backend.run(workshop.job(), workshop.events.append)).error


async def test_a_full_disk_leaves_nothing_half_and_can_be_mended(workshop):
    job = workshop.job()
    (workshop.shipped.logs / "oda.json").write_bytes(b" " * 3_000_000)
    with files_of_at_most(2_000_000):
        outcome = await workshop.run("good", job)
    assert outcome.error.endswith(f"cannot be written: {os.strerror(errno.EFBIG)}.")
    assert outcome.advice.startswith("Free disk space") and outcome.can_resume
    assert list((workshop.home / "jobs").iterdir()) == []
    assert isinstance(await workshop.run("good", job), TrainingSucceeded)


async def test_what_a_killed_bot_left_half_copied_is_removed(workshop):
    half = workshop.home / "jobs" / ".j1.abc"
    half.mkdir(parents=True)
    (half / "request.json").write_text("{")
    await workshop.run("failing")
    assert not half.exists()


async def test_an_earlier_attempts_folder_is_used_again(workshop):
    job = workshop.job()
    await workshop.run("failing", job)
    (workshop.folder() / "checkpoint").touch()
    (workshop.shipped.logs / "oda.json").write_text("changed since")
    assert isinstance(await workshop.run("good", job), TrainingSucceeded)
    assert (workshop.folder() / "checkpoint").exists()
    assert (workshop.folder() / "material" / "logs" / "oda.json").read_text() != "changed since"
