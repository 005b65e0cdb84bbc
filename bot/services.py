"""Gives handlers access to the bot's services."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import discord
from discord.ext import commands

from bot.chat.message_reader import IncomingMessage, MessageReader
from bot.chat.places import ChannelCache
from bot.chat.reply_service import ReplyService
from bot.chat.request import ChatRequestBuilder
from bot.chat.streaming_reply import ReplyViews
from bot.chat.webhooks import SenderRegistry
from bot.data.jobs import DataJobRunner
from bot.dialogue.dialogue import DialogueRunner
from bot.operations.metrics import BotMetrics
from bot.operations.shards import ShardRange
from bot.personas.base_model_compat import compatibility_notes
from bot.personas.registry import PersonaRegistry
from bot.platform.clock import BackgroundTask
from bot.settings import FetchPolicy
from bot.store import Store
from bot.training.actions import Trainings
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.queue import JobQueue
from bot.training.request_checks import RequestChecks
from bot.training.resource_sharing import TrainerThrottle
from bot.versions.actions import LiveVersions
from bot.versions.blind_test.actions import BlindTests
from personas.engine import Engine
from personas.schemas.training import TrainingRequest

MAX_NOTED_INTERACTIONS = 10_000
"""Interactions by whose ids repeated events are told; a gateway repeats what was sent since a lost
connection.
"""


@dataclass(frozen=True)
class PrivacyServices:
    """The operator's privacy settings (`bot.settings.Settings`).

    `forget_in_sandbox` erases a person (`bot.privacy.identifiers.PersonIdentifiers`) from the
    sandbox; None on Discord. `engine_hosts` are other machines that compute replies.
    """

    permission: str = ""
    history_days: int = 90
    in_sandbox: bool = False
    forget_in_sandbox: Callable[..., None] | None = None
    engine_hosts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything that cogs, pages and the API work with; created once, in `bot.app`."""

    store: Store
    engine: Engine
    personas: PersonaRegistry
    throttle: TrainerThrottle
    request_builder: ChatRequestBuilder
    reply_service: ReplyService
    versions: LiveVersions
    blind_tests: BlindTests
    queue: JobQueue
    catalogue: DatasetCatalog
    base_model: str
    home: Path
    unanswered: ChannelCache[IncomingMessage] = field(default_factory=partial(ChannelCache, 1000))
    """By direct-message channel: the message of a member who has not chosen a persona yet."""
    privacy: PrivacyServices = field(default_factory=PrivacyServices)
    max_upload_bytes: int = 8 * 2**30
    """Size limit of an uploaded file."""
    data_jobs: DataJobRunner = field(default_factory=DataJobRunner)
    fetch_datasets: FetchPolicy = "operator"
    fetch_adapters: FetchPolicy = "operator"
    """Settings: those who may make the bot fetch from a hub."""
    dialogue_runner: DialogueRunner = field(default_factory=DialogueRunner)
    client: discord.Client | None = None
    """The connection to Discord or to the sandbox, with its guilds, channels and permissions; None
    without one.
    """
    metrics: BotMetrics = field(default_factory=BotMetrics)
    background: list[BackgroundTask] = field(default_factory=list)
    """The background tasks whose errors `/healthz` and the dashboard show."""

    @classmethod
    def create(
        cls,
        *,
        builder: ChatRequestBuilder,
        engine: Engine,
        throttle: TrainerThrottle,
        views: ReplyViews,
        client: discord.Client | None,
        comparisons_per_day: int = 20,
        **more: Any,
    ) -> Self:
        """Build the services that follow from these parts; `more` are the remaining fields of this
        class.
        """
        store = builder.store
        dispatch = partial(client.dispatch, "version_changed") if client else None
        return cls(
            store=store,
            engine=engine,
            personas=builder.personas,
            throttle=throttle,
            request_builder=builder,
            reply_service=ReplyService(
                store, engine, builder, SenderRegistry(client, store), views, throttle
            ),
            versions=LiveVersions(
                store, engine, builder, dispatch or (lambda guild_id, persona_id: None)
            ),
            blind_tests=BlindTests(
                store, engine, throttle, builder, builder.home, comparisons_per_day
            ),
            home=builder.home,
            client=client,
            **more,
        )

    @cached_property
    def message_reader(self) -> MessageReader:
        """The reader of what members write."""
        return MessageReader(self.store)

    @cached_property
    def trainings(self) -> Trainings:
        """Trainings: start, plan, cancel, resume."""
        checks = RequestChecks(self.queue, self.catalogue, self.base_model, self.home)
        return Trainings(self.store, self.queue, checks, self.training_notes)

    def training_notes(self, request: TrainingRequest) -> list[str]:
        """List warnings about a job before it starts, such as that its version cannot be served
        here.
        """
        has_adapters = self.request_builder.incompatible_versions.has_adapters
        return compatibility_notes(request, self.base_model, has_adapters=has_adapters)


class Bot(commands.Bot):
    """A client whose cogs reach everything through `services`."""

    services: Services
    shard_range: ShardRange | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lost_at: dict[
            int | None, float
        ] = {}  # by shard, None without shards: since when it is not connected
        self._interaction_ids: dict[int, None] = {}

    def connection_lost(self, shard_id: int | None = None) -> None:
        self._lost_at.setdefault(shard_id, time.monotonic())

    def connection_restored(self, shard_id: int | None = None) -> None:
        self._lost_at.pop(shard_id, None)

    @property
    def disconnected_s(self) -> float:
        """Seconds since which the gateway, or one of its shards, has no session; 0 while all have
        one.
        """
        return time.monotonic() - min(self._lost_at.values()) if self._lost_at else 0.0

    def note_interaction(self, interaction_id: int) -> bool:
        """Remember an interaction for a while. Returns False if it was noted before."""
        if interaction_id in self._interaction_ids:
            return False
        if len(self._interaction_ids) == MAX_NOTED_INTERACTIONS:
            del self._interaction_ids[next(iter(self._interaction_ids))]
        self._interaction_ids[interaction_id] = None
        return True

    def serves(self, guild_id: int) -> bool:
        """Report whether a guild is served by this process; guild 0 is by the one with shard 0."""
        return self.shard_range is None or self.shard_range.has(guild_id)

    @property
    def is_primary(self) -> bool:
        """This process does what is done once for all shards."""
        return self.shard_range is None or self.shard_range.has_first
