"""The supervisor of the trainer, with a stand-in trainer that is a real process."""

import asyncio
import errno
import json
import logging
import os
import resource
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from bot.catalogue import Catalogue, ShippedData
from bot.clock import SystemClock
from bot.queue import JobQueue
from bot.store import Store
from bot.store.jobs import NewJob
from bot.training import KILL_AFTER_S, LOCK_TRIES, LOCK_WAIT_S, Interrupted, SubprocessBackend, Trained, TrainingFailed
from personas.adapters import MANIFEST, WEIGHTS, verify
from personas.contracts import JobSpec, Progress, TrainingRequest
from personas.errors import MaterialError, RequestError
from personas.material import material_digest
from tests.fakes import SCORECARD, FakeClock, until

ROOT = Path(__file__).parent.parent.parent
STANDIN = ROOT / "tests" / "standin_trainer.py"
RIGHTS = '["{}"]\nright = "own-writing"\nstated_by = "me"\nstated_on = 2026-11-20\nwhy = "mine"\n'


def ship(root):
    """A source tree with one persona."""
    shipped = ShippedData.of(root, cards=root / "cards")
    for folder in (*vars(shipped).values(), shipped.lore / "oda", shipped.lore / "_world"):
        folder.mkdir(parents=True, exist_ok=True)
    (shipped.cards / "oda.toml").write_text('id = "oda"\nname = "Oda"\n')
    (shipped.logs / "oda.json").write_text("{}" * 1000)
    (shipped.logs / "rights.toml").write_text(RIGHTS.format("oda.json"))
    (shipped.general / "chat.jsonl").write_text("{}")
    (shipped.general / "rights.toml").write_text(RIGHTS.format("chat.jsonl"))
    (shipped.lore / "oda" / "soup.md").write_text("# Soup\nNever ask.")
    (shipped.lore / "_world" / "tides.md").write_text("# Tides\nTwice a day.")
    (shipped.recipes / "demo-cpu.toml").touch()
    return shipped


class Workshop:
    """A home, a store and what ships, for backends of every mode."""

    def __init__(self, folder):
        self.home = folder / "home"
        self.shipped = ship(folder / "source")
        self.store = Store.open(self.home / "understudy.sqlite")
        self.clock = FakeClock()
        self.events = []

    def backend(self, mode, environ=os.environ, clock=None):
        return SubprocessBackend(
            self.home,
            Catalogue(self.shipped, "embedded"),
            clock or self.clock,
            threads=2,
            nice=5,
            serving_precision="float32",
            environ=environ,
            command=(sys.executable, str(STANDIN), mode),
        )

    def job(self, job_id="j1", **fields):
        request = TrainingRequest(**{"job_name": "manners", "persona": "oda", **fields})
        return self.store.jobs.add(NewJob(job_id, 1, 2, 3, request), 1.0)

    def folder(self, job_id="j1"):
        return self.home / "jobs" / job_id

    async def run(self, mode, job=None, **more):
        return await self.backend(mode, **more).run(job or self.job(), self.events.append)


@pytest.fixture
def workshop(tmp_path):
    workshop = Workshop(tmp_path)
    yield workshop
    workshop.store.close()


async def begun(workshop):
    """Return when the stand-in has reported its first step."""
    await until(lambda: workshop.events)


# ------------------------------------------------------------------------------------------------ a good run


async def test_a_trained_adapter_is_put_in_its_place(workshop):
    outcome = await workshop.run("good")
    place = workshop.home / "models" / "persona_adapters" / "oda" / "v1"
    assert outcome == Trained(place, 1.5, SCORECARD)
    assert verify(place).job_id == "j1"
    assert [type(event) for event in workshop.events] == [Progress]
    assert await workshop.run("good", workshop.store.jobs.get("j1")) == outcome  # and once more changes nothing


async def test_the_job_folder_is_self_contained(workshop):
    await workshop.run("failing")
    spec = JobSpec.model_validate_json((workshop.folder() / "request.json").read_bytes())
    assert (spec.job_id, spec.version, spec.serving_precision) == ("j1", "v1", "float32")
    assert spec.request == workshop.store.jobs.get("j1").request
    material = workshop.folder() / "material"
    assert {item.kind: item.sha256 for item in spec.materials} == {
        item.kind: material_digest(material / item.path) for item in spec.materials
    }
    assert sorted(file.relative_to(material).as_posix() for file in material.rglob("*") if file.is_file()) == [
        "general/chat.jsonl",
        "logs/oda.json",
        "lore/_world/tides.md",
        "lore/oda/soup.md",
        "oda.toml",
    ]
    assert [path.name for path in workshop.folder().parent.iterdir()] == ["j1"]


