"""`/dashboard/moderation/ID`: whom personas do not answer in a server or in direct messages, and how
often they answer others.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from aiohttp import web

from bot.guild_settings.definitions import LIMITS, MODERATORS_EXEMPT
from bot.guild_settings.registry import Setting
from bot.guild_settings.store import SettingScope
from bot.guild_settings.web.forms import SettingField, read_values, setting_field, stored_texts
from bot.moderation.limits import read_limits
from bot.moderation.texts import limits_text, persona_text
from bot.moderation.web.moderated_server import (
    LIST_ADVICE,
    SERVER,
    ModeratedServer,
    server_in_path,
)
from bot.moderation.web.people import Person, find_people, is_named
from bot.platform.request_origin import OPERATOR_ORIGIN
from bot.platform.web_kit.app_context import Routes
from bot.platform.web_kit.paging import integer_query
from bot.platform.web_kit.problems import Problem, field_problem
from bot.platform.web_kit.request_body import changed_fields, errors_as_problems, read_form, read_id
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.training.web.run_view import MEMBER_NAMES

PAGE_SIZE = 25
MAX_CHOICES = 20
"""Members to choose from."""
MAX_PAGE = 10_000
NOTHING_GIVEN: Mapping[str, str] = MappingProxyType({"member": "", "persona": ""})
UNKNOWN_ADVICE = (
    "Write a name as Discord shows it, or its beginning; the id of whoever is no member any more."
)
ID_ADVICE = (
    "Write the id: with Discord's developer mode on, the menu of a person has “Copy User ID”."
)
routes = Routes()


@routes.add(f"GET {SERVER}")
async def get_blocks(request: web.Request) -> web.Response:
    """Page of who is blocked in a server, and of its limits."""
    return await _render(request, server_in_path(request))


@routes.add(f"POST {SERVER}")
async def post_block(request: web.Request) -> web.Response:
    """Block the member of the form, if it names one alone; else show those whom it may mean."""
    server = server_in_path(request)
    form = await read_form(request)
    given = {name: form.get(name, "").strip() for name in NOTHING_GIVEN}
    meant: Sequence[Person] = ()
    try:
        persona = None
        if given["persona"]:
            persona = server.chosen_persona(given["persona"], field="persona")
        found = await _find_people(server, given["member"])
        if len(found) != 1 or not is_named(found[0], given["member"]):
            meant = found
            raise field_problem("member", "Whom do you mean? Choose below.")
        with errors_as_problems("invalid-request"):
            blocked = server.services.moderation.block(
                server.guild_id, found[0], persona, by=OPERATOR_ORIGIN.user_id
            )
    except Problem as problem:
        return await _render(request, server, given=given, found=meant, problem=problem)
    whom = persona_text(server.services.personas, blocked.persona_id, server.guild_id)
    message = f"{found[0].display_name} is not answered by {whom} any more."
    return redirect_to(request, server.blocks_path, message)


@routes.add(f"POST {SERVER}/lift")
async def post_lift(request: web.Request) -> web.Response:
    """Lift exactly the block of the form."""
    server = server_in_path(request)
    form = await read_form(request)
    text = form.get("user", "")
    user_id = read_id(text.removeprefix("-"), LIST_ADVICE)
    if text.startswith("-"):  # the keyed id of somebody who is erased
        user_id = -user_id
    persona_id = form.get("persona", "")
    key = (server.guild_id, user_id)
    names = await request.app[MEMBER_NAMES].names_of(server.services.client, [key])
    try:
        with errors_as_problems("not-found"):
            server.services.moderation.unblock(
                server.guild_id, user_id, persona_id, by=OPERATOR_ORIGIN.user_id, name=names[key]
            )
    except Problem as problem:
        return await _render(request, server, problem=problem)
    whom = persona_text(server.services.personas, persona_id, server.guild_id)
    message = f"{names[key]} is answered again by {whom}."
    return redirect_to(request, server.blocks_path, message)


@routes.add(f"POST {SERVER}/limits")
async def post_limits(request: web.Request) -> web.Response:
    """Save the limits that the form changes; one that somebody else has changed meanwhile is
    refused.
    """
    server = server_in_path(request)
    form = await read_form(request)
    settings = _limit_settings(server)
    given = {setting.key: form.get(setting.key, "").strip() for setting in settings}
    try:
        changes, seen = changed_fields(form, given, lambda texts: read_values(settings, texts))
        if not changes:
            return redirect_to(request, server.blocks_path, "Nothing was changed.")
        with errors_as_problems("conflict"):
            server.services.guild_settings.change(
                LIMITS, SettingScope(server.guild_id), changes, seen, by=OPERATOR_ORIGIN.user_id
            )
    except Problem as problem:
        return await _render(request, server, given_limits=given, problem=problem)
    return redirect_to(request, server.blocks_path, "It holds from the next message on.")


async def _find_people(server: ModeratedServer, text: str) -> list[Person]:
    """Find those whom a form may mean. Raises `Problem` where there is nobody."""
    advice = UNKNOWN_ADVICE if server.is_server else ID_ADVICE
    if not text:
        raise field_problem("member", "Whom?", advice)
    client = server.services.client
    guild = server.guild
    if server.is_server and guild is None:
        raise field_problem("member", "This process is not connected to that server on Discord.")
    if client is None:
        raise field_problem("member", "This process is not connected to Discord.")
    with errors_as_problems("not-connected", field="member"):
        found = await find_people(client, guild, text)
    if not found:
        unknown = f"Nobody is called {text} here."
        if not server.is_server:
            unknown = f"Nobody on Discord has the id {text}."
        raise field_problem("member", unknown, advice)
    return found


def _limit_settings(server: ModeratedServer) -> list[Setting[Any]]:
    """List the limits that can be set: direct messages have no moderators."""
    settings = list(LIMITS.settings)
    if not server.is_server:
        settings.remove(MODERATORS_EXEMPT)
    return settings


def _limit_fields(server: ModeratedServer, given: Mapping[str, str] | None) -> list[SettingField]:
    stored = server.services.guild_settings.stored(LIMITS, SettingScope(server.guild_id))
    seen = stored_texts(stored)
    return [
        setting_field(
            setting,
            given=(given or seen)[setting.key],
            seen=seen[setting.key],
            hint=setting.hint,
            bounds=setting.bounds,
        )
        for setting in _limit_settings(server)
    ]


async def _render(
    request: web.Request,
    server: ModeratedServer,
    *,
    given: Mapping[str, str] = NOTHING_GIVEN,
    given_limits: Mapping[str, str] | None = None,
    found: Sequence[Person] = (),
    problem: Problem | None = None,
) -> web.Response:
    services = server.services
    guild_id = server.guild_id
    blocks = services.store.blocks.of_guild(guild_id)[::-1]
    number = integer_query(request, "page", 1, MAX_PAGE) or 1
    shown = blocks[(number - 1) * PAGE_SIZE : number * PAGE_SIZE]
    has_next = len(blocks) > number * PAGE_SIZE
    named = [user_id for each in shown for user_id in (each.user_id, each.blocked_by) if user_id]
    names = await request.app[MEMBER_NAMES].names_of(
        services.client, [(guild_id, user_id) for user_id in named]
    )
    limits = read_limits(services.store, guild_id)
    title = "Blocks and limits in direct messages and user installs"
    if server.is_server:
        title = f"Blocks and limits in {server.name}"
    return render_page(
        request,
        "servers/blocks.html",
        title=title,
        problem=problem,
        server=server,
        blocks=[
            (each, persona_text(services.personas, each.persona_id, guild_id)) for each in shown
        ],
        names=names,
        links={
            "first": server.blocks_path if number > 1 else "",
            "next": f"{server.blocks_path}?page={number + 1}" if has_next else "",
        },
        personas=list(services.personas.of(guild_id).values()),
        given=given,
        id_advice=ID_ADVICE,
        found=found[:MAX_CHOICES],
        is_cut=len(found) > MAX_CHOICES,
        limits=limits_text(limits, guild_id),
        limit_fields=_limit_fields(server, given_limits),
    )
