"""Moderators on the web: rollouts and blind tests, as on Discord; and what each page takes."""

import itertools
import re
import time
from dataclasses import replace

import pytest

from bot.demo_guild import MEMBER, MODERATOR
from bot.moderation.roles import command_actions
from bot.moderation.store import Block
from bot.moderation.web.access import FORM_RECHECK_S, RECHECK_S
from bot.store import NewBlindComparison
from bot.web_server import MEMBER_ROUTES
from tests.bot.conftest import INN, OFFICE, QUAY
from tests.bot.web.moderator_stage import OTTO, SERVERS

NAME = "Marlow Finch"
NUMBERS = itertools.count()
GUILD = f"{SERVERS}/{{guild_id}}"
PERSONA = f"{GUILD}/personas/{{persona_id}}"
CARD = f"{PERSONA}/card"
LORE_FILE = f"{CARD}/lore/{{guild}}/{{file}}"
COMMANDS = {
    ("GET", GUILD): "finetune status",
    ("GET", PERSONA): "finetune history",
    ("GET", f"{PERSONA}/versions/{{version}}"): "finetune history",
    ("POST", f"{PERSONA}/promote"): "finetune promote",
    ("POST", f"{PERSONA}/rollback"): "finetune rollback",
    ("POST", f"{PERSONA}/rollout"): "finetune rollout start",
    ("POST", f"{PERSONA}/rollout/stop"): "finetune rollout stop",
    ("GET", f"{PERSONA}/compare"): "finetune compare",
    ("POST", f"{PERSONA}/compare"): "finetune compare",
    ("POST", f"{PERSONA}/compare/invite"): "finetune compare",
    ("POST", f"{PERSONA}/compare/vote"): "finetune compare",
    ("GET", f"{PERSONA}/compare/{{comparison}}"): "finetune judgement",
    ("GET", CARD): "persona import",
    ("POST", CARD): "persona import",
    ("GET", f"{CARD}/earlier/{{number}}"): "persona import",
    ("POST", f"{CARD}/earlier/{{number}}"): "persona import",
    ("GET", f"{CARD}/lore"): "persona lore add",
    ("POST", f"{CARD}/lore"): "persona lore add",
    ("POST", f"{CARD}/lore-sets/{{set}}"): "persona lore sets",
    ("GET", LORE_FILE): "persona lore add",
    ("POST", LORE_FILE): "persona lore add",
    ("POST", f"{LORE_FILE}/remove"): "persona lore remove",
    ("POST", f"{LORE_FILE}/bring-back"): "persona lore add",
    ("GET", f"{GUILD}/trainings"): "finetune status",
    ("GET", f"{GUILD}/trainings/{{job_id}}"): "finetune status",
    ("GET", f"{GUILD}/trainings/{{job_id}}/written"): "finetune status",
    ("POST", f"{GUILD}/trainings/{{job_id}}/written"): "finetune resume",
    ("POST", f"{GUILD}/trainings/{{job_id}}/cancel"): "finetune cancel",
    ("POST", f"{GUILD}/trainings/{{job_id}}/resume"): "finetune resume",
    ("GET", f"{GUILD}/train"): "finetune preview",
    ("POST", f"{GUILD}/train"): "finetune start",
    ("GET", f"{GUILD}/channels/{{channel_id}}"): "persona answering set",
    ("POST", f"{GUILD}/channels/{{channel_id}}"): "persona answering set",
    ("POST", f"{GUILD}/channels/{{channel_id}}/reset"): "persona answering set",
    ("GET", f"{GUILD}/schedules"): "finetune schedule list",
    ("POST", f"{GUILD}/schedules/trainings/remove"): "finetune schedule remove",
    ("POST", f"{GUILD}/schedules/lines/remove"): "persona line remove",
    ("POST", f"{GUILD}/schedules/greetings/remove"): "persona line remove",
    ("GET", f"{GUILD}/blocks"): "moderation blocks",
    ("POST", f"{GUILD}/blocks"): "moderation block",
    ("POST", f"{GUILD}/blocks/lift"): "moderation unblock",
    ("POST", f"{GUILD}/blocks/limits"): "moderation limits",
    ("GET", f"{GUILD}/rules"): "moderation roles",
    ("POST", f"{GUILD}/rules/mute"): "persona mute",
    ("POST", f"{GUILD}/rules/unmute"): "persona unmute",
    ("POST", f"{GUILD}/rules/roles"): "moderation roles",
    ("POST", f"{GUILD}/rules/age"): "moderation age",
    ("GET", f"{GUILD}/reports"): "moderation reports",
    ("POST", f"{GUILD}/reports/done"): "moderation reports",
    ("POST", f"{GUILD}/face"): "persona face",
}
"""The command whose permission each route of members takes."""


