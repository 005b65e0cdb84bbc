"""The bot with two connections, each for a part of its guilds, in one process."""

import asyncio
import time
from dataclasses import replace

import pytest

from bot.app import open_app
from bot.client import ShardedBotClient
from bot.demo_guild import MEMBER, SKERROW_SEED
from bot.operations.doctor import connection_checks
from bot.settings import load_settings
from bot.store import Channel
from personas.home.job_material import ShippedData
from sandbox import Sandbox, patch_discord
from sandbox.wire_faults import EventFault, WireFaults
from tests.bot.conftest import QUAY, on_stage
from tests.fakes import until

SECOND = (replace(SKERROW_SEED, name="Harbour 2", bot_avatar=None),)
IDENTIFY_S = 0.15
"""Longer than the sandbox's five seconds take at its pace."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    async def wait(client, shard_id, *, initial=False):
        await asyncio.sleep(IDENTIFY_S)

    for kind in (ShardedBotClient, connection_checks.discord.AutoShardedClient):
        monkeypatch.setattr(kind, "before_identify_hook", wait)


def heard(stage, guild_id):
    """What the persona has answered in a guild, oldest first."""
    replies = []
    for message in stage.sandbox.messages(QUAY, guild_id):
        _, is_reply, words = message["content"].partition(" hears: ")
        if is_reply and "AI-written" in words:
            replies.append(words.partition("\n")[0])
    return replies


@pytest.mark.parametrize("fault", [EventFault.DROPPED, EventFault.SESSION_LOST])
async def test_both_shards_are_answered_and_what_one_missed_once_it_is_back(
    tmp_path, monkeypatch, fault
):
    async with on_stage(tmp_path, more_guilds=SECOND, shards=2) as stage:
        guild_ids = stage.sandbox.guild_ids
        away = guild_ids[1]
        channel = int(stage.sandbox.channel(QUAY, away)["id"])
        stage.store.channels.assign(Channel(away, channel, "ballast", "mentions", 1, time.time()))
        assert {guild.shard_id for guild in stage.client.guilds} == {0, 1}
        members = {guild_id: stage.sandbox.member(MEMBER, guild_id) for guild_id in guild_ids}
        for member in members.values():
            await member.say(QUAY, "@Understudy hello")
        await until(lambda: all(heard(stage, guild_id) == ["hello"] for guild_id in guild_ids))
        lost = set()

        async def note_loss(shard_id):
            lost.add(shard_id)

        stage.client.add_listener(note_loss, "on_shard_disconnect")
        faults = [fault]
        monkeypatch.setattr(
            WireFaults,
            "of_event",
            lambda _, name: faults.pop() if faults and name == "MESSAGE_CREATE" else None,
        )
        await members[away].say(QUAY, "@Understudy are you there?")
        await until(lambda: lost)
        await members[guild_ids[0]].say(QUAY, "@Understudy still here?")
        await until(lambda: heard(stage, guild_ids[0]) == ["hello", "still here?"])
        await until(lambda: heard(stage, away) == ["hello", "are you there?"])
        assert lost == {stage.client.get_guild(away).shard_id}
        assert stage.client.disconnected_s == 0


@pytest.mark.parametrize("shards", [1, 2])
async def test_the_bot_and_its_doctor_open_as_many_connections_as_discord_recommends(
    tmp_path, tiny_base, monkeypatch, shards
):
    monkeypatch.setattr(connection_checks, "GUILD_SETTLE_S", 0.1)
    discord = Sandbox(SKERROW_SEED, rate_window=0.02, more_guilds=SECOND, shards=shards)
    await discord.start()
    environment = {
        "UNDERSTUDY_HOME": str(tmp_path / "home"),
        "BASE_MODEL": tiny_base.source,
        "WEB_PORT": "0",
        "DISCORD_TOKEN": discord.token,
    }
    settings = load_settings(None, environment)
    with patch_discord(discord):
        async with open_app(settings, ShippedData.from_source_tree()) as app:
            assert isinstance(app.client, ShardedBotClient) == (shards > 1)
            assert {guild.shard_id for guild in app.client.guilds} == {*range(shards)}
        account, *_ = await connection_checks.check_discord(settings)
        assert account.state == "ok" and "in 2 servers" in account.found
    await discord.stop()
