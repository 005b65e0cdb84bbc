"""The permission bits that matter here. Source: discord.com/developers/docs/topics/permissions."""

from collections.abc import Iterable
from enum import IntFlag


class Permission(IntFlag):
    """Names as in Discord's documentation."""

    ADMINISTRATOR = 1 << 3
    MANAGE_GUILD = 1 << 5
    VIEW_CHANNEL = 1 << 10
    SEND_MESSAGES = 1 << 11
    MANAGE_MESSAGES = 1 << 13
    EMBED_LINKS = 1 << 14
    ATTACH_FILES = 1 << 15
    READ_MESSAGE_HISTORY = 1 << 16
    MENTION_EVERYONE = 1 << 17
    MANAGE_WEBHOOKS = 1 << 29
    USE_APPLICATION_COMMANDS = 1 << 31
    CREATE_PUBLIC_THREADS = 1 << 35
    SEND_MESSAGES_IN_THREADS = 1 << 38


ALL = (1 << 53) - 1

_TALK = int(
    Permission.VIEW_CHANNEL
    | Permission.SEND_MESSAGES
    | Permission.SEND_MESSAGES_IN_THREADS
    | Permission.EMBED_LINKS
    | Permission.ATTACH_FILES
    | Permission.READ_MESSAGE_HISTORY
)
DEFAULT_BOT_PERMISSIONS = int(_TALK | Permission.MANAGE_WEBHOOKS)
MEMBER_PERMISSIONS = int(_TALK | Permission.USE_APPLICATION_COMMANDS | Permission.CREATE_PUBLIC_THREADS)
"""What every person may do."""
DIRECT_PERMISSIONS = int(_TALK | Permission.USE_APPLICATION_COMMANDS)
"""What both sides may do in their direct messages."""
SILENCED = int(
    Permission.SEND_MESSAGES
    | Permission.SEND_MESSAGES_IN_THREADS
    | Permission.CREATE_PUBLIC_THREADS
    | Permission.USE_APPLICATION_COMMANDS
)
"""What a role denies to let its holders only look on."""


def combine(granted: Iterable[int]) -> int:
    """The permissions of someone holding roles with these bits."""
    bits = 0
    for one in granted:
        bits |= one
    return ALL if bits & Permission.ADMINISTRATOR else bits


def allows(bits: int, needed: int) -> bool:
    """Whether all the bits of `needed` are held."""
    return bits & needed == needed
