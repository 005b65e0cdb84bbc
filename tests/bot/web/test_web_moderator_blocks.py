"""Moderators on the web: whom personas do not answer, limits of replies, reported replies, and the
bot's face; the operator's page of the same blocks and limits.
"""

import asyncio
import re
import time

import discord
import pytest

import bot.moderation.web.blocks
import bot.moderation.web.people
from bot.demo_guild import MEMBER, MODERATOR, NEWCOMER
from bot.moderation.store import Block, ReplyLimits
from bot.moderation.web.blocks import PAGE_SIZE
from bot.reports.actions import REASONS
from personas.home.trash import TrashEntry
from tests.bot.conftest import INN, OFFICE, QUAY
from tests.bot.web.moderator_stage import OTTO, SERVERS, SIGN_IN, TOKEN, UNSEEING
from tests.fakes import until

OPERATORS = "/dashboard/moderation"
LIMITS = {"per_day": "", "cooldown_s": "", "exempts_moderators": "yes"}
SEEN = {f"seen-{name}": value for name, value in LIMITS.items()}


def blocked(town, guild_id=None):
    """Whom the personas of a server do not answer, with the persona's id."""
    entries = town.stage.store.blocks.of_guild(guild_id or town.first)
    return [(entry.user_id, entry.persona_id) for entry in entries]


def audited(town):
    town.stage.store.audit_channels.set(town.first, town.channel_id(OFFICE, town.first))


async def operator_of(town):
    browser = town.browser()
    assert (await browser.submit(SIGN_IN, token=TOKEN)).status == 303
    return browser


@pytest.fixture
async def moderator(town):
    return await town.signed_in(MODERATOR)


# ------------------------------------------------------------------------------------------- blocks


async def test_a_member_is_blocked_by_name_and_the_block_is_listed_and_lifted(town, moderator):
    audited(town)
    page, member_id = f"{SERVERS}/{town.first}/blocks", town.user_id(MEMBER)
    assert "Nobody is blocked." in (await moderator.get(page)).text
    answer = await moderator.submit(page, member=MEMBER.lower(), persona="oda")
    assert (answer.status, answer.location) == (303, page), answer.text
    answer = await moderator.submit(page, member=str(member_id), persona="")
    assert answer.status == 303 and blocked(town) == [(member_id, "oda"), (member_id, "")]
    for words in ("for Oda Marrow", "for all personas"):
        await town.stage.sees(f"<@{town.user_id(MODERATOR)}> blocked <@{member_id}> {words}.")
    shown = (await moderator.get(page)).text
    assert f"{MEMBER} is not answered by all personas any more." in shown
    assert shown.count(f'<th role="rowheader" scope="row" class="whose">{MEMBER}</th>') == 2
    assert f'data-label="Blocked by">{MODERATOR}<' in shown and "<time " in shown
    await town.stage.member.say(QUAY, "hello?")
    refused = await town.stage.member.slash(QUAY, "chat", message="hello?")
    assert "does not answer you here" in refused.message["content"]
    lifted = {"user": str(member_id), "persona": ""}
    answer = await moderator.submit(f"{page}/lift", **lifted)
    assert answer.status == 303 and blocked(town) == [(member_id, "oda")], "this one alone"
    await town.stage.sees(f"lifted the block of <@{member_id}> for all personas.")
    late = await moderator.submit(f"{page}/lift", **lifted)  # from another tab
    assert late.status == 404 and f"There is no such block of {MEMBER}." in late.text
    assert f"Blocked: {MEMBER} for Oda Marrow." in late.text and 'name="user"' in late.text
    await moderator.submit(f"{page}/lift", user=str(member_id), persona="oda")
    late = await moderator.submit(f"{page}/lift", user=str(member_id), persona="oda")
    assert f"{MEMBER} is not blocked." in late.text and blocked(town) == []
    assert not town.stage.engine.requests


