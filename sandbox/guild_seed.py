"""Seed of a guild (channels, roles, members), and Discord's permission bits."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

from sandbox.channel_types import FORUM_CHANNEL, GUILD_TYPES, TEXT_CHANNEL

ALL_PERMISSIONS = (1 << 53) - 1


class Permission(IntFlag):
    """Permission bits, with the names of Discord's documentation."""

    ADMINISTRATOR = 1 << 3
    MANAGE_GUILD = 1 << 5
    VIEW_CHANNEL = 1 << 10
    SEND_MESSAGES = 1 << 11
    MANAGE_MESSAGES = 1 << 13
    EMBED_LINKS = 1 << 14
    ATTACH_FILES = 1 << 15
    READ_MESSAGE_HISTORY = 1 << 16
    MENTION_EVERYONE = 1 << 17
    CONNECT = 1 << 20
    CHANGE_NICKNAME = 1 << 26
    MANAGE_WEBHOOKS = 1 << 29
    USE_APPLICATION_COMMANDS = 1 << 31
    CREATE_PUBLIC_THREADS = 1 << 35
    SEND_MESSAGES_IN_THREADS = 1 << 38
    SEND_POLLS = 1 << 49
    USE_EXTERNAL_APPS = 1 << 50


_TALK_PERMISSIONS = int(
    Permission.VIEW_CHANNEL
    | Permission.SEND_MESSAGES
    | Permission.SEND_MESSAGES_IN_THREADS
    | Permission.EMBED_LINKS
    | Permission.ATTACH_FILES
    | Permission.READ_MESSAGE_HISTORY
)

DEFAULT_BOT_PERMISSIONS = int(
    _TALK_PERMISSIONS | Permission.MANAGE_WEBHOOKS | Permission.CONNECT | Permission.CHANGE_NICKNAME
)
MEMBER_PERMISSIONS = int(
    _TALK_PERMISSIONS
    | Permission.CONNECT
    | Permission.USE_APPLICATION_COMMANDS
    | Permission.CREATE_PUBLIC_THREADS
    | Permission.SEND_POLLS
    | Permission.USE_EXTERNAL_APPS
)
"""Permissions of every member."""
DIRECT_PERMISSIONS = int(
    _TALK_PERMISSIONS | Permission.USE_APPLICATION_COMMANDS | Permission.SEND_POLLS
)
"""Permissions of both sides in direct messages."""
TEXT_PERMISSIONS = int(
    _TALK_PERMISSIONS
    | Permission.MANAGE_MESSAGES
    | Permission.MENTION_EVERYONE
    | Permission.MANAGE_WEBHOOKS
    | Permission.USE_APPLICATION_COMMANDS
    | Permission.SEND_POLLS
)
"""Permissions for a channel's messages, and to see it."""
SILENCED_PERMISSIONS = int(
    Permission.SEND_MESSAGES
    | Permission.SEND_MESSAGES_IN_THREADS
    | Permission.CREATE_PUBLIC_THREADS
    | Permission.USE_APPLICATION_COMMANDS
)
"""Permissions that a role denies to mute its holders."""


def combine_permissions(granted: Iterable[int]) -> int:
    bits = 0
    for one in granted:
        bits |= one
    return ALL_PERMISSIONS if bits & Permission.ADMINISTRATOR else bits


def has_permissions(bits: int, needed: int) -> bool:
    return bits & needed == needed


@dataclass(frozen=True)
class PostSeed:
    """A post in a forum: its name, the name of its author among the members, and its text."""

    name: str
    author: str
    content: str


@dataclass(frozen=True)
class ChannelSeed:
    """A channel; `nsfw` is Discord's term for age-restricted, `type` one of its types of channels
    (`channel_types.py`), by default a text channel. `posts` are a new forum's.
    """

    name: str
    topic: str = ""
    nsfw: bool = False
    type: int = TEXT_CHANNEL
    posts: tuple[PostSeed, ...] = ()


@dataclass(frozen=True)
class RoleSeed:
    """A role; `permissions` are Discord's bits, `colour` is 0xRRGGBB (0: none).

    `denied` is revoked again in every channel, as by a role for muted members.
    """

    name: str
    permissions: int
    colour: int = 0
    denied: int = 0


@dataclass(frozen=True)
class MemberSeed:
    """A member; `roles` are names of RoleSeeds."""

    name: str
    roles: tuple[str, ...] = ()
    owner: bool = False


@dataclass(frozen=True)
class GuildSeed:
    """A guild, its members and its bot; `message_content` is the developer portal's switch for that
    intent, `user_install` the one that lets people install the application for themselves.

    `welcome` are lines that the page shows until they are dismissed. `developer_tools`: the page
    offers its bench without being asked.
    """

    name: str
    channels: tuple[ChannelSeed, ...]
    members: tuple[MemberSeed, ...]
    roles: tuple[RoleSeed, ...]
    bot_name: str
    bot_avatar: Path | None = None
    bot_permissions: int = DEFAULT_BOT_PERMISSIONS
    message_content: bool = True
    user_install: bool = True
    welcome: tuple[str, ...] = ()
    developer_tools: bool = True

    def __post_init__(self) -> None:
        """Refuse a guild without members, with an unknown role, or with a channel that guilds do
        not have.
        """
        if not self.members:
            raise ValueError("a guild needs at least one member")
        for channel in self.channels:
            if channel.type not in GUILD_TYPES:
                raise ValueError(f"no type of a guild's channel: {channel.type} ({channel.name})")
            if channel.posts and channel.type != FORUM_CHANNEL:
                raise ValueError(f"only forums have posts, not {channel.name}")
        names = {member.name for member in self.members}
        authors = {post.author for channel in self.channels for post in channel.posts}
        if authors - names:
            raise ValueError(f"no such member: {', '.join(sorted(authors - names))}")
        unknown: set[str] = set()
        for member in self.members:
            unknown |= set(member.roles)
        unknown -= {role.name for role in self.roles}
        if unknown:
            raise ValueError(f"no such role: {', '.join(sorted(unknown))}")
