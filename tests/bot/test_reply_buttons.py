"""The buttons under a reply: Reply and its form, Regenerate, votes; and taking a reply back."""

import asyncio
from contextlib import ExitStack
from functools import partial

from bot.chat.senders import WebhookSender
from bot.chat.streaming_reply import PLACEHOLDER, StreamingReply
from bot.chat.unfinished import MAX_REPLIES_TO_MEMBER
from bot.store import Memory, StoreError, VoteCounts
from personas.errors import EngineBusyError
from sandbox import FaultRates
from tests.bot.conftest import INN, QUAY, on_stage
from tests.bot.version_rows import install
from tests.fake_engine import FakeEngine
from tests.fakes import until


def counting():
    """A script that says something else each time."""
    said = []

    def script(request):
        said.append(request)
        return [f"Take {len(said)} ", f"on {request.turns[-1].text}"]

    return script


async def replied(stage, words="hello", channel=QUAY):
    mark = stage.mark
    await stage.member.say(channel, words)
    reply = await stage.finished(channel, mark)
    await until(
        lambda: stage.store.replies.get(_event(stage)).state == "done"
    )  # stored after its last edit
    return reply


def labels(message):
    return [
        (button.get("label") or "") + (button.get("emoji") or {}).get("name", "")
        for row in message["components"]
        for button in row["components"]
    ]


async def test_what_is_written_in_the_form_is_shown_to_all_and_answered(stage):
    reply = await replied(stage)
    form = await stage.member.click(reply, f"reply:{_event(stage)}")
    assert form.modal["title"] == "Reply to Ballast"
    mark = stage.mark
    await stage.moderator.click(reply, f"reply:{_event(stage)}")
    sent = await stage.member.submit(form, text="And the *goose*, @everyone?")
    assert (
        not sent.ephemeral
        and sent.message["content"] == "**Tobias Reed:** And the *goose*, @everyone?"
    )
    assert sent.message["mention_everyone"] is False
    answer = await stage.finished(QUAY, mark)
    assert "hears: And the *goose*, @\u200beveryone?" in answer["content"]
    assert [turn.text for turn in stage.engine.requests[-1].turns][
        -1
    ] == "And the *goose*, @everyone?"


async def test_the_form_works_without_the_intent_and_when_it_was_open_during_a_restart(tmp_path):
    async with on_stage(tmp_path, message_content=False) as stage:
        reply = await replied(stage, "@Understudy hello")
        form = await stage.member.click(reply, f"reply:{_event(stage)}")
        # What a restart of the bot leaves of an open form.
        stage.client._connection._view_store._modals.clear()
        mark = stage.mark
        await stage.member.submit(form, text="still there?")
        assert "hears: still there?" in (await stage.finished(QUAY, mark))["content"]


async def test_regenerate_says_it_anew_in_the_same_message_and_in_the_history(tmp_path):
    async with on_stage(tmp_path, engine=FakeEngine(counting())) as stage:
        first = await replied(stage, "the tide")
        mark = stage.mark
        await stage.member.click(first, f"again:{_event(stage)}")
        second = await stage.finished(QUAY, mark)
        assert second["id"] == first["id"] and second["content"].startswith(
            "Take 2 on the tide\n-# AI-written"
        )
        channel_id = int(first["channel_id"])
        await until(
            lambda: stage.store.messages.latest(channel_id, 20)[-1].text == "Take 2 on the tide"
        )
        assert len(stage.store.messages.latest(channel_id, 20)) == 2
        assert [turn.text for turn in stage.engine.requests[1].turns] == ["the tide"]
        replaced = [request.replaces for request in stage.engine.requests]
        assert replaced == ["", "Take 1 on the tide"]


async def test_regenerating_a_long_reply_takes_its_further_messages_away(tmp_path):
    lengths = iter((900, 3))

    def script(request):
        return [f"word{n} " for n in range(next(lengths))]

    async with on_stage(tmp_path, engine=FakeEngine(script)) as stage:
        last = await replied(stage, "everything, please")
        assert len(stage.store.replies.get(_event(stage)).parts) > 2
        mark = stage.mark
        await stage.member.click(last, f"again:{_event(stage)}")
        again = await stage.finished(QUAY, mark)
        assert again["content"].startswith("word0 word1 word2\n-#")
        assert len([m for m in stage.sandbox.messages(QUAY) if "word" in m["content"]]) == 1
        assert stage.store.replies.get(_event(stage)).parts == (int(again["id"]),)


