"""The pages of moderators who signed in with Discord: their servers alone, and what they may do
there on Discord; everything else is refused.
"""

import asyncio
import re
import time

import discord
import pytest

from bot.answering.store import AnsweringSettings
from bot.demo_guild import MEMBER, MODERATOR
from bot.moderation.web import access
from bot.moderation.web.access import FORM_RECHECK_S, RECHECK_S, MemberRoutes
from bot.platform.request_origin import RequestOrigin
from bot.schedules.store import MemberGreeting, ScheduledLine, TrainingSchedule
from bot.web_server import MEMBER_ROUTES, ROUTES
from sandbox.wire_faults import RequestFault
from tests.bot.conftest import OFFICE, QUAY
from tests.bot.retrainings import serve_another_model
from tests.bot.web.moderator_stage import (
    OTTO,
    SERVERS,
    SIGN_IN,
    TOKEN,
    UNSEEING,
)
from tests.fakes import until
from tests.samples import SCORECARD

JSON_TYPES = {"Accept": "application/json"}
PUBLIC = {
    ("GET", "/healthz"),
    ("GET", SIGN_IN),
    ("POST", SIGN_IN),
    ("POST", f"{SIGN_IN}/discord"),
    ("GET", f"{SIGN_IN}/discord/callback"),
    ("GET", "/dashboard/static/{name}"),
}
"""Routes that answer without any session."""
OF_EVERY_MEMBER = {("GET", SERVERS), ("POST", "/dashboard/sign-out")}
"""Routes of every member, in which no server is named. A further one takes a test of what it shows."""


def lamp(town):
    """A persona of the second server's own, with a version and its channel."""
    persona_id = town.bring_in(town.second, "Lamplighter")
    version = town.install(persona_id, town.second)
    channel_id = town.settle(town.second, "boathouse", persona_id)
    return persona_id, version, channel_id


def plan(town, guild_id, channel_id, persona_id):
    """A training, a line and a greeting of a server; returns the line's number."""
    store = town.stage.store
    place = {"guild_id": guild_id, "channel_id": channel_id, "set_by": 5, "set_at": time.time()}
    store.training_schedules.set(
        TrainingSchedule(
            0, persona_id=persona_id, options='{"recipe": "quick"}', weekdays=1, minute=60,
            new_samples=None, handled_at=time.time(), **place,
        )
    )  # fmt: skip
    line = store.scheduled_lines.add(
        ScheduledLine(
            0, weekdays=127, minute=60, prompt=f"greet {guild_id}", handled_at=time.time(), **place
        )
    )
    store.member_greetings.set(MemberGreeting(text=f"Ahoy {guild_id}", is_prompt=False, **place))
    return line.seq


def addresses(path, values):
    """The path with these values, and with "x" in the other places."""
    return re.sub(r"{(\w+)(?::[^}]*)?}", lambda found: str(values.get(found[1], "x")), path)


# ----------------------------------------------------------------------------------- default deny


async def test_of_all_routes_a_moderator_of_another_server_reaches_none(town):
    """Fails for a new route that is neither the operator's nor guarded by its server."""
    persona_id, version, channel_id = lamp(town)
    job_id = town.stage.store.versions.ever_installed(persona_id)[0].job_id
    values = {
        "guild_id": town.second, "persona_id": persona_id, "persona": persona_id,
        "version": version, "channel_id": channel_id, "job_id": job_id, "slug": "busy",
        "name": "index",
    }  # fmt: skip
    browser = await town.signed_in(MODERATOR)
    walked = 0
    for method, path, _ in ROUTES:
        if (method, path) in PUBLIC | OF_EVERY_MEMBER:
            continue
        for headers in ({}, JSON_TYPES, {"Accept": "text/event-stream"}):
            for each in {"GET": ("GET", "HEAD")}.get(method, (method,)):
                form = {"guild": str(town.second), "persona": persona_id, "version": version}
                own = {"Origin": browser.url, **headers}
                body = {"data": form, "headers": own} if method == "POST" else {"headers": headers}
                answer = await browser.ask(each, addresses(path, values), **body)
                if path == "/dashboard" and each == "GET" and answer.status == 303:
                    assert answer.location == SERVERS
                    continue
                assert answer.status == 403, f"{each} {path} answers {answer.status}"
                assert "Lamplighter" not in answer.text and "Breakwater" not in answer.text
                walked += 1
    assert walked > 3 * 200
    assert town.stage.store.versions.live(persona_id, town.second) is None


