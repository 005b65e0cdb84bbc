"""`/persona`: who lives where, who may say so, and what is missing."""

import dataclasses
from pathlib import Path

import aiohttp

from bot.demo_guild import SKERROW_SEED
from bot.guild_settings.definitions import CANDIDATES
from bot.platform.permissions import REQUIRED_PERMISSIONS, invite_url, required_permissions
from sandbox.message_components import all_components
from tests.bot.conftest import OFFICE, QUAY, on_stage
from tests.fakes import until


async def response_text(answer, words):
    await until(lambda: words in answer.text)
    assert answer.ephemeral


async def test_a_moderator_sets_shows_lists_and_clears(stage):
    mark = stage.mark
    answer = await stage.moderator.slash(
        OFFICE, "persona set", persona="oda marrow", answers="mentions"
    )
    await response_text(answer, "**Oda Marrow** lives here")
    await stage.sees("a greeting by this persona's author", by="Oda Marrow", since=mark)
    await response_text(
        await stage.member.slash(OFFICE, "persona show"),
        "messages that mention me",
    )
    await response_text(await stage.member.slash(QUAY, "persona show"), "Answers every message")
    listed = await stage.member.slash(QUAY, "persona list")
    await response_text(listed, f"<#{stage.sandbox.channel(OFFICE)['id']}>")
    await response_text(
        await stage.moderator.slash(OFFICE, "persona clear"), "Nobody lives here now."
    )
    await response_text(
        await stage.moderator.slash(OFFICE, "persona clear"), "No persona lives here."
    )
    await response_text(await stage.member.slash(OFFICE, "persona show"), "No persona lives here.")


async def test_a_long_list_takes_several_messages_and_taglines_post_no_links(stage, monkeypatch):
    personas = stage.client.services.personas
    ballast = personas.get("ballast", 0)
    tagline = f"Weighs all.\n# Come to https://discord.gg/abc {'and weigh ' * 12}"
    many = {}
    for number in range(15):
        persona_id = f"crane-{number}"
        many[persona_id] = dataclasses.replace(
            ballast, id=persona_id, name=f"Crane {number}", tagline=tagline
        )
    monkeypatch.setattr(personas, "of", lambda _: many)
    await stage.moderator.slash(QUAY, "persona mute")
    mark = stage.mark
    await stage.member.slash(QUAY, "persona list")
    first = await stage.sees("**Crane 0**", "message", mark)
    last = await stage.sees("Muted: all personas in <#", "message", mark)
    assert first["id"] != last["id"] and "**Crane 14**" in last["content"]
    for shown in (first["content"], last["content"]):
        assert "discord.gg" not in shown and "Weighs all. #" in shown
        assert all(
            line.startswith(("**Crane", "Weighs all.", "Muted")) for line in shown.splitlines()
        )


def candidates(stage):
    return stage.engine.requests[-1].sampling.candidates


async def asked(stage):
    mark = stage.mark
    await stage.member.say(QUAY, "hello")
    await stage.finished(QUAY, mark)
    return candidates(stage)


async def test_moderators_choose_among_how_many_candidates_replies_begin(tmp_path):
    async with on_stage(tmp_path, candidates=(2, 4)) as stage:
        assert await asked(stage) == 2, "the operator's number, until the server has its own"
        shown = await stage.moderator.slash(QUAY, "persona candidates")
        operators = (
            "chosen among 2 while the engine is not busy. That is the operator's number; the most "
            "is 4."
        )
        await response_text(shown, operators)
        for count in (4, 1):
            await stage.moderator.slash(QUAY, "persona candidates", count=count)
            assert await asked(stage) == count
        shown = await stage.moderator.slash(QUAY, "persona candidates")
        await response_text(shown, "chosen 1; the most is 4")
        await response_text(
            await stage.moderator.slash(QUAY, "persona candidates", count=0), operators
        )
        assert await asked(stage) == 2
        await stage.moderator.slash(QUAY, "persona candidates", count=1)
        too_many = await stage.moderator.slash(QUAY, "persona candidates", count=5)
        await response_text(too_many, "at most 4 candidates. The operator can")
        offered = await stage.moderator.autocomplete(QUAY, "persona candidates", "count", count="")
        assert [one["name"] for one in offered] == ["the operator's number", "1", "2", "3", "4"]
        offered = await stage.moderator.autocomplete(QUAY, "persona candidates", "count", count="4")
        assert [one["value"] for one in offered] == [4]
        member = await stage.member.slash(QUAY, "persona candidates", count=4)
        await response_text(member, "Only moderators may do this.")
        assert await asked(stage) == 1
        await stage.moderator.slash(QUAY, "persona candidates", count=4)
    async with on_stage(tmp_path, candidates=(1, 3)) as stage:
        assert await asked(stage) == 3, "chosen before the operator allowed less"
        possible = stage.client.services.reply_candidates
        here = stage.sandbox.guild_id
        assert [possible.in_guild(guild) for guild in (here, here + 1, 0)] == [3, 1, 1]
        stage.store.guilds.delete(here)
        assert possible.in_guild(here) == 1


