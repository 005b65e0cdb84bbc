"""Trainers that hang, take too much, leave processes behind or flood their output, as real
processes.
"""

import asyncio
import os
import signal
import sys
import time
from dataclasses import replace

import psutil
import pytest

from bot.platform.clock import SystemClock
from bot.store import Store
from bot.training.backend_protocol import TrainingSucceeded
from bot.training.queue import JobQueue
from bot.training.run_limits import ETA_AFTER_S, MIN_WALL_S, RunLimits, RunWatch
from personas.errors import RunLimitError
from personas.home.job_attempt import TRAINER_FILE, TrainerProcess, find_trainer
from personas.home.teacher_setting import SMALLER_TEACHER_ADVICE
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import Estimate, Heartbeat, Phase, Progress
from tests import fake_trainer
from tests.bot.subprocess_trainer import ROOT, STANDIN, Workshop
from tests.fakes import until

GIB = 2**30
HOUR_S = 3600.0


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    for name, seconds in {
        "WATCH_INTERVAL_S": 0.1,
        "KILL_TIMEOUT_S": 0.3,
        "OUTPUT_TIMEOUT_S": 0.3,
    }.items():
        monkeypatch.setattr(f"bot.training.backends.trainer_process.{name}", seconds)
    workshop = Workshop(tmp_path)
    yield workshop
    workshop.store.close()
    assert not trainers(workshop), "a trainer is left"


def trainers(workshop):
    """Processes of stand-ins that still run in a home."""
    found = [
        it
        for it in psutil.process_iter(["cmdline", "status"])
        if str(STANDIN) in (it.info["cmdline"] or ())
    ]
    own = [
        it
        for it in found
        if any(word.startswith(str(workshop.home)) for word in it.info["cmdline"])
    ]
    return [it.pid for it in own if it.info["status"] != psutil.STATUS_ZOMBIE]


async def run(workshop, mode, limits=None, **more):
    """The result of a run under these limits, on the machine's clock."""
    options = {"limits": RunLimits(**limits)} if limits else {}
    return await asyncio.wait_for(workshop.run(mode, clock=SystemClock(), **options, **more), 10)


@pytest.mark.parametrize("mode", ["hanging", "stubborn"])  # before the first event, and in mid-run
async def test_a_trainer_that_hangs_is_killed_and_its_job_can_be_resumed(workshop, mode):
    failed = await run(workshop, mode, {"stall_s": 0.6})
    assert "it reported nothing for 1 s" in failed.error
    assert (
        "Resume the job" in failed.advice
        and "TRAINER_STALL_MINUTES" in failed.advice
        and failed.can_resume
    )


@pytest.mark.slow
async def test_heartbeats_keep_a_slow_trainer_and_are_no_progress(workshop):
    assert isinstance(await run(workshop, "beating", {"stall_s": 1.5}), TrainingSucceeded)
    assert [type(event) for event in workshop.events] == [Progress]


@pytest.mark.slow
async def test_a_stopped_process_is_killed_too(workshop):
    backend = workshop.backend("endless", clock=SystemClock(), limits=RunLimits(stall_s=0.5))
    task = asyncio.create_task(backend.run(workshop.job(), workshop.events.append))
    await until(lambda: workshop.events)
    os.kill(trainers(workshop)[0], signal.SIGSTOP)
    assert "reported nothing" in (await asyncio.wait_for(task, 5)).error


async def test_a_run_may_take_so_long_on_a_server_and_so_long_by_the_operator(workshop):
    failed = await run(workshop, "endless", {"guild_s": 0.5})
    assert (
        failed.can_resume
        and "longest time at a stretch" in failed.error
        and "TRAINER_MAX_HOURS" in failed.advice
    )
    operators = replace(workshop.job("j2"), guild_id=0)
    failed = await run(workshop, "endless", {"guild_s": 0.1, "operator_s": 0.6}, job=operators)
    assert "longest time at a stretch" in failed.error and len(workshop.events) > 10