async def test_what_is_not_there_and_other_methods_are_refused_alike(town):
    browser = await town.signed_in(MODERATOR)
    for method, path in (
        ("GET", "/nowhere"),
        ("GET", "/dashboard/nowhere"),
        ("GET", f"{SERVERS}/{town.first}/nowhere"),
        ("DELETE", f"{SERVERS}/{town.first}"),
        ("PUT", "/personas/oda/card"),
        ("OPTIONS", "/v1/models"),
        ("TRACE", "/metrics"),
        ("GET", f"{SERVERS}/../system"),
        ("GET", f"/dashboard//servers/{town.first}"),
        ("GET", "/dashboard/%73ystem"),
        ("GET", "/dashboard/sign-out"),
    ):
        answer = await browser.ask(method, path)
        assert answer.status == 403, f"{method} {path} answers {answer.status}"


async def test_what_is_public_says_no_more_to_a_member(town):
    browser = await town.signed_in(MODERATOR)
    health = await browser.get("/healthz", headers=JSON_TYPES)
    assert health.text == '{"status":"ok"}' or '"jobs"' not in health.text
    page = await browser.get(SIGN_IN)
    assert page.status == 200 and 'name="token"' in page.text


async def test_the_refusal_is_a_page_that_leads_back_and_a_problem_for_programs(town):
    browser = await town.signed_in(MODERATOR)
    page = await browser.get("/dashboard/training")
    assert page.status == 403 and "operator&#39;s alone" in page.text
    assert f'href="{SERVERS}"' in page.text and "/dashboard/data" not in page.text
    problem = await browser.get("/finetune/jobs", headers=JSON_TYPES)
    assert problem.status == 403 and "/problems/not-allowed" in problem.text
    openai = await browser.get("/v1/models", headers=JSON_TYPES)
    assert openai.status == 403 and '"error"' in openai.text


async def test_the_operator_sees_all_and_has_no_use_for_these_pages(town):
    operator = town.browser()
    assert (await operator.submit(SIGN_IN, token=TOKEN)).status == 303
    assert (await operator.get("/dashboard/system")).status == 200
    assert (await operator.get("/metrics", headers=JSON_TYPES)).status == 200
    answer = await operator.get(f"{SERVERS}/{town.first}")
    assert answer.status == 404 and "for moderators" in answer.text
    bearer = {"Authorization": f"Bearer {TOKEN}", **JSON_TYPES}
    assert (await town.browser().get("/finetune/jobs", headers=bearer)).status == 200


def test_no_route_of_members_comes_without_a_guard():
    with pytest.raises(ValueError, match="names no server"):
        MemberRoutes().add("GET /dashboard/all")
    for method, path in MEMBER_ROUTES - OF_EVERY_MEMBER:
        assert path.startswith(f"{SERVERS}/{{guild_id}}"), f"{method} {path}"


@pytest.mark.parametrize(
    "guild_id", ["0", "-1", "1", "9" * 19, "9" * 40, "٧", "x", "1.0", "%00", "' or 1=1"]
)
async def test_a_server_that_is_none_is_refused_like_another_one(town, guild_id):
    browser = await town.signed_in(MODERATOR)
    refused = await browser.get(f"{SERVERS}/{town.second}")
    answer = await browser.get(f"{SERVERS}/{guild_id}")
    assert (answer.status, answer.text) == (403, refused.text)


async def test_discord_is_not_asked_about_servers_that_are_not_ones_own(town, monkeypatch):
    monkeypatch.setattr(access, "FETCH_TIMEOUT_S", 0.2)
    browser = await town.signed_in(MODERATOR)
    route = "GET /guilds/{guild_id}/members/{user_id}"
    town.stage.sandbox.fail_requests(route, RequestFault.HANGING, 1)
    assert (await browser.get(f"{SERVERS}/{town.second}")).status == 403
    assert (await browser.get(f"{SERVERS}/{town.first}")).status == 503, "here it is"


