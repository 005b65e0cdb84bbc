"""Messages that speak of self-harm get a fixed text on every way to a persona, and who talks is told
that personas are AI.
"""

import asyncio
import dataclasses
from types import SimpleNamespace

import discord
import pytest

from bot.chat import delivery, recovery
from bot.chat.discord_missed import answer_missed
from bot.chat.senders import WebhookSender
from bot.demo_guild import SKERROW_SEED
from bot.guild_settings.definitions import HAS_MINORS
from bot.platform.permissions import required_permissions
from bot.safety.actions import DISCLOSURE, DISCLOSURE_INTERVAL_S, MINORS_BREAK, PLAIN_DISCLOSURE
from bot.safety.rules import SafetyRules
from bot.safety.texts import shipped_texts
from sandbox.sandbox_errors import SandboxRefusal
from tests.bot.conftest import INN, OFFICE, QUAY, on_stage
from tests.bot.set_settings import set_answering
from tests.bot.test_direct_messages import chosen
from tests.fakes import until

SAID = "I want to kill myself"
TEXTS = shipped_texts()
HELP = "**988**"


def texts_in(stage, channel):
    return [message["content"] for message in stage.sandbox.messages(channel)]


def stored_texts(stage, channel):
    channel_id = int(stage.sandbox.channel(channel)["id"])
    return [message.text for message in stage.store.messages.latest(channel_id, 20)]


async def asked(stage, channel, words, who=None):
    mark = stage.mark
    await (who or stage.member).say(channel, words)
    return (await stage.finished(channel, mark))["content"]


async def told(stage, channel, question):
    """Return the reply to a question whether the persona is human."""
    mark = stage.mark
    await stage.member.say(channel, question)
    return (await stage.sees("-# a line by this persona's author", "edit", mark))["content"]


async def helped(stage, channel, words, language="en"):
    mark = stage.mark
    said = await stage.member.say(channel, words)
    answer = await stage.sees(TEXTS[language][:40], "message", mark)
    assert answer["content"] == TEXTS[language]
    assert answer["message_reference"]["message_id"] == said["id"]
    return answer


# ------------------------------------------------------------------------------------ the fixed text


SAID_IN = {
    "en": SAID,
    "de": "ich möchte nicht mehr leben",
    "vi": "tôi muốn chết",
    "es": "quiero quitarme la vida",
    "zh": "我不想活了",
}


async def test_the_bot_answers_in_the_language_and_no_model_nor_history_has_the_message(stage):
    for language, words in SAID_IN.items():
        stage.client.get_cog("ChatCog").answerer._safety_answers._cache.clear()  # a minute later
        answer = await helped(stage, QUAY, f"@Understudy {words}", language)
        assert answer["author"]["username"] == "Understudy" and "webhook_id" not in answer
        assert not answer["components"], "nobody votes on it, and it cannot be made again"
    assert stage.store.erasure.rows_of(int(stage.member.id))["talks"] == []
    await asked(stage, QUAY, "Is the ferry late?")
    for words in SAID_IN.values():
        assert all(words not in turn.text for turn in stage.engine.requests[-1].turns)
        assert words not in " ".join(stored_texts(stage, QUAY))
    assert len(stage.engine.requests) == 1
    assert stage.store.safety_answers.by_language() == dict.fromkeys(SAID_IN, 1)


async def test_an_emergency_is_answered_by_the_bot_and_counted_apart(stage):
    mark = stage.mark
    await stage.member.say(QUAY, "@Understudy my baby isn't breathing")
    text = SafetyRules.shipped().emergency_text("en")
    answer = await stage.sees("it needs somebody who can be there", "message", mark)
    assert answer["content"] == text and "112" in text and "911" in text
    assert stage.engine.requests == [] and "breathing" not in " ".join(stored_texts(stage, QUAY))
    assert stage.store.emergency_answers.by_language() == {"en": 1}
    assert stage.store.safety_answers.by_language() == {}


@pytest.mark.parametrize("fault", ["cut_before", "cut_after", "blocked"])
async def test_the_text_comes_once_although_discord_fails(stage, monkeypatch, fault):
    monkeypatch.setattr(delivery, "FIRST_PAUSE_S", 0.01)
    route = "POST /channels/{channel_id}/messages"
    stage.sandbox.fail_requests(route, fault, 3)
    await stage.member.say(QUAY, SAID)
    await until(lambda: TEXTS["en"] in texts_in(stage, QUAY))
    await asyncio.sleep(0.2)  # a second one would come
    assert texts_in(stage, QUAY).count(TEXTS["en"]) == 1


