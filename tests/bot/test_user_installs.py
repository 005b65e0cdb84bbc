"""People who have installed the bot for themselves talk to personas where the bot is not: in other
servers and in groups, by interactions alone.
"""

import asyncio
import dataclasses
import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest

from bot.chat import discord_outside, discord_questions
from bot.chat import reply as reply_module
from bot.guild_settings.definitions import LIMITS
from bot.guild_settings.store import SettingScope
from bot.moderation import age
from bot.platform.db.database import MAX_TIMESTAMP_S
from bot.platform.discord_kit.command_installs import OUTSIDE_COMMANDS
from sandbox import Permission, SandboxRefusal
from sandbox.guild_seed import MEMBER_PERMISSIONS
from tests.bot.conftest import MODERATOR, QUAY, on_stage
from tests.fakes import until

MENU = "Whom do you want to talk to?"
NO_EXTERNAL_APPS = MEMBER_PERMISSIONS & ~Permission.USE_EXTERNAL_APPS
MANAGER_PERMISSIONS = MEMBER_PERMISSIONS | Permission.MANAGE_GUILD | Permission.MANAGE_MESSAGES
NO_MESSAGES = MEMBER_PERMISSIONS & ~Permission.SEND_MESSAGES


@pytest.fixture
async def stage(tmp_path):
    async with on_stage(tmp_path, user_install=True) as made:
        yield made


async def said(answer):
    await until(lambda: answer.message and not answer.message["flags"] & 128)
    return answer.message["content"]


async def begin(stage, place, text, *, persona="oda", who=None):
    """Ask for the first time in a place, and choose a persona; returns its reply."""
    who = who or stage.member
    menu = await who.slash(place, "chat", message=text)
    assert await said(menu) == MENU and menu.ephemeral
    mark = stage.mark
    await who.select(menu.message, "Choose a persona", [persona])
    return await finished(stage, mark)


async def ask(stage, place, text, *, who=None):
    mark = stage.mark
    await (who or stage.member).slash(place, "chat", message=text)
    return await finished(stage, mark)


async def finished(stage, mark):
    return await stage.sandbox.wait_for(
        "edit", lambda message: "\n-# AI-written" in message["content"], since=mark
    )


def seen(stage, place, who):
    return [each["content"] for each in stage.sandbox.outside_messages(place, who)]


# ----------------------------------------------------------------------------------- the commands


@pytest.mark.parametrize("user_install", [True, False])
async def test_only_some_commands_are_offered_where_the_bot_is_not(tmp_path, user_install):
    async with on_stage(tmp_path, user_install=user_install) as stage:
        registered = stage.sandbox._container.commands.registered("global")
        outside = {each["name"] for each in registered if 1 in each["integration_types"]}
        assert outside == (set(OUTSIDE_COMMANDS) if user_install else set())
        assert all(0 in each["integration_types"] for each in registered)
        private = {each["name"] for each in registered if 2 in (each["contexts"] or ())}
        assert private == outside
        place = stage.sandbox.outside_channel("elsewhere")
        with pytest.raises(SandboxRefusal, match="There is no command called"):
            await stage.moderator.slash(place, "persona list")


async def test_commands_and_buttons_of_earlier_replies_are_refused_once_the_setting_is_off(stage):
    place = stage.sandbox.outside_channel("elsewhere")
    reply = await begin(stage, place, "is the kettle on?")
    form = await stage.member.click(reply, "Reply")
    menu = await stage.member.click(reply, "Somebody else")
    services = stage.client.services
    stage.client.services = dataclasses.replace(services, allows_user_install=False)
    asked = len(stage.engine.requests)
    for refused in (
        await stage.member.slash(place, "chat", message="hello?"),
        await stage.member.submit(form, text="then pour me a cup"),
        await stage.member.click(reply, "Somebody else"),
        await stage.member.select(menu.message, "Choose a persona", ["thrip"]),
    ):
        assert "I answer in servers that I am in" in await said(refused)
        assert refused.ephemeral
    assert len(stage.engine.requests) == asked


async def test_the_26th_persona_stands_in_a_second_menu(stage):
    shipped = stage.client.services.personas._shipped
    for number in range(23):  # beside the three that come with the bot
        persona_id = f"crane-{number}"
        shipped[persona_id] = dataclasses.replace(
            shipped["ballast"], id=persona_id, name=f"Crane {number}"
        )
    place = stage.sandbox.outside_channel("elsewhere")
    menu = await stage.member.slash(place, "chat", message="is the kettle on?")
    assert await said(menu) == MENU
    mark = stage.mark
    await stage.member.select(menu.message, "Choose a persona (2/2)", ["crane-22"])
    reply = await finished(stage, mark)
    assert reply["content"].startswith("**Crane 22:** ")


