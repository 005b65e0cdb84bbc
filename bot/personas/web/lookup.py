"""Finds the persona and version that an address names, their status, and the channels where a
persona speaks.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from bot.personas.base_model_compat import explain_unserved
from bot.platform.request_origin import OPERATOR_ORIGIN, RequestOrigin
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import errors_as_problems
from bot.services import Services
from bot.store import ALL_GUILDS, Channel, InstalledVersion, TrainingJob
from bot.versions.actions import PromotionResult, RollbackResult
from bot.versions.adapter_import import import_adapter_version
from personas.home.external_adapter import HUB_PREFIX
from personas.home.hub_download import HUB_ID_PATTERN
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.lore.passages import is_lore_set
from personas.schemas.chat import CardChoice, Persona

MAX_LISTED_NAMES = 20
MAX_CHOICES = 100


@dataclass(frozen=True)
class OwnedPersona:
    """A persona and the server that owns it; 0 for a persona of all servers."""

    services: Services
    guild_id: int
    persona: Persona

    @property
    def id(self) -> str:
        return self.persona.id

    @property
    def page(self) -> str:
        return f"/dashboard/personas/{self.id}"

    @property
    def is_lore_set(self) -> bool:
        """True if it stands for a set of lore that several personas share."""
        return is_lore_set(self.id)

    @property
    def is_edited(self) -> bool:
        """True if the operator's copy replaces the shipped card."""
        personas = self.services.personas
        return personas.ships(self.id) and personas.has_copy(self.id)

    @property
    def ships(self) -> bool:
        return self.is_lore_set or self.services.personas.ships(self.id)

    @property
    def owner(self) -> str:
        if self.guild_id:
            return guild_name(self.services, self.guild_id)
        if self.is_edited or not self.ships:
            return "the operator"
        return "came with the bot"

    async def install_dialogue(self, name: str) -> str:
        """Install a dialogue adapter as a version, for the operator. Raises `Problem`."""
        with errors_as_problems("conflict"):
            adapter = self.services.catalogue.find_dialogue_adapter(name)
            return await self.services.versions.install_dialogue(self.id, adapter, OPERATOR_ORIGIN)

    async def import_adapter(
        self, source: str, say: Callable[[str], None] = lambda text: None
    ) -> tuple[str, list[str]]:
        """Import an adapter from a hub, a folder or a zip for the operator; returns the version,
        and notes.

        Raises `AdapterError` and `BaseModelError`.
        """
        services = self.services
        origin = RequestOrigin(self.guild_id, channel_id=0, user_id=OPERATOR_ORIGIN.user_id)
        version, notes, job = await import_adapter_version(
            services.home,
            services.store,
            base_model=services.base_model,
            origin=origin,
            persona_id=self.id,
            source=source,
            say=say,
        )
        if job:
            services.versions.record_import(job)
        return version, notes

    async def promote(self, installed: InstalledVersion, *, anyway: bool) -> PromotionResult:
        """Make a version live for the operator. Raises `Problem`."""
        with errors_as_problems("conflict"):
            return await self.services.versions.promote(
                self.id, installed.version, OPERATOR_ORIGIN, anyway=anyway
            )

    def choose_card(self, installed: InstalledVersion, card: CardChoice) -> bool:
        """Choose the card of a version's prompts. Returns False when it has that one already.
        Raises `Problem`.
        """
        with errors_as_problems("conflict"):
            return self.services.versions.choose_card(self.id, installed.version, card)

    def roll_back(self) -> RollbackResult:
        """Restore the version before the operator's live one. Raises `Problem` if there is none."""
        with errors_as_problems("conflict"):
            return self.services.versions.roll_back(self.persona, OPERATOR_ORIGIN)

    def require_removable(self, installed: InstalledVersion) -> TrainingJob:
        """Return the job of a version that can be deleted. Raises `Problem` if it is used or
        deleted already.
        """
        job = self.services.store.jobs.get(installed.job_id)
        if job is None:
            raise Problem(
                "conflict",
                f"{installed.version} of {self.id} is deleted already.",
            )
        with errors_as_problems("conflict"):
            self.services.versions.require_removable(job)
        return job

    async def remove_version(self, installed: InstalledVersion) -> None:
        """Delete a version for good. Raises `Problem` if it is used or deleted already."""
        job = self.require_removable(installed)
        with errors_as_problems("conflict"):
            await self.services.versions.remove(job)


