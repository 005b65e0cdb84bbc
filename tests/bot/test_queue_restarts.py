"""The queue when it is cut off, stopped, or meets rows, listeners and disks that fail."""

import asyncio

import pytest

from bot.store import StoreError
from bot.training.queue import MAX_ATTEMPTS, RETRY_DELAY_S
from bot.training.subprocess_backend import TrainingInterrupted
from personas.schemas.training_events import Phase
from tests.bot.restartable_queue import House
from tests.fakes import until

PHASE = Phase(name="training")


@pytest.fixture
async def house(tmp_path):
    house = House(tmp_path)
    yield house
    await house.queue.stop()
    await house.kill()


async def test_after_a_crash_the_running_job_comes_first_and_the_rest_waits(house):
    house.queue.start()
    first, second = house.ask("oda"), house.ask("thrip")
    old = await house.running()
    await house.crash_and_start()
    job = await house.running()
    assert (job.job_id, job.attempt, house.state(second)) == (first, 2, "queued")
    assert job.version == old.version and job.attempt_token != old.attempt_token
    await house.finish()
    assert house.state(first) == "done"


async def test_a_stale_attempt_changes_nothing(house):
    house.queue.start()
    job_id = house.ask()
    old = await house.running()
    await house.crash_and_start()
    current = await house.running()
    house.clock.advance(5)
    jobs = house.store.jobs
    assert jobs.report(job_id, old.attempt_token, PHASE) is None
    assert jobs.fail(old, "late", "", 9.0) is None
    assert jobs.release(job_id, old.attempt_token) is None
    assert jobs.claim(old, "another", 9.0) is None
    assert jobs.get(job_id) == current
    await house.finish()
    done = jobs.get(job_id)
    assert jobs.fail(current, "late", "", 9.0) is None and jobs.get(job_id) == done


async def test_three_attempts_and_no_more(house):
    house.queue.start()
    first, second = house.ask("oda"), house.ask("thrip")
    await house.running()
    for _ in range(MAX_ATTEMPTS - 1):
        await house.crash_and_start()
        assert (await house.running()).job_id == first
    await house.crash_and_start()
    assert (await house.running()).job_id == second
    failed = house.store.jobs.get(first)
    assert failed.state == "failed" and "interrupted 3 times" in failed.error and failed.can_resume


async def test_a_trainer_stopped_from_outside_is_started_again(house):
    house.queue.start()
    job_id = house.ask()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        await until(lambda attempt=attempt: len(house.backend.runs) == attempt and house.backend.busy)
        house.backend.finish(TrainingInterrupted("The trainer was killed.", "Free memory."))
    await until(lambda: house.state(job_id) == "failed")
    failed = house.store.jobs.get(job_id)
    assert (failed.error, failed.advice) == ("The trainer was killed. That was attempt 3.", "Free memory.")
    house.queue.resume(job_id)
    assert (await house.running()).attempt == 1


async def test_a_clean_stop_costs_no_attempt(house):
    house.queue.start()
    job_id = house.ask()
    for _ in range(MAX_ATTEMPTS + 1):
        assert (await house.running()).job_id == job_id
        await house.queue.stop()
        assert not house.backend.busy and house.state(job_id) == "running"
        house.queue.start()
    assert (await house.running()).attempt == 1


async def test_stopping_what_rests_and_starting_twice(house):
    await house.queue.stop()
    house.queue.start()
    house.queue.start()
    job_id = house.ask()
    await house.running()
    assert len(house.backend.runs) == 1
    await house.finish()
    await house.queue.stop()
    await house.queue.stop()
    later = house.ask("thrip")
    assert (house.state(job_id), house.state(later)) == ("done", "queued")


async def test_an_idle_queue_wakes_for_a_new_job(house):
    house.queue.start()
    await asyncio.sleep(0.01)
    job_id = house.ask()
    assert (await house.running()).job_id == job_id


# ------------------------------------------------------------------------------------------------ trouble


@pytest.mark.parametrize("text", ["{", '{"job_name": "x", "surprise": 1}', "[]", '{"job_name": "x"}'])
async def test_a_row_that_cannot_be_read_fails_alone(house, text):
    bad, good = house.ask("oda"), house.ask("thrip")
    house.store._connection.write("update jobs set request = :text where job_id = :job", text=text, job=bad)
    house.queue.start()
    assert (await house.running()).job_id == good
    failed = house.store.jobs.get(bad)
    assert failed.state == "failed" and "not valid" in failed.error and not failed.can_resume
    assert {job.job_id for job in house.store.jobs.of_guild(1)} == {bad, good}


async def test_a_listener_that_fails_harms_nobody(house):
    def broken(job):
        raise ValueError(job.job_id)

    house.queue.unsubscribe(house.changes.append)
    house.queue.subscribe(broken)
    house.queue.subscribe(house.changes.append)
    house.queue.start()
    job_id = house.ask()
    await house.running()
    await house.finish()
    assert house.state(job_id) == "done" and house.changes[-1].state == "done"


def full(*_):
    raise StoreError("The disk is full.")


async def test_progress_that_cannot_be_stored_costs_no_training(house, monkeypatch):
    house.queue.start()
    job_id = house.ask()
    await house.running()
    monkeypatch.setattr(house.store.jobs, "report", full)
    house.backend.on_event(PHASE)
    await house.finish()
    assert house.state(job_id) == "done"


async def test_a_database_that_cannot_be_written_is_tried_again(house, monkeypatch):
    claim, tries = house.store.jobs.claim, []

    def full_at_first(*arguments):
        tries.append(arguments)
        if len(tries) == 1:
            raise StoreError("The disk is full.")
        return claim(*arguments)

    monkeypatch.setattr(house.store.jobs, "claim", full_at_first)
    house.queue.start()
    job_id = house.ask()
    await until(lambda: house.clock.sleepers)
    assert house.state(job_id) == "queued"
    house.clock.advance(RETRY_DELAY_S)
    assert (await house.running()).job_id == job_id


async def test_a_stop_that_cannot_be_noted_stops_all_the_same(house, monkeypatch):
    house.queue.start()
    job_id = house.ask()
    await house.running()
    monkeypatch.setattr(house.store.jobs, "release", full)
    await asyncio.wait_for(house.queue.stop(), 5)
    house.queue.start()
    assert (await house.running()).job_id == job_id


async def test_stopping_while_the_database_is_out_of_reach(house, monkeypatch):
    monkeypatch.setattr(house.queue, "_next", full)
    house.queue.start()
    await until(lambda: house.clock.sleepers)
    await house.queue.stop()