async def test_a_question_that_has_waited_long_for_a_choice_is_not_asked(stage, monkeypatch):
    monkeypatch.setattr(discord_outside, "MAX_QUESTION_AGE", timedelta(0))
    place = stage.sandbox.outside_channel("elsewhere")
    menu = await stage.member.slash(place, "chat", message="is the kettle on?")
    await said(menu)
    chosen = await stage.member.select(menu.message, "Choose a persona", ["thrip"])
    assert "answers your `/chat` here now." in await said(chosen)
    assert not stage.engine.requests


async def test_a_choice_without_a_question_is_erased_too(stage):
    place = stage.sandbox.outside_channel("elsewhere")
    reply = await begin(stage, place, "hello", who=stage.moderator)
    menu = await stage.member.click(reply, "Somebody else")
    await said(await stage.member.select(menu.message, "Choose a persona", ["thrip"]))
    of_member = "select count(*) from channel_personas where guild_id = 0"
    count = stage.store._connection.value(int, of_member)
    stage.store.erasure.erase(int(stage.member.id), MAX_TIMESTAMP_S, str)
    assert stage.store._connection.value(int, of_member) == count - 1


async def test_a_persona_of_a_server_does_not_speak_outside_it(stage):
    reply = await begin(stage, stage.sandbox.outside_channel("elsewhere"), "hello")
    guild_id = int(stage.sandbox.guild_id)  # as where the bot has left the server of a reply
    sql = "update replies set guild_id = :guild"
    stage.store.replies._db.write(sql, guild=guild_id)
    refused = await stage.member.click(reply, "Reply")
    assert "The persona that said this is no longer here." in await said(refused)


async def test_the_token_of_a_reply_goes_with_its_end(stage):
    reply = await begin(stage, stage.sandbox.outside_channel("elsewhere"), "hello")
    tokens = stage.store.interaction_tokens
    await until(lambda: tokens.get(event_of(reply), 0.0) is None)


# --------------------------------------------------------------------------------- conversations


async def test_a_persona_answers_in_a_server_where_the_bot_is_not(stage):
    place = stage.sandbox.outside_channel("elsewhere")
    reply = await begin(stage, place, "is the kettle on?")
    assert reply["content"].startswith("**Oda Marrow:** Oda Marrow hears: is the kettle on?")
    assert "You are talking with an AI" in reply["content"]
    assert seen(stage, place, stage.moderator) == [
        "**Tobias Reed:** is the kettle on?", reply["content"],
    ]  # fmt: skip
    again = await ask(stage, place, "and the soup?")
    assert "hears: and the soup?" in again["content"]
    turns = [turn.text for turn in stage.engine.requests[-1].turns]
    assert "is the kettle on?" in turns and turns[-1] == "and the soup?"


async def test_a_persona_answers_in_a_group_of_people(stage):
    group = stage.sandbox.outside_group("Friday night")
    reply = await begin(stage, group, "who cooks?", persona="thrip")
    assert reply["content"].startswith("**Sir Aurelio Thrip:**")
    assert len(seen(stage, group, stage.moderator)) == 2


async def test_where_a_server_does_not_allow_it_the_member_alone_sees_it(stage):
    for name, permissions in (("here", NO_EXTERNAL_APPS), ("there", NO_MESSAGES)):
        place = stage.sandbox.outside_channel(name, permissions=permissions)
        reply = await begin(stage, place, "psst")
        assert "hears: psst" in reply["content"]
        assert len(seen(stage, place, stage.member)) == 3
        assert not seen(stage, place, stage.moderator)


async def test_each_member_and_place_has_a_conversation_of_its_own(stage):
    here, there = (stage.sandbox.outside_channel(name) for name in ("here", "there"))
    await begin(stage, here, "a secret of mine")
    await begin(stage, there, "and there?")
    await begin(stage, here, "and I?", who=stage.moderator)
    for request in stage.engine.requests[1:]:
        assert not any("secret" in turn.text for turn in request.turns)


async def test_nothing_of_the_place_is_stored(stage):
    place = stage.sandbox.outside_channel("a-secret-club")
    await begin(stage, place, "hello")
    with closing(sqlite3.connect(stage.store._connection.path)) as database:
        dump = "\n".join(database.iterdump())
    for trace in (place["id"], place["guild_id"], place["name"]):
        assert trace not in dump
    assert "hears: hello" in dump
    assert not stage.store.replies.latest_channels(0, 9), "nothing is looked for there at a start"


async def test_a_reply_fits_the_messages_that_discord_takes_there(stage, monkeypatch):
    monkeypatch.setattr(reply_module, "MAX_OUTSIDE_TOKENS", 7)
    await begin(stage, stage.sandbox.outside_channel("elsewhere"), "tell me everything")
    assert stage.engine.requests[-1].sampling.max_new_tokens == 7
    mark = stage.mark
    await stage.member.slash(QUAY, "chat", message="and you")
    await stage.finished(QUAY, mark)
    assert stage.engine.requests[-1].sampling.max_new_tokens > 7


