"""The queue over a real store: the way of a job, refusals, order and cancelling."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.training.backend_protocol import TrainingFailed, TrainingSucceeded
from bot.training.guild_turns import fair_order
from bot.training.queue import MAX_QUEUED_PER_GUILD, MIN_LATE_S
from personas.errors import RequestError
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import Heartbeat, Phase, Progress
from tests.fakes import until
from tests.samples import SCORECARD

PHASE = Phase(name="training")
STEP = Progress(
    step=12, of=12, epoch=3.0, loss=1.0, lr=1e-4, tokens_per_s=1.0, eta_s=0.0, memory_bytes=1,
    trouble="No checkpoint was stored: the disk is full.",
)  # fmt: skip


async def test_a_job_goes_its_way(home):
    home.queue.start()
    job_id = home.ask()
    job = await home.running()
    assert (job.job_id, job.state, job.attempt) == (job_id, "running", 1)
    home.backend.on_event(PHASE)
    assert home.store.jobs.get(job_id).progress == PHASE
    await home.finish(TrainingSucceeded(Path("/models/x"), 61.0, SCORECARD))
    done = home.store.jobs.get(job_id)
    assert (done.state, done.attempt_token, done.error) == ("done", None, None)
    assert (done.result.adapter, done.result.seconds, done.result.scorecard) == (
        "/models/x",
        61.0,
        SCORECARD,
    )
    (version,) = home.store.versions.installed("oda")
    assert (version.version, version.job_id) == (job.version, job_id)
    assert [change.state for change in home.changes] == ["queued", "running", "running", "done"]
    assert home.store.versions.live("oda", 0) is None  # trained is not promoted


async def test_a_run_is_late_once_it_is_silent_for_longer_than_it_said_it_takes(home):
    home.queue.start()
    job_id = home.ask()
    await home.running()
    assert not home.queue.is_late(job_id) and not home.queue.is_late("another")
    for left, least_s in (
        ({"left_s": 3.0}, MIN_LATE_S),
        ({"left_s": 90.0, "most_left_s": 150.0}, 150),
    ):
        home.backend.on_event(PHASE.model_copy(update=left))
        home.clock.advance(least_s)
        assert not home.queue.is_late(job_id)
        home.backend.on_event(Heartbeat())
        home.clock.advance(1)
        assert home.queue.is_late(job_id), "nothing was said of the time since"
    home.backend.on_event(PHASE)
    home.clock.advance(1e6)
    assert not home.queue.is_late(job_id), "it said nothing of a time"


async def test_a_dialogue_job_leaves_no_persona_version(home):
    home.queue.start()
    job_id = home.ask_dialogue("manners")
    await home.running()
    await home.finish()
    assert home.state(job_id) == "done" and home.store.jobs.get(job_id).version == "v1"
    assert home.store.versions.installed("manners") == []


async def test_as_many_runs_at_once_as_the_backend_has_slots(home):
    home.backend.slots = 2
    home.queue.start()
    oda = home.ask("oda")
    thrip = home.ask("thrip")
    ballast = home.ask("ballast")
    await until(lambda: len(home.backend.runs) == 2)
    assert [home.state(it) for it in (oda, thrip, ballast)] == ["running", "running", "queued"]
    home.queue.cancel(oda)
    await until(lambda: len(home.backend.runs) == 3)
    assert [home.state(it) for it in (oda, thrip, ballast)] == ["cancelled", "running", "running"]
    await home.queue.interrupt(thrip)
    await until(lambda: len(home.backend.runs) == 4)
    again = home.store.jobs.get(thrip)
    assert (again.state, again.attempt, home.backend.runs[-1].job_id) == ("running", 1, thrip), (
        "it did not count"
    )
    await home.queue.stop()
    assert not home.backend.busy and [
        home.store.jobs.get(it).attempt for it in (thrip, ballast)
    ] == [0, 0]


async def test_previews_run_one_at_a_time_and_a_server_waits_for_one(home, monkeypatch):
    request = TrainingRequest(job_name="preview", persona="oda")
    begun = []
    go_on = asyncio.Event()

    async def plan(wanted, guild_id=0):
        begun.append(guild_id)
        await go_on.wait()
        raise RequestError("It cannot be planned.")

    monkeypatch.setattr(home.backend, "plan", plan)
    waiting = [
        asyncio.create_task(home.queue.plan(request, guild_id)) for guild_id in (7, 7, 7, 8, 0, 0)
    ]
    await asyncio.sleep(0.05)
    assert begun == [7]
    refused = [str(task.exception()) for task in waiting if task.done()]
    assert len(refused) == 2 and all("Another preview" in words for words in refused)
    go_on.set()
    await asyncio.wait(waiting)
    assert begun == [7, 8, 0, 0]
    with pytest.raises(RequestError, match="cannot be planned"):
        await home.queue.plan(request, 7)


async def test_a_job_cancelled_before_its_run_has_begun_never_runs(home):
    def cancel_at_once(job):
        if (job.persona, job.state) == ("oda", "running"):
            asyncio.get_running_loop().call_soon(home.queue.cancel, job.job_id)

    home.queue.subscribe(cancel_at_once)
    home.queue.start()
    first = home.ask("oda")
    second = home.ask("thrip")
    await until(lambda: home.backend.runs)
    assert (home.state(first), home.state(second)) == ("cancelled", "running")
    assert [job.job_id for job in home.backend.runs] == [second]


async def test_one_trainer_at_a_time(home):
    home.queue.start()
    first = home.ask("oda")
    second = home.ask("thrip")
    await home.running()
    assert (home.state(first), home.state(second)) == ("running", "queued")
    await home.finish()
    assert (await home.running()).job_id == second


async def test_a_failed_job_says_why_and_the_next_one_runs(home, monkeypatch):
    """The trainer's process names commands as it was started itself, not as the bot was."""
    monkeypatch.setattr("sys.argv", ["/tools/bin/understudy"])
    home.queue.start()
    first = home.ask("oda")
    second = home.ask("thrip")
    await home.running()
    await home.finish(TrainingFailed("The log is empty.", "See `python -m bot models`."))
    failed = home.store.jobs.get(first)
    assert (failed.state, failed.error, failed.advice) == (
        "failed",
        "The log is empty.",
        "See `understudy models`.",
    )
    assert failed.finished_at is not None
    assert (await home.running()).job_id == second


