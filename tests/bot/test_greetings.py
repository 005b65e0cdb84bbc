"""Greetings of new members: one for a burst, by whoever lives in the channel, and none where it would
disturb.
"""

from datetime import timedelta

import discord
import pytest

import bot.schedules.discord_greetings
from bot.guild_settings.definitions import HAS_MINORS
from bot.moderation.store import Block
from bot.platform.errors import RefusedError
from bot.safety.actions import PLAIN_DISCLOSURE
from bot.schedules.greetings import (
    MAX_MACROS,
    MAX_NAMED,
    MAX_TEXT_CHARS,
    _joined,
    prompt_text,
)
from bot.schedules.store import MemberGreeting
from bot.store import ALL_CHANNELS, ALL_PERSONAS, Mute, Store
from sandbox.guild import Guild
from tests.bot.conftest import QUAY, on_stage
from tests.bot.languages import localised
from tests.bot.set_settings import set_answering
from tests.bot.set_times import AheadClock, answer_to
from tests.fakes import until

PROMPT = "welcome {{user}} warmly."
TEXT = "Ahoy, {{user}}! @everyone, https://example.org"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(bot.schedules.discord_greetings, "BURST_WAIT_S", 0.3)
    monkeypatch.setattr(bot.schedules.discord_greetings, "MIN_INTERVAL_S", 0.0)


@pytest.fixture
def _long_burst(monkeypatch):
    """Several joins are one burst, also on a busy machine."""
    monkeypatch.setattr(bot.schedules.discord_greetings, "BURST_WAIT_S", 1.0)


async def greeting(stage, who=None, channel=QUAY, **options):
    return await answer_to(stage, "persona line greeting", who, channel, **options)


def cog(stage):
    return stage.client.get_cog("GreetingCog")


async def greeted(stage):
    """Wait until nobody waits for a greeting."""
    await until(lambda: not cog(stage)._tasks and not stage.client.services.reply_service.tasks)


def quay(stage):
    return stage.sandbox.messages(QUAY)


@pytest.mark.usefixtures("_long_burst")
async def test_a_fixed_text_greets_a_burst_once_and_mentions_the_new_members_alone(tmp_path):
    async with on_stage(tmp_path, members=True) as stage:
        assert "with the words: Ahoy, {{user}}!" in await greeting(stage, text=TEXT)
        before = len(quay(stage))
        first = stage.sandbox.join("Nell Sand")
        stage.sandbox.join("Another Bot", bot=True)
        second = stage.sandbox.join("Ivo Reed")
        gone = stage.sandbox.join("Gone Again")
        stage.sandbox.leave(gone["user"]["id"])
        await until(lambda: len(quay(stage)) == before + 1)
        await greeted(stage)  # its row has the id that Discord answers with, so it comes after
        message = quay(stage)[-1]
        ids = [first["user"]["id"], second["user"]["id"]]
        assert message["author"]["username"] == "Ballast"
        assert (
            f"Ahoy, <@{ids[0]}> and <@{ids[1]}>! @\u200beveryone, (link left out)"
            in message["content"]
        )
        assert "a moderator of this server has written" in message["content"]
        assert sorted(it["id"] for it in message["mentions"]) == sorted(ids)
        assert not message["mention_everyone"]
        assert stage.store.replies.of_message(int(message["id"])).persona_id == "ballast"


async def test_a_webhook_that_was_deleted_costs_no_greeting(tmp_path):
    async with on_stage(tmp_path, members=True) as stage:
        await greeting(stage, text=TEXT)
        stage.sandbox.join("Nell Sand")
        await stage.sees("Ahoy")
        channel = discord.utils.get(stage.client.guilds[0].text_channels, name=QUAY)
        for webhook in await channel.webhooks():
            await webhook.delete()
        mark = stage.mark
        stage.sandbox.join("Ivo Reed")
        shown = await stage.sees("Ahoy", "message", mark)
        assert shown["author"]["username"] == "Ballast"