async def test_without_read_message_history_it_comes_and_refers_to_nothing(stage):
    stage.sandbox.set_permission("READ_MESSAGE_HISTORY", False)
    mark = stage.mark
    await stage.member.say(QUAY, SAID)
    answer = await stage.sees(HELP, "message", mark)
    assert answer["author"]["username"] == "Understudy" and "webhook_id" not in answer
    assert "message_reference" not in answer


async def test_where_only_webhooks_may_write_it_comes_through_one_in_the_bots_name(stage):
    stage.sandbox.set_permission("SEND_MESSAGES", False)
    for channel in (QUAY, OFFICE):  # Ballast lives in the one, nobody in the other
        mark = stage.mark
        await stage.member.say(channel, f"@Understudy {SAID}")
        answer = await stage.sees(HELP, "message", mark)
        assert answer["content"] == TEXTS["en"] and answer["webhook_id"]
        assert answer["author"]["username"] == "Understudy"


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_message_that_a_proxy_posts_again_gets_it_once(stage, is_late):
    proxy = stage.sandbox.proxy_bot()
    said = await stage.member.say(QUAY, f"W: {SAID}")
    if is_late:
        await until(lambda: TEXTS["en"] in texts_in(stage, QUAY))
    proxy.copy(said, "Wren", SAID)
    proxy.delete(said)
    await asked(stage, QUAY, "Is the ferry late?")  # events come in order
    assert texts_in(stage, QUAY).count(TEXTS["en"]) == 1
    assert SAID not in " ".join(stored_texts(stage, QUAY))


async def test_a_command_shows_it_to_the_member_alone_and_posts_nothing(stage):
    before = texts_in(stage, QUAY)
    answer = await stage.member.slash(QUAY, "chat", message=SAID)
    assert answer.ephemeral and answer.message["content"] == TEXTS["en"]
    kept = await stage.member.slash(QUAY, "remember", text=SAID)
    assert kept.ephemeral and kept.message["content"] == TEXTS["en"]
    nowhere = await stage.member.slash(OFFICE, "remember", text=SAID)
    assert nowhere.ephemeral and nowhere.message["content"] == TEXTS["en"]
    for who, place in ((stage.moderator, QUAY), (stage.member, QUAY), (stage.moderator, OFFICE)):
        duet = await who.slash(place, "persona duet", other="oda", opening=SAID)
        assert duet.ephemeral and duet.message["content"] == TEXTS["en"]
    assert texts_in(stage, QUAY) == before and stage.engine.requests == []
    assert stage.store.erasure.rows_of(int(stage.member.id))["memories"] == []


async def test_a_form_shows_it_to_the_member_alone(stage):
    mark = stage.mark
    await stage.member.say(QUAY, "hello")
    reply = await stage.finished(QUAY, mark)
    card = await stage.member.slash(QUAY, "persona show")
    await until(lambda: card.text)
    forms = [
        await stage.member.click(reply, "Reply"),
        await stage.member.click(card.message, "Talk to them"),
    ]
    before = texts_in(stage, QUAY)
    for refusal in (None, "moderation block", "persona clear"):
        if refusal == "moderation block":
            await stage.moderator.slash(QUAY, refusal, member=stage.member.id)
        elif refusal:
            await stage.moderator.slash(QUAY, refusal)
        for form in forms:
            answer = await stage.member.submit(form, text=SAID)
            assert answer.ephemeral and answer.message["content"] == TEXTS["en"]
    assert texts_in(stage, QUAY) == before and len(stage.engine.requests) == 1


async def test_direct_messages_get_it_before_and_after_a_persona_is_chosen(stage):
    channel = await stage.member.dm()
    mark = stage.mark
    await stage.member.say(channel, SAID)
    first = await stage.sees(HELP, "message", mark)
    assert first["channel_id"] == channel["id"] and not first["components"]
    channel = await chosen(stage)
    mark = stage.mark
    stage.client.get_cog("ChatCog").answerer._safety_answers._cache.clear()  # a minute later
    await stage.member.say(channel, SAID)
    assert (await stage.sees(HELP, "message", mark))["content"] == TEXTS["en"]
    assert len(stage.engine.requests) == 1