@pytest.mark.parametrize(
    "slip", [ZeroDivisionError("by zero"), RequestError("No such card.", "Write one.")]
)
async def test_an_error_out_of_a_backend_ends_one_job(home, slip):
    home.queue.start()
    first = home.ask("oda")
    second = home.ask("thrip")
    await home.running()
    await home.finish(slip)
    assert home.state(first) == "failed"
    assert home.store.jobs.get(first).error in ("ZeroDivisionError: by zero", "No such card.")
    assert (await home.running()).job_id == second


# ----------------------------------------------------------------------------------------- refusals


async def test_what_is_refused_stores_nothing(home):
    home.backend.refusal = RequestError("There is no persona 'odo'.", "Known: oda.")
    with pytest.raises(RequestError, match="odo"):
        home.ask("odo")
    assert home.store.jobs.of_guild(1) == [] and home.changes == []
    home.backend.refusal = None
    assert home.store.jobs.get(home.ask()).version == "v1"  # and uses no number


async def test_a_persona_is_trained_once_at_a_time_for_a_guild(home):
    first = home.ask("oda")
    with pytest.raises(RequestError, match=f"job {first} for oda is queued already"):
        home.ask("oda")
    home.ask("oda", guild=2)
    home.queue.start()
    await home.running()
    with pytest.raises(RequestError, match=f"job {first} for oda is running already"):
        home.ask("oda")
    await home.finish()
    home.ask("oda")


async def test_a_dialogue_adapters_name_is_taken_by_the_first(home):
    first = home.ask_dialogue("manners")
    with pytest.raises(RequestError, match=f"job {first} for dialogue/manners is queued already"):
        home.ask_dialogue("manners", guild=2)
    home.queue.cancel(first)
    assert home.store.jobs.get(home.ask_dialogue("manners", guild=2)).version == "v2"


async def test_a_guild_cannot_fill_the_queue(home):
    for number in range(MAX_QUEUED_PER_GUILD):
        home.ask_dialogue(f"d{number}")
    with pytest.raises(RequestError, match=f"{MAX_QUEUED_PER_GUILD} jobs"):
        home.ask("oda")
    home.ask("oda", guild=2)


# -------------------------------------------------------------------------------------------- order


async def test_guilds_take_turns(home):
    first = [home.ask_dialogue(f"d{number}", guild=1) for number in range(3)]
    second = [home.ask_dialogue(f"e{number}", guild=2) for number in range(2)]
    expected = [first[0], second[0], first[1], second[1], first[2]]
    assert [home.queue.position(job_id) for job_id in expected] == [1, 2, 3, 4, 5]
    home.queue.start()
    for job_id in expected:
        assert (await home.running()).job_id == job_id
        assert home.queue.position(job_id) is None
        await home.finish()


async def test_whoever_was_served_longest_ago_comes_first(home):
    home.queue.start()
    for guild in (1, 2, 3):
        home.ask(guild=guild)
        await home.running()
        if guild < 3:
            await home.finish()
    late = [home.ask("thrip", guild=guild) for guild in (3, 2, 1, 4)]
    assert [home.queue.position(job_id) for job_id in late] == [4, 3, 2, 1]


SERVED_BEFORE = st.tuples(st.just(0), st.floats(1, 9))


@given(st.lists(st.integers(0, 3), max_size=12), st.dictionaries(st.integers(0, 3), SERVED_BEFORE))
def test_the_order_is_that_of_serving_one_by_one(tmp_path_factory, guilds, served):
    waiting = [FakeJob(seq, guild) for seq, guild in enumerate(guilds)]
    order = []
    left = list(waiting)
    starts = 0
    at = dict(served)
    while left:
        chosen = min(left, key=lambda job: (at.get(job.guild_id, (0, 0.0)), job.seq))
        left.remove(chosen)
        order.append(chosen)
        starts += 1
        at[chosen.guild_id] = (starts, 0.0)
    assert fair_order(waiting, served) == order