async def test_who_comes_again_is_not_greeted_again_even_after_a_restart(tmp_path):
    async with on_stage(tmp_path, members=True) as stage:
        await greeting(stage, text=TEXT)
        before = len(quay(stage))
        nell = await joined(stage, "Nell Sand")
        assert len(quay(stage)) == before + 1
    async with on_stage(tmp_path, members=True) as stage:
        event(stage, "GUILD_MEMBER_ADD", nell)
        ivo = await joined(stage, "Ivo Reed")
        assert len(quay(stage)) == before + 2
        assert mentioned(quay(stage)[-1]) == [ivo["user"]["id"]]
        assert not await greet_again(stage, nell)
        stage.store.greeted_members.delete_before(2e9)
        assert await greet_again(stage, nell), "after some time they are a new member"


async def test_an_archived_thread_is_opened_by_a_greeting(tmp_path):
    async with on_stage(tmp_path, members=True) as stage:
        thread = await stage.moderator.thread(QUAY, "arrivals")
        thread_id = int(thread["id"])
        await greeting(stage, channel=thread, text=TEXT)
        stage.sandbox.archive_thread(thread["id"])
        await until(lambda: stage.client.get_channel(thread_id) is None)
        mark = stage.mark
        nell = await joined(stage, "Nell Sand")
        said = await stage.sees("Ahoy", since=mark, by="Ballast")
        assert said["channel_id"] == thread["id"] and mentioned(said) == [nell["user"]["id"]]
        await until(lambda: stage.client.get_channel(thread_id))


async def greet_again(stage, member):
    """Have a member come again; returns whether they are greeted."""
    before = len(quay(stage))
    event(stage, "GUILD_MEMBER_ADD", member)
    await until(lambda: cog(stage)._tasks)
    await greeted(stage)
    return len(quay(stage)) > before


async def test_who_has_to_accept_rules_first_is_greeted_once_they_did(tmp_path):
    async with on_stage(tmp_path, members=True) as stage:
        await greeting(stage, text=TEXT)
        before = len(quay(stage))
        nell, ivo = (newcomer(stage, name) for name in ("Nell Sand", "Ivo Reed"))
        for member in (nell, ivo):
            event(stage, "GUILD_MEMBER_ADD", member | {"pending": True})
        await until(lambda: len(cog(stage)._screened) == 2)
        assert not cog(stage)._tasks
        stage.sandbox.leave(ivo["user"]["id"])
        event(stage, "GUILD_MEMBER_UPDATE", nell | {"pending": True, "nick": "Nell"})
        event(stage, "GUILD_MEMBER_UPDATE", nell | {"pending": False})
        event(stage, "GUILD_MEMBER_UPDATE", nell | {"nick": "Nelly"})
        await until(lambda: len(quay(stage)) == before + 1)
        await greeted(stage)
        assert mentioned(quay(stage)[-1]) == [nell["user"]["id"]]
        assert not cog(stage)._screened and len(quay(stage)) == before + 1
        guild = stage.client.get_guild(int(stage.sandbox.guild_id))
        assert guild.get_member(int(nell["user"]["id"])) is None, "nobody else stays in memory"


