"""`/persona face`: the bot itself has a persona's name and picture in a server, and speaks as it."""

from dataclasses import replace

import pytest

import bot.faces.actions
import bot.faces.discord
from bot.demo_guild import MEMBER, SKERROW_SEED
from bot.faces.actions import Face
from bot.operations.doctor.connection_checks import missing_permissions
from personas.schemas.chat import Persona
from sandbox import traffic_log
from sandbox.sandbox_errors import Json
from tests.bot.conftest import INN, OFFICE, QUAY, on_stage
from tests.bot.test_card_commands import bring_in, removed, response_text
from tests.fakes import until

ANNEX = replace(SKERROW_SEED, name="Annex", bot_avatar=None)
OWN_MEMBER = "PATCH /guilds/{guild_id}/members/@me"


@pytest.fixture(autouse=True)
def quick_checks(monkeypatch):
    monkeypatch.setattr(bot.faces.discord, "CHECK_INTERVAL_S", 0.05)


async def moderated(stage, command, **options):
    answer = await stage.moderator.slash(OFFICE, command, **options)
    await until(lambda: (answer.message or {}).get("content"))
    return answer.message["content"]


async def faced(stage, persona="oda"):
    said = await moderated(stage, "persona face", persona=persona)
    assert "is the bot's face, and speaks as the bot itself" in said
    return said


def shown(stage, guild_id=None) -> tuple[str | None, bytes | None]:
    """The bot's nickname and picture in a guild, as its members see them."""
    container = stage.sandbox._of_guild(guild_id)
    member: Json = container.guild.member(str(stage.sandbox.bot_id))
    picture = container.store.file(int(member["avatar"], 16)) if member["avatar"] else None
    return member["nick"], picture and picture.data


def face_of(stage, persona_id) -> tuple[str, bytes]:
    persona = stage.client.services.personas.get(persona_id, stage.sandbox.guild_id)
    return persona.name, persona.avatar.read_bytes()


async def answered(stage, text, channel=INN, **options):
    mark = stage.mark
    await stage.member.say(channel, text, **options)
    return await stage.finished(channel, mark)


def is_bots(stage, message) -> bool:
    return message["author"]["id"] == str(stage.sandbox.bot_id) and "webhook_id" not in message


async def test_the_persona_speaks_as_the_bot_and_hears_replies_without_the_intent(tmp_path):
    async with on_stage(tmp_path, message_content=False) as stage:
        by_webhook = await answered(stage, "@Understudy hello")
        assert not is_bots(stage, by_webhook)
        mark = stage.mark
        await stage.member.say(INN, "thick?", reply_to=by_webhook)
        await stage.sees("Discord hides your message from me", since=mark)
        await faced(stage)
        assert shown(stage) == face_of(stage, "oda")
        reply = await answered(stage, "@Oda Marrow hello")
        assert is_bots(stage, reply) and reply["content"].startswith("Oda Marrow hears: hello")
        reply = await answered(stage, "how thick?", reply_to=reply)
        assert is_bots(stage, reply) and "hears: how thick?" in reply["content"]
        other = await answered(stage, "@Understudy hello", QUAY)
        assert not is_bots(stage, other) and other["author"]["username"] == "Ballast"


async def test_a_reply_is_made_anew_by_whoever_has_sent_it(stage):
    first = await answered(stage, "one")
    await faced(stage)
    second = await answered(stage, "two")
    await moderated(stage, "persona face", off=True)
    for reply, beginning in ((second, "**Oda Marrow:** Oda"), (first, "Oda Marrow hears")):
        event = stage.store.replies.of_message(int(reply["id"])).event_id
        mark = stage.mark
        await stage.member.click(reply, f"again:{event}")
        anew = await stage.finished(INN, mark)
        assert anew["id"] == reply["id"] and anew["content"].startswith(beginning)
        await until(lambda: not stage.store.replies.unfinished())
        await faced(stage)


async def test_off_gives_the_bot_its_own_face_back(stage):
    await moderated(stage, "moderation audit", channel=stage.sandbox.channel(QUAY)["id"])
    assert "its own name and picture" in await moderated(stage, "persona face")
    await faced(stage)
    assert "Oda Marrow** is the bot's face" in await moderated(stage, "persona face")
    said = await stage.member.slash(INN, "persona show")
    await response_text(said, "is the bot's face")
    assert "Choose one of the two" in await moderated(
        stage, "persona face", persona="oda", off=True
    )
    await moderated(stage, "persona face", off=True)
    assert shown(stage) == (None, None) and stage.store.faces.all() == []
    assert not is_bots(stage, await answered(stage, "hello"))
    for line in ("made **Oda Marrow** the face of the bot", "took the face of **Oda Marrow** off"):
        await stage.sees(line)
    refused = await stage.member.slash(INN, "persona face", persona="oda")
    await response_text(refused, "moderators")
    assert stage.store.faces.all() == []


