"""Members who are blocked are not answered, and others only as often as their server allows."""

import asyncio
import time
from dataclasses import replace

import pytest

from bot.chat.message_reader import MessageReader
from bot.chat.places import channel_ref
from bot.chat.request import ChatRequestBuilder
from bot.guild_settings.definitions import LIMITS
from bot.guild_settings.store import SettingScope
from bot.moderation.limits import ReplyLimits
from bot.moderation.store import Block
from bot.platform.errors import RefusedError
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import errors_as_problems
from bot.safety.actions import DISCLOSURE
from bot.store import ALL_CHANNELS, Mute, Store, VoteCounts
from personas.errors import EngineBusyError
from sandbox.sandbox_errors import SandboxRefusal
from tests.bot.conftest import INN, QUAY, on_stage
from tests.bot.set_settings import set_limits
from tests.bot.test_card_commands import response_text
from tests.bot.test_direct_messages import chosen
from tests.fakes import until


async def asked(stage, channel, words, who=None):
    mark = stage.mark
    await (who or stage.member).say(channel, words)
    return (await stage.finished(channel, mark))["content"]


async def forgotten(stage):
    """Have the member's data erased, as they do themself."""
    response = await stage.member.slash(QUAY, "privacy forget")
    message = await response_text(response, "that still holds.")
    mark = stage.mark
    await stage.member.click(message, "Forget me")
    await stage.sees("Done: you have been forgotten", since=mark)


async def asked_for(stage, words):
    """The message of the reply to the member."""
    mark = stage.mark
    await stage.member.say(QUAY, words)
    return await stage.finished(QUAY, mark)


def passed(stage, seconds):
    """Let all replies so far be older by some seconds."""
    stage.store.blocks._db.write("update reply_attempts set at = at - :seconds", seconds=seconds)


def ids(stage):
    """The ids of the messages in the channel."""
    return [message["id"] for message in stage.sandbox.messages(QUAY)]


def had(stage, who):
    """The replies that count for a member, of any time."""
    return stage.store.reply_attempts.since(int(stage.sandbox.guild_id), int(who.id), 0.0).count


async def unanswered(stage, channel, words):
    """Say something, and see that no request follows it."""
    before = len(stage.engine.requests)
    await stage.member.say(channel, words)
    await asked(stage, channel, "and I?", stage.moderator)  # handled after it
    await asyncio.sleep(0.05)
    assert len(stage.engine.requests) == before + 1
    texts = [turn.text for turn in stage.engine.requests[-1].turns]
    assert all(words not in text for text in texts), "it is not even history"


async def moderated(stage, command, **options):
    answer = await stage.moderator.slash(QUAY, f"moderation {command}", **options)
    assert answer.ephemeral
    return answer.message["content"]


# ------------------------------------------------------------------------------------------- blocks


async def test_a_blocked_member_is_answered_by_nobody_and_told_in_private(stage):
    assert "cannot block yourself" in await moderated(stage, "block", member=stage.moderator.id)
    said = await moderated(stage, "block", member=stage.member.id)
    assert f"Blocked: <@{stage.member.id}> for all personas." in said
    for words in ("hello?", "@Understudy hello?"):
        await unanswered(stage, QUAY, words)
    refused = await stage.member.slash(QUAY, "chat", message="hello?")
    assert refused.ephemeral and "does not answer you here" in refused.message["content"]
    assert f"<@{stage.member.id}> for all personas" == await moderated(stage, "blocks")
    wrong = await moderated(stage, "unblock", member=stage.member.id, persona="oda")
    assert "There is no such block" in wrong and "for all personas" in wrong
    await moderated(stage, "block", member=stage.member.id, persona="ballast")
    await moderated(stage, "unblock", member=stage.member.id)  # all blocks of the member
    assert "Ballast hears: hello!" in await asked(stage, QUAY, "hello!")
    assert await moderated(stage, "blocks") == "Nobody is blocked."
    nobody = await moderated(stage, "unblock", member=stage.member.id)
    assert nobody.startswith(f"<@{stage.member.id}> is not blocked.")


