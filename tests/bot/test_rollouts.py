"""Rolling out: a share or a channel first, rolled back automatically when members fare worse, and
moderators' word.
"""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from discord import app_commands

from bot.store import NewRollout
from bot.versions.statistics.sequential_test import E_VALUE_THRESHOLD
from personas.errors import AdapterError
from sandbox import SandboxRefusal
from tests.bot.conftest import INN, OFFICE, QUAY, on_stage
from tests.bot.version_rows import dislike, install, reply
from tests.fakes import until


async def response_text(who, place, command, /, **options):
    """What a command answers, and the whole answer."""
    answer = await who.slash(place, command, **options)
    await until(lambda: answer.message and not answer.message["flags"] & 128)
    return answer.message["content"], answer


async def spoken(stage, channel=QUAY, words="hello"):
    """A reply, and its event."""
    mark = stage.mark
    await stage.member.say(channel, words)
    message = await stage.finished(channel, mark)
    row = stage.store._connection.first(
        "select event_id as id from reply_parts where message_id = " + message["id"]
    )
    await until(lambda: stage.store.replies.get(row["id"]).state == "done")
    return message, row["id"]


def running(stage, persona="ballast"):
    return stage.store.rollouts.running(persona, time.time())


def version_of(message):
    return message["content"].rpartition("AI-written · ")[2].splitlines()[0].split(" ·")[0]


async def test_a_share_of_the_replies_is_made_by_the_new_version_and_stays_with_it(stage):
    install(stage.store)
    words, answer = await response_text(stage.moderator, QUAY, "finetune rollout start", share=50)
    assert "**v1** of **Ballast** makes 50 %" in words and "in this server" in words
    assert answer.ephemeral
    assert stage.engine.loaded[0].name == "ballast-v1", "a damaged version never gets to speak"
    (rollout,) = running(stage)
    seen = {}
    while len(seen) < 2:
        message, event = await spoken(stage)
        expected = "v1" if rollout.draws(event) else "base model"
        assert (
            version_of(message) == expected
            and stage.store.replies.get(event).rollout == rollout.seq
        )
        seen[expected] = message, event
    turns = stage.engine.requests[-1].turns
    assert sum(turn.by_persona for turn in turns) >= 1, "each is shown the words of both"
    for version, (message, event) in seen.items():
        mark = stage.mark
        await stage.member.click(message, f"again:{event}")
        assert version_of(await stage.finished(QUAY, mark)) == version
    assert version_of((await spoken(stage, INN))[0]) == "base model", (
        "other personas have nothing to do with it"
    )

    await stage.moderator.click(answer.message, "Promote")
    await stage.sees("v1 of **Ballast** is live")
    message, event = seen["base model"]
    mark = stage.mark
    await stage.member.click(message, f"again:{event}")
    assert version_of(await stage.finished(QUAY, mark)) == "v1", (
        "promoted, it makes anew what it did not make"
    )
    assert (
        stage.store.rollouts.get(rollout.seq).ending == "promoted" and running(stage)[0].is_promoted
    )


async def test_one_channel_and_its_threads_get_it_first(stage):
    install(stage.store)
    await response_text(stage.moderator, OFFICE, "persona set", persona="ballast")
    words, _ = await response_text(stage.moderator, QUAY, "finetune rollout start", channel=OFFICE)
    assert f"makes the replies in <#{stage.sandbox.channel(OFFICE)['id']}> from now on" in words
    thread = await stage.member.thread(OFFICE, "cranes")
    for channel, version in ((QUAY, "base model"), (OFFICE, "v1")):
        assert version_of((await spoken(stage, channel))[0]) == version
    mark = stage.mark
    await stage.member.say(thread, "@Understudy hello")
    received = await stage.sandbox.wait_for(
        "edit", lambda m: "AI-written" in m["content"], timeout_s=8.0, since=mark
    )
    assert version_of(received) == "v1"


async def test_a_rollout_is_stopped_by_command_or_button_and_reported_by_status(stage):
    install(stage.store)
    assert (
        "Nothing is rolled out"
        in (await response_text(stage.moderator, QUAY, "finetune rollout status"))[0]
    )
    _, answer = await response_text(stage.moderator, QUAY, "finetune rollout start", share=99)
    _, event = await spoken(stage)
    words, shown = await response_text(stage.moderator, QUAY, "finetune rollout status")
    assert "**Ballast v1** makes 99 %" in words and f"at {E_VALUE_THRESHOLD:.0f} " in words
    assert shown.ephemeral and "1 replies" in words
    assert (
        "v1 is being rolled out"
        in (await response_text(stage.moderator, QUAY, "finetune rollout start", share=10))[0]
    )
    await stage.moderator.click(answer.message, "Stop")
    await until(lambda: not running(stage))
    message, event = await spoken(stage)
    assert version_of(message) == "base model" and stage.store.replies.get(event).rollout is None
    words, _ = await response_text(stage.moderator, QUAY, "finetune rollout stop")
    assert "No version of Ballast" in words
    await response_text(stage.moderator, QUAY, "finetune rollout start", share=10)
    assert (
        "v1 of **Ballast** is no longer rolled out"
        in (await response_text(stage.moderator, QUAY, "finetune rollout stop"))[0]
    )
    assert [
        row.ending
        for row in stage.store.rollouts.of_persona("ballast", int(stage.sandbox.guild_id))
    ] == [
        "stopped",
        "stopped",
    ]