async def test_a_regeneration_that_begins_while_discord_confirms_the_end_is_not_stopped(
    stage, monkeypatch
):
    end = StreamingReply.end
    confirmed = asyncio.Event()

    async def end_slowly(live, text, footer):
        await end(live, text, footer)
        await confirmed.wait()

    monkeypatch.setattr(StreamingReply, "end", end_slowly)
    reply = await replied(stage)
    stage.engine.free.clear()
    mark = stage.mark
    await stage.member.click(reply, f"again:{_event(stage)}")
    await until(lambda: len(stage.engine.requests) == 2)
    confirmed.set()
    await until(lambda: len(stage.client.services.reply_service.tasks) == 1)
    stage.engine.free.set()
    again = await stage.finished(QUAY, mark)
    assert (
        again["content"].startswith("Ballast hears: hello\n") and "stopped" not in again["content"]
    )


async def test_only_who_asked_or_a_moderator_may_regenerate(stage):
    mark = stage.mark
    await stage.moderator.say(QUAY, "mine")
    reply = await stage.finished(QUAY, mark)
    await stage.member.click(reply, f"again:{_event(stage)}")
    await stage.sees("Only the one who asked")
    assert len(stage.engine.requests) == 1


async def test_regenerate_is_refused_and_changes_nothing_when_the_engine_is_full_or_the_question_gone(
    stage,
):
    reply = await replied(stage)
    stage.engine.full = True
    await stage.member.click(reply, f"again:{_event(stage)}")
    await stage.sees("9 replies are waiting")
    stage.engine.full = False
    said = stage.store.messages.latest(int(reply["channel_id"]), 20)[0]
    stage.store.messages.delete(said.discord_message_id)
    await stage.member.click(reply, f"again:{_event(stage)}")
    await stage.sees("is no longer there")
    assert stage.sandbox.messages(QUAY)[-1]["content"] == reply["content"]
    assert stage.store.replies.get(_event(stage)).attempt == 1


async def test_when_making_it_anew_fails_the_old_words_return(stage):
    reply = await replied(stage)
    stage.engine.failure = EngineBusyError("The model fell over.", "Call the operator.")
    await stage.member.click(reply, f"again:{_event(stage)}")
    shown = await stage.sees("The model fell over.", kind="edit")
    assert shown["content"].startswith(
        "Ballast hears: hello\n-# The model fell over. Call the operator."
    )
    assert [m.text for m in stage.store.messages.latest(int(reply["channel_id"]), 20)][
        -1
    ] == "Ballast hears: hello"


async def test_a_reply_cut_off_while_it_was_made_anew_is_finished_after_the_restart(tmp_path):
    async with on_stage(tmp_path) as stage:
        reply = await replied(stage)
        stage.engine.free.clear()
        await stage.member.click(reply, f"again:{_event(stage)}")
        await stage.sees("…", kind="edit")
    async with on_stage(tmp_path) as stage:
        again = await stage.finished(QUAY, 0)
        assert again["id"] == reply["id"] and "Ballast hears: hello" in again["content"]


async def test_a_message_found_after_a_crash_is_stored_before_it_loses_its_buttons(
    tmp_path, monkeypatch
):
    async with on_stage(tmp_path) as stage:
        stage.engine.free.clear()
        await stage.member.say(QUAY, "who was that")
        growing = await stage.sees("…", by="Ballast")
        (reply,) = stage.store.replies.unfinished()
        stage.store.replies.record_parts(reply.event_id, [])
        stage.store.replies._db.write("update replies set trigger_seq = null")
    restore = StreamingReply.restore
    stored = []

    async def record_then_restore(live, text, note):
        stored.extend(stage.store.replies.get(reply.event_id).parts)
        await restore(live, text, note)

    monkeypatch.setattr(StreamingReply, "restore", record_then_restore)
    async with on_stage(tmp_path) as stage:
        result = await stage.sees("was cut off", since=0)
        assert not result["components"] and stored == [int(growing["id"])]


async def test_votes_are_counted_once_a_member_and_taken_back(stage):
    reply = await replied(stage)
    event = _event(stage)
    for who, button, shown in (
        (stage.member, "vote+1", ["1👍", "👎"]),
        (stage.moderator, "vote+1", ["2👍", "👎"]),
        (stage.moderator, "vote-1", ["1👍", "1👎"]),
        (stage.member, "vote+1", ["👍", "1👎"]),
    ):
        await who.click(reply, f"{button}:{event}")
        assert labels(stage.sandbox.messages(QUAY)[-1])[2:] == shown
    assert stage.store.replies.votes(event) == VoteCounts(0, 1)