async def test_it_comes_without_a_persona_and_from_a_muted_one(stage):
    await helped(stage, OFFICE, f"@Understudy {SAID}")
    mark = stage.mark
    await stage.member.say(QUAY, "hello")
    form = await stage.member.click(await stage.finished(QUAY, mark), "Reply")
    await stage.moderator.slash(QUAY, "persona mute")
    await stage.moderator.slash(QUAY, "moderation block", member=stage.member.id)
    await helped(stage, QUAY, SAID)
    for place in (OFFICE, QUAY):
        answer = await stage.member.slash(place, "chat", message=SAID)
        assert answer.ephemeral and answer.message["content"] == TEXTS["en"]
    answer = await stage.member.submit(form, text=SAID)
    assert answer.ephemeral and answer.message["content"] == TEXTS["en"]


async def test_a_reply_to_such_a_message_gets_it_and_one_member_once_a_minute(stage):
    answer = await helped(stage, QUAY, SAID)
    said = stage.sandbox.messages(QUAY)[-2]
    await stage.member.say(QUAY, SAID)
    mark = stage.mark
    await stage.moderator.say(QUAY, "@Understudy what should we say?", reply_to=said)
    second = await stage.sees(HELP, "message", mark)
    assert second["id"] != answer["id"]
    assert texts_in(stage, QUAY).count(TEXTS["en"]) == 2 and stage.engine.requests == []
    assert sum(stage.store.safety_answers.by_language().values()) == 3


async def test_an_edit_to_it_leaves_the_history(stage):
    mark = stage.mark
    said = await stage.member.say(QUAY, "what a day")
    await stage.finished(QUAY, mark)
    await stage.member.edit(said, SAID)
    await until(lambda: "what a day" not in stored_texts(stage, QUAY))
    assert SAID not in stored_texts(stage, QUAY)


async def test_an_edit_of_a_line_that_waits_gets_the_text_and_the_others_a_reply(stage):
    channel = stage.client.get_channel(int(stage.sandbox.channel(QUAY)["id"]))
    set_answering(stage.client.services, channel.guild.id, channel.id, {"wait_s": 1.0})
    mark = stage.mark
    first = await stage.member.say(QUAY, "what a day")
    second = await stage.member.say(QUAY, "is there soup?")
    line_waits = stage.client.services.reply_service.line_waits
    await until(lambda: line_waits.has_line(int(second["id"])))
    await stage.member.edit(first, SAID)
    answer = await stage.sees(HELP, "message", mark)
    assert answer["message_reference"]["message_id"] == first["id"]
    await stage.finished(QUAY, mark)
    (request,) = stage.engine.requests
    assert all(SAID not in turn.text for turn in request.turns)
    assert SAID not in stored_texts(stage, QUAY)
    assert stage.store.safety_answers.by_language() == {"en": 1}
    assert not line_waits.has_line(int(second["id"]))


async def test_why_says_that_the_text_answered_and_does_not_show_the_message(stage):
    await helped(stage, QUAY, f"@Understudy {SAID}")
    for _ in range(2):
        answer = await stage.moderator.slash(QUAY, "persona why")
        await until(
            lambda answer=answer: "Said to the persona" in (answer.message or {}).get("content", "")
        )
        assert "the fixed text with helplines answers it." in answer.message["content"]
        assert SAID not in answer.message["content"]
        stage.client.services.decisions._channels.clear()  # it is not remembered any more


LINES = ("i don't want to", "live anymore")
"""Each passes the rules alone; together they speak of it."""


async def say_lines(stage, wait_s):
    """Say the lines within a wait; returns them once both are stored."""
    channel = stage.client.get_channel(int(stage.sandbox.channel(QUAY)["id"]))
    set_answering(stage.client.services, channel.guild.id, channel.id, {"wait_s": wait_s})
    said = [await stage.member.say(QUAY, f"@Understudy {line}") for line in LINES]
    await until(lambda: len(stage.store.replies.lines(int(said[0]["id"]))) == len(LINES))
    return said


def assert_taken_back(stage, said):
    assert stage.engine.requests == [] and stored_texts(stage, QUAY) == []
    assert all(stage.store.messages.is_deleted(int(line["id"])) for line in said)
    assert stage.store.safety_answers.by_language() == {"en": 1}


async def test_words_that_stand_in_two_quick_lines_are_read_together(stage):
    mark = stage.mark
    said = await say_lines(stage, 0.5)
    await stage.sees(HELP, "message", mark)
    assert_taken_back(stage, said)


