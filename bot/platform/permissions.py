"""The Discord permissions the bot needs, why, and what is lost without each."""

from collections.abc import Iterable
from dataclasses import dataclass

import discord

from bot.platform.localisation import gettext_lazy

VoiceChannel = discord.VoiceChannel | discord.StageChannel
"""Channels with voice; of these the bot uses the chat alone."""


PERMISSION_TITLES: dict[str, str] = {
    "view_channel": gettext_lazy("View Channel"),
    "send_messages": gettext_lazy("Send Messages"),
    "send_messages_in_threads": gettext_lazy("Send Messages In Threads"),
    "attach_files": gettext_lazy("Attach Files"),
    "read_message_history": gettext_lazy("Read Message History"),
    "manage_webhooks": gettext_lazy("Manage Webhooks"),
    "connect": gettext_lazy("Connect"),
    "change_nickname": gettext_lazy("Change Nickname"),
}


@dataclass(frozen=True)
class RequiredPermission:
    """A permission by discord.py's name, what it is for, and what its absence costs."""

    permission: str
    why: str
    cost: str


@dataclass(frozen=True)
class MissingPermission:
    """A missing permission, where, and its remedy."""

    where: str
    need: RequiredPermission
    remedy: str

    @property
    def description(self) -> str:
        """The missing permission and its cost, without the remedy."""
        need = self.need
        return gettext_lazy(
            "{where}: the permission {permission} is missing, needed to {why}; without it {cost}.",
            where=self.where,
            permission=permission_title(need),
            why=need.why,
            cost=need.cost,
        )


REQUIRED_PERMISSIONS = (
    RequiredPermission(
        "view_channel",
        gettext_lazy("see the channels of its personas"),
        gettext_lazy("it reads and answers nothing there"),
    ),
    RequiredPermission(
        "send_messages",
        gettext_lazy("answer, and report the progress of trainings"),
        gettext_lazy("it cannot answer at all"),
    ),
    RequiredPermission(
        "send_messages_in_threads",
        gettext_lazy("answer in threads"),
        gettext_lazy("it stays silent in threads"),
    ),
    RequiredPermission(
        "attach_files",
        gettext_lazy("show a score card's picture with a training's result"),
        gettext_lazy("results have no picture"),
    ),
    RequiredPermission(
        "read_message_history",
        gettext_lazy("read what was posted while it was away, and reply to single messages"),
        gettext_lazy(
            "missed messages stay unanswered, an interrupted reply may stay in a channel twice, and "
            "helplines and notices do not show which message they answer"
        ),
    ),
    RequiredPermission(
        "manage_webhooks",
        gettext_lazy("answer under a persona's name and avatar"),
        gettext_lazy("personas answer under the bot's name"),
    ),
)

CONNECT = RequiredPermission(
    "connect",
    gettext_lazy("read and answer in the chat of a voice channel"),
    gettext_lazy("it reads and answers nothing there"),
)
"""Discord's condition for the messages of a voice channel. Servers give it to everybody, as a rule,
so that the invitation does not ask for it.
"""

CHANGE_NICKNAME = RequiredPermission(
    "change_nickname",
    gettext_lazy("take the name of a persona (`/persona face`)"),
    gettext_lazy("the face of the bot stays as it is, and the persona speaks through webhooks"),
)
"""Needed where a server has chosen a face for the bot. Servers give it to everybody, as a rule, so
that the invitation does not ask for it.
"""

MESSAGE_CONTENT = RequiredPermission(
    "message_content",
    gettext_lazy("read messages that do not mention it, in channels set to answer everything"),
    gettext_lazy("it answers only mentions, direct messages, /chat and the button Reply"),
)

MEMBERS = RequiredPermission(
    "members",
    gettext_lazy("hear of new members, whom personas greet where a moderator has set that"),
    gettext_lazy("no new member is greeted"),
)

IMPLIED_PERMISSIONS = {
    "view_channel": {need.permission for need in REQUIRED_PERMISSIONS},
    "send_messages": {"attach_files"},
}
"""Permissions that are missing without the key, by Discord's rules of implicit permissions."""