async def test_the_block_of_somebody_erased_is_listed_and_lifted(town, moderator):
    audited(town)
    page, store = f"{SERVERS}/{town.first}/blocks", town.stage.store
    await moderator.submit(page, member=MEMBER, persona="")
    store.erasure.erase(town.user_id(MEMBER), time.time() + 1, str)
    shown = (await moderator.get(page)).text
    assert (
        '<th role="rowheader" scope="row" class="whose">a member who had their data erased</th>'
        in shown
    )
    (user,) = re.findall(r'name="user" value="([^"]*)"', shown)
    late = await moderator.submit(f"{page}/lift", user=user, persona="oda")
    assert "There is no such block of a member who had their data erased." in late.text
    assert (await moderator.submit(f"{page}/lift", user=user, persona="")).status == 303
    assert blocked(town) == []
    await town.stage.sees("lifted the block of a member who had their data erased")


async def test_a_block_stops_the_reply_that_is_being_written(town, moderator):
    town.stage.engine.free.clear()
    await town.stage.member.say(QUAY, "a long story")
    running = town.stage.client.services.reply_service.running
    await until(lambda: any(reply.message.generated for reply in running.values()))
    await moderator.submit(f"{SERVERS}/{town.first}/blocks", member=MEMBER, persona="")
    await town.stage.sees("· stopped")


async def test_whoever_is_not_named_exactly_is_chosen_and_nothing_is_lost(town, moderator):
    page = f"{SERVERS}/{town.first}/blocks"
    answer = await moderator.submit(page, member="Tob", persona="oda")
    assert answer.status == 422 and blocked(town) == [] and "Whom do you mean?" in answer.text
    assert 'value="Tob"' in answer.text and '<option value="oda" selected>' in answer.text
    (form,) = re.findall(r"<form[^>]*class=\"row\">(.*?)</form>", answer.text, re.DOTALL)
    chosen = dict(re.findall(r'name="(\w+)" value="(\w*)"', form))
    assert f"Block {MEMBER} (tobias_reed)" in form
    assert chosen == {"member": str(town.user_id(MEMBER)), "persona": "oda"}
    assert (await moderator.submit(page, **chosen)).status == 303
    assert blocked(town) == [(town.user_id(MEMBER), "oda")]


async def test_of_two_with_the_same_name_none_is_blocked_before_one_is_chosen(
    town, moderator, monkeypatch
):
    guild = town.stage.sandbox._container.guild
    newcomer = str(town.user_id(NEWCOMER))
    guild.store.put(guild._member_kind, guild.member(newcomer) | {"nick": MEMBER}, newcomer)
    page = f"{SERVERS}/{town.first}/blocks"
    answer = await moderator.submit(page, member=MEMBER, persona="")
    assert answer.status == 422 and blocked(town) == []
    for account in ("tobias_reed", "wren_castle"):
        assert f"Block {MEMBER} ({account})" in answer.text
    assert "Write more of the name." not in answer.text
    monkeypatch.setattr(bot.moderation.web.blocks, "MAX_CHOICES", 1)
    answer = await moderator.submit(page, member=MEMBER, persona="")
    assert "tobias_reed" in answer.text and "wren_castle" not in answer.text
    assert "Write more of the name." in answer.text
    assert (await moderator.submit(page, member="wren_castle", persona="")).status == 303
    assert blocked(town) == [(int(newcomer), "")], "an account's name is nobody else's"


async def test_who_cannot_be_blocked_is_said_beside_the_field(town, moderator):
    page = f"{SERVERS}/{town.first}/blocks"
    stranger = str(town.user_id(OTTO, town.second))
    for member, words in (
        ("", "Whom?"),
        ("Nobody at all", "Nobody is called Nobody at all here."),
        ("123456789012345678", "Nobody is called 123456789012345678 here."),
        (OTTO, f"Nobody is called {OTTO} here."),
        (MODERATOR, "You cannot block yourself."),
        (str(town.stage.sandbox.bot_id), "Personas answer no bots anyway."),
        ("<script>", "Nobody is called &lt;script&gt; here."),
    ):
        answer = await moderator.submit(page, member=member, persona="oda")
        assert answer.status == 422 and 'id="member-error"' in answer.text, member
        assert words in answer.text and '<option value="oda" selected>' in answer.text, member
    assert blocked(town) == []
    # Whoever is no member any more is blocked by their id, as on Discord.
    assert (await moderator.submit(page, member=stranger, persona="")).status == 303
    assert blocked(town) == [(int(stranger), "")] and blocked(town, town.second) == []


