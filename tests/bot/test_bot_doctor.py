"""`python -m bot doctor`: what it finds of settings, home, disk, port, token, Discord and the
trainer's doctor.
"""

import asyncio
import base64
import dataclasses
import json
import os
import re
import socket
import sys
from types import SimpleNamespace

import discord
import pytest

from bot.demo_guild import SKERROW_SEED
from bot.operations.doctor import connection_checks as discord_checks
from bot.operations.doctor import local_checks, trainer_check
from bot.operations.doctor.cached_results import CachedDoctor
from bot.operations.doctor.checks import BotCheck, failed_checks
from bot.operations.doctor.connection_checks import channels_in_use
from bot.platform.permissions import find_missing_permissions
from bot.settings import Settings
from bot.store import Channel, Store
from sandbox import Sandbox, patch_discord
from tests.bot.command_line import typed
from tests.bot.web.conftest import dashboard_in
from tests.fakes import until

ID = "1100000000000000001"
TOKEN = f"{base64.urlsafe_b64encode(ID.encode()).decode().rstrip('=')}.sandbox.signature"


@pytest.mark.parametrize(
    ("text", "state", "words"),
    [
        ("", "ok", "a sandbox on this machine"),
        (TOKEN, "ok", ID),
        ("not.a.token", "fail", "begins with no id"),
        (f"é{TOKEN}", "fail", "begins with no id"),
    ],
)
def test_a_token_is_reported_by_its_shape_and_never_shown(text, state, words):
    check = local_checks.check_token(text)
    assert check.state == state and words in check.found
    assert not text or text not in check.found + check.remedy
    assert local_checks.check_token(text, accepted=True).state == "ok", "Discord knows better"


def test_a_home_that_others_can_read_or_nobody_can_write_is_reported(tmp_path):
    check = local_checks.check_home(tmp_path / "new" / "home")
    assert check.state == "ok" and "is created" in check.found
    assert not (tmp_path / "new").exists()
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    assert local_checks.check_home(home).state == "ok"
    home.chmod(0o755)
    assert (
        local_checks.check_home(home).state == "warn"
        and "chmod 700" in local_checks.check_home(home).remedy
    )


def test_the_database_is_asked_to_be_in_use_unreadable_or_well(tmp_path):
    assert local_checks.check_database(tmp_path).found == "none yet"
    with Store.open(tmp_path / "understudy.sqlite"):
        assert "a bot is running on it" in local_checks.check_database(tmp_path).found
    assert "no bot is running on it" in local_checks.check_database(tmp_path).found
    (tmp_path / "understudy.sqlite").write_bytes(
        b"no database at all, though long enough to be looked at" * 20
    )
    assert local_checks.check_database(tmp_path).state == "fail"


@pytest.mark.parametrize(
    ("free", "state"), [(2**29, "fail"), (2 * 2**30, "warn"), (9 * 2**30, "ok")]
)
def test_a_full_disk_is_reported(tmp_path, free, state):
    assert (
        local_checks.check_disk(tmp_path, lambda place: SimpleNamespace(free=free)).state == state
    )


async def test_a_port_is_free_ours_or_another_program_s(tmp_path):
    assert local_checks.check_port(0, tmp_path).state == "ok"
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        other.settimeout(5)
        found = await asyncio.to_thread(local_checks.check_port, number, tmp_path)
    assert found.state == "fail" and "WEB_PORT" in found.remedy
    assert local_checks.check_port(number, tmp_path).state == "ok"
    async with dashboard_in(tmp_path) as dashboard:
        ours = int(dashboard.url.rpartition(":")[2])
        elsewhere = await asyncio.to_thread(
            local_checks.check_port, ours, tmp_path / "another-home"
        )
        assert (
            elsewhere.state == "fail"
            and "another home's bot" in elsewhere.found
            and "WEB_PORT" in elsewhere.remedy
        )
        with Store.open(tmp_path / "other" / "understudy.sqlite"):
            assert (
                "the bot answers"
                in (
                    await asyncio.to_thread(local_checks.check_port, ours, tmp_path / "other")
                ).found
            )
        assert (
            await asyncio.to_thread(local_checks.check_port, ours, tmp_path / "other")
        ).state == "fail", "no bot runs there now"
        dashboard.front.close()
        with Store.open(tmp_path / "other" / "understudy.sqlite"):  # it is starting or stopping
            assert (
                "the bot answers"
                in (
                    await asyncio.to_thread(local_checks.check_port, ours, tmp_path / "other")
                ).found
            )


