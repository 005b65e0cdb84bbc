"""Several guilds on several shards: discord.py's own sharded clients, and each session's share of
the events.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import discord
import pytest
from discord.ext import commands

from sandbox import DepartingMember, MemberSeed, Permission, Sandbox, SandboxRefusal, patch_discord
from sandbox.__main__ import main
from tests.fakes import until

SHARDS = 3


@pytest.fixture
def seeds(seed):
    """Six guilds; one person is in the fourth one only."""
    more = [replace(seed, name=f"Guild {number}") for number in range(2, 7)]
    more[2] = replace(more[2], members=(*seed.members, MemberSeed("Rhea")))
    return seed, more


@pytest.fixture
async def sandbox(seeds) -> AsyncIterator[Sandbox]:
    made = Sandbox(seeds[0], rate_window=0.002, more_guilds=seeds[1], shards=SHARDS)
    await made.start()
    with patch_discord(made):
        yield made
    await made.stop()


def shard_of(guild_id: int) -> int:
    return (guild_id >> 22) % SHARDS


class ShardedBot(commands.AutoShardedBot):
    """Remembers its messages, and echoes them."""

    def __init__(self, **options: Any) -> None:
        intents = discord.Intents(
            guilds=True, guild_messages=True, dm_messages=True, message_content=True
        )
        super().__init__("!", intents=intents, guild_ready_timeout=0.02, **options)
        self.seen: list[tuple[int | None, str]] = []

    async def before_identify_hook(self, shard_id: int, *, initial: bool = False) -> None:
        await asyncio.sleep(0.02)

    async def on_message(self, message: discord.Message) -> None:
        if message.author != self.user:
            self.seen.append((message.guild and message.guild.id, message.content))
            await message.channel.send(f"echo {message.content}")


async def echoes(sandbox: Sandbox, count: int) -> None:
    await until(
        lambda: (
            sum(k == "message" and d["content"].startswith("echo") for k, d in sandbox.events)
            >= count
        )
    )


async def test_an_auto_sharded_bot_takes_what_discord_recommends(sandbox, run):
    bot = ShardedBot()

    @bot.tree.command()
    async def where(interaction: discord.Interaction) -> None:
        await interaction.response.send_message(f"shard {interaction.guild.shard_id}")

    async with run(bot, sandbox.token):
        assert bot.shard_count == SHARDS and set(bot.shards) == {0, 1, 2}
        assert {guild.id for guild in bot.guilds} == set(sandbox.guild_ids)
        assert {guild.id: guild.shard_id for guild in bot.guilds} == {
            one: shard_of(one) for one in sandbox.guild_ids
        }
        # Guilds that are created together are dealt out to the shards in turn.
        assert sorted(map(shard_of, sandbox.guild_ids)) == [0, 0, 1, 1, 2, 2]
        await bot.tree.sync()
        for guild_id in sandbox.guild_ids:
            nils = sandbox.member("Nils", guild_id)
            await nils.say("tavern", f"in {guild_id}")
            answer = await nils.slash("tavern", "where")
            assert answer.message["content"] == f"shard {shard_of(guild_id)}"
        await echoes(sandbox, 6)
        assert sorted(bot.seen) == sorted((one, f"in {one}") for one in sandbox.guild_ids)
        for guild_id in sandbox.guild_ids:
            said = [one["content"] for one in sandbox.messages("tavern", guild_id)]
            assert f"echo in {guild_id}" in said and len(said) == 3
        assert (await bot.application_info()).approximate_guild_count == 6


async def test_each_session_gets_its_shard_alone_and_direct_messages_go_to_shard_0(sandbox, run):
    low = ShardedBot(shard_ids=[0], shard_count=SHARDS)
    high = ShardedBot(shard_ids=[1, 2], shard_count=SHARDS)
    async with run(low, sandbox.token), run(high, sandbox.token):
        rhea = sandbox.member("Rhea", sandbox.guild_ids[3])
        await rhea.say(await rhea.dm(), "hello")
        for guild_id in sandbox.guild_ids:
            await sandbox.member("Nils", guild_id).say("tavern", "here")
        await echoes(sandbox, 7)
        first = {one for one in sandbox.guild_ids if shard_of(one) == 0}
        assert {guild.id for guild in low.guilds} == first
        assert sorted(low.seen, key=str) == sorted(
            [(None, "hello"), *((one, "here") for one in first)], key=str
        )
        assert {guild_id for guild_id, _ in high.seen} == set(sandbox.guild_ids) - first and len(
            high.seen
        ) == 4
        opened = await low.create_dm(discord.Object(int(rhea.id)))
        assert opened.id == int((await rhea.dm())["id"])


async def test_a_sharded_session_resumes_alone(sandbox, run):
    bot = ShardedBot(shard_ids=[0, 1], shard_count=SHARDS)
    resumed = []
    bot.on_shard_resumed = lambda shard_id: resumed.append(shard_id) or asyncio.sleep(0)
    async with run(bot, sandbox.token):
        guild_id = next(one for one in sandbox.guild_ids if shard_of(one) == 1)
        bot.get_shard(
            1
        )._parent.ws.socket._response.connection.transport.abort()  # this one's socket breaks
        await sandbox.member("Nils", guild_id).say("tavern", "meanwhile")
        await echoes(sandbox, 1)
        assert bot.seen == [(guild_id, "meanwhile")] and resumed == [1]


async def identify(
    http: aiohttp.ClientSession, sandbox: Sandbox, shard: object
) -> tuple[Any, list[Any]]:
    """A socket that has identified, and the frames after HELLO up to the first that is no
    GUILD_CREATE.
    """
    socket = await http.ws_connect(f"{sandbox.url}/gateway")
    await socket.send_json(
        {"op": 2, "d": {"token": sandbox.token, "intents": 1 << 9, "shard": shard}}
    )
    await socket.receive()
    answer = await socket.receive(timeout=2)
    return socket, answer.json() if answer.type is aiohttp.WSMsgType.TEXT else answer


@pytest.mark.parametrize("shard", [[3, 3], [-1, 3], [0, 0], [1], "0/3", ["0", 3], None])
async def test_an_invalid_shard_is_closed_with_4010(sandbox, shard):
    async with aiohttp.ClientSession() as http:
        socket, answer = await identify(http, sandbox, shard)
        assert answer.type is aiohttp.WSMsgType.CLOSE and socket.close_code == 4010


async def test_discord_py_stops_at_an_invalid_shard(sandbox, run):
    with pytest.raises(discord.ConnectionClosed) as closed:
        async with run(ShardedBot(shard_ids=[SHARDS], shard_count=SHARDS), sandbox.token):
            pass
    assert closed.value.code == 4010


async def test_shards_identify_once_in_five_seconds(seeds):
    sandbox = Sandbox(seeds[0], more_guilds=seeds[1], shards=SHARDS)
    await sandbox.start()
    async with aiohttp.ClientSession() as http:
        answers = [(await identify(http, sandbox, [shard, SHARDS]))[1] for shard in range(2)]
        assert [answer["t"] for answer in answers] == ["READY", None]
        assert answers[0]["d"]["shard"] == [0, SHARDS]
        assert (answers[1]["op"], answers[1]["d"]) == (9, False)
        sandbox.advance(5)
        assert (await identify(http, sandbox, [1, SHARDS]))[1]["t"] == "READY"
    await sandbox.stop()


async def test_a_shards_session_outlives_another_shards_login(sandbox):
    guild_id = next(one for one in sandbox.guild_ids if shard_of(one) == 1)
    async with aiohttp.ClientSession() as http:
        socket, ready = await identify(http, sandbox, [1, SHARDS])
        await socket.close()
        await identify(http, sandbox, [0, SHARDS])
        await sandbox.member("Nils", guild_id).say("tavern", "meanwhile")
        again = await http.ws_connect(f"{sandbox.url}/gateway")
        await again.send_json(
            {
                "op": 6,
                "d": {
                    "token": sandbox.token,
                    "session_id": ready["d"]["session_id"],
                    "seq": ready["s"],
                },
            }
        )
        frames = [await again.receive_json(timeout=2) for _ in range(5)]
        assert [frame["t"] for frame in frames] == [
            None,
            *["GUILD_CREATE"] * 2,
            "MESSAGE_CREATE",
            "RESUMED",
        ]
        assert frames[3]["d"]["guild_id"] == str(guild_id)


async def test_guilds_share_accounts_but_nothing_else(sandbox, api):
    first, second = sandbox.guild_ids[:2]
    assert sandbox.member("Nils", first).id == sandbox.member("Nils", second).id
    assert sandbox.channel("tavern", first)["id"] != sandbox.channel("tavern", second)["id"]
    with pytest.raises(SandboxRefusal):
        await sandbox.member("Nils", first).say(sandbox.channel("tavern", second), "over there")
    with pytest.raises(KeyError):
        sandbox.member("Rhea", second)
    await sandbox.member("Nils", second).say("tavern", "only here")
    assert sandbox.messages("tavern") == [] and len(sandbox.messages("tavern", second)) == 1
    _, hook, _ = await api(
        "POST", f"/channels/{sandbox.channel('tavern', second)['id']}/webhooks", {"name": "Mask"}
    )
    assert (await api("GET", f"/guilds/{first}/webhooks"))[1] == []
    assert [one["id"] for one in (await api("GET", f"/guilds/{second}/webhooks"))[1]] == [
        hook["id"]
    ]
    _, sent, _ = await api(
        "POST", f"/webhooks/{hook['id']}/{hook['token']}?wait=true", {"content": "masked"}
    )
    assert sent["channel_id"] == sandbox.channel("tavern", second)["id"]
    assert (await api("GET", "/guilds/1"))[0] == 404
    assert (await api("GET", "/gateway/bot"))[1]["shards"] == SHARDS


async def test_the_page_shows_one_guild(sandbox):
    first, second = sandbox.guild_ids[:2]
    async with aiohttp.ClientSession(f"{sandbox.url}/page-api/") as http:

        async def get(path: str, **query: object) -> Any:
            async with http.get(path, params=query) as answer:
                return await (answer.json() if answer.status == 200 else answer.text())

        home = await get("state")
        other = await get("state", guild=second)
        assert [one["name"] for one in home["guilds"]] == [
            "Test guild",
            *(f"Guild {n}" for n in range(2, 7)),
        ]
        assert (home["guild_id"], other["guild_id"]) == (str(first), str(second))
        channel = other["channels"][0]["id"]
        query = {"as": other["me"], "channel": channel}
        assert await get("messages", guild=second, **query) == []
        assert "no such channel" in await get("messages", guild=first, **query)
        assert "no such guild" in await get("state", guild=7)
        permission = {
            "as": other["me"],
            "name": "permission",
            "permission": "MANAGE_WEBHOOKS",
            "granted": False,
        }
        async with http.post("control", params={"guild": second}, json=permission) as answer:
            assert answer.status == 200
        held = {name: int(sandbox._shared.of_guild(str(one)).guild.bot_role["permissions"])
                for name, one in (("first", first), ("second", second))}  # fmt: skip
        assert (
            held["first"] & Permission.MANAGE_WEBHOOKS
            and not held["second"] & Permission.MANAGE_WEBHOOKS
        )


async def test_ids_stay_and_guilds_can_be_added(tmp_path, seeds):
    file = tmp_path / "guilds.sqlite"
    one = Sandbox(seeds[0], file)
    home = one.guild_ids
    nils = one.member("Nils").id
    token = one.token
    one.close_state()
    three = Sandbox(seeds[0], file, more_guilds=seeds[1][:2])
    assert three.guild_ids[:1] == home and (
        three.token,
        three.member("Nils", three.guild_ids[2]).id,
    ) == (token, nils)
    ids = three.guild_ids
    channel = three.channel("tavern", three.guild_ids[1])["id"]
    three.close_state()
    again = Sandbox(seeds[0], file, more_guilds=seeds[1][:2])
    assert again.guild_ids == ids and again.channel("tavern", ids[1])["id"] == channel
    again.close_state()


async def test_an_account_is_deleted_in_all_guilds(tmp_path, seeds):
    file = tmp_path / "guilds.sqlite"
    sandbox = Sandbox(seeds[0], file, more_guilds=seeds[1])
    nils = sandbox.member("Nils").id
    for guild_id in sandbox.guild_ids:
        await sandbox.member("Nils", guild_id).say("tavern", "xbelkor was here")
    person = DepartingMember(
        [nils], [], lambda text: "xbelkor" in text, lambda text: text, lambda name, data: False
    )
    sandbox.erase(person)
    assert not any(sandbox.messages("tavern", one) for one in sandbox.guild_ids)
    sandbox.close_state()
    again = Sandbox(seeds[0], file, more_guilds=seeds[1])
    assert {again.member("Nils", one).id for one in again.guild_ids}.isdisjoint({nils})
    assert len({again.member("Nils", one).id for one in again.guild_ids}) == 1
    again.close_state()


@pytest.mark.parametrize("arguments", [("--guilds", "0"), ("--shards", "x"), ("--shards", "1001")])
def test_impossible_numbers_are_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2 and "is not a number from 1 to" in capsys.readouterr().err