async def test_who_is_blocked_ends_no_conversation_of_others(stage):
    await asked(stage, QUAY, "one", stage.moderator)
    await moderated(stage, "block", member=stage.member.id, persona="ballast")
    refused = await stage.member.slash(QUAY, "persona fresh")
    await until(lambda: "does not answer you here" in refused.text)
    assert refused.ephemeral
    await asked(stage, QUAY, "two", stage.moderator)
    assert "one" in [turn.text for turn in stage.engine.requests[-1].turns]


async def test_a_name_in_a_refusal_is_no_markdown_on_discord_and_plain_on_a_page(stage):
    rules = stage.client.services.reply_service.rules
    guild_id = int(stage.sandbox.guild_id)
    channel = stage.client.get_channel(int(stage.sandbox.channel(QUAY)["id"]))
    member = await channel.guild.fetch_member(int(stage.member.id))
    place = channel_ref(channel)
    ballast = stage.client.services.personas.get("ballast", guild_id)
    persona = replace(ballast, name="*B_all_ast*", tags=("NSFW",))
    stage.store.mutes.add(Mute(guild_id, ALL_CHANNELS, "ballast", 5, 1.0))
    stage.store.blocks.add(Block(guild_id, int(stage.member.id), "ballast", 5, 1.0))
    for refuse in (
        lambda: rules.require_unmuted(persona, place),
        lambda: rules.require_may_talk([persona], place, member),
        lambda: rules.age.require(persona, channel),
        lambda: rules.age.require(persona, None),
        lambda: rules.age.set(persona, guild_id, is_restricted=False),
    ):
        with pytest.raises(RefusedError) as refused:
            refuse()
        assert r"\*B\_all\_ast\*" in refused.value.message
        with pytest.raises(Problem) as shown, errors_as_problems("conflict"):
            refuse()
        assert "*B_all_ast*" in shown.value.text
    set_limits(stage.store, guild_id, ReplyLimits(per_day=1))
    _, notice = rules.within_limits([ballast, persona], place, member)
    assert r"\*B\_all\_ast\*" in notice.message


async def test_buttons_of_earlier_replies_do_not_get_round_a_block(stage):
    mark = stage.mark
    await stage.member.say(QUAY, "hello")
    reply = await stage.finished(QUAY, mark)
    await moderated(stage, "block", member=stage.member.id)
    for label in ("Reply", "Regenerate"):
        mark = stage.mark
        await stage.member.click(reply, label)
        refused = await stage.sees("does not answer you", "message", mark)
        assert refused["flags"] & 64, "for them alone"
    assert len(stage.engine.requests) == 1


async def test_a_blocked_member_votes_no_more_but_may_take_a_vote_back(stage):
    await asked(stage, QUAY, "hello")
    reply = stage.sandbox.messages(QUAY)[-1]
    event = stage.store.replies.of_message(int(reply["id"])).event_id
    await stage.member.click(reply, f"vote-1:{event}")
    await moderated(stage, "block", member=stage.member.id)
    up = await stage.member.click(reply, f"vote+1:{event}")
    assert up.ephemeral and "does not answer you here" in up.message["content"]
    assert stage.store.replies.votes(event) == VoteCounts(0, 1)
    await stage.member.click(reply, f"vote-1:{event}")
    assert stage.store.replies.votes(event) == VoteCounts(0, 0)
    down = await stage.member.click(reply, f"vote-1:{event}")
    assert down.ephemeral and stage.store.replies.votes(event) == VoteCounts(0, 0)


async def test_one_persona_alone_can_refuse_a_member_and_a_block_survives_a_restart(tmp_path):
    async with on_stage(tmp_path) as stage:
        await moderated(stage, "block", member=stage.member.id, persona="ballast")
        await unanswered(stage, QUAY, "hello?")
        assert "Oda Marrow hears: hello" in await asked(stage, INN, "hello")
    async with on_stage(tmp_path) as stage:
        await unanswered(stage, QUAY, "still?")