async def test_a_dialogue_adapter_lies_under_its_jobs_name(workshop):
    job = workshop.job(persona=None, task_type="dialogue", dataset="general-chat")
    outcome = await workshop.run("good", job)
    assert outcome.adapter == workshop.home / "models" / "dialogue" / "manners"
    assert verify(outcome.adapter).persona is None
    with pytest.raises(RequestError, match="adapter named manners already"):
        workshop.backend("good").check(job.request)
    assert await workshop.run("good", job) == outcome  # but the same job may be run again


async def test_what_is_no_event_is_logged_and_passed_over(workshop, caplog):
    with caplog.at_level(logging.WARNING):
        assert isinstance(await workshop.run("chatty"), Trained)
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
    told = json.loads((await workshop.run("telling", environ=environ)).error)
    assert told["options"] == ["--threads", "2", "--nice", "5", "--stop-on-eof"]
    assert not {"DISCORD_TOKEN", "WANDB_API_KEY", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY"} & set(told["environ"])
    assert {"HF_TOKEN", "TOKENIZERS_PARALLELISM", "PATH"} <= set(told["environ"])
    assert told["environ"]["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)
    assert told["cwd"] == str(Path.cwd())


def test_a_request_is_checked_without_leaving_anything(workshop):
    (workshop.shipped.logs / "rights.toml").write_text("[broken")
    with pytest.raises(MaterialError):
        workshop.backend("good").check(TrainingRequest(job_name="j", persona="oda"))
    assert not (workshop.home / "jobs").exists()


# ------------------------------------------------------------------------------------------------ bad runs


@pytest.mark.parametrize(
    ("mode", "error", "advice"),
    [
        ("failing", "The log is empty.", "Fill it."),
        ("dying", "exit code 1). Its last lines: Traceback: | a line | RuntimeError: the roof fell in", "trainer.log"),
        ("silent", "exit code 7). It logged nothing.", "trainer.log"),
        ("killed", "probably because memory ran out", "smaller per_device_train_batch_size"),
        ("foreign", "not of this job", "Train it again"),
    ],
)
async def test_a_run_that_fails_says_why(workshop, mode, error, advice):
    outcome = await workshop.run(mode)
    assert isinstance(outcome, TrainingFailed)
    assert error in outcome.error and advice in outcome.advice
    assert not (workshop.home / "models").exists()


async def test_last_lines_are_of_this_attempt_only(workshop):
    job = workshop.job()
    assert "roof" in (await workshop.run("dying", job)).error
    assert "roof" not in (await workshop.run("silent", job)).error
    assert "roof" in (workshop.folder() / "trainer.log").read_text()


async def test_a_damaged_adapter_is_not_installed(workshop):
    job = workshop.job()
    await workshop.run("good", job)
    (workshop.folder() / "adapter" / WEIGHTS).write_bytes(b"rotten")
    outcome = await workshop.run("good", job)
    assert "is damaged" in outcome.error


async def test_material_that_is_gone_meanwhile(workshop):
    job = workshop.job()
    (workshop.shipped.logs / "oda.json").unlink()
    assert (await workshop.run("good", job)).error == "There is no data set 'oda'."


async def test_a_trainer_that_cannot_be_started(workshop):
    backend = workshop.backend("good")
    backend._command = ("/nowhere/python",)
    assert "No such file" in (await backend.run(workshop.job(), workshop.events.append)).error


@contextmanager
def largest_file(size_bytes):
    """Writing on beyond so many bytes fails in this process, much as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_leaves_nothing_half_and_can_be_mended(workshop):
    job = workshop.job()
    (workshop.shipped.logs / "oda.json").write_bytes(b" " * 3_000_000)
    with largest_file(2_000_000):
        outcome = await workshop.run("good", job)
    assert outcome.error == f"The job's files cannot be written: {os.strerror(errno.EFBIG)}."
    assert outcome.advice.startswith("Free disk space")
    assert list((workshop.home / "jobs").iterdir()) == []
    assert isinstance(await workshop.run("good", job), Trained)


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
    assert isinstance(await workshop.run("good", job), Trained)
    assert (workshop.folder() / "checkpoint").exists()
    assert (workshop.folder() / "material" / "logs" / "oda.json").read_text() != "changed since"


# ------------------------------------------------------------------------------------------------ stopping


async def test_cancelling_asks_first(workshop):
    backend = workshop.backend("polite")
    run = asyncio.create_task(backend.run(workshop.job(), workshop.events.append))
    await begun(workshop)
    backend.cancel()
    backend.cancel()
    assert await asyncio.wait_for(run, 5) == Interrupted()


async def test_a_trainer_that_does_not_listen_is_killed(workshop):
    backend = workshop.backend("stubborn")
    run = asyncio.create_task(backend.run(workshop.job(), workshop.events.append))
    await begun(workshop)
    backend.cancel()
    await until(lambda: workshop.clock.sleepers)
    workshop.clock.advance(KILL_AFTER_S - 1)
    await asyncio.sleep(0.1)
    assert not run.done()
    workshop.clock.advance(1)
    assert await asyncio.wait_for(run, 5) == Interrupted()


async def test_stopped_from_outside_is_an_interruption(workshop):
    run = asyncio.create_task(workshop.run("polite"))
    await begun(workshop)
    (child,) = children()
    os.kill(child, signal.SIGTERM)
    assert await asyncio.wait_for(run, 5) == Interrupted()


async def test_a_run_that_is_torn_down_takes_its_trainer_with_it(workshop):
    run = asyncio.create_task(workshop.run("stubborn"))
    await begun(workshop)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert children() == []


async def test_cancelled_before_there_is_a_process(workshop):
    backend = workshop.backend("good")
    run = asyncio.create_task(backend.run(workshop.job(), workshop.events.append))
    await asyncio.sleep(0)
    backend.cancel()
    assert await run == Interrupted() and not workshop.events
    assert isinstance(await backend.run(workshop.store.jobs.get("j1"), workshop.events.append), Trained)


def children():
    """Process ids of the stand-ins that run now."""
    return [child.pid for child in psutil.Process().children() if str(STANDIN) in child.cmdline()]


async def test_a_folder_that_is_still_locked_is_tried_again(workshop):
    run = asyncio.create_task(workshop.run("locked_once"))
    await until(lambda: workshop.clock.sleepers)
    workshop.clock.advance(LOCK_WAIT_S)
    assert isinstance(await run, Trained)


async def test_a_folder_that_stays_locked(workshop, monkeypatch):
    monkeypatch.setattr("bot.training.LOCK_TRIES", 2)
    run = asyncio.create_task(workshop.run("locked"))
    for _ in range(2):
        await until(lambda: workshop.clock.sleepers)
        workshop.clock.advance(LOCK_WAIT_S)
    assert "Another trainer works on" in (await run).error
    assert LOCK_TRIES * LOCK_WAIT_S >= 2 * KILL_AFTER_S


SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from tests.bot.test_training import Workshop

async def main():
    await Workshop(Path(sys.argv[1])).run("orphan")

asyncio.run(main())
"""


async def test_a_trainer_notices_that_its_bot_was_killed(tmp_path):
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    supervisor = await asyncio.create_subprocess_exec(sys.executable, "-c", SUPERVISOR, str(tmp_path), env=environ)
    folder = tmp_path / "home" / "jobs" / "j1"
    try:
        await until(lambda: (folder / "pid").exists() and (folder / "pid").read_text())
        assert not (folder / "end-of-file").exists()
    finally:
        supervisor.kill()
        await supervisor.wait()
    await until((folder / "end-of-file").exists)


# ------------------------------------------------------------------------------------------------ with the queue


async def test_from_the_request_to_an_installed_version(workshop):
    queue = JobQueue(workshop.store, workshop.backend("good"), SystemClock())
    queue.start()
    request = TrainingRequest(job_name="j", persona="oda")
    job_id = queue.enqueue(request, guild_id=1, channel_id=2, requested_by=3).job_id
    await until(lambda: workshop.store.jobs.get(job_id).state not in ("queued", "running"))
    await queue.stop()
    job = workshop.store.jobs.get(job_id)
    assert job.state == "done", job.error
    (version,) = workshop.store.versions.installed("oda")
    assert (version.version, version.scorecard) == ("v1", SCORECARD)
    assert (Path(job.result.adapter) / MANIFEST).exists()


async def test_a_crash_between_installing_and_recording_is_made_good(workshop):
    job = workshop.job()
    workshop.store.jobs.claim(job, "token of the bot that died", 2.0)
    await workshop.run("good", job)  # installed, and then the bot died
    assert workshop.store.versions.installed("oda") == []
    queue = JobQueue(workshop.store, workshop.backend("good"), SystemClock())
    queue.start()
    await until(lambda: workshop.store.jobs.get("j1").state == "done")
    await queue.stop()
    assert [version.version for version in workshop.store.versions.installed("oda")] == ["v1"]


async def test_a_clean_stop_ends_the_trainer_and_keeps_the_job(workshop):
    queue = JobQueue(workshop.store, workshop.backend("polite"), SystemClock())
    queue.start()
    request = TrainingRequest(job_name="j", persona="oda")
    job_id = queue.enqueue(request, guild_id=1, channel_id=2, requested_by=3).job_id
    await until(lambda: workshop.store.jobs.get(job_id).progress)
    await asyncio.wait_for(queue.stop(), 5)
    assert children() == []
    kept = workshop.store.jobs.get(job_id)
    assert (kept.state, kept.attempt, kept.attempt_token) == ("running", 0, None)