async def test_what_cannot_be_rolled_out_is_refused(stage):
    for options, words in (
        ({}, "Name a `share`"),
        ({"share": 20}, "There is no version that is not live"),
        ({"share": 20, "version": "v7"}, "no version v7"),
    ):
        assert (
            words
            in (await response_text(stage.moderator, QUAY, "finetune rollout start", **options))[0]
        )
    install(stage.store)
    elsewhere = (
        await response_text(
            stage.moderator, QUAY, "finetune rollout start", channel=INN, persona="ballast"
        )
    )[0]
    assert "Ballast does not live in #" in elsewhere and running(stage) == []
    stage.engine.failure = AdapterError("The adapter is damaged.", "Train it again.")
    assert (
        "damaged"
        in (await response_text(stage.moderator, QUAY, "finetune rollout start", share=20))[0]
    )
    assert running(stage) == []
    for command in ("rollout start", "rollout stop", "rollout status", "history"):
        with pytest.raises(SandboxRefusal, match="permission"):
            await stage.member.slash(QUAY, f"finetune {command}")


async def test_the_code_refuses_a_member_where_the_server_opened_the_command_to_all(stage):
    group = stage.client.tree.get_command("finetune")
    commands = [group.get_command("rollout").get_command("start"), group.get_command("history")]
    for who, refusal in (
        (stage.member, pytest.raises(app_commands.CheckFailure, match="Only moderators")),
        (stage.moderator, None),
    ):
        person = await stage.client.guilds[0].fetch_member(int(who.id))
        for command in commands:
            with refusal or nullcontext():
                asked = SimpleNamespace(
                    user=person,
                    client=stage.client,
                    guild_id=stage.sandbox.guild_id,
                    command=command,
                )
                assert await command._check_can_run(asked)


async def test_versions_that_can_be_rolled_out_are_offered(stage):
    for _ in range(2):
        install(stage.store)
    stage.store.versions.promote("ballast", "v1", 7, 1.0)
    choices = await stage.moderator.autocomplete(
        QUAY, "finetune rollout start", "version", version="v"
    )
    assert [choice["value"] for choice in choices] == ["v2"]
    assert (
        await stage.moderator.autocomplete(OFFICE, "finetune rollout start", "version", version="v")
        == []
    )


async def test_members_who_fare_worse_have_it_taken_back_and_a_moderator_may_undo_that(stage):
    install(stage.store)
    await response_text(stage.moderator, QUAY, "finetune rollout start", share=20)
    (rollout,) = running(stage)
    dislike(stage.store, rollout, 6, at=time.time())
    assert running(stage) == [rollout], "nothing has been looked at"
    message, event = await spoken(stage)
    await stage.member.click(message, f"vote-1:{event}")
    said = await stage.sees("**v1** of **Ballast** was rolled back automatically: the base model")
    assert "more 👎 (v1: " in said["content"] and "5% at most" in said["content"]
    assert said["channel_id"] == stage.sandbox.channel(QUAY)["id"]
    assert running(stage) == [] and stage.store.rollouts.unannounced() == []
    assert version_of((await spoken(stage))[0]) == "base model"

    refused = await stage.member.click(said, "Undo")
    assert "Only moderators" in refused.message["content"] and running(stage) == []
    await stage.moderator.click(said, "Undo")
    await stage.sees("**v1** of **Ballast** makes 20 % of the replies")
    (again,) = running(stage)
    assert again.seq != rollout.seq and again.share == 20
    stage.store.rollouts.end(again.seq, "stopped", time.time(), 7)
    await stage.moderator.click(said, "Undo")
    await stage.sees("More has happened since")
    assert running(stage) == [], "it is undone once"
    await response_text(stage.moderator, QUAY, "finetune rollout start", share=20)
    (again,) = running(stage)
    mark = stage.mark
    message, event = await spoken(stage)
    await stage.member.click(message, f"vote-1:{event}")
    await stage.client.get_cog("RolloutCog")._monitor.evaluate("ballast")
    assert running(stage) == [again], "what was counted before counts no more"
    assert not [
        m for kind, m in stage.sandbox.events[mark:] if "was taken back" in m.get("content", "")
    ]


