"""Roles whose holders may talk, teach, train and promote, beside moderators."""

import json

import pytest

from bot.demo_guild import NEWCOMER
from bot.moderation.roles import MAX_ROLES, RolePermissions
from bot.personas.discord_create import TrainButton
from bot.platform.discord_kit import transformers
from bot.platform.discord_kit.ui import button_view
from bot.versions.discord import RollbackButton
from bot.versions.discord_history import HistoryPageButton
from sandbox.message_components import all_components
from sandbox.sandbox_errors import SandboxRefusal
from tests.bot.conftest import INN, OFFICE, QUAY, on_stage
from tests.bot.test_moderation import asked
from tests.bot.version_rows import install
from tests.docs.permission_matrix import MODERATORS_MARK
from tests.fakes import until


def role(stage, name="Regular"):
    guild = stage.client.get_guild(stage.sandbox.guild_id)
    return next(one for one in guild.roles if one.name == name)


async def set_role(stage, action, name="Regular", *, change="add"):
    options = {"action": action, change: str(role(stage, name).id)}
    answer = await stage.moderator.slash(QUAY, "moderation roles", **options)
    assert answer.ephemeral
    return answer.message["content"]


def newcomer(stage):
    return stage.sandbox.member(NEWCOMER)


async def refused(answer, words):
    await until(lambda: words in (answer.message or {}).get("content", ""))
    assert answer.ephemeral


async def test_who_may_talk_is_answered_and_others_are_told_in_private(tmp_path):
    async with on_stage(tmp_path) as stage:
        shown = (await stage.moderator.slash(QUAY, "moderation roles")).message["content"]
        assert shown.splitlines() == [
            "• Talk with personas: everybody",
            "• Teach personas: members who opted in, and moderators",
            "• Train personas: moderators alone",
            "• Promote versions: moderators alone",
        ]
        assert "Ballast hears: hi" in await asked(stage, QUAY, "hi", newcomer(stage))
        said = await set_role(stage, "talk")
        assert said == f"• Talk with personas: <@&{role(stage).id}> and moderators"
    async with on_stage(tmp_path) as stage:
        before = len(stage.engine.requests)
        await newcomer(stage).say(QUAY, "hello?")
        await newcomer(stage).say(QUAY, "@Understudy hello?")
        assert "Ballast hears: and I?" in await asked(stage, QUAY, "and I?")
        assert "Ballast hears: and we?" in await asked(stage, QUAY, "and we?", stage.moderator)
        assert len(stage.engine.requests) == before + 2
        answer = await newcomer(stage).slash(QUAY, "chat", message="hi")
        await refused(answer, f"that takes the role <@&{role(stage).id}>.")
        fresh = await newcomer(stage).slash(QUAY, "persona fresh")
        await refused(fresh, f"that takes the role <@&{role(stage).id}>.")
        mark = stage.mark
        await stage.member.say(QUAY, "once more")
        reply = await stage.finished(QUAY, mark)
        mark = stage.mark
        await newcomer(stage).click(reply, "Reply")
        await stage.sees("You may not talk with personas here", "message", mark)
        why = await stage.moderator.slash(QUAY, "persona why")
        await until(
            lambda: "has no role that may talk here" in (why.message or {}).get("content", "")
        )
        await set_role(stage, "talk", change="remove")
        assert "Ballast hears: at last" in await asked(stage, QUAY, "at last", newcomer(stage))


async def test_the_button_of_a_card_takes_the_role_that_may_talk(stage):
    early = await newcomer(stage).slash(QUAY, "persona show")
    await until(lambda: early.text)
    await set_role(stage, "talk")
    pressed = await newcomer(stage).click(early.message, "Talk to them")
    await refused(pressed, "You may not talk with personas here")
    late = await newcomer(stage).slash(QUAY, "persona show")
    await until(lambda: late.text)
    shown = [item.get("label") for item in all_components(late.message["components"])]
    assert "Talk to them" not in shown


async def test_teaching_takes_the_role_and_the_members_consent(stage):
    await set_role(stage, "teach")
    answer = await newcomer(stage).slash(QUAY, "persona teach")
    await refused(answer, "You may not teach personas here")
    await refused(await stage.member.slash(QUAY, "persona teach"), "Members may teach once")
    form = await stage.moderator.slash(QUAY, "persona teach")
    assert form.modal
    await set_role(stage, "teach", change="remove")
    await refused(await newcomer(stage).slash(QUAY, "persona teach"), "Members may teach once")


def with_button(stage, label):
    """The latest message of the inn that has a button with this label, if there is one."""
    for message in reversed(stage.sandbox.messages(INN)):
        if any(item.get("label") == label for item in all_components(message["components"])):
            return message
    return None


async def test_a_role_trains_and_promotes_by_commands_and_buttons(tmp_path, monkeypatch):
    # As on a server whose administrator has shown the command to everybody.
    monkeypatch.setattr(transformers.FINETUNE, "default_permissions", None)
    async with on_stage(tmp_path, registers_commands=True) as stage:
        guild = int(stage.sandbox.guild_id)
        refusal = "Only moderators may do this."
        for command in ("start", "promote", "history", "status", "promotion"):
            answer = await stage.member.slash(INN, f"finetune {command}")
            await refused(answer, refusal)
        said = await set_role(stage, "train")
        assert "Server Settings → Integrations" in said
        await refused(
            await newcomer(stage).slash(INN, "finetune start"), "You may not train personas"
        )
        await stage.member.slash(INN, "finetune start", persona="oda")
        await until(lambda: with_button(stage, "Cancel"))
        progress = with_button(stage, "Cancel")
        mark = stage.mark
        await newcomer(stage).click(progress, "Cancel")
        await stage.sees("You may not train personas", "message", mark)
        mark = stage.mark
        await stage.member.click(progress, "Cancel")
        await stage.sees("is cancelled", since=mark)
        for command in ("promote", "rollback", "compare"):
            await refused(await stage.member.slash(INN, f"finetune {command}"), refusal)
        for command in ("promotion", "remove"):  # moderators' in any case
            options = {"version": "v1"} if command == "remove" else {}
            await refused(await stage.member.slash(INN, f"finetune {command}", **options), refusal)
        version = install(stage.store, "oda", guild=guild)
        await set_role(stage, "promote")
        await stage.member.slash(INN, "finetune promote", version=version)
        await until(lambda: stage.live("oda") == version)
        answer = await stage.member.slash(INN, "finetune history")
        await until(lambda: (answer.message or {}).get("content"))
        assert refusal not in answer.message["content"]


