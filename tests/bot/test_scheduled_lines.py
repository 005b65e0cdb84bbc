"""Lines at set times: said once by whoever lives in the channel, not in quiet hours nor long after
their time, and neither lost nor doubled by a kill.
"""

import asyncio
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from discord import Webhook

from bot.chat import delivery
from bot.chat.store.replies import StoredReplies
from bot.guild_settings.definitions import TIME_ZONE
from bot.guilds.time_zones import GuildTimeZones
from bot.schedules.lines import MAX_LINES, ScheduledLines
from bot.schedules.store import ScheduledLine
from bot.store import ALL_CHANNELS, Mute, Store, StoreError
from personas.prompt.renderer import Renderer
from tests.bot.conftest import OFFICE, QUAY, on_stage
from tests.bot.set_settings import set_answering
from tests.bot.set_times import AheadClock, answer_to, check_often
from tests.fakes import until

PROMPT = "say good morning"


@pytest.fixture(autouse=True)
def _checked_often(monkeypatch):
    check_often(monkeypatch)


async def answer(stage, command, who=None, channel=QUAY, **options):
    return await answer_to(stage, f"persona line {command}", who, channel, **options)


def in_minutes(clock, minutes):
    return f"{clock.at + timedelta(minutes=minutes):%H:%M}"


async def set_line(stage, clock, channel=QUAY):
    """Have a line said from the next minute on."""
    said = await answer(
        stage, "set", channel=channel, time=in_minutes(clock, 1), prompt=f" {PROMPT}\n"
    )
    assert said.startswith("Set: **1** every day at") and said.splitlines()[0].endswith(PROMPT)


def said_by(stage, name="Ballast", channel=QUAY):
    channel_id = stage.sandbox.channel(channel)["id"]
    history = stage.sandbox._container.messages.history(channel_id, 100)
    return [it["content"] for it in history if it["author"]["username"] == name]


def check(stage, times=3):
    """Look for what is due some times more; nothing new is."""
    for _ in range(times):
        assert not stage.client.services.scheduled_lines.due()


def take_due(stage):
    """Take the one line that is due, as `ScheduleCog` does, but without having it said."""
    (line,) = stage.client.services.scheduled_lines.due()
    channel = stage.client.get_channel(line.channel_id)
    return stage.client.services.scheduled_lines.take(line, channel)


async def test_a_line_is_said_at_its_time_by_the_persona_once_and_daily(tmp_path, renderer):
    clock = AheadClock()
    async with on_stage(tmp_path, clock=clock) as stage:
        before = len(said_by(stage))
        await set_line(stage, clock)
        check(stage)
        mark = stage.mark
        clock.ahead_s = 60
        said = await stage.finished(QUAY, mark)
        assert said["author"]["username"] == "Ballast" and not said["components"]
        assert "\n-# AI-written" in said["content"]
        request = stage.engine.requests[-1]
        assert request.turns[-1].text.endswith(f"says to everybody here: {PROMPT}]")
        assert not request.turns[-1].by_persona and request.member_id == 0
        assert Renderer.prompt(renderer, request.persona, request.turns, request.lore).ids
        check(stage)
        assert len(said_by(stage)) == before + 1
        stored = stage.store.messages.latest(int(said["channel_id"]), 4)
        assert stored[-1].persona_id == "ballast", "it belongs to the talk"
        mark = stage.mark
        clock.ahead_s += 86400
        await stage.finished(QUAY, mark)


