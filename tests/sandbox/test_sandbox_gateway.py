"""The gateway against the real client: login, resume, and what a bot without the intent is not
told.
"""

import asyncio
import json
from dataclasses import replace

import aiohttp
import discord
import pytest

from sandbox import Sandbox, SandboxRefusal, patch_discord


async def test_login_shows_guild_channels_roles_and_members(sandbox, probe):
    guild = probe.guilds[0]
    assert probe.user.name == "Probe" and probe.user.id == sandbox.bot_id == probe.application_id
    assert (guild.id, guild.name) == (sandbox.guild_id, "Test guild")
    assert [channel.name for channel in guild.text_channels] == ["tavern", "cellar"]
    assert probe.room().topic == "warm"
    mora = await guild.fetch_member(int(sandbox.member("Mora").id))
    assert mora.display_name == "Mora" and "Moderator" in [role.name for role in mora.roles]
    assert guild.owner_id == int(sandbox.member("Olga").id)


async def test_members_are_sent_when_asked_for(sandbox, new_probe, run):
    client = new_probe(members=True)
    async with run(client, sandbox.token):
        found = await client.guilds[0].query_members(user_ids=[int(sandbox.member("Nils").id)])
        assert [member.display_name for member in found] == ["Nils"]
        everyone = {member.display_name async for member in client.guilds[0].fetch_members()}
        assert everyone == {"Mora", "Nils", "Olga", "Quinn", "Probe"}


async def test_members_are_found_by_the_beginning_of_a_name_and_anybody_by_their_id(sandbox, probe):
    guild = probe.guilds[0]
    for text, names in (("ni", ["Nils"]), ("NILS", ["Nils"]), ("ils", []), ("o", ["Olga"])):
        found = await guild.query_members(text, limit=5, cache=False)
        assert [member.display_name for member in found] == names, text
    olga = int(sandbox.member("Olga").id)
    assert (await probe.fetch_user(olga)).display_name == "Olga"
    with pytest.raises(discord.NotFound) as unknown:
        await probe.fetch_user(12)
    assert unknown.value.code == 10013


async def test_a_wrong_token_is_refused_by_http_and_gateway(sandbox, new_probe, run):
    with pytest.raises(discord.LoginFailure):
        async with run(new_probe(), "wrong"):
            pass
    client = new_probe()
    await client.login(sandbox.token)
    client.http.token = "wrong"
    with pytest.raises(discord.ConnectionClosed) as closed:
        await client.connect(reconnect=False)
    assert closed.value.code == 4004
    await client.close()


async def test_the_content_intent_needs_the_portals_grant(seed, new_probe, run):
    sandbox = Sandbox(replace(seed, message_content=False))
    await sandbox.start()
    with patch_discord(sandbox):
        with pytest.raises(discord.PrivilegedIntentsRequired):
            async with run(new_probe(), sandbox.token):
                pass
        client = new_probe(message_content=False)
        async with run(client, sandbox.token):
            said = await sandbox.member("Nils").say("tavern", "secret")
            assert (await client.room().fetch_message(int(said["id"]))).content == ""
    await sandbox.stop()


async def test_who_joins_and_leaves_is_told_with_the_members_intent_alone(sandbox, new_probe, run):
    client = new_probe(members=True)
    async with run(client, sandbox.token):
        joined = asyncio.create_task(client.wait_for("member_join", timeout=8))
        left = asyncio.create_task(client.wait_for("raw_member_remove", timeout=8))
        await asyncio.sleep(0)  # both listen
        nell = sandbox.join("Nell")
        sandbox.leave(nell["user"]["id"])
        assert (await joined).display_name == "Nell"
        assert (await left).user.id == int(nell["user"]["id"])
    with pytest.raises(SandboxRefusal):
        sandbox.leave(nell["user"]["id"])
    sandbox.withhold_members()
    with pytest.raises(discord.PrivilegedIntentsRequired):
        async with run(new_probe(members=True), sandbox.token):
            pass