def require_hub_name(services: Services, source: str) -> None:
    """Raise `Problem` unless this is the name of a repository, and the bot may fetch from a hub."""
    if not HUB_ID_PATTERN.fullmatch(source.removeprefix(HUB_PREFIX).partition("@")[0]):
        advice = "Send owner/name of a hub, or the path of a peft folder or a zip."
        raise Problem(
            "invalid-request",
            f"There is no adapter {source!r}.",
            advice,
        )
    if services.fetch_adapters == "off":
        raise Problem(
            "conflict",
            "This bot does not fetch adapters from a hub.",
            "Set FETCH_ADAPTERS to operator.",
        )


@dataclass(frozen=True)
class PersonaStatus:
    """The versions of a persona and their state.

    `live` is the version that was made live for all servers (None: the base model), `since` when
    (seconds since 1970), `speaks` the one that answers: another base model's version cannot.
    `live_by_guild` are the live versions of the servers that have their own, `spoken` all that
    answer, with their servers. `newest` is the latest that may be served.
    """

    live: str | None
    live_by_guild: dict[int, str]
    speaks: str | None
    since: float | None
    newest: InstalledVersion | None
    made_for: str | None
    versions: int
    spoken: tuple["SpokenVersion", ...] = ()
    faces: tuple["WornFace", ...] = ()

    @property
    def newest_is_live(self) -> bool:
        """True if the latest version is live in any server."""
        live = {self.live, *self.live_by_guild.values()}
        return self.newest is not None and self.newest.version in live

    @property
    def unserved(self) -> tuple[str, str]:
        """Why the live version cannot be served, and what to do; empty texts if it can."""
        if self.live and self.made_for:
            return explain_unserved(self.live, self.made_for)
        return "", ""


def owned_personas(services: Services) -> list[OwnedPersona]:
    """Every persona of every server, those of all servers first."""
    everybody = services.personas.everybody()
    return [OwnedPersona(services, guild_id, persona) for guild_id, persona in everybody]


def persona_choices(services: Services, find: str, *chosen: str) -> dict[str, Any]:
    """Template variables of a menu of `personas`: those with this text in id or name, and those
    that are chosen.

    A menu has at most `MAX_CHOICES`; `find` then says which, and `is_long` that there are more.
    """
    matching = services.personas.search(find)
    shown = [persona for _, persona in matching[:MAX_CHOICES]]
    listed = {persona.id for persona in shown}
    for persona_id in dict.fromkeys(chosen):
        entry = services.personas.find_owner(persona_id)
        if entry and persona_id not in listed:
            shown.append(entry[1])
    is_long = bool(find.strip()) or len(matching) > MAX_CHOICES
    return {"personas": shown, "find": find.strip(), "is_long": is_long}


def guild_name(services: Services, guild_id: int) -> str:
    guild = None
    if services.client:
        guild = services.client.get_guild(guild_id)
    return guild.name if guild else f"server {guild_id}"


def list_names(names: Iterable[str]) -> str:
    """Names for an error, with the number of those that are left out."""
    listed = list(names)
    text = ", ".join(listed[:MAX_LISTED_NAMES])
    if len(listed) > MAX_LISTED_NAMES:
        text += f" and {len(listed) - MAX_LISTED_NAMES:,} more"
    return text