class FakeJob:
    """As much of a job as its place depends on."""

    def __init__(self, seq, guild_id):
        self.seq = seq
        self.guild_id = guild_id


# --------------------------------------------------------------------------------------- cancelling


async def test_cancelling_a_queued_job(home):
    first = home.ask("oda")
    second = home.ask("thrip")
    assert home.queue.cancel(first).state == "cancelled"
    home.queue.start()
    assert (await home.running()).job_id == second


async def test_cancelling_a_running_job_stops_its_trainer(home):
    home.queue.start()
    first = home.ask("oda")
    second = home.ask("thrip")
    await home.running()
    assert home.queue.cancel(first).state == "cancelled"
    await until(lambda: len(home.backend.runs) == 2)
    assert home.state(first) == "cancelled" and home.backend.runs[1].job_id == second


async def test_a_cancelled_job_stays_so_when_its_trainer_was_faster(home):
    home.queue.start()
    job_id = home.ask()
    await home.running()
    home.backend.finish()  # the outcome is there, the queue has not yet seen it
    home.queue.cancel(job_id)
    await until(lambda: not home.backend.busy)
    await asyncio.sleep(0.01)
    assert home.state(job_id) == "cancelled" and home.store.versions.installed("oda") == []


async def test_a_cancelled_job_stays_so_after_a_crash(home):
    home.queue.start()
    job_id = home.ask()
    await home.running()
    home.queue.cancel(job_id)
    await home.crash_and_start()
    await asyncio.sleep(0.01)
    assert home.state(job_id) == "cancelled" and home.backend.runs == []


async def test_what_has_ended_cannot_be_cancelled(home):
    home.queue.start()
    job_id = home.ask()
    await home.running()
    await home.finish()
    with pytest.raises(RequestError, match=f"{job_id} is done already"):
        home.queue.cancel(job_id)
    with pytest.raises(RequestError, match="does not exist"):
        home.queue.cancel("nothing")
    assert home.state(job_id) == "done"


# ----------------------------------------------------------------------------------------- resuming

FULL = TrainingFailed("The disk is full.", "Free some space.", can_resume=True)


async def test_what_failed_for_a_reason_that_can_be_mended_is_resumed(home):
    home.queue.start()
    job_id = home.ask()
    first = await home.running()
    home.store.jobs.report(job_id, first.attempt_token, STEP)
    await home.finish(FULL)
    failed = home.store.jobs.get(job_id)
    assert failed.progress == STEP
    assert (failed.state, failed.can_resume, failed.error) == ("failed", True, "The disk is full.")
    assert home.store.jobs.resumable() == [failed]
    resumed = home.queue.resume(job_id)
    assert resumed.progress is None
    assert (resumed.state, resumed.error, resumed.finished_at, resumed.can_resume) == (
        "queued",
        None,
        None,
        False,
    )
    again = await home.running()
    assert (again.job_id, again.version, again.attempt) == (job_id, first.version, 1)
    assert again.attempt_token != first.attempt_token
    await home.finish()
    assert home.state(job_id) == "done" and home.store.jobs.resumable() == []
    assert [change.state for change in home.changes] == [
        "queued",
        "running",
        "failed",
        "queued",
        "running",
        "done",
    ]


async def test_a_resumed_job_outlives_a_crash(home):
    home.queue.start()
    job_id = home.ask()
    await home.running()
    await home.finish(FULL)
    await home.crash_and_start()
    home.queue.resume(job_id)
    await home.crash_and_start()
    assert (await home.running()).job_id == job_id


async def test_what_cannot_be_resumed(home):
    home.queue.start()
    job_id = home.ask()
    with pytest.raises(RequestError, match="does not exist"):
        home.queue.resume("nothing")
    for outcome, state in (
        (None, "running"),
        (TrainingFailed("The log is empty.", "Fill it."), "failed"),
    ):
        await home.running()
        if outcome:
            await home.finish(outcome)
        with pytest.raises(RequestError, match=f"{job_id} is {state}"):
            home.queue.resume(job_id)
        assert home.state(job_id) == state


async def test_a_job_is_not_resumed_beside_another_for_the_same_or_where_it_cannot_be_run(home):
    home.queue.start()
    first = home.ask()
    await home.running()
    await home.finish(FULL)
    second = home.ask()
    await home.running()
    with pytest.raises(RequestError, match=f"job {second} for oda is running already"):
        home.queue.resume(first)
    await home.finish()
    home.backend.refusal = RequestError("There is no persona 'oda'.", "Known: thrip.")
    with pytest.raises(RequestError, match="no persona 'oda'"):
        home.queue.resume(first)
    assert home.state(first) == "failed" and home.store.jobs.get(first).can_resume
