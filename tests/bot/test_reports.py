"""Members report replies of personas; moderators see which and why, not who."""

import time
from dataclasses import replace

import discord
import pytest

from bot.demo_guild import OWNER
from bot.platform.clock import SystemClock
from bot.platform.discord_kit.ui import button_view
from bot.platform.localisation import LANGUAGES, override
from bot.platform.messages import MAX_MESSAGE_CHARS
from bot.privacy.retention import Retention, RetentionPeriods
from bot.privacy.texts import translate
from bot.reports.actions import MAX_NOTE_CHARS, REASONS, REPORT_DAYS
from bot.reports.discord import ReasonSelect
from bot.reports.store import Report
from bot.store import Store
from sandbox.guild_seed import DEFAULT_BOT_PERMISSIONS, Permission
from sandbox.sandbox_errors import SandboxRefusal
from tests.bot.conftest import OFFICE, QUAY, on_stage
from tests.bot.test_direct_messages import chosen
from tests.fakes import until

MENU = "Report this reply"


async def asked(stage, words="hello", channel=QUAY, who=None):
    mark = stage.mark
    await (who or stage.member).say(channel, words)
    return await stage.finished(channel, mark)


async def opened(stage, reply, who=None):
    """The form for a report of a reply."""
    answer = await (who or stage.member).context(QUAY, MENU, reply)
    await until(lambda: answer.modal is not None or answer.message)
    return answer


async def reported(stage, reply, reason="hateful", who=None, **fields):
    """Report a reply; the answer that the member sees alone."""
    who = who or stage.member
    form = await opened(stage, reply, who)
    intro, menu, _ = form.modal["components"]
    assert "not who reported it" in intro["content"]
    options = menu["component"]["options"]
    assert {option["value"] for option in options} == set(REASONS)
    answer = await who.submit(form, reason=[reason], **fields)
    assert answer.ephemeral and "Thank you." in answer.text, answer.message
    return answer


async def refused(stage, reply, words, who=None):
    answer = await (who or stage.member).context(QUAY, MENU, reply)
    assert answer.ephemeral and words in answer.message["content"], answer.message


async def listed(stage, **options):
    answer = await stage.moderator.slash(QUAY, "moderation reports", **options)
    assert answer.ephemeral
    return answer.message["content"]


def stored(stage):
    """The first report of each reported reply."""
    return stage.store.reports.latest(int(stage.sandbox.guild_id), 100)


async def test_a_report_is_confirmed_in_private_and_listed_without_its_member(tmp_path):
    async with on_stage(tmp_path) as stage:
        assert await listed(stage) == "No reply is reported."
        reply = await asked(stage, "a secret question")
        await reported(stage, reply)
        await reported(stage, reply, "private", stage.moderator)
        (report,) = stored(stage)
        assert (report.reason, report.persona_id) == ("hateful", "ballast")
        assert stage.store.reports.reasons(report.event_id) == {"hateful": 1, "private": 1}
    async with on_stage(tmp_path) as stage:
        text = await listed(stage)
        assert text.startswith(
            f"**{report.seq}** · <t:{int(report.at)}:R> · **Ballast** (base model)"
        )
        assert "hateful or harassing, private details of somebody" in text
        place = f"{stage.sandbox.guild_id}/{stage.sandbox.channel(QUAY)['id']}/{reply['id']}"
        assert f"https://discord.com/channels/{place}" in text
        assert "secret" not in text and str(stage.member.id) not in text
        assert "2 reports of that reply" in await listed(stage, done=report.seq)
        assert await listed(stage) == "No reply is reported."
        assert "There is no report" in await listed(stage, done=report.seq)


async def test_with_an_audit_channel_moderators_read_it_there_and_it_may_be_broken(stage, caplog):
    office = stage.sandbox.channel(OFFICE)["id"]
    await stage.moderator.slash(QUAY, "moderation audit", channel=office)
    mark = stage.mark
    reply = await asked(stage)
    await reported(stage, reply, "false")
    words = "Report 1 · **Ballast** (base model): false, and it matters."
    line = await stage.sees(words, "message", mark)
    assert line["channel_id"] == office and reply["id"] in line["content"]
    assert str(stage.member.id) not in line["content"]
    stage.sandbox.set_bot_permissions(DEFAULT_BOT_PERMISSIONS & ~Permission.VIEW_CHANNEL)
    guild = stage.client.get_guild(stage.sandbox.guild_id)
    await until(lambda: not guild.me.guild_permissions.view_channel)
    await reported(stage, reply, "other", stage.moderator)
    (report,) = stored(stage)
    assert stage.store.reports.reasons(report.event_id) == {"false": 1, "other": 1}
    assert "lacks a line: I lack the permission" in caplog.text
    stage.sandbox.set_bot_permissions(DEFAULT_BOT_PERMISSIONS)
    await until(lambda: guild.me.guild_permissions.view_channel)
    mark = stage.mark
    await listed(stage, done=1)
    await stage.sees("dealt with report 1", "message", mark)