async def test_a_promoted_version_that_members_interrupt_more_often_is_rolled_back(stage):
    now = time.time()
    guild = int(stage.sandbox.guild_id)
    for member in range(1, 13):
        for ago in range(10, 16):
            reply(stage.store, at=now - ago, asked_by=member, guild=guild)
    install(stage.store)
    answer = await stage.moderator.slash(QUAY, "finetune promote")
    await until(
        lambda: answer.message and "is live from the next reply" in answer.message["content"]
    )
    now = time.time()
    for member in range(1, 13):
        for _ in range(6):
            event = reply(stage.store, at=now, version="v1", asked_by=member, guild=guild)
            stage.store.replies.record_interruption(event, member, now)
    message, event = await spoken(stage)
    mark = stage.mark
    await stage.member.click(message, f"again:{event}")
    text = "**v1** of **Ballast** was rolled back automatically: the base model"
    said = await stage.sees(text, since=mark)
    assert "regenerated (v1: 73 of 73; the base model: 0 of 72)" in said["content"]
    assert stage.live("ballast") is None
    await stage.moderator.click(said, "Undo")
    await stage.sees("v1 of **Ballast** is live", since=mark)
    await stage.client.get_cog("RolloutCog")._monitor.evaluate("ballast")
    assert stage.live("ballast") == "v1", "the evidence begins anew"


async def test_what_was_taken_back_before_a_kill_is_reported_after_it_and_once(tmp_path):
    async with on_stage(tmp_path) as stage:
        install(stage.store)
        await response_text(stage.moderator, QUAY, "finetune rollout start", share=20)
        (rollout,) = running(stage)
        stage.store.rollouts.revert(
            rollout, time.time(), "more 👎 (so many)"
        )  # and then the power failed
    async with on_stage(tmp_path) as stage:
        await stage.sees("was rolled back automatically")
        await until(lambda: not stage.store.rollouts.unannounced())
    async with on_stage(tmp_path) as stage:
        await spoken(stage)
        said = [
            m
            for m in stage.sandbox.messages(QUAY)
            if "was rolled back automatically" in m["content"]
        ]
        assert len(said) == 1
        await stage.moderator.click(said[0], "Undo")
        await until(lambda: running(stage))


async def test_evidence_that_a_kill_left_unread_is_read_at_the_start(tmp_path):
    async with on_stage(tmp_path) as stage:
        install(stage.store)
        await response_text(stage.moderator, QUAY, "finetune rollout start", share=20)
        dislike(stage.store, running(stage)[0], 6, at=time.time())
    async with on_stage(tmp_path) as stage:
        await stage.sees("was rolled back automatically")


async def test_an_end_that_cannot_be_reported_keeps_nothing_else(stage):
    install(stage.store)
    guild = int(stage.sandbox.guild_id)
    gone = stage.store.rollouts.start(NewRollout("ballast", "v1", guild, 404, 7, 20), time.time())
    stage.store.rollouts.revert(gone, time.time(), "more 👎")
    await stage.client.get_cog("RolloutCog")._monitor.announce()
    assert stage.store.rollouts.unannounced() == []


async def test_another_version_that_goes_live_ends_the_rollout_and_that_is_said(stage):
    for _ in range(2):
        install(stage.store)
    await response_text(stage.moderator, QUAY, "finetune rollout start", share=20, version="v1")
    await response_text(stage.moderator, QUAY, "finetune promote", version="v2")
    await stage.sees("v1 of **Ballast** is no longer rolled out: another version")


async def test_stopping_counts_for_who_asked_and_not_for_a_moderator(stage):
    install(stage.store)
    await response_text(stage.moderator, QUAY, "finetune rollout start", share=50)
    for who, counts in ((stage.moderator, False), (stage.member, True)):
        stage.engine.free.clear()
        mark = stage.mark
        await stage.member.say(QUAY, "go on")
        growing = await stage.sees("…", kind="message", since=mark, by="Ballast")
        await until(lambda: stage.client.services.reply_service.running)
        await who.click(growing, "Stop")
        await stage.sees("stopped", kind="edit", since=mark)
        event = stage.store._connection.first("select max(event_id) as id from replies")["id"]
        assert (stage.store.replies.get(event).interrupted_at is not None) == counts
        stage.engine.free.set()


async def test_a_reply_that_a_crash_cut_off_is_finished_by_the_version_that_was_drawn(tmp_path):
    asked = {}
    async with on_stage(tmp_path) as stage:
        install(stage.store)
        await response_text(stage.moderator, QUAY, "finetune rollout start", share=50)
        (rollout,) = running(stage)
        stage.engine.free.clear()
        while len(set(asked.values())) < 2:
            message = await stage.member.say(QUAY, "are you there?")
            await until(lambda event=int(message["id"]): stage.store.replies.get(event))
            asked[int(message["id"])] = "v1" if rollout.draws(int(message["id"])) else None
        await until(lambda: len(stage.store.replies.unfinished()) == len(asked))
    async with on_stage(tmp_path) as stage:
        await until(lambda: not stage.store.replies.unfinished())
        assert {event: stage.store.replies.get(event).adapter_version for event in asked} == asked
        assert {stage.store.replies.get(event).rollout for event in asked} == {rollout.seq}