def test_of_many_lines_those_that_are_due_are_found_by_their_times(tmp_path):
    clock = AheadClock(datetime(2026, 11, 27, 7, 0, 30, tzinfo=UTC))
    times = {"handled_at": clock.now() - 3600, "set_at": 1.0}
    with Store.open(tmp_path / "understudy.sqlite") as store:
        TIME_ZONE.write(store, "Europe/Berlin", 1)  # it is 8:00 there
        TIME_ZONE.write(store, "Europe/Nowhere", 2)
        with store.atomic():
            for number in range(2000):
                guild = number % 4
                minute = (7 if number < 1000 else 8) * 60
                place = {"guild_id": guild, "channel_id": guild + 1000, "set_by": 3}
                line = ScheduledLine(
                    0, weekdays=0b11111, minute=minute, prompt=PROMPT, **place, **times
                )
                store.scheduled_lines.add(line)
        queries = []
        store._connection._raw.set_trace_callback(queries.append)
        found = ScheduledLines(
            store=store, reply_service=None, time_zones=GuildTimeZones(store, clock, "UTC")
        )
        due = found.due()
        assert len(due) == 1000 and len(queries) < 20
        assert {(line.guild_id, line.minute) for line in due} == {
            (0, 420), (1, 480), (2, 420), (3, 420),
        }  # fmt: skip
        assert [line.seq for line in due] == sorted(line.seq for line in due)
        for line in due:
            store.scheduled_lines.record_handled(line.seq, clock.now())
        assert not found.due()


async def test_it_is_left_out_where_it_would_disturb(tmp_path):
    clock = AheadClock()
    async with on_stage(tmp_path, clock=clock) as stage:
        before = len(said_by(stage))
        guild_id = int(stage.sandbox.guild_id)
        channel_id = int(stage.sandbox.channel(QUAY)["id"])
        await set_line(stage, clock)
        services = stage.client.services
        set_answering(services, guild_id, channel_id, {"quiet_hours": _around(clock)})
        handled = stage.store.scheduled_lines.all()[0].handled_at
        clock.ahead_s = 60
        await until(lambda: stage.store.scheduled_lines.all()[0].handled_at > handled)
        set_answering(services, guild_id, channel_id, {"quiet_hours": None})
        check(stage)
        stage.store.mutes.add(Mute(guild_id, ALL_CHANNELS, "ballast", 5, 1.0))
        clock.ahead_s += 86400
        handled = stage.store.scheduled_lines.all()[0].handled_at
        await until(lambda: stage.store.scheduled_lines.all()[0].handled_at > handled)
        stage.store.mutes.remove(guild_id, ALL_CHANNELS, "ballast")
        check(stage)
        assert "has silenced the persona" in stage.store.scheduled_lines.all()[0].outcome
        age = stage.client.services.reply_service.rules.age
        ballast = stage.client.services.personas.get("ballast", guild_id)
        age.set(ballast, guild_id, is_restricted=True)
        clock.ahead_s += 86400
        await until(lambda: "is age-restricted" in stage.store.scheduled_lines.all()[0].outcome)
        age.set(ballast, guild_id, is_restricted=False)
        said = await answer(stage, "show")
        assert "The latest one was left out: the persona is age-restricted" in said
        assert len(said_by(stage)) == before
    clock.ahead_s += 86400 + 3600  # the bot was down at its time, an hour ago
    async with on_stage(tmp_path, clock=clock) as stage:
        handled = stage.store.scheduled_lines.all()[0].handled_at
        await until(lambda: stage.store.scheduled_lines.all()[0].handled_at >= handled)
        check(stage)
        assert len(said_by(stage)) == before


def _around(clock):
    return f"{in_minutes(clock, -60)}-{in_minutes(clock, 60)}"


async def test_a_line_opens_an_archived_thread_and_tells_where_it_is_out_of_reach(tmp_path):
    clock = AheadClock()
    async with on_stage(tmp_path, clock=clock) as stage:
        thread = await stage.moderator.thread(QUAY, "soundings")
        thread_id = int(thread["id"])
        await set_line(stage, clock, channel=thread)
        await archived(stage, thread)
        mark = stage.mark
        clock.ahead_s = 60
        said = await stage.sees("AI-written", since=mark, by="Ballast")
        assert said["channel_id"] == thread["id"] and stage.client.get_channel(thread_id)
        assert not stage.store.scheduled_lines.all()[0].outcome
        await until(lambda: not stage.client.services.reply_service.running)
        await archived(stage, thread)
        stage.sandbox.set_permission("VIEW_CHANNEL", False)
        clock.ahead_s += 86400
        await until(lambda: stage.store.scheduled_lines.all()[0].outcome)
        stage.sandbox.set_permission("VIEW_CHANNEL", True)
        answered = await answer(stage, "show")
        assert "The latest one was left out: the channel is out of reach." in answered
        check(stage)
        assert stage.client.get_channel(thread_id) is None, "nothing is said later on"


