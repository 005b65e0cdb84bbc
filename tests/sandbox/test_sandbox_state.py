"""The sandbox's own life: its state file, its command line, where it listens."""

import asyncio
import os
import signal
import socket
import sys
from dataclasses import replace

import aiohttp
import pytest

from sandbox import ChannelSeed, MemberSeed, NotLoopback, Sandbox, StateUnreadable, patch_discord
from sandbox.__main__ import example_guild, main


async def test_a_restart_keeps_ids_messages_commands_and_webhooks(seed, tmp_path, new_probe, run):
    file = tmp_path / "guild.sqlite"
    first = Sandbox(seed, file)
    await first.start()
    client = new_probe()

    @client.tree.command(description="stays")
    async def stay(interaction):
        await interaction.response.send_message("here")

    with patch_discord(first):
        async with run(client, first.token):
            command = (await client.tree.sync())[0]
            hook = await client.room().create_webhook(name="Mask")
            said = await hook.send("remember me", wait=True)
    before = (
        first.guild_id,
        first.bot_id,
        first.token,
        first.channel("tavern")["id"],
        first.member("Nils").id,
    )
    await first.stop()

    grown = replace(
        seed,
        channels=(*seed.channels, ChannelSeed("attic")),
        members=(*seed.members, MemberSeed("Pia")),
    )
    second = Sandbox(grown, file)
    await second.start()
    assert before == (
        second.guild_id,
        second.bot_id,
        second.token,
        second.channel("tavern")["id"],
        second.member("Nils").id,
    )
    assert second.channel("attic") and second.member("Pia")
    assert [message["id"] for message in second.messages("tavern")] == [str(said.id)]
    client = new_probe()
    with patch_discord(second):
        async with run(client, second.token):
            assert [one.id for one in await client.tree.fetch_commands()] == [command.id]
            kept = await client.room().webhooks()
            assert [one.id for one in kept] == [hook.id]
            await kept[0].edit_message(said.id, content="remembered")
    assert second.messages("tavern")[0]["content"] == "remembered"
    assert int(second.messages("tavern")[0]["id"]) < int(
        (await second.member("Pia").say("attic", "new"))["id"]
    )
    await second.stop()


def test_a_file_that_is_not_its_own_is_left_alone(seed, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("not a database, " * 100)
    with pytest.raises(StateUnreadable, match="move the file away"):
        Sandbox(seed, file)
    assert file.read_text().startswith("not a database")


async def test_a_damaged_file_is_named_and_left_alone(seed, tmp_path):
    file = tmp_path / "guild.sqlite"
    sandbox = Sandbox(seed, file)
    for number in range(50):
        await sandbox.member("Nils").say("tavern", f"{number} " + "word " * 300)
    await sandbox.stop()
    whole = file.read_bytes()
    damaged = whole[: 3 * 4096] + os.urandom(len(whole) - 3 * 4096)
    file.write_bytes(damaged)
    with pytest.raises(StateUnreadable, match="move the file away"):
        Sandbox(seed, file)
    assert file.read_bytes() == damaged


async def test_one_state_file_serves_one_sandbox(seed, tmp_path):
    first = Sandbox(seed, tmp_path / "guild.sqlite")
    with pytest.raises(StateUnreadable, match="stop the other sandbox"):
        Sandbox(seed, tmp_path / "guild.sqlite")
    await first.stop()


async def test_it_listens_on_loopback_only(seed):
    for host in ("0.0.0.0", "192.168.1.2", "example.org"):
        sandbox = Sandbox(seed)
        with pytest.raises(NotLoopback):
            await sandbox.start(host)
        await sandbox.stop()


async def test_a_used_port_is_an_oserror(sandbox, seed):
    other = Sandbox(seed)
    with pytest.raises(OSError):
        await other.start(port=int(sandbox.url.rsplit(":", 1)[1]))
    await other.start()
    await other.stop()


def test_impossible_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="at least one member"):
        replace(seed, members=())
    with pytest.raises(ValueError, match="no such role: Ghost"):
        replace(seed, members=(MemberSeed("Nils", ("Ghost",)),))


async def test_waiting_for_an_unknown_kind_is_a_mistake(sandbox):
    with pytest.raises(ValueError, match="no event is called"):
        await sandbox.wait_for("mesage")
    with pytest.raises(TimeoutError):
        await sandbox.wait_for("message", timeout_s=0.01)


@pytest.mark.parametrize(
    ("arguments", "code", "advice"),
    [
        (("--port", "{used}"), 1, "choose another with --port"),
        (("--port", "99999"), 2, "choose one from 0 to 65535"),
        (("--host", "0.0.0.0"), 1, "loopback only"),
        (("--state", "{folder}/bad"), 1, "move the file away"),
        (("--state", "{folder}/nowhere/guild.sqlite"), 1, "in a folder that can be written"),
    ],
)
def test_the_command_line_says_what_to_do(arguments, code, advice, tmp_path, capsys):
    (tmp_path / "bad").write_text("nonsense " * 200)
    with socket.create_server(("127.0.0.1", 0)) as used:
        facts = {"used": used.getsockname()[1], "folder": tmp_path}
        assert main([argument.format(**facts) for argument in arguments]) == code
    out, result = capsys.readouterr()
    assert out == "" and advice in result and len(result.splitlines()) == 1


WITHOUT_SIGNAL_HANDLERS = """
import asyncio, sys
from sandbox.__main__ import main

def add_signal_handler(*_):
    raise NotImplementedError

asyncio.SelectorEventLoop.add_signal_handler = add_signal_handler
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("program", "number"),
    [(("-m", "sandbox"), signal.SIGTERM), (("-c", WITHOUT_SIGNAL_HANDLERS), signal.SIGINT)],
    ids=("here", "as on Windows"),
)
async def test_it_runs_alone(tmp_path, program, number):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *program, "--port", "0", "--state", str(tmp_path / "guild.sqlite")),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        page, token = [(await process.stdout.readline()).decode().split()[1] for _ in range(2)]
        bot = {"Authorization": f"Bot {token}"}
        async with (
            aiohttp.ClientSession(headers=bot) as http,
            http.get(f"{page}/api/v10/users/@me") as answer,
        ):
            assert (await answer.json())["username"] == "Bot"
        process.send_signal(number)
        assert await process.wait() == 0


def test_the_example_guild_has_one_of_each():
    example = example_guild("Example")
    assert [len(member.roles) for member in example.members] == [0, 1, 1, 0, 1]
    assert [channel.nsfw for channel in example.channels] == [False, False, True]
