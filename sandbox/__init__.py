"""A Discord guild on loopback: the part of the gateway and HTTP API that bots use, and a web page
to chat in.
"""

from sandbox.account_deletion import DepartingMember
from sandbox.channel_types import FORUM_CHANNEL, STAGE_CHANNEL, VOICE_CHANNEL
from sandbox.guild_seed import (
    DEFAULT_BOT_PERMISSIONS,
    SILENCED_PERMISSIONS,
    ChannelSeed,
    GuildSeed,
    MemberSeed,
    Permission,
    PostSeed,
    RoleSeed,
)
from sandbox.member_client import InteractionResponse, MemberClient
from sandbox.message_components import message_text
from sandbox.object_store import StoredFile
from sandbox.sandbox_errors import NotLoopback, SandboxError, SandboxRefusal, StateUnreadable
from sandbox.server import Sandbox, patch_discord
from sandbox.wire_faults import FaultRates

__all__ = [
    "DEFAULT_BOT_PERMISSIONS",
    "FORUM_CHANNEL",
    "SILENCED_PERMISSIONS",
    "STAGE_CHANNEL",
    "VOICE_CHANNEL",
    "ChannelSeed",
    "DepartingMember",
    "FaultRates",
    "GuildSeed",
    "InteractionResponse",
    "MemberClient",
    "MemberSeed",
    "NotLoopback",
    "Permission",
    "PostSeed",
    "RoleSeed",
    "Sandbox",
    "SandboxError",
    "SandboxRefusal",
    "StateUnreadable",
    "StoredFile",
    "message_text",
    "patch_discord",
]
