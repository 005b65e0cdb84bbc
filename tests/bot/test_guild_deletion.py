"""The real bot hears that a server has removed it, and that it has come back."""

import sqlite3
import time

import pytest

from bot.guilds.store.guilds import GUILD_TABLES
from bot.platform.db.schema import scripts_after
from bot.privacy.retention import DAY_S, Retention, RetentionPeriods
from sandbox.gateway import guild_create
from tests.bot.conftest import QUAY, on_stage
from tests.bot.sample_home import put, where
from tests.bot.stored_messages import guild_messages
from tests.fakes import FakeClock, until


@pytest.fixture
def days():
    return 14


@pytest.fixture
async def bot(tmp_path, days):
    """The bot in the sandbox with one talk on record; its clock is the test's."""
    async with on_stage(tmp_path) as stage:
        since = stage.mark
        await stage.member.say(QUAY, "the zephyrine is in, Ballast")
        await stage.finished(QUAY, since)
        put(
            tmp_path,
            {f"lore/{stage.sandbox.guild_id}/ballast/z.md": b"# Z\nThe zephyrine leaks.\n"},
        )
        clock = FakeClock(time.time())
        retention = Retention(
            stage.client.services, clock, RetentionPeriods(history_days=90, guild_days=days)
        )
        retention.start(stage.client)
        await until(lambda: clock.sleepers)
        try:
            yield stage, clock
        finally:
            await retention.stop()


def result(stage, name, data):
    """What Discord says at the gateway; the sandbox has no door out of its only guild."""
    stage.sandbox._container.gateway.dispatch(name, data)


def left(stage):
    return [gone.guild_id for gone in stage.store.guilds.departed()]


def kept(stage):
    home = stage.client.services.home
    return [path for path in where(home, "zephyrine") if not path.startswith("sandbox.sqlite")]


async def test_a_server_that_removes_the_bot_is_deleted_after_the_stated_time(bot):
    stage, clock = bot
    guild_id = stage.sandbox.guild_id
    result(stage, "GUILD_DELETE", {"id": str(guild_id)})
    await until(lambda: left(stage) == [guild_id])
    clock.advance(13 * DAY_S)
    await until(lambda: clock.sleepers)
    assert guild_messages(stage.store, guild_id) and kept(stage)
    clock.advance(DAY_S)
    await until(lambda: stage.store.guilds.deleted())
    await until(lambda: clock.sleepers)
    assert guild_messages(stage.store, guild_id) == [] and kept(stage) == []
    assert stage.store.channels.of_guild(guild_id) == []


def test_every_table_with_servers_is_deleted_with_one():
    """`delete` itself handles the other three."""
    raw = sqlite3.connect(":memory:")
    raw.executescript(";".join(script for _, script in scripts_after(0)))
    rows = raw.execute("""select t.name from sqlite_schema t, pragma_table_info(t.name) c
        where t.type = 'table' and c.name = 'guild_id'""")
    assert {name for (name,) in rows} == {*GUILD_TABLES, "jobs", "promotions", "guilds"}


@pytest.mark.parametrize("days", [0])
async def test_where_nothing_is_to_be_kept_it_goes_at_once(bot):
    stage, _ = bot
    result(stage, "GUILD_DELETE", {"id": str(stage.sandbox.guild_id)})
    await until(lambda: stage.store.guilds.deleted() and kept(stage) == [])
    assert guild_messages(stage.store, stage.sandbox.guild_id) == []


async def test_one_that_takes_the_bot_back_in_time_stays(bot):
    stage, clock = bot
    guild_id = stage.sandbox.guild_id
    result(stage, "GUILD_DELETE", {"id": str(guild_id)})
    await until(lambda: left(stage) == [guild_id])
    guild = guild_create(stage.sandbox._container.guild)
    del guild["unavailable"]  # so it comes when a server has just taken the bot in
    result(stage, "GUILD_CREATE", guild)
    await until(lambda: left(stage) == [])
    clock.advance(20 * DAY_S)
    await until(lambda: clock.sleepers)
    assert guild_messages(stage.store, guild_id) and kept(stage)


async def test_one_that_cannot_be_reached_for_a_while_has_removed_nobody(bot):
    stage, clock = bot
    result(stage, "GUILD_DELETE", {"id": str(stage.sandbox.guild_id), "unavailable": True})
    await until(lambda: stage.client.guilds[0].unavailable)
    clock.advance(20 * DAY_S)
    await until(lambda: clock.sleepers)
    assert left(stage) == [] and kept(stage)