MODERATOR_PERMISSIONS = discord.Permissions(manage_guild=True)
"""Permissions to set and train personas: the commands' default, and checked in code."""


def required_permissions() -> discord.Permissions:
    """The permissions to ask for when the bot is invited."""
    return discord.Permissions(**{need.permission: True for need in REQUIRED_PERMISSIONS})


def missing_permissions(granted: discord.Permissions) -> list[RequiredPermission]:
    """The required permissions that are not granted."""
    return [need for need in REQUIRED_PERMISSIONS if not getattr(granted, need.permission)]


def missing_in_channel(
    channel: discord.abc.GuildChannel | discord.Thread, me: discord.Member
) -> list[RequiredPermission]:
    """The required permissions that the bot is not granted in a channel."""
    granted = channel.permissions_for(me)
    missing = missing_permissions(granted)
    if isinstance(channel, VoiceChannel) and granted.view_channel and not granted.connect:
        missing.insert(0, CONNECT)
    return missing


def invite_url(application_id: int) -> str:
    """The address to invite the bot with its required permissions."""
    return discord.utils.oauth_url(
        application_id, permissions=required_permissions(), scopes=("bot", "applications.commands")
    )


def permission_report(
    guild: discord.Guild, channels: Iterable[discord.abc.GuildChannel]
) -> list[str]:
    """One line for each permission that is missing in the guild or in one of the channels in
    use.
    """
    return [missing.description for missing in find_missing_permissions(guild, channels)]


def find_missing_permissions(
    guild: discord.Guild, channels: Iterable[discord.abc.GuildChannel]
) -> list[MissingPermission]:
    """The permissions that are missing in the guild, and additionally in its channels in use; none
    while it is away.
    """
    if guild.unavailable:
        return []
    guild_wide = missing_permissions(guild.me.guild_permissions)
    result = [MissingPermission(guild.name, need, guild_remedy(need)) for need in guild_wide]
    for channel in channels:
        missing = missing_in_channel(channel, guild.me)
        reported = {need.permission for need in guild_wide}
        # Without View Channel, for instance, a channel lacks everything else, too.
        for need in missing:
            reported |= IMPLIED_PERMISSIONS.get(need.permission, set()) - {need.permission}
        for need in missing:
            if need.permission not in reported:
                where = f"{guild.name} #{channel.name}"
                remedy = channel_remedy(channel.name, need)
                result.append(MissingPermission(where, need, remedy))
    return result


def find_missing_for_face(guild: discord.Guild) -> list[MissingPermission]:
    """The permission that is missing in a guild that has chosen a face for the bot; none while it
    is away.
    """
    if guild.unavailable or guild.me.guild_permissions.change_nickname:
        return []
    return [MissingPermission(guild.name, CHANGE_NICKNAME, guild_remedy(CHANGE_NICKNAME))]


def guild_remedy(need: RequiredPermission) -> str:
    """Remedy for a permission missing in the whole server."""
    return gettext_lazy(
        "Server Settings → Roles → the bot's role → Permissions: allow {permission}.",
        permission=permission_title(need),
    )


def channel_remedy(channel: str, need: RequiredPermission) -> str:
    """Remedy for a permission that only a channel denies."""
    return gettext_lazy(
        "Edit Channel of #{channel} → Permissions → the bot's role: set {permission} to allow.",
        channel=channel,
        permission=permission_title(need),
    )


def permission_title(need: RequiredPermission) -> str:
    """A permission's name as Discord shows it."""
    return PERMISSION_TITLES.get(need.permission, need.permission.replace("_", " ").title())


def is_moderator(member: discord.abc.User) -> bool:
    """Report whether this member may set and train personas in their guild."""
    # Of a server in which the bot is not, Discord tells no roles.
    if not isinstance(member, discord.Member) or member.guild.unavailable:
        return False
    return member.guild_permissions >= MODERATOR_PERMISSIONS