async def archived(stage, thread):
    stage.sandbox.archive_thread(thread["id"])
    await until(lambda: stage.client.get_channel(int(thread["id"])) is None)


async def test_a_kill_before_the_line_is_posted_costs_nothing(tmp_path):
    clock = AheadClock()
    async with on_stage(tmp_path, clock=clock) as stage:
        before = len(said_by(stage))
        await set_line(stage, clock)
        await stage.client.remove_cog("ScheduleCog")
        clock.ahead_s = 60
        reply = take_due(stage)
        assert stage.store.replies.line_prompt(reply.event_id) == PROMPT
    async with on_stage(tmp_path, clock=clock) as stage:
        await until(lambda: stage.store.replies.get(reply.event_id).state == "done")
        check(stage)
        assert len(said_by(stage)) == before + 1


async def test_a_kill_after_it_is_posted_doubles_nothing(tmp_path, monkeypatch):
    clock = AheadClock()

    def not_stored(*parts):
        raise StoreError("The disk is full.")

    async with on_stage(tmp_path, clock=clock) as stage:
        stage.engine.free.clear()  # it is killed in the middle
        before = len(said_by(stage))
        await set_line(stage, clock)
        with monkeypatch.context() as broken:
            broken.setattr(StoredReplies, "record_parts", not_stored)
            clock.ahead_s = 60
            await until(lambda: len(said_by(stage)) == before + 1)
            await until(lambda: stage.client.services.reply_service.running)
            await stage.client.services.reply_service.close()
        (unfinished,) = stage.store.replies.unfinished()
        assert unfinished.parts == ()
    async with on_stage(tmp_path, clock=clock) as stage:
        await until(lambda: "AI-written" in said_by(stage)[-1])
        check(stage)
        assert stage.store.replies.get(unfinished.event_id).state == "done"
        assert len(said_by(stage)) == before + 1


@pytest.mark.parametrize("is_begun", [False, True])
async def test_a_bot_that_is_back_in_quiet_hours_says_no_line_but_finishes_a_reply(
    tmp_path, is_begun
):
    clock = AheadClock()
    async with on_stage(tmp_path, clock=clock) as stage:
        stage.engine.free.clear()  # it is killed in the middle
        before = len(said_by(stage))
        await set_line(stage, clock)
        await stage.client.remove_cog("ScheduleCog")
        clock.ahead_s = 60
        line = take_due(stage)
        if is_begun:
            saying = asyncio.create_task(line.answer())
            await until(lambda: stage.store.replies.get(line.event_id).parts)
        asked = await stage.member.say(QUAY, "Ballast, is it late?")
        await until(lambda: stage.store.replies.get(int(asked["id"])))
        channel = stage.client.get_channel(int(asked["channel_id"]))
        hours = {"quiet_hours": _around(clock), "quiet_mentions": True}
        set_answering(stage.client.services, channel.guild.id, channel.id, hours)
    if is_begun:
        assert saying.done()
    async with on_stage(tmp_path, clock=clock) as stage:
        await until(lambda: not stage.store.replies.unfinished())
        states = [stage.store.replies.get(it).state for it in (line.event_id, int(asked["id"]))]
        assert states == ["failed", "done"]
        assert [request.turns[-1].text for request in stage.engine.requests] == [asked["content"]]
        said = said_by(stage)[before:]
        assert sum("is it late?" in it for it in said) == 1 and len(said) == 1 + is_begun
        assert sum("was cut off" in it for it in said) == is_begun


