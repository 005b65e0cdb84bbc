"""Edits and deletions on Discord reach the store, also when it could not be written at that
moment.
"""

import sqlite3
import time
from contextlib import contextmanager

import pytest

from bot.chat import held_events
from tests.bot.conftest import OFFICE, QUAY, on_stage
from tests.bot.stored_messages import guild_messages
from tests.fakes import until


@contextmanager
def locked(home):
    """Another program writes to the database, for longer than the bot waits."""
    other = sqlite3.connect(home / "understudy.sqlite")
    other.execute("begin immediate")
    yield
    other.rollback()
    other.close()


@pytest.fixture
async def stage(tmp_path, monkeypatch):
    monkeypatch.setattr(held_events, "RETRY_DELAY_S", 0.1)
    async with on_stage(tmp_path) as made:
        made.store._connection._raw.execute("pragma busy_timeout = 5")
        yield made


def texts(stage):
    said = guild_messages(stage.store, stage.sandbox.guild_id)
    return [message.text for message in said if message.persona_id is None]


async def say(stage, *words):
    """Messages of a member, each said once the one before is answered."""
    said = []
    for one in words:
        mark = stage.mark
        said.append(await stage.member.say(QUAY, one))
        await stage.finished(QUAY, mark)
    return said


async def remember(stage, channel, message):
    answer = await stage.member.context(channel, "Remember this", message)
    await until(lambda: "remembers for you" in (answer.message or {}).get("content", ""))


async def test_an_edit_and_a_deletion_that_meet_a_locked_database_are_stored_later(
    stage, tmp_path, caplog
):
    first, second, third = await say(stage, "one", "two", "three")
    with locked(tmp_path):
        await stage.member.edit(first, "one, but otherwise")
        await stage.member.edit(first, "one, at last")
        await stage.member.edit(second, "two, which is deleted anyway")
        await stage.member.delete(second)
        events = stage.client.services.reply_service.events
        await until(lambda: len(events) == 4)
        assert texts(stage) == ["one", "two", "three"]
        (task,) = [
            task for task in stage.client.services.background if task.name == "events of Discord"
        ]
        await until(lambda: "database is locked" in task.error)
    await until(lambda: texts(stage) == ["one, at last", "three"])
    await until(lambda: not task.error)
    assert stage.store.messages.is_deleted(int(second["id"]))
    assert third and "Traceback" not in caplog.text


async def test_a_bulk_deletion_is_stored_whole_and_a_channel_s_too(stage, tmp_path, caplog):
    said = await say(stage, "one", "two", "three")
    replied = [m for m in guild_messages(stage.store, stage.sandbox.guild_id) if m.persona_id]
    place = {"guild_id": str(stage.sandbox.guild_id), "channel_id": said[0]["channel_id"]}
    with locked(tmp_path):
        ids = {"ids": [message["id"] for message in said[:2]]}
        stage.sandbox._container.gateway.dispatch("MESSAGE_DELETE_BULK", place | ids)
        events = stage.client.services.reply_service.events
        await until(lambda: len(events) == 1)
        assert texts(stage) == ["one", "two", "three"]
    await until(lambda: texts(stage) == ["three"])
    with locked(tmp_path):
        channel = stage.client.get_channel(int(said[0]["channel_id"]))
        stage.client.dispatch("guild_channel_delete", channel)
        await until(lambda: len(events) == 1)
    await until(lambda: texts(stage) == [])
    assert replied and channel.id not in [
        it.channel_id for it in stage.store.channels.of_guild(stage.sandbox.guild_id)
    ]


async def test_what_is_pending_when_the_bot_stops_is_stored_then(tmp_path, monkeypatch, caplog):
    async with on_stage(tmp_path) as stage:
        stage.store._connection._raw.execute("pragma busy_timeout = 5")
        (said,) = await say(stage, "one")
        with locked(tmp_path):
            await stage.member.delete(said)
            await until(lambda: len(stage.client.services.reply_service.events) == 1)
        await stage.client.close()
        assert texts(stage) == []


async def test_a_message_that_an_edit_hides_from_the_bot_is_forgotten(tmp_path):
    async with on_stage(tmp_path, message_content=False) as stage:
        hidden, seen = await say(stage, "@Understudy one", "@Understudy two")
        for message in (hidden, seen):
            await remember(stage, QUAY, message)
        await stage.member.edit(seen, "two, @Understudy, and more")
        await stage.member.edit(hidden, "between us")
        await until(lambda: texts(stage) == ["two, , and more"])
        memories = stage.store.memories.of_member(
            int(stage.member.id), stage.sandbox.guild_id, "ballast"
        )
        assert [it.text for it in memories] == ["two, , and more"]
        assert stage.store.messages.is_deleted(int(hidden["id"]))


async def test_a_message_whose_text_is_removed_is_forgotten_but_not_by_an_update_that_is_no_edit(
    stage,
):
    mark = stage.mark
    place = {"guild_id": str(stage.sandbox.guild_id)}
    said = await stage.member.say(QUAY, "look")
    await stage.finished(QUAY, mark)
    emptied = said | place | {"content": ""}
    gateway = stage.sandbox._container.gateway
    gateway.dispatch("MESSAGE_UPDATE", emptied)  # as of a forward
    await say(stage, "more")
    assert texts(stage) == ["look", "more"]
    gateway.dispatch("MESSAGE_UPDATE", emptied | {"edited_timestamp": said["timestamp"]})
    await until(lambda: texts(stage) == ["more"])
    assert stage.store.messages.is_deleted(int(said["id"]))