async def test_a_member_reports_a_reply_once_and_few_in_an_hour(stage):
    reply = await asked(stage)
    first = await opened(stage, reply)
    await reported(stage, reply)
    await refused(stage, reply, "You have reported this reply.")
    late = await stage.member.submit(first, reason="other")  # the form from before
    assert late.text.startswith("You have reported this reply.") and not late.message["components"]
    assert len(stored(stage)) == 1
    for _ in range(4):
        await reported(stage, await asked(stage))
    last = await asked(stage)
    await refused(stage, last, "You have reported 5 replies within an hour.")
    await reported(stage, last, who=stage.moderator)
    stage.store.reports._db.write("update reports set at = at - 3600")
    await reported(stage, last)


async def test_only_replies_of_personas_on_the_server_can_be_reported(stage):
    said = await stage.member.say(QUAY, "@Someone hello")
    await refused(stage, said, "This is no reply of a persona")
    channel = await chosen(stage)
    reply = await stage.sandbox.wait_for(
        "edit",
        lambda one: one["channel_id"] == channel["id"] and "AI-written" in one["content"],
        since=0,
    )
    with pytest.raises(SandboxRefusal):
        await stage.member.context(channel, MENU, reply)
    assert stored(stage) == []


async def test_a_note_goes_to_moderators_who_see_the_channel_and_not_into_the_audit_channel(stage):
    office = stage.sandbox.channel(OFFICE)["id"]
    await stage.moderator.slash(QUAY, "moderation audit", channel=office)
    mark = stage.mark
    reply = await asked(stage)
    note = "It is **about me**.\n<@1> https://example.org/x"
    await reported(stage, reply, note=f"  {note} ")
    line = await stage.sees("hateful or harassing", "message", mark)
    assert "`/moderation reports` has a note on it." in line["content"]
    assert "about me" not in line["content"]
    shown = "\n> It is \\*\\*about me\\*\\*. <@1> https://example.org/x\n"
    assert shown in await listed(stage)
    (report,) = stored(stage)
    assert stage.store.reports.notes(report.event_id) == [note]
    assert stage.store.erasure.rows_of(int(stage.member.id))["reports"][0]["note"] == note
    long = ["*" * MAX_NOTE_CHARS, "_" * MAX_NOTE_CHARS]  # each is escaped
    for user, text in enumerate(("short", *long)):
        stage.store.reports.add(replace(_report(stage, report.event_id, user=user), note=text))
        if text == "short":
            assert f"{shown}> short\n" in await listed(stage), "all that have room"
    text = await listed(stage)
    shown = "".join(f"> {discord.utils.escape_markdown(note)}\n" for note in long)
    assert f"{shown}> … and 2 earlier notes\n" in text and "about me" not in text


async def noted_in(stage, thread_id):
    """Report a reply with a note, as if it stood in a thread."""
    await reported(stage, await asked(stage), note="it quotes the reply")
    stage.store.reports._db.write("update reports set channel_id = :id", id=int(thread_id))


async def test_notes_on_replies_of_private_threads_are_for_those_who_may_read_them(stage):
    container, guild = stage.sandbox._container, stage.client.get_guild(stage.sandbox.guild_id)
    aside = await stage.member.thread(QUAY, "aside")
    public = container.store.get("channel", aside["id"])
    thread = int(container.store.new_id())
    # The sandbox has no private threads: the bot hears of one as it would from Discord.
    container.gateway.dispatch("THREAD_CREATE", public | {"id": str(thread), "type": 12})
    await until(lambda: guild.get_thread(thread))
    await noted_in(stage, thread)
    text = await listed(stage)
    assert "Notes are not shown: you do not see its channel." in text and "quotes" not in text
    owner = stage.sandbox.member(OWNER)  # who may manage threads
    answer = await owner.slash(QUAY, "moderation reports")
    assert "\n> it quotes the reply\n" in answer.text
    stage.store.reports._db.write("update reports set channel_id = :id", id=int(public["id"]))
    assert "\n> it quotes the reply\n" in await listed(stage)
    lost = public | {"id": str(thread + 1), "parent_id": "1"}
    container.gateway.dispatch("THREAD_CREATE", lost)
    await until(lambda: guild.get_thread(thread + 1))
    stage.store.reports._db.write("update reports set channel_id = :id", id=thread + 1)
    assert "you do not see its channel" in await listed(stage), "its channel is gone"