def filled(path, town, persona_id, version):
    """The address with what there is in the first server."""
    values = {
        "guild_id": town.first, "persona_id": persona_id, "version": version, "guild": town.first,
        "channel_id": town.channel_id(QUAY, town.first), "comparison": 1,
    }  # fmt: skip
    return re.sub(r"{(\w+)(?::[^}]*)?}", lambda found: str(values.get(found[1], "x")), path)


def routes():
    """The routes of members in a server, sorted; without the patterns of their parts."""
    found = {(method, re.sub(r":[^}]*}", "}", path)) for method, path in MEMBER_ROUTES}
    return sorted(route for route in found if "{guild_id}" in route[1])


@pytest.mark.parametrize("action", ["train", "promote"])
async def test_each_page_takes_the_permission_of_its_command(town, action):
    """Fails for a route that is not listed with its command above. Who may talk and teach may do
    nothing here by that.
    """
    persona_id = town.bring_in(town.first, NAME)
    version = town.install(persona_id, town.first)
    for each in ("talk", "teach", action):
        town.stage.store.action_roles.add(town.first, each, town.role_id("Regular", town.first))
    assert set(routes()) == COMMANDS.keys()
    browser = await town.signed_in(MEMBER)
    for method, path in routes():
        address = filled(path, town, persona_id, version)
        answer = await (browser.get(address) if method == "GET" else browser.submit(address))
        is_allowed = action in command_actions(COMMANDS[method, path])
        assert (answer.status != 403) == is_allowed, f"{method} {path} answers {answer.status}"


async def test_who_loses_the_role_is_refused_on_every_page(town):
    persona_id = town.bring_in(town.first, NAME)
    version = town.install(persona_id, town.first)
    browser = await town.signed_in(MODERATOR)
    home = f"{SERVERS}/{town.first}"
    assert (await browser.get(f"{home}/personas/{persona_id}/card")).status == 200
    town.set_roles(MODERATOR)
    town.time.now += FORM_RECHECK_S
    own = {"version": version, "share": "20", "persona": persona_id, "start": "yes", "ask": "Why?"}
    for method, path in routes():
        if method == "POST":
            address = filled(path, town, persona_id, version)
            assert (await browser.submit(address, **own)).status == 403, path
    town.time.now += RECHECK_S
    for _, path in routes():
        assert (await browser.get(filled(path, town, persona_id, version))).status == 403, path
    store = town.stage.store
    assert store.rollouts.of_persona(persona_id) == [] and store.jobs.in_state("queued") == []
    assert store.versions.live(persona_id, town.first) is None


async def test_a_version_is_tried_watched_and_stopped(town):
    persona_id = town.bring_in(town.first, NAME)
    version = town.install(persona_id, town.first)
    store, user_id = town.stage.store, town.user_id(MODERATOR)
    store.audit_channels.set(town.first, town.channel_id(OFFICE, town.first))
    quay = town.channel_id(QUAY, town.first)
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}/personas/{persona_id}"
    for given, words in (
        ({}, "Neither a share nor a channel"),
        ({"share": "100"}, "A share is a whole number from 1 to 99."),
        ({"share": "٢٠"}, "A share is a whole number from 1 to 99."),
        ({"only": str(quay)}, "does not live in #weighbridge-quay"),
        ({"share": "20", "channel": str(town.channel_id("boathouse", town.second))}, "channel"),
        ({"share": "20", "version": "v9"}, "has no version"),
    ):
        answer = await browser.submit(f"{page}/rollout", **{"version": version} | given)
        assert answer.status == 409 and words in answer.text, given
    answer = await browser.submit(f"{page}/rollout", version=version, share="20", channel=str(quay))
    assert (answer.status, answer.location) == (303, page), answer.text
    (rollout,) = store.rollouts.of_persona(persona_id)
    assert (rollout.share, rollout.channel_id, rollout.started_by) == (20, quay, user_id)
    await town.stage.sees(f"<@{user_id}> let {version} of **{NAME}** answer 20 %")
    shown = (await browser.get(page)).text
    assert "Tried now" in shown and "20 % of the replies in this server" in shown
    otto = await town.signed_in(OTTO)
    lamplighter = town.bring_in(town.second, "Lamplighter")
    other = f"{SERVERS}/{town.second}/personas/{lamplighter}/rollout/stop"
    assert (await otto.submit(other, rollout=str(rollout.seq))).status == 409
    assert store.rollouts.get(rollout.seq).ended_at is None
    answer = await browser.submit(f"{page}/rollout/stop", rollout=str(rollout.seq))
    assert (answer.status, answer.location) == (303, page), answer.text
    assert store.rollouts.get(rollout.seq).ending == "stopped"
    await town.stage.sees(f"<@{user_id}> stopped the rollout of {version}")


