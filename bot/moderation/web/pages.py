"""`/dashboard/servers`: the pages of moderators who signed in with Discord.

Every handler gets a `GuildAccess`, and works on its server alone: ids of personas, channels, versions
and lines, wherever they come from, are looked up in that server.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from bot.answering.store import FIELDS, AnsweringSettings
from bot.answering.texts import NAMES, effective_lines, settings_text
from bot.answering.web.pages import CHOICES, HINTS, read_fields, setting_texts
from bot.chat.model_names import version_label
from bot.chat.places import GuildChannel, channel_ref
from bot.moderation.web.access import GuildAccess, MemberRoutes, accesses
from bot.moderation.web.lookup import (
    LIST_ADVICE,
    SERVER,
    channel_name,
    chosen_persona,
    server_path,
    speaking_version,
)
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy
from bot.platform.web_kit.auth import SignedInMember
from bot.platform.web_kit.problems import Problem, field_problem
from bot.platform.web_kit.request_body import changed_fields, errors_as_problems, read_form
from bot.platform.web_kit.templating import MEMBERS_HOME, redirect_to, render_page
from bot.schedules.web.ids import read_id
from bot.schedules.web.listing import (
    ListedSchedule,
    list_greetings,
    list_lines,
    list_trainings,
)
from bot.training.web.run_view import MEMBER_NAMES
from personas.schemas.chat import Persona

CHANNEL = f"{SERVER}/channels/{{channel_id}}"
SCHEDULES = f"{SERVER}/schedules"
routes = MemberRoutes()


@dataclass(frozen=True)
class ServerPersona:
    """A persona of a server, and the version that answers there."""

    persona: Persona
    is_own: bool
    live: str
    versions: int


@dataclass(frozen=True)
class ServerChannel:
    """A channel of a server that has personas: its name, whom it has, and what is set for it."""

    channel_id: int
    name: str
    personas: str
    settings: str


# ----------------------------------------------------------------------------------------- overview


@routes.add_list(f"GET {MEMBERS_HOME}")
async def get_servers_page(member: SignedInMember, request: web.Request) -> web.Response:
    """Page of a member's servers, with their personas."""
    found = await accesses(request, member)
    return render_page(
        request,
        "servers/list.html",
        title=gettext_lazy("Your servers"),
        member=member,
        servers=[(access, _personas(access)) for access in found],
    )


@routes.add(f"GET {SERVER}")
async def get_server_page(access: GuildAccess, request: web.Request) -> web.Response:
    """Page of a server: its personas, and, for its moderators, its channels, how many replies are
    reported, and the bot's face.
    """
    return _render_server(access, request)


@routes.add(f"POST {SERVER}/face")
async def post_face(access: GuildAccess, request: web.Request) -> web.Response:
    """Give the bot the face of a persona in a server, or its own back."""
    access.require()
    wanted = (await read_form(request)).get("face", "")
    faces = access.services.faces
    guild = access.guild
    by = access.member.id
    try:
        if not wanted:
            problem = await faces.take_off(guild, by)
            message = gettext_lazy("The bot has its own name and picture again.")
        else:
            persona = chosen_persona(access.services, access.guild_id, wanted, field="face")
            problem = await faces.choose(guild, persona, by)
            message = gettext_lazy("{persona} speaks as the bot itself.", persona=persona.name)
    except Problem as refused:
        return _render_server(access, request, given_face=wanted, problem=refused)
    except RefusedError as error:
        lacking = field_problem("face", error.message, error.advice)
        return _render_server(access, request, given_face=wanted, problem=lacking)
    if problem:
        message = gettext_lazy("It is stored. {problem}", problem=problem)
    return redirect_to(request, server_path(access), message)


def _render_server(
    access: GuildAccess,
    request: web.Request,
    *,
    given_face: str | None = None,
    problem: Problem | None = None,
) -> web.Response:
    services = access.services
    face = services.faces.state(access.guild_id)
    if given_face is None:
        given_face = face.persona.id if face.persona else ""
    return render_page(
        request,
        "servers/server.html",
        title=access.guild.name,
        problem=problem,
        labels={"face": gettext_lazy("The bot itself")},
        access=access,
        personas=_personas(access),
        channels=_channels(access) if access.is_moderator else [],
        reported=services.store.reports.count_replies(access.guild_id),
        face=face,
        given_face=given_face,
    )


def _personas(access: GuildAccess) -> list[ServerPersona]:
    versions = access.services.store.versions
    return [
        ServerPersona(
            persona=persona,
            is_own=access.owns(persona),
            live=version_label(speaking_version(access, persona)),
            versions=len(versions.installed(persona.id, access.guild_id)),
        )
        for persona in access.services.personas.of(access.guild_id).values()
    ]


def _channels(access: GuildAccess) -> list[ServerChannel]:
    """List the channels with personas that the member sees."""
    services = access.services
    listed = []
    for setting in services.store.channels.of_guild(access.guild_id):
        channel = access.guild.get_channel_or_thread(setting.channel_id)
        if isinstance(channel, GuildChannel) and access.sees(channel):
            stored = services.store.answering.get(access.guild_id, channel.id)
            listed.append(
                ServerChannel(
                    channel_id=channel.id,
                    name=f"#{channel.name}",
                    personas=", ".join(each.name for each in services.personas_of(setting)),
                    settings=settings_text(stored),
                )
            )
    return listed


# ---------------------------------------------------------------------------------------- answering