async def test_of_an_archived_thread_the_list_says_how_its_notes_are_shown(stage):
    thread = await stage.moderator.thread(QUAY, "soundings")
    await noted_in(stage, thread["id"])
    stage.sandbox.archive_thread(thread["id"])
    await until(lambda: stage.client.get_channel(int(thread["id"])) is None)
    text = await listed(stage)
    assert "Notes are not shown: its channel is archived or deleted. A message in" in text
    assert "quotes" not in text and "do not see" not in text
    await stage.moderator.say(thread, "as the list says")
    await until(lambda: stage.client.get_channel(int(thread["id"])))
    assert "\n> it quotes the reply\n" in await listed(stage)


async def test_notes_on_age_restricted_replies_are_shown_in_age_restricted_channels_alone(stage):
    reply = await asked(stage)
    await reported(stage, reply, note="note 0")
    (report,) = stored(stage)
    for user in range(2):
        stage.store.reports.add(replace(report, seq=0, user_id=user, note=f"note {user + 1}"))
    quay = stage.client.get_channel(int(stage.sandbox.channel(QUAY)["id"]))
    shown = "\n> note 0\n> note 1\n> note 2\n"
    withheld = "Notes are not shown here: the reply is for age-restricted channels."

    async def listed_in(channel):
        return (await stage.moderator.slash(channel, "moderation reports")).message["content"]

    stage.sandbox.set_age_restricted(QUAY, True)
    await until(quay.is_nsfw)
    assert shown in await listed_in(QUAY)
    text = await listed_in(OFFICE)
    assert withheld in text and "note 1" not in text
    services = stage.client.services
    ballast = services.personas.get("ballast", report.guild_id)
    services.reply_service.rules.age.set(ballast, report.guild_id, is_restricted=True)
    assert shown in await listed_in(QUAY)
    stage.sandbox.set_age_restricted(QUAY, False)
    await until(lambda: not quay.is_nsfw())
    text = await listed_in(QUAY)
    assert withheld in text and "note 1" not in text


async def test_a_report_of_a_reply_that_is_gone_is_not_offered_again(stage):
    reply = await asked(stage)
    form = await opened(stage, reply)
    stage.store.replies._db.write("delete from replies")
    answer = await stage.member.submit(form, reason="false", note="typed")
    await until(lambda: answer.message)
    assert "Choose another message." in answer.text and answer.ephemeral
    assert "Try again" not in answer.text and not answer.message["components"]
    assert stored(stage) == []


async def test_a_refused_report_opens_again_with_what_was_typed(stage):
    reply = await asked(stage)
    form = await opened(stage, reply)
    form.modal["components"][1]["component"]["options"][0]["value"] = "unlisted"
    refused = await stage.member.submit(form, reason="unlisted", note='It is "rude".\nVery.')
    await until(lambda: "Nothing you typed is lost" in refused.text)
    assert "The report has no reason. Choose one from the list." in refused.text
    assert refused.ephemeral
    form = await opened(stage, reply)
    form.modal["components"][2]["component"]["max_length"] = 4000
    long = await stage.member.submit(form, reason="sexual", note="x" * (MAX_NOTE_CHARS + 1))
    await until(lambda: "It has 301 characters; 300 is the most." in long.text)
    assert stored(stage) == []
    for answer, reason, note in (
        (refused, None, 'It is "rude".\nVery.'),
        (long, "sexual", "x" * 301),
    ):
        again = await stage.member.click(answer.message, "Try again")
        _, menu, typed = (row.get("component") for row in again.modal["components"])
        chosen = [option["value"] for option in menu["options"] if option.get("default")]
        assert (chosen, typed["value"]) == ([reason] if reason else [], note)
    sent = await stage.member.submit(again, note='It is "rude".\nVery.')
    assert "Thank you." in sent.text
    assert [report.reason for report in stored(stage)] == ["sexual"]


