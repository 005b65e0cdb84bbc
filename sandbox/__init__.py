"""A Discord guild on loopback: the part of the gateway and HTTP API that bots use, and a web page
to chat in.
"""

from sandbox.account_deletion import DepartingMember
from sandbox.guild_seed import (
    DEFAULT_BOT_PERMISSIONS,
    SILENCED_PERMISSIONS,
    ChannelSeed,
    GuildSeed,
    MemberSeed,
    Permission,
    RoleSeed,
)
from sandbox.member_client import InteractionResponse, MemberClient
from sandbox.object_store import StoredFile
from sandbox.sandbox_errors import NotLoopback, SandboxError, SandboxRefusal, StateUnreadable
from sandbox.server import Sandbox, patch_discord
from sandbox.wire_faults import FaultRates

__all__ = [
    "DEFAULT_BOT_PERMISSIONS",
    "SILENCED_PERMISSIONS",
    "ChannelSeed",
    "DepartingMember",
    "FaultRates",
    "GuildSeed",
    "InteractionResponse",
    "MemberClient",
    "MemberSeed",
    "NotLoopback",
    "Permission",
    "RoleSeed",
    "Sandbox",
    "SandboxError",
    "SandboxRefusal",
    "StateUnreadable",
    "StoredFile",
    "patch_discord",
]
