"""Voice messages: their words are the member's text, their sound is kept nowhere, and a recogniser
that fails costs the words alone.
"""

import asyncio
import os
import sys
import time
from contextlib import asynccontextmanager

import pytest

from bot.chat import voice_messages
from bot.demo_guild import NEWCOMER
from bot.moderation.limits import ReplyLimits
from bot.moderation.store import Block
from bot.safety.texts import shipped_texts
from bot.store import Channel
from bot.transcription import transcriber as transcribers
from bot.transcription.audio import MAX_AUDIO_BYTES, is_ogg_opus
from bot.transcription.transcriber import Transcriber, TranscriptionError
from tests.bot import scripted_recogniser
from tests.bot.conftest import INN, OFFICE, QUAY, on_stage
from tests.bot.scripted_recogniser import sound
from tests.bot.set_settings import set_answering, set_limits
from tests.bot.set_times import answer_to
from tests.bot.test_memory import response_text
from tests.bot.test_shown_context import TOBIAS, answered, given
from tests.fakes import until

LENGTH = "[a voice message of 1 s]"
FERRY = sound("say  Where is\nthe ferry? ")


def recogniser(folder, state="works", clock=None):
    options = {"clock": clock} if clock else {}
    script = scripted_recogniser.__file__
    return Transcriber([sys.executable, script, str(folder / "starts"), state], **options)


def starts(folder):
    file = folder / "starts"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


@asynccontextmanager
async def listening(folder, state="works"):
    """A stage with a recogniser, which ends with it."""
    made = recogniser(folder, state)
    try:
        async with on_stage(folder, transcriber=made) as stage:
            stage.engine.script = lambda request: ["Aye."]
            yield stage
    finally:
        await made.close()


@pytest.fixture
async def stage(tmp_path):
    async with listening(tmp_path) as made:
        yield made


def heard(stage):
    """What the member has said last, as the model was given it."""
    return given(stage)[-2]


# ---------------------------------------------------------------------------------------- the words


async def test_the_words_are_the_members_text_and_the_sound_is_kept_nowhere(stage, tmp_path):
    said = await answered(stage, stage.member.voice_message(QUAY, sound=FERRY))
    assert heard(stage) == (TOBIAS, f"Where is the ferry?\n{LENGTH}")
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("understudy.sqlite*"))
    assert b"Where is the ferry?" in stored and b"OpusHead" not in stored
    await answered(stage, stage.member.say(QUAY, "and when?"))
    assert given(stage)[-4] == (TOBIAS, f"Where is the ferry?\n{LENGTH}")
    await stage.member.delete(said)
    await until(lambda: stage.store.messages.is_deleted(int(said["id"])))
    await answered(stage, stage.member.say(QUAY, "and now?"))
    assert "ferry" not in str(given(stage))
    assert len(starts(tmp_path)) == 1


async def test_the_words_are_exported_and_erased_as_typed_ones(stage):
    await answered(stage, stage.member.voice_message(QUAY, sound=FERRY))
    member_id = int(stage.member.id)
    assert "Where is the ferry?" in str(stage.store.erasure.rows_of(member_id))
    asked = await stage.member.slash(QUAY, "privacy forget")
    message = await response_text(asked, "**Forget you?**")
    await stage.member.click(message, "Forget me")
    await stage.sees("Done: you have been forgotten")
    assert "ferry" not in str(stage.store.erasure.rows_of(member_id))


async def test_words_of_self_harm_are_answered_with_help_and_reach_no_model(stage):
    mark = stage.mark
    spoken = sound("say I want to kill myself")
    said = await stage.member.voice_message(QUAY, sound=spoken)
    answer = await stage.sees(shipped_texts()["en"][:40], "message", mark)
    assert answer["message_reference"]["message_id"] == said["id"]
    assert stage.engine.requests == []
    channel_id = int(stage.sandbox.channel(QUAY)["id"])
    assert "kill" not in str(stage.store.messages.latest(channel_id, 20))


