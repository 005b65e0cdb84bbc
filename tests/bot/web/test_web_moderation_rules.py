"""The operator's page of each server's muted personas, roles, and age-restricted personas."""

import json
import re

import pytest

from bot.demo_guild import MEMBER, MODERATOR
from bot.guild_settings.definitions import AUDIT_CHANNEL, IS_AGE_RESTRICTED
from bot.moderation.roles import MAX_ROLES
from bot.store import Mute
from personas.card.card_reader import parse_card
from tests.bot.conftest import OFFICE, QUAY
from tests.bot.web.two_servers import SERVERS
from tests.fakes import until
from tests.personas.cards import brought_in

OPERATORS_GUILD = 0


def page_of(town, guild_id=None):
    return f"{SERVERS}/{guild_id or town.first}/rules"


def muted(town, guild_id=None):
    """The channels (0: all) and personas (empty: all) that are muted in a server."""
    entries = town.stage.store.mutes.of_guild(guild_id or town.first)
    return [(entry.channel_id, entry.persona_id) for entry in entries]


def audited(town):
    AUDIT_CHANNEL.write(town.stage.store, town.channel_id(OFFICE, town.first), town.first)


def tagged(town, guild_id, name="Velvet"):
    """A persona whose card says that it is age-restricted; 0 stands for all servers."""
    data = {
        "name": name,
        "description": "Keeps the night bar.",
        "first_mes": "In.",
        "tags": ["R18"],
    }
    document = {"spec": "chara_card_v2", "spec_version": "2.0", "data": data}
    card = parse_card(json.dumps(document).encode(), "a test")
    return brought_in(town.stage.client.services.personas, guild_id, card).persona.id


def vanish(town, event, **data):
    """Delete something on Discord."""
    place = {"guild_id": str(town.first)}
    town.stage.sandbox._container.gateway.dispatch(event, place | data)


@pytest.fixture
def operator(town):
    return town.operator


# -------------------------------------------------------------------------------------------- mutes


async def test_a_mute_stops_the_reply_and_is_listed_and_lifted_as_by_the_command(town, operator):
    audited(town)
    page, quay = page_of(town), town.channel_id(QUAY, town.first)
    assert "No persona is muted." in (await operator.get(page)).text
    town.stage.engine.free.clear()
    await town.stage.member.say(QUAY, "a long story")
    running = town.stage.client.services.reply_service.running
    await until(lambda: any(reply.message.generated for reply in running.values()))
    answer = await operator.submit(f"{page}/mute", persona="ballast", channel=str(quay))
    assert (answer.status, answer.location) == (303, page), answer.text
    await town.stage.sees("· stopped")
    await town.stage.sees(f"The operator muted Ballast in <#{quay}>.")
    town.stage.engine.free.set()
    refused = await town.stage.member.slash(QUAY, "chat", message="anyone?")
    assert "silenced Ballast" in refused.message["content"]
    shown = (await operator.get(page)).text
    assert f"Muted: Ballast in #{QUAY}." in shown and "<time " in shown
    assert f'scope="row" class="whose">Ballast in #{QUAY}</th>' in shown
    assert "the operator, or somebody no longer known" in shown
    listed = await town.stage.member.slash(QUAY, "persona list")
    assert f"Muted: Ballast in <#{quay}>" in listed.message["content"]
    lifted = {"persona": "ballast", "channel": str(quay)}
    answer = await operator.submit(f"{page}/unmute", **lifted)
    assert (answer.status, answer.location) == (303, page) and muted(town) == []
    await town.stage.sees(f"The operator unmuted Ballast in <#{quay}>.")
    mark = town.stage.mark
    await town.stage.member.say(QUAY, "and now?")
    await town.stage.finished(QUAY, mark)


async def test_all_personas_or_one_are_muted_in_the_whole_server_as_the_command_says(
    town, operator
):
    page = page_of(town)
    assert (await operator.submit(f"{page}/mute", persona="", channel="")).status == 303
    assert "Muted: all personas in the whole server." in (await operator.get(page)).text
    await town.stage.moderator.slash(QUAY, "persona mute", where="server", persona="oda")
    shown = (await operator.get(page)).text
    for name in ("Oda Marrow", "all personas"):
        assert f'scope="row" class="whose">{name} in the whole server</th>' in shown
    assert f'data-label="Muted by">{MODERATOR}<' in shown
    answer = await town.stage.moderator.slash(QUAY, "persona unmute", where="server")
    assert "Unmuted: all personas" in answer.message["content"] and muted(town) == [(0, "oda")]


