"""What a guild is made from."""

from dataclasses import dataclass
from pathlib import Path

from bot.sandbox.permissions import DEFAULT_BOT_PERMISSIONS


@dataclass(frozen=True)
class ChannelSeed:
    """A text channel; `nsfw` is Discord's word for age-restricted."""

    name: str
    topic: str = ""
    nsfw: bool = False


@dataclass(frozen=True)
class RoleSeed:
    """A role; `permissions` are Discord's bits, `colour` is 0xRRGGBB (0: none).

    `denied` is taken away again in every channel, as a role for people who must keep quiet does it.
    """

    name: str
    permissions: int
    colour: int = 0
    denied: int = 0


@dataclass(frozen=True)
class MemberSeed:
    """A person; `roles` are names of RoleSeeds."""

    name: str
    roles: tuple[str, ...] = ()
    owner: bool = False


@dataclass(frozen=True)
class GuildSeed:
    """A guild, its people and its bot.

    `message_content` is the developer portal's switch for the message-content intent.
    """

    name: str
    channels: tuple[ChannelSeed, ...]
    members: tuple[MemberSeed, ...]
    roles: tuple[RoleSeed, ...]
    bot_name: str
    bot_avatar: Path | None = None
    bot_permissions: int = DEFAULT_BOT_PERMISSIONS
    message_content: bool = True

    def __post_init__(self) -> None:
        """Refuse what no guild could be: nobody in it, or a role that does not exist."""
        if not self.members:
            raise ValueError("a guild needs at least one member")
        unknown = {role for member in self.members for role in member.roles} - {role.name for role in self.roles}
        if unknown:
            raise ValueError(f"no such role: {', '.join(sorted(unknown))}")
