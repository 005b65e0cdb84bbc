"""The operator's pages of each server and of direct messages: whom personas do not answer, and limits
of replies.
"""

import asyncio
import re
import time

import discord
import pytest

import bot.moderation.web.block_pages
import bot.moderation.web.people
from bot.demo_guild import MEMBER, NEWCOMER
from bot.guild_settings.definitions import AUDIT_CHANNEL
from bot.moderation.limits import ReplyLimits, read_limits
from bot.moderation.store import Block
from bot.moderation.web.block_pages import PAGE_SIZE
from personas.home.trash import TrashEntry
from tests.bot.conftest import OFFICE, QUAY
from tests.bot.web.two_servers import OTTO, SERVERS

LIMITS = {"per_day": "", "cooldown_s": "", "exempts_moderators": ""}
SEEN = {f"seen-{name}": value for name, value in LIMITS.items()}


def blocked(town, guild_id=None):
    """Whom the personas of a server do not answer, with the persona's id."""
    entries = town.stage.store.blocks.of_guild(guild_id or town.first)
    return [(entry.user_id, entry.persona_id) for entry in entries]


def audited(town):
    AUDIT_CHANNEL.write(town.stage.store, town.channel_id(OFFICE, town.first), town.first)


@pytest.fixture
def operator(town):
    return town.operator


# ------------------------------------------------------------------------------------------- blocks


async def test_a_member_is_blocked_by_name_and_the_block_is_listed_and_lifted(town, operator):
    audited(town)
    page, member_id = f"{SERVERS}/{town.first}", town.user_id(MEMBER)
    assert "Nobody is blocked." in (await operator.get(page)).text
    answer = await operator.submit(page, member=MEMBER.lower(), persona="oda")
    assert (answer.status, answer.location) == (303, page), answer.text
    answer = await operator.submit(page, member=str(member_id), persona="")
    assert answer.status == 303 and blocked(town) == [(member_id, "oda"), (member_id, "")]
    for words in ("for Oda Marrow", "for all personas"):
        await town.stage.sees(f"The operator blocked <@{member_id}> {words}.")
    shown = (await operator.get(page)).text
    assert f"{MEMBER} is not answered by all personas any more." in shown
    assert shown.count(f'<th role="rowheader" scope="row" class="whose">{MEMBER}</th>') == 2
    assert "the operator, or somebody no longer known" in shown and "<time " in shown
    await town.stage.member.say(QUAY, "hello?")
    refused = await town.stage.member.slash(QUAY, "chat", message="hello?")
    assert "does not answer you here" in refused.message["content"]
    lifted = {"user": str(member_id), "persona": ""}
    answer = await operator.submit(f"{page}/lift", **lifted)
    assert answer.status == 303 and blocked(town) == [(member_id, "oda")], "this one alone"
    await town.stage.sees(f"lifted the block of <@{member_id}> for all personas.")
    late = await operator.submit(f"{page}/lift", **lifted)  # from another tab
    assert late.status == 404 and f"There is no such block of {MEMBER}." in late.text
    assert f"Blocked: {MEMBER} for Oda Marrow." in late.text and 'name="user"' in late.text
    await operator.submit(f"{page}/lift", user=str(member_id), persona="oda")
    late = await operator.submit(f"{page}/lift", user=str(member_id), persona="oda")
    assert f"{MEMBER} is not blocked." in late.text and blocked(town) == []
    assert not town.stage.engine.requests


async def test_the_block_of_somebody_erased_is_listed_and_lifted(town, operator):
    audited(town)
    page, store = f"{SERVERS}/{town.first}", town.stage.store
    await operator.submit(page, member=MEMBER, persona="")
    store.erasure.erase(town.user_id(MEMBER), time.time() + 1, str)
    shown = (await operator.get(page)).text
    assert (
        '<th role="rowheader" scope="row" class="whose">a member who had their data erased</th>'
        in shown
    )
    (user,) = re.findall(r'name="user" value="([^"]*)"', shown)
    late = await operator.submit(f"{page}/lift", user=user, persona="oda")
    assert "There is no such block of a member who had their data erased." in late.text
    assert (await operator.submit(f"{page}/lift", user=user, persona="")).status == 303
    assert blocked(town) == []
    await town.stage.sees("lifted the block of a member who had their data erased")


