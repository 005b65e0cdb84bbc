"""`/privacy` as members meet it: in plain words, in two languages, in servers and direct
messages.
"""

import asyncio
import json
import time
from dataclasses import replace
from types import SimpleNamespace

import aiohttp
import discord
import pytest

from bot.chat import unfinished
from bot.chat.message_reader import IncomingMessage
from bot.chat.reply import Reply
from bot.privacy import erasure_service
from bot.settings import load_settings
from bot.store import QuotedMessage
from bot.training.store import JobResult, NewTrainingJob
from personas.home.adapters import adapter_ref
from personas.home.data_subjects import read_consent, write_people
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.lore import semantic
from personas.lore.semantic import embed_units, message_vector, unit_key
from personas.schemas.training import TrainingRequest
from tests.bot.conftest import INN, OFFICE, QUAY, on_stage
from tests.fakes import until
from tests.personas.test_adapters import write_adapter
from tests.samples import SCORECARD

SAID = "The brass heron stands on Tallowmere Street these days."


async def response_text(answer, words):
    await until(lambda: words in (answer.message or {}).get("content", ""))
    assert answer.ephemeral
    return answer.message


async def talk(stage, words=SAID, channel=QUAY):
    mark = stage.mark
    await stage.member.say(channel, words)
    return await stage.finished(channel, mark)


def train(stage, home, *members, version="v1"):
    """Make a version of Ballast live that has learned from these members."""
    store = stage.store
    job_id = f"job-{version}"
    request = TrainingRequest(job_name=f"ballast-{version}", persona="ballast")
    guild = stage.sandbox.guild_id
    channel = int(stage.sandbox.channel(QUAY)["id"])
    store.jobs.add(NewTrainingJob(job_id, guild, channel, 5, request), time.time())
    claimed = store.jobs.claim(store.jobs.get(job_id), "token", 1.0)
    folder = adapter_ref(home, "ballast", version).folder
    write_adapter(folder)
    key = HomeKey.of(home).people()
    write_people(folder, {keyed_person(key, member.id): 1 for member in members})
    store.jobs.complete(
        job_id, claimed.attempt_token, JobResult(adapter="", seconds=1, scorecard=SCORECARD), 2.0
    )
    store.versions.promote("ballast", version, 5, 3.0)


async def test_show_says_what_is_kept_for_how_long_and_where(stage, tmp_path):
    words = (
        await response_text(await stage.member.slash(QUAY, "privacy show"), "What I keep about you")
    )["content"]
    assert "Nothing." in words and "**Training: no.**" in words
    await talk(stage)
    train(stage, tmp_path, stage.member)
    await stage.member.slash(OFFICE, "persona show")
    words = (
        await response_text(await stage.member.slash(QUAY, "privacy show"), "1 of your messages")
    )["content"]
    assert "deleted after 90 days" in words and "training data of ballast v1" in words
    assert "you, on this machine" in words and "is sent there" not in words
    urls = "http://127.0.0.1:8080,https://gateway.example/api/v1"
    hosts = load_settings(None, {"ENGINE": "openai", "ENGINE_URLS": urls}).engine_hosts
    services = stage.client.services
    stage.client.services = replace(services, privacy=replace(services.privacy, engine_hosts=hosts))
    words = (await response_text(await stage.member.slash(QUAY, "privacy show"), "is sent there"))[
        "content"
    ]
    assert "at gateway.example" in words


async def test_opting_in_is_explained_first_and_mirrored_for_the_trainer(tmp_path):
    async with on_stage(tmp_path, permission="By letter of Discord, 3 March 2026.") as stage:
        asked = await stage.member.slash(QUAY, "privacy opt-in")
        message = await response_text(asked, "May personas be trained on your messages?")
        assert "“By letter of Discord, 3 March 2026.”" in message["content"]
        assert stage.store.people.opted_in() == set()
        await stage.member.click(message, "I agree")
        await response_text(asked, "You have opted in")
        consent = read_consent(tmp_path)
        assert consent.opted_in == {stage.member.id} and consent.permission.startswith("By letter")
        await response_text(
            await stage.member.slash(QUAY, "privacy opt-in"), "You have already opted in."
        )
        await response_text(
            await stage.member.slash(QUAY, "privacy opt-out"),
            "Nothing has been trained",
        )
        assert (
            read_consent(tmp_path).opted_in == frozenset()
            and stage.store.people.opted_in() == set()
        )


