"""The places for which a persona's replies can be set: all servers, a server, a channel."""

from collections.abc import Iterator
from dataclasses import dataclass

from bot.guild_settings.definitions import ANSWERING, GENERATION
from bot.guild_settings.registry import SettingGroup
from bot.guild_settings.store import NO_CHANNEL, SettingScope
from bot.personas.web.lookup import OwnedPersona, guild_name
from bot.platform.web_kit.problems import Problem
from bot.services import Services

MAX_ID = 2**63 - 1
"""Discord's ids are below 2**63, the largest that the database stores."""


@dataclass(frozen=True)
class ReplyPlace:
    """A place of a persona's replies: a channel, or all of a server (channel 0), or of all servers
    (server 0).
    """

    owned: OwnedPersona
    guild_id: int
    channel_id: int = NO_CHANNEL

    @property
    def key(self) -> str:
        """Text that `find_place` reads."""
        return f"{self.guild_id}-{self.channel_id}"

    @property
    def name(self) -> str:
        """The place for people."""
        services = self.owned.services
        if not self.guild_id:
            return "all servers"
        guild = guild_name(services, self.guild_id)
        if not self.channel_id:
            return guild
        return f"{_channel_name(services, self.guild_id, self.channel_id)} ({guild})"

    @property
    def scope(self) -> SettingScope:
        if self.channel_id:
            return SettingScope(self.guild_id, channel_id=self.channel_id)
        return SettingScope(self.guild_id, persona_id=self.owned.id)

    @property
    def groups(self) -> tuple[SettingGroup, ...]:
        """What can be set here: when it answers is a channel's."""
        return (GENERATION, ANSWERING) if self.channel_id else (GENERATION,)


def list_places(owned: OwnedPersona) -> list[ReplyPlace]:
    """List the places of a persona: all servers first, then servers and channels where it lives or
    has settings.
    """
    store = owned.services.store
    places = dict.fromkeys([(owned.guild_id, NO_CHANNEL)])
    for stored in store.settings.of_persona(owned.id):
        places[stored.scope.guild_id, NO_CHANNEL] = None
    for _, channel in store.channels.where_live([owned.id]):
        if channel.guild_id:  # a direct message's settings are those of all servers
            places[channel.guild_id, NO_CHANNEL] = None
            places[channel.guild_id, channel.channel_id] = None
    return [ReplyPlace(owned, guild, channel) for guild, channel in sorted(places)]


def find_place(
    owned: OwnedPersona, guild_id: int | None = None, channel_id: int | None = None
) -> ReplyPlace:
    """Find a place; without a server, all servers, or the persona's own. Raises `Problem` for a
    place where the persona does not live.
    """
    guild_id = guild_id or owned.guild_id
    if max(guild_id, channel_id or 0) > MAX_ID:
        raise Problem("not-found", "There is no server or channel with such an id.")
    place = ReplyPlace(owned, guild_id, channel_id or NO_CHANNEL)
    if owned.guild_id and guild_id != owned.guild_id:
        raise Problem("not-found", f"{owned.persona.name} is a persona of another server.")
    if guild_id and not _is_known(owned.services, guild_id):
        raise Problem(
            "not-found",
            f"The bot is in no server {guild_id}.",
            "Send the id of one of its servers, or leave it out for all.",
        )
    if place.channel_id:
        known_ids = [*_channel_ids(owned)]
        if f"{guild_id}/{place.channel_id}" not in known_ids:
            known = ", ".join(known_ids) or "none"
            raise Problem(
                "not-found",
                f"{owned.persona.name} lives in no channel {place.channel_id} of that server.",
                f"Its channels, as server/channel: {known}.",
            )
    return place


def _is_known(services: Services, guild_id: int) -> bool:
    if services.client and services.client.get_guild(guild_id):
        return True
    return guild_id in services.store.guilds.known()


def _channel_ids(owned: OwnedPersona) -> Iterator[str]:
    for _, channel in owned.services.store.channels.where_live([owned.id]):
        if channel.guild_id:
            yield f"{channel.guild_id}/{channel.channel_id}"


def _channel_name(services: Services, guild_id: int, channel_id: int) -> str:
    guild = services.client.get_guild(guild_id) if services.client else None
    channel = guild.get_channel_or_thread(channel_id) if guild else None
    if channel:
        return f"#{channel.name}"
    return f"channel {channel_id}"