def test_the_command_says_what_is_well_and_what_is_wrong_with_its_exit_code(
    tmp_path, monkeypatch, capsys
):
    code, out, err = typed(monkeypatch, capsys, tmp_path, "doctor", "--quick")
    assert code == 0 and err == ""
    assert (
        "ok    settings" in out
        and "ok    token" in out
        and re.search(r"ok +database +none yet", out)
    )
    code, out, _ = typed(
        monkeypatch, capsys, tmp_path, "doctor", "--quick", "--json", DISCORD_TOKEN="abc.d.e"
    )
    result = json.loads(out)
    assert code == 1 and not result["well"]
    assert [check["name"] for check in result["checks"] if check["state"] == "fail"] == ["token"]


def test_settings_that_cannot_be_read_are_a_finding_not_an_end(tmp_path, monkeypatch, capsys):
    code, out, err = typed(monkeypatch, capsys, tmp_path, "doctor", TOP_P="eleven")
    assert code == 1 and "fail  settings" in out and "TOP_P" in out and "→" in out
    assert "not work" in err and "settings" in err


# ------------------------------------------------------------------------------------------ Discord


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(discord_checks, "GUILD_SETTLE_S", 0.1)
    monkeypatch.setattr(local_checks, "CONNECT_TIMEOUT_S", 0.5)


@pytest.fixture
async def on_sandbox(tmp_path):
    """Discord, and settings with a token that it knows."""
    sandbox = Sandbox(SKERROW_SEED)
    await sandbox.start()
    with patch_discord(sandbox):
        yield (
            sandbox,
            Settings(discord_token=sandbox.token, home=tmp_path, message_content_intent=True),
        )
    await sandbox.stop()


async def test_all_that_discord_grants_is_well(on_sandbox):
    _, settings = on_sandbox
    found = await discord_checks.check_discord(settings)
    assert [check.name for check in found] == ["Discord", "intent", "permissions"]
    assert failed_checks(found) == [] and {check.state for check in found} == {"ok"}
    assert "in 1 server" in found[0].found


async def test_a_permission_that_is_missing_is_reported_with_one_remedy(on_sandbox):
    sandbox, settings = on_sandbox
    sandbox.set_permission("SEND_MESSAGES", False)
    sandbox.set_permission("MANAGE_WEBHOOKS", False)
    found = [
        check
        for check in await discord_checks.check_discord(settings)
        if check.name == "permissions"
    ]
    assert [check.state for check in found] == ["fail", "warn"], "without webhooks it still speaks"
    assert SKERROW_SEED.name in found[0].found and "Send Messages is missing" in found[0].found
    assert "Roles" in found[0].remedy and "allow Send Messages" in found[0].remedy


def test_only_channels_with_a_persona_are_looked_at(tmp_path):
    guild = SimpleNamespace(id=9, get_channel={1: "quay", 2: "inn"}.get)
    with Store.open(tmp_path / "understudy.sqlite") as store:
        for channel_id in (1, 3):  # the second one is gone
            store.channels.assign(Channel(9, channel_id, "oda", "everything", 7, 1.0))
        assert channels_in_use(guild, store) == ["quay"]


def test_what_one_channel_denies_is_reported_where_it_can_be_allowed():
    everything = discord.Permissions.all()
    silent = discord.Permissions(everything.value & ~discord.Permissions(send_messages=True).value)
    guild = SimpleNamespace(
        name="Skerrow", unavailable=False, me=SimpleNamespace(guild_permissions=everything)
    )
    channels = [
        SimpleNamespace(name="quay", permissions_for=lambda me: silent),
        SimpleNamespace(name="inn", permissions_for=lambda me: everything),
    ]
    (lack,) = find_missing_permissions(guild, channels)
    assert lack.where == "Skerrow #quay" and "Send Messages is missing" in lack.description
    assert "Edit Channel of #quay" in lack.remedy and "set Send Messages to allow" in lack.remedy


@pytest.mark.parametrize("taken", ["send_messages", "view_channel"])
@pytest.mark.parametrize("where", ["server", "channel"])
def test_what_is_lost_along_with_another_permission_has_no_remedy_of_its_own(taken, where):
    everything = discord.Permissions.all()
    silent = discord.Permissions.all()
    setattr(silent, taken, False)
    left = discord.Permissions(silent.value)
    discord.abc.GuildChannel._apply_implicit_permissions(None, left)
    me = SimpleNamespace(guild_permissions=silent if where == "server" else everything)
    channels = [
        SimpleNamespace(name=name, permissions_for=lambda me: left) for name in ("quay", "inn")
    ]
    found = find_missing_permissions(
        SimpleNamespace(name="Skerrow", unavailable=False, me=me), channels
    )
    assert {lack.need.permission for lack in found} == {taken}
    assert [lack.where for lack in found] == (
        ["Skerrow"] if where == "server" else ["Skerrow #quay", "Skerrow #inn"]
    )