async def test_without_a_stated_permission_opting_in_says_that_it_changes_nothing(stage):
    message = await response_text(
        await stage.member.slash(QUAY, "privacy opt-in"), "For now this changes nothing"
    )
    await stage.member.click(message, "I agree")
    await until(lambda: stage.store.people.opted_in() == {int(stage.member.id)})


async def test_opting_out_offers_to_withdraw_what_was_trained(stage, tmp_path):
    train(stage, tmp_path)
    train(stage, tmp_path, stage.member, version="v2")
    await talk(stage)
    asked = await stage.member.slash(QUAY, "privacy opt-out")
    message = await response_text(asked, "stay in use: ballast v2")
    assert stage.live("ballast") == "v2", "only on request"
    assert message_vector(SAID).any() and message_vector.cache_info().currsize
    assert embed_units([SAID]) and unit_key(SAID) in semantic._VECTOR_CACHE
    mark = stage.mark
    await stage.member.click(message, "Withdraw these too")
    said = await stage.sees("v2 of Ballast has been withdrawn", since=mark)
    assert "v1 replies now" in said["content"] and "being trained" in said["content"]
    assert stage.member.name not in said["content"] and stage.member.id not in said["content"]
    assert stage.live("ballast") == "v1"
    assert [adapter.name for adapter in stage.engine.dropped] == [
        "ballast-v2"
    ] and stage.engine.prefix_cache_clears
    assert not message_vector.cache_info().currsize and unit_key(SAID) not in semantic._VECTOR_CACHE
    assert stage.store.erasure.texts(int(stage.member.id)) == [SAID], "what was said stays"


async def test_the_export_is_everything_as_a_file(stage):
    await talk(stage)
    answer = await stage.member.slash(QUAY, "privacy export")
    message = await response_text(answer, "Everything I keep about you")
    async with aiohttp.ClientSession() as http, http.get(message["attachments"][0]["url"]) as file:
        about = json.loads(await file.read())
    assert [one["text"] for one in about["messages"]] == [SAID] and about[
        "user_id"
    ] == stage.member.id
    assert [one["persona_id"] for one in about["replies_to_you"]] == ["ballast"] and about[
        "consent"
    ] == []


async def test_forgetting_in_the_sandbox_leaves_nothing_in_any_file(tmp_path):
    async with on_stage(tmp_path) as stage:
        member = stage.member
        member_id = stage.member.id
        await talk(stage)
        train(stage, tmp_path, member)
        dm = await member.dm()
        await member.say(dm, "hello there, in private")
        asked = await member.slash(QUAY, "privacy forget")
        message = await response_text(asked, "**Forget you?**")
        assert stage.store.erasure.texts(int(member_id)), "nothing happens before the button"
        mark = stage.mark
        await member.click(message, "Forget me")
        receipt = await stage.sees("Done: you have been forgotten", since=mark)
        assert (
            "Deleted: 1 messages, 1 replies to you" in receipt["content"] and receipt["flags"] & 64
        )
        assert "Withdrawn: ballast v1" in receipt["content"]
        assert stage.live("ballast") is None
        assert not adapter_ref(tmp_path, "ballast", "v1").folder.exists()
        assert SAID not in [m["content"] for m in stage.sandbox.messages(QUAY)]
        queued = [*stage.store.jobs.in_state("running"), *stage.store.jobs.in_state("queued")]
        assert [job.request.persona for job in queued] == ["ballast"], "trained anew, without them"
        mark = stage.mark
        await stage.sandbox.member("Wren Castle").say(QUAY, "good evening")
        assert "base model" in (await stage.finished(QUAY, mark))["content"]
    for file in tmp_path.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for trace in (SAID, "Tobias", "tobias_reed", member_id):
                assert trace.encode() not in content, (file, trace)


async def test_whoever_was_forgotten_sees_so_and_can_begin_anew(stage):
    await talk(stage)
    message = await response_text(
        await stage.member.slash(QUAY, "privacy forget"), "**Forget you?**"
    )
    await stage.member.click(message, "Forget me")
    await stage.sees("Done: you have been forgotten")
    words = (
        await response_text(await stage.member.slash(QUAY, "privacy show"), "I forgot you on")
    )["content"]
    assert "Deleted: 1 messages" in words
    await talk(stage, "I am back")
    assert stage.store.erasure.texts(int(stage.member.id)) == ["I am back"]


