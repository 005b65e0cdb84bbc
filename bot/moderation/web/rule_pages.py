"""`/dashboard/moderation/ID/rules`: a server's muted personas, roles and age restrictions."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import discord
from aiohttp import web

from bot.guild_settings.definitions import IS_AGE_RESTRICTED
from bot.moderation.age import age_tag
from bot.moderation.roles import ACTION_TITLES, ACTIONS, DEFAULT_HOLDERS, Action
from bot.moderation.texts import AGE_HELP, FINETUNE_HELP, mute_text
from bot.moderation.web.moderated_server import (
    LIST_ADVICE,
    SERVER,
    SERVERS_ADVICE,
    ModeratedServer,
    server_in_path,
)
from bot.platform.request_origin import OPERATOR_ORIGIN
from bot.platform.web_kit.app_context import Routes
from bot.platform.web_kit.problems import Problem, field_problem
from bot.platform.web_kit.request_body import Form, errors_as_problems, read_form, read_id
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.store import ALL_CHANNELS, ALL_PERSONAS
from bot.training.web.run_view import MEMBER_NAMES
from personas.schemas.chat import Persona

RULES = f"{SERVER}/rules"
FIELDS = ("persona", "channel", "action", "role")
NOTHING_GIVEN: Mapping[str, str] = MappingProxyType(dict.fromkeys(FIELDS, ""))
ROLE_CHANGED = "The roles are changed."
routes = Routes()


@dataclass(frozen=True)
class ActionHolders:
    """Who may do something beside moderators: roles, by name; without one, `default`. `seen` are the
    ids of the roles, for the forms that remove them.
    """

    action: Action
    title: str
    default: str
    roles: list[tuple[int, str]]

    @property
    def seen(self) -> str:
        return ",".join(str(role_id) for role_id, _ in self.roles)


@dataclass(frozen=True)
class PersonaAge:
    """A persona, and whether and why it is age-restricted in a server. `can_change`: its mark can be
    set or taken there.
    """

    persona: Persona
    is_restricted: bool
    can_change: bool
    why: str


@routes.add(f"GET {RULES}")
async def get_rules(request: web.Request) -> web.Response:
    """Page of muted personas, of roles, and of age-restricted personas."""
    return await _render(request, _server_with_rules(request))


@routes.add(f"POST {RULES}/mute")
async def post_mute(request: web.Request) -> web.Response:
    """Silence the persona of the form, or all, in its channel or in all."""
    server = _server_with_rules(request)
    given = _given(await read_form(request))
    try:
        persona_id = ALL_PERSONAS
        if given["persona"]:
            persona_id = server.chosen_persona(given["persona"], field="persona").id
        muted = server.services.moderation.mute(
            server.guild_id,
            _chosen_channel(server, given["channel"]),
            persona_id,
            by=OPERATOR_ORIGIN.user_id,
        )
    except Problem as problem:
        return await _render(request, server, given=given, problem=problem)
    text = mute_text(server.services.personas, muted, server.channel_name)
    return redirect_to(request, server.rules_path, f"Muted: {text}.")


@routes.add(f"POST {RULES}/unmute")
async def post_unmute(request: web.Request) -> web.Response:
    """Lift exactly the mute of the form."""
    server = _server_with_rules(request)
    form = await read_form(request)
    try:
        channel_id = read_id(form.get("channel", ""), LIST_ADVICE)
        with errors_as_problems("not-found"):
            lifted = server.services.moderation.unmute(
                server.guild_id,
                channel_id,
                form.get("persona", ""),
                by=OPERATOR_ORIGIN.user_id,
                channel_name=server.channel_name,
            )
    except Problem as problem:
        return await _render(request, server, problem=problem)
    text = mute_text(server.services.personas, lifted, server.channel_name)
    return redirect_to(request, server.rules_path, f"Unmuted: {text}.")


@routes.add(f"POST {RULES}/roles")
async def post_roles(request: web.Request) -> web.Response:
    """Add the role of the form to those that may do something, remove one, or remove all that the
    form showed.
    """
    server = _server_with_rules(request)
    form = await read_form(request)
    given = _given(form)
    try:
        action = _chosen_action(given["action"])
        role_id = read_id(form.get("remove", "0"), LIST_ADVICE)
        is_reset = "reset" in form
        with errors_as_problems("conflict"):
            server.services.moderation.change_roles(
                server.guild_id,
                action,
                by=OPERATOR_ORIGIN.user_id,
                add=None if role_id or is_reset else _chosen_role(server, given["role"]),
                remove=discord.Object(role_id) if role_id else None,
                reset=is_reset,
                seen=_read_ids(form.get("seen", "")) if role_id or is_reset else None,
                name=server.role_name(role_id),
            )
    except Problem as problem:
        return await _render(request, server, given=given, problem=problem)
    return redirect_to(request, server.rules_path, ROLE_CHANGED)


@routes.add(f"POST {RULES}/age")
async def post_age(request: web.Request) -> web.Response:
    """Mark the persona of the form as age-restricted, or take its mark."""
    server = _server_with_rules(request)
    form = await read_form(request)
    wanted = form.get("restricted")
    try:
        persona = server.chosen_persona(form.get("marked", ""), field="marked")
        if wanted not in ("yes", "no"):
            raise field_problem("marked", "Mark it, or take its mark?")
        is_restricted = wanted == "yes"
        with errors_as_problems("conflict"):
            server.services.moderation.mark_age(
                server.guild_id,
                persona,
                is_restricted=is_restricted,
                by=OPERATOR_ORIGIN.user_id,
            )
    except Problem as problem:
        return await _render(request, server, problem=problem)
    message = f"{persona.name} is not age-restricted here."
    if is_restricted:
        message = f"{persona.name} is age-restricted here."
    return redirect_to(request, server.rules_path, message)


def _server_with_rules(request: web.Request) -> ModeratedServer:
    """Return the server of the address; direct messages have neither mutes nor roles. Raises
    `Problem`.
    """
    server = server_in_path(request)
    if not server.is_server:
        raise Problem("not-found", "There is no such server.", SERVERS_ADVICE)
    return server


def _given(form: Form) -> dict[str, str]:
    return {name: form.get(name, "") for name in NOTHING_GIVEN}


def _chosen_channel(server: ModeratedServer, text: str) -> int:
    """Return the id of a form's channel, or (empty) that of all. Raises `Problem`."""
    if not text:
        return ALL_CHANNELS
    for channel in server.channels():
        if str(channel.id) == text:
            return channel.id
    raise field_problem(
        "channel",
        "There is no such channel here.",
        "Choose another channel.",
    )


