"""The bot's own nickname and picture in a guild."""

import struct
import zlib

import aiohttp
import discord
import pytest

from sandbox import Sandbox, bot_member, patch_discord
from tests.sandbox.conftest import RATE_WINDOW, SEED, Probe, running


def picture(shade: int) -> bytes:
    """A PNG of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes([0, shade]))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture
async def served(tmp_path):
    """A sandbox with a state file, and a client without the members intent."""
    sandbox = Sandbox(SEED, tmp_path / "state.sqlite", rate_window=RATE_WINDOW)
    await sandbox.start()
    probe = Probe(members=False)
    with patch_discord(sandbox):
        async with running(probe, sandbox.token):
            yield sandbox, probe
    await sandbox.stop()


async def test_the_bot_is_told_of_its_new_face_and_the_page_serves_it(served):
    sandbox, probe = served
    me = probe.guilds[0].me
    since = len(sandbox.events)
    await me.edit(nick="Oda", avatar=picture(1))
    await sandbox.wait_for("member", lambda member: member["nick"] == "Oda", since=since)
    message = await probe.room().send("There is soup.")
    assert me.display_name == "Oda" and me.guild_avatar and message.author.display_name == "Oda"
    assert await me.guild_avatar.read() == picture(1)
    async with aiohttp.ClientSession() as web:
        state = await (await web.get(f"{sandbox.url}/page-api/state")).json()
    assert (state["bot"]["username"], state["bot_member"]["nick"]) == ("Probe", "Oda")
    await me.edit(nick=None, avatar=None)
    await sandbox.wait_for("member", lambda member: member["nick"] is None, since=since)
    await probe.room().send("No more.")
    assert (me.nick, me.guild_avatar) == (None, None)


async def test_the_face_outlives_a_restart(served, tmp_path):
    sandbox, probe = served
    await probe.guilds[0].me.edit(nick="Oda", avatar=picture(1))
    sandbox.close_state()
    again = Sandbox(SEED, tmp_path / "state.sqlite", rate_window=RATE_WINDOW)
    bot = again._container.guild.member(str(again.bot_id))
    assert bot["nick"] == "Oda" and again._container.store.file(int(bot["avatar"], 16))
    again.close_state()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"nick": "x" * 33}, "Must be 32 or fewer in length."),
        ({"nick": "🦀" * 17}, "Must be 32 or fewer in length."),
        ({"avatar": "oda.png"}, "Invalid image data"),
        ({"avatar": "data:image/png;base64,%%%"}, "Invalid image data"),
        ({"avatar": "data:image/png;base64,aGVsbG8="}, "Invalid image data"),
        ({"avatar": "data:image/gif;base64,"}, "Invalid image data"),
    ],
)
async def test_what_discord_would_not_take_changes_nothing(served, fields, reason):
    _, probe = served
    me = probe.guilds[0].me
    with pytest.raises(discord.HTTPException, match=reason) as refused:
        await probe.http.edit_my_member(me.guild.id, **{"nick": "Oda", **fields})
    assert refused.value.code == 50035 and me.nick is None


async def test_a_picture_that_is_too_large_is_refused(served, monkeypatch):
    _, probe = served
    monkeypatch.setattr(bot_member, "MAX_PICTURE_BYTES", len(picture(1)))
    me = probe.guilds[0].me
    assert await me.edit(avatar=picture(1))
    with pytest.raises(discord.HTTPException, match="larger than 10240"):
        await me.edit(avatar=picture(1) + b"more")


async def test_the_nickname_takes_a_permission_and_the_picture_none(served):
    sandbox, probe = served
    me = probe.guilds[0].me
    sandbox.set_permission("CHANGE_NICKNAME", False)
    with pytest.raises(discord.Forbidden) as refused:
        await me.edit(nick="Oda")
    assert refused.value.code == 50013
    assert await me.edit(avatar=picture(1))


async def test_pictures_that_change_too_often_are_refused(served):
    _, probe = served
    me = probe.guilds[0].me
    with pytest.raises(discord.HTTPException, match="too fast") as refused:
        for shade in range(6):
            await me.edit(avatar=picture(shade))
    assert refused.value.code == 50035
    assert await me.edit(avatar=None)
