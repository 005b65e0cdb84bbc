"""Age-restricted personas speak in channels that Discord marks as age-restricted, and nowhere else."""

from dataclasses import replace

import discord
import pytest

from bot.demo_guild import SKERROW_SEED
from bot.moderation.age import AgeRestriction, has_age_tag
from bot.moderation.discord import _named
from bot.personas.creation import CardFile, PersonaForm
from bot.personas.web.new_persona import create_owned
from bot.platform.web_kit.problems import Problem
from bot.store import Channel, Mute, Store
from personas.schemas.chat import Persona
from personas.schemas.training import TrainingRequest
from sandbox import StoredFile
from sandbox.guild_seed import ChannelSeed
from sandbox.sandbox_errors import SandboxRefusal
from tests.bot.conftest import INN, OFFICE, QUAY, STAGE, on_stage
from tests.bot.test_card_commands import removed
from tests.fakes import until

CELLAR = "the-cellar"
SEED = replace(SKERROW_SEED, channels=(*SKERROW_SEED.channels, ChannelSeed(CELLAR, nsfw=True)))
CARD = b"""id = "velvet"
name = "Velvet"
description = "Velvet keeps the night bar."
first_mes = "Come in."
tags = ["bar", "NSFW"]
"""
IMPORT_NOTE = "It is age-restricted: it speaks only in channels that Discord marks so"
NOTICE = "Ballast is age-restricted, and this channel is not."


async def asked(stage, channel, words, who=None):
    mark = stage.mark
    await (who or stage.member).say(channel, words)
    return (await stage.finished(channel, mark))["content"]


async def restrict(stage, persona="ballast", restricted=True):
    return await moderate(stage, persona=persona, restricted=restricted)


async def moderate(stage, **options):
    answer = await stage.moderator.slash(QUAY, "moderation age", **options)
    assert answer.ephemeral
    return answer.message["content"]


async def refused(answer, words):
    await until(lambda: words in answer.text)
    assert answer.ephemeral


async def silent(stage, channel, words):
    """Say something, and see that nobody answers, though one in another channel is answered."""
    before = len(stage.engine.requests)
    await stage.member.say(channel, words)
    await asked(stage, INN, "and I?")
    assert len(stage.engine.requests) == before + 1


def notices(stage, channel=QUAY):
    return [one for one in stage.sandbox.messages(channel) if NOTICE in one["content"]]


async def imported(stage):
    answer = await stage.moderator.slash(
        OFFICE, "persona import", card=StoredFile.named("velvet.toml", CARD)
    )
    await until(lambda: "is a persona" in answer.text)
    return answer.message["content"]


@pytest.mark.parametrize(
    ("tags", "marked"),
    [(["NSFW"], True), ([" nsfw "], True), (["18+"], True), (["not nsfw"], False), ([], False)],
)
def test_a_card_marks_its_persona_by_a_tag(tags, marked):
    assert has_age_tag(Persona("x", "x", tags=tuple(tags))) is marked


async def test_a_card_with_the_tag_gets_marked_channels_only(tmp_path):
    async with on_stage(tmp_path, seed=SEED) as stage:
        assert IMPORT_NOTE in await imported(stage)
        for further in ({"persona": "velvet"}, {"persona": "oda", "second": "velvet"}):
            answer = await stage.moderator.slash(OFFICE, "persona set", **further)
            await refused(answer, "Velvet is age-restricted, and this channel is not.")
            assert "Edit Channel" in answer.message["content"]
        place = stage.store.channels.get(int(stage.sandbox.guild_id), channel_id(stage, OFFICE))
        assert place is None, "nothing was changed by halves"
        mark = stage.mark
        await stage.moderator.slash(CELLAR, "persona set", persona="velvet", answers="everything")
        await stage.sees("Come in.", since=mark, by="Velvet")
        assert "Velvet hears: a drink" in await asked(stage, CELLAR, "a drink")
        thread = await stage.member.thread(CELLAR, "the back room")
        mark = stage.mark
        await stage.member.say(thread, "and here?")
        await stage.sees("Velvet hears: and here?", since=mark)


def channel_id(stage, name):
    return int(stage.sandbox.channel(name)["id"])