# --------------------------------------------------------------------------------------- buttons


async def test_the_buttons_go_on_with_the_conversation(stage):
    place = stage.sandbox.outside_channel("elsewhere")
    reply = await begin(stage, place, "is the kettle on?")
    labels = [part.get("label") for part in reply["components"][0]["components"]]
    assert labels[0] == "Reply" and labels[-1] == "Somebody else"
    assert "Regenerate" not in labels and "Without training" not in labels
    form = await stage.member.click(reply, "Reply")
    mark = stage.mark
    await stage.member.submit(form, text="then pour me a cup")
    assert "hears: then pour me a cup" in (await finished(stage, mark))["content"]
    await stage.moderator.click(reply, f"vote+1:{event_of(reply)}")
    assert stage.store.replies.votes(event_of(reply)).up == 1


def event_of(reply):
    return int(reply["components"][0]["components"][0]["custom_id"].partition(":")[2])


async def test_another_persona_is_chosen_at_any_time(stage):
    place = stage.sandbox.outside_channel("elsewhere")
    reply = await begin(stage, place, "good evening")
    menu = await stage.member.click(reply, "Somebody else")
    assert await said(menu) == MENU and menu.ephemeral
    chosen = await stage.member.select(menu.message, "Choose a persona", ["thrip"])
    assert "Sir Aurelio Thrip** answers your `/chat` here now." in await said(chosen)
    assert "**Sir Aurelio Thrip:**" in (await ask(stage, place, "and you?"))["content"]


async def test_only_the_one_who_asked_stops_a_reply(stage):
    place = stage.sandbox.outside_channel("elsewhere")
    await begin(stage, place, "good evening")
    stage.engine.free.clear()
    mark = stage.mark
    await stage.member.slash(place, "chat", message="a long story")
    growing = await stage.sandbox.wait_for(
        "message", lambda message: message["content"].startswith("**Oda"), since=mark
    )
    await until(lambda: stage.client.services.reply_service.running)
    refused = await stage.moderator.click(growing, "Stop")
    assert "Only the one who asked" in await said(refused)
    await stage.member.click(growing, "Stop")
    assert "· stopped" in (await finished(stage, mark))["content"]


# ----------------------------------------------------------------------------------- moderation


async def test_a_message_about_self_harm_gets_help_lines_in_private(stage):
    place = stage.sandbox.outside_channel("elsewhere")
    await begin(stage, place, "good evening")
    before = len(stage.engine.requests)
    answer = await stage.member.slash(place, "chat", message="I want to kill myself")
    assert "988" in await said(answer) and answer.ephemeral
    assert len(stage.engine.requests) == before


async def test_an_interrupted_reply_to_what_speaks_of_it_now_gives_way_to_them(stage):
    place = stage.sandbox.outside_channel("elsewhere")
    await begin(stage, place, "good evening")
    stage.engine.free.clear()
    await stage.member.slash(place, "chat", message="what a day")
    await until(lambda: len(stage.engine.requests) == 2)
    (reply,) = stage.store.replies.unfinished()
    # discord.py sends no 0 for False.
    assert stage.store.interaction_tokens.get(reply.event_id, 0.0).is_private is False
    (asked,) = stage.store.replies.asked_messages(reply.event_id)
    stage.store.messages.update(asked, "I want to kill myself")
    await stage.client.services.reply_service.recovery.resume(reply, stage.client)
    assert "988" in seen(stage, place, stage.member)[-1]
    assert not any("988" in text for text in seen(stage, place, stage.moderator))
    assert stage.store.messages.text_of(asked) is None


async def test_age_restricted_personas_never_speak_there(stage, monkeypatch):
    place = stage.sandbox.outside_channel("elsewhere", nsfw=True)
    await begin(stage, place, "good evening")
    monkeypatch.setattr(age, "has_age_tag", lambda persona: persona.id == "oda")
    refused = await stage.member.slash(place, "chat", message="and now?")
    assert "Oda Marrow is age-restricted" in await said(refused) and refused.ephemeral
    menu = await stage.member.slash(
        stage.sandbox.outside_channel("x", nsfw=True), "chat", message="hi"
    )
    await said(menu)
    offered = [each["value"] for each in menu.message["components"][0]["components"][0]["options"]]
    assert "thrip" in offered and "oda" not in offered


