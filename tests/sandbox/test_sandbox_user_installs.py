"""Commands of people who have installed the application for themselves, from places where the bot is
not, against the real client.
"""

import asyncio
from dataclasses import replace

import discord
import pytest
from discord import app_commands

from sandbox import Sandbox, SandboxRefusal
from sandbox.guild_seed import MEMBER_PERMISSIONS, Permission
from tests.sandbox.conftest import SEED

EVERYWHERE = app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True)
BY_PEOPLE = app_commands.AppInstallationType(guild=True, user=True)


@pytest.fixture
async def asked(probe):
    """The interactions that the bot gets for /ask; it answers each, publicly if it can."""
    received = asyncio.Queue()

    async def ask(interaction: discord.Interaction):
        received.put_nowait(interaction)
        await interaction.response.send_message("yes?")

    command = app_commands.Command(name="ask", description="Asks.", callback=ask)
    command.allowed_contexts = EVERYWHERE
    command.allowed_installs = BY_PEOPLE
    probe.tree.add_command(command)
    manage = app_commands.Command(name="manage", description="Manages.", callback=ask)
    manage.allowed_installs = app_commands.AppInstallationType(guild=True)
    probe.tree.add_command(manage)
    await probe.tree.sync()
    return received


async def test_the_interaction_says_who_brought_the_application(sandbox, probe, asked):
    nils = sandbox.member("Nils")
    place = sandbox.outside_channel("elsewhere")
    await nils.slash(place, "ask")
    got = asked.get_nowait()
    assert got.is_user_integration() and not got.is_guild_integration()
    assert got.guild_id == int(place["guild_id"]) and probe.get_guild(got.guild_id) is None
    assert got.context.guild and got.permissions.use_external_apps
    assert isinstance(got.channel, discord.TextChannel) and got.channel.name == "elsewhere"
    assert got.user.id == int(nils.id) and got.user.roles == []
    group = sandbox.outside_group("us")
    await nils.slash(group, "ask")
    got = asked.get_nowait()
    assert got.context.private_channel and got.guild is None
    assert isinstance(got.channel, discord.GroupChannel) and got.channel.name == "us"
    await nils.slash("tavern", "ask")
    got = asked.get_nowait()
    assert got.is_guild_integration() and got.guild == probe.guilds[0]


async def test_the_bot_reaches_such_places_by_interactions_alone(sandbox, probe, asked):
    nils = sandbox.member("Nils")
    place = sandbox.outside_channel("elsewhere")
    answer = await nils.slash(place, "ask")
    got = asked.get_nowait()
    message = await got.original_response()
    await got.edit_original_response(content="yes, what?")
    assert answer.message["content"] == "yes, what?"
    for refused in (got.channel.send("hello"), probe.fetch_channel(int(place["id"]))):
        with pytest.raises(discord.Forbidden) as caught:
            await refused
        assert caught.value.code == 50001
    await nils.say("tavern", "the next event")
    heard = await probe.receive()
    assert heard.content == "the next event" and heard.id != message.id
    with pytest.raises(SandboxRefusal, match="interactions alone"):
        await nils.say(place, "hello")


async def test_there_are_five_further_messages_in_a_server(sandbox, probe, asked):
    nils = sandbox.member("Nils")
    await nils.slash(sandbox.outside_channel("elsewhere"), "ask")
    got = asked.get_nowait()
    for number in range(5):
        await got.followup.send(f"{number}", wait=True)
    with pytest.raises(discord.Forbidden) as caught:
        await got.followup.send("one too many", wait=True)
    assert caught.value.code == 40094
    await nils.slash("tavern", "ask")
    got = asked.get_nowait()
    for number in range(6):
        await got.followup.send(f"{number}", wait=True)


async def test_without_the_permission_for_external_apps_only_the_member_sees_it(
    sandbox, probe, asked
):
    nils, mora = sandbox.member("Nils"), sandbox.member("Mora")
    bits = MEMBER_PERMISSIONS & ~Permission.USE_EXTERNAL_APPS
    place = sandbox.outside_channel("elsewhere", permissions=bits)
    answer = await nils.slash(place, "ask")
    assert answer.ephemeral
    assert len(sandbox.outside_messages(place, nils)) == 1
    assert not sandbox.outside_messages(place, mora)


async def test_only_commands_for_people_are_offered_and_only_if_the_portal_allows_it(
    sandbox, probe, asked, new_probe, run
):
    nils = sandbox.member("Nils")
    place = sandbox.outside_channel("elsewhere")
    with pytest.raises(SandboxRefusal, match="There is no command called /manage"):
        await nils.slash(place, "manage")
    info = await probe.application_info()
    assert info.user_integration_config is not None
    for one in sandbox._shared.guilds:
        one.guild.seed = replace(one.guild.seed, user_install=False)
    with pytest.raises(SandboxRefusal, match="There is no command called /ask"):
        await nils.slash(place, "ask")
    assert "1" not in (await probe.application_info())._integration_types_config


@pytest.mark.parametrize(
    ("field", "value", "where", "code"),
    [
        ("contexts", [], "0.contexts", "BASE_TYPE_BAD_LENGTH"),
        ("contexts", [3], "0.contexts.0", "BASE_TYPE_CHOICES"),
        ("integration_types", [0, 2], "0.integration_types.1", "BASE_TYPE_CHOICES"),
        ("integration_types", [1, 1], "0.integration_types.1", "SET_TYPE_ALREADY_CONTAINS_VALUE"),
    ],
)
async def test_unknown_contexts_and_installations_are_refused(
    sandbox, api, field, value, where, code
):
    command = {"name": "ask", "description": "Asks.", field: value}
    path = f"/applications/{sandbox.bot_id}/commands"
    status, answer, _ = await api("PUT", path, [command])
    errors = answer["errors"]
    for step in where.split("."):
        errors = errors[step]
    assert status == 400 and errors["_errors"][0]["code"] == code


async def test_such_places_stay_over_a_restart(tmp_path):
    file = tmp_path / "guild.sqlite"
    first = Sandbox(SEED, file)
    place = first.outside_group("us")
    first.close_state()
    second = Sandbox(SEED, file)
    assert second._container.guild.outside_place(place["id"]) == place
    second.close_state()