async def test_a_persona_that_is_gone_is_said_beside_its_field(town, moderator):
    persona_id = town.bring_in(town.second, "Lamplighter")
    page = f"{SERVERS}/{town.first}/blocks"
    for persona in ("nobody", persona_id):
        answer = await moderator.submit(page, member=MEMBER, persona=persona)
        assert answer.status == 422 and 'id="persona-error"' in answer.text
        assert f'value="{MEMBER}"' in answer.text and "Lamplighter" not in answer.text
    assert blocked(town) == []
    own = town.bring_in(town.first, "Marlow Finch")
    assert (await moderator.submit(page, member=MEMBER, persona=own)).status == 303
    registry = town.stage.client.services.personas
    entry = TrashEntry(guild_id=town.first, kind="persona", id=own, name="Marlow Finch", at=1.0)
    registry.remove(town.first, registry.get(own, town.first), entry, {})
    assert own in (await moderator.get(page)).text, "the block can still be lifted"
    lifted = await moderator.submit(f"{page}/lift", user=str(town.user_id(MEMBER)), persona=own)
    assert lifted.status == 303 and blocked(town) == []


async def test_where_discord_does_not_answer_nothing_is_blocked_or_lost(
    town, moderator, monkeypatch
):
    monkeypatch.setattr(bot.moderation.web.people, "SEARCH_TIMEOUT_S", 0.05)

    async def silent(guild, query, **options):
        await asyncio.Event().wait()

    monkeypatch.setattr(discord.Guild, "query_members", silent)
    answer = await moderator.submit(f"{SERVERS}/{town.first}/blocks", member="Tob", persona="oda")
    assert answer.status == 422 and "Discord does not answer right now." in answer.text
    assert 'value="Tob"' in answer.text and blocked(town) == []


async def test_blocks_of_another_server_are_neither_shown_nor_lifted(town, moderator):
    entry = Block(town.second, town.user_id(MEMBER), "", town.user_id(OTTO, town.second), 1.0)
    town.stage.store.blocks.add(entry)
    page = f"{SERVERS}/{town.first}/blocks"
    assert "Nobody is blocked." in (await moderator.get(page)).text
    answer = await moderator.submit(
        f"{page}/lift", user=str(entry.user_id), persona="", guild=str(town.second)
    )
    assert answer.status == 404 and blocked(town, town.second)
    assert (await moderator.get(f"{SERVERS}/{town.second}/blocks")).status == 403
    for user in ("", "x", "9" * 30):
        assert (await moderator.submit(f"{page}/lift", user=user, persona="")).status == 404


async def test_many_blocks_have_pages(town, moderator, monkeypatch):
    monkeypatch.setattr("bot.platform.discord_kit.member_names.MAX_FETCHED", 0)
    for number in range(PAGE_SIZE + 1):
        town.stage.store.blocks.add(Block(town.first, 1000 + number, "", 0, float(number)))
    page = f"{SERVERS}/{town.first}/blocks"
    first = (await moderator.get(page)).text
    assert "member 1025" in first and "member 1000<" not in first, "the latest ones first"
    assert f'href="{page}?page=2"' in first and "somebody no longer known" in first
    second = (await moderator.get(f"{page}?page=2")).text
    assert "member 1000" in second and "member 1001<" not in second and "?page=3" not in second
    assert (await moderator.get(f"{page}?page=x")).status == 400


# ------------------------------------------------------------------------------------------- limits