async def test_a_line_that_discord_takes_only_in_quiet_hours_is_not_said(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(delivery, "FIRST_PAUSE_S", 0.2)
    monkeypatch.setattr(delivery, "RETRY_PAUSES_S", ())
    clock = AheadClock()
    async with on_stage(tmp_path, clock=clock) as stage:
        before = len(said_by(stage))
        await set_line(stage, clock)
        with monkeypatch.context() as away:
            away.setattr(Webhook, "send", _away)
            clock.ahead_s = 60
            await until(lambda: "trying again" in caplog.text)
            channel = stage.client.get_channel(int(stage.sandbox.channel(QUAY)["id"]))
            hours = {"quiet_hours": _around(clock)}
            set_answering(stage.client.services, channel.guild.id, channel.id, hours)
        await until(lambda: "was not said: it came in the quiet hours" in caplog.text)
        (line,) = stage.store.replies.unfinished()
        assert line.state == "failed", "its end is shown once there is a message"
        assert len(said_by(stage)) == before


async def _away(*_, **__):
    raise aiohttp.ClientConnectionError("Discord is away")


async def test_lines_are_listed_removed_and_limited(stage):
    for number in range(MAX_LINES):
        said = await answer(
            stage, "set", time=f"0{number}:30", prompt=PROMPT, weekday="Saturday and Sunday"
        )
        assert said.startswith(f"Set: **{number + 1}** Saturday and Sunday at 0{number}:30 (UTC)")
    assert "is the limit" in await answer(stage, "set", time="9:00", prompt=PROMPT)
    again = {"time": "00:30", "prompt": PROMPT, "weekday": "Saturday and Sunday"}
    assert "set already: number 1." in await answer(stage, "set", **again)
    assert "is empty" in await answer(stage, "set", channel=OFFICE, time="9:00", prompt="   ")
    assert "no time of day" in await answer(stage, "set", channel=OFFICE, time="9", prompt="x")
    offered = await stage.moderator.autocomplete(QUAY, "persona line remove", "number", number="3:")
    assert [one["value"] for one in offered][:1] == [3]
    assert await answer(stage, "remove", number=3) == "Removed."
    assert "There is no line 3" in await answer(stage, "remove", number=3)
    assert len((await answer(stage, "show")).splitlines()) == MAX_LINES - 1
    for command, options in (("show", {}), ("remove", {"number": 1})):
        refused = await answer(stage, command, stage.member, **options)
        assert refused.startswith("Only moderators may do this.")
    lines = stage.store.scheduled_lines
    lines.forget_channel(int(stage.sandbox.channel(QUAY)["id"]))
    assert not lines.all() and "Nothing is said" in await answer(stage, "show")


async def test_a_line_names_whom_its_prompt_mentions_and_says_that_nobody_lives_there(stage):
    said = await answer(stage, "set", time="9:00", prompt=f"greet <@{stage.member.id}>")
    assert "No persona lives here" not in said
    (line,) = stage.store.scheduled_lines.all()
    assert line.prompt == f"greet @{stage.member.name}"
    stage.store.channels.clear(line.guild_id, line.channel_id)
    said = await answer(stage, "set", time="9:00", prompt=PROMPT)
    assert "No persona lives here: until `/persona set` gives the channel one" in said


async def test_a_line_names_nobody_who_was_erased_and_goes_with_its_server(tmp_path):
    clock = AheadClock()
    async with on_stage(tmp_path, clock=clock) as stage:
        await set_line(stage, clock)
        await stage.client.remove_cog("ScheduleCog")
        clock.ahead_s = 60
        reply = take_due(stage)
        moderator = int(stage.moderator.id)
        assert stage.store.erasure.rows_of(moderator)["scheduled_lines"][0]["prompt"] == PROMPT
        stage.store.erasure.erase(moderator, clock.now(), lambda text: text.replace("good", "…"))
        (line,) = stage.store.scheduled_lines.all()
        assert (line.set_by, line.prompt) == (0, "say … morning")
        assert stage.store.replies.line_prompt(reply.event_id) == line.prompt
        stage.store.guilds.delete(int(stage.sandbox.guild_id))
        assert not stage.store.scheduled_lines.all()
        assert stage.store.replies.line_prompt(reply.event_id) is None