async def test_off_leaves_a_nickname_alone_that_is_no_personas(stage):
    container = stage.sandbox._container
    by_hand = container.guild.change_bot(nick="Mother")
    container.gateway.dispatch("GUILD_MEMBER_UPDATE", by_hand | {"guild_id": container.guild.id})
    await until(lambda: stage.client.guilds[0].me.nick == "Mother")
    await moderated(stage, "persona face", off=True)
    assert shown(stage) == ("Mother", None) and stage.store.faces.all() == []


async def test_without_the_permission_it_says_so_and_the_persona_speaks_through_its_webhook(stage):
    stage.sandbox.set_permission("CHANGE_NICKNAME", False)
    said = await moderated(stage, "persona face", persona="oda")
    assert "I lack the permission Change Nickname. Server Settings → Roles" in said
    assert stage.store.faces.all() == [] and shown(stage) == (None, None)
    assert not is_bots(stage, await answered(stage, "hello"))


async def test_a_changed_card_is_followed_and_until_then_the_persona_has_its_webhook(stage):
    await faced(stage)
    stage.sandbox.set_permission("CHANGE_NICKNAME", False)
    await until(lambda: not stage.client.guilds[0].me.guild_permissions.change_nickname)
    personas = stage.client.services.personas
    personas.rewrite("oda", personas.table("oda") | {"name": "Oda Brine"})
    reply = await answered(stage, "hello")
    assert not is_bots(stage, reply) and reply["author"]["username"] == "Oda Brine"
    await until(lambda: stage.client.services.faces.problem(stage.sandbox.guild_id))
    said = await moderated(stage, "persona face")
    assert "**Oda Brine** is to be the bot's face. I lack the permission Change Nickname" in said
    lacks = await missing_permissions(stage.client, stage.store)
    assert [lack.need.permission for lack in lacks] == ["change_nickname"]
    stage.sandbox.set_permission("CHANGE_NICKNAME", True)
    await until(lambda: shown(stage)[0] == "Oda Brine" and stage.store.faces.all()[0].shown)
    assert is_bots(stage, await answered(stage, "hello again"))
    assert stage.client.services.faces.problem(stage.sandbox.guild_id) == ""
    assert await missing_permissions(stage.client, stage.store) == []


async def test_a_removed_personas_face_is_taken_off(stage):
    await moderated(stage, "moderation audit", channel=stage.sandbox.channel(QUAY)["id"])
    await response_text(await bring_in(stage), "is a persona of this server now")
    await faced(stage, "mira")
    assert shown(stage) == face_of(stage, stage.store.faces.all()[0].persona_id)
    await removed(stage, "mira")
    await until(lambda: shown(stage) == (None, None) and stage.store.faces.all() == [])
    await stage.sees("The bot took off the face of `mira`, who is gone")


async def test_an_age_restricted_persona_is_no_face_and_one_that_is_marked_comes_off(stage):
    await moderated(stage, "moderation audit", channel=stage.sandbox.channel(QUAY)["id"])
    await faced(stage)
    stage.sandbox.set_age_restricted(INN, True)
    said = await moderated(stage, "moderation age", persona="oda", restricted=True)
    assert said.endswith("The bot takes off its name and picture.")
    wearer = stage.client.services.faces.wearer(stage.sandbox.guild_id)
    assert wearer is None, "at once, whenever Discord follows"
    await until(lambda: shown(stage) == (None, None) and stage.store.faces.all() == [])
    await stage.sees("The bot took off the face of `oda`, who is age-restricted")
    assert not is_bots(stage, await answered(stage, "are you there?"))
    refused = await moderated(stage, "persona face", persona="oda")
    assert "Oda Marrow is age-restricted, and the bot's name and picture show" in refused
    assert shown(stage) == (None, None) and stage.store.faces.all() == []


async def test_a_bot_that_is_killed_while_it_changes_its_face_does_so_at_the_next_start(tmp_path):
    async with on_stage(tmp_path) as stage:
        stage.sandbox.fail_requests(OWN_MEMBER, "cut_after", 20)
        await stage.moderator.slash(INN, "persona face", persona="oda")
        await until(stage.store.faces.all)
        assert not is_bots(stage, await answered(stage, "hello"))
        assert stage.store.faces.all()[0].shown == ""
    async with on_stage(tmp_path) as stage:
        await until(lambda: stage.store.faces.all()[0].shown)
        assert shown(stage) == face_of(stage, "oda")
        assert is_bots(stage, await answered(stage, "hello again"))


async def test_a_reply_that_was_being_written_is_finished_in_the_same_message(tmp_path):
    async with on_stage(tmp_path) as stage:
        await faced(stage)
        stage.engine.free.clear()
        mark = stage.mark
        await stage.member.say(INN, "hold on")
        begun = await stage.sees("…", since=mark)
        assert is_bots(stage, begun)
    async with on_stage(tmp_path) as stage:
        await until(lambda: not stage.store.replies.unfinished())
        question, reply = stage.sandbox.messages(INN)[-2:]
        assert question["content"] == "hold on" and reply["id"] == begun["id"]
        assert "hears: hold on\n-# AI-written" in reply["content"]