async def test_of_two_with_the_same_name_none_is_blocked_before_one_is_chosen(
    town, operator, monkeypatch
):
    guild = town.stage.sandbox._container.guild
    newcomer = str(town.user_id(NEWCOMER))
    guild.store.put(guild._member_kind, guild.member(newcomer) | {"nick": MEMBER}, newcomer)
    page = f"{SERVERS}/{town.first}"
    answer = await operator.submit(page, member=MEMBER, persona="")
    assert answer.status == 422 and blocked(town) == []
    for account in ("tobias_reed", "wren_castle"):
        assert f"Block {MEMBER} ({account})" in answer.text
    assert "Write more of the name." not in answer.text
    monkeypatch.setattr(bot.moderation.web.block_pages, "MAX_CHOICES", 1)
    answer = await operator.submit(page, member=MEMBER, persona="")
    assert "tobias_reed" in answer.text and "wren_castle" not in answer.text
    assert "Write more of the name." in answer.text
    assert (await operator.submit(page, member="wren_castle", persona="")).status == 303
    assert blocked(town) == [(int(newcomer), "")], "an account's name is nobody else's"


async def test_who_cannot_be_blocked_is_said_beside_the_field(town, operator):
    page = f"{SERVERS}/{town.first}"
    stranger = str(town.user_id(OTTO, town.second))
    for member, words in (
        ("", "Whom?"),
        ("Nobody at all", "Nobody is called Nobody at all here."),
        ("123456789012345678", "Nobody is called 123456789012345678 here."),
        (OTTO, f"Nobody is called {OTTO} here."),
        (str(town.stage.sandbox.bot_id), "Personas answer no bots anyway."),
        ("<script>", "Nobody is called &lt;script&gt; here."),
    ):
        answer = await operator.submit(page, member=member, persona="oda")
        assert answer.status == 422 and 'id="member-error"' in answer.text, member
        assert words in answer.text and '<option value="oda" selected>' in answer.text, member
    assert blocked(town) == []
    # Whoever is no member any more is blocked by their id, as on Discord.
    assert (await operator.submit(page, member=stranger, persona="")).status == 303
    assert blocked(town) == [(int(stranger), "")] and blocked(town, town.second) == []


async def test_a_persona_that_is_gone_is_said_beside_its_field(town, operator):
    persona_id = town.bring_in(town.second, "Lamplighter")
    page = f"{SERVERS}/{town.first}"
    for persona in ("nobody", persona_id):
        answer = await operator.submit(page, member=MEMBER, persona=persona)
        assert answer.status == 422 and 'id="persona-error"' in answer.text
        assert f'value="{MEMBER}"' in answer.text and "Lamplighter" not in answer.text
    assert blocked(town) == []
    own = town.bring_in(town.first, "Marlow Finch")
    assert (await operator.submit(page, member=MEMBER, persona=own)).status == 303
    registry = town.stage.client.services.personas
    entry = TrashEntry(guild_id=town.first, kind="persona", id=own, name="Marlow Finch", at=1.0)
    registry.remove(town.first, registry.get(own, town.first), entry, {})
    assert own in (await operator.get(page)).text, "the block can still be lifted"
    lifted = await operator.submit(f"{page}/lift", user=str(town.user_id(MEMBER)), persona=own)
    assert lifted.status == 303 and blocked(town) == []


async def test_where_discord_does_not_answer_nothing_is_blocked_or_lost(
    town, operator, monkeypatch
):
    monkeypatch.setattr(bot.moderation.web.people, "SEARCH_TIMEOUT_S", 0.05)

    async def silent(guild, query, **options):
        await asyncio.Event().wait()

    monkeypatch.setattr(discord.Guild, "query_members", silent)
    answer = await operator.submit(f"{SERVERS}/{town.first}", member="Tob", persona="oda")
    assert answer.status == 503 and "Discord does not answer right now." in answer.text
    assert 'value="Tob"' in answer.text and blocked(town) == []


async def test_blocks_of_another_server_are_neither_shown_nor_lifted(town, operator):
    otto = town.user_id(OTTO, town.second)
    entry = Block(town.second, town.user_id(MEMBER), "", otto, 1.0)
    town.stage.store.blocks.add(entry)
    page = f"{SERVERS}/{town.first}"
    assert "Nobody is blocked." in (await operator.get(page)).text
    theirs = (await operator.get(f"{SERVERS}/{town.second}")).text
    assert f'data-label="Blocked by">{OTTO}<' in theirs
    answer = await operator.submit(
        f"{page}/lift", user=str(entry.user_id), persona="", guild=str(town.second)
    )
    assert answer.status == 404 and blocked(town, town.second)
    for user in ("", "x", "9" * 30):
        assert (await operator.submit(f"{page}/lift", user=user, persona="")).status == 404