async def test_limits_are_set_and_hold_and_are_the_commands(town, moderator):
    audited(town)
    page = f"{SERVERS}/{town.first}/blocks"
    assert "Replies to a member have no limit here." in (await moderator.get(page)).text
    given = LIMITS | {"per_day": "1", "exempts_moderators": "no"}
    answer = await moderator.submit(f"{page}/limits", **SEEN, **given)
    assert (answer.status, answer.location) == (303, page), answer.text
    assert town.stage.store.limits.get(town.first) == ReplyLimits(1, None, False)
    shown = (await moderator.get(page)).text
    assert "1 a day, from midnight in the server&#39;s time zone" in shown
    await town.stage.sees("changed the limits: Replies to a member here: 1 a day")
    answer = await town.stage.moderator.slash(QUAY, "moderation limits", cooldown=30)
    assert "1 a day" in answer.message["content"]
    assert 'name="cooldown_s" value="30"' in (await moderator.get(page)).text
    mark = town.stage.mark
    await town.stage.member.say(QUAY, "one")
    await town.stage.finished(QUAY, mark)
    refused = await town.stage.member.slash(QUAY, "chat", message="two")
    assert "You have had the 1 reply" in refused.message["content"]
    assert town.stage.store.limits.get(town.second) == ReplyLimits()


async def test_a_limit_that_is_no_number_is_said_beside_its_field(town, moderator):
    page = f"{SERVERS}/{town.first}/blocks"
    for text in ("x", "-1", "1.5", "10001", "9" * 30, "٣"):
        given = {"per_day": text, "cooldown_s": "20", "exempts_moderators": "no"}
        answer = await moderator.submit(f"{page}/limits", **SEEN, **given)
        assert answer.status == 422 and 'id="per_day-error"' in answer.text
        assert "Write a whole number from 0 to 10000." in answer.text
        assert f'value="{text}"' in answer.text and 'name="cooldown_s" value="20"' in answer.text
        assert '<option value="no" selected>' in answer.text
        assert 'href="#per_day">Replies to a member each day: ' in answer.text
    assert town.stage.store.limits.get(town.first) == ReplyLimits()


async def test_of_two_tabs_the_later_one_overwrites_no_limit_unseen(town, moderator):
    audited(town)
    page = f"{SERVERS}/{town.first}/blocks/limits"
    assert (await moderator.submit(page, **SEEN, **LIMITS | {"per_day": "5"})).status == 303
    late = await moderator.submit(page, **SEEN, **LIMITS | {"per_day": "9"})
    assert late.status == 409 and "Somebody else has changed the limits meanwhile." in late.text
    assert 'name="per_day" value="9"' in late.text and 'name="seen-per_day" value="5"' in late.text
    other = await moderator.submit(page, **SEEN, **LIMITS | {"cooldown_s": "7"})
    assert other.status == 303, "another field is not touched"
    assert town.stage.store.limits.get(town.first) == ReplyLimits(5, 7)
    same = await moderator.submit(page, **SEEN, **LIMITS)
    assert same.status == 303 and town.stage.store.limits.get(town.first) == ReplyLimits(5, 7)
    seen = SEEN | {"seen-per_day": "5", "seen-cooldown_s": "7"}
    assert (await moderator.submit(page, **seen, **LIMITS | {"per_day": "0"})).status == 303
    assert town.stage.store.limits.get(town.first) == ReplyLimits()


# ------------------------------------------------------------------------------------- the operator


async def test_the_operator_has_the_same_page_for_each_server(town):
    audited(town)
    browser, member_id = await operator_of(town), town.user_id(MEMBER)
    listed = (await browser.get(OPERATORS)).text
    assert "Skerrow Harbour" in listed and "Breakwater" in listed
    assert OPERATORS in (await browser.get("/dashboard/system/safety")).text
    page = f"{OPERATORS}/{town.first}"
    assert (await browser.submit(page, member=MEMBER, persona="")).status == 303
    await town.stage.sees(f"The operator blocked <@{member_id}> for all personas.")
    shown = (await browser.get(page)).text
    assert MEMBER in shown and "the operator, or somebody no longer known" in shown
    assert (
        await browser.submit(f"{page}/limits", **SEEN, **LIMITS | {"per_day": "4"})
    ).status == 303
    await town.stage.sees("The operator changed the limits")
    listed = (await browser.get(OPERATORS)).text
    assert 'data-label="Blocks">1<' in listed and "4 a day" in listed
    answer = await browser.submit(f"{page}/lift", user=str(member_id), persona="")
    assert (answer.status, answer.location) == (303, page) and blocked(town) == []
    for server in ("1", "x", "9" * 19):
        assert (await browser.get(f"{OPERATORS}/{server}")).status == 404


