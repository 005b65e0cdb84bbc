"""The queue over a real store: the way of a job, refusals, order and cancelling."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.training.queue import MAX_QUEUED_PER_GUILD, fair_order
from bot.training.subprocess_backend import TrainingFailed, TrainingSucceeded
from personas.errors import RequestError
from personas.schemas.training_events import Phase
from tests.bot.restartable_queue import House
from tests.fakes import until
from tests.samples import SCORECARD

PHASE = Phase(name="training")


@pytest.fixture
async def house(tmp_path):
    house = House(tmp_path)
    yield house
    await house.queue.stop()
    await house.kill()


async def test_a_job_goes_its_way(house):
    house.queue.start()
    job_id = house.ask()
    job = await house.running()
    assert (job.job_id, job.state, job.attempt) == (job_id, "running", 1)
    house.backend.on_event(PHASE)
    assert house.store.jobs.get(job_id).progress == PHASE
    await house.finish(TrainingSucceeded(Path("/models/x"), 61.0, SCORECARD))
    done = house.store.jobs.get(job_id)
    assert (done.state, done.attempt_token, done.error) == ("done", None, None)
    assert (done.result.adapter, done.result.seconds, done.result.scorecard) == ("/models/x", 61.0, SCORECARD)
    (version,) = house.store.versions.installed("oda")
    assert (version.version, version.job_id) == (job.version, job_id)
    assert [change.state for change in house.changes] == ["queued", "running", "running", "done"]
    assert house.store.versions.live("oda") is None  # trained is not promoted


async def test_a_dialogue_job_leaves_no_persona_version(house):
    house.queue.start()
    job_id = house.ask_dialogue("manners")
    await house.running()
    await house.finish()
    assert house.state(job_id) == "done" and house.store.jobs.get(job_id).version == "v1"
    assert house.store.versions.installed("manners") == []


async def test_one_trainer_at_a_time(house):
    house.queue.start()
    first, second = house.ask("oda"), house.ask("thrip")
    await house.running()
    assert (house.state(first), house.state(second)) == ("running", "queued")
    await house.finish()
    assert (await house.running()).job_id == second


async def test_a_failed_job_says_why_and_the_next_one_runs(house):
    house.queue.start()
    first, second = house.ask("oda"), house.ask("thrip")
    await house.running()
    await house.finish(TrainingFailed("The log is empty.", "Fill it."))
    failed = house.store.jobs.get(first)
    assert (failed.state, failed.error, failed.advice) == ("failed", "The log is empty.", "Fill it.")
    assert failed.finished_at is not None
    assert (await house.running()).job_id == second


@pytest.mark.parametrize("slip", [ZeroDivisionError("by zero"), RequestError("No such card.", "Write one.")])
async def test_an_error_out_of_a_backend_ends_one_job(house, slip):
    house.queue.start()
    first, second = house.ask("oda"), house.ask("thrip")
    await house.running()
    await house.finish(slip)
    assert house.state(first) == "failed"
    assert house.store.jobs.get(first).error in ("ZeroDivisionError: by zero", "No such card.")
    assert (await house.running()).job_id == second


# ------------------------------------------------------------------------------------------------ refusals


async def test_what_is_refused_stores_nothing(house):
    house.backend.refusal = RequestError("There is no persona 'odo'.", "Known: oda.")
    with pytest.raises(RequestError, match="odo"):
        house.ask("odo")
    assert house.store.jobs.of_guild(1) == [] and house.changes == []
    house.backend.refusal = None
    assert house.store.jobs.get(house.ask()).version == "v1"  # and uses no number


async def test_a_persona_is_trained_once_at_a_time_for_a_guild(house):
    first = house.ask("oda")
    with pytest.raises(RequestError, match=f"job {first} for oda is queued already"):
        house.ask("oda")
    house.ask("oda", guild=2)
    house.queue.start()
    await house.running()
    with pytest.raises(RequestError, match=f"job {first} for oda is running already"):
        house.ask("oda")
    await house.finish()
    house.ask("oda")


async def test_a_dialogue_adapters_name_is_taken_by_the_first(house):
    first = house.ask_dialogue("manners")
    with pytest.raises(RequestError, match=f"job {first} for dialogue/manners is queued already"):
        house.ask_dialogue("manners", guild=2)
    house.queue.cancel(first)
    assert house.store.jobs.get(house.ask_dialogue("manners", guild=2)).version == "v2"


async def test_a_guild_cannot_fill_the_queue(house):
    for number in range(MAX_QUEUED_PER_GUILD):
        house.ask_dialogue(f"d{number}")
    with pytest.raises(RequestError, match="20 jobs of this server are queued"):
        house.ask("oda")
    house.ask("oda", guild=2)


# ------------------------------------------------------------------------------------------------ order


async def test_guilds_take_turns(house):
    first = [house.ask_dialogue(f"d{number}", guild=1) for number in range(3)]
    second = [house.ask_dialogue(f"e{number}", guild=2) for number in range(2)]
    expected = [first[0], second[0], first[1], second[1], first[2]]
    assert [house.queue.position(job_id) for job_id in expected] == [1, 2, 3, 4, 5]
    house.queue.start()
    for job_id in expected:
        assert (await house.running()).job_id == job_id
        assert house.queue.position(job_id) is None
        await house.finish()


async def test_whoever_was_served_longest_ago_comes_first(house):
    house.queue.start()
    for guild in (1, 2, 3):
        house.ask(guild=guild)
        await house.running()
        if guild < 3:
            await house.finish()
    late = [house.ask("thrip", guild=guild) for guild in (3, 2, 1, 4)]
    assert [house.queue.position(job_id) for job_id in late] == [4, 3, 2, 1]


@given(st.lists(st.integers(0, 3), max_size=12), st.dictionaries(st.integers(0, 3), st.floats(1, 9)))
def test_the_order_is_that_of_serving_one_by_one(tmp_path_factory, guilds, served):
    waiting = [FakeJob(seq, guild) for seq, guild in enumerate(guilds)]
    order, left, now, at = [], list(waiting), 10.0, dict(served)
    while left:
        chosen = min(left, key=lambda job: (at.get(job.guild_id, 0.0), job.seq))
        left.remove(chosen)
        order.append(chosen)
        now += 1
        at[chosen.guild_id] = now
    assert fair_order(waiting, served) == order


class FakeJob:
    """As much of a job as its place depends on."""

    def __init__(self, seq, guild_id):
        self.seq, self.guild_id = seq, guild_id


# ------------------------------------------------------------------------------------------------ cancelling


async def test_cancelling_a_queued_job(house):
    first, second = house.ask("oda"), house.ask("thrip")
    assert house.queue.cancel(first).state == "cancelled"
    house.queue.start()
    assert (await house.running()).job_id == second


async def test_cancelling_a_running_job_stops_its_trainer(house):
    house.queue.start()
    first, second = house.ask("oda"), house.ask("thrip")
    await house.running()
    assert house.queue.cancel(first).state == "cancelled"
    await until(lambda: len(house.backend.runs) == 2)
    assert house.state(first) == "cancelled" and house.backend.runs[1].job_id == second


async def test_a_cancelled_job_stays_so_when_its_trainer_was_faster(house):
    house.queue.start()
    job_id = house.ask()
    await house.running()
    house.backend.finish()  # the outcome is there, the queue has not yet seen it
    house.queue.cancel(job_id)
    await until(lambda: not house.backend.busy)
    await asyncio.sleep(0.01)
    assert house.state(job_id) == "cancelled" and house.store.versions.installed("oda") == []


async def test_a_cancelled_job_stays_so_after_a_crash(house):
    house.queue.start()
    job_id = house.ask()
    await house.running()
    house.queue.cancel(job_id)
    await house.crash_and_start()
    await asyncio.sleep(0.01)
    assert house.state(job_id) == "cancelled" and house.backend.runs == []


async def test_what_has_ended_cannot_be_cancelled(house):
    house.queue.start()
    job_id = house.ask()
    await house.running()
    await house.finish()
    with pytest.raises(RequestError, match=f"{job_id} is done already"):
        house.queue.cancel(job_id)
    with pytest.raises(RequestError, match="does not exist"):
        house.queue.cancel("nothing")
    assert house.state(job_id) == "done"


# ------------------------------------------------------------------------------------------------ resuming

FULL = TrainingFailed("The disk is full.", "Free some space.", can_resume=True)


async def test_what_failed_for_a_reason_that_can_be_mended_is_resumed(house):
    house.queue.start()
    job_id = house.ask()
    first = await house.running()
    await house.finish(FULL)
    failed = house.store.jobs.get(job_id)
    assert (failed.state, failed.can_resume, failed.error) == ("failed", True, "The disk is full.")
    assert house.store.jobs.resumable() == [failed]
    resumed = house.queue.resume(job_id)
    assert (resumed.state, resumed.error, resumed.finished_at, resumed.can_resume) == ("queued", None, None, False)
    again = await house.running()
    assert (again.job_id, again.version, again.attempt) == (job_id, first.version, 1)
    assert again.attempt_token != first.attempt_token
    await house.finish()
    assert house.state(job_id) == "done" and house.store.jobs.resumable() == []
    assert [change.state for change in house.changes] == ["queued", "running", "failed", "queued", "running", "done"]


async def test_a_resumed_job_outlives_a_crash(house):
    house.queue.start()
    job_id = house.ask()
    await house.running()
    await house.finish(FULL)
    await house.crash_and_start()
    house.queue.resume(job_id)
    await house.crash_and_start()
    assert (await house.running()).job_id == job_id


async def test_what_cannot_be_resumed(house):
    house.queue.start()
    job_id = house.ask()
    with pytest.raises(RequestError, match="does not exist"):
        house.queue.resume("nothing")
    for outcome, state in ((None, "running"), (TrainingFailed("The log is empty.", "Fill it."), "failed")):
        await house.running()
        if outcome:
            await house.finish(outcome)
        with pytest.raises(RequestError, match=f"{job_id} is {state}"):
            house.queue.resume(job_id)
        assert house.state(job_id) == state


async def test_a_job_is_not_resumed_beside_another_for_the_same_or_where_it_cannot_be_run(house):
    house.queue.start()
    first = house.ask()
    await house.running()
    await house.finish(FULL)
    second = house.ask()
    await house.running()
    with pytest.raises(RequestError, match=f"job {second} for oda is running already"):
        house.queue.resume(first)
    await house.finish()
    house.backend.refusal = RequestError("There is no persona 'oda'.", "Known: thrip.")
    with pytest.raises(RequestError, match="no persona 'oda'"):
        house.queue.resume(first)
    assert house.state(first) == "failed" and house.store.jobs.get(first).can_resume