async def test_a_mute_that_another_has_lifted_is_said_and_the_others_stay(town, operator):
    page, quay = page_of(town), town.channel_id(QUAY, town.first)
    for persona in ("oda", ""):
        await operator.submit(f"{page}/mute", persona=persona, channel=str(quay))
    await town.stage.moderator.slash(QUAY, "persona unmute", persona="oda")
    late = await operator.submit(f"{page}/unmute", persona="oda", channel=str(quay))
    assert late.status == 404 and muted(town) == [(quay, "")]
    assert f"There is no such mute: Oda Marrow in #{QUAY}." in late.text
    assert f"Muted: all personas in #{QUAY}." in late.text
    await operator.submit(f"{page}/unmute", persona="", channel=str(quay))
    late = await operator.submit(f"{page}/unmute", persona="", channel=str(quay))
    assert late.status == 404 and "Muted: nothing." in late.text


async def test_what_cannot_be_muted_is_said_beside_its_field(town, operator):
    page = page_of(town)
    stranger = town.bring_in(town.second, "Lamplighter")
    boathouse = town.channel_id("boathouse", town.second)
    for persona, channel, field in (
        ("nobody", "", "persona"), (stranger, "", "persona"), ("oda", "x", "channel"),
        ("oda", "0", "channel"), ("oda", str(boathouse), "channel"),
    ):  # fmt: skip
        answer = await operator.submit(f"{page}/mute", persona=persona, channel=channel)
        assert answer.status == 422 and f'id="{field}-error"' in answer.text, (persona, channel)
        assert ('<option value="oda" selected>' in answer.text) == (persona == "oda")
    for channel in ("", "x", "9" * 30):
        answer = await operator.submit(f"{page}/unmute", persona="oda", channel=channel)
        assert answer.status == 404
    assert muted(town) == muted(town, town.second) == []


async def test_a_mute_of_a_channel_that_is_gone_is_shown_as_such_and_lifted(town, operator):
    page, quay = page_of(town), town.channel_id(QUAY, town.first)
    thread = int((await town.stage.member.thread(QUAY, "aside"))["id"])
    guild = town.stage.client.get_guild(town.first)
    await until(lambda: guild.get_thread(thread))
    assert "#aside</option>" in (await operator.get(page)).text
    for channel in (thread, quay):
        await operator.submit(f"{page}/mute", persona="oda", channel=str(channel))
    gone = town.stage.sandbox.channel(QUAY) | {"guild_id": town.first}
    for channel in (thread, quay):
        town.stage.sandbox._container.store.delete("channel", str(channel))
    vanish(town, "CHANNEL_DELETE", **gone)
    await until(lambda: guild.get_channel(quay) is None)
    shown = (await operator.get(page)).text
    assert f"Oda Marrow in channel {quay} (deleted or archived)" in shown
    assert f"#{QUAY}<" not in shown
    for channel in (thread, quay):
        answer = await operator.submit(f"{page}/unmute", persona="oda", channel=str(channel))
        assert answer.status == 303
    assert muted(town) == []


# -------------------------------------------------------------------------------------------- roles


async def test_a_role_that_is_added_may_and_one_that_is_removed_may_not(town, operator):
    audited(town)
    page, regular = page_of(town), town.role_id("Regular", town.first)
    shown = (await operator.get(page)).text
    assert "<p>everybody</p>" in shown and shown.count("<p>moderators alone</p>") == 2
    assert "@everyone" not in shown
    answer = await operator.submit(f"{page}/roles", action="talk", role=str(regular))
    assert (answer.status, answer.location) == (303, page), answer.text
    await town.stage.sees(f"The operator let <@&{regular}> talk with personas.")
    listed = await town.stage.moderator.slash(QUAY, "moderation roles", action="talk")
    assert listed.message["content"].endswith(f"<@&{regular}> and moderators")
    town.set_roles(MEMBER)
    refused = await town.stage.member.slash(QUAY, "chat", message="hello?")
    assert "You may not talk with personas here" in refused.message["content"]
    shown = (await operator.get(page)).text
    assert "<span>Regular</span>" in shown and "<p>everybody</p>" not in shown
    removed = {"action": "talk", "remove": str(regular), "seen": str(regular)}
    answer = await operator.submit(f"{page}/roles", **removed)
    assert answer.status == 303
    await town.stage.sees(f"no longer let <@&{regular}> talk with personas.")
    mark = town.stage.mark
    await town.stage.member.say(QUAY, "and now?")
    await town.stage.finished(QUAY, mark)
    late = await operator.submit(f"{page}/roles", action="talk", remove=str(regular))
    assert late.status == 409
    assert "Regular is not among the roles that may talk with personas." in late.text


