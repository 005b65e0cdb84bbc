"""Finds what the addresses and forms of members name: personas and channels of their server."""

from aiohttp import web

from bot.chat.places import GuildChannel
from bot.moderation.web.access import GuildAccess
from bot.personas.web.lookup import OwnedPersona
from bot.platform.localisation import gettext_lazy
from bot.platform.web_kit.problems import Problem, field_problem
from bot.platform.web_kit.templating import MEMBERS_HOME
from bot.schedules.web.ids import read_id
from bot.services import Services
from bot.store import InstalledVersion
from personas.schemas.chat import Persona

SERVER = f"{MEMBERS_HOME}/{{guild_id}}"
PERSONA = f"{SERVER}/personas/{{persona_id}}"
VERSION_ADVICE = gettext_lazy(
    "The page of the persona lists the versions that this server may use."
)
CHOICE_ADVICE = gettext_lazy("Choose one on the page.")
LIST_ADVICE = gettext_lazy("The page lists what there is.")


def not_answering_problem() -> Problem:
    """Return the problem of a page that Discord keeps waiting."""
    return Problem(
        "not-connected",
        gettext_lazy("Discord does not answer right now."),
        gettext_lazy("Try again in a minute."),
    )


class MembersPersona(OwnedPersona):
    """A persona of a server's own, for a member who may change it."""

    @property
    def page(self) -> str:
        return f"{self.versions_page}/card"

    @property
    def versions_page(self) -> str:
        return f"{self.server_page}/personas/{self.id}"

    @property
    def server_page(self) -> str:
        return f"{MEMBERS_HOME}/{self.guild_id}"


def server_path(access: GuildAccess) -> str:
    return f"{MEMBERS_HOME}/{access.guild_id}"


def persona_path(access: GuildAccess, persona: Persona) -> str:
    return f"{server_path(access)}/personas/{persona.id}"


def persona_in_path(access: GuildAccess, request: web.Request) -> Persona:
    """Return the persona of the address, its own or a shared one. Raises `Problem`."""
    return access.require_persona(request.match_info["persona_id"])


def own_persona_in_path(access: GuildAccess, request: web.Request, shared_advice: str) -> Persona:
    """Return the persona of the address, which has to be the server's own. Raises `Problem`."""
    persona = persona_in_path(access, request)
    if not access.owns(persona):
        raise Problem(
            "not-allowed",
            gettext_lazy("All servers share {persona}.", persona=persona.name),
            shared_advice,
        )
    return persona


def chosen_persona(services: Services, guild_id: int, persona_id: str, *, field: str) -> Persona:
    """Return the persona of a form's field, a server's own or a shared one. Raises `Problem`."""
    persona = services.personas.get(persona_id, guild_id)
    if persona is None:
        raise field_problem(
            field,
            gettext_lazy("There is no such persona here."),
            gettext_lazy("Choose another one."),
        )
    return persona


def require_version(access: GuildAccess, persona: Persona, wanted: str) -> InstalledVersion:
    """Return a version of a persona that the server may use. Raises `Problem`."""
    for installed in access.services.store.versions.installed(persona.id, access.guild_id):
        if installed.version == wanted:
            return installed
    raise Problem(
        "not-found",
        gettext_lazy(
            "{persona} has no version {version}.", persona=persona.name, version=repr(wanted[:20])
        ),
        VERSION_ADVICE,
    )


def speaking_version(access: GuildAccess, persona: Persona) -> str | None:
    """Return the version that answers in the server; None for the base model."""
    live = access.services.store.versions.live(persona.id, access.guild_id)
    incompatible = access.services.served_versions.incompatible
    return None if incompatible.model_of(persona.id, live) else live


def channel_name(access: GuildAccess, channel_id: int) -> str:
    """Return a channel's name as Discord shows it to the member."""
    channel = access.guild.get_channel_or_thread(channel_id)
    if channel is None:
        return gettext_lazy("channel {channel_id} (deleted or archived)", channel_id=channel_id)
    if isinstance(channel, GuildChannel) and access.sees(channel):
        return f"#{channel.name}"
    # Translators: it follows "in".
    return gettext_lazy("a channel that you do not see")


def channel_choices(access: GuildAccess) -> list[GuildChannel]:
    """List the channels with personas in which the member can write."""
    channels = []
    for setting in access.services.store.channels.of_guild(access.guild_id):
        channel = access.guild.get_channel_or_thread(setting.channel_id)
        if isinstance(channel, GuildChannel) and access.writes_in(channel):
            channels.append(channel)
    return channels


def chosen_channel(access: GuildAccess, text: str) -> GuildChannel | None:
    """Return the channel of a form's field; None where none is chosen. Raises `Problem`."""
    if not text:
        return None
    channel_id = read_id(text, CHOICE_ADVICE)
    for channel in channel_choices(access):
        if channel.id == channel_id:
            return channel
    raise Problem("not-found", gettext_lazy("There is no such channel here."), CHOICE_ADVICE)