@pytest.mark.parametrize("max_age_s", [recovery.MAX_RESUME_AGE_S, -1.0])
async def test_a_bot_that_ends_in_the_wait_reads_the_lines_together_at_its_next_start(
    tmp_path, monkeypatch, max_age_s
):
    monkeypatch.setattr(recovery, "MAX_RESUME_AGE_S", max_age_s)  # it is too late for a reply, too
    async with on_stage(tmp_path) as stage:
        said = await say_lines(stage, 10.0)
    async with on_stage(tmp_path) as stage:
        answer = await stage.sees(HELP, "message", 0)
        assert answer["message_reference"]["message_id"] == said[0]["id"]
        await until(lambda: not stage.store.replies.unfinished())
        assert_taken_back(stage, said)
    async with on_stage(tmp_path) as stage:  # it finds mentions without a reply of a persona
        answerer = stage.client.get_cog("ChatCog").answerer
        await answer_missed(stage.client, stage.client.services, 0, answerer.answer)
        assert_taken_back(stage, said)
        assert texts_in(stage, QUAY).count(TEXTS["en"]) == 1


@pytest.mark.parametrize(
    ("lacking", "count"),
    [(["read_message_history"], 1), (["send_messages", "manage_webhooks"], 0)],
)  # fmt: skip
async def test_the_lines_are_taken_back_whatever_the_bot_may_do(tmp_path, lacking, count):
    async with on_stage(tmp_path) as stage:
        said = await say_lines(stage, 10.0)
        stage.store.places.forget_webhook(int(stage.sandbox.channel(QUAY)["id"]))
    allowed = required_permissions()
    allowed.update(**dict.fromkeys(lacking, False))
    seed = dataclasses.replace(SKERROW_SEED, bot_permissions=allowed.value)
    async with on_stage(tmp_path, seed=seed) as stage:
        await until(lambda: not stage.store.replies.unfinished())
        assert_taken_back(stage, said)
        assert texts_in(stage, QUAY).count(TEXTS["en"]) == count


async def test_a_reply_that_had_begun_to_what_speaks_of_it_now_gives_way_to_the_text(tmp_path):
    async with on_stage(tmp_path) as stage:
        stage.engine.free.clear()
        said = await stage.member.say(QUAY, "what a day")
        await stage.sees("…", by="Ballast")
        stage.store.messages.update(int(said["id"]), SAID)
    async with on_stage(tmp_path) as stage:
        await stage.sees(HELP, "message", 0)
        await until(lambda: not stage.store.replies.unfinished())
        assert stored_texts(stage, QUAY) == [] and stage.engine.requests == []
        assert "…" not in texts_in(stage, QUAY), texts_in(stage, QUAY)


async def test_the_text_comes_where_what_had_begun_cannot_be_deleted(tmp_path, monkeypatch):
    async def refused(*_):
        raise discord.Forbidden(SimpleNamespace(status=403, reason="Forbidden"), "no")

    async with on_stage(tmp_path) as stage:
        stage.engine.free.clear()
        said = await stage.member.say(QUAY, "what a day")
        await stage.sees("…", by="Ballast")
        stage.store.messages.update(int(said["id"]), SAID)
    monkeypatch.setattr(WebhookSender, "remove", refused)
    async with on_stage(tmp_path) as stage:
        await stage.sees(HELP, "message", 0)
        await until(lambda: not stage.store.replies.unfinished())
        assert stored_texts(stage, QUAY) == [] and stage.engine.requests == []


# --------------------------------------------------------------------------------- that it is an AI


def moved_back(stage, channel, *, spoke_s=0.0, told_s=0.0):
    """Let a talk have gone on, or ended, so long ago."""
    channel_id = int(stage.sandbox.channel(channel)["id"])
    stage.store.talks._db.write(
        "update talks set spoke_at = spoke_at - :spoke, told_at = told_at - :told "
        "where channel_id = :channel",
        spoke=spoke_s,
        told=told_s,
        channel=channel_id,
    )


async def test_the_start_of_a_talk_and_every_three_hours_of_it_tell_that_it_is_an_ai(stage):
    assert (await asked(stage, QUAY, "one")).endswith(f"\n{DISCLOSURE}")
    assert DISCLOSURE not in await asked(stage, QUAY, "two")
    assert DISCLOSURE in await asked(stage, INN, "another channel")
    assert DISCLOSURE in await asked(stage, QUAY, "another member", stage.moderator)
    moved_back(stage, QUAY, told_s=DISCLOSURE_INTERVAL_S - 60)
    assert DISCLOSURE not in await asked(stage, QUAY, "three")
    moved_back(stage, QUAY, told_s=61)
    assert DISCLOSURE in await asked(stage, QUAY, "four")
    assert DISCLOSURE not in await asked(stage, QUAY, "five")
    moved_back(stage, QUAY, spoke_s=3601)
    assert DISCLOSURE in await asked(stage, QUAY, "an hour of silence later")
    await stage.member.slash(QUAY, "persona fresh")
    assert DISCLOSURE in await asked(stage, QUAY, "a new conversation")