def _chosen_action(text: str) -> Action:
    """Return a form's action. Raises `Problem`."""
    for action in ACTIONS:
        if action == text:
            return action
    raise field_problem("action", "No action is named.", "Choose another one.")


def _chosen_role(server: ModeratedServer, text: str) -> discord.Role:
    """Return a form's role. Raises `Problem`."""
    for role in server.roles():
        if str(role.id) == text:
            return role
    raise field_problem("role", "There is no such role here.", "Choose another role.")


def _read_ids(text: str) -> set[int]:
    return {read_id(each, LIST_ADVICE) for each in text.split(",") if each}


def _holders(server: ModeratedServer, action: Action) -> ActionHolders:
    role_ids = server.services.store.action_roles.get(server.guild_id, action)
    return ActionHolders(
        action=action,
        title=ACTION_TITLES[action],
        default=DEFAULT_HOLDERS[action],
        roles=[(role_id, server.role_name(role_id)) for role_id in sorted(role_ids)],
    )


def _ages(server: ModeratedServer) -> list[PersonaAge]:
    services = server.services
    restriction = services.reply_service.rules.age
    marked = IS_AGE_RESTRICTED.by_persona(services.store, server.guild_id)
    ages = []
    for persona in services.personas.of(server.guild_id).values():
        reasons: list[str] = []
        if tag := age_tag(persona):
            reasons.append(f"Its card has the tag {tag}.")
        if persona.id in marked:
            text = "Moderators have taken the mark away here."
            if marked[persona.id]:
                text = "Moderators have marked it here."
            reasons.append(text)
        is_restricted = restriction.applies(persona, server.guild_id)
        can_change = not is_restricted or restriction.can_unmark(persona, server.guild_id)
        ages.append(PersonaAge(persona, is_restricted, can_change, " ".join(reasons)))
    return ages


async def _render(
    request: web.Request,
    server: ModeratedServer,
    *,
    given: Mapping[str, str] = NOTHING_GIVEN,
    problem: Problem | None = None,
) -> web.Response:
    services = server.services
    guild_id = server.guild_id
    mutes = services.store.mutes.of_guild(guild_id)[::-1]
    names = await request.app[MEMBER_NAMES].names_of(
        services.client, [(guild_id, each.muted_by) for each in mutes if each.muted_by]
    )
    return render_page(
        request,
        "servers/rules.html",
        title=f"Mutes, roles and age restrictions in {server.name}",
        problem=problem,
        server=server,
        mutes=[(each, mute_text(services.personas, each, server.channel_name)) for each in mutes],
        names=names,
        personas=list(services.personas.of(guild_id).values()),
        channels=server.channels(),
        holders=[_holders(server, action) for action in ACTIONS],
        roles=server.roles(),
        finetune_help=FINETUNE_HELP,
        ages=_ages(server),
        age_help=AGE_HELP,
        given=given,
    )