@pytest.fixture
def ending(monkeypatch):
    """Replies end, and are stored, only when this is set."""
    end = Reply.end
    ending = asyncio.Event()

    async def late(*arguments):
        await ending.wait()
        await end(*arguments)

    monkeypatch.setattr(Reply, "end", late)
    return ending


async def test_a_reply_that_ends_after_who_it_answers_was_forgotten_is_not_kept(
    stage, ending, monkeypatch
):
    monkeypatch.setattr(unfinished, "QUEUE_WAIT_S", 0.05)
    await stage.member.say(QUAY, SAID)
    await stage.sees("…", by="Ballast")
    message = await response_text(
        await stage.member.slash(QUAY, "privacy forget"), "**Forget you?**"
    )
    await stage.member.click(message, "Forget me")
    await stage.sees("Done: you have been forgotten")
    ending.set()
    await until(lambda: not stage.client.services.reply_service.unfinished._counts)
    assert stage.store.messages.latest(int(stage.sandbox.channel(QUAY)["id"]), 20) == []


async def test_replies_to_others_that_are_being_made_name_nobody_who_is_forgotten_meanwhile(
    stage, ending
):
    services = stage.client.services
    stage.client.services = replace(
        services, privacy=replace(services.privacy, forget_in_sandbox=None)
    )
    stage.engine.script = lambda request: ["It was ", "Tobias Reed who said it."]
    ending.set()
    await talk(stage)
    ending.clear()
    await stage.sandbox.member("Wren Castle").say(QUAY, "who said that?")
    await until(lambda: len(stage.engine.requests) == 2)
    message = await response_text(
        await stage.member.slash(QUAY, "privacy forget"), "**Forget you?**"
    )
    await stage.member.click(message, "Forget me")
    await until(lambda: stage.store.erasure.texts(int(stage.member.id)) == [])
    await asyncio.sleep(0.2)
    assert stage.store.erasure_requests.unfinished()[0].step == "store", "it waits for the reply"
    ending.set()
    await stage.sees("Done: you have been forgotten")
    said = [
        message.text
        for message in stage.store.messages.latest(int(stage.sandbox.channel(QUAY)["id"]), 20)
    ]
    assert (
        said[0] == "who said that?"
        and len(said) == 2
        and "Tobias" not in said[1]
        and "who said it" in said[1]
    )


@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0])
async def test_events_from_before_are_ignored_and_later_ones_answered_whatever_the_machines_clock_says(
    stage, monkeypatch, ahead_s
):
    machine = SimpleNamespace(time=lambda: time.time() + ahead_s)
    monkeypatch.setattr(erasure_service, "time", machine)
    said = await stage.member.say(QUAY, SAID)
    await stage.sees("\n-# AI-written")
    message = await response_text(
        await stage.member.slash(QUAY, "privacy forget"), "**Forget you?**"
    )
    await stage.member.click(message, "Forget me")
    await stage.sees("Done: you have been forgotten")
    persona = stage.client.services.personas.get("ballast", stage.sandbox.guild_id)
    channel = discord.utils.get(stage.client.guilds[0].text_channels, name=QUAY)
    again = IncomingMessage(int(said["id"]), int(stage.member.id), "Tobias Reed", SAID)
    await stage.client.services.reply_service.answer(again, persona, channel)
    assert len(stage.engine.requests) == 1 and stage.store.erasure.texts(again.author_id) == []
    quoted = QuotedMessage(
        again.event_id, channel.id, again.author_id, again.author_name, SAID
    )  # Discord has it yet
    asks = replace(
        again,
        event_id=again.event_id + 2**40,
        author_id=int(stage.moderator.id),
        text="so?",
        quoted=quoted,
    )
    await stage.client.services.reply_service.answer(asks, persona, channel)
    assert (
        stage.engine.requests[-1].turns[-1].text == "so?"
        and stage.store.erasure.texts(again.author_id) == []
    )
    await talk(stage, "I am back")
    assert stage.store.erasure.texts(again.author_id) == ["I am back"]


