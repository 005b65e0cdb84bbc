"""Greetings of new members: one for a burst, by whoever lives in the channel, and none where it would
disturb.
"""

from datetime import timedelta

import discord
import pytest

import bot.schedules.discord_greetings
from bot.moderation.store import Block
from bot.platform.errors import RefusedError
from bot.schedules.greetings import prompt_text
from bot.store import ALL_CHANNELS, ALL_PERSONAS, Mute
from tests.bot.conftest import QUAY, on_stage
from tests.bot.set_times import AheadClock, answer_to
from tests.fakes import until

PROMPT = "welcome {{user}} warmly."
TEXT = "Ahoy, {{user}}! @everyone, https://example.org"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(bot.schedules.discord_greetings, "BURST_WAIT_S", 0.3)
    monkeypatch.setattr(bot.schedules.discord_greetings, "MIN_INTERVAL_S", 0.0)


async def greeting(stage, who=None, channel=QUAY, **options):
    return await answer_to(stage, "persona line greeting", who, channel, **options)


def cog(stage):
    return stage.client.get_cog("GreetingCog")


async def greeted(stage):
    """Wait until nobody waits for a greeting."""
    await until(lambda: not cog(stage)._tasks and not stage.client.services.reply_service.tasks)


def quay(stage):
    return stage.sandbox.messages(QUAY)


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
        stage.client.dispatch("member_join", _member(stage, first))  # they left, and come again
        stage.client.dispatch("member_join", _member(stage, stage.sandbox.join("Third One")))
        await until(lambda: len(quay(stage)) == before + 2)
        await greeted(stage)
        assert len(quay(stage)[-1]["mentions"]) == 1 and len(quay(stage)) == before + 2


def _member(stage, shape):
    guild = stage.client.get_guild(int(stage.sandbox.guild_id))
    return discord.Member(data=shape, guild=guild, state=guild._state)


async def test_the_persona_writes_the_greeting_and_a_kill_costs_nothing(tmp_path):
    async with on_stage(tmp_path, members=True) as stage:
        assert "is told to: welcome" in await greeting(stage, prompt=PROMPT)
        before = len(quay(stage))
        stage.engine.free.clear()  # it is killed in the middle
        stage.sandbox.join("Nell Sand")
        await until(lambda: len(quay(stage)) == before + 1)
        (unfinished,) = stage.store.replies.unfinished()
    async with on_stage(tmp_path, members=True) as stage:
        await until(lambda: stage.store.replies.get(unfinished.event_id).state == "done")
        assert len(quay(stage)) == before + 1 and not quay(stage)[-1]["mentions"]
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
        answering = stage.client.services.answering
        answering.change(guild_id, channel_id, {"quiet_hours": "-".join(hours)})
        await joined(stage, "In The Quiet")
        answering.reset(guild_id, channel_id)
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
    stage.sandbox.join(name)
    await until(lambda: cog(stage)._tasks)
    await greeted(stage)


async def test_without_the_intent_it_says_what_the_operator_has_to_do(stage):
    refused = await greeting(stage, prompt=PROMPT)
    assert "does not tell this bot who joins" in refused and "Server Members Intent" in refused
    assert not stage.store.member_greetings.all()


async def test_it_is_set_shown_and_removed_by_moderators_alone(tmp_path):
    async with on_stage(tmp_path, members=True) as stage:
        assert "are not greeted here" in await greeting(stage)
        assert "exclude each other" in await greeting(stage, prompt=PROMPT, text=TEXT)
        assert "is empty" in await greeting(stage, text="  ")
        assert (await greeting(stage, stage.member, text=TEXT)).startswith("Only moderators")
        await greeting(stage, prompt=PROMPT)
        assert PROMPT in await greeting(stage)
        greetings = stage.client.services.member_greetings
        channel = stage.client.get_channel(int(stage.sandbox.channel(QUAY)["id"]))
        stage.store.channels.clear(channel.guild.id, channel.id)
        with pytest.raises(RefusedError, match="No persona lives here"):
            greetings.set(channel, TEXT, is_prompt=False, user_id=5)


async def test_it_goes_with_its_channel_and_server_and_forgets_who_set_it(tmp_path):
    async with on_stage(tmp_path, members=True) as stage:
        await greeting(stage, prompt=PROMPT)
        moderator = int(stage.moderator.id)
        greetings, erasure = stage.store.member_greetings, stage.store.erasure
        assert erasure.rows_of(moderator)["member_greetings"][0]["text"] == PROMPT
        assert moderator in erasure.user_ids() and erasure.counts(moderator)["member_greetings"]
        erasure.erase(moderator, 2e9, lambda text: text.replace("warmly", "…"))
        (left,) = greetings.all()
        assert (left.set_by, left.text) == (0, "welcome {{user}} ….")
        stage.store.guilds.delete(left.guild_id)
        assert not greetings.all()
        greetings.set(left)
        greetings.forget_channel(left.channel_id)
        assert not greetings.all()


class Named:
    def __init__(self, name):
        self.display_name = name


def test_many_names_are_counted():
    said = prompt_text("be kind.", [Named(f"M{number}\n") for number in range(7)])
    assert said == "be kind. M0, M1, M2, M3, M4 and 2 others have just joined the server."