async def test_the_operator_blocks_and_limits_in_direct_messages(town):
    audited(town)
    browser, member_id = await operator_of(town), town.user_id(MEMBER)
    listed = (await browser.get(OPERATORS)).text
    assert f'<a href="{OPERATORS}/0">Direct messages and user installs</a>' in listed
    page = f"{OPERATORS}/0"
    shown = (await browser.get(page)).text
    assert "Blocks and limits in direct messages and user installs" in shown
    assert "Moderators have no limit" not in shown and "Mutes, roles, age" not in shown
    for named, words in (
        ("", "Whom?"),
        (MEMBER, f"Nobody on Discord has the id {MEMBER}."),
        ("123456789012345678", "Nobody on Discord has the id 123456789012345678."),
        (str(town.stage.sandbox.bot_id), "Personas answer no bots anyway."),
    ):
        answer = await browser.submit(page, member=named, persona="")
        assert answer.status == 422 and words in answer.text, named
    answer = await browser.submit(page, member=str(member_id), persona="oda")
    assert (answer.status, answer.location) == (303, page), answer.text
    assert town.stage.store.blocks.applies(0, member_id, "oda") and not blocked(town)
    shown = (await browser.get(page)).text
    assert f'<th role="rowheader" scope="row" class="whose">{MEMBER}</th>' in shown
    limit = {"per_day": "3", "cooldown_s": "9"}
    seen = dict.fromkeys(("seen-per_day", "seen-cooldown_s"), "")
    assert (await browser.submit(f"{page}/limits", **seen, **limit)).status == 303
    assert town.stage.store.limits.get(0).per_day == 3
    shown = (await browser.get(page)).text
    assert "3 a day, from midnight in the operator&#39;s time zone; one every 9 seconds." in shown
    lifted = {"user": str(member_id), "persona": "oda"}
    assert (await browser.submit(f"{page}/lift", **lifted)).status == 303
    late = await browser.submit(f"{page}/lift", **lifted)
    assert f"{MEMBER} is not blocked." in late.text and "/moderation blocks" not in late.text
    assert (await browser.get(f"{page}/rules")).status == 404
    assert (await browser.submit(f"{page}/rules/mute", persona="", channel="")).status == 404
    await browser.submit(f"{OPERATORS}/{town.first}", member=MEMBER, persona="")
    await town.stage.sees("The operator blocked")
    said = str(town.stage.sandbox.events)
    assert "for Oda Marrow" not in said and "changed the limits" not in said, "no server's concern"


async def test_without_discord_the_operator_lifts_blocks_and_cannot_name_members(dashboard):
    store = dashboard.store
    assert "Direct messages and user installs" in (await dashboard.page(OPERATORS))[1]
    store.blocks.add(Block(5, 7, "oda", 8, 1.0))
    assert "server 5" in (await dashboard.page(OPERATORS))[1]
    assert "member 7" in (await dashboard.page(f"{OPERATORS}/5"))[1]
    status, text, _ = await dashboard.submit(f"{OPERATORS}/5", member="Tobias", persona="")
    assert status == 422 and "not connected to that server" in text and 'value="Tobias"' in text
    status, _, _ = await dashboard.submit(f"{OPERATORS}/5/lift", user="7", persona="oda")
    assert status == 303 and store.blocks.of_guild(5) == []
    status, text, _ = await dashboard.submit(f"{OPERATORS}/0", member="7" * 17, persona="")
    assert status == 422 and "not connected to Discord" in text