async def test_one_candidate_is_all_that_a_server_has_where_the_engine_makes_one(tmp_path):
    async with on_stage(tmp_path, candidates=(1, 1)) as stage:
        # From before ENGINE was changed.
        CANDIDATES.write(stage.store, 4, stage.sandbox.guild_id)
        refused = await stage.moderator.slash(QUAY, "persona candidates", count=2)
        await response_text(refused, "one candidate. The operator can")
        assert "with ENGINE=local or llamacpp" in refused.message["content"]
        assert await asked(stage) == 1
        await response_text(
            await stage.moderator.slash(QUAY, "persona candidates", count=1), "the most is 1."
        )
        assert CANDIDATES.read(stage.store, stage.sandbox.guild_id) == 1


async def test_what_is_missing_is_said_where_it_matters(tmp_path, caplog):
    poor = required_permissions()
    poor.manage_webhooks = False
    seed = dataclasses.replace(SKERROW_SEED, bot_permissions=poor.value)
    async with on_stage(tmp_path, seed=seed, message_content=False) as stage:
        assert "Manage Webhooks is missing" in caplog.text
        assert "personas answer under" in caplog.text
        answer = await stage.moderator.slash(
            OFFICE, "persona set", persona="oda", answers="everything"
        )
        await response_text(answer, "it answers only mentions")
        await response_text(answer, "permission Manage Webhooks")


def test_the_invite_asks_for_each_need():
    for need in REQUIRED_PERMISSIONS:
        assert getattr(required_permissions(), need.permission), need
    assert f"permissions={required_permissions().value}" in invite_url(1)


async def test_commands_are_registered_once_and_again_only_when_they_changed(tmp_path):
    async with on_stage(tmp_path, registers_commands=True) as stage:
        assert len([kind for kind, _ in stage.sandbox.events if kind == "commands"]) == 1
    async with on_stage(tmp_path) as stage:
        assert [kind for kind, _ in stage.sandbox.events if kind == "commands"] == []
    (tmp_path / "commands.sha256").write_text("of an older version")
    async with on_stage(tmp_path) as stage:
        assert len([kind for kind, _ in stage.sandbox.events if kind == "commands"]) == 1


def parts_of(message):
    return list(all_components(message["components"]))


def buttons_of(message):
    return [part["label"] for part in parts_of(message) if "label" in part]


async def test_a_card_shows_the_picture_the_version_and_buttons_by_right(stage):
    shown = await stage.member.slash(QUAY, "persona show")
    await until(lambda: "Answers every message" in shown.text)
    assert shown.ephemeral and shown.message["content"] == ""
    (box,) = shown.message["components"]
    who, _, replies, _ = box["components"]
    title, tagline, state = who["components"][0]["content"].splitlines()
    assert title == "### **Ballast** (`ballast`)" and "Dock Crane" in tagline
    assert state.endswith("Live: base model (not trained yet).")
    assert replies["content"].startswith("• Longest reply")
    async with aiohttp.ClientSession() as http:
        answer = await http.get(who["accessory"]["media"]["url"])
        assert (await answer.read()).startswith(b"\xff\xd8"), "a small JPEG"
    assert who["accessory"]["description"] == "Ballast"
    assert buttons_of(shown.message) == ["Talk to them"]
    shown = await stage.moderator.slash(QUAY, "persona show")
    await until(lambda: shown.text)
    # A card that came with the bot is not edited from a server.
    assert buttons_of(shown.message) == ["Talk to them", "Train them"]


async def test_the_buttons_of_a_card_ask_and_train(stage):
    shown = await stage.moderator.slash(QUAY, "persona show")
    await until(lambda: shown.text)
    mark = stage.mark
    asked = await stage.moderator.click(shown.message, "Talk to them")
    await stage.moderator.submit(asked, text="how heavy is fog?")
    assert "how heavy is fog?" in (await stage.finished(QUAY, mark))["content"]
    told = await stage.moderator.click(shown.message, "Train them")
    await response_text(told, "A training needs replies for Ballast")


async def test_a_card_without_a_picture_has_none(stage):
    persona = stage.client.services.personas.get("ballast", 0)
    damaged = dataclasses.replace(persona, avatar=Path(__file__))
    for without in (damaged, dataclasses.replace(persona, avatar=None)):
        stage.client.services.personas._shipped["ballast"] = without
        shown = await stage.member.slash(QUAY, "persona show")
        await until(lambda shown=shown: "Answers every message" in shown.text)
        assert not [part for part in parts_of(shown.message) if "accessory" in part]