async def test_a_spoken_name_asks_that_persona(stage):
    place = int(stage.sandbox.channel(INN)["id"])
    guild = stage.sandbox.guild_id
    stage.store.channels.assign(
        Channel(guild, place, "oda", "everything", 0, 0.0), further=["ballast"]
    )
    spoken = sound("say Ballast, where is the ferry?")
    await answered(stage, stage.member.voice_message(INN, sound=spoken), INN)
    assert stage.engine.requests[-1].persona.id == "ballast"


def leave_to_chance(stage):
    place = stage.sandbox.guild_id, int(stage.sandbox.channel(QUAY)["id"])
    set_answering(stage.client.services, *place, {"reply_chance": 0})


async def why(stage, message):
    return await answer_to(stage, "persona why", None, QUAY, message=message["id"])


async def test_a_spoken_name_is_answered_where_the_rest_is_left_to_chance(tmp_path):
    spoken = sound("say Ballast, where is the ferry?")
    async with listening(tmp_path) as stage:
        leave_to_chance(stage)
        other = await stage.member.voice_message(QUAY, sound=sound("say We missed the ferry."))
        said = await answered(stage, stage.member.voice_message(QUAY, sound=spoken))
        assert heard(stage) == (TOBIAS, f"Ballast, where is the ferry?\n{LENGTH}")
        assert "missed" not in str(given(stage)) and len(stage.engine.requests) == 1
        assert "missed" not in str(stage.store.messages.latest(int(said["channel_id"]), 20))
        assert "Answered by Ballast: it names the persona." in await why(stage, said)
        explained = await why(stage, other)
        assert explained.endswith("Not answered: the reply chance did not fall on it.")
    async with listening(tmp_path) as stage:
        assert "Answered by Ballast: it names the persona." in await why(stage, said)


async def test_what_may_name_a_persona_leaves_places_for_what_is_said_to_one(
    stage, tmp_path, monkeypatch
):
    monkeypatch.setattr(voice_messages, "MAX_AT_ONCE", 1)
    leave_to_chance(stage)
    gate = tmp_path / "gate"
    await stage.member.voice_message(QUAY, sound=sound(f"wait {gate} Ballast, one?"))
    await until(lambda: starts(tmp_path))
    unheard = await stage.moderator.voice_message(QUAY, sound=sound("say Ballast, two?"))
    left = "the reply chance did not fall on it. No words were recognised in it."
    decisions = stage.client.services.decisions
    await until(lambda: (noted := decisions.find(*ids(unheard))) and noted.remarks)
    assert left in await why(stage, unheard)
    gate.touch()
    await until(lambda: stage.engine.requests)
    (request,) = stage.engine.requests
    assert request.turns[-1].text == f"Ballast, one?\n{LENGTH}"


def ids(message):
    return int(message["channel_id"]), int(message["id"])


async def test_what_is_not_said_to_a_persona_is_not_recognised(stage, tmp_path):
    row = Channel(
        stage.sandbox.guild_id,
        int(stage.sandbox.channel(OFFICE)["id"]),
        "ballast",
        "mentions",
        0,
        0.0,
    )
    stage.store.channels.assign(row)
    voice = await stage.member.voice_message(OFFICE, sound=FERRY)
    forwarded = stage.member.forward(QUAY, voice)
    await answered(stage, forwarded)
    assert heard(stage) == (TOBIAS, LENGTH)
    assert starts(tmp_path) == []


async def test_one_that_is_deleted_meanwhile_is_neither_answered_nor_stored(stage, tmp_path):
    gate = tmp_path / "gate"
    said = await stage.member.voice_message(QUAY, sound=sound(f"wait {gate} Where is the ferry?"))
    await until(lambda: starts(tmp_path))
    await stage.member.delete(said)
    await until(lambda: int(said["id"]) in stage.client.get_cog("ChatCog").answerer._deleted)
    gate.touch()
    await answered(stage, stage.member.say(QUAY, "and when?"))
    assert len(stage.engine.requests) == 1 and "ferry" not in str(given(stage))