async def test_a_forgetting_that_a_crash_cut_off_is_finished_at_the_next_start(tmp_path):
    async with on_stage(tmp_path) as stage:
        await talk(stage)
        member_id = int(stage.member.id)
        erasures = stage.client.get_cog("PrivacyCog").erasures
        await erasures.stop()
        erasures.ask(member_id, ["Tobias Reed"], "everything", 0, None)
    async with on_stage(tmp_path) as stage:
        await until(lambda: not stage.store.erasure_requests.unfinished())
        assert stage.store.erasure.texts(member_id) == []


async def test_a_running_training_on_the_person_is_stopped_and_begins_anew_without_them(
    stage, tmp_path
):
    await talk(stage)
    await stage.moderator.slash(QUAY, "finetune start")
    await until(lambda: stage.backend.busy)
    (job,) = stage.store.jobs.in_state("running")
    folder = tmp_path / "jobs" / job.job_id
    folder.mkdir(parents=True)
    (folder / "log.json").write_text(json.dumps([SAID]))
    message = await response_text(
        await stage.member.slash(QUAY, "privacy forget"), "**Forget you?**"
    )
    await stage.member.click(message, "Forget me")
    await stage.sees("Done: you have been forgotten")
    await until(lambda: len(stage.backend.runs) == 2)
    again = stage.store.jobs.get(job.job_id)
    assert again.state == "running" and again.attempt == 1 and not folder.exists()


async def test_a_queue_that_has_nothing_of_the_person_goes_on(stage):
    await talk(stage)
    await stage.moderator.slash(QUAY, "finetune start")
    await until(lambda: stage.backend.busy)
    message = await response_text(
        await stage.member.slash(QUAY, "privacy forget"), "**Forget you?**"
    )
    await stage.member.click(message, "Forget me")
    await stage.sees("Done: you have been forgotten")
    assert len(stage.backend.runs) == 1 and stage.backend.busy
    stage.backend.finish()
    await until(lambda: stage.store.jobs.in_state("done"))


async def test_a_channel_or_thread_that_is_deleted_on_discord_is_deleted_here(stage):
    await talk(stage)
    channel = stage.client.get_channel(int(stage.sandbox.channel(QUAY)["id"]))
    stage.client.dispatch("guild_channel_delete", channel)
    await until(lambda: stage.store.erasure.texts(int(stage.member.id)) == [])
    assert stage.store.channels.get(channel.guild.id, channel.id) is None
    await talk(stage, channel=INN)
    thread = SimpleNamespace(
        guild_id=channel.guild.id, thread_id=int(stage.sandbox.channel(INN)["id"])
    )
    stage.client.dispatch("raw_thread_delete", thread)
    await until(lambda: stage.store.erasure.texts(int(stage.member.id)) == [])


async def test_the_operator_on_discord_is_named(stage):
    services = stage.client.services
    stage.client.services = replace(services, privacy=replace(services.privacy, in_sandbox=False))
    owner = stage.client.application.owner
    words = (
        await response_text(await stage.member.slash(QUAY, "privacy show"), "What I keep about you")
    )["content"]
    assert f"<@{owner.id}>" in words


async def test_it_works_in_direct_messages(stage):
    dm = await stage.member.dm()
    await response_text(await stage.member.slash(dm, "privacy show"), "What I keep about you")
    message = await response_text(await stage.member.slash(dm, "privacy forget"), "**Forget you?**")
    await stage.member.click(message, "Forget me")
    await stage.sees("Done: you have been forgotten")


async def test_lore_and_cards_note_who_gave_them(stage):
    from sandbox.object_store import StoredFile

    lore = StoredFile.named("heron.md", b"# The heron\nIt is of brass.")
    answer = await stage.moderator.slash(QUAY, "persona lore add", persona="ballast", file=lore)
    await response_text(answer, "knows `heron.md` now")
    words = (
        await response_text(
            await stage.moderator.slash(QUAY, "privacy show"), "What you contributed to personas"
        )
    )["content"]
    assert "lore “heron.md” for ballast" in words
    await response_text(
        await stage.moderator.slash(
            QUAY, "persona lore remove", persona="ballast", file="heron.md"
        ),
        "has forgotten",
    )
    (gift,) = stage.store.people.contributions_of(int(stage.moderator.id))
    assert gift.what == "heron.md", "it can be brought back for a day"
