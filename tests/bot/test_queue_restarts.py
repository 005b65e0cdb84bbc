"""The queue when it is cut off, stopped, or meets rows, listeners and disks that fail."""

import asyncio

import pytest

from bot.platform.clock import RETRY_DELAY_S
from bot.store import StoreError
from bot.training.backend_protocol import TrainingInterrupted
from bot.training.queue import MAX_ATTEMPTS
from personas.schemas.training_events import Phase
from tests.fakes import until

PHASE = Phase(name="training")


async def test_after_a_crash_the_running_job_comes_first_and_the_rest_waits(home):
    home.queue.start()
    first = home.ask("oda")
    second = home.ask("thrip")
    old = await home.running()
    await home.crash_and_start()
    job = await home.running()
    assert (job.job_id, job.attempt, home.state(second)) == (first, 2, "queued")
    assert job.version == old.version and job.attempt_token != old.attempt_token
    await home.finish()
    assert home.state(first) == "done"


async def test_a_stale_attempt_changes_nothing(home):
    home.queue.start()
    job_id = home.ask()
    old = await home.running()
    await home.crash_and_start()
    current = await home.running()
    home.clock.advance(5)
    jobs = home.store.jobs
    assert jobs.report(job_id, old.attempt_token, PHASE) is None
    assert jobs.fail(old, "late", "", 9.0) is None
    assert jobs.release(job_id, old.attempt_token) is None
    assert jobs.claim(old, "another", 9.0) is None
    assert jobs.get(job_id) == current
    await home.finish()
    done = jobs.get(job_id)
    assert jobs.fail(current, "late", "", 9.0) is None and jobs.get(job_id) == done


async def test_three_attempts_and_no_more(home):
    home.queue.start()
    first = home.ask("oda")
    second = home.ask("thrip")
    await home.running()
    for _ in range(MAX_ATTEMPTS - 1):
        await home.crash_and_start()
        assert (await home.running()).job_id == first
    await home.crash_and_start()
    assert (await home.running()).job_id == second
    failed = home.store.jobs.get(first)
    assert failed.state == "failed" and "interrupted 3 times" in failed.error and failed.can_resume


async def test_a_trainer_stopped_from_outside_is_started_again(home):
    home.queue.start()
    job_id = home.ask()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        await until(lambda attempt=attempt: len(home.backend.runs) == attempt and home.backend.busy)
        home.backend.finish(TrainingInterrupted("The trainer was killed.", "Free memory."))
    await until(lambda: home.state(job_id) == "failed")
    failed = home.store.jobs.get(job_id)
    assert failed.error.startswith("The trainer was killed.") and "attempt 3" in failed.error
    assert failed.advice == "Free memory."
    home.queue.resume(job_id)
    assert (await home.running()).attempt == 1


async def test_a_clean_stop_costs_no_attempt(home):
    home.queue.start()
    job_id = home.ask()
    for _ in range(MAX_ATTEMPTS + 1):
        assert (await home.running()).job_id == job_id
        await home.queue.stop()
        assert not home.backend.busy and home.state(job_id) == "running"
        home.queue.start()
    assert (await home.running()).attempt == 1


async def test_stopping_what_rests_and_starting_twice(home):
    await home.queue.stop()
    home.queue.start()
    home.queue.start()
    job_id = home.ask()
    await home.running()
    assert len(home.backend.runs) == 1
    await home.finish()
    await home.queue.stop()
    await home.queue.stop()
    later = home.ask("thrip")
    assert (home.state(job_id), home.state(later)) == ("done", "queued")


async def test_an_idle_queue_wakes_for_a_new_job(home):
    home.queue.start()
    await asyncio.sleep(0.01)
    job_id = home.ask()
    assert (await home.running()).job_id == job_id


# ------------------------------------------------------------------------------------------ trouble


@pytest.mark.parametrize(
    "text", ["{", '{"job_name": "x", "surprise": 1}', "[]", '{"job_name": "x"}']
)
async def test_a_row_that_cannot_be_read_fails_alone(home, text):
    bad = home.ask("oda")
    good = home.ask("thrip")
    home.store._connection.write(
        "update jobs set request = :text where job_id = :job", text=text, job=bad
    )
    home.queue.start()
    assert (await home.running()).job_id == good
    failed = home.store.jobs.get(bad)
    assert failed.state == "failed" and "not valid" in failed.error and not failed.can_resume
    assert {job.job_id for job in home.store.jobs.of_guild(1)} == {bad, good}


async def test_a_listener_that_fails_harms_nobody(home):
    def broken(job):
        raise ValueError(job.job_id)

    home.queue.unsubscribe(home.changes.append)
    home.queue.subscribe(broken)
    home.queue.subscribe(home.changes.append)
    home.queue.start()
    job_id = home.ask()
    await home.running()
    await home.finish()
    assert home.state(job_id) == "done" and home.changes[-1].state == "done"


def full(*_):
    raise StoreError("The disk is full.")


async def test_progress_that_cannot_be_stored_costs_no_training(home, monkeypatch):
    home.queue.start()
    job_id = home.ask()
    await home.running()
    monkeypatch.setattr(home.store.jobs, "report", full)
    home.backend.on_event(PHASE)
    await home.finish()
    assert home.state(job_id) == "done"


async def test_a_database_that_cannot_be_written_is_tried_again(home, monkeypatch):
    claim = home.store.jobs.claim
    tries = []

    def full_at_first(*arguments):
        tries.append(arguments)
        if len(tries) == 1:
            raise StoreError("The disk is full.")
        return claim(*arguments)

    monkeypatch.setattr(home.store.jobs, "claim", full_at_first)
    home.queue.start()
    job_id = home.ask()
    await until(lambda: home.clock.sleepers)
    assert home.state(job_id) == "queued"
    home.clock.advance(RETRY_DELAY_S)
    assert (await home.running()).job_id == job_id


async def test_a_stop_that_cannot_be_noted_stops_all_the_same(home, monkeypatch):
    home.queue.start()
    job_id = home.ask()
    await home.running()
    monkeypatch.setattr(home.store.jobs, "release", full)
    await asyncio.wait_for(home.queue.stop(), 5)
    home.queue.start()
    assert (await home.running()).job_id == job_id


async def test_stopping_while_the_database_is_out_of_reach(home, monkeypatch):
    monkeypatch.setattr(home.queue, "_next", full)
    home.queue.start()
    await until(lambda: home.clock.sleepers)
    await home.queue.stop()
