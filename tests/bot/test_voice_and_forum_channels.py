"""Personas in the chats of voice and stage channels, and in the posts of forums: with their own
faces, and with all that holds in text channels.
"""

from dataclasses import replace

import discord
import pytest

from bot.demo_guild import MEMBER, OWNER, SKERROW_SEED
from bot.guild_settings.web.places import list_places
from bot.operations.doctor.connection_checks import missing_permissions
from bot.personas.web.creation_pages import _places
from bot.personas.web.lookup import OwnedPersona
from bot.platform.permissions import CONNECT
from bot.schedules.web.listing import _channel_name
from sandbox import FORUM_CHANNEL, STAGE_CHANNEL, ChannelSeed, Permission, RoleSeed, Sandbox
from tests.bot.conftest import INN, QUAY, on_stage
from tests.bot.set_times import answer_to
from tests.fakes import until

TOWER = "signal-tower"
"""The demo guild's voice channel."""
FORUM = "lost-and-found"
HALL = "council-hall"
WITH_STAGE = replace(
    SKERROW_SEED, channels=(*SKERROW_SEED.channels, ChannelSeed(HALL, type=STAGE_CHANNEL))
)


def id_of(stage, name):
    return int(stage.sandbox.channel(name)["id"])


def the_post(stage):
    (post,) = stage.sandbox._container.guild.threads()
    return post


def history(stage, channel_id):
    return stage.sandbox._container.messages.history(str(channel_id), 100)


async def settle(stage, channel, persona="oda", **more):
    """Give a channel a persona; returns its greeting."""
    mark = stage.mark
    shown = await answer_to(
        stage, "persona set", None, channel, persona=persona, answers="everything", **more
    )
    assert "lives here now" in shown
    name = stage.client.services.personas.get(persona, 0).name
    return await stage.sandbox.wait_for(
        "message", lambda message: message["author"]["username"] == name, since=mark
    )


async def asked(stage, channel, words):
    mark = stage.mark
    await stage.member.say(channel, words)
    return await finished(stage, mark)


async def finished(stage, mark):
    return await stage.sandbox.wait_for(
        "edit", lambda message: "\n-# AI-written" in message["content"], since=mark
    )


def webhook_of(stage, message):
    hooks = {hook["id"]: hook for hook in stage.sandbox._container.webhooks.of_guild()}
    return hooks[message["webhook_id"]]


# ---------------------------------------------------------------------------------- own faces


async def test_a_persona_lives_in_voice_and_stage_channels_with_its_own_name_and_face(tmp_path):
    async with on_stage(tmp_path, seed=WITH_STAGE) as stage:
        for channel in (TOWER, HALL):
            await lives_there(stage, channel)


async def lives_there(stage, channel):
    """See a persona greet, answer and be asked by a command in a channel, as in a text channel."""
    greeting = await settle(stage, channel)
    reply = await asked(stage, channel, "is the kettle on?")
    assert "Oda Marrow hears: is the kettle on?" in reply["content"]
    for message in (greeting, reply):
        assert message["author"]["username"] == "Oda Marrow"
        assert message["author"]["avatar"], "the webhook shows its picture"
        assert webhook_of(stage, message)["channel_id"] == str(id_of(stage, channel))
    mark = stage.mark
    await stage.member.slash(channel, "chat", message="and the soup?")
    by_command = await finished(stage, mark)
    assert by_command["author"]["username"] == "Oda Marrow"
    guild = stage.client.get_guild(stage.sandbox.guild_id)
    assert not isinstance(guild.get_channel(id_of(stage, channel)), discord.TextChannel)


async def test_a_persona_in_a_forums_post_speaks_through_the_forums_webhook(stage):
    post = the_post(stage)
    greeting = await settle(stage, post)
    reply = await asked(stage, post, "whose lantern is it?")
    assert "Oda Marrow hears: whose lantern is it?" in reply["content"]
    for message in (greeting, reply):
        assert message["channel_id"] == post["id"]
        assert message["author"]["username"] == "Oda Marrow" and message["author"]["avatar"]
        assert webhook_of(stage, message)["channel_id"] == str(id_of(stage, FORUM))
    place = stage.store.channels.get(int(stage.sandbox.guild_id), int(post["id"]))
    assert place.persona_id == "oda"


async def test_another_post_of_the_forum_has_no_persona_until_it_is_given_one(stage):
    await settle(stage, the_post(stage))
    other = await stage.member.post(FORUM, "A left boot", "Size nine.")
    await until(lambda: stage.client.get_channel(int(other["id"])))
    before = len(stage.engine.requests)
    await stage.member.say(other, "nobody?")
    await asked(stage, INN, "and here?")
    assert len(stage.engine.requests) == before + 1
    await settle(stage, other, "thrip")
    assert (
        "Sir Aurelio Thrip hears: still there?"
        in (await asked(stage, other, "still there?"))["content"]
    )


