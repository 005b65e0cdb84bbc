"""The server that an address of the operator's pages of moderation names."""

from __future__ import annotations

from dataclasses import dataclass

import discord
from aiohttp import web

from bot.chat.places import GuildChannel
from bot.guild_settings.definitions import IS_AGE_RESTRICTED, LIMITS
from bot.personas.web.lookup import guild_name
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.problems import Problem, field_problem
from bot.platform.web_kit.request_body import read_id
from bot.platform.web_kit.templating import DASHBOARD
from bot.services import Services
from personas.schemas.chat import Persona

SERVERS_PATH = f"{DASHBOARD}/moderation"
SERVER = f"{SERVERS_PATH}/{{guild_id}}"
DIRECT_MESSAGES = 0
"""The id that stands for a server: direct messages, and places where the bot is not."""
SERVERS_ADVICE = "The list of servers has those with the bot."
LIST_ADVICE = "The page lists what there is."


@dataclass(frozen=True)
class ModeratedServer:
    """A server or (`DIRECT_MESSAGES`) the talks outside servers."""

    services: Services
    guild_id: int

    @property
    def name(self) -> str:
        return moderated_name(self.services, self.guild_id)

    @property
    def is_server(self) -> bool:
        return self.guild_id != DIRECT_MESSAGES

    @property
    def blocks_path(self) -> str:
        return f"{SERVERS_PATH}/{self.guild_id}"

    @property
    def rules_path(self) -> str:
        return f"{self.blocks_path}/rules"

    @property
    def guild(self) -> discord.Guild | None:
        """The server on Discord; None where the bot is not in it, or not connected."""
        client = self.services.client
        return client.get_guild(self.guild_id) if client else None

    def chosen_persona(self, persona_id: str, *, field: str) -> Persona:
        """Return the persona of a form's field, the server's own or a shared one. Raises
        `Problem`.
        """
        persona = self.services.personas.get(persona_id, self.guild_id)
        if persona is None:
            raise field_problem(
                field,
                "There is no such persona here.",
                "Choose another one.",
            )
        return persona

    def channels(self) -> list[GuildChannel]:
        """List the channels with messages, in Discord's order, then their threads."""
        if self.guild is None:
            return []
        channels = [channel for _, group in self.guild.by_category() for channel in group]
        return [
            channel
            for channel in (*channels, *self.guild.threads)
            if isinstance(channel, GuildChannel)
        ]

    def channel_name(self, channel_id: int) -> str:
        """Return a channel's name as Discord shows it."""
        if self.guild is None:
            return f"channel {channel_id}"
        channel = self.guild.get_channel_or_thread(channel_id)
        if channel is None:
            return f"channel {channel_id} (deleted or archived)"
        return f"#{channel.name}"

    def roles(self) -> list[discord.Role]:
        """List the roles that some members have and others do not, in Discord's order."""
        roles = self.guild.roles if self.guild else []
        return [role for role in reversed(roles) if not role.is_default()]

    def role_name(self, role_id: int) -> str:
        """Return a role's name as Discord shows it."""
        if self.guild is None:
            return f"role {role_id}"
        role = self.guild.get_role(role_id)
        if role is None:
            return f"role {role_id} (deleted)"
        return role.name


def moderated_name(services: Services, guild_id: int) -> str:
    """Return the name of a server, or of `DIRECT_MESSAGES`."""
    if guild_id == DIRECT_MESSAGES:
        return "Direct messages and user installs"
    return guild_name(services, guild_id)


def moderated_ids(services: Services) -> list[int]:
    """List direct messages, then the servers with the bot, and those for which something was set, by
    name.
    """
    store = services.store
    guild_ids = {
        *store.blocks.counts(),
        *store.mutes.guilds(),
        *store.action_roles.guilds(),
        *store.settings.guilds([*LIMITS.keys, IS_AGE_RESTRICTED.key]),
    }
    if services.client:
        guild_ids |= {guild.id for guild in services.client.guilds}
    guild_ids.discard(DIRECT_MESSAGES)
    by_name = sorted(guild_ids, key=lambda guild_id: (guild_name(services, guild_id), guild_id))
    return [DIRECT_MESSAGES, *by_name]


def server_in_path(request: web.Request) -> ModeratedServer:
    """Return the server of the address. Raises `Problem`."""
    services = get_services(request)
    guild_id = read_id(request.match_info["guild_id"], SERVERS_ADVICE)
    if guild_id not in moderated_ids(services):
        raise Problem("not-found", "There is no such server.", SERVERS_ADVICE)
    return ModeratedServer(services, guild_id)