async def test_a_face_that_the_database_does_not_know_of_is_replaced_at_the_next_start(tmp_path):
    async with on_stage(tmp_path) as stage:
        await faced(stage)
        # As after the restoration of a backup from before.
        stage.sandbox._container.guild.change_bot(nick="Sir Aurelio Thrip")
    async with on_stage(tmp_path) as stage:
        await until(lambda: shown(stage) == face_of(stage, "oda"))


async def test_a_name_given_by_hand_stays_and_a_bot_that_comes_back_gets_its_face_anew(stage):
    await faced(stage)
    container = stage.sandbox._container
    guild = stage.client.guilds[0]
    by_hand = container.guild.change_bot(nick="Mother")
    container.gateway.dispatch("GUILD_MEMBER_UPDATE", by_hand | {"guild_id": container.guild.id})
    await until(lambda: guild.me.nick == "Mother")
    await stage.client.services.faces.bring_up_to_date()
    assert is_bots(stage, await answered(stage, "hello")) and shown(stage)[0] == "Mother"
    stage.client.dispatch("guild_join", guild)
    await until(lambda: shown(stage) == face_of(stage, "oda"))


async def test_two_servers_have_different_faces(tmp_path):
    async with on_stage(tmp_path, more_guilds=[ANNEX]) as stage:
        here, there = stage.sandbox.guild_ids
        await faced(stage)
        personas = stage.client.services.personas
        annex = stage.client.get_guild(there)
        thrip = personas.get("thrip", there)
        assert await stage.client.services.faces.choose(annex, thrip, by=0) == ""
        assert (shown(stage, here), shown(stage, there)) == (
            face_of(stage, "oda"),
            face_of(stage, "thrip"),
        )
        quay = stage.sandbox.channel(QUAY, there)
        stage.client.services.reply_service.assign(
            thrip, stage.client.get_channel(int(quay["id"])), answers="everything", user_id=0
        )
        await stage.sandbox.member(MEMBER, there).say(quay, "hello")
        assert is_bots(stage, await stage.sees("Sir Aurelio Thrip hears: hello"))
        assert is_bots(stage, await answered(stage, "hello"))


async def test_what_discord_refuses_is_said_and_tried_again_later(stage, monkeypatch):
    monkeypatch.setattr(bot.faces.actions, "REFUSED_DELAY_S", 0.2)
    for persona in ("oda", "thrip", "ballast", "oda", "thrip"):
        await faced(stage, persona)
    said = await moderated(stage, "persona face", persona="oda")
    assert "**Oda Marrow** is to be the bot's face. Discord lets names and pictures" in said
    assert not is_bots(stage, await answered(stage, "hello"))
    stage.sandbox.advance(600)
    await until(lambda: shown(stage) == face_of(stage, "oda") and stage.store.faces.all()[0].shown)
    assert is_bots(stage, await answered(stage, "hello again"))


async def test_a_mention_of_the_bot_calls_the_persona_that_it_shows(stage):
    await moderated(stage, "persona face", persona="thrip")
    answer = await stage.moderator.slash(QUAY, "persona set", persona="ballast", second="thrip")
    await response_text(answer, "lives here now")
    assert is_bots(stage, await answered(stage, "@Sir Aurelio Thrip well?", QUAY))
    assert (await answered(stage, "well?", QUAY))["author"]["username"] == "Ballast"
    other = await answered(stage, "@Understudy well?")
    assert other["author"]["username"] == "Oda Marrow", "who does not live there is not called"


async def test_where_the_bot_may_not_write_the_webhook_does(stage, monkeypatch):
    await faced(stage)
    traffic = []
    monkeypatch.setattr(traffic_log, "observers", [*traffic_log.observers, traffic.append])
    stage.sandbox.set_permission("SEND_MESSAGES", False)
    reply = await answered(stage, "hello")
    assert not is_bots(stage, reply) and reply["author"]["username"] == "Oda Marrow"
    refused = [what.method for what in traffic if getattr(what, "status", 0) == 403]
    assert refused == ["POST"], "what the webhook has sent is not tried as the bot"


@pytest.mark.parametrize(
    ("name", "nickname", "shown_name"),
    [
        ("Oda Marrow", "Oda", "Oda Marrow"),
        ("Oda  Marrow ", "", "Oda Marrow"),
        ("The Harbour Master of Skerrow and All Its Lights", "The Master", "The Master"),
        (
            "The Harbour Master of Skerrow and All Its Lights",
            "",
            "The Harbour Master of Skerrow a…",
        ),
        ("🦀" * 20, "", "🦀" * 15 + "…"),
    ],
)
def test_a_long_name_is_shown_as_far_as_it_fits(name, nickname, shown_name):
    face = Face.of(Persona(id="x", name=name, nickname=nickname))
    assert face.nick == shown_name and len(shown_name.encode("utf-16-le")) <= 64


def test_another_name_or_picture_is_another_face(tmp_path):
    for name, content in (("a", b"one"), ("b", b"two")):
        (tmp_path / name).write_bytes(content)
    faces = [Face(), Face("Oda"), Face("Oda", tmp_path / "a"), Face("Oda", tmp_path / "b")]
    assert len({face.digest for face in faces}) == len(faces)