async def test_who_accepts_the_rules_during_or_after_a_restart_is_greeted(tmp_path, monkeypatch):
    async with on_stage(tmp_path, members=True) as stage:
        await greeting(stage, text=TEXT)
        crowd = [
            newcomer(stage, name) for name in ("Nell Sand", "Ivo Reed", "Ada Finch", "Bo Tarn")
        ]
        for member in crowd:
            event(stage, "GUILD_MEMBER_ADD", member | {"pending": True})
        nell, ivo, ada, bo = crowd
        await until(lambda: len(cog(stage)._screened) == 4)
        stage.sandbox.leave(bo["user"]["id"])
        await until(lambda: len(cog(stage)._screened) == 3)
        before = len(quay(stage))
    real = Guild.members
    pending = {nell["user"]["id"], ada["user"]["id"]}

    def members(guild):
        return [one | {"pending": one["user"]["id"] in pending} for one in real(guild)]

    monkeypatch.setattr(Guild, "members", members)
    async with on_stage(tmp_path, members=True) as stage:
        await until(lambda: len(quay(stage)) == before + 1)
        assert mentioned(quay(stage)[-1]) == [ivo["user"]["id"]], "who accepted meanwhile"
        await until(lambda: len(cog(stage)._screened) == 2)
        event(stage, "GUILD_MEMBER_UPDATE", nell | {"pending": False})
        await until(lambda: len(quay(stage)) == before + 2)
        await greeted(stage)
        assert mentioned(quay(stage)[-1]) == [nell["user"]["id"]]
        guild_id = int(stage.sandbox.guild_id)
        ids = [int(one["user"]["id"]) for one in crowd]
        assert stage.store.greeted_members.among(guild_id, ids) == set(ids[:2])
        assert stage.store.greeted_members.awaited(guild_id, 9) == [ids[2]]