async def test_a_block_stops_the_reply_that_is_being_written(stage):
    stage.engine.free.clear()
    await stage.member.say(QUAY, "a long story")
    running = stage.client.services.reply_service.running
    await until(lambda: any(reply.message.generated for reply in running.values()))
    await moderated(stage, "block", member=stage.member.id)
    await stage.sees("· stopped")


async def test_members_may_not(stage):
    for command in ("block", "unblock", "blocks", "limits"):
        options = {"member": stage.moderator.id} if command in ("block", "unblock") else {}
        with pytest.raises(SandboxRefusal):
            await stage.member.slash(QUAY, f"moderation {command}", **options)


async def test_who_has_their_data_erased_stays_blocked_and_a_moderator_can_lift_it(tmp_path):
    async with on_stage(tmp_path) as stage:
        await moderated(stage, "block", member=stage.member.id)
        await moderated(stage, "block", member=stage.member.id, persona="oda")
        await forgotten(stage)
        assert int(stage.member.id) not in stage.store.erasure.user_ids()
        (oldest, _) = (await moderated(stage, "blocks")).splitlines()
        assert oldest == "a member who had their data erased for all personas"
        await forgotten(stage)
        await unanswered(stage, QUAY, "and now?")  # the sandbox keeps who writes again
    async with on_stage(tmp_path) as stage:
        await unanswered(stage, QUAY, "and after a restart?")
        wrong = await moderated(stage, "unblock", member=stage.member.id, persona="ballast")
        assert f"Blocked: <@{stage.member.id}> for all personas; " in wrong
        await moderated(stage, "block", member=stage.member.id, persona="oda")
        listed = await moderated(stage, "blocks")
        assert listed.count("\n") == 1 and f"<@{stage.member.id}> for Oda Marrow" in listed
        await moderated(stage, "unblock", member=stage.member.id)
        assert await moderated(stage, "blocks") == "Nobody is blocked."
        await asked(stage, QUAY, "at last?")


async def test_of_an_erased_moderators_block_and_the_member_what_is_left_names_nobody(stage):
    await moderated(stage, "block", member=stage.member.id)
    await asked(stage, QUAY, "hello", stage.moderator)
    erasure = stage.store.erasure
    member, moderator = int(stage.member.id), int(stage.moderator.id)
    assert {member, moderator} <= erasure.user_ids()
    for who in (member, moderator):
        erasure.erase(who, time.time() + 1, str)
    (block,) = stage.store.blocks.of_guild(int(stage.sandbox.guild_id))
    assert block.blocked_by == 0 and block.user_id < 0
    assert not {member, moderator, *stage.store.erasure.user_ids()} & {block.user_id}
    (attempt,) = stage.store.blocks._db.read("select * from reply_attempts")
    assert attempt["user_id"] < 0 and attempt["event_id"] is None
    # Their own export has both: they are asked for by the id.
    assert [row["of_you"] for row in erasure.rows_of(member)["blocks"]] == [1]
    assert len(erasure.rows_of(moderator)["reply_attempts"]) == 1


# ------------------------------------------------------------------------------------------- limits