# ------------------------------------------------------------------------------------------ reports


async def reported(town, channel=QUAY, words="hello", guild_id=None, note=""):
    """A reply that a member has reported; returns the report's number and the reply's message."""
    guild_id = guild_id or town.first
    sandbox, services = town.stage.sandbox, town.stage.client.services
    mark = town.stage.mark
    await sandbox.member(MEMBER, guild_id).say(channel, words)
    channel_id = sandbox.channel(channel, guild_id)["id"]
    message = await sandbox.wait_for(
        "edit",
        lambda one: one["channel_id"] == channel_id and "\n-# AI-written" in one["content"],
        since=mark,
    )
    reply = services.store.replies.of_message(int(message["id"]))
    by = {"guild_id": guild_id, "user_id": town.user_id(MEMBER, guild_id)}
    services.reports.report(reply, int(message["id"]), "hateful", note=note, **by)
    return services.store.reports.latest(guild_id, 1)[0].seq, message


async def test_reported_replies_are_read_and_dealt_with(town, moderator):
    audited(town)
    number, message = await reported(town, words="who is there?", note="It means\n<b>me</b>.")
    page = f"{SERVERS}/{town.first}/reports"
    assert 'class="badge warn">1<' in (await moderator.get(f"{SERVERS}/{town.first}")).text
    shown = (await moderator.get(page)).text
    for words in ("Ballast (base model)", REASONS["hateful"], "hears: who is there?", "#weigh"):
        assert words in shown, words
    assert '<p class="words">Note: It means\n&lt;b&gt;me&lt;/b&gt;.</p>' in shown
    assert f"/{message['channel_id']}/{message['id']}" in shown and "<time " in shown
    assert MEMBER not in shown and str(town.user_id(MEMBER)) not in shown, "nobody learns who"
    answer = await moderator.submit(f"{page}/done", number=str(number))
    assert (answer.status, answer.location) == (303, page)
    assert "Dealt with: 1 report of that reply." in (await moderator.get(page)).text
    await town.stage.sees(f"<@{town.user_id(MODERATOR)}> dealt with report {number}.")
    late = await moderator.submit(f"{page}/done", number=str(number))  # from another tab
    assert late.status == 404 and f"There is no report {number}." in late.text
    assert "No reply is reported." in late.text


async def test_a_reply_is_shown_whole_and_without_its_text_once_that_is_deleted(town, moderator):
    town.stage.engine.script = lambda request: ["word " * 300, "more " * 300]
    _, message = await reported(town)
    store, page = town.stage.store, f"{SERVERS}/{town.first}/reports"
    parts = store.replies.of_message(int(message["id"])).parts
    shown = (await moderator.get(page)).text
    assert len(parts) == 2 and "word word" in shown and "more more" in shown
    store.messages._db.write("delete from messages where discord_message_id = :id", id=parts[0])
    shown = (await moderator.get(page)).text
    assert "Nothing of it is stored any more." in shown and "more more" not in shown
    assert "The reply on Discord" in shown


async def test_a_reply_is_not_shown_to_whom_discord_would_not_show_it(town, moderator):
    await reported(town, INN)
    services = town.stage.client.services
    oda = services.personas.get("oda", town.first)
    services.reply_service.rules.age.set(oda, town.first, is_restricted=True)
    page = f"{SERVERS}/{town.first}/reports"
    shown = (await moderator.get(page)).text
    assert "for age-restricted channels" in shown and "hears:" not in shown
    town.settle(town.second, "boathouse", "ballast")
    number, _ = await reported(town, "boathouse", guild_id=town.second, note="quoted")
    otto, nora = await town.signed_in(OTTO), await town.signed_in(UNSEEING)
    theirs = f"{SERVERS}/{town.second}/reports"
    theirs_shown = (await otto.get(theirs)).text
    assert "hears: hello" in theirs_shown and "quoted" in theirs_shown
    shown = (await nora.get(theirs)).text  # she moderates, but a role hides all channels
    assert "You do not see its channel on Discord." in shown
    assert not any(words in shown for words in ("hears:", "boathouse", "quoted"))
    assert (await moderator.submit(f"{page}/done", number=str(number))).status == 404
    assert services.store.reports.count_replies(town.second) == 1, "another server's"