async def test_later_messages_of_the_member_wait_and_those_of_others_do_not(stage, tmp_path):
    gate = tmp_path / "gate"
    spoken = sound(f"wait {gate} Where is the ferry?")
    await stage.member.voice_message(QUAY, sound=spoken)
    await until(lambda: starts(tmp_path))
    await stage.member.say(QUAY, "Ballast, and when?")
    await answered(stage, stage.moderator.say(QUAY, "Ballast, tea?"))
    assert "tea?" in stage.engine.requests[-1].turns[-1].text
    mark = stage.mark
    gate.touch()
    await stage.finished(QUAY, mark)
    await until(lambda: "and when?" in str(stage.engine.requests[-1].turns[-1]))
    said = [text for name, text in given(stage) if name == TOBIAS]
    assert said[-2:] == [f"Where is the ferry?\n{LENGTH}", "Ballast, and when?"]


# --------------------------------------------------------------------------------------- its limits


async def test_other_formats_and_large_ones_are_told_by_their_length(stage, tmp_path, caplog):
    for recording, seconds, why in (
        (b"OggS" + bytes(24) + b"\x01vorbis", 1.0, "not Ogg Opus"),
        (FERRY, 121.0, "longer than 120 s"),
        (FERRY + bytes(MAX_AUDIO_BYTES), 1.0, "more than 4194304 bytes"),
    ):
        voice = stage.member.voice_message(QUAY, sound=recording, seconds=seconds)
        await answered(stage, voice)
        assert heard(stage) == (TOBIAS, f"[a voice message of {seconds:.0f} s]")
        assert why in caplog.text and starts(tmp_path) == []