async def test_a_member_gets_so_many_replies_a_day_and_is_told_once_when_it_goes_on(tmp_path):
    async with on_stage(tmp_path) as stage:
        shown = await moderated(stage, "limits")
        assert shown == "Replies to a member have no limit here."
        set_to = await moderated(stage, "limits", per_day=2)
        assert "2 a day" in set_to and "Moderators have no limit." in set_to
        await asked(stage, QUAY, "one")
        await asked(stage, INN, "two")
        mark = stage.mark
        await stage.member.say(QUAY, "three")
        notice = await stage.sees("You have had the 2 replies", "message", mark)
        assert "answer you again <t:" in notice["content"]
        until_s = int(notice["content"].partition("<t:")[2].partition(":")[0])
        assert 0 < until_s - time.time() <= 86_400 and until_s % 86_400 == 0, "midnight in UTC"
        await stage.member.say(QUAY, "four")
        refused = await stage.member.slash(QUAY, "chat", message="five")
        assert refused.ephemeral and "You have had the 2 replies" in refused.message["content"]
        await asked(stage, QUAY, "a moderator goes on", stage.moderator)
        await asked(stage, QUAY, "and on", stage.moderator)
        await asked(stage, QUAY, "and on and on", stage.moderator)
        texts = [message["content"] for message in stage.sandbox.messages(QUAY)]
        assert sum("You have had the 2 replies" in text for text in texts) == 1
    async with on_stage(tmp_path) as stage:
        mark = stage.mark
        await stage.member.say(QUAY, "after a restart")
        await stage.sees("You have had the 2 replies", "message", mark)
        assert stage.engine.requests == []
        await moderated(stage, "limits", per_day=0)
        await asked(stage, QUAY, "no limit any more")


async def test_another_limit_and_one_reached_again_are_told_once_each(stage):
    day = "You have had the 1 reply"
    pause = "There are 30 seconds between two replies"

    async def told(notice):
        mark = stage.mark
        await stage.member.say(QUAY, "hello?")
        await stage.sees(notice, "message", mark)
        await unanswered(stage, QUAY, "hello again?")

    await moderated(stage, "limits", per_day=1)
    await asked(stage, QUAY, "one")
    await told(day)
    await moderated(stage, "limits", per_day=0, cooldown=30)
    await told(pause)
    passed(stage, 30)
    await asked(stage, QUAY, "two")
    await told(pause)
    await moderated(stage, "limits", per_day=1, cooldown=0)
    await told(day)
    await moderated(stage, "limits", per_day=0)
    await asked(stage, QUAY, "three")
    await moderated(stage, "limits", per_day=1)
    await told(day)
    await moderated(stage, "limits", per_day=2)
    await told("You have had the 2 replies")
    texts = [message["content"] for message in stage.sandbox.messages(QUAY)]
    assert [sum(notice in text for text in texts) for notice in (day, pause)] == [3, 2]


async def test_a_reply_made_again_counts_and_deleting_the_question_gives_none_back(stage):
    await moderated(stage, "limits", per_day=2)
    mark = stage.mark
    said = await stage.member.say(QUAY, "one")
    reply = await stage.finished(QUAY, mark)
    mark = stage.mark
    await stage.member.click(reply, "Regenerate")
    await stage.finished(QUAY, mark)
    mark = stage.mark
    await stage.member.click(reply, "Regenerate")
    await stage.sees("You have had the 2 replies", "message", mark)
    await stage.member.delete(said)
    mark = stage.mark
    await stage.member.say(QUAY, "two")
    await stage.sees("You have had the 2 replies", "message", mark)


async def test_an_erasure_gives_no_further_replies(stage):
    await moderated(stage, "limits", per_day=1, cooldown=30)
    await asked(stage, QUAY, "one")
    await forgotten(stage)
    refused = await stage.member.slash(QUAY, "chat", message="two")
    assert "You have had the 1 reply" in refused.message["content"]
    await moderated(stage, "limits", per_day=0)
    refused = await stage.member.slash(QUAY, "chat", message="two")
    assert "There are 30 seconds between two replies" in refused.message["content"]


async def test_of_an_erased_members_question_others_attempts_keep_nothing(stage):
    await stage.member.say(QUAY, "one")
    reply = await stage.finished(QUAY, 0)
    mark = stage.mark
    await stage.moderator.click(reply, "Regenerate")
    await stage.finished(QUAY, mark)
    guild_id, moderator_id = int(stage.sandbox.guild_id), int(stage.moderator.id)
    events = "select event_id from reply_attempts where user_id = :user"
    rows = stage.store.reply_attempts._db
    assert rows.column(int, events, user=moderator_id) == [
        int(stage.sandbox.messages(QUAY)[-2]["id"])
    ]
    await forgotten(stage)
    assert rows.read(events, user=moderator_id) == [{"event_id": None}]
    assert stage.store.reply_attempts.since(guild_id, moderator_id, 0.0).count == 1