async def test_a_channel_that_loses_the_mark_is_told_once_and_answered_again_with_it(tmp_path):
    async with on_stage(tmp_path) as stage:
        stage.sandbox.set_age_restricted(QUAY, True)
        quay = stage.client.get_channel(channel_id(stage, QUAY))
        await until(quay.is_nsfw)
        said = await restrict(stage)
        assert "**Ballast** is age-restricted here." in said and "silent in" not in said
        reply = await asked(stage, QUAY, "hello")
        assert "Ballast hears: hello" in reply
        mark = stage.mark
        stage.sandbox.set_age_restricted(QUAY, False)
        await stage.sees(NOTICE, "message", mark)
        for words in ("hello?", "@Understudy hello?"):
            await silent(stage, QUAY, words)
        await refused(await stage.member.slash(QUAY, "chat", message="hi"), NOTICE)
        assert len(notices(stage)) == 1
        why = await stage.moderator.slash(QUAY, "persona why")
        await until(lambda: NOTICE[:-1] in (why.message or {}).get("content", ""))
    async with on_stage(tmp_path) as stage:  # the seed's channels have no mark
        await silent(stage, QUAY, "after a restart?")
        assert len(notices(stage)) == 1, "it is remembered"
        stage.sandbox.set_age_restricted(QUAY, True)
        await until(stage.client.get_channel(channel_id(stage, QUAY)).is_nsfw)
        assert "Ballast hears: again" in await asked(stage, QUAY, "again")
        stage.sandbox.set_age_restricted(QUAY, False)
        await until(lambda: len(notices(stage)) == 2)


async def test_a_mark_that_was_lost_while_the_bot_was_away_is_told_at_the_next_message(stage):
    with pytest.raises(SandboxRefusal):
        await stage.member.slash(QUAY, "moderation age", persona="ballast", restricted=False)
    said = await restrict(stage)
    assert "It is silent in <#" in said
    await silent(stage, QUAY, "hello?")
    await silent(stage, QUAY, "hello??")
    assert len(notices(stage)) == 1
    shown = await stage.member.slash(QUAY, "persona show")
    await until(lambda: "Silent here: it is age-restricted" in shown.text)
    lines = stage.client.services.scheduled_lines
    quay = stage.client.get_channel(channel_id(stage, QUAY))
    assert "is age-restricted, and the channel is not" in lines.hindrance(quay)
    await restrict(stage, restricted=False)
    assert "Ballast hears: at last" in await asked(stage, QUAY, "at last")
    await restrict(stage)
    await silent(stage, QUAY, "and now?")
    assert len(notices(stage)) == 2


async def test_of_two_personas_the_other_one_answers_on_and_the_notice_stays_one(stage):
    await stage.moderator.slash(QUAY, "persona set", persona="oda", second="ballast")
    await restrict(stage)
    await silent(stage, QUAY, "Ballast, are you there?")
    assert "Oda Marrow hears: anybody" in await asked(stage, QUAY, "anybody else?")
    await silent(stage, QUAY, "Ballast?")
    assert len(notices(stage)) == 1


async def test_the_running_reply_stops_and_its_buttons_are_refused(stage):
    mark = stage.mark
    await stage.member.say(QUAY, "a first word")
    reply = await stage.finished(QUAY, mark)
    running = stage.client.services.reply_service.running
    await until(lambda: not running)
    stage.engine.free.clear()
    await stage.member.say(QUAY, "a long story")
    await until(lambda: any(one.message.generated for one in running.values()))
    mark = stage.mark
    await restrict(stage)
    await stage.sees("· stopped", since=mark)
    stage.engine.free.set()
    for label in ("Reply", "Regenerate"):
        mark = stage.mark
        await stage.member.click(reply, label)
        answer = await stage.sees(NOTICE, "message", mark)
        assert answer["flags"] & 64, "for them alone"
    await refused(await stage.member.context(QUAY, "Reply without training", reply), NOTICE)


async def test_duets_and_blind_tests_are_refused_and_a_running_duet_ends(stage):
    await restrict(stage, "oda")
    answer = await stage.moderator.slash(QUAY, "persona duet", other="oda", opening="Fish?")
    await refused(answer, "Oda Marrow is age-restricted, and this channel is not.")
    await restrict(stage, "oda", restricted=False)
    stage.engine.free.clear()
    await stage.moderator.slash(QUAY, "persona duet", other="oda", opening="Fish?")
    await until(lambda: stage.engine.requests)
    mark = stage.mark
    await restrict(stage, "oda")
    await stage.sees("one of them is age-restricted", "edit", mark)