async def test_many_blocks_have_pages(town, operator, monkeypatch):
    monkeypatch.setattr("bot.platform.discord_kit.member_names.MAX_FETCHED", 0)
    for number in range(PAGE_SIZE + 1):
        town.stage.store.blocks.add(Block(town.first, 1000 + number, "", 0, float(number)))
    page = f"{SERVERS}/{town.first}"
    first = (await operator.get(page)).text
    assert "member 1025" in first and "member 1000<" not in first, "the latest ones first"
    assert f'href="{page}?page=2"' in first and "somebody no longer known" in first
    second = (await operator.get(f"{page}?page=2")).text
    assert "member 1000" in second and "member 1001<" not in second and "?page=3" not in second
    assert (await operator.get(f"{page}?page=x")).status == 400


# ------------------------------------------------------------------------------------------- limits


async def test_limits_are_set_and_hold_and_are_the_commands(town, operator):
    audited(town)
    page = f"{SERVERS}/{town.first}"
    assert "Replies to a member have no limit here." in (await operator.get(page)).text
    given = LIMITS | {"per_day": "1", "exempts_moderators": "no"}
    answer = await operator.submit(f"{page}/limits", **SEEN, **given)
    assert (answer.status, answer.location) == (303, page), answer.text
    assert read_limits(town.stage.store, town.first) == ReplyLimits(1, None, False)
    shown = (await operator.get(page)).text
    assert "1 a day, from midnight in the server&#39;s time zone" in shown
    await town.stage.sees("The operator changed the replies (Replies to a member each day: 1")
    answer = await town.stage.moderator.slash(QUAY, "moderation limits", cooldown=30)
    assert "1 a day" in answer.message["content"]
    assert 'name="seen-cooldown_s" value="30"' in (await operator.get(page)).text
    mark = town.stage.mark
    await town.stage.member.say(QUAY, "one")
    await town.stage.finished(QUAY, mark)
    refused = await town.stage.member.slash(QUAY, "chat", message="two")
    assert "You have had the 1 reply" in refused.message["content"]
    assert read_limits(town.stage.store, town.second) == ReplyLimits()


async def test_a_limit_that_is_no_number_is_said_beside_its_field(town, operator):
    page = f"{SERVERS}/{town.first}"
    for text in ("x", "-1", "1.5", "10001", "9" * 30, "٣"):
        given = {"per_day": text, "cooldown_s": "20", "exempts_moderators": "no"}
        answer = await operator.submit(f"{page}/limits", **SEEN, **given)
        assert answer.status == 422 and 'id="per_day-error"' in answer.text
        assert "Write a whole number from 0 to 10000." in answer.text
        assert f'value="{text}"' in answer.text and 'value="20"' in answer.text
        assert '<option value="no" selected>' in answer.text
        assert 'href="#per_day">Replies to a member each day: ' in answer.text
    assert read_limits(town.stage.store, town.first) == ReplyLimits()


async def test_of_two_tabs_the_later_one_overwrites_no_limit_unseen(town, operator):
    audited(town)
    page = f"{SERVERS}/{town.first}/limits"
    assert (await operator.submit(page, **SEEN, **LIMITS | {"per_day": "5"})).status == 303
    late = await operator.submit(page, **SEEN, **LIMITS | {"per_day": "9"})
    assert (
        late.status == 409
        and "Somebody else has changed “Replies to a member each day” meanwhile" in late.text
    )
    assert 'value="9"' in late.text and 'name="seen-per_day" value="5"' in late.text
    other = await operator.submit(page, **SEEN, **LIMITS | {"cooldown_s": "7"})
    assert other.status == 303, "another field is not touched"
    assert read_limits(town.stage.store, town.first) == ReplyLimits(5, 7)
    same = await operator.submit(page, **SEEN, **LIMITS)
    assert same.status == 303 and read_limits(town.stage.store, town.first) == ReplyLimits(5, 7)
    seen = SEEN | {"seen-per_day": "5", "seen-cooldown_s": "7"}
    assert (await operator.submit(page, **seen, **LIMITS | {"per_day": "0"})).status == 303
    assert read_limits(town.stage.store, town.first) == ReplyLimits()