@routes.add(f"GET {CHANNEL}")
async def get_channel_page(access: GuildAccess, request: web.Request) -> web.Response:
    """Page of when personas answer in a channel."""
    channel = _channel_in_path(access, request)
    return _render_channel(access, request, channel, given=_stored_texts(access, channel))


@routes.add(f"POST {CHANNEL}")
async def post_channel_form(access: GuildAccess, request: web.Request) -> web.Response:
    """Save the fields that the form changes; one that somebody else has changed meanwhile is
    refused.
    """
    channel = _channel_in_path(access, request)
    form = await read_form(request)
    given = {name: form.get(name, "").strip() for name in FIELDS}
    try:
        changes, seen = changed_fields(form, given, read_fields)
        if not changes:
            return redirect_to(
                request, _channel_path(access, channel), gettext_lazy("Nothing was changed.")
            )
        with errors_as_problems("conflict"):
            access.services.answering.change(
                access.guild_id, channel.id, changes, seen, by=access.member.id
            )
    except Problem as problem:
        return _render_channel(access, request, channel, given=given, problem=problem)
    message = gettext_lazy("It holds from the next message on.")
    return redirect_to(request, _channel_path(access, channel), message)


@routes.add(f"POST {CHANNEL}/reset")
async def post_channel_reset(access: GuildAccess, request: web.Request) -> web.Response:
    """Remove all that is set for a channel."""
    channel = _channel_in_path(access, request)
    try:
        with errors_as_problems("conflict"):
            access.services.answering.reset(access.guild_id, channel.id, by=access.member.id)
    except Problem as problem:
        given = _stored_texts(access, channel)
        return _render_channel(access, request, channel, given=given, problem=problem)
    return redirect_to(request, _channel_path(access, channel), gettext_lazy("It is reset."))


def _channel_in_path(access: GuildAccess, request: web.Request) -> GuildChannel:
    access.require()
    advice = gettext_lazy("The server's page lists the channels.")
    channel_id = read_id(request.match_info["channel_id"], advice)
    return access.require_channel(channel_id)


def _channel_path(access: GuildAccess, channel: GuildChannel) -> str:
    return f"{server_path(access)}/channels/{channel.id}"


def _stored_texts(access: GuildAccess, channel: GuildChannel) -> dict[str, str]:
    return setting_texts(access.services.store.answering.get(access.guild_id, channel.id))


def _render_channel(
    access: GuildAccess,
    request: web.Request,
    channel: GuildChannel,
    *,
    given: Mapping[str, str],
    problem: Problem | None = None,
) -> web.Response:
    services = access.services
    place = channel_ref(channel)
    held = services.answering.in_channel(place.guild_id, place.channel_id, place.parent_id)
    stored = services.store.answering.get(access.guild_id, channel.id)
    return render_page(
        request,
        "servers/channel.html",
        title=gettext_lazy(
            "#{channel} in {server}", channel=channel.name, server=access.guild.name
        ),
        problem=problem,
        access=access,
        channel=channel,
        personas=[persona.name for persona in services.personas_in(place)],
        holds=effective_lines(held),
        names=NAMES,
        hints=HINTS,
        choices=CHOICES,
        given=given,
        seen=setting_texts(stored),
        is_set=stored != AnsweringSettings(),
    )


# ---------------------------------------------------------------------------------------- schedules


@routes.add(f"GET {SCHEDULES}")
async def get_schedules_page(access: GuildAccess, request: web.Request) -> web.Response:
    """Page of what is done at set times in a server: trainings for those who may train, lines and
    greetings for moderators.
    """
    access.require("train")
    services = access.services
    trainings = list_trainings(services, guild_id=access.guild_id)
    lines = list_lines(services, guild_id=access.guild_id) if access.is_moderator else []
    greetings = list_greetings(services, guild_id=access.guild_id) if access.is_moderator else []
    shown: list[ListedSchedule] = [*trainings, *lines, *greetings]
    names = await request.app[MEMBER_NAMES].names_of(
        services.client, [listed.member for listed in shown if listed.member[1]]
    )
    return render_page(
        request,
        "servers/schedules.html",
        title=gettext_lazy("At set times in {server}", server=access.guild.name),
        access=access,
        trainings=trainings,
        lines=lines,
        greetings=greetings,
        names=names,
        channel_name=lambda channel_id: channel_name(access, channel_id),
    )


@routes.add(f"POST {SCHEDULES}/trainings/remove")
async def post_training_removal(access: GuildAccess, request: web.Request) -> web.Response:
    access.require("train")
    persona_id = (await read_form(request)).get("persona", "")
    with errors_as_problems("not-found"):
        access.services.scheduled_trainings.remove(access.guild_id, persona_id, by=access.member.id)
    return _removed(access, request)


@routes.add(f"POST {SCHEDULES}/lines/remove")
async def post_line_removal(access: GuildAccess, request: web.Request) -> web.Response:
    access.require()
    number = read_id((await read_form(request)).get("number", ""), LIST_ADVICE)
    with errors_as_problems("not-found"):
        access.services.scheduled_lines.remove(access.guild_id, number, by=access.member.id)
    return _removed(access, request)


@routes.add(f"POST {SCHEDULES}/greetings/remove")
async def post_greeting_removal(access: GuildAccess, request: web.Request) -> web.Response:
    access.require()
    await read_form(request)
    with errors_as_problems("not-found"):
        access.services.member_greetings.remove(access.guild_id, by=access.member.id)
    return _removed(access, request)


def _removed(access: GuildAccess, request: web.Request) -> web.Response:
    return redirect_to(request, f"{server_path(access)}/schedules", gettext_lazy("It is removed."))