async def test_what_a_command_or_a_form_said_is_deleted_with_the_message_that_quotes_it(stage):
    mark = stage.mark
    quoted = await stage.member.slash(QUAY, "chat", message="one")
    reply = await stage.finished(QUAY, mark)
    form = await stage.member.click(reply, "Reply")
    mark = stage.mark
    answered = await stage.member.submit(form, text="two")
    await stage.finished(QUAY, mark)
    await stage.member.context(QUAY, "Remember this", quoted.message)
    await until(
        lambda: stage.store.memories.of_member(
            int(stage.member.id), stage.sandbox.guild_id, "ballast"
        )
    )
    await stage.moderator.delete(quoted.message)
    await until(lambda: texts(stage) == ["two"])
    assert not stage.store.memories.of_member(
        int(stage.member.id), stage.sandbox.guild_id, "ballast"
    )
    place = {"guild_id": str(stage.sandbox.guild_id), "channel_id": answered.message["channel_id"]}
    stage.sandbox._container.gateway.dispatch(
        "MESSAGE_DELETE_BULK", place | {"ids": [answered.message["id"]]}
    )
    await until(lambda: texts(stage) == [])


@pytest.mark.parametrize("is_from_before", [False, True])
async def test_a_deleted_channel_takes_its_archived_threads_though_discord_names_none(
    stage, is_from_before
):
    """Of one with a thread from before parents were stored, only copies are left, which no
    retention deletes.
    """
    thread = await stage.member.thread(QUAY, "aside")
    mark = stage.mark
    said = await stage.member.say(thread, "one")
    await stage.sandbox.wait_for("edit", lambda it: "-# AI-written" in it["content"], since=mark)
    assert stage.store.places.threads_of(int(thread["parent_id"])) == [int(thread["id"])]
    # A memory stores the parent, too.
    stage.store._connection.write("update places set parent_id = null")
    await remember(stage, thread, said)
    (other,) = await say(stage, "two")
    await remember(stage, QUAY, other)
    guild = stage.sandbox._container.guild
    gateway = stage.sandbox._container.gateway
    guild_id = stage.sandbox.guild_id
    member_id = int(stage.member.id)
    if is_from_before:
        stage.store.messages.delete_before(time.time() + 1)
        stage.store._connection.write("update places set parent_id = null")
    place = {"guild_id": str(guild_id)}
    shape = guild.channel(thread["id"])
    archived = {"thread_metadata": shape["thread_metadata"] | {"archived": True}}
    gateway.dispatch("THREAD_UPDATE", shape | place | archived)
    await until(lambda: stage.client.get_channel(int(thread["id"])) is None)
    assert [it.text for it in stage.store.memories.of_member(member_id, guild_id, "ballast")] == [
        "one",
        "two",
    ]
    gateway.dispatch("CHANNEL_DELETE", guild.channel(thread["parent_id"]) | place)
    await until(lambda: not stage.store.memories.of_member(member_id, guild_id, "ballast"))
    assert guild_messages(stage.store, guild_id) == []
    both = f"select * from places where channel_id in ({thread['id']}, {thread['parent_id']})"
    await until(lambda: not stage.store._connection.read(both))


async def test_an_edit_of_a_message_that_nothing_is_kept_of_is_not_read(stage, monkeypatch):
    read = []
    finds = type(stage.client.services.safety).finds
    monkeypatch.setattr(
        type(stage.client.services.safety),
        "finds",
        lambda self, text: read.append(text) or finds(self, text),
    )
    aside = await stage.member.say(OFFICE, "aside")
    (kept,) = await say(stage, "kept")
    read.clear()
    await stage.member.edit(aside, "aside, edited")
    await stage.member.edit(kept, "kept, edited")
    await until(lambda: texts(stage) == ["kept, edited"])
    assert "kept, edited" in read and not any("aside" in text for text in read)


async def test_a_quoted_message_that_an_edit_makes_speak_of_self_harm_is_kept_no_longer(stage):
    aside = await stage.member.say(OFFICE, "aside")
    place = {"guild_id": stage.sandbox.guild_id, "channel_id": int(aside["channel_id"])}
    stage.store._connection.insert(
        "quoted_messages",
        {**place, "discord_message_id": int(aside["id"]), "author_id": 7, "author_name": "Ada",
         "text": "aside", "at": 1.0},
    )  # fmt: skip
    await stage.member.edit(aside, "I want to kill myself")
    await until(lambda: not stage.store.quoted.has(int(aside["id"])))


async def test_a_bot_that_was_killed_forgets_the_rest_of_a_deleted_channel_at_its_start(tmp_path):
    async with on_stage(tmp_path) as stage:
        (said,) = await say(stage, "one")
        channel_id = int(said["channel_id"])
        stage.store.places.note_gone(stage.sandbox.guild_id, channel_id)
    async with on_stage(tmp_path) as stage:
        await until(lambda: not stage.store.places.gone())
        assert texts(stage) == []