# --------------------------------------------------------------------------------- own pages


async def test_a_moderator_sees_their_server_with_its_personas_and_channels(town):
    lamp(town)
    own = town.bring_in(town.first, "Marlow Finch")
    browser = await town.signed_in(MODERATOR)
    page = (await browser.get(f"{SERVERS}/{town.first}")).text
    for words in ("Marlow Finch", "Ballast", "#weighbridge-quay", "shared by all servers", own):
        assert words in page, words
    assert "Lamplighter" not in page and "boathouse" not in page
    for section in ("/dashboard/training", "/dashboard/system", "/dashboard/data"):
        assert f'href="{section}"' not in page, "the navigation shows what they reach"
    otto = await town.signed_in(OTTO)
    page = (await otto.get(SERVERS)).text
    assert "Breakwater" in page and "Lamplighter" in page and "Skerrow" not in page


async def test_ids_of_another_server_are_not_found_in_ones_own(town):
    persona_id, version, channel_id = lamp(town)
    number = plan(town, town.second, channel_id, persona_id)
    own = town.bring_in(town.first, "Marlow Finch")
    town.install(own, town.first)
    browser = await town.signed_in(MODERATOR)
    home = f"{SERVERS}/{town.first}"
    for method, path, form in (
        ("GET", f"{home}/personas/{persona_id}", {}),
        ("POST", f"{home}/personas/{persona_id}/promote", {"version": version}),
        ("POST", f"{home}/personas/{persona_id}/rollback", {}),
        ("GET", f"{home}/channels/{channel_id}", {}),
        ("POST", f"{home}/channels/{channel_id}", {"wait_s": "3"}),
        ("POST", f"{home}/channels/{channel_id}/reset", {}),
        ("POST", f"{home}/schedules/trainings/remove", {"persona": persona_id}),
        ("POST", f"{home}/schedules/lines/remove", {"number": str(number)}),
        ("POST", f"{home}/schedules/greetings/remove", {"guild": str(town.second)}),
    ):
        if method == "GET":
            answer = await browser.get(f"{path}?guild={town.second}&guild_id={town.second}")
        else:
            form |= {"guild_id": str(town.second), "place": f"{town.second}-{channel_id}"}
            answer = await browser.submit(path, **form)
        assert answer.status == 404, f"{method} {path} answers {answer.status}"
        assert "Lamplighter" not in answer.text and "boathouse" not in answer.text
    store = town.stage.store
    assert store.versions.live(persona_id, town.second) is None
    assert store.answering.get(town.second, channel_id) == AnsweringSettings()
    assert store.training_schedules.get(town.second, persona_id)
    assert store.scheduled_lines.get(town.second, number)
    assert store.member_greetings.get(town.second)


async def test_a_version_goes_live_and_back_with_the_members_name_in_the_audit_channel(town):
    store = town.stage.store
    persona_id = town.bring_in(town.first, "Marlow Finch")
    v1, v2 = town.install(persona_id, town.first), town.install(persona_id, town.first)
    store.audit_channels.set(town.first, town.channel_id(OFFICE, town.first))
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}/personas/{persona_id}"
    shown = (await browser.get(page)).text
    assert f"Promote {v1}" in shown and f"Promote {v2}" in shown and " → " in shown
    for version in (v1, v2):
        answer = await browser.submit(f"{page}/promote", version=version)
        assert (answer.status, answer.location) == (303, page), answer.text
        assert store.versions.live(persona_id, town.first) == version
    assert "live here" in (await browser.get(page)).text
    user_id = town.user_id(MODERATOR)
    await town.stage.sees(f"<@{user_id}> made {v2} of **Marlow Finch** live")
    assert store.versions.history(persona_id)[-1].promoted_by == user_id
    answer = await browser.submit(f"{page}/rollback")
    assert answer.status == 303 and store.versions.live(persona_id, town.first) == v1
    await town.stage.sees(f"<@{user_id}> rolled **Marlow Finch** back to {v1}.")


