"""Gives handlers access to the bot's services."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import discord
from discord.ext import commands

from bot.chat.dialogue import DialogueRunner
from bot.chat.prompt_context import ChatRequestBuilder
from bot.chat.reply_service import IncomingMessage, ReplyService
from bot.metrics import BotMetrics
from bot.privacy.identifiers import PersonIdentifiers
from bot.store import Store
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.queue import JobQueue


@dataclass(frozen=True)
class PrivacyServices:
    """What the operator states of privacy: see `Settings`. `leave_sandbox` forgets in what stands in for Discord."""

    permission: str = ""
    history_days: int = 90
    in_sandbox: bool = False
    forget_in_sandbox: Callable[[PersonIdentifiers], None] | None = None


@dataclass(frozen=True)
class Services:
    """What the cogs work with; made once in `bot.app`."""

    store: Store
    conversations: ChatRequestBuilder
    reply_service: ReplyService
    queue: JobQueue
    catalogue: DatasetCatalog
    base_model: str
    home: Path
    unanswered: dict[int, IncomingMessage] = field(default_factory=dict)
    """By direct-message channel: what somebody said before having chosen whom to talk to."""
    keeping: PrivacyServices = field(default_factory=PrivacyServices)
    comparisons_per_day: int = 20
    """How often a member may vote between two replies in 24 hours."""
    max_upload_bytes: int = 8 * 2**30
    """How large a file may be that is brought in."""
    pending_comparisons: set[int] = field(default_factory=set)
    """For whom two replies are being written just now."""
    dialogue_runner: DialogueRunner = field(default_factory=DialogueRunner)
    """Which personas talk with each other just now."""
    client: discord.Client | None = None
    """The connection to Discord or the sandbox: which servers and channels there are, and what may be done there."""
    watch: BotMetrics = field(default_factory=BotMetrics)
    """What is remembered of the bot itself, to be looked at."""


class Bot(commands.Bot):
    """A client whose cogs find everything in `house`."""

    services: Services