def require_persona_in_path(request: web.Request) -> OwnedPersona:
    """The persona in the address. Raises `Problem` if there is none."""
    services = get_services(request)
    wanted = request.match_info["persona_id"]
    entry = services.personas.find_owner(wanted) or services.personas.find_short(wanted)
    if entry is None:
        known = list_names(persona.id for _, persona in services.personas.everybody())
        raise Problem(
            "not-found",
            f"There is no persona {wanted[:80]!r}.",
            f"There are: {known}.",
        )
    guild_id, persona = entry
    return OwnedPersona(services, guild_id, persona)


def require_lore_owner(request: web.Request) -> OwnedPersona:
    """The persona in the address, or the set of lore. Raises `Problem` if there is neither."""
    services = get_services(request)
    lore_set = services.lore_sets.sets.get(request.match_info["persona_id"])
    if lore_set:
        return OwnedPersona(services, OPERATOR_GUILD_ID, Persona(lore_set.id, lore_set.name))
    return require_persona_in_path(request)


def require_version_in_path(request: web.Request, owned: OwnedPersona) -> InstalledVersion:
    """The version in the address, even a withdrawn one. Raises `Problem` if there is none."""
    return require_version(owned, request.match_info["version"])


def require_version(owned: OwnedPersona, wanted: str) -> InstalledVersion:
    """A version of a persona, even a withdrawn one. Raises `Problem` if there is none."""
    installed = owned.services.store.versions.ever_installed(owned.id)
    for version in installed:
        if version.version == wanted:
            return version
    names = ", ".join(version.version for version in installed)
    advice = "Train a version first."
    if names:
        advice = f"There are: {names}."
    raise Problem(
        "not-found",
        f"{owned.persona.name} has no version {wanted[:80]!r}.",
        advice,
    )


def persona_status(services: Services, persona_id: str) -> PersonaStatus:
    versions = services.store.versions
    live = versions.live(persona_id, ALL_GUILDS)
    installed = versions.installed(persona_id)
    made_for = services.served_versions.incompatible.model_of(persona_id, live)
    since = None
    for change in versions.history(persona_id):
        if change.for_guild == ALL_GUILDS:
            since = change.at  # the latest one is the last
    return PersonaStatus(
        live=live,
        live_by_guild=versions.live_by_guild(persona_id),
        speaks=None if made_for else live,
        since=since,
        newest=installed[-1] if installed else None,
        made_for=made_for,
        versions=len(installed),
        spoken=tuple(spoken_versions(services, persona_id)),
        faces=tuple(worn_faces(services, persona_id)),
    )


@dataclass(frozen=True)
class WornFace:
    """A server in which the bot itself is to have a persona's face, and why Discord does not show
    it there; empty where it does.
    """

    server: str
    problem: str


def worn_faces(services: Services, persona_id: str) -> list[WornFace]:
    """List where the bot is to have a persona's face."""
    faces = []
    for guild_id in services.store.faces.guilds_of(persona_id):
        if services.client and services.client.get_guild(guild_id) is None:
            continue  # the bot has left
        state = services.faces.state(guild_id)
        faces.append(WornFace(guild_name(services, guild_id), state.problem))
    return faces


@dataclass(frozen=True)
class SpokenVersion:
    """A version that answers (None: the base model), and the servers in which it does; none of them
    for all servers without another one.
    """

    version: str | None
    servers: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return self.version or "base model"


def spoken_versions(services: Services, persona_id: str) -> list[SpokenVersion]:
    """List the versions of a persona that answer now, those of single servers first."""
    versions = services.store.versions
    other_model = services.served_versions.incompatible.model_of
    present = None  # all, before the client is connected
    if services.client:
        present = {guild.id for guild in services.client.guilds}

    def speaking(live: str | None) -> str | None:
        return None if other_model(persona_id, live) else live

    elsewhere = speaking(versions.live(persona_id, ALL_GUILDS))
    servers: dict[str | None, list[str]] = {}
    for guild_id, live in versions.live_by_guild(persona_id).items():
        version = speaking(live)
        if version != elsewhere and (present is None or guild_id in present):
            servers.setdefault(version, []).append(guild_name(services, guild_id))
    spoken = [SpokenVersion(version, tuple(names)) for version, names in servers.items()]
    owned = services.personas.find_owner(persona_id)
    if spoken and owned and owned[0]:  # the persona of one server speaks nowhere else
        return spoken
    return [*spoken, SpokenVersion(elsewhere)]