async def test_a_rollback_to_another_base_models_version_says_who_answers(town):
    store = town.stage.store
    persona_id = town.bring_in(town.first, "Marlow Finch")
    for _ in range(2):
        version = town.install(persona_id, town.first)
        store.versions.promote(persona_id, version, 1, 1.0, guild_id=town.first)
    serve_another_model(town.stage.client.services, (persona_id, "v1"))
    store.audit_channels.set(town.first, town.channel_id(OFFICE, town.first))
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}/personas/{persona_id}"
    answer = await browser.submit(f"{page}/rollback")
    assert answer.status == 303 and store.versions.live(persona_id, town.first) == "v1"
    shown = (await browser.get(page)).text
    assert "the base model answers for Marlow Finch from the next reply on. v1 was made" in shown
    await town.stage.sees(
        "rolled **Marlow Finch** back to v1, instead of which the base model answers."
    )


async def test_a_rejected_version_takes_a_second_confirmation(town):
    rejected = SCORECARD.model_copy(update={"verdict": "reject", "reasons": ("It repeats.",)})
    persona_id = town.bring_in(town.first, "Marlow Finch")
    version = town.install(persona_id, town.first, card=rejected)
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}/personas/{persona_id}"
    answer = await browser.submit(f"{page}/promote", version=version)
    assert answer.status == 409 and "The gate rejects" in answer.text
    assert "It repeats." in answer.text and 'name="anyway" value="yes"' in answer.text
    assert town.stage.store.versions.live(persona_id, town.first) is None
    answer = await browser.submit(f"{page}/promote", version=version, anyway="yes")
    assert answer.status == 303
    assert town.stage.store.versions.live(persona_id, town.first) == version


@pytest.mark.parametrize("version", ["v9", "", "base model", "v1' --", "../v1"])
async def test_a_version_that_is_not_there_is_named_on_the_page(town, version):
    persona_id = town.bring_in(town.first, "Marlow Finch")
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}/personas/{persona_id}"
    answer = await browser.submit(f"{page}/promote", version=version)
    assert answer.status == 409 and "There is a problem" in answer.text


async def test_a_shared_persona_is_read_and_not_changed(town):
    lamp(town)
    mine, theirs = town.install("oda", town.first), town.install("oda", town.second)
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}/personas/oda"
    shown = (await browser.get(page)).text
    assert mine in shown and f"version-{theirs}" not in shown, "another server trained it"
    assert "/promote" not in shown and "/rollback" not in shown
    for path, form in (("promote", {"version": mine, "anyway": "yes"}), ("rollback", {})):
        answer = await browser.submit(f"{page}/{path}", **form)
        assert answer.status == 403 and "All servers share Oda" in answer.text
    for guild_id in (0, town.first, town.second):
        assert town.stage.store.versions.live("oda", guild_id) is None


async def test_the_heading_of_a_channel_agrees_with_the_number_of_its_personas(town):
    channel_id = town.channel_id(QUAY, town.first)
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}/channels/{channel_id}"
    assert "When Ballast answers</h2>" in (await browser.get(page)).text
    await town.stage.moderator.slash(QUAY, "persona set", persona="ballast", second="oda")
    assert "When Ballast, Oda Marrow answer</h2>" in (await browser.get(page)).text
    german = (await browser.follow(page, language="de")).text
    assert "Wann Ballast, Oda Marrow antworten</h2>" in german


async def test_answering_is_set_reset_and_not_overwritten(town):
    store = town.stage.store
    store.audit_channels.set(town.first, town.channel_id(OFFICE, town.first))
    channel_id = town.channel_id(QUAY, town.first)
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}/channels/{channel_id}"
    assert "#weighbridge-quay" in (await browser.get(page)).text
    answer = await browser.submit(page, wait_s="3", quiet_hours="22:00-07:00")
    assert (answer.status, answer.location) == (303, page)
    assert store.answering.get(town.first, channel_id).wait_s == 3
    await town.stage.sees(f"<@{town.user_id(MODERATOR)}> changed")
    late = await browser.submit(page, wait_s="5")
    assert late.status == 409 and "Somebody else has changed" in late.text
    wrong = await browser.submit(page, reply_chance="200", **{"seen-wait_s": "3"}, wait_s="3")
    assert wrong.status == 422 and 'id="reply_chance-error"' in wrong.text
    assert (await browser.submit(f"{page}/reset")).status == 303
    assert store.answering.get(town.first, channel_id) == AnsweringSettings()
    await town.stage.sees(f"<@{town.user_id(MODERATOR)}> reset when personas answer")


