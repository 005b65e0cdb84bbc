"""The server of a page that its moderators and the operator share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import aiohttp
import discord

from bot.chat.places import GuildChannel
from bot.moderation.web.access import GuildAccess
from bot.moderation.web.lookup import not_answering_problem, server_path
from bot.personas.web.lookup import guild_name
from bot.platform.localisation import gettext_lazy
from bot.services import Services

LOOKUP_TIMEOUT_S = 5.0
DIRECT_MESSAGES = 0
"""The id that stands for a server: direct messages, and places where the bot is not."""


@dataclass(frozen=True)
class ModeratedServer:
    """A server or (`DIRECT_MESSAGES`) the talks outside servers, and who moderates it: a member, or
    (0) the operator, who has no `access`. `blocks_path` and `rules_path` are the addresses of its
    pages, `above` that of the page above, with its title.
    """

    services: Services
    guild_id: int
    by: int
    blocks_path: str
    rules_path: str
    above: tuple[str, str]
    access: GuildAccess | None = None

    @classmethod
    def of_moderator(cls, access: GuildAccess) -> ModeratedServer:
        """Return the server for its moderators. Raises `Problem` for other members."""
        access.require()
        home = server_path(access)
        return cls(
            access.services,
            access.guild_id,
            by=access.member.id,
            blocks_path=f"{home}/blocks",
            rules_path=f"{home}/rules",
            above=(home, access.guild.name),
            access=access,
        )

    @property
    def name(self) -> str:
        return moderated_name(self.services, self.guild_id)

    @property
    def is_server(self) -> bool:
        return self.guild_id != DIRECT_MESSAGES

    @property
    def guild(self) -> discord.Guild | None:
        """The server on Discord; None where this process does not serve it."""
        client = self.services.client
        return client.get_guild(self.guild_id) if client else None

    def channels(self) -> list[GuildChannel]:
        """List the channels with messages that who moderates sees, in Discord's order, then their
        threads.
        """
        if self.guild is None:
            return []
        channels = [channel for _, group in self.guild.by_category() for channel in group]
        return [
            channel
            for channel in (*channels, *self.guild.threads)
            if isinstance(channel, GuildChannel) and self._sees(channel)
        ]

    def hides(self, channel_id: int) -> bool:
        """True for a channel on Discord that who moderates does not see there."""
        channel = self.guild.get_channel_or_thread(channel_id) if self.guild else None
        return channel is not None and not self._sees(channel)

    async def hides_on_discord(self, channel_id: int) -> bool:
        """The same, also for an archived thread, which is looked up on Discord. Raises `Problem`."""
        if self.access is None or self.guild is None or not channel_id:
            return False
        channel: object = self.guild.get_channel_or_thread(channel_id)
        if channel is None:
            try:
                async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                    channel = await self.guild.fetch_channel(channel_id)
            except discord.NotFound:
                return False
            except discord.Forbidden:
                return True
            except (discord.DiscordException, aiohttp.ClientError, OSError, TimeoutError) as error:
                raise not_answering_problem() from error
        return not self._sees(channel)

    def channel_name(self, channel_id: int) -> str:
        """Return a channel's name as Discord shows it to who moderates."""
        if self.guild is None:
            return gettext_lazy("channel {channel_id}", channel_id=channel_id)
        channel = self.guild.get_channel_or_thread(channel_id)
        if channel is None:
            return gettext_lazy("channel {channel_id} (deleted or archived)", channel_id=channel_id)
        if not self._sees(channel):
            # Translators: it follows "in".
            return gettext_lazy("a channel that you do not see")
        return f"#{channel.name}"

    def roles(self) -> list[discord.Role]:
        """List the roles that some members have and others do not, in Discord's order."""
        roles = self.guild.roles if self.guild else []
        return [role for role in reversed(roles) if not role.is_default()]

    def role_name(self, role_id: int) -> str:
        """Return a role's name as Discord shows it."""
        if self.guild is None:
            return gettext_lazy("role {role_id}", role_id=role_id)
        role = self.guild.get_role(role_id)
        if role is None:
            return gettext_lazy("role {role_id} (deleted)", role_id=role_id)
        return role.name

    def _sees(self, channel: object) -> bool:
        return self.access is None or self.access.sees(channel)


def moderated_name(services: Services, guild_id: int) -> str:
    """Return the name of a server, or of `DIRECT_MESSAGES`."""
    if guild_id == DIRECT_MESSAGES:
        return gettext_lazy("Direct messages and user installs")
    return guild_name(services, guild_id)