async def test_two_who_remove_a_role_each_do_not_open_an_action_to_everybody(town, operator):
    page, roles = page_of(town), town.stage.store.action_roles
    both = {town.role_id(name, town.first) for name in ("Regular", "Silenced")}
    for role in both:
        roles.add(town.first, "talk", role)
    seen = ",".join(str(role) for role in sorted(both))
    assert f'name="seen" value="{seen}"' in (await operator.get(page)).text
    first, second = both
    form = {"action": "talk", "seen": seen}
    assert (await operator.submit(f"{page}/roles", **form, remove=str(first))).status == 303
    late = await operator.submit(f"{page}/roles", **form, remove=str(second))
    assert late.status == 409 and "Somebody else has changed the roles meanwhile." in late.text
    assert roles.get(town.first, "talk") == {second}


async def test_all_roles_are_removed_unless_another_has_changed_them_meanwhile(town, operator):
    audited(town)
    page, roles = page_of(town), town.stage.store.action_roles
    regular, silenced = (str(town.role_id(name, town.first)) for name in ("Regular", "Silenced"))
    await operator.submit(f"{page}/roles", action="train", role=regular)
    seen = re.findall(r'name="seen" value="([\d,]*)"', (await operator.get(page)).text)[0]
    await town.stage.moderator.slash(QUAY, "moderation roles", action="train", add=silenced)
    late = await operator.submit(f"{page}/roles", action="train", reset="yes", seen=seen)
    assert late.status == 409 and "Somebody else has changed the roles meanwhile." in late.text
    assert roles.get(town.first, "train") == {int(regular), int(silenced)}
    form = {"reset": "yes", "seen": re.findall(r'name="seen" value="([\d,]*)"', late.text)[0]}
    assert (await operator.submit(f"{page}/roles", action="train", **form)).status == 303
    assert roles.get(town.first, "train") == set()
    await town.stage.sees("removed all roles that may train personas.")


async def test_a_role_that_is_deleted_on_discord_is_shown_as_such_and_removed(town, operator):
    page, regular = page_of(town), town.role_id("Regular", town.first)
    await operator.submit(f"{page}/roles", action="teach", role=str(regular))
    vanish(town, "GUILD_ROLE_DELETE", role_id=str(regular))
    await until(lambda: town.stage.client.get_guild(town.first).get_role(regular) is None)
    shown = (await operator.get(page)).text
    assert f"<span>role {regular} (deleted)</span>" in shown and ">Regular<" not in shown
    answer = await operator.submit(f"{page}/roles", action="teach", role=str(regular))
    assert answer.status == 422 and "There is no such role here." in answer.text
    gone = {"remove": str(regular), "seen": str(regular)}
    answer = await operator.submit(f"{page}/roles", action="teach", **gone)
    assert answer.status == 303 and town.stage.store.action_roles.get(town.first, "teach") == set()


async def test_which_roles_cannot_be_added_is_said_and_nothing_is_changed(town, operator):
    page, roles = page_of(town), town.stage.store.action_roles
    regular = str(town.role_id("Regular", town.first))
    strange = str(town.role_id("Moderator", town.second))
    everyone = str(town.first)
    for action, role, field in (
        ("talk", strange, "role"), ("talk", everyone, "role"), ("talk", "", "role"),
        ("rule", regular, "action"),
    ):  # fmt: skip
        answer = await operator.submit(f"{page}/roles", action=action, role=role)
        assert answer.status == 422 and f'id="{field}-error"' in answer.text, (action, role)
    assert (await operator.submit(f"{page}/roles", action="talk", remove="x")).status == 404
    assert roles.get(town.first, "talk") == set()
    for number in range(MAX_ROLES):
        roles.add(town.first, "talk", number + 1)
    answer = await operator.submit(f"{page}/roles", action="talk", role=regular)
    assert answer.status == 409 and "which is the limit" in answer.text
    assert 'id="role-error"' in answer.text
    assert f'<option value="{regular}" selected>' in answer.text, "what was chosen stays"


