"""Trainings at set times: weekly in the server's time zone, or after new samples; with the queue of
`/finetune start`, once each, also over restarts and kills.
"""

import logging
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.platform.errors import RefusedError
from bot.platform.weekly_time import DAY_SETS, WeeklyTime
from bot.store import Lesson, StoreError
from bot.training.backend_protocol import TrainingFailed
from bot.training.request_materials import check_request
from personas.errors import RequestError
from personas.home.adapters import adapter_ref, write_manifest
from sandbox import SandboxRefusal
from tests.bot.conftest import INN, QUAY, on_stage
from tests.bot.set_settings import set_answering
from tests.bot.set_times import AheadClock, answer_to, check_often
from tests.bot.version_rows import install
from tests.fakes import until
from tests.personas.test_adapters import manifest, write_adapter

FRIDAY = datetime(2026, 11, 27, 21, 5, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
UTC_ZONE = ZoneInfo("UTC")


@pytest.fixture(autouse=True)
def _checked_often(monkeypatch):
    check_often(monkeypatch)


async def answer(stage, command, who=None, channel=QUAY, **options):
    return await answer_to(stage, f"finetune schedule {command}", who, channel, **options)


def jobs(stage):
    return stage.store.jobs.of_guild(int(stage.sandbox.guild_id))


async def passes(stage, checks=3):
    """Look for what is due some times more."""
    cog = stage.client.get_cog("ScheduleCog")
    for _ in range(checks):
        await cog._run_due()


def lesson(stage, at, *, reply="Aye.", by=5, as_moderator=True):
    return Lesson(
        guild_id=int(stage.sandbox.guild_id),
        persona_id="ballast",
        user_id=by,
        as_moderator=as_moderator,
        prompt="How deep?",
        reply=reply,
        instead_of="",
        right="own-writing",
        at=at,
    )


# ------------------------------------------------------------------------------------ weekly times


@pytest.mark.parametrize(
    ("days", "text", "now", "zone", "latest", "following"),
    [
        ((4,), "21:05", FRIDAY, UTC_ZONE, FRIDAY, FRIDAY + timedelta(days=7)),
        ((4,), "21:06", FRIDAY, UTC_ZONE, FRIDAY + timedelta(days=-7, minutes=1),
         FRIDAY + timedelta(minutes=1)),
        (range(7), "8:30", FRIDAY, BERLIN, datetime(2026, 11, 27, 7, 30, tzinfo=UTC),
         datetime(2026, 11, 28, 7, 30, tzinfo=UTC)),
        # In spring, Berlin's clocks skip 02:30; in autumn it comes twice.
        ((6,), "02:30", datetime(2026, 3, 29, 12, tzinfo=UTC), BERLIN,
         datetime(2026, 3, 29, 1, 30, tzinfo=UTC), datetime(2026, 4, 5, 0, 30, tzinfo=UTC)),
        ((6,), "02:30", datetime(2026, 10, 25, 12, tzinfo=UTC), BERLIN,
         datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 11, 1, 1, 30, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_a_weekly_time_is_that_of_the_zone(days, text, now, zone, latest, following):
    when = WeeklyTime.on(days, text)
    assert datetime.fromtimestamp(when.latest(now.timestamp(), zone), UTC) == latest
    assert datetime.fromtimestamp(when.next(now.timestamp(), zone), UTC) == following


@given(
    days=st.sets(st.integers(0, 6), min_size=1),
    minute=st.integers(0, 1439),
    now=st.integers(1_700_000_000, 1_900_000_000),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia", "America/St_Johns"]),
)
def test_no_moment_lies_between_the_latest_and_the_next(days, minute, now, zone):
    zone = ZoneInfo(zone)
    when = WeeklyTime(sum(1 << day for day in days), minute)
    latest = when.latest(now, zone)
    following = when.next(now, zone)
    assert latest <= now < following and following - latest <= 7 * 86400 + 3600
    assert when.latest(following, zone) == following and when.next(latest, zone) == following


def test_times_are_read_and_said():
    assert str(WeeklyTime.on(DAY_SETS["Monday to Friday"], "8:05")) == "Monday to Friday at 08:05"
    assert str(WeeklyTime.on((0, 2), "23:59")) == "Monday, Wednesday at 23:59"
    for wrong in ("24:00", "8:5", "8", "08:30pm", "", "８:30"):
        with pytest.raises(RefusedError, match="is no time of day"):
            WeeklyTime.on((0,), wrong)


# -------------------------------------------------------------------------------- on a stage


async def test_a_weekly_training_runs_at_its_time_and_only_once(tmp_path):
    clock = AheadClock(FRIDAY)
    async with on_stage(tmp_path, clock=clock) as stage:
        said = await answer(stage, "set", weekday="Saturday", time="3:30", recipe="demo-cpu")
        assert "**Ballast** Saturday at 03:30 (UTC), next <t:1795836600:R>" in said
        await passes(stage)
        assert not jobs(stage), "it is Friday"
        clock.at = datetime(2026, 11, 28, 3, 30, 5, tzinfo=UTC)
        await until(lambda: stage.backend.busy)
        (job,) = jobs(stage)
        assert (job.persona, job.request.recipe) == ("ballast", "demo-cpu")
        assert job.requested_by == int(stage.moderator.id)
        await stage.sees("**Ballast v1**")
        stage.backend.finish()
        await stage.sees("Trained: **Ballast v1**")
        await passes(stage)
        assert len(jobs(stage)) == 1
        clock.at += timedelta(days=7)
        await until(lambda: len(jobs(stage)) == 2)


async def test_a_missed_training_is_made_up_for_once_and_a_kill_doubles_none(tmp_path):
    clock = AheadClock(FRIDAY)
    async with on_stage(tmp_path, clock=clock) as stage:
        await answer(stage, "set", weekday="every day", time="03:30")
    clock.at += timedelta(days=20)
    async with on_stage(tmp_path, clock=clock) as stage:
        await until(lambda: len(jobs(stage)) == 1)
        await until(lambda: stage.backend.busy)
        stage.backend.finish()
        await stage.sees("Trained: **Ballast v1**")
        await passes(stage)
        assert len(jobs(stage)) == 1, "the other nineteen are not"
        # Killed after the job was stored, and before the schedule was:
        schedules = stage.store.training_schedules
        (schedule,) = schedules.all()
        clock.at += timedelta(days=1)
        await passes(stage, checks=1)
        assert len(jobs(stage)) == 2
        schedules.record_handled(schedule.seq, schedule.handled_at)
        await until(lambda: stage.backend.busy)
        stage.backend.finish()
        await stage.sees("Trained: **Ballast v2**")
    async with on_stage(tmp_path, clock=clock) as stage:
        before = clock.now() - 30
        await until(lambda: stage.store.training_schedules.all()[0].handled_at > before)
        await passes(stage)
        assert len(jobs(stage)) == 2


async def test_it_waits_for_a_present_job_and_for_the_end_of_quiet_hours(tmp_path):
    clock = AheadClock(FRIDAY)
    async with on_stage(tmp_path, clock=clock) as stage:
        start = await stage.moderator.slash(QUAY, "finetune start")
        await until(lambda: stage.backend.busy and start.message)
        said = await answer(stage, "set", weekday="Friday", time="21:06")
        assert said.startswith("Scheduled"), "today's job is no obstacle"
        clock.at += timedelta(minutes=2)
        await passes(stage)
        assert len(jobs(stage)) == 1
        stage.backend.finish()
        await until(lambda: len(jobs(stage)) == 2 and stage.backend.busy)
        stage.backend.finish()
        await stage.sees("Trained: **Ballast v2**")
        place = int(stage.sandbox.guild_id), int(stage.sandbox.channel(QUAY)["id"])
        set_answering(stage.client.services, *place, {"quiet_hours": "21:00-23:00"})
        clock.at += timedelta(days=7)
        await passes(stage)
        assert len(jobs(stage)) == 2
        clock.at += timedelta(hours=2)
        await until(lambda: len(jobs(stage)) == 3)


async def test_in_a_thread_it_waits_for_the_end_of_its_channel_s_quiet_hours(tmp_path):
    clock = AheadClock(FRIDAY)
    async with on_stage(tmp_path, clock=clock) as stage:
        place = int(stage.sandbox.guild_id), int(stage.sandbox.channel(QUAY)["id"])
        set_answering(stage.client.services, *place, {"quiet_hours": "21:00-23:00"})
        thread = await stage.moderator.thread(QUAY, "soundings")
        await until(lambda: stage.client.get_channel(int(thread["id"])))
        await answer(stage, "set", channel=thread, weekday="every day", time="21:30")
        clock.at += timedelta(minutes=30)
        await passes(stage)
        assert not jobs(stage)
        clock.at += timedelta(hours=2)
        await until(lambda: len(jobs(stage)) == 1)


async def test_a_refused_training_is_told_in_the_channel_once(tmp_path):
    clock = AheadClock(FRIDAY)
    async with on_stage(tmp_path, clock=clock) as stage:
        await answer(stage, "set", weekday="every day", time="22:00")
        stage.backend.refusal = RequestError("The data set is gone.", "Name another.")
        mark = stage.mark
        clock.at += timedelta(hours=1)
        told = await stage.sees("training of **Ballast** was refused. The data set is gone.")
        assert told["channel_id"] == stage.sandbox.channel(QUAY)["id"]
        await passes(stage)
        refusals = [
            it for _, it in stage.sandbox.events[mark:] if "was refused" in it.get("content", "")
        ]
        assert len(refusals) == 1 and not jobs(stage)
        assert "The latest one was refused: The data set" in await answer(stage, "show")
        stage.backend.refusal = None
        clock.at += timedelta(days=1)
        await until(lambda: len(jobs(stage)) == 1)
        assert "refused" not in await answer(stage, "show")


async def test_a_training_waits_while_the_database_cannot_store_it(tmp_path, monkeypatch, caplog):
    clock = AheadClock(FRIDAY)
    async with on_stage(tmp_path, clock=clock) as stage:
        caplog.set_level(logging.INFO, "bot.schedules")
        await answer(stage, "set", weekday="Saturday", time="03:30")

        def away(*_):
            raise StoreError("The disk is full.")

        with monkeypatch.context() as outage:
            outage.setattr(stage.store.jobs, "add", away)
            clock.at += timedelta(hours=7)
            await until(lambda: "waits: The disk is full" in caplog.text)
            assert "refused" not in await answer(stage, "show")
        await until(lambda: len(jobs(stage)) == 1)


async def test_enough_new_samples_start_a_preference_training(tmp_path):
    clock = AheadClock(FRIDAY)
    async with on_stage(tmp_path, clock=clock) as stage:
        lessons = stage.store.lessons
        lessons.add(lesson(stage, clock.now() - 1))
        said = await answer(stage, "set", new_samples=5)
        assert "after 5 new taught replies and votes, 0 are there" in said
        clock.at += timedelta(minutes=1)
        for number in range(4):
            lessons.add(lesson(stage, clock.now(), reply=str(number)))
        lessons.add(lesson(stage, clock.now(), by=6, as_moderator=False))
        await passes(stage)
        assert not jobs(stage), "one has not opted in"
        assert "4 are there" in await answer(stage, "show")
        clock.at += timedelta(minutes=1)
        lessons.add(lesson(stage, clock.now(), reply="five"))
        await until(lambda: jobs(stage))
        assert jobs(stage)[0].request.task_type == "preference"
        await passes(stage)
        assert len(jobs(stage)) == 1 and "0 are there" in await answer(stage, "show")


async def test_a_refused_training_uses_up_no_samples_and_is_tried_again_a_day_later(tmp_path):
    clock = AheadClock(FRIDAY)
    async with on_stage(tmp_path, clock=clock) as stage:
        await answer(stage, "set", new_samples=5)
        stage.backend.refusal = RequestError("The data set is gone.", "Name another.")
        clock.at += timedelta(minutes=1)
        mark = stage.mark
        for number in range(5):
            stage.store.lessons.add(lesson(stage, clock.now(), reply=str(number)))
        await stage.sees("training of **Ballast** was refused. The data set is gone.", since=mark)
        shown = await answer(stage, "show")
        assert "5 are there" in shown and "It is tried again a day later." in shown
        stage.backend.refusal = None
        clock.at += timedelta(hours=23)
        await passes(stage)
        assert not jobs(stage)
        clock.at += timedelta(hours=1)
        await until(lambda: jobs(stage))
        assert "0 are there" in await answer(stage, "show")


async def set_with_five_samples(stage, clock):
    """Set a schedule after five samples, and add them."""
    await answer(stage, "set", new_samples=5)
    clock.at += timedelta(minutes=1)
    for number in range(5):
        stage.store.lessons.add(lesson(stage, clock.now(), reply=str(number)))


async def test_a_training_that_came_to_nothing_uses_up_no_samples(tmp_path):
    clock = AheadClock(FRIDAY)
    async with on_stage(tmp_path, clock=clock) as stage:
        await set_with_five_samples(stage, clock)
        for count in (1, 2):  # the first one fails, the second one is cancelled
            await until(lambda: stage.backend.busy)
            assert len(jobs(stage)) == count and "0 are there" in await answer(stage, "show")
            if count == 1:
                stage.backend.finish(TrainingFailed("The disk is full."))
            else:
                stage.client.services.queue.cancel(jobs(stage)[0].job_id)
            await until(lambda: not stage.backend.busy and jobs(stage)[0].has_ended)
            assert "5 are there" in await answer(stage, "show")
            clock.at += timedelta(hours=23)
            await passes(stage)
            assert len(jobs(stage)) == count
            clock.at += timedelta(hours=1)
        await until(lambda: len(jobs(stage)) == 3)


async def test_a_training_that_fails_after_more_than_a_day_is_tried_again_a_day_later(tmp_path):
    clock = AheadClock(FRIDAY)
    async with on_stage(tmp_path, clock=clock) as stage:
        await set_with_five_samples(stage, clock)
        await until(lambda: stage.backend.busy)
        clock.at += timedelta(hours=30)
        stage.backend.finish(TrainingFailed("The disk is full."))
        await until(lambda: jobs(stage)[0].has_ended)
        stage.store.jobs._db.write("update jobs set finished_at = :at", at=clock.now())
        clock.at += timedelta(hours=23)
        await passes(stage)
        assert len(jobs(stage)) == 1, "or a cancelled one would come back at once"
        clock.at += timedelta(hours=1)
        await until(lambda: len(jobs(stage)) == 2)


async def test_what_makes_no_sense_is_refused_and_nothing_is_scheduled(stage):
    cases = (
        ({}, "at a weekly time, or after"),
        ({"weekday": "Monday", "time": "03:30", "new_samples": 9}, "at a weekly time, or after"),
        ({"weekday": "Monday"}, "Give both."),
        ({"time": "03:30"}, "Give both."),
        ({"weekday": "Monday", "time": "midnight"}, "no time of day"),
        ({"new_samples": 9, "task_type": "persona"}, "only preference trainings learn"),
    )
    for options, words in cases:
        assert words in await answer(stage, "set", **options), options
    stage.backend.refusal = RequestError("There is no data set 'x'.", "")
    assert "no data set" in await answer(stage, "set", weekday="Monday", time="3:30", dataset="x")
    assert "No training is scheduled here." in await answer(stage, "show")
    assert "No training of this persona" in await answer(stage, "remove")
    with pytest.raises(SandboxRefusal):
        await answer(stage, "show", stage.member)


async def test_a_schedule_that_waits_for_samples_is_checked_but_for_their_number(stage):
    services = stage.client.services
    stage.backend.check = partial(check_request, services.catalogue)
    version = install(stage.store, guild=int(stage.sandbox.guild_id))
    folder = adapter_ref(services.home, "ballast", version).folder
    write_adapter(folder)
    write_manifest(folder, manifest().model_copy(update={"rights": {"own-writing": 1}}))
    cases = (
        ({"recipe": "nope"}, "There is no recipe 'nope'."),
        ({"dataset": "nope"}, "There is no data set 'nope'."),
        ({"dataset": "../../etc/passwd"}, "There is no data set '../../etc/passwd'."),
        ({"persona": "oda"}, "There is no version yet to train further."),
        ({"from": "card"}, "task_type preference takes no from_card"),
    )
    for options, words in cases:
        refused = await answer(stage, "set", new_samples=10, **options)
        assert words in refused and "base_model" not in refused, refused
    with pytest.raises(SandboxRefusal, match="task_type"):
        await answer(stage, "set", weekday="Monday", time="3:30", task_type="dialogue")
    weekly = {"weekday": "Monday", "time": "3:30", "task_type": "preference"}
    assert "Nobody has taught" in await answer(stage, "set", **weekly)
    assert not stage.store.training_schedules.all()
    said = await answer(stage, "set", new_samples=10, recipe="preference", dataset="ballast")
    assert "Recipe `preference`, data set `ballast`." in said
    assert "Recipe `preference`, data set `ballast`." in await answer(stage, "show")


async def test_a_schedule_is_replaced_removed_and_goes_with_its_persona_and_server(stage):
    guild_id = int(stage.sandbox.guild_id)
    schedules = stage.store.training_schedules
    await answer(stage, "set", weekday="Monday", time="3:30")
    await answer(stage, "set", weekday="Tuesday", time="4:00")
    await answer(stage, "set", persona="oda", channel=INN, weekday="Sunday", time="5:00")
    shown = await answer(stage, "show")
    assert "Tuesday at 04:00" in shown and "Monday" not in shown and "**Oda Marrow**" in shown
    assert "no longer trained" in await answer(stage, "remove", persona="oda")
    assert [it.persona_id for it in schedules.of_guild(guild_id)] == ["ballast"]
    assert stage.store.erasure.counts(int(stage.moderator.id))["training_schedules"] == 1
    stage.store.erasure.erase(int(stage.moderator.id), time.time() + 1, str)
    assert [it.set_by for it in schedules.of_guild(guild_id)] == [0]
    stage.store.guilds.forget_persona_settings("ballast")
    assert not schedules.all()
    await answer(stage, "set", weekday="Monday", time="3:30")
    stage.store.guilds.delete(guild_id)
    assert not schedules.all()