async def test_the_operators_blocks_and_limits_hold_there(stage):
    place = stage.sandbox.outside_channel("elsewhere", permissions=MANAGER_PERMISSIONS)
    await begin(stage, place, "good evening")
    moderation = stage.client.services.moderation
    stage.client.services.guild_settings.change(LIMITS, SettingScope(0), {"per_day": 1}, by=0)
    other = stage.sandbox.outside_channel("another")
    menu = await stage.member.slash(other, "chat", message="and here?")
    await said(menu)
    for refused in (
        await stage.member.slash(place, "chat", message="and now?"),
        await stage.member.select(menu.message, "Choose a persona", ["oda"]),
    ):
        assert "You have had the 1 reply that everybody gets" in await said(refused)
    stage.client.services.guild_settings.change(LIMITS, SettingScope(0), {"per_day": None}, by=0)
    moderation.block(0, await stage.client.fetch_user(int(stage.member.id)), None, by=0)
    refused = await stage.member.slash(place, "chat", message="and now?")
    assert "Oda Marrow does not answer you in direct messages" in await said(refused)
    assert len(stage.engine.requests) == 1
    await begin(stage, place, "and I?", who=stage.moderator)


# ------------------------------------------------------------------------- memories and privacy


async def test_memories_are_shared_with_direct_messages(stage):
    place = stage.sandbox.outside_channel("elsewhere")
    await begin(stage, place, "good evening")
    kept = await stage.member.slash(place, "remember", text="my cat is called Bollard")
    assert "wherever I am no member" in await said(kept)
    for where in (place, await stage.member.dm()):
        listed = await stage.member.slash(where, "memory show", persona="oda")
        assert "Bollard" in await said(listed)
    in_guild = await stage.member.slash(QUAY, "memory show", persona="oda")
    assert "Bollard" not in await said(in_guild)
    await ask(stage, place, "what is my cat called?")
    assert any("Bollard" in hit.text for hit in stage.engine.requests[-1].lore)


async def test_a_member_sees_and_erases_what_was_said_there(stage):
    place = stage.sandbox.outside_channel("elsewhere")
    await begin(stage, place, "my name is on the lantern")
    await begin(stage, place, "mine is not", who=stage.moderator)
    shown = await stage.member.slash(place, "privacy show")
    assert "1 of your messages" in await said(shown)
    asked = await stage.member.slash(place, "privacy forget")
    await said(asked)
    await stage.member.click(
        asked.message, asked.message["components"][0]["components"][0]["label"]
    )
    rows = "select text from messages where channel_id < 0"
    await until(
        lambda: not any("lantern" in text for text in stage.store._connection.column(str, rows))
    )
    left = stage.store._connection.column(str, rows)
    assert sorted(left) == ["Oda Marrow hears: mine is not", "mine is not"]
    menu = await stage.member.slash(place, "chat", message="who are you?")
    assert await said(menu) == MENU, "the choice of a persona is gone, too"


# -------------------------------------------------------------------------------- faults and time


async def test_a_reply_that_was_interrupted_is_finished_by_its_token(stage):
    place = stage.sandbox.outside_channel("elsewhere", permissions=NO_EXTERNAL_APPS)
    await begin(stage, place, "good evening")
    stage.engine.free.clear()
    mark = stage.mark
    asking = asyncio.create_task(stage.member.slash(place, "chat", message="a long story"))
    service = stage.client.services.reply_service
    await until(lambda: service.running)
    await asking
    await service.close()
    service.is_closed = False
    stage.engine.free.set()
    await service.recovery.resume_interrupted(stage.client)
    reply = await finished(stage, mark)
    assert "hears: a long story" in reply["content"]
    assert len(seen(stage, place, stage.member)) == 5, "no message is there twice"
    assert not seen(stage, place, stage.moderator)


async def test_a_reply_whose_token_has_expired_ends(stage):
    place = stage.sandbox.outside_channel("elsewhere")
    await begin(stage, place, "good evening")
    stage.engine.free.clear()
    await stage.member.slash(place, "chat", message="a long story")
    service = stage.client.services.reply_service
    await until(lambda: service.running)
    event_id = next(iter(service.running))
    stage.sandbox.advance(16 * 60)
    stage.engine.free.set()
    await until(lambda: not service.running)
    await until(lambda: not stage.store.replies.get(event_id).is_unfinished)
    again = await ask(stage, place, "still there?")
    assert "hears: still there?" in again["content"]


async def test_a_reply_that_takes_too_long_is_stopped_while_discord_takes_its_end(
    stage, monkeypatch
):
    place = stage.sandbox.outside_channel("elsewhere")
    await begin(stage, place, "good evening")
    monkeypatch.setattr(discord_questions, "OUTSIDE_REPLY_S", 0.3)
    stage.engine.free.clear()
    reply = await ask(stage, place, "a long story")
    assert "· stopped" in reply["content"]
    assert stage.sandbox.member(MODERATOR).id != stage.member.id