# ---------------------------------------------------------------------------------------------- age


async def test_a_persona_is_marked_and_silent_and_the_mark_is_taken(town, operator):
    audited(town)
    page = page_of(town)
    town.stage.engine.free.clear()
    await town.stage.member.say(QUAY, "a long story")
    running = town.stage.client.services.reply_service.running
    await until(lambda: any(reply.message.generated for reply in running.values()))
    answer = await operator.submit(f"{page}/age", marked="ballast", restricted="yes")
    assert (answer.status, answer.location) == (303, page), answer.text
    await until(lambda: not running)
    await town.stage.sees("The operator marked **Ballast** as age-restricted.")
    town.stage.engine.free.set()
    shown = (await operator.get(page)).text
    assert "Ballast is age-restricted here." in shown
    assert "Moderators have marked it here." in shown and "Remove the mark of Ballast" in shown
    listed = await town.stage.moderator.slash(OFFICE, "moderation age")
    assert "Age-restricted here: **Ballast**." in listed.message["content"]
    answer = await operator.submit(f"{page}/age", marked="ballast", restricted="no")
    assert answer.status == 303
    await town.stage.sees("marked **Ballast** as not age-restricted.")
    assert "Mark Ballast as age-restricted" in (await operator.get(page)).text
    mark = town.stage.mark
    await town.stage.member.say(QUAY, "and now?")
    await town.stage.finished(QUAY, mark)


async def test_the_tag_of_a_card_is_named_and_only_that_of_a_servers_own_is_overruled(
    town, operator
):
    page, shared = page_of(town), tagged(town, OPERATORS_GUILD, "Night Porter")
    own = tagged(town, town.first)
    shown = (await operator.get(page)).text
    assert shown.count("Its card has the tag R18.") == 2
    assert "Remove the mark of Velvet" in shown and "Remove the mark of Night Porter" not in shown
    answer = await operator.submit(f"{page}/age", marked=shared, restricted="no")
    assert answer.status == 409 and "Night Porter is a persona of all servers" in answer.text
    assert "The operator can remove the tag from the card." in answer.text
    assert (await operator.submit(f"{page}/age", marked=own, restricted="no")).status == 303
    shown = (await operator.get(page)).text
    assert "Its card has the tag R18. Moderators have taken the mark away here." in shown
    assert IS_AGE_RESTRICTED.by_persona(town.stage.store, town.first) == {own: False}
    stranger = town.bring_in(town.second, "Lamplighter")
    for marked in ("nobody", stranger, ""):
        answer = await operator.submit(f"{page}/age", marked=marked, restricted="yes")
        assert answer.status == 422 and "There is no such persona here." in answer.text
        assert 'href="#marked"' in answer.text
    for wanted in ({}, {"restricted": "maybe"}):
        answer = await operator.submit(f"{page}/age", marked=own, **wanted)
        assert answer.status == 422 and "Mark it, or take its mark?" in answer.text
    assert IS_AGE_RESTRICTED.by_persona(town.stage.store, town.first) == {own: False}


# ---------------------------------------------------------------------------------- without Discord


async def test_without_discord_the_operator_lifts_mutes_and_removes_roles(dashboard):
    store, page = dashboard.store, "/dashboard/moderation/5/rules"
    store.mutes.add(Mute(5, 77, "oda", 8, 1.0))
    store.action_roles.add(5, "train", 99)
    _, text, _ = await dashboard.page(page)
    assert "channel 77" in text and "role 99" in text
    status, _, _ = await dashboard.submit(f"{page}/unmute", persona="oda", channel="77")
    assert status == 303 and store.mutes.of_guild(5) == []
    status, _, _ = await dashboard.submit(f"{page}/roles", action="train", remove="99", seen="99")
    assert status == 303 and store.action_roles.get(5, "train") == set()
    IS_AGE_RESTRICTED.write(store, True, 6, persona_id="oda")
    _, text, _ = await dashboard.page("/dashboard/moderation")
    assert 'href="/dashboard/moderation/6"' in text and "moderation/5" not in text
