"""Gives handlers access to the bot's services."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import discord
from discord.ext import commands

from bot.answering.actions import AnsweringActions
from bot.audit.actions import AuditTrail
from bot.chat.decision_log import DecisionLog
from bot.chat.message_reader import IncomingMessage, MessageReader
from bot.chat.places import ChannelCache, ChannelRef
from bot.chat.reply_service import ReplyService
from bot.chat.request import ChatRequestBuilder
from bot.chat.voice_messages import VoiceMessages
from bot.data.actions import DataActions
from bot.data.jobs import DataJobRunner
from bot.dialogue.dialogue import DialogueRunner
from bot.faces.actions import FaceActions
from bot.generation.actions import GenerationActions
from bot.guild_settings.actions import SettingsActions
from bot.guilds.reply_candidates import ReplyCandidates
from bot.guilds.time_zones import GuildTimeZones
from bot.models.actions import ModelActions
from bot.models.engine_advice import PresentEngine
from bot.moderation.actions import ModerationActions
from bot.operations.metrics import BotMetrics
from bot.personas.base_model_compat import compatibility_notes
from bot.personas.creation import PersonaCreation
from bot.personas.guild_lore import GuildLore
from bot.personas.registry import PersonaRegistry
from bot.personas.removal import PersonaRemoval
from bot.personas.served_versions import ServedVersions
from bot.platform.clock import BackgroundTask
from bot.reports.actions import ReplyReports
from bot.safety.actions import SafetyProtocol
from bot.safety.reply_guard import ReplyGuard
from bot.schedules.greetings import MemberGreetings
from bot.schedules.lines import ScheduledLines
from bot.schedules.trainings import ScheduledTrainings
from bot.settings import FetchPolicy, Settings
from bot.store import Channel, Store
from bot.training.actions import Trainings
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.queue import JobQueue
from bot.training.request_checks import RequestChecks
from bot.training.resource_sharing import TrainerThrottle
from bot.training.retrain_all import RetrainAll
from bot.versions.actions import LiveVersions
from bot.versions.blind_test.actions import BlindTests
from personas.engine import Engine
from personas.home.lore_sets import LoreSets
from personas.lore.index import LoreIndex
from personas.schemas.chat import Persona
from personas.schemas.training import Teacher, TrainingRequest

MAX_NOTED_INTERACTIONS = 10_000
"""Ids of recent interactions. After a reconnect the gateway resends events; known ids are
ignored.
"""


@dataclass(frozen=True, kw_only=True)
class PrivacyServices:
    """The operator's privacy settings (`bot.settings.Settings`).

    `forget_in_sandbox` erases a person (`bot.privacy.identifiers.PersonIdentifiers`, which stands
    above this module) from the sandbox; None on Discord. `engine_hosts` are other machines that
    compute replies.
    """

    permission: str = ""
    history_days: int = 90
    in_sandbox: bool = False
    forget_in_sandbox: Callable[..., None] | None = None
    engine_hosts: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings, forget_in_sandbox: Callable[..., None] | None = None) -> Self:
        return cls(
            permission=settings.discord_permission,
            history_days=settings.history_days,
            in_sandbox=settings.in_sandbox,
            forget_in_sandbox=forget_in_sandbox,
            engine_hosts=settings.engine_hosts,
        )


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything that cogs, pages and the API work with; `bot.compose` makes it."""

    store: Store
    engine: Engine
    personas: PersonaRegistry
    throttle: TrainerThrottle
    served_versions: ServedVersions
    lore: LoreIndex
    lore_sets: LoreSets
    reply_candidates: ReplyCandidates
    time_zones: GuildTimeZones
    guild_settings: SettingsActions
    generation: GenerationActions
    answering: AnsweringActions
    voice_messages: VoiceMessages
    request_builder: ChatRequestBuilder
    reply_service: ReplyService
    versions: LiveVersions
    blind_tests: BlindTests
    queue: JobQueue
    catalogue: DatasetCatalog
    base_model: str
    home: Path
    privacy: PrivacyServices
    max_upload_bytes: int
    """Size limit of an uploaded file."""
    fetch_datasets: FetchPolicy
    fetch_adapters: FetchPolicy
    """Settings: those who may make the bot fetch from a hub."""
    allows_user_install: bool
    """Setting: whether people may install the bot for themselves, for servers where it is not."""
    client: discord.Client | None
    """The connection to Discord or to the sandbox, with its guilds, channels and permissions; None
    without one.
    """
    metrics: BotMetrics
    faces: FaceActions
    """The bot's own face in each server."""
    audit: AuditTrail
    """Says in the servers' audit channels who changed what."""
    teacher: Teacher | None = None
    """The model that writes replies from cards; None for the base model."""
    engine_settings: PresentEngine = field(default_factory=PresentEngine)
    env_file: Path | None = None
    """The file with the bot's settings, which may be missing; None for a bot without one."""
    unanswered: ChannelCache[IncomingMessage] = field(default_factory=lambda: ChannelCache(1000))
    """By direct-message channel: the message of a member who has not chosen a persona yet."""
    form_files: ChannelCache[discord.Attachment] = field(default_factory=lambda: ChannelCache(1000))
    """By the command's interaction: the picture or card that came with a form which is open."""
    data_jobs: DataJobRunner = field(default_factory=DataJobRunner)
    dialogue_runner: DialogueRunner = field(default_factory=DialogueRunner)
    background: list[BackgroundTask] = field(default_factory=list)
    """The background tasks whose errors `/healthz` and the dashboard show."""

    def persona_in(self, place: ChannelRef) -> Persona | None:
        """Return the persona of a channel or, for a thread without its own, of its parent."""
        channel = self.store.channels.get(place.guild_id, place.channel_id, place.parent_id)
        if channel:
            return self.personas.get(channel.persona_id, place.guild_id)
        return None

    @property
    def safety(self) -> SafetyProtocol:
        """The answers to messages that speak of self-harm."""
        return self.reply_service.safety

    @property
    def reply_guard(self) -> ReplyGuard:
        """The one way from a request to a reply that somebody sees."""
        return self.reply_service.reply_guard

    @property
    def decisions(self) -> DecisionLog:
        """The latest decisions about messages, since the start."""
        return self.reply_service.decisions

    def personas_in(self, place: ChannelRef) -> list[Persona]:
        """List the personas of a channel: first the one that answers what names none of them."""
        setting = self.store.channels.get(place.guild_id, place.channel_id, place.parent_id)
        return self.personas_of(setting) if setting else []

    def personas_of(self, setting: Channel) -> list[Persona]:
        """List the personas that a channel was given, in their order."""
        known = []
        for persona_id in self.store.channels.personas(setting.guild_id, setting.channel_id):
            if persona := self.personas.get(persona_id, setting.guild_id):
                known.append(persona)
        return known

    @cached_property
    def message_reader(self) -> MessageReader:
        """The reader of what members write."""
        return MessageReader(self.store, self.request_builder.files)

    @cached_property
    def creation(self) -> PersonaCreation:
        """New personas from a form."""
        return PersonaCreation(
            self.personas,
            self.store,
            base_model=self.base_model,
            context_tokens=self.engine.context_tokens,
        )

    @cached_property
    def removal(self) -> PersonaRemoval:
        """Removing personas, and bringing them back."""
        lore = GuildLore(self.home, self.lore, self.catalogue.shipped.lore)
        return PersonaRemoval(self.personas, self.store, lore)

    @cached_property
    def data(self) -> DataActions:
        """Uploads, data sets and fetches."""
        return DataActions(
            self.home,
            self.catalogue,
            self.personas,
            self.data_jobs,
            base_model=self.base_model,
            max_upload_bytes=self.max_upload_bytes,
            fetch_policy=self.fetch_datasets,
        )

    @cached_property
    def models(self) -> ModelActions:
        """Base models: which fits here, fetches, and serving another."""
        return ModelActions(
            self.home,
            self.data_jobs,
            base_model=self.base_model,
            engine=self.engine_settings,
            env_file=self.env_file,
        )

    @cached_property
    def trainings(self) -> Trainings:
        """Trainings: start, plan, cancel, resume."""
        checks = RequestChecks(
            self.queue, self.catalogue, self.base_model, self.home, teacher=self.teacher
        )
        return Trainings(
            self.store, self.queue, checks, self.training_notes, record=self.audit.record
        )

    @cached_property
    def moderation(self) -> ModerationActions:
        """Blocked members, limits of replies, mutes, age restrictions and roles."""
        return ModerationActions(
            self.store,
            self.personas,
            self.reply_service.stop_blocked_replies,
            self.reply_service.stop_guild_replies,
            record_change=self.audit.record,
        )

    @cached_property
    def reports(self) -> ReplyReports:
        """Replies that members have reported."""
        return ReplyReports(self.store, self.audit, self.personas)

    @cached_property
    def scheduled_lines(self) -> ScheduledLines:
        """What personas say at set times."""
        return ScheduledLines(
            store=self.store,
            reply_service=self.reply_service,
            time_zones=self.time_zones,
            record_change=self.audit.record,
        )

    @cached_property
    def member_greetings(self) -> MemberGreetings:
        """Greetings of new members."""
        return MemberGreetings(
            store=self.store,
            reply_service=self.reply_service,
            time_zones=self.time_zones,
            lines=self.scheduled_lines,
            record_change=self.audit.record,
        )

    @cached_property
    def scheduled_trainings(self) -> ScheduledTrainings:
        """Trainings at set times."""
        return ScheduledTrainings(
            store=self.store,
            trainings=self.trainings,
            queue=self.queue,
            time_zones=self.time_zones,
            answering=self.answering,
            record_change=self.audit.record,
        )

    @cached_property
    def retrain_all(self) -> RetrainAll:
        """Trainings of all personas over another base model."""
        return RetrainAll(
            self.store,
            self.personas,
            served_versions=self.served_versions,
            trainings=self.trainings,
            base_model=self.base_model,
        )

    def training_notes(self, request: TrainingRequest) -> list[str]:
        """List warnings about a job before it starts, such as that its version cannot be served
        here.
        """
        has_adapters = self.served_versions.incompatible.has_adapters
        return compatibility_notes(request, self.base_model, has_adapters=has_adapters)


class Bot(commands.Bot):
    """A client whose cogs reach everything through `services`, which are set before it connects."""

    services: Services

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Arguments and options are discord.py's."""
        super().__init__(*arguments, **options)
        self._lost_at: dict[int | None, float] = {}
        """Time at which each shard without a session lost it; by None for a bot without shards."""
        self._interaction_ids: dict[int, None] = {}

    def connection_lost(self, shard_id: int | None = None) -> None:
        self._lost_at.setdefault(shard_id, time.monotonic())

    def connection_restored(self, shard_id: int | None = None) -> None:
        self._lost_at.pop(shard_id, None)

    @property
    def disconnected_s(self) -> float:
        """Seconds for which the gateway, or one of its shards, has had no session; 0 while all
        have one.
        """
        if not self._lost_at:
            return 0.0
        return time.monotonic() - min(self._lost_at.values())

    def note_interaction(self, interaction_id: int) -> bool:
        """Remember an interaction for a while. Returns False if it was noted before."""
        if interaction_id in self._interaction_ids:
            return False
        if len(self._interaction_ids) == MAX_NOTED_INTERACTIONS:
            oldest = next(iter(self._interaction_ids))
            del self._interaction_ids[oldest]
        self._interaction_ids[interaction_id] = None
        return True
