"""The Discord permissions the bot needs, why, and what is lost without each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import discord


@dataclass(frozen=True)
class RequiredPermission:
    """A permission by discord.py's name, what it is for, and what its absence costs."""

    permission: str
    why: str
    cost: str


@dataclass(frozen=True)
class MissingPermission:
    """A need that is not met: where, and the one thing to do about it."""

    where: str
    need: RequiredPermission
    remedy: str

    @property
    def words(self) -> str:
        """Describe what is missing, without the remedy."""
        return f"{self.where}: {_line(self.need)}"


REQUIRED_PERMISSIONS = (
    RequiredPermission("view_channel", "see the channels it speaks in", "it can neither read nor reply there"),
    RequiredPermission("send_messages", "answer, and report how a training goes", "it cannot speak at all"),
    RequiredPermission("send_messages_in_threads", "answer in threads", "it stays silent in threads"),
    RequiredPermission(
        "attach_files", "show a score card's picture with a training's result", "results are told without it"
    ),
    RequiredPermission(
        "manage_webhooks", "speak under a persona's own name and face", "personas speak under the bot's own name"
    ),
)

MESSAGE_CONTENT = RequiredPermission(
    "message_content",
    "read messages that do not mention it, in channels set to answer everything",
    "it answers only mentions, direct messages, /chat and the button Reply",
)

IMPLIED_PERMISSIONS = {
    "view_channel": {need.permission for need in REQUIRED_PERMISSIONS},
    "send_messages": {"attach_files"},
}
"""Permissions without which others have no effect, by Discord's rules of implicit permissions."""

MODERATOR_PERMISSIONS = discord.Permissions(manage_guild=True)
"""Required to assign and train personas; the commands' default, and checked in code."""


def required_permissions() -> discord.Permissions:
    """The permissions to ask for when the bot is invited."""
    return discord.Permissions(**{need.permission: True for need in REQUIRED_PERMISSIONS})


def missing_permissions(granted: discord.Permissions) -> list[RequiredPermission]:
    """The needs that these permissions do not meet."""
    return [need for need in REQUIRED_PERMISSIONS if not getattr(granted, need.permission)]


def invite_url(application_id: int) -> str:
    """The address at which an owner of a server lets the bot in with what it needs."""
    return discord.utils.oauth_url(
        application_id, permissions=required_permissions(), scopes=("bot", "applications.commands")
    )


def permission_report(guild: discord.Guild, channels: Iterable[discord.abc.GuildChannel]) -> list[str]:
    """One line for each permission that is missing in the guild or in one of the channels in use."""
    return [lack.words for lack in find_missing_permissions(guild, channels)]


def find_missing_permissions(
    guild: discord.Guild, channels: Iterable[discord.abc.GuildChannel]
) -> list[MissingPermission]:
    """The permissions that are missing in the guild, and in channels in use beyond those."""
    found = [
        MissingPermission(guild.name, need, guild_remedy(need))
        for need in missing_permissions(guild.me.guild_permissions)
    ]
    guild_wide = {lack.need.permission for lack in found}
    for channel in channels:
        lacking = missing_permissions(channel.permissions_for(guild.me))
        told = guild_wide.union(
            *(IMPLIED_PERMISSIONS.get(need.permission, set()) - {need.permission} for need in lacking)
        )
        here = [need for need in lacking if need.permission not in told]
        found += [
            MissingPermission(f"{guild.name} #{channel.name}", need, channel_remedy(channel.name, need))
            for need in here
        ]
    return found


def guild_remedy(need: RequiredPermission) -> str:
    """Remedy for a permission missing in the whole server."""
    return f"Server Settings → Roles → the bot's role → Permissions: allow {permission_title(need)}."


def channel_remedy(channel: str, need: RequiredPermission) -> str:
    """Remedy for a permission that only a channel denies."""
    return f"Edit Channel of #{channel} → Permissions → the bot's role: set {permission_title(need)} to allow."


def permission_title(need: RequiredPermission) -> str:
    """A permission's name as Discord shows it."""
    return need.permission.replace("_", " ").title()


def is_moderator(member: discord.abc.User) -> bool:
    """Report whether this member may set and train personas in the guild they are a member of."""
    return isinstance(member, discord.Member) and member.guild_permissions >= MODERATOR_PERMISSIONS


def _line(need: RequiredPermission) -> str:
    return f"the permission {permission_title(need)} is missing, needed to {need.why}; without it {need.cost}."