async def test_memory_of_the_whole_group_and_the_disk_are_watched(workshop):
    failed = await run(workshop, "greedy", {"memory_bytes": 200 * 2**20})
    assert "limit is 0.2 GiB" in failed.error and failed.can_resume
    failed = await run(
        workshop, "endless", {"free_memory_bytes": 2**60}, job=workshop.store.jobs.get("j1")
    )
    assert "hardly any" in failed.error and "memory" in failed.error and failed.can_resume
    failed = await run(
        workshop, "endless", {"free_disk_bytes": 2**60}, job=workshop.store.jobs.get("j1")
    )
    assert (
        "of the disk are free" in failed.error
        and "Free disk space under" in failed.advice
        and failed.can_resume
    )


async def test_a_process_that_keeps_the_output_open_holds_nothing_up(workshop):
    assert isinstance(await run(workshop, "parent"), TrainingSucceeded)
    child = int((workshop.folder() / "grandchild").read_text())
    await until(
        lambda: (
            not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
        )
    )


@pytest.mark.slow
async def test_not_even_one_that_has_left_the_group(workshop):
    job = workshop.job()
    backend = workshop.backend("parent", clock=SystemClock())
    folder = await backend._prepare_folder(job, None)
    (folder / "own-session").touch()
    try:
        result = await asyncio.wait_for(backend.run(job, workshop.events.append), 5)
        assert isinstance(result, TrainingSucceeded)
    finally:
        os.kill(int((folder / "grandchild").read_text()), signal.SIGKILL)
    await until(lambda: not trainers(workshop))


async def test_a_flood_of_output_neither_stops_the_bot_nor_fills_its_log(workshop, caplog):
    backend = workshop.backend("flooding", clock=SystemClock(), limits=RunLimits(stall_s=1.0))
    task = asyncio.create_task(backend.run(workshop.job(), workshop.events.append))
    slowest = 0.0
    while not task.done():
        before = time.monotonic()
        await asyncio.sleep(0.01)
        slowest = max(slowest, time.monotonic() - before)
    assert "reported nothing" in task.result().error, "what is no event is no sign of life"
    assert slowest < 0.8 and len(caplog.records) < 30


async def test_a_clock_that_jumps_by_a_day_ends_nothing(workshop):
    class JumpingClock(SystemClock):
        days = 0

        def now(self):
            return time.time() + self.days * 86_400

    clock = JumpingClock()
    backend = workshop.backend("course", clock=clock, limits=RunLimits(stall_s=5, guild_s=5))
    queue = JobQueue(workshop.store, backend, clock)
    queue.start()
    try:
        request = TrainingRequest(job_name="j", persona="oda")
        job_id = queue.enqueue(request, guild_id=1, channel_id=2, requested_by=3).job_id
        for clock.days in (1, -1):
            await until(lambda: isinstance(workshop.store.jobs.get(job_id).progress, Progress))
        (workshop.folder(job_id) / "go-on").touch()
        await until(lambda: workshop.store.jobs.get(job_id).has_ended)
        assert workshop.store.jobs.get(job_id).state == "done"
    finally:
        await queue.stop()


@pytest.mark.slow
async def test_other_servers_are_served_after_a_run_at_its_limit(workshop):
    """One server's endless run ends at its limit, and the next server's is trained."""
    backend = workshop.backend("endless", clock=SystemClock(), limits=RunLimits(guild_s=1.5))
    queue = JobQueue(workshop.store, backend, SystemClock())
    queue.start()
    try:
        request = TrainingRequest(job_name="j", persona="oda")
        first = queue.enqueue(request, guild_id=1, channel_id=2, requested_by=3).job_id
        second = queue.enqueue(request, guild_id=9, channel_id=2, requested_by=3).job_id
        await until(lambda: workshop.store.jobs.get(second).progress)
        ended = workshop.store.jobs.get(first)
        assert (ended.state, ended.can_resume) == ("failed", True)
        queue.resume(first)
        assert queue.position(first) == 1
    finally:
        await queue.stop()


# ------------------------------------------------------------------------------------ after kill -9

BOT = """
import asyncio, sys
from pathlib import Path
from tests.bot.subprocess_trainer import Workshop

async def main():
    await Workshop(Path(sys.argv[1])).run("deaf")

asyncio.run(main())
"""