async def test_a_question_is_taken_back_where_the_last_reply_is_gone_meanwhile(stage, monkeypatch):
    await moderated(stage, "limits", per_day=1)
    go_on = asyncio.Event()
    read = MessageReader.read_interaction

    async def read_later(*args):
        await go_on.wait()
        return await read(*args)

    monkeypatch.setattr(MessageReader, "read_interaction", read_later)
    mark = stage.mark
    await stage.member.slash(QUAY, "chat", message="the second one")
    question = await stage.sees("the second one", "message", mark)
    await asked(stage, QUAY, "the first one")
    go_on.set()
    await stage.sees("You have had the 1 reply", "message", mark)
    await until(lambda: question["id"] not in ids(stage))
    assert had(stage, stage.member) == 1 and len(stage.engine.requests) == 1


async def test_a_cooldown_ends_and_moderators_can_have_it_too(stage):
    await moderated(stage, "limits", cooldown=30, moderators_exempt=False)
    await asked(stage, QUAY, "one", stage.moderator)
    mark = stage.mark
    await stage.moderator.say(QUAY, "two")
    await stage.sees("There are 30 seconds between two replies", "message", mark)
    passed(stage, 30)
    await asked(stage, QUAY, "three", stage.moderator)


async def test_an_old_reply_made_again_counts_from_then_on(stage):
    reply = await asked_for(stage, "one")
    passed(stage, 26 * 3600)
    await moderated(stage, "limits", per_day=2, cooldown=60)
    mark = stage.mark
    await stage.member.click(reply, "Regenerate")
    await stage.finished(QUAY, mark)
    for again in ("There are 60 seconds between two replies", "You have had the 2 replies"):
        mark = stage.mark
        await stage.member.click(reply, "Regenerate")
        await stage.sees(again, "message", mark)
        passed(stage, 60)
        if "60 seconds" in again:
            await stage.member.click(reply, "Regenerate")
            await stage.finished(QUAY, mark)
    assert len(stage.engine.requests) == 3


async def test_a_reply_without_training_counts_and_one_that_fails_does_not(stage):
    reply = await asked_for(stage, "one")
    await moderated(stage, "limits", per_day=2, cooldown=30)
    passed(stage, 30)
    stage.engine.failure = EngineBusyError("9 replies are waiting.", "Try again in a minute.")
    failed = await stage.member.context(QUAY, "Reply without training", reply)
    await until(lambda: "9 replies are waiting." in failed.text)
    assert had(stage, stage.member) == 1
    stage.engine.failure = None
    shown = await stage.member.context(QUAY, "Reply without training", reply)
    await until(lambda: "without training" in shown.text)
    refused = await stage.member.context(QUAY, "Reply without training", reply)
    await until(lambda: "You have had the 2 replies" in refused.text)
    await moderated(stage, "limits", per_day=0)
    refused = await stage.member.slash(QUAY, "chat", message="two")
    assert "There are 30 seconds between two replies" in refused.message["content"]


async def test_of_two_made_again_at_once_only_one_has_the_last_reply(stage, monkeypatch):
    replies = [await asked_for(stage, words) for words in ("one", "two")]
    await moderated(stage, "limits", per_day=3)
    both = asyncio.Barrier(2)
    build = ChatRequestBuilder.request

    async def build_beside_the_other(*args, **options):
        await both.wait()
        return await build(*args, **options)

    monkeypatch.setattr(ChatRequestBuilder, "request", build_beside_the_other)
    mark = stage.mark
    await asyncio.gather(*(stage.member.click(reply, "Regenerate") for reply in replies))
    await stage.sees("You have had the 3 replies", "message", mark)
    await until(lambda: not stage.client.services.reply_service.unfinished._counts)
    assert had(stage, stage.member) == 3