async def test_two_versions_are_compared_blindly(town):
    town.stage.engine.script = lambda request: [f"Take {next(NUMBERS)}."]
    persona_id = town.bring_in(town.first, NAME)
    version = town.install(persona_id, town.first)
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}/personas/{persona_id}/compare"
    pair = {"version": version, "against": "base"}
    assert "Show me two replies" in (await browser.get(page)).text
    answer = await browser.submit(page, **pair)
    assert answer.status == 303 and answer.location.startswith(page), answer.text
    shown = (await browser.get(answer.location.partition("#")[0])).text
    assert shown.count("Take ") == 2 and "A was" not in shown
    number = re.search(r'name="comparison" value="(\d+)"', shown)[1]
    # Another persona's, one of theirs in another server, and another member's are not found.
    comparisons = town.stage.store.comparisons
    elsewhere = NewBlindComparison(
        town.second, "oda", town.user_id(MODERATOR), "p", "Hm?", "v1", None, "One.", "Two.", 1, 2
    )
    seqs = [int(number)]
    for new in (elsewhere, replace(elsewhere, guild_id=town.first, user_id=5)):
        seqs.append(comparisons.show(new, time.time()).seq)
    others = f"{SERVERS}/{town.first}/personas/oda/compare"
    for seq in seqs:
        voted = await browser.submit(f"{others}/vote", comparison=str(seq), choice="a")
        assert voted.status == 404 and comparisons.get(seq).choice is None
        assert (await browser.get(f"{others}/{seq}")).status == 404
    assert (await browser.get(f"{page}/{number}")).status == 409, "before the vote"
    voted = await browser.submit(f"{page}/vote", comparison=number, choice="a")
    assert (voted.status, voted.location) == (303, f"{page}/{number}"), voted.text
    revealed = (await browser.get(voted.location)).text
    assert "Your vote" in revealed and version in revealed and "1 by 1 person" in revealed
    assert comparisons.get(int(number)).guild_id == town.first
    inn = town.channel_id(INN, town.first)
    invited = await browser.submit(f"{page}/invite", **pair, channel=str(inn))
    assert invited.status == 303, invited.text
    await town.stage.sees(f"Which {NAME} is better?")
    for channel in ("", str(town.channel_id("boathouse", town.second))):
        answer = await browser.submit(f"{page}/invite", **pair, channel=channel)
        assert answer.status == 409 and "channel" in answer.text
    town.stage.store.blocks.add(Block(town.first, town.user_id(MODERATOR), persona_id, 5, 1.0))
    refused = await browser.submit(page, **pair)
    assert refused.status == 409 and "does not answer you here" in refused.text
    voted = await browser.submit(f"{page}/vote", comparison=number, choice="b")
    assert voted.status == 403 and "does not answer you here" in voted.text
    services = town.stage.client.services
    persona = services.personas.get(persona_id, town.first)
    services.reply_service.rules.age.set(persona, town.first, is_restricted=True)
    refused = await browser.get(page)
    assert refused.status == 403 and "age-restricted" in refused.text


async def test_names_in_refusals_are_shown_as_they_are(town):
    persona_id = town.bring_in(town.first, "Ida *Star* Lund")
    version = town.install(persona_id, town.first)
    browser = await town.signed_in(MODERATOR)
    muted = await browser.submit(f"{SERVERS}/{town.first}/rules/mute", persona=persona_id)
    assert muted.status == 303, muted.text
    refused = await browser.submit(
        f"{SERVERS}/{town.first}/personas/{persona_id}/compare/invite",
        version=version,
        against="base",
        channel=str(town.channel_id(INN, town.first)),
    )
    assert refused.status == 409 and "has silenced Ida *Star* Lund here" in refused.text
    rolled_back = await browser.submit(f"{SERVERS}/{town.first}/personas/{persona_id}/rollback")
    assert "Ida *Star* Lund has no earlier version" in rolled_back.text
    nowhere = await browser.submit(
        f"{SERVERS}/{town.first}/personas/{persona_id}/rollout",
        version=version,
        only=str(town.channel_id(QUAY, town.first)),
    )
    assert "Ida *Star* Lund does not live in #" in nowhere.text