async def test_of_an_archived_thread_the_page_does_not_say_that_its_reader_sees_none(
    town, moderator
):
    await reported(town, note="quoted")
    town.stage.store.reports._db.write("update reports set channel_id = 7")
    shown = (await moderator.get(f"{SERVERS}/{town.first}/reports")).text
    assert "Its channel is archived or deleted: a message in a thread opens it again." in shown
    assert "in channel 7 (deleted or archived)" in shown
    assert not any(words in shown for words in ("not see", "quoted", "hears:"))


# ------------------------------------------------------------------------------------------ the face


async def test_the_bot_gets_a_face_and_its_own_back(town, moderator):
    audited(town)
    page = f"{SERVERS}/{town.first}"
    assert "It has its own name and picture." in (await moderator.get(page)).text
    answer = await moderator.submit(f"{page}/face", face="oda")
    assert (answer.status, answer.location) == (303, page), answer.text
    await town.stage.sees(f"<@{town.user_id(MODERATOR)}> made **Oda Marrow** the face of the bot.")
    shown = (await moderator.get(page)).text
    assert "name and picture of <strong>Oda Marrow</strong> here, who speaks" in shown
    assert '<option value="oda" selected>' in shown
    assert town.stage.client.get_guild(town.first).me.nick == "Oda Marrow"
    operator = await operator_of(town)
    words = "In Skerrow Harbour, the bot itself has this persona&#39;s name and picture."
    assert words in (await operator.get("/dashboard/personas/oda")).text
    assert words not in (await operator.get("/dashboard/personas/ballast")).text
    listed = await town.stage.member.slash(INN, "persona list")
    assert "**Oda Marrow** is the bot's face" in listed.message["content"]
    assert (await moderator.submit(f"{page}/face", face="")).status == 303
    assert town.stage.store.faces.all() == []
    assert "It has its own name and picture." in (await moderator.get(page)).text
    listed = await town.stage.member.slash(INN, "persona list")
    assert "face" not in listed.message["content"]


async def test_a_face_that_discord_refuses_is_shown_with_the_reason(town, moderator):
    page = f"{SERVERS}/{town.first}"
    services = town.stage.client.services
    services.store.faces.choose(town.first, "oda")
    services.faces._problems[town.first] = "Discord refuses the name."
    shown = (await moderator.get(page)).text
    assert "It is to have the name and picture of <strong>Oda Marrow</strong>" in shown
    assert "Discord refuses the name." in shown
    operator = await operator_of(town)
    shown = (await operator.get("/dashboard/personas/oda")).text
    assert "the bot itself is to have this persona&#39;s name and picture. Discord refuses" in shown
    listed = await town.stage.member.slash(INN, "persona list")
    assert "Discord refuses the name." in listed.message["content"]


async def test_a_face_that_cannot_be_given_is_said_beside_the_field(town, moderator):
    page = f"{SERVERS}/{town.first}/face"
    stranger = town.bring_in(town.second, "Lamplighter")
    for persona in ("nobody", stranger):
        answer = await moderator.submit(page, face=persona)
        assert answer.status == 422 and 'id="face-error"' in answer.text
        assert "There is no such persona here." in answer.text
    town.stage.sandbox.set_permission("CHANGE_NICKNAME", False)
    guild = town.stage.client.get_guild(town.first)
    await until(lambda: not guild.me.guild_permissions.change_nickname)
    answer = await moderator.submit(page, face="oda")
    assert answer.status == 422 and "I lack the permission Change Nickname." in answer.text
    assert '<option value="oda" selected>' in answer.text, "what was chosen stays"
    assert town.stage.store.faces.all() == []
