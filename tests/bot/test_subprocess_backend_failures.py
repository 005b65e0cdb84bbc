"""The supervisor of the trainer: cancelling, crashes, locks, and its work for the queue."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from bot.platform.clock import SystemClock
from bot.training.backend_protocol import TrainingInterrupted, TrainingSucceeded
from bot.training.backends.subprocess_backend import LOCK_RETRY_DELAY_S, MAX_LOCK_ATTEMPTS
from bot.training.backends.trainer_process import KILL_TIMEOUT_S
from bot.training.queue import JobQueue
from personas.home.adapters import MANIFEST_FILE
from personas.schemas.training import TrainingRequest
from tests.bot.subprocess_trainer import ROOT, STANDIN, Workshop
from tests.fakes import until
from tests.samples import SCORECARD


@pytest.fixture
def workshop(tmp_path):
    workshop = Workshop(tmp_path)
    yield workshop
    workshop.store.close()


async def begun(workshop):
    """Return when the stand-in has reported its first step."""
    await until(lambda: workshop.events)


async def test_cancelling_asks_first(workshop):
    backend = workshop.backend("polite")
    job = workshop.job()
    run = asyncio.create_task(backend.run(job, workshop.events.append))
    await begun(workshop)
    backend.cancel(f"{job.job_id}-other")
    await asyncio.sleep(0.3)
    assert not run.done(), "another job's run was cancelled"
    backend.cancel(job.job_id)
    backend.cancel(job.job_id)
    assert await asyncio.wait_for(run, 5) == TrainingInterrupted()


async def test_detaching_ends_the_run(workshop):
    backend = workshop.backend("polite")
    run = asyncio.create_task(backend.run(workshop.job(), workshop.events.append))
    await begun(workshop)
    backend.detach()
    backend.detach()
    assert await asyncio.wait_for(run, 5) == TrainingInterrupted()


async def test_a_trainer_that_does_not_listen_is_killed(workshop):
    backend = workshop.backend("stubborn")
    run = asyncio.create_task(backend.run(workshop.job(), workshop.events.append))
    await begun(workshop)
    backend.detach()
    await until(lambda: workshop.clock.sleepers)
    workshop.clock.advance(KILL_TIMEOUT_S - 1)
    await asyncio.sleep(0.1)
    assert not run.done()
    workshop.clock.advance(1)
    assert await asyncio.wait_for(run, 5) == TrainingInterrupted()


async def test_stopped_from_outside_is_an_interruption(workshop):
    run = asyncio.create_task(workshop.run("polite"))
    await begun(workshop)
    (child,) = children()
    os.kill(child, signal.SIGTERM)
    assert await asyncio.wait_for(run, 5) == TrainingInterrupted()


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
    backend.detach()
    assert await run == TrainingInterrupted() and not workshop.events
    assert isinstance(
        await backend.run(workshop.store.jobs.get("j1"), workshop.events.append), TrainingSucceeded
    )


def children():
    """Process ids of the stand-ins that run now."""
    return [child.pid for child in psutil.Process().children() if str(STANDIN) in child.cmdline()]


async def test_a_folder_that_is_still_locked_is_tried_again(workshop):
    run = asyncio.create_task(workshop.run("locked_once"))
    await until(lambda: workshop.clock.sleepers)
    workshop.clock.advance(LOCK_RETRY_DELAY_S)
    assert isinstance(await run, TrainingSucceeded)


async def test_a_folder_that_stays_locked(workshop, monkeypatch):
    monkeypatch.setattr("bot.training.backends.subprocess_backend.MAX_LOCK_ATTEMPTS", 2)
    run = asyncio.create_task(workshop.run("locked"))
    for _ in range(2):
        await until(lambda: workshop.clock.sleepers)
        workshop.clock.advance(LOCK_RETRY_DELAY_S)
    outcome = await run
    assert "Another trainer works on" in outcome.error and outcome.can_resume
    assert MAX_LOCK_ATTEMPTS * LOCK_RETRY_DELAY_S >= 2 * KILL_TIMEOUT_S


SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from tests.bot.subprocess_trainer import Workshop

async def main():
    await Workshop(Path(sys.argv[1])).run("orphan")

asyncio.run(main())
"""


async def test_a_trainer_notices_that_its_bot_was_killed(tmp_path):
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISOR, str(tmp_path), env=environ
    )
    folder = tmp_path / "home" / "jobs" / "j1"
    try:
        await until(lambda: (folder / "pid").exists() and (folder / "pid").read_text())
        assert not (folder / "end-of-file").exists()
    finally:
        supervisor.kill()
        await supervisor.wait()
    await until((folder / "end-of-file").exists)


# ----------------------------------------------------------------------------------- with the queue


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
    assert (Path(job.result.adapter) / MANIFEST_FILE).exists()


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