async def test_a_channel_without_a_persona_has_no_page(town):
    browser = await town.signed_in(MODERATOR)
    office = town.channel_id(OFFICE, town.first)
    town.stage.store.channels.clear(town.first, office)
    for channel_id in (office, "0", "x", "9" * 30):
        path = f"{SERVERS}/{town.first}/channels/{channel_id}"
        assert (await browser.get(path)).status == 404
        assert (await browser.submit(path, wait_s="3")).status == 404
    assert town.stage.store.answering.get(town.first, office) == AnsweringSettings()


async def test_a_channel_that_a_moderator_does_not_see_has_no_page_and_no_name(town):
    persona_id, _, channel_id = lamp(town)
    plan(town, town.second, channel_id, persona_id)
    home = f"{SERVERS}/{town.second}"
    browser = await town.signed_in(UNSEEING)  # she moderates, but a role hides all channels
    assert "boathouse" not in (await browser.get(home)).text
    assert (await browser.get(f"{home}/channels/{channel_id}")).status == 404
    assert (await browser.submit(f"{home}/channels/{channel_id}", wait_s="3")).status == 404
    shown = (await browser.get(f"{home}/schedules")).text
    assert f"greet {town.second}" in shown and "a channel that you do not see" in shown
    assert "boathouse" not in shown
    assert town.stage.store.answering.get(town.second, channel_id) == AnsweringSettings()


async def test_schedules_are_listed_and_removed(town):
    persona_id, _, channel_id = lamp(town)
    plan(town, town.second, channel_id, persona_id)
    number = plan(town, town.first, town.channel_id(QUAY, town.first), "ballast")
    store = town.stage.store
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}/schedules"
    shown = (await browser.get(page)).text
    for words in ("Ballast", f"greet {town.first}", f"Ahoy {town.first}", "#weighbridge-quay"):
        assert words in shown, words
    assert str(town.second) not in shown and "Lamplighter" not in shown
    for path, form in (
        ("trainings", {"persona": "ballast"}),
        ("lines", {"number": str(number)}),
        ("greetings", {"confirmed": ""}),
    ):
        answer = await browser.submit(f"{page}/{path}/remove", **form)
        assert (answer.status, answer.location) == (303, page)
        assert (await browser.submit(f"{page}/{path}/remove", **form)).status == 404, "it is gone"
    assert store.training_schedules.of_guild(town.first) == []
    assert store.scheduled_lines.of_guild(town.first) == []
    assert store.member_greetings.get(town.first) is None
    assert len(store.training_schedules.all()) == len(store.scheduled_lines.all()) == 1


async def test_forms_of_other_sites_are_refused(town):
    persona_id = town.bring_in(town.first, "Marlow Finch")
    version = town.install(persona_id, town.first)
    browser = await town.signed_in(MODERATOR)
    path = f"{SERVERS}/{town.first}/personas/{persona_id}/promote"
    for headers in ({}, {"Origin": "https://evil.example.org"}, {"Sec-Fetch-Site": "same-site"}):
        answer = await browser.ask("POST", path, data={"version": version}, headers=headers)
        assert answer.status == 403
    assert town.stage.store.versions.live(persona_id, town.first) is None


# --------------------------------------------------------------------------------- roles


async def test_who_loses_the_role_loses_the_pages_within_a_minute_and_forms_within_seconds(town):
    persona_id = town.bring_in(town.first, "Marlow Finch")
    version = town.install(persona_id, town.first)
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}"
    assert (await browser.get(page)).status == 200
    town.set_roles(MODERATOR)
    town.time.now += FORM_RECHECK_S
    answer = await browser.submit(f"{page}/personas/{persona_id}/promote", version=version)
    assert answer.status == 403
    assert town.stage.store.versions.live(persona_id, town.first) is None
    town.set_roles(MODERATOR, "Moderator")
    town.time.now += RECHECK_S
    assert (await browser.get(page)).status == 200, "and has them again with the role"
    town.set_roles(MODERATOR)
    town.time.now += RECHECK_S
    for path in (page, f"{page}/schedules", f"{page}/personas/ballast"):
        assert (await browser.get(path)).status == 403
    listed = await browser.get(SERVERS)
    assert listed.status == 200 and "Skerrow Harbour" not in listed.text
    assert "There is none any more." in listed.text