async def test_what_cannot_be_set_is_refused(stage):
    guild = int(stage.sandbox.guild_id)
    answer = await stage.moderator.slash(QUAY, "moderation roles", add=str(role(stage).id))
    assert "No action is named." in answer.message["content"]
    assert "@everyone is no role" in await set_role(stage, "train", "@everyone")
    assert "is not among the roles" in await set_role(stage, "train", change="remove")
    for number in range(MAX_ROLES):
        stage.store.action_roles.add(guild, "talk", number + 1)
    assert "which is the limit" in await set_role(stage, "talk")
    for number in range(1, MAX_ROLES):
        assert stage.store.action_roles.remove(guild, "talk", number)
    permissions = RolePermissions(stage.store)
    mina = stage.client.get_guild(guild).get_member(int(stage.member.id)) or stage.client.user
    assert not permissions.allows(mina, guild, "talk"), "a role that is gone opens nothing"
    assert permissions.allows(mina, 77, "talk") and permissions.allows(mina, 0, "talk")
    with pytest.raises(SandboxRefusal):
        await stage.member.slash(QUAY, "moderation roles", action="talk")


async def test_all_that_is_named_is_changed_or_nothing(stage):
    guild = int(stage.sandbox.guild_id)
    regular, silenced = str(role(stage).id), str(role(stage, "Silenced").id)
    answer = await stage.moderator.slash(
        QUAY, "moderation roles", action="train", add=regular, remove=silenced
    )
    assert "is not among the roles" in answer.message["content"]
    assert stage.store.action_roles.get(guild, "train") == set()
    stage.store.action_roles.add(guild, "talk", int(regular))
    answer = await stage.moderator.slash(
        QUAY, "moderation roles", action="talk", add=regular, remove=regular
    )
    assert "exclude each other" in answer.message["content"]
    assert stage.store.action_roles.get(guild, "talk") == {int(regular)}


async def test_a_reset_opens_what_only_a_deleted_role_could_do(stage):
    stage.store.action_roles.add(int(stage.sandbox.guild_id), "talk", 12345)
    answer = await stage.moderator.slash(QUAY, "moderation roles", action="talk", reset=True)
    assert answer.message["content"] == "• Talk with personas: everybody"
    assert "Ballast hears: hi" in await asked(stage, QUAY, "hi", newcomer(stage))
    await set_role(stage, "talk", "Silenced")
    answer = await stage.moderator.slash(
        QUAY, "moderation roles", action="talk", reset=True, add=str(role(stage).id)
    )
    assert answer.message["content"] == f"• Talk with personas: <@&{role(stage).id}> and moderators"


async def test_who_may_train_uses_the_buttons_that_lead_there(stage):
    await set_role(stage, "train")
    channel = stage.client.get_channel(int(stage.sandbox.channel(INN)["id"]))
    buttons = (HistoryPageButton("oda", 0), TrainButton("oda"), RollbackButton("oda"))
    await channel.send("what next?", view=button_view(*buttons))
    shown = with_button(stage, "Train them")
    mark = stage.mark
    await stage.member.click(shown, "Train them")
    ways = await stage.sees("A training needs replies", since=mark)
    parts = all_components(ways["components"])
    assert [part["label"] for part in parts if "label" in part] == [
        "Train from the card",
        "Let me read the replies first",
    ]
    await stage.member.click(shown, "Roll back")
    await stage.sees("Only moderators may do this.", since=mark)
    await stage.member.click(shown, "Page")
    await until(lambda: with_button(stage, "Page") is None)  # the history is in its place


def _filled(option):
    """A value for a required option of a command."""
    if option.get("choices"):
        return option["choices"][0]["value"]
    texts = {"persona": "oda", "other": "thrip", "number": 1, "time": "08:30", "told": True}
    by_type = {3: "x", 4: 1, 5: True, 10: 1.0}
    return texts.get(option["name"], by_type.get(option["type"]))


async def test_each_command_that_is_said_to_be_for_moderators_refuses_members(stage):
    payload = json.loads(json.dumps(transformers.PERSONA.to_dict(stage.client.tree), default=str))
    tried = []
    for path, command in _leaves(payload):
        if MODERATORS_MARK in command["description"]:
            options = {
                one["name"]: _filled(one)
                for one in command.get("options", [])
                if one.get("required")
            }
            answer = await stage.member.slash(OFFICE, path, **options)
            await until(lambda answer=answer: (answer.message or {}).get("content"))
            assert "Only moderators may do this" in answer.message["content"], path
            tried.append(path)
    assert len(tried) > 20


def _leaves(command, prefix=""):
    path = f"{prefix} {command['name']}".strip()
    below = [one for one in command.get("options", []) if one["type"] in (1, 2)]
    if not below:
        yield path, command
    for one in below:
        yield from _leaves(one, path)
