"""What the cogs work with, and the kind of client that has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import discord
from discord.ext import commands

from bot.answering import Answerer
from bot.asked import Asked
from bot.catalogue import Catalogue
from bot.conversation import Conversations
from bot.duets import Duets
from bot.privacy.traces import Traces
from bot.queue import JobQueue
from bot.store import Store
from bot.watch import Watch


@dataclass(frozen=True)
class Keeping:
    """What the operator states of privacy: see `Settings`. `leave_sandbox` forgets in what stands in for Discord."""

    permission: str = ""
    history_days: int = 90
    in_sandbox: bool = False
    leave_sandbox: Callable[[Traces], None] | None = None


@dataclass(frozen=True)
class House:
    """What the cogs work with; made once in `bot.app`."""

    store: Store
    conversations: Conversations
    answerer: Answerer
    queue: JobQueue
    catalogue: Catalogue
    base_model: str
    home: Path
    unanswered: dict[int, Asked] = field(default_factory=dict)
    """By direct-message channel: what somebody said before having chosen whom to talk to."""
    keeping: Keeping = field(default_factory=Keeping)
    comparisons_per_day: int = 20
    """How often a member may vote between two replies in 24 hours."""
    max_upload_bytes: int = 8 * 2**30
    """How large a file may be that is brought in."""
    comparing: set[int] = field(default_factory=set)
    """For whom two replies are being written just now."""
    duets: Duets = field(default_factory=Duets)
    """Which personas talk with each other just now."""
    client: discord.Client | None = None
    """The connection to Discord or the sandbox: which servers and channels there are, and what may be done there."""
    watch: Watch = field(default_factory=Watch)
    """What is remembered of the bot itself, to be looked at."""


class HouseBot(commands.Bot):
    """A client whose cogs find everything in `house`."""

    house: House
