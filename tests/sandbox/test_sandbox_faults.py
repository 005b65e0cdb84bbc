"""What a real guild cannot do on demand, and what the bot and the members notice of it."""

import asyncio
import re
import time
from datetime import UTC, datetime

import discord
import pytest

from sandbox import Sandbox, SandboxRefusal, patch_discord
from sandbox.object_store import time_of

WRITTEN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")


def result(sandbox):
    """What the pages were told of the controls, last first."""
    return [data for kind, data in sandbox.events if kind == "controls"][::-1]


async def test_the_controls_show_how_things_stand(sandbox, probe):
    assert sandbox.controls()["connected"] and result(sandbox)[0] == sandbox.controls()
    hook = await probe.room().create_webhook(name="Mask")
    assert result(sandbox)[0]["webhooks"] == [
        {"id": str(hook.id), "name": "Mask", "channel_id": str(hook.channel_id)}
    ]
    sandbox.delay(99)
    sandbox.rate_limit(-1)
    assert result(sandbox)[0]["delay_s"] == 10.0 and result(sandbox)[0]["rate_limited"] == 0
    await probe.close()
    await sandbox.wait_for("controls", lambda shown: not shown["connected"], 2.0, since=0)


async def test_answers_and_events_come_late(sandbox, probe):
    sandbox.delay(0.6)
    began = time.monotonic()
    await sandbox.member("Nils").say("tavern", "one")
    await sandbox.member("Nils").say("tavern", "two")
    assert [(await probe.receive()).content, (await probe.receive()).content] == ["one", "two"]
    assert 0.58 < time.monotonic() - began < 1.15  # each by itself, not one after the other
    began = time.monotonic()
    await probe.room().send("late")
    assert time.monotonic() - began > 0.58


async def test_a_permission_is_revoked_and_granted(sandbox, probe):
    sandbox.set_permission("SEND_MESSAGES", False)
    with pytest.raises(discord.Forbidden) as refused:
        await probe.room().send("x")
    assert refused.value.code == 50013
    assert {
        "name": "SEND_MESSAGES",
        "label": "Send Messages",
        "granted": False,
    } in sandbox.controls()["permissions"]
    sandbox.set_permission("SEND_MESSAGES", True)
    await probe.room().send("x")
    assert probe.guilds[0].me.guild_permissions.send_messages
    with pytest.raises(SandboxRefusal, match="no permission called FLY"):
        sandbox.set_permission("FLY", True)


async def test_a_webhook_is_deleted_behind_the_bots_back(sandbox, probe):
    hook = await probe.room().create_webhook(name="Mask")
    changed = asyncio.create_task(probe.wait_for("webhooks_update", timeout=5))
    await asyncio.sleep(0)
    sandbox.delete_webhook(str(hook.id))
    assert (await changed).name == "tavern" and sandbox.controls()["webhooks"] == []
    with pytest.raises(discord.NotFound):
        await hook.send("x")
    with pytest.raises(SandboxRefusal, match="was deleted"):
        sandbox.delete_webhook(str(hook.id))


async def test_content_is_withheld_from_a_running_session_and_given_back(
    sandbox, probe, new_probe, run
):
    nils = sandbox.member("Nils")
    room = await sandbox.member("Nils").dm()
    sandbox.withhold_content()
    said = await nils.say("tavern", "secret")
    assert (await probe.receive()).content == ""
    assert (await probe.room().fetch_message(int(said["id"]))).content == ""
    await nils.say(room, "between us")
    assert (await probe.receive()).content == "between us"
    sandbox.advance(60)
    with pytest.raises(discord.PrivilegedIntentsRequired):
        async with run(new_probe(), sandbox.token):
            pass
    sandbox.withhold_content(False)
    await nils.say("tavern", "open again")
    assert (await probe.receive()).content == "open again"