async def test_a_menu_of_reasons_that_was_sent_before_the_form_still_reports(stage):
    reply = await asked(stage)
    options = [discord.SelectOption(label="False", value="false")]
    view = button_view(ReasonSelect(options, reply["id"], placeholder="Choose a reason"))
    channel = stage.client.get_channel(int(stage.sandbox.channel(QUAY)["id"]))
    mark = stage.mark
    await channel.send("What is wrong with this reply?", view=view)
    menu = await stage.sees("What is wrong", "message", mark)
    await stage.member.select(menu, "Choose a reason", ["false"])
    shown = await stage.sees("Thank you.", since=mark)
    assert shown["id"] == menu["id"] and not shown["components"]
    assert [report.reason for report in stored(stage)] == ["false"]


async def test_members_see_no_reports(stage):
    for options in ({}, {"done": 1}):
        with pytest.raises(SandboxRefusal):
            await stage.member.slash(QUAY, "moderation reports", **options)


async def test_a_long_list_shows_the_latest_that_have_room_and_what_to_do(stage):
    for number in range(30):
        for user, reason in enumerate(REASONS):
            stage.store.reports.add(_report(stage, number, user=user, reason=reason))
    theirs = replace(_report(stage, 99), guild_id=5)
    stage.store.reports.add(theirs)
    latest = stage.store.reports.latest(int(stage.sandbox.guild_id), 4)
    assert [report.event_id for report in latest] == [26, 27, 28, 29], "no more are read"
    text = await listed(stage)
    lines = text.splitlines()
    assert len(text) <= MAX_MESSAGE_CHARS
    assert lines[0] == f"{30 - len(lines[1:-1])} earlier ones, and:" and len(lines) > 6
    assert all(line.endswith("/1/2") for line in lines[1:-1]), "whole links"
    assert lines[-2].startswith("**204**") and "reports done" in lines[-1]


def _report(stage, event, *, user=7, at=None, reason="other"):
    return Report(
        seq=0,
        guild_id=int(stage.sandbox.guild_id),
        channel_id=1,
        message_id=2,
        event_id=event,
        persona_id="oda",
        version="v1",
        reason=reason,
        user_id=user,
        at=at or time.time(),
    )


async def test_erasure_takes_own_reports_and_those_of_replies_to_the_member(stage):
    member, moderator = int(stage.member.id), int(stage.moderator.id)
    to_member = await asked(stage)
    await reported(stage, to_member, who=stage.moderator)
    to_moderator = await asked(stage, who=stage.moderator)
    await reported(stage, to_moderator)
    assert len(stored(stage)) == 2
    erasure = stage.store.erasure
    assert {member, moderator} <= erasure.user_ids() and erasure.counts(member)["reports"] == 1
    (row,) = erasure.rows_of(member)["reports"]
    assert row["reason"] == "hateful" and str(row["message_id"]) == to_moderator["id"]
    shown = await stage.member.slash(QUAY, "privacy show")
    await until(lambda: "that you reported to moderators: 1" in shown.message["content"])
    erasure.erase(member, time.time() + 1, str)
    assert stored(stage) == []


def test_the_notes_of_others_lose_the_name_of_somebody_who_is_erased(tmp_path):
    def redacted(text):
        return text.replace("Tobias Reed", "[removed]")

    report = Report(
        seq=0,
        guild_id=1,
        channel_id=1,
        message_id=2,
        event_id=3,
        persona_id="oda",
        version="v1",
        reason="other",
        user_id=7,
        at=1.0,
        note="It mocks Tobias Reed.",
    )
    with Store.open(tmp_path / "understudy.sqlite") as store:
        store.reports.add(report)
        store.erasure.erase(8, 2.0, redacted)
        assert store.reports.notes(report.event_id) == ["It mocks [removed]."]


async def test_reports_are_deleted_after_the_stated_time(stage):
    for language in LANGUAGES:
        with override(language):
            assert f"{REPORT_DAYS} " in translate("show_reports", count=1)
    old = time.time() - REPORT_DAYS * 86_400
    stage.store.reports.add(_report(stage, 1, at=old - 60))
    stage.store.reports.add(_report(stage, 2, at=old + 60))
    retention = Retention(stage.client.services, SystemClock(), RetentionPeriods(90, 14))
    assert await retention.tidy()
    assert [report.event_id for report in stored(stage)] == [2]