async def test_one_that_takes_too_long_is_told_by_its_length_and_its_process_ends(
    stage, tmp_path, monkeypatch, caplog
):
    await answered(stage, stage.member.voice_message(QUAY, sound=FERRY))
    monkeypatch.setattr(voice_messages, "TIME_LIMIT_S", 0.2)
    spoken = sound(f"wait {tmp_path / 'never'} late")
    await answered(stage, stage.member.voice_message(QUAY, sound=spoken))
    assert heard(stage) == (TOBIAS, LENGTH)
    assert "not there after" in caplog.text
    [process] = starts(tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    monkeypatch.undo()
    await answered(stage, stage.member.voice_message(QUAY, sound=FERRY))
    assert heard(stage) == (TOBIAS, f"Where is the ferry?\n{LENGTH}")


@pytest.mark.parametrize(
    ("order", "why"),
    [("exit", "the recogniser has ended"), ("answer []", "not an object")],
)
async def test_a_failure_costs_the_words_and_is_logged_once(stage, caplog, order, why):
    for _ in range(2):
        await answered(stage, stage.member.voice_message(QUAY, sound=sound(order)))
        assert heard(stage) == (TOBIAS, LENGTH)
    assert caplog.text.count(why) == 1
    await answered(stage, stage.member.voice_message(QUAY, sound=FERRY))
    assert heard(stage) == (TOBIAS, f"Where is the ferry?\n{LENGTH}")


async def test_a_recogniser_that_does_not_load_is_not_started_with_each_message(tmp_path, caplog):
    async with listening(tmp_path, "broken") as stage:
        for _ in range(2):
            await answered(stage, stage.member.voice_message(QUAY, sound=FERRY))
            assert heard(stage) == (TOBIAS, LENGTH)
    assert len(starts(tmp_path)) == 1
    assert caplog.text.count("the model cannot be loaded") == 1


@pytest.mark.parametrize(("other", "most"), [("member", 8), ("moderator", 1)])
async def test_a_member_has_one_recognised_at_a_time(stage, tmp_path, monkeypatch, other, most):
    monkeypatch.setattr(voice_messages, "MAX_AT_ONCE", most)
    gate = tmp_path / "gate"
    await stage.member.voice_message(QUAY, sound=sound(f"wait {gate} first"))
    await until(lambda: starts(tmp_path))
    speaker = getattr(stage, other)
    await answered(stage, speaker.voice_message(INN, sound=FERRY), INN)
    assert stage.engine.requests[-1].turns[-1].text == LENGTH
    mark = stage.mark
    gate.touch()
    await stage.finished(QUAY, mark)


def refuse(stage, why):
    """Have no persona answer the member in the weigh-house; moderators are answered."""
    guild_id, member_id = int(stage.sandbox.guild_id), int(stage.member.id)
    if why == "block":
        stage.store.blocks.add(Block(guild_id, member_id, "", 0, 1.0))
    elif why == "limit":
        set_limits(stage.store, guild_id, ReplyLimits(cooldown_s=3600))
        stage.store.replies.begin(
            1, guild_id=guild_id, channel_id=1, persona_id="oda", at=time.time(),
            asked_by=member_id,
        )  # fmt: skip
    else:
        stage.store.action_roles.add(guild_id, "talk", 1)


async def waiting(stage, count):
    """Wait until so many recordings wait for the one that is being recognised."""
    turn = stage.client.services.voice_messages._transcriber._turn
    await until(lambda: len(turn._waiters or ()) == count)


@pytest.mark.parametrize("why", ["block", "limit", "role"])
async def test_one_that_nobody_would_answer_waits_for_all_others_and_is_heard(stage, tmp_path, why):
    refuse(stage, why)
    first, second = tmp_path / "first", tmp_path / "second"
    other = stage.sandbox.member(NEWCOMER)
    await other.voice_message(INN, sound=sound(f"wait {first} so many"))
    await until(lambda: starts(tmp_path))
    mark = stage.mark
    spoken = sound(f"wait {second} I want to kill myself")
    said = await stage.member.voice_message(QUAY, sound=spoken)
    await waiting(stage, 1)
    await stage.moderator.voice_message(QUAY, sound=FERRY)
    await waiting(stage, 2)
    first.touch()
    await stage.finished(QUAY, mark)
    assert "Where is the ferry?" in stage.engine.requests[-1].turns[-1].text
    second.touch()
    answer = await stage.sees(shipped_texts()["en"][:40], "message", mark)
    assert answer["message_reference"]["message_id"] == said["id"]
    assert "kill" not in str(stage.engine.requests)


async def test_one_that_nobody_would_answer_holds_nothing_back_that_its_member_says(
    stage, tmp_path
):
    refuse(stage, "block")
    gate = tmp_path / "gate"
    mark = stage.mark
    await stage.member.voice_message(QUAY, sound=sound(f"wait {gate} hello"))
    await until(lambda: starts(tmp_path))
    said = await stage.member.say(QUAY, "I want to kill myself")
    answer = await stage.sees(shipped_texts()["en"][:40], "message", mark)
    assert answer["message_reference"]["message_id"] == said["id"]
    guild_id, member_id = int(stage.sandbox.guild_id), int(stage.member.id)
    stage.store.blocks.remove(guild_id, member_id, "")
    await stage.member.voice_message(QUAY, sound=FERRY)
    await waiting(stage, 1)  # it has a place beside the first one
    gate.touch()
    heard_text = f"Where is the ferry?\n{LENGTH}"
    await until(lambda: heard_text in [one.turns[-1].text for one in stage.engine.requests])


async def test_those_that_nobody_would_answer_take_no_place_of_others(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(voice_messages, "MAX_AT_ONCE", 1)
    refuse(stage, "block")
    gate = tmp_path / "gate"
    await stage.member.voice_message(QUAY, sound=sound(f"wait {gate} hello"))
    await until(lambda: starts(tmp_path))
    mark = stage.mark
    await stage.moderator.voice_message(QUAY, sound=FERRY)
    await waiting(stage, 1)
    gate.touch()
    await stage.finished(QUAY, mark)
    assert "Where is the ferry?" in stage.engine.requests[-1].turns[-1].text
    assert len(stage.engine.requests) == 1


async def test_words_without_end_are_cut(stage):
    await answered(stage, stage.member.voice_message(QUAY, sound=sound("say " + "ho " * 1000)))
    _, text = heard(stage)
    assert text == f"{'ho ' * 666}ho\n{LENGTH}"


# --------------------------------------------------------------------------------------- the process


async def test_the_process_has_no_secrets_and_ends_when_it_is_closed(tmp_path, monkeypatch):
    monkeypatch.setenv("DISCORD_TOKEN", "s3cret")
    monkeypatch.setenv("ANYTHING_ELSE", "s3cret")
    made = recogniser(tmp_path)
    names = (await made.transcribe(sound("environment"))).split()
    assert "PATH" in names and "HF_HUB_OFFLINE" in names
    assert not {"DISCORD_TOKEN", "ANYTHING_ELSE"} & {*names}
    await made.close()
    [process] = starts(tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


async def test_what_waits_when_it_is_closed_starts_no_process(tmp_path):
    made = recogniser(tmp_path)
    first = asyncio.create_task(made.transcribe(sound(f"wait {tmp_path / 'never'} late")))
    second = asyncio.create_task(made.transcribe(FERRY))
    await until(lambda: starts(tmp_path))
    await made.close()
    ends = await asyncio.gather(first, second, return_exceptions=True)
    assert all(isinstance(end, TranscriptionError | asyncio.CancelledError) for end in ends)
    assert len(starts(tmp_path)) == 1


async def test_one_that_comes_last_waits_until_no_other_waits(tmp_path):
    made = recogniser(tmp_path)
    gate, second = tmp_path / "gate", tmp_path / "second"
    ended = []

    async def transcribe(words, **options):
        ended.append(await made.transcribe(sound(words), **options))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(transcribe(f"wait {gate} running", is_last=True))
        await until(lambda: starts(tmp_path))
        tasks.create_task(transcribe(f"wait {second} last", is_last=True))
        tasks.create_task(transcribe("say next"))
        tasks.create_task(transcribe("say last, too", is_last=True))
        given_up = tasks.create_task(transcribe("say nothing"))
        tasks.create_task(transcribe("say one more"))
        await asyncio.sleep(0)
        given_up.cancel()
        gate.touch()
        await until(lambda: ended == ["next", "one more"])
        second.touch()
    assert sorted(words.strip() for words in ended[2:]) == ["last", "last, too", "running"]
    assert (await made.transcribe(sound("seconds"))) == "0-120"
    pieces = await made.transcribe(sound("seconds"), is_last=True)
    assert pieces == "0-30 30-60 60-90 90-120", "the one that runs is soon over"
    await made.close()


async def test_a_process_without_work_ends_and_the_next_message_starts_another(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(transcribers, "IDLE_S", 0.0)
    made = recogniser(tmp_path)
    assert await made.transcribe(FERRY)
    await until(lambda: made._loading.result().returncode is not None)
    assert await made.transcribe(FERRY)
    assert len(starts(tmp_path)) == 2
    await made.close()


async def test_a_start_that_failed_is_tried_again_after_a_while(tmp_path):
    now = 0.0
    made = recogniser(tmp_path, "broken", clock=lambda: now)
    for at, count in ((0.0, 1), (299.0, 1), (301.0, 2)):
        now = at
        with pytest.raises(TranscriptionError, match="cannot be loaded"):
            await made.transcribe(FERRY)
        assert len(starts(tmp_path)) == count
    await made.close()


async def test_a_program_that_is_not_there_is_a_failure_like_others(tmp_path):
    made = Transcriber([str(tmp_path / "none")])
    with pytest.raises(TranscriptionError, match="No such file"):
        await made.transcribe(FERRY)
    await made.close()


async def test_a_model_goes_on_loading_when_nobody_waits_for_it_any_more(tmp_path):
    made = recogniser(tmp_path)
    waiting = asyncio.create_task(made.transcribe(FERRY))
    await until(lambda: made._loading)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert await made.transcribe(FERRY)
    assert len(starts(tmp_path)) == 1
    await made.close()


def test_a_voice_message_is_told_by_its_content():
    assert is_ogg_opus(FERRY)
    assert not is_ogg_opus(FERRY[1:]) and not is_ogg_opus(b"") and not is_ogg_opus(b"OggS")
    assert not is_ogg_opus(b"RIFF" + bytes(60))