@dataclass(frozen=True)
class ChannelSummary:
    """A channel in which a persona speaks, and the version that answers there (None: the base
    model). `beside` names the other personas there, and the default; empty where there are none.
    """

    guild: str
    channel: str
    answers: str
    version: str | None
    beside: str = ""


def channels_by_persona(
    services: Services, persona_ids: Collection[str]
) -> dict[str, list[ChannelSummary]]:
    """Channels in which these personas speak, by their ids."""
    present = None  # all, before the client is connected
    if services.client:
        present = {guild.id for guild in services.client.guilds}
    by_persona: dict[str, list[Channel]] = {}
    for persona_id, channel in services.store.channels.where_live(persona_ids):
        if present is None or channel.guild_id in present:
            by_persona.setdefault(persona_id, []).append(channel)
    shown = [channel for channels in by_persona.values() for channel in channels]
    residents = services.store.channels.residents(shown)
    summaries = {}
    for persona_id, channels in by_persona.items():
        summaries[persona_id] = _summarise_channels(services, persona_id, channels, residents)
    return summaries


def _summarise_channels(
    services: Services,
    persona_id: str,
    channels: Sequence[Channel],
    residents: Mapping[int, Sequence[str]],
) -> list[ChannelSummary]:
    """Describe a persona's channels with two queries, however many there are; `residents` are all
    personas of each.
    """
    versions = services.store.versions
    live = versions.live(persona_id, ALL_GUILDS)
    own = versions.live_by_guild(persona_id)
    other_model = services.served_versions.incompatible.model_of
    summaries = []
    for channel in channels:
        version = own.get(channel.guild_id, live)
        if other_model(persona_id, version):
            version = None
        others = [other for other in residents[channel.channel_id] if other != persona_id]
        summary = _describe_channel(services, channel, version)
        if channel.persona_id != persona_id:
            summary = replace(summary, answers="answers when it is called")
        beside = _describe_others(services, channel, persona_id, others)
        summaries.append(replace(summary, beside=beside))
    return summaries


def _describe_others(
    services: Services, channel: Channel, persona_id: str, others: Sequence[str]
) -> str:
    """Name the other personas of a channel, and the default one among all."""
    names: list[str] = []
    for other in others:
        persona = services.personas.get(other, channel.guild_id)
        name = persona.name if persona else other
        is_default = other == channel.persona_id
        names.append(f"{name} (the default)" if is_default else name)
    if not names:
        return ""
    listed = names[-1]
    if names[:-1]:
        listed = f"{', '.join(names[:-1])} and {listed}"
    if channel.persona_id == persona_id:
        return f"as the default beside {listed}"
    return f"beside {listed}"


def _describe_channel(services: Services, channel: Channel, version: str | None) -> ChannelSummary:
    guild = None
    if services.client:
        guild = services.client.get_guild(channel.guild_id)
    place = None
    if guild:
        place = guild.get_channel_or_thread(channel.channel_id)
    answers = "answers when it is mentioned"
    if channel.answers == "everything":
        answers = "answers everything"
    return ChannelSummary(
        guild=guild_name(services, channel.guild_id),
        channel=f"#{place.name}" if place else "a channel that is gone",
        answers=answers,
        version=version,
    )


def live_in_servers(services: Services, persona_id: str) -> list[tuple[str, str]]:
    """Names of the servers with a live version of their own, and these versions."""
    own = services.store.versions.live_by_guild(persona_id)
    return [(guild_name(services, guild_id), version) for guild_id, version in own.items()]