async def test_of_many_who_never_accept_the_rules_only_some_are_kept_in_memory(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(bot.schedules.discord_greetings, "MAX_SCREENED", 2)
    async with on_stage(tmp_path, members=True) as stage:
        await greeting(stage, text=TEXT)
        crowd = [newcomer(stage, f"Nell {number}") for number in range(4)]
        guild = stage.client.get_guild(int(stage.sandbox.guild_id))
        for member in crowd:
            event(stage, "GUILD_MEMBER_ADD", member | {"pending": True})
        last = int(crowd[-1]["user"]["id"])
        await until(lambda: guild.get_member(last))
        kept = [member for member in crowd if guild.get_member(int(member["user"]["id"]))]
        assert kept == crowd[-2:] and len(cog(stage)._screened) == 2


@pytest.mark.usefixtures("_long_burst")
async def test_a_raid_gets_one_greeting_that_names_some(tmp_path, monkeypatch):
    monkeypatch.setattr(bot.schedules.discord_greetings, "MAX_JOINED", 9)
    async with on_stage(tmp_path, members=True) as stage:
        await greeting(stage, text="Ahoy, {{user}}!")
        before = len(quay(stage))
        crowd = [stage.sandbox.join(f"Nell {number}") for number in range(12)]
        await until(lambda: len(quay(stage)) == before + 1)
        await greeted(stage)
        assert "and 4 others!" in quay(stage)[-1]["content"]
        assert mentioned(quay(stage)[-1]) == sorted(it["user"]["id"] for it in crowd[:MAX_NAMED])
        assert len(quay(stage)) == before + 1


def newcomer(stage, name):
    """Return a member of whom the bot has yet to hear."""
    return stage.sandbox._container.guild.add_member(name)


def event(stage, name, member):
    container = stage.sandbox._container
    container.gateway.dispatch(name, member | {"guild_id": container.guild.id})


def mentioned(message):
    return sorted(it["id"] for it in message["mentions"])


async def test_the_persona_writes_the_greeting_and_a_kill_costs_nothing(tmp_path):
    async with on_stage(tmp_path, members=True) as stage:
        assert "is told to: welcome" in await greeting(stage, prompt=PROMPT)
        before = len(quay(stage))
        stage.engine.free.clear()  # it is killed in the middle
        nell = stage.sandbox.join("Nell Sand")
        await until(lambda: len(quay(stage)) == before + 1)
        posted = quay(stage)[-1]
        assert posted["content"].startswith(f"<@{nell['user']['id']}>\n"), "it notifies them"
        assert mentioned(posted) == [nell["user"]["id"]]
        (unfinished,) = stage.store.replies.unfinished()
    async with on_stage(tmp_path, members=True) as stage:
        await until(lambda: stage.store.replies.get(unfinished.event_id).state == "done")
        await until(lambda: "AI-written" in quay(stage)[-1]["content"])
        assert len(quay(stage)) == before + 1 and quay(stage)[-1]["id"] == posted["id"]
        assert quay(stage)[-1]["content"].startswith(f"<@{nell['user']['id']}>\n")
        assert mentioned(quay(stage)[-1]) == [nell["user"]["id"]]
        stored = stage.store.messages.latest(int(posted["channel_id"]), 1)
        assert "<@" not in stored[-1].text, "the mention is no part of the talk"
        asked = stage.engine.requests[-1].turns[-1].text
        assert "welcome Nell Sand warmly. Nell Sand has just joined the server.]" in asked


async def test_nobody_is_greeted_where_it_would_disturb(tmp_path):
    clock = AheadClock()
    async with on_stage(tmp_path, clock=clock, members=True) as stage:
        guild_id, store = int(stage.sandbox.guild_id), stage.store
        channel_id = int(stage.sandbox.channel(QUAY)["id"])
        stage.sandbox.join("Before It Is Set")
        await greeting(stage, text=TEXT)
        before = len(quay(stage))
        hours = [f"{clock.at + timedelta(hours=shift):%H:%M}" for shift in (-1, 1)]
        services = stage.client.services
        set_answering(services, guild_id, channel_id, {"quiet_hours": "-".join(hours)})
        await joined(stage, "In The Quiet")
        set_answering(services, guild_id, channel_id, {"quiet_hours": None})
        store.mutes.add(Mute(guild_id, ALL_CHANNELS, "ballast", 5, 1.0))
        await joined(stage, "While Muted")
        store.mutes.remove(guild_id, ALL_CHANNELS, "ballast")
        member = stage.sandbox.join("Blocked One")
        store.blocks.add(Block(guild_id, int(member["user"]["id"]), ALL_PERSONAS, 5, 1.0))
        await until(lambda: cog(stage)._tasks)
        await greeted(stage)
        assert len(quay(stage)) == before
        assert await greeting(stage, remove=True) == "New members are no longer greeted."
        stage.sandbox.join("After It Ended")
        await stage.member.say(QUAY, "hello")  # its event comes after that of the join
        await until(lambda: len(quay(stage)) >= before + 2)
        assert not cog(stage)._tasks


async def joined(stage, name):
    member = stage.sandbox.join(name)
    await until(lambda: cog(stage)._tasks)
    await greeted(stage)
    return member


async def test_without_the_intent_it_says_what_the_operator_has_to_do(stage):
    refused = await greeting(stage, prompt=PROMPT)
    assert "does not tell this bot who joins" in refused and "Server Members Intent" in refused
    assert not stage.store.member_greetings.all()


async def test_it_is_set_shown_and_removed_by_moderators_alone(tmp_path):
    async with on_stage(tmp_path, members=True) as stage:
        assert "are not greeted here" in await greeting(stage)
        assert "exclude each other" in await greeting(stage, prompt=PROMPT, text=TEXT)
        assert "is empty" in await greeting(stage, text="  ")
        refused = await greeting(stage, text="{{user}}" * (MAX_MACROS + 1))
        assert f"at most {MAX_MACROS} times" in refused
        assert (await greeting(stage, stage.member, text=TEXT)).startswith("Only moderators")
        said = await greeting(stage, prompt=f"{PROMPT} Name <@{stage.member.id}>.")
        assert said.splitlines()[0].endswith(f"{PROMPT} Name @{stage.member.name}.")
        await greeting(stage, prompt=PROMPT)
        assert PROMPT in await greeting(stage)
        greetings = stage.client.services.member_greetings
        channel = stage.client.get_channel(int(stage.sandbox.channel(QUAY)["id"]))
        stage.store.channels.clear(channel.guild.id, channel.id)
        with pytest.raises(RefusedError, match="No persona lives here"):
            greetings.set(channel, TEXT, is_prompt=False, user_id=5)


def test_it_goes_with_its_channel_and_server_and_forgets_who_set_it(tmp_path):
    moderator = 7
    with Store.open(tmp_path / "understudy.sqlite") as store:
        greetings, erasure = store.member_greetings, store.erasure
        greetings.set(
            MemberGreeting(1, 2, is_prompt=True, text=PROMPT, set_by=moderator, set_at=1.0)
        )
        assert erasure.rows_of(moderator)["member_greetings"][0]["text"] == PROMPT
        assert moderator in erasure.user_ids() and erasure.counts(moderator)["member_greetings"]
        erasure.erase(moderator, 2e9, lambda text: text.replace("warmly", "…"))
        (left,) = greetings.all()
        assert (left.set_by, left.text) == (0, "welcome {{user}} ….")
        store.guilds.delete(left.guild_id)
        assert not greetings.all()
        greetings.set(left)
        greetings.forget_channel(left.channel_id)
        assert not greetings.all()


async def test_who_was_greeted_is_exported_and_erased_with_the_greeting(tmp_path):
    async with on_stage(tmp_path, members=True) as stage:
        await greeting(stage, prompt=PROMPT)
        nell = int((await joined(stage, "Nell Sand"))["user"]["id"])
        erasure, replies = stage.store.erasure, stage.store.replies
        (row,) = erasure.rows_of(nell)["greeted_members"]
        assert row["guild_id"] == int(stage.sandbox.guild_id) and nell in erasure.user_ids()
        (message_id,) = erasure.answers(nell)
        event_id = replies.of_message(message_id).event_id
        assert "Nell Sand" in replies.line_prompt(event_id)
        assert stage.store.messages.text_of(message_id)
        erasure.erase(nell, 2e9, str)
        assert not erasure.rows_of(nell)["greeted_members"] and nell not in erasure.user_ids()
        assert replies.get(event_id) is None and replies.line_prompt(event_id) is None
        assert not stage.store.messages.text_of(message_id)
        ivo = int((await joined(stage, "Ivo Reed"))["user"]["id"])
        stage.store.guilds.delete(int(stage.sandbox.guild_id))
        assert not stage.store.greeted_members.among(int(stage.sandbox.guild_id), [ivo])


@pytest.mark.usefixtures("_long_burst")
async def test_the_longest_text_for_a_crowd_has_room_in_a_message(tmp_path):
    text = "{{user}} " * MAX_MACROS
    text += "www.a " * ((MAX_TEXT_CHARS - len(text)) // 6)  # each becomes longer
    async with on_stage(tmp_path, members=True) as stage:
        await greeting(stage, text=text)
        before = len(quay(stage))
        for number in range(MAX_NAMED + 2):
            stage.sandbox.join(f"Nell {number}")
        await until(lambda: len(quay(stage)) == before + 1)
        assert quay(stage)[-1]["content"].endswith("of this server has written")


class Named:
    def __init__(self, name):
        self.display_name = name


def test_many_names_are_counted():
    said = prompt_text("be kind.", [Named(f"M{number}\n") for number in range(7)])
    assert said == "be kind. M0, M1, M2, M3, M4 and 2 others have just joined the server."


def test_members_are_listed_in_the_language_of_the_server():
    assert localised(_joined(["Nell", "Ivo"], 2), "de") == "Nell und Ivo"
    assert localised(_joined(["Nell"], 2), "de") == "Nell und 1 weiteres Mitglied"


@pytest.mark.parametrize(
    ("prompt", "asked"), [("who is it?", "who is it?"), ("be kind", "be kind.")]
)
def test_the_names_follow_a_whole_sentence(prompt, asked):
    assert prompt_text(prompt, [Named("M")]) == f"{asked} M has just joined the server."


async def test_a_greeting_that_claims_to_be_a_persons_says_that_an_ai_writes(tmp_path):
    async with on_stage(tmp_path, members=True) as stage:
        stage.engine.script = lambda request: ["Welcome! I am a real person."]
        HAS_MINORS.write(stage.store, True, int(stage.sandbox.guild_id))
        await greeting(stage, prompt=PROMPT)
        await joined(stage, "Nell Sand")
        assert quay(stage)[-1]["content"].endswith(f"\n{PLAIN_DISCLOSURE}")
