"""Moderators silence personas at once, and have deleted what they said."""

import asyncio

import discord

from bot.chat import delivery
from tests.bot.conftest import INN, QUAY, on_stage
from tests.fakes import until


async def said(answer, words):
    await until(lambda: words in (answer.message or {}).get("content", ""))


async def replied(stage, channel, words):
    mark = stage.mark
    await stage.member.say(channel, words)
    return await stage.finished(channel, mark)


async def test_mute_stops_a_reply_in_the_middle_and_the_next_before_it_begins(stage):
    stage.engine.free.clear()
    await stage.member.say(QUAY, "a long story")
    await stage.sees("…", by="Ballast")
    await until(lambda: stage.client.services.reply_service.running)
    answer = await stage.moderator.slash(QUAY, "persona mute")
    assert answer.ephemeral and "Muted: all personas in <#" in answer.message["content"]
    stopped = await stage.sees("· stopped")
    assert stopped["content"].startswith("Ballast\n-# AI-written")
    stage.engine.free.set()
    await stage.member.say(QUAY, "@Understudy anyone?")
    refused = await stage.member.slash(QUAY, "chat", message="anyone?")
    assert refused.ephemeral and "silenced Ballast" in refused.message["content"]
    await replied(stage, INN, "and elsewhere")
    assert len(stage.engine.requests) == 2


async def test_a_mute_survives_a_restart_and_unmute_lifts_it(tmp_path):
    async with on_stage(tmp_path) as stage:
        await stage.moderator.slash(QUAY, "persona mute", where="server")
    async with on_stage(tmp_path) as stage:
        await stage.member.say(INN, "hello?")
        shown = await stage.member.slash(INN, "persona show")
        await until(lambda: "Muted by a moderator" in shown.text)
        listed = await stage.member.slash(INN, "persona list")
        assert "Muted: all personas in the whole" in listed.message["content"]
        wrong = await stage.moderator.slash(INN, "persona unmute")
        assert "There is no such mute" in wrong.message["content"]
        assert "in the whole server" in wrong.message["content"]
        assert stage.engine.requests == []
        await stage.moderator.slash(INN, "persona unmute", where="server")
        await replied(stage, INN, "hello!")


async def test_what_was_said_is_deleted_on_request_only_there_and_from_the_history(stage):
    for words in ("one", "two"):
        await replied(stage, QUAY, words)
    await replied(stage, INN, "three")
    answer = await stage.moderator.slash(QUAY, "persona mute", delete="hour")
    await said(answer, "Deleted 3 of 3 replies.")  # the greeting too
    left = [m["content"] for m in stage.sandbox.messages(QUAY)]
    assert left == ["one", "two"]
    assert [
        m.text for m in stage.store.messages.latest(int(stage.sandbox.channel(QUAY)["id"]), 20)
    ] == ["one", "two"]
    assert any("hears: three" in m["content"] for m in stage.sandbox.messages(INN))


async def test_a_thread_is_silenced_and_swept_with_its_channel(stage):
    thread, reply = await _said_in_thread(stage)
    answer = await stage.moderator.slash(QUAY, "persona mute", delete="everything")
    await said(answer, "Deleted 2 of 2 replies.")
    await stage.member.say(thread, "hello?")
    await asyncio.sleep(0.1)
    assert len(stage.engine.requests) == 1 and reply["id"] not in _ids(stage, thread)


def _ids(stage, channel):
    return [m["id"] for m in stage.sandbox._container.messages.history(channel["id"], 100)]


async def _said_in_thread(stage):
    """A thread with a reply, and that reply."""
    thread = await stage.member.thread(QUAY, "aside")
    mark = stage.mark
    await stage.member.say(thread, "in here")
    reply = await stage.sandbox.wait_for(
        "edit",
        lambda m: m["channel_id"] == thread["id"] and "-# AI-written" in m["content"],
        since=mark,
    )
    return thread, reply


async def test_an_archived_thread_keeps_its_replies_and_hinders_no_others(stage):
    await replied(stage, QUAY, "one")
    thread, reply = await _said_in_thread(stage)
    stage.sandbox.archive_thread(thread["id"])
    await until(lambda: not stage.client.guilds[0].get_thread(int(thread["id"])))
    answer = await stage.moderator.slash(QUAY, "persona mute", delete="everything")
    await said(answer, "Deleted 2 of 3 replies. 1 could not be deleted: the thread is archived")
    assert [m["content"] for m in stage.sandbox.messages(QUAY)][:1] == ["one"]
    assert not any("hears: one" in m["content"] for m in stage.sandbox.messages(QUAY))
    single = await stage.moderator.context(thread, "Delete this reply", reply)
    await said(single, "The reply could not be deleted: the thread is archived; open it first.")
    await stage.moderator.say(thread, "open again")
    again = await stage.moderator.context(thread, "Delete this reply", reply)
    await said(again, "Deleted.")


async def test_where_discord_fails_the_other_replies_are_deleted(stage, monkeypatch):
    monkeypatch.setattr(delivery, "RETRY_PAUSES_S", ())
    await replied(stage, QUAY, "one")
    route = "DELETE /webhooks/{webhook_id}/{token}/messages/{message_id}"
    stage.sandbox.fail_requests(route, "cut_before", 2)
    answer = await stage.moderator.slash(QUAY, "persona mute", delete="everything")
    await said(answer, "Deleted 1 of 2 replies. 1 could not be deleted: Discord does not do it now")


async def test_what_a_deleted_webhook_said_takes_manage_messages_and_the_bot_says_so(stage):
    await replied(stage, QUAY, "one")
    channel = discord.utils.get(stage.client.guilds[0].text_channels, name=QUAY)
    for webhook in await channel.webhooks():
        await webhook.delete()
    answer = await stage.moderator.slash(QUAY, "persona mute", delete="everything")
    await said(answer, "2 could not be deleted: I lack Manage Messages there.")
    assert any("hears: one" in m["content"] for m in stage.sandbox.messages(QUAY))


async def test_members_may_not(stage):
    for command in ("persona mute", "persona unmute"):
        answer = await stage.member.slash(QUAY, command)
        assert answer.ephemeral and "Only moderators" in answer.message["content"]
    assert stage.store.mutes.of_guild(stage.sandbox.guild_id) == []