async def test_who_loses_the_role_while_a_form_is_sent_changes_nothing(town):
    persona_id = town.bring_in(town.first, "Marlow Finch")
    version = town.install(persona_id, town.first)
    browser = await town.signed_in(MODERATOR)

    parts = f"version={version}".encode(), b"&anyway=yes"

    async def slow_body():
        yield parts[0]
        await asyncio.sleep(0.2)
        town.set_roles(MODERATOR)
        town.time.now += FORM_RECHECK_S
        yield parts[1]

    headers = {
        "Origin": browser.url,
        "Sec-Fetch-Site": "same-origin",
        "Content-Type": "application/x-www-form-urlencoded",
        "Content-Length": str(len(parts[0]) + len(parts[1])),
    }
    page = f"{SERVERS}/{town.first}/personas/{persona_id}/promote"
    answer = await browser.ask("POST", page, data=slow_body(), headers=headers)
    assert answer.status == 403
    assert town.stage.store.versions.live(persona_id, town.first) is None


async def test_pages_at_once_ask_discord_once(town, monkeypatch):
    browser = await town.signed_in(MODERATOR)
    town.time.now += RECHECK_S
    asked = []
    fetch = discord.Guild.fetch_member

    async def counting(guild, user_id):
        asked.append(guild.id)
        await asyncio.sleep(0.05)
        return await fetch(guild, user_id)

    monkeypatch.setattr(discord.Guild, "fetch_member", counting)
    page = f"{SERVERS}/{town.first}"
    answers = await asyncio.gather(*(browser.get(page) for _ in range(8)))
    assert {answer.status for answer in answers} == {200} and asked == [town.first]


async def test_a_role_whose_permission_is_taken_back_opens_nothing(town):
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}"
    assert (await browser.get(page)).status == 200
    guild = town.stage.client.get_guild(town.first)
    role = guild.get_role(town.role_id("Moderator", town.first))
    sandbox = town.stage.sandbox
    shape = {**sandbox._container.guild.find_role(str(role.id)), "permissions": "0"}
    sandbox._container.gateway.dispatch(
        "GUILD_ROLE_UPDATE", {"guild_id": str(town.first), "role": shape}
    )
    await until(lambda: not guild.get_role(role.id).permissions.manage_guild)
    assert (await browser.get(page)).status == 403, "at once: the gateway tells of it"


async def test_who_leaves_the_server_loses_the_pages(town):
    browser = await town.signed_in(OTTO)
    page = f"{SERVERS}/{town.second}"
    assert (await browser.get(page)).status == 200
    town.stage.sandbox._shared.guilds[1].guild.remove_member(str(town.user_id(OTTO, town.second)))
    town.time.now += RECHECK_S
    assert (await browser.get(page)).status == 403


@pytest.mark.parametrize(
    "state", [{"communication_disabled_until": "2099-01-01T00:00:00+00:00"}, {"pending": True}]
)
async def test_whoever_can_give_no_command_on_discord_has_no_pages(town, state):
    role_id = town.role_id("Moderator", town.first)
    town.stage.store.action_roles.add(town.first, "promote", role_id)  # held meanwhile
    browser = await town.signed_in(MODERATOR)
    guild = town.stage.sandbox._container.guild
    user_id = str(town.user_id(MODERATOR))
    guild.store.put(guild._member_kind, guild.member(user_id) | state, user_id)
    town.time.now += RECHECK_S
    assert (await browser.get(f"{SERVERS}/{town.first}")).status == 403