async def test_times_and_ids_agree(sandbox, probe):
    sent = await probe.room().send("now")
    kept = sandbox.messages("tavern")[0]
    assert WRITTEN.fullmatch(kept["timestamp"])
    assert datetime.fromisoformat(kept["timestamp"]).timestamp() == pytest.approx(
        time_of(kept["id"]), abs=0.001
    )
    assert sent.created_at == discord.utils.snowflake_time(sent.id)
    sandbox.advance(3600)
    later = await probe.room().send("later")
    assert 3600 <= (later.created_at - sent.created_at).total_seconds() < 3605
    assert (await later.edit(content="!")).edited_at >= later.created_at
    joined = (await probe.guilds[0].fetch_member(int(sandbox.member("Nils").id))).joined_at
    assert abs((datetime.now(UTC) - joined).total_seconds()) < 60
    with pytest.raises(SandboxRefusal, match="only go forward"):
        sandbox.advance(-1)


async def test_a_clock_moved_on_stays_so_in_the_state(seed, tmp_path):
    first = Sandbox(seed, tmp_path / "guild.sqlite")
    first.advance(3600)
    said = await first.member("Nils").say("tavern", "from the future")
    await first.stop()
    second = Sandbox(seed, tmp_path / "guild.sqlite")
    assert 3590 < second.controls()["clock_ahead_s"] <= 3600
    later = await second.member("Nils").say("tavern", "after it")
    assert 0 <= time_of(later["id"]) - time_of(said["id"]) < 5
    await second.stop()


async def test_an_enforced_nonce_is_forgotten_after_minutes(sandbox, api):
    path = f"/channels/{sandbox.channel('tavern')['id']}/messages"
    body = {"content": "x", "nonce": "n", "enforce_nonce": True}
    first, second = [(await api("POST", path, body))[1]["id"] for _ in range(2)]
    assert first == second
    sandbox.advance(301)
    later = (await api("POST", path, body))[1]["id"]
    assert later != first
    assert (await api("POST", path, {"content": "x", "nonce": "n"}))[1]["id"] != later
    assert (await api("POST", path, {"content": "x", "nonce": "n" * 26}))[1]["code"] == 50035


async def test_the_clock_ends_waits_and_tokens(sandbox, probe):
    asked = asyncio.Event()

    @probe.tree.command(description="Never answers")
    async def sleep(interaction: discord.Interaction) -> None:
        asked.set()

    @probe.tree.command(description="Keeps its token")
    async def keep(interaction: discord.Interaction) -> None:
        probe.kept = interaction
        await interaction.response.send_message("kept")

    await probe.tree.sync()
    waiting = asyncio.create_task(sandbox.member("Nils").slash("tavern", "sleep"))
    await asyncio.wait_for(asked.wait(), 2)
    sandbox.advance(3)
    assert (
        await asyncio.wait_for(waiting, 2.5)
    ).type is None  # the three seconds are not waited for
    await sandbox.member("Nils").slash("tavern", "keep")
    sandbox.advance(14 * 60)
    await probe.kept.followup.send("in time")
    sandbox.advance(60)
    with pytest.raises(discord.HTTPException) as late:
        await probe.kept.followup.send("late")
    assert (late.value.status, late.value.code) == (401, 50027)


async def test_a_dropped_bot_without_the_sandboxs_memory_begins_anew(
    seed, new_probe, run, monkeypatch
):
    """More happened while it was away than is kept: the bot is told so and logs in again."""
    monkeypatch.setattr("sandbox.gateway_session.MAX_REPLAY_FRAMES", 5)
    slept = asyncio.sleep
    monkeypatch.setattr(
        "discord.gateway.asyncio.sleep", lambda delay, *rest: slept(min(delay, 0.01), *rest)
    )
    sandbox = Sandbox(seed, rate_window=0.001)
    client = new_probe()
    await sandbox.start()
    with patch_discord(sandbox):
        async with run(client, sandbox.token):
            await sandbox.drop_gateway()
            for number in range(10):
                await sandbox.member("Nils").say("tavern", str(number))
            await asyncio.wait_for(client.wait_for("ready"), 8)
            await sandbox.member("Nils").say("tavern", "hello again")
            assert (await client.receive()).content == "hello again"
    await sandbox.stop()
