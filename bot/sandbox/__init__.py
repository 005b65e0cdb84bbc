"""A guild on loopback: the part of Discord's gateway and HTTP API that this bot uses, and a page to talk in.

Imports nothing of the project, so that any discord.py bot can be pointed at it. `Sandbox` serves, `Member` plays a
person, `point_discord_py_at` turns the real client towards it; `python -m bot.sandbox` runs it alone.
"""

from bot.sandbox.connect import point_discord_py_at
from bot.sandbox.errors import NotLoopback, SandboxError, SandboxRefusal, StateUnreadable
from bot.sandbox.leaving import Leaver
from bot.sandbox.member import Answer, Member
from bot.sandbox.permissions import DEFAULT_BOT_PERMISSIONS, SILENCED, Permission
from bot.sandbox.seed import ChannelSeed, GuildSeed, MemberSeed, RoleSeed
from bot.sandbox.server import Sandbox
from bot.sandbox.store import StoredFile

__all__ = [
    "DEFAULT_BOT_PERMISSIONS",
    "SILENCED",
    "Answer",
    "ChannelSeed",
    "GuildSeed",
    "Leaver",
    "Member",
    "MemberSeed",
    "NotLoopback",
    "Permission",
    "RoleSeed",
    "Sandbox",
    "SandboxError",
    "SandboxRefusal",
    "StateUnreadable",
    "StoredFile",
    "point_discord_py_at",
]