@pytest.mark.parametrize(("portal", "state"), [(True, "ok"), (False, "warn")])
async def test_whether_the_portal_lets_people_install_the_bot_is_looked_at(tmp_path, portal, state):
    sandbox = Sandbox(dataclasses.replace(SKERROW_SEED, user_install=portal))
    await sandbox.start()
    with patch_discord(sandbox):
        for wanted in (True, False):
            settings = Settings(discord_token=sandbox.token, home=tmp_path, user_install=wanted)
            checks = await discord_checks.check_discord(settings)
            found = [check for check in checks if check.name == "installation"]
            assert [check.state for check in found] == ([state] if wanted else [])
    await sandbox.stop()


async def test_without_the_intent_the_rest_is_looked_at_all_the_same(tmp_path):
    sandbox = Sandbox(dataclasses.replace(SKERROW_SEED, message_content=False))
    await sandbox.start()
    with patch_discord(sandbox):
        wanted = Settings(discord_token=sandbox.token, home=tmp_path, message_content_intent=True)
        found = {check.name: check for check in await discord_checks.check_discord(wanted)}
    await sandbox.stop()
    assert (
        found["intent"].state == "warn" and "Privileged Gateway Intents" in found["intent"].remedy
    )
    assert found["permissions"].state == "ok"


async def test_a_token_that_discord_does_not_know_and_no_discord_at_all(on_sandbox):
    sandbox, settings = on_sandbox
    unknown = settings.model_copy(update={"discord_token": TOKEN})
    (check,) = await discord_checks.check_discord(unknown)
    assert check.state == "fail" and "does not accept" in check.found
    with pytest.raises(discord_checks.DiscordError, match="does not accept"):
        await discord_checks.fetch_application_id(TOKEN)
    assert await discord_checks.fetch_application_id(
        sandbox.token
    ) == local_checks.token_application_id(sandbox.token)
    await sandbox.stop()
    (check,) = await discord_checks.check_discord(settings)
    assert (
        check.state == "warn"
        and "cannot be reached" in check.found
        and "Check the network" in check.remedy
    )
    with pytest.raises(discord_checks.DiscordError, match="cannot be reached"):
        await discord_checks.fetch_application_id(sandbox.token)


async def test_without_a_token_nobody_asks_discord():
    assert await discord_checks.check_discord(Settings()) == []


# ----------------------------------------------------------------------------- the trainer's doctor

SAYS = (
    "import json; print(json.dumps({'checks': [dict(name='torch', state='warn', found='slow', "
    "remedy='wait')]}))"
)


async def test_the_trainer_s_doctor_is_asked_in_a_process_without_secrets():
    assert await trainer_check.check_trainer(
        "embedded", os.environ, (sys.executable, "-c", SAYS)
    ) == [BotCheck("torch", "warn", "slow", "wait")]
    shows = "import os, sys; sys.exit(os.environ.get('DISCORD_TOKEN', 'no token'))"
    (check,) = await trainer_check.check_trainer(
        "embedded", {**os.environ, "DISCORD_TOKEN": "s3cret"}, (sys.executable, "-c", shows)
    )
    assert check.state == "fail" and "no token" in check.found


async def test_a_doctor_that_never_ends_is_ended(tmp_path):
    mark = tmp_path / "mark"
    code = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    (check,) = await trainer_check.check_trainer(
        "embedded", os.environ, (sys.executable, "-c", code), patience_s=1.5
    )
    assert "did not end" in check.found
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


async def test_what_was_found_is_kept_and_only_one_looks_at_a_time(tmp_path):
    go = asyncio.Event()
    asked = []

    async def ask(base_model):
        asked.append(base_model)
        await go.wait()
        return [BotCheck("torch", "ok", "there")]

    kept = CachedDoctor(ask)
    assert await kept.latest(tmp_path) is None
    assert kept.begin(tmp_path, "embedded") and not kept.begin(tmp_path, "embedded")
    go.set()
    await until(lambda: not kept.is_running)
    found = await CachedDoctor(ask).latest(tmp_path)
    assert (
        asked == ["embedded"]
        and found.base_model == "embedded"
        and found.checks == (BotCheck("torch", "ok", "there"),)
    )
    (tmp_path / "cache" / "doctor.json").write_text("{half")
    assert await kept.latest(tmp_path) is None
    await kept.close()