async def test_an_answer_that_a_proxys_copy_replaces_does_not_count(stage):
    await moderated(stage, "limits", cooldown=30)
    proxy = stage.sandbox.proxy_bot()
    mark = stage.mark
    said = await stage.member.say(QUAY, "w: how deep is it?")
    assert DISCLOSURE in (await stage.finished(QUAY, mark))["content"]
    mark = stage.mark
    copy = proxy.copy(said, "Wren", "how deep is it?")
    proxy.delete(said)
    assert DISCLOSURE in (await stage.finished(QUAY, mark))["content"], "nobody sees the first"
    assert stage.store.replies.get(int(copy["id"])) and not stage.store.replies.get(int(said["id"]))
    guild_id = int(stage.sandbox.guild_id)
    assert stage.store.reply_attempts.since(guild_id, int(stage.member.id), 0.0).count == 1


# --------------------------------------------------------------------------------- direct messages


async def heard_in(stage, channel, words, mark):
    await stage.sandbox.wait_for(
        "message",
        lambda message: message["channel_id"] == channel["id"] and words in message["content"],
        since=mark,
    )


async def test_whom_the_operator_blocks_is_not_answered_in_direct_messages(stage):
    channel = await stage.member.dm()
    moderation = stage.client.services.moderation
    member = await stage.client.fetch_user(int(stage.member.id))
    moderation.block(0, member, None, by=0)
    mark = stage.mark
    await stage.member.say(channel, "hello?")
    menu = await stage.sandbox.wait_for(
        "message", lambda m: m["channel_id"] == channel["id"] and m["components"], since=mark
    )
    refused = await stage.member.select(menu, "choose-persona", ["oda"])
    assert refused.message["content"].startswith(
        "The operator has decided that Oda Marrow does not answer you in direct messages"
    )
    assert stage.store.channels.get(0, int(channel["id"])) is None
    moderation.unblock(0, member.id, None, by=0)
    await stage.member.select(menu, "choose-persona", ["oda"])
    await until(lambda: len(stage.engine.requests) == 1)
    moderation.block(0, member, None, by=0)
    await stage.member.say(channel, "and you?")
    refused = await stage.member.slash(channel, "chat", message="and you?")
    assert "does not answer you in direct messages" in refused.message["content"]
    assert "Ballast hears: hello!" in await asked(stage, QUAY, "hello!"), "on servers, they are"
    assert len(stage.engine.requests) == 2


async def test_the_operators_limits_hold_in_direct_messages(stage):
    channel = await chosen(stage)
    stage.client.services.guild_settings.change(
        LIMITS, SettingScope(0), {"per_day": 1, "cooldown_s": 60}, by=0
    )
    mark = stage.mark
    await stage.member.say(channel, "two")
    text = "You have had the 1 reply that everybody gets each day in direct messages"
    await heard_in(stage, channel, text, mark)
    stage.client.services.guild_settings.change(LIMITS, SettingScope(0), {"per_day": None}, by=0)
    refused = await stage.member.slash(channel, "chat", message="three")
    assert "60 seconds between two replies to you in direct messages" in refused.message["content"]
    assert len(stage.engine.requests) == 1
    await asked(stage, QUAY, "four")


def test_counting_a_members_replies_is_fast_in_a_large_server(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as store:
        store.replies._db.write(
            """insert into reply_attempts (guild_id, user_id, event_id, at)
            with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000)
            select 1, i % 500, i, i from n"""
        )
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        store.replies._db._raw.set_progress_handler(count, 1)
        recent = store.reply_attempts.since(1, 7, 90_000.0)
        assert recent.count == 20 and 0 < steps < 2_000, "not a step of SQLite's for each row"