async def test_without_the_intent_only_what_concerns_the_bot_has_content(sandbox, new_probe, run):
    client = new_probe(message_content=False)
    nils = sandbox.member("Nils")
    async with run(client, sandbox.token):
        await nils.say("tavern", "to nobody")
        assert (await client.receive()).content == ""
        await nils.say("tavern", "to you, @Probe")
        assert (await client.receive()).content == f"to you, <@{sandbox.bot_id}>"
        await client.room().send("mine")
        mine = await client.receive()
        assert mine.content == "mine"
        await nils.say("tavern", "answering the bot", reply_to={"id": str(mine.id)})
        assert (await client.receive()).content == "answering the bot"
        hook = await client.room().create_webhook(name="Mask")
        masked = await hook.send("behind a mask", wait=True)
        assert masked.content == "behind a mask"
        assert (await client.receive()).content == ""
        await nils.say("tavern", "answering the mask", reply_to={"id": str(masked.id)})
        reply = await client.receive()
        assert reply.content == "" and reply.reference.resolved.content == ""


async def test_a_dropped_client_resumes_and_gets_what_it_missed(sandbox, probe):
    await sandbox.drop_gateway(4000)
    await sandbox.member("Nils").say("tavern", "while you were gone")
    assert (await probe.receive()).content == "while you were gone"
    await asyncio.wait_for(probe.resumed.wait(), 5)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (["{broken"], 4002),
        ([{"op": 99}], 4003),
        ([{"op": 8, "d": {}}], 4003),
        ([{"op": 2, "d": {"token": "wrong", "intents": 0}}], 4004),
        ([{"op": 2, "d": {"token": "right"}}], 4013),
        ([{"op": 2, "d": {"token": "right", "intents": 0}}] * 2, 4005),
        ([{"op": 2, "d": {"token": "right", "intents": 0}}, {"op": 99}], 4001),
    ],
)
async def test_the_gateway_hangs_up_with_discords_code(sandbox, frames, code):
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{sandbox.url}/gateway") as socket:
        for frame in frames:
            text = (
                frame
                if isinstance(frame, str)
                else json.dumps(frame).replace("right", sandbox.token)
            )
            await socket.send_str(text)
        async with asyncio.timeout(2):
            async for _ in socket:
                pass
        assert socket.close_code == code


async def test_too_many_frames_and_too_many_logins(seed):
    sandbox = Sandbox(seed, rate_window=20.0)
    await sandbox.start()
    identify = {"op": 2, "d": {"token": sandbox.token, "intents": 0}}
    async with aiohttp.ClientSession() as http:
        address = f"{sandbox.url}/gateway"
        async with http.ws_connect(address) as first, http.ws_connect(address) as second:
            for socket, names in ((first, ["READY", "GUILD_CREATE"]), (second, [None])):
                await socket.send_json(identify)
                assert (await socket.receive_json())["op"] == 10
                answers = [await socket.receive_json(timeout=2) for _ in names]
                assert [answer["t"] for answer in answers] == names
            assert (answers[0]["op"], answers[0]["d"]) == (9, False)
            for _ in range(120):
                await first.send_json({"op": 3, "d": {}})
            async with asyncio.timeout(2):
                async for _ in first:
                    pass
            assert first.close_code == 4008
        headers = {"Authorization": f"Bot {sandbox.token}"}
        async with http.get(f"{sandbox.url}/api/v10/gateway/bot", headers=headers) as answer:
            assert (await answer.json())["session_start_limit"]["remaining"] == 999
    await sandbox.stop()


@pytest.mark.parametrize(
    "resume", [{}, {"session_id": "other", "seq": 1}, {"session_id": "{id}", "seq": 99}]
)
async def test_what_cannot_be_resumed_is_an_invalid_session(sandbox, resume):
    async with aiohttp.ClientSession() as http:
        async with http.ws_connect(f"{sandbox.url}/gateway") as socket:
            await socket.send_json({"op": 2, "d": {"token": sandbox.token, "intents": 0}})
            session = [await socket.receive_json(timeout=2) for _ in range(2)][1]["d"]["session_id"]
        async with http.ws_connect(f"{sandbox.url}/gateway") as socket:
            asked = json.dumps({"op": 6, "d": {"token": sandbox.token, **resume}}).replace(
                "{id}", session
            )
            await socket.send_str(asked)
            assert [(await socket.receive_json(timeout=2))["op"] for _ in range(2)] == [10, 9]