async def test_what_a_gateway_repeats_is_done_once(stage):
    reply = await replied(stage)
    event = _event(stage)
    stage.sandbox.disturb(FaultRates(duplicated=1))
    for expected in (VoteCounts(1, 0), VoteCounts(), VoteCounts(1, 0)):
        await stage.member.click(reply, f"vote+1:{event}")
        await stage.member.slash(QUAY, "persona list")  # read after the repeated click
        assert stage.store.replies.votes(event) == expected
    form = await stage.member.click(reply, f"reply:{event}")
    await stage.member.submit(form, text="by form")
    await stage.member.slash(QUAY, "chat", message="by command")
    stage.sandbox.disturb()
    await replied(stage, "at last")
    await until(lambda: not stage.store.replies.unfinished())
    said = [message["content"] for message in stage.sandbox.messages(QUAY)]
    for words in ("by form", "by command"):
        assert sum(f"hears: {words}" in text for text in said) == 1, said


async def test_a_reply_is_taken_back_from_its_menu_by_who_asked_or_a_moderator_only(stage):
    mark = stage.mark
    await stage.moderator.say(INN, "mine")
    reply = await stage.finished(INN, mark)
    answer = await stage.member.context(INN, "Delete this reply", reply)
    assert answer.ephemeral and "Only the one who asked" in answer.message["content"]
    await stage.moderator.context(INN, "Delete this reply", reply)
    await until(lambda: reply["id"] not in [m["id"] for m in stage.sandbox.messages(INN)])
    await until(
        lambda: (
            [m.text for m in stage.store.messages.latest(int(reply["channel_id"]), 20)] == ["mine"]
        )
    )
    question = next(m for m in stage.sandbox.messages(INN) if m["content"] == "mine")
    answer = await stage.moderator.context(INN, "Delete this reply", question)
    assert "This is no reply of a persona" in answer.message["content"]


async def test_a_reply_of_a_persona_that_was_removed_is_taken_back_too(stage):
    reply = await replied(stage, "the tide")
    stage.store._connection.write("update replies set persona_id = 'gone'")
    await stage.moderator.context(QUAY, "Delete this reply", reply)
    await until(lambda: reply["id"] not in [m["id"] for m in stage.sandbox.messages(QUAY)])


async def test_the_base_model_is_heard_beside_a_reply_by_the_one_who_asks_for_it(stage):
    """With the card and lore of the reply, without the version's own replies, memories of others, or
    a trace in the history.
    """
    version = install(stage.store)
    stage.store.versions.promote("ballast", version, by=1, at=1.0)
    first = await replied(stage, "the tide")
    assert "Without training" in labels(first)  # this version was trained here
    await stage.member.click(first, f"vote+1:{_event(stage)}")
    assert "Without training" in labels(stage.sandbox.messages(QUAY)[-1])
    reply = await replied(stage, "and the lamp?")
    memory = Memory(
        guild_id=int(stage.sandbox.guild_id),
        persona_id="ballast",
        user_id=int(stage.member.id),
        text="The lamp is mine.",
        by_persona=False,
        message_id=None,
        at=1.0,
        channel_id=0,
        seq=0,
    )
    stage.store.memories.add(memory)
    channel_id = int(reply["channel_id"])
    told = [message.text for message in stage.store.messages.latest(channel_id, 20)]
    for asker, knows in ((stage.member, True), (stage.moderator, False)):
        answer = await asker.context(QUAY, "Reply without training", reply)
        await until(partial(is_written, answer))
        assert answer.ephemeral
        assert answer.message["content"].startswith("**Ballast without training**")
        assert "-# AI-written · base model" in answer.message["content"]
        request = stage.engine.requests[-1]
        assert request.adapter is None
        assert [turn.text for turn in request.turns] == ["and the lamp?"]
        assert any(hit.text == "The lamp is mine." for hit in request.lore) is knows
    assert [message.text for message in stage.store.messages.latest(channel_id, 20)] == told
    answer = await stage.member.context(
        QUAY, "Reply without training", told_message(stage, told[0])
    )
    assert "This is no reply of a persona" in answer.message["content"]


def is_written(answer):
    return "AI-written" in (answer.message or {}).get("content", "")


def told_message(stage, text):
    return next(message for message in stage.sandbox.messages(QUAY) if message["content"] == text)