# ---------------------------------------------------------------------------- servers and direct messages


async def test_the_operator_has_a_page_for_each_server(town, operator):
    listed = (await operator.get(SERVERS)).text
    assert "Skerrow Harbour" in listed and "Breakwater" in listed
    assert SERVERS in (await operator.get("/dashboard/system/safety")).text
    page = f"{SERVERS}/{town.first}"
    await operator.submit(page, member=MEMBER, persona="")
    await operator.submit(f"{page}/limits", **SEEN, **LIMITS | {"per_day": "4"})
    listed = (await operator.get(SERVERS)).text
    assert 'data-label="Blocks">1<' in listed and "4 a day" in listed
    for server in ("1", "x", "9" * 19):
        assert (await operator.get(f"{SERVERS}/{server}")).status == 404


async def test_the_operator_blocks_and_limits_in_direct_messages(town, operator):
    audited(town)
    member_id = town.user_id(MEMBER)
    listed = (await operator.get(SERVERS)).text
    assert f'<a href="{SERVERS}/0">Direct messages and user installs</a>' in listed
    page = f"{SERVERS}/0"
    shown = (await operator.get(page)).text
    assert "Blocks and limits in direct messages and user installs" in shown
    assert "Moderators have no limit" not in shown and "Mutes, roles, age" not in shown
    for named, words in (
        ("", "Whom?"),
        (MEMBER, f"Nobody on Discord has the id {MEMBER}."),
        ("123456789012345678", "Nobody on Discord has the id 123456789012345678."),
        (str(town.stage.sandbox.bot_id), "Personas answer no bots anyway."),
    ):
        answer = await operator.submit(page, member=named, persona="")
        assert answer.status == 422 and words in answer.text, named
    answer = await operator.submit(page, member=str(member_id), persona="oda")
    assert (answer.status, answer.location) == (303, page), answer.text
    assert town.stage.store.blocks.applies(0, member_id, "oda") and not blocked(town)
    shown = (await operator.get(page)).text
    assert f'<th role="rowheader" scope="row" class="whose">{MEMBER}</th>' in shown
    limit = {"per_day": "3", "cooldown_s": "9"}
    seen = dict.fromkeys(("seen-per_day", "seen-cooldown_s"), "")
    assert (await operator.submit(f"{page}/limits", **seen, **limit)).status == 303
    assert read_limits(town.stage.store, 0).per_day == 3
    shown = (await operator.get(page)).text
    assert "3 a day, from midnight in the operator&#39;s time zone; one every 9 seconds." in shown
    lifted = {"user": str(member_id), "persona": "oda"}
    assert (await operator.submit(f"{page}/lift", **lifted)).status == 303
    late = await operator.submit(f"{page}/lift", **lifted)
    assert f"{MEMBER} is not blocked." in late.text and "/moderation blocks" not in late.text
    assert (await operator.get(f"{page}/rules")).status == 404
    assert (await operator.submit(f"{page}/rules/mute", persona="", channel="")).status == 404
    await operator.submit(f"{SERVERS}/{town.first}", member=MEMBER, persona="")
    await town.stage.sees("The operator blocked")
    said = str(town.stage.sandbox.events)
    assert "for Oda Marrow" not in said and "changed the replies" not in said, "no server's concern"


async def test_without_discord_the_operator_lifts_blocks_and_cannot_name_members(dashboard):
    store = dashboard.store
    assert "Direct messages and user installs" in (await dashboard.page(SERVERS))[1]
    store.blocks.add(Block(5, 7, "oda", 8, 1.0))
    assert "server 5" in (await dashboard.page(SERVERS))[1]
    assert "member 7" in (await dashboard.page(f"{SERVERS}/5"))[1]
    status, text, _ = await dashboard.submit(f"{SERVERS}/5", member="Tobias", persona="")
    assert status == 422 and "not connected to that server" in text and 'value="Tobias"' in text
    status, _, _ = await dashboard.submit(f"{SERVERS}/5/lift", user="7", persona="oda")
    assert status == 303 and store.blocks.of_guild(5) == []
    status, text, _ = await dashboard.submit(f"{SERVERS}/0", member="7" * 17, persona="")
    assert status == 422 and "not connected to Discord" in text