async def test_a_role_opens_what_it_names_and_no_more(town):
    persona_id = town.bring_in(town.first, "Marlow Finch")
    version = town.install(persona_id, town.first)
    number = plan(town, town.first, town.channel_id(QUAY, town.first), "ballast")
    store = town.stage.store
    store.action_roles.add(town.first, "promote", town.role_id("Regular", town.first))
    browser = await town.signed_in(MEMBER)  # who has the role Regular
    home = f"{SERVERS}/{town.first}"
    page = (await browser.get(home)).text
    assert "Marlow Finch" in page and "/channels/" not in page and "/schedules" not in page
    for path in (f"{home}/channels/{town.channel_id(QUAY, town.first)}", f"{home}/schedules"):
        assert (await browser.get(path)).status == 403, path
    for path, form in (
        ("trainings/remove", {"persona": "ballast"}),
        ("lines/remove", {"number": str(number)}),
        ("greetings/remove", {"confirmed": ""}),
    ):
        assert (await browser.submit(f"{home}/schedules/{path}", **form)).status == 403
    answer = await browser.submit(f"{home}/personas/{persona_id}/promote", version=version)
    assert answer.status == 303 and store.versions.live(persona_id, town.first) == version
    store.action_roles.clear(town.first, "promote")
    store.action_roles.add(town.first, "train", town.role_id("Regular", town.first))
    answer = await browser.submit(f"{home}/personas/{persona_id}/rollback")
    assert answer.status == 403 and store.versions.live(persona_id, town.first) == version
    assert "/rollback" not in (await browser.get(f"{home}/personas/{persona_id}")).text
    page = (await browser.get(f"{home}/schedules")).text
    assert "Ballast" in page and "greet" not in page and "Ahoy" not in page
    removed = await browser.submit(f"{home}/schedules/lines/remove", number=str(number))
    assert removed.status == 403 and store.scheduled_lines.get(town.first, number)
    removed = await browser.submit(f"{home}/schedules/trainings/remove", persona="ballast")
    assert removed.status == 303 and store.training_schedules.of_guild(town.first) == []
    store.action_roles.clear(town.first, "train")
    assert (await browser.get(home)).status == 403, "the rules of the server are asked each time"


async def test_where_discord_does_not_say_who_somebody_is_nobody_is_let_in(town, monkeypatch):
    monkeypatch.setattr(access, "FETCH_TIMEOUT_S", 0.2)
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}"
    route = "GET /guilds/{guild_id}/members/{user_id}"
    town.stage.sandbox.fail_requests(route, RequestFault.HANGING, 1)
    answer = await browser.get(page)
    assert answer.status == 503 and "does not say right now" in answer.text
    assert (await browser.get(page)).status == 200


async def test_without_the_gateway_nobody_is_let_in(town, monkeypatch):
    browser = await town.signed_in(MODERATOR)
    assert (await browser.get(f"{SERVERS}/{town.first}")).status == 200
    monkeypatch.setattr(type(town.stage.client), "disconnected_s", 3600.0)
    assert (await browser.get(f"{SERVERS}/{town.first}")).status == 503
    assert (await browser.get(SERVERS)).status == 503


async def test_discord_is_asked_once_a_minute_for_each_server(town):
    browser = await town.signed_in(MODERATOR)
    for _ in range(3):
        assert (await browser.get(f"{SERVERS}/{town.first}")).status == 200
    town.stage.sandbox.fail_requests(
        "GET /guilds/{guild_id}/members/{user_id}", RequestFault.HANGING, 1
    )
    town.time.now += RECHECK_S - 1
    assert (await browser.get(f"{SERVERS}/{town.first}")).status == 200


async def test_on_discord_and_here_the_same_version_is_live(town):
    """The operator's version for all and a server's own are told apart, as `/finetune history` does."""
    persona_id = town.bring_in(town.first, "Marlow Finch")
    version = town.install(persona_id, town.first)
    versions = town.stage.client.services.versions
    await versions.promote(
        persona_id, version, RequestOrigin(town.first, 1, town.user_id(MODERATOR))
    )
    browser = await town.signed_in(MODERATOR)
    page = (await browser.get(f"{SERVERS}/{town.first}/personas/{persona_id}")).text
    assert f"<strong>{version}</strong> answers" in page