async def test_direct_messages_offer_no_marked_persona(stage, monkeypatch):
    personas = stage.client.services.personas
    oda = replace(personas.get("oda", 0), tags=("NSFW",))
    everybody = {**personas.of(0), "oda": oda}
    channel = await stage.member.dm()
    mark = stage.mark
    await stage.member.say(channel, "hello?")
    menu = await stage.sandbox.wait_for("message", lambda one: one["components"], since=mark)
    with monkeypatch.context() as patch:
        patch.setattr(type(personas), "of", lambda self, guild_id: everybody)
        patch.setattr(type(personas), "get", lambda self, key, guild_id: everybody.get(key))
        # The menu is from before; the next one has no such persona.
        mark = stage.mark
        await stage.member.select(menu, "choose-persona", ["oda"])
        told = await stage.sees("does not speak in direct messages", "message", mark)
        assert told["flags"] & 64 or told["channel_id"] == channel["id"]
        assert stage.store.channels.get(0, int(channel["id"])) is None
        answer = await stage.member.slash(channel, "chat", message="who is there?")
        await until(lambda: (answer.message or {}).get("components"))
        options = answer.message["components"][0]["components"][0]["options"]
        assert [option["value"] for option in options] == ["ballast", "thrip"]
        place = int(channel["id"])
        stage.store.channels.assign(Channel(0, place, "oda", "everything", 1, 1.0))
        for words in ("hello?", "are you there?"):
            mark = stage.mark
            await stage.member.say(channel, words)
            await stage.sees("does not speak in direct messages", "message", mark)
        assert stage.store.places.note_age_notice(0, place), "nothing is stored of it"


async def test_a_card_of_all_servers_keeps_its_mark_and_one_of_the_server_does_not(tmp_path):
    async with on_stage(tmp_path) as stage:
        await imported(stage)
        assert "Age-restricted here: **Velvet**." in await moderate(stage)
        said = await restrict(stage, "velvet", restricted=False)
        assert "**Velvet** is not age-restricted here" in said
        assert "No persona is age-restricted here." in await moderate(stage)
        assert "No persona is named." in await moderate(stage, restricted=True)
        rules = stage.client.services.reply_service.rules
        shared = Persona("shared", "Shared", tags=("nsfw",))
        with pytest.raises(Exception, match="a persona of all servers"):
            rules.age.set(shared, int(stage.sandbox.guild_id), is_restricted=False)
    async with on_stage(tmp_path) as stage:
        assert "No persona is age-restricted here." in await moderate(stage)
        answer = await stage.moderator.slash(
            OFFICE,
            "persona import",
            card=StoredFile.named("velvet.toml", CARD),
            id="velvet",
        )
        await until(lambda: "Replace its card" in answer.text)
        answer = await stage.moderator.click(answer.message, "Replace")
        await until(lambda: "has a new card" in answer.text)
        assert IMPORT_NOTE not in answer.message["content"], "moderators have decided otherwise"
        await removed(stage, "velvet")


def test_what_moderators_mark_is_their_servers_and_stays_when_the_tag_goes(tmp_path):
    guild = 7
    tagged = Persona("shared", "Shared", tags=("nsfw",))
    plain = replace(tagged, tags=())
    with Store.open(tmp_path / "understudy.sqlite") as store:
        age = AgeRestriction(store)
        age.set(tagged, guild, is_restricted=True)
        assert age.applies(plain, guild) and age.of([plain], guild) == [plain]
        assert not age.applies(plain, 77), "another server is not concerned"
        assert not age.applies(plain, 0), "nor direct messages"
        age.set(plain, guild, is_restricted=False)
        assert not age.applies(plain, guild) and age.applies(tagged, guild), (
            "a tag that comes counts"
        )


def test_of_many_names_some_are_counted():
    assert _named([str(number) for number in range(60)]).endswith(" and 40 more")