async def test_after_a_reply_that_failed_in_the_middle_the_next_one_tells_it(stage):
    def breaking(request):
        yield "Well, "
        raise RuntimeError("The model fell over.")

    script, stage.engine.script = stage.engine.script, breaking
    await stage.member.say(QUAY, "one")
    await until(lambda: "-# " in texts_in(stage, QUAY)[-1])
    assert DISCLOSURE not in texts_in(stage, QUAY)[-1]
    stage.engine.script = script
    assert DISCLOSURE in await asked(stage, QUAY, "two")
    assert DISCLOSURE not in await asked(stage, QUAY, "three")


async def test_it_is_remembered_over_a_restart_and_stays_when_a_reply_is_made_again(tmp_path):
    async with on_stage(tmp_path) as stage:
        mark = stage.mark
        await stage.member.say(QUAY, "one")
        reply = await stage.finished(QUAY, mark)
        mark = stage.mark
        await stage.member.click(reply, "Regenerate")
        assert DISCLOSURE in (await stage.finished(QUAY, mark))["content"]
    async with on_stage(tmp_path) as stage:
        assert DISCLOSURE not in await asked(stage, QUAY, "two")


async def test_below_a_reply_that_claims_to_be_a_persons_it_says_that_an_ai_writes(stage):
    assert DISCLOSURE in await asked(stage, QUAY, "one")
    for claim in ("I am a real person", "Ich bin ein echter Mensch", "我是真人"):
        assert (await asked(stage, QUAY, claim)).endswith(f"\n{DISCLOSURE}"), "the persona says so"
    assert DISCLOSURE not in await asked(stage, QUAY, "I am no person")
    HAS_MINORS.write(stage.store, True, int(stage.sandbox.guild_id))
    assert (await asked(stage, QUAY, "soy una persona real")).endswith(f"\n{PLAIN_DISCLOSURE}")


async def test_who_asks_whether_an_ai_writes_is_told_each_time_in_plain_size(stage):
    assert DISCLOSURE in await asked(stage, QUAY, "one")
    moved_back(stage, QUAY, told_s=DISCLOSURE_INTERVAL_S - 60)
    for question in ("are u a bot or is someone typing this", "bạn là người hay là máy vậy"):
        assert (await told(stage, QUAY, question)).endswith(f"\n{PLAIN_DISCLOSURE}")
    in_play = await asked(stage, QUAY, "in this story, are you human?")
    assert PLAIN_DISCLOSURE not in in_play and "hears" in in_play
    assert "talking with an AI" not in await asked(stage, QUAY, "are you hungry?")
    moved_back(stage, QUAY, told_s=61)
    assert DISCLOSURE in await asked(stage, QUAY, "what is due does not wait for longer")


async def test_where_minors_are_it_is_plain_and_a_long_talk_is_asked_to_pause(stage):
    with pytest.raises(SandboxRefusal):
        await stage.member.slash(QUAY, "moderation minors", here=True)
    shown = await stage.moderator.slash(QUAY, "moderation minors")
    assert "No minors are said" in shown.message["content"]
    answer = await stage.moderator.slash(QUAY, "moderation minors", here=True)
    assert answer.ephemeral and "Minors are here." in answer.message["content"]
    assert (await asked(stage, QUAY, "one")).endswith(f"\n{PLAIN_DISCLOSURE}")
    moved_back(stage, QUAY, told_s=DISCLOSURE_INTERVAL_S)
    assert (await told(stage, QUAY, "are you a bot?")).endswith(f"\n{MINORS_BREAK}")
    await stage.moderator.slash(QUAY, "moderation minors", here=False)
    assert DISCLOSURE in await asked(stage, INN, "three")


async def test_the_longest_reply_has_room_for_it(stage):
    stage.engine.script = lambda request: "word " * 700
    mark = stage.mark
    await stage.member.say(QUAY, "a long story")
    message = await stage.sandbox.wait_for(
        "edit", lambda m: DISCLOSURE in m["content"], 8.0, since=mark
    )
    assert len(message["content"]) <= 2000