async def test_the_trainer_of_a_killed_bot_is_ended_and_the_next_attempt_trains(
    workshop, monkeypatch
):
    monkeypatch.setattr("bot.training.backends.subprocess_backend.MAX_LOCK_ATTEMPTS", 1)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    workshop.store.close()  # the home is the other bot's
    bot = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BOT, str(workshop.home.parent), env=environ
    )
    record = workshop.folder() / TRAINER_FILE
    await until(record.exists)
    bot.kill()
    await bot.wait()
    workshop.store = Store.open(workshop.home / "understudy.sqlite")
    orphan = find_trainer(workshop.folder())
    assert orphan and orphan.pid in trainers(workshop), "it neither reads its input nor stops"
    assert isinstance(
        await run(workshop, "deaf", job=workshop.store.jobs.get("j1")), TrainingSucceeded
    )
    assert orphan.pid not in trainers(workshop)


async def test_a_later_process_with_the_same_number_is_left_alone(workshop):
    job = workshop.job()
    folder = await workshop.backend("good")._prepare_folder(job, None)
    other = await asyncio.create_subprocess_exec("sleep", "60", process_group=0)
    try:
        for content in (
            TrainerProcess(pid=other.pid, started="boot 1").model_dump_json(),
            "damaged",
        ):
            (folder / TRAINER_FILE).write_text(content)
            assert isinstance(await run(workshop, "good", job=job), TrainingSucceeded)
            assert other.returncode is None
    finally:
        other.kill()
        await other.wait()


# ---------------------------------------------------------------------------------- the watch alone


class Watched:
    """A watch whose time passes as told."""

    def __init__(self, guild_id=1, **limits):
        self.now_s = 0.0
        self.watch = RunWatch(RunLimits(**limits), guild_id, lambda: self.now_s)

    def at(self, hours, *events):
        """Let so much time have passed, with an event now; returns the error."""
        self.now_s = hours * HOUR_S
        for event in (Heartbeat(), *events):
            self.watch.note(event)
        try:
            self.watch.require_time()
        except RunLimitError as error:
            return str(error)
        return ""


def progress(**fields):
    return Progress(
        **{
            name: value
            for name, value in (fake_trainer.PROGRESS | fields).items()
            if name != "event"
        }
    )


def test_the_time_follows_from_the_estimate_at_least_some_hours():
    long = Watched(guild_id=0)
    short = Watched(guild_id=0)
    assert not long.at(1000), "without an estimate, and without a setting"
    assert not long.at(
        1000, Estimate(seconds=51 * HOUR_S)
    ) and "ended after 1020 h 6 min" in long.at(1020.1)
    assert not short.at(MIN_WALL_S / HOUR_S - 0.1, Estimate(seconds=1)) and short.at(
        MIN_WALL_S / HOUR_S + 0.1
    )
    assert Watched().at(24.1, Estimate(seconds=100 * HOUR_S)), (
        "a server's never takes longer than the setting"
    )


def test_a_run_that_would_take_weeks_is_ended_early():
    week = progress(eta_s=7 * 24 * HOUR_S)
    watched = Watched()
    assert not watched.at(ETA_AFTER_S / HOUR_S / 2, week), "the first steps may be slow"
    refused = watched.at(ETA_AFTER_S / HOUR_S * 1.1, week)
    assert "168 h 0 min more" in refused and "may take 24 h 0 min" in refused
    assert not Watched(guild_id=0).at(1, week), "the operator's are not limited"
    assert not Watched().at(1, progress(eta_s=24 * HOUR_S)), "it may be resumed once"


def test_memory_is_limited_by_the_estimate(tmp_path):
    watch = Watched().watch
    watch.require_resources(tmp_path, 500 * GIB)
    watch.note(Estimate(seconds=1, memory_bytes=2 * GIB))
    watch.require_resources(tmp_path, 10 * GIB)
    with pytest.raises(RunLimitError, match=r"11\.0 GiB .*limit is 10\.0 GiB"):
        watch.require_resources(tmp_path, 11 * GIB)


def test_memory_that_a_teacher_takes_is_not_laid_to_the_settings_of_the_training(tmp_path):
    watch = Watched().watch
    watch.note(Estimate(seconds=1, memory_bytes=2 * GIB))
    watch.note(Phase(name="writing replies"))
    with pytest.raises(RunLimitError) as written:
        watch.require_resources(tmp_path, 11 * GIB)
    assert SMALLER_TEACHER_ADVICE in written.value.advice
    watch.note(Phase(name="base model"))
    with pytest.raises(RunLimitError) as trained:
        watch.require_resources(tmp_path, 11 * GIB)
    assert "per_device_train_batch_size" in trained.value.advice