async def test_a_forum_that_gets_the_mark_is_told_anew_when_it_loses_it(stage):
    guild = stage.client.get_guild(stage.sandbox.guild_id)
    data = {"id": "4242", "type": 15, "name": "tales", "position": 0, "guild_id": str(guild.id)}
    before, after = (
        discord.ForumChannel(state=stage.client._connection, guild=guild, data={**data, "nsfw": on})
        for on in (False, True)
    )
    places = stage.store.places
    assert places.note_age_notice(guild.id, after.id)
    await stage.client.get_cog("ChatCog").on_guild_channel_update(before, after)
    assert places.note_age_notice(guild.id, after.id), "the notice was forgotten"
    await stage.client.get_cog("ChatCog").on_guild_channel_update(after, before)


async def test_its_lore_is_told_in_marked_channels_only(tmp_path):
    async with on_stage(tmp_path, seed=SEED) as stage:
        for restrict_it in (restrict, tagged):
            await restrict_it(stage)
            asking = {"question": "How heavy is fog?", "persona": "ballast"}
            await refused(await stage.member.slash(INN, "persona lore ask", **asking), NOTICE)
            told = await stage.member.slash(CELLAR, "persona lore ask", **asking)
            await until(lambda answer=told: "Shared sets" in answer.text)


async def tagged(stage):
    """Take Ballast's mark, and put the tag into its card."""
    await restrict(stage, restricted=False)
    shipped = stage.client.services.personas._shipped
    shipped["ballast"] = replace(shipped["ballast"], tags=("NSFW",))


async def test_a_result_shows_its_replies_in_marked_channels_only(stage):
    guild, quay = int(stage.sandbox.guild_id), channel_id(stage, QUAY)
    services = stage.client.services
    request = TrainingRequest(job_name="voice", persona="ballast")
    job = services.trainings.start(request, guild_id=guild, channel_id=quay).job
    messages = stage.client.get_cog("FinetuneCog")._messages
    channel = stage.client.get_channel(quay)
    assert not messages._must_hide_replies(job, channel)
    await restrict(stage)
    assert messages._must_hide_replies(job, channel)
    stage.sandbox.set_age_restricted(QUAY, True)
    await until(channel.is_nsfw)
    assert not messages._must_hide_replies(job, channel)


async def test_a_mute_is_what_members_are_told_first_and_greetings_stay_away(stage):
    service = stage.client.services.reply_service
    oda = stage.client.services.personas.get("oda", 0)
    theatre = stage.client.get_channel(channel_id(stage, STAGE))
    await restrict(stage, "oda")
    assert await service.greet(oda, theatre) is False
    stage.store.mutes.add(Mute(int(stage.sandbox.guild_id), 0, "oda", 1, 1.0))
    answer = await stage.member.slash(INN, "chat", message="hi")
    await refused(answer, "A moderator has silenced Oda Marrow here.")


async def test_the_dashboard_creates_no_marked_persona_in_another_channel(stage):
    """Neither does `POST /personas`, which calls the same function."""
    services = stage.client.services
    file = CardFile("velvet.toml", CARD)
    guild = str(stage.sandbox.guild_id)

    async def create(channel):
        return await create_owned(
            services, PersonaForm(), file, guild=guild, channel=str(channel_id(stage, channel))
        )

    with pytest.raises(Problem, match="Velvet is age-restricted, and this channel is not"):
        await create(OFFICE)
    assert services.personas.find("velvet", int(guild)) is None, "nothing was created by halves"
    stage.sandbox.set_age_restricted(OFFICE, True)
    await until(stage.client.get_channel(channel_id(stage, OFFICE)).is_nsfw)
    await create(OFFICE)
    await stage.sees("Come in.", by="Velvet")


async def test_the_form_on_discord_keeps_the_persona_and_says_why_it_lives_nowhere(stage):
    form = await stage.moderator.slash(
        OFFICE, "persona create", picture=StoredFile.named("velvet.toml", CARD), use_here=True
    )
    values = {}
    for row in form.modal["components"]:
        field = row["component"]
        values[field["custom_id"]] = field.get("value") or ""
    mark = stage.mark
    await stage.moderator.submit(form, **values)
    shown = await stage.sees("Velvet is age-restricted, and this channel is not.", since=mark)
    assert "is a persona of this server now" in shown["content"]
    assert stage.store.channels.get(int(stage.sandbox.guild_id), channel_id(stage, OFFICE)) is None