async def test_pressing_twice_generates_one_reply_without_training(stage):
    stage.store.versions.promote("ballast", install(stage.store), by=1, at=1.0)
    reply = await replied(stage, "the tide")
    event = _event(stage)
    count = len(stage.engine.requests)
    stage.engine.free.clear()
    first = await stage.member.click(reply, f"untrained:{event}")
    await until(lambda: len(stage.engine.requests) == count + 1)
    second = await stage.member.click(reply, f"untrained:{event}")
    await until(lambda: "is being written" in (second.message or {}).get("content", ""))
    other = await stage.moderator.click(reply, f"untrained:{event}")
    await until(lambda: len(stage.engine.requests) == count + 2)
    stage.engine.free.set()
    for answer in (first, other):
        await until(partial(is_written, answer))
    later = await stage.member.click(reply, f"untrained:{event}")
    await until(partial(is_written, later))
    assert len(stage.engine.requests) == count + 3


async def test_who_floods_hears_no_base_model(stage):
    reply = await replied(stage, "the tide")
    unfinished = stage.client.services.reply_service.unfinished
    with ExitStack() as several:
        for event in range(MAX_REPLIES_TO_MEMBER):
            several.enter_context(unfinished.counting(event, member=int(stage.member.id)))
        answer = await stage.member.context(QUAY, "Reply without training", reply)
        await until(lambda: "unfinished" in (answer.message or {}).get("content", ""))


async def test_a_reply_that_is_deleted_while_it_grows_leaves_no_further_message(
    tmp_path, monkeypatch
):
    say = WebhookSender.say
    growing = asyncio.Event()
    go_on = asyncio.Event()

    async def say_slowly(sender, text, view=None, since=None):
        if text == PLACEHOLDER and any(
            "word0 " in m["content"] for m in stage.sandbox.messages(QUAY)
        ):
            growing.set()
            await go_on.wait()
        return await say(sender, text, view, since)

    async with on_stage(
        tmp_path, engine=FakeEngine(lambda request: [f"word{n} " for n in range(900)])
    ) as stage:
        before = len(stage.sandbox.messages(QUAY))
        monkeypatch.setattr(WebhookSender, "say", say_slowly)
        await stage.member.say(QUAY, "everything, please")
        await asyncio.wait_for(growing.wait(), 10)
        [first] = [m for m in stage.sandbox.messages(QUAY) if "word0 " in m["content"]]
        answer = await stage.member.context(QUAY, "Delete this reply", first)
        await asyncio.sleep(0.1)
        go_on.set()
        await until(lambda: "Deleted." in (answer.message or {}).get("content", ""))
        await until(lambda: not stage.client.services.reply_service.tasks)
        assert [m["content"] for m in stage.sandbox.messages(QUAY)][before:] == [
            "everything, please"
        ]
        assert [m.text for m in stage.store.messages.latest(int(first["channel_id"]), 20)] == [
            "everything, please"
        ]


async def test_a_regeneration_that_cannot_be_stored_may_be_asked_for_again(stage, monkeypatch):
    reply = await replied(stage)
    failed = []

    def fail(*values):
        failed.append(values)
        raise StoreError("The database is locked.")

    with monkeypatch.context() as locked:
        locked.setattr(stage.store.replies, "record_interruption", fail)
        await stage.member.click(reply, f"again:{_event(stage)}")
        await until(lambda: failed)
    mark = stage.mark
    await stage.member.click(reply, f"again:{_event(stage)}")
    await stage.finished(QUAY, mark)


async def test_stop_before_a_reply_has_begun_leaves_no_empty_turn_in_the_history(tmp_path):
    async with on_stage(tmp_path, engine=FakeEngine(lambda request: ["", "never said"])) as stage:
        stage.engine.free.clear()
        await stage.member.say(QUAY, "wait")
        growing = await stage.sees("…", by="Ballast")
        await until(lambda: stage.client.services.reply_service.running)
        await stage.member.click(growing, "Stop")
        await stage.sees("-# stopped before it began")
        await asyncio.sleep(0.05)
        assert [m.text for m in stage.store.messages.latest(int(growing["channel_id"]), 20)] == [
            "wait"
        ]


def _event(stage):
    """The event of the newest reply that answers somebody."""
    row = stage.store._connection.first(
        "select max(event_id) as id from replies where trigger_seq is not null"
    )
    if row["id"] is None:
        row = stage.store._connection.first(
            "select max(event_id) as id from replies where asked_by != 0"
        )
    return row["id"]