async def test_a_persona_in_a_post_is_told_the_posts_first_message(stage):
    post = the_post(stage)
    await settle(stage, post)
    await asked(stage, post, "whose is it?")
    shown = "\n".join(turn.text for turn in stage.engine.requests[-1].turns)
    assert "still warm" in shown


# ------------------------------------------------------------------------- what holds elsewhere


async def test_an_age_restricted_persona_speaks_in_a_marked_voice_channel_only(stage):
    marked = await stage.moderator.slash(QUAY, "moderation age", persona="oda", restricted=True)
    assert marked.ephemeral
    said = await answer_to(stage, "persona set", None, TOWER, persona="oda")
    assert "Oda Marrow is age-restricted, and this channel is not." in said
    stage.sandbox.set_age_restricted(TOWER, True)
    await until(stage.client.get_channel(id_of(stage, TOWER)).is_nsfw)
    await settle(stage, TOWER)
    assert "Oda Marrow hears: now?" in (await asked(stage, TOWER, "now?"))["content"]
    mark = stage.mark
    stage.sandbox.set_age_restricted(TOWER, False)
    notice = await stage.sees("Oda Marrow is age-restricted, and this channel is not.", since=mark)
    assert notice["channel_id"] == str(id_of(stage, TOWER))


async def test_what_was_said_in_voice_channels_and_posts_while_the_bot_was_away_is_answered(
    tmp_path,
):
    async with on_stage(tmp_path) as stage:
        await settle(stage, TOWER)
        await settle(stage, the_post(stage), "thrip")
        await stage.client.close()
        member = stage.sandbox.member(MEMBER)
        await member.say(TOWER, "@Understudy still on watch?")
        await member.say(the_post(stage), "@Understudy found it?")
    async with on_stage(tmp_path) as stage:
        await until(
            lambda: any(
                "hears: still on watch?" in each["content"]
                for each in history(stage, id_of(stage, TOWER))
            )
        )
        await until(
            lambda: any(
                "hears: found it?" in each["content"]
                for each in history(stage, the_post(stage)["id"])
            )
        )


async def test_the_dashboard_names_voice_channels_and_posts_and_offers_neither(stage):
    post = the_post(stage)
    await settle(stage, TOWER)
    await settle(stage, post)
    services = stage.client.services
    (places,) = _places(services)
    labels = [place.label for place in places.choices]
    assert not any(TOWER in label for label in labels), "people read little there"
    assert not any(FORUM in label for label in labels), "a forum has no messages of its own"
    oda = OwnedPersona(services, 0, services.personas.get("oda", 0))
    named = {place.name for place in list_places(oda)}
    assert any(f"#{TOWER}" in name for name in named), named
    assert any(post["name"] in name for name in named), named
    assert _channel_name(services, id_of(stage, TOWER)) == f"#{TOWER}"


# --------------------------------------------------------------------------------- permissions


async def test_without_connect_the_bot_has_no_access_and_says_so(stage):
    await settle(stage, TOWER)
    guild = stage.client.get_guild(stage.sandbox.guild_id)
    tower = guild.get_channel(id_of(stage, TOWER))
    assert not await missing_permissions(stage.client, stage.store)
    stage.sandbox.set_permission("CONNECT", False)
    await until(lambda: not tower.permissions_for(guild.me).connect)
    (lack,) = await missing_permissions(stage.client, stage.store)
    assert lack.need is CONNECT and lack.where == f"{guild.name} #{TOWER}"
    assert "set Connect to allow" in lack.remedy
    with pytest.raises(discord.Forbidden):
        await tower.send("hello")
    before = len(stage.engine.requests)
    await stage.member.say(TOWER, "can you hear me?")
    await asked(stage, INN, "and you?")
    assert len(stage.engine.requests) == before + 1


async def test_a_member_who_may_not_join_has_no_access_to_its_messages():
    locked = RoleSeed("Locked out", 0, denied=int(Permission.CONNECT))
    members = tuple(
        replace(member, roles=("Locked out",)) if member.name == MEMBER else member
        for member in SKERROW_SEED.members
    )
    sandbox = Sandbox(replace(SKERROW_SEED, roles=(*SKERROW_SEED.roles, locked), members=members))
    guild = sandbox._container.guild
    ids = {channel["id"] for channel in guild.visible_channels(sandbox.member(MEMBER).id)}
    assert sandbox.channel(TOWER)["id"] not in ids
    assert sandbox.channel(INN)["id"] in ids
    assert sandbox.channel(FORUM)["type"] == FORUM_CHANNEL
    assert guild.threads()[0]["owner_id"] == sandbox.member(OWNER).id
    sandbox.close_state()
