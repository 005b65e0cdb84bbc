"""The composition root: makes the services, the engine and the training backend that the settings
ask for.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import discord

from bot.answering.actions import AnsweringActions
from bot.audit.actions import AuditTrail
from bot.chat.discord_buttons import ReplyButtonViews
from bot.chat.message_tokens import MessageTokens
from bot.chat.reply_service import ReplyService
from bot.chat.request import ChatRequestBuilder
from bot.chat.sent_files import SentFiles
from bot.chat.voice_messages import VoiceMessages
from bot.chat.webhooks import SenderRegistry
from bot.faces.actions import FaceActions
from bot.generation.actions import EngineRules, GenerationActions
from bot.guild_settings.actions import SettingsActions
from bot.guild_settings.definitions import GENERATION
from bot.guilds.reply_candidates import ReplyCandidates
from bot.guilds.time_zones import GuildTimeZones
from bot.models.engine_advice import PresentEngine
from bot.operations.metrics import BotMetrics
from bot.personas.base_model_compat import IncompatibleVersions
from bot.personas.own_words import PersonaWords
from bot.personas.registry import PersonaRegistry
from bot.personas.served_versions import ServedVersions
from bot.platform.clock import Clock, SystemClock
from bot.safety.actions import SafetyProtocol
from bot.safety.texts import read_texts
from bot.server_engines import create_server_engine
from bot.services import PrivacyServices, Services
from bot.settings import Settings
from bot.store import Store, TrainingJob
from bot.training.backend_protocol import TrainingBackend
from bot.training.backends.job_folder_backend import JobFolderOptions
from bot.training.backends.subprocess_backend import SubprocessBackend
from bot.training.backends.trainer_environment import evaluation_environ
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.queue import JobQueue
from bot.training.resource_sharing import (
    GpuOffloadBackend,
    TrainerThrottle,
    free_card_bytes,
)
from bot.training.run_limits import RunLimits
from bot.transcription.transcriber import Transcriber
from bot.versions.actions import LiveVersions
from bot.versions.blind_test.actions import BlindTests
from personas.engine import Engine, MetricsCallback
from personas.engine.llm_engine import LLMEngine
from personas.engine.serving_precision import choose_precision
from personas.home.comparison_targets import ComparisonTargets
from personas.home.lore_sets import LoreSets
from personas.lore.index import LoreIndex
from personas.models.base_model import BaseModel
from personas.schemas.chat import SamplingParams

log = logging.getLogger(__name__)

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Dependencies:
    """The parts that are opened before the services: by `bot.app`, or by a test, with fakes.

    `shares_processor` tells whether replies and trainings slow each other down.
    """

    store: Store
    personas: PersonaRegistry
    lore: LoreIndex
    catalogue: DatasetCatalog
    engine: Engine
    backend: TrainingBackend
    privacy: PrivacyServices
    clock: Clock = field(default_factory=SystemClock)
    metrics: BotMetrics = field(default_factory=BotMetrics)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    recommended: frozenset[str] = frozenset()  # parameters that the base model's files recommend
    incompatible_versions: IncompatibleVersions = field(default_factory=IncompatibleVersions)
    shares_processor: Callable[[], bool] = lambda: True
    env_file: Path | None = None
    transcriber: Transcriber | None = None  # of voice messages


def compose(
    settings: Settings, dependencies: Dependencies, client: discord.Client | None = None
) -> Services:
    """Make the services of a client, or of a dashboard without one. Nothing is started."""
    store = dependencies.store
    engine = dependencies.engine
    personas = dependencies.personas
    lore = dependencies.lore
    lore_sets = LoreSets(dependencies.catalogue.shipped.lore, settings.home)
    lore.sets_of = lore_sets.taken
    served_versions = ServedVersions(store, settings.home, dependencies.incompatible_versions)
    candidates = ReplyCandidates(
        store, default=settings.reply_candidates, maximum=settings.max_reply_candidates
    )
    audit = AuditTrail(store, client)
    faces = FaceActions(store, personas, client, record_change=audit.record)
    personas.names_of_bot = faces.own_names
    engine_rules = EngineRules(
        engine=engine,
        engine_name=settings.engine,
        usual=dependencies.sampling,
        most_new_tokens=settings.new_tokens_limit,
        set_by_operator=settings.model_fields_set & settings.sampling.keys(),
        recommended=dependencies.recommended,
    )
    guild_settings = SettingsActions(
        store=store,
        rules={GENERATION.name: engine_rules},
        name_of=personas.markdown_name_of,
        record_change=audit.record,
    )
    generation = GenerationActions(guild_settings)
    time_zones = GuildTimeZones(store, dependencies.clock, settings.time_zone)
    builder = ChatRequestBuilder(
        store=store,
        personas=dependencies.personas,
        served_versions=served_versions,
        lore=lore,
        sampling=dependencies.sampling,
        candidates=candidates,
        generation=generation,
        time_zones=time_zones,
        message_tokens=MessageTokens(settings.base_model),
        files=SentFiles(client, lambda: engine.state().sees_pictures),
    )
    throttle = TrainerThrottle(dependencies.backend.hold, dependencies.shares_processor)
    safety = SafetyProtocol(
        store, read_texts(settings.safety_texts), dependencies.metrics.safety_answer
    )
    reply_guard = safety.guard(partial(throttle.submit, engine))

    def notify_of_version(guild_id: int | None, persona_id: str) -> None:
        if client:
            client.dispatch("version_changed", guild_id, persona_id)

    return Services(
        store=store,
        engine=engine,
        personas=personas,
        throttle=throttle,
        served_versions=served_versions,
        lore=lore,
        lore_sets=lore_sets,
        reply_candidates=candidates,
        time_zones=time_zones,
        generation=generation,
        guild_settings=guild_settings,
        answering=AnsweringActions(guild_settings, time_zones),
        voice_messages=VoiceMessages(dependencies.transcriber),
        request_builder=builder,
        reply_service=ReplyService(
            store=store,
            engine=engine,
            personas=personas,
            served_versions=served_versions,
            request_builder=builder,
            senders=SenderRegistry(client, store, faces.is_worn),
            time_zones=time_zones,
            safety=safety,
            views=ReplyButtonViews(),
            reply_guard=reply_guard,
            words=PersonaWords(store, personas, lore, speaks_authors=settings.own_words),
            record_change=audit.record,
        ),
        versions=LiveVersions(
            store=store,
            engine=engine,
            personas=personas,
            served_versions=served_versions,
            notify=notify_of_version,
            record_change=audit.record,
        ),
        blind_tests=BlindTests(
            store=store,
            reply_guard=reply_guard,
            personas=personas,
            served_versions=served_versions,
            lore=lore,
            sampling=dependencies.sampling,
            home=settings.home,
            per_day=settings.comparisons_per_day,
        ),
        queue=JobQueue(store, dependencies.backend, dependencies.clock),
        catalogue=dependencies.catalogue,
        base_model=settings.base_model,
        teacher=settings.stated_teacher,
        home=settings.home,
        privacy=dependencies.privacy,
        max_upload_bytes=settings.max_upload_gib * GIB,
        fetch_datasets=settings.fetch_datasets,
        fetch_adapters=settings.fetch_adapters,
        allows_user_install=settings.user_install,
        client=client,
        metrics=dependencies.metrics,
        faces=faces,
        audit=audit,
        engine_settings=PresentEngine.of(settings),
        env_file=dependencies.env_file,
    )


async def create_engine(settings: Settings, base: BaseModel, on_reply: MetricsCallback) -> Engine:
    """Create the engine that ENGINE names; it loads the model, or connects, when it starts."""
    if settings.engine == "local":
        log.info("loading the base model (%s) …", settings.base_model)
        choice = await asyncio.to_thread(choose_precision, settings.engine_precision, base.name)
        log.info("the base model serves in %s: %s", choice.precision, choice.reason)
        return LLMEngine(
            base,
            choice.precision,
            max_waiting=settings.max_waiting_replies,
            max_context_tokens=settings.context_tokens,
            on_reply=on_reply,
            home=settings.home,
        )

    server = await create_server_engine(settings, base, on_reply)
    if settings.engine == "vllm" and not settings.engine_urls:
        return _share_card(server, settings, base, on_reply)
    return server


def _share_card(
    server: Engine, settings: Settings, base: BaseModel, on_reply: MetricsCallback
) -> Engine:
    """Have the bot's own vLLM leave the card to trainings."""
    from personas.engine.remote.card_sharing_engine import CardSharingEngine
    from personas.engine.remote.local_vllm_engine import LocalVllmEngine

    def create_spare() -> Engine:
        return LLMEngine(
            base,
            choose_precision("auto", base.name).precision,
            max_waiting=settings.max_waiting_replies,
            max_context_tokens=settings.context_tokens,
            on_reply=on_reply,
            home=settings.home,
            first_device="cpu",
        )

    assert isinstance(server, LocalVllmEngine)  # `create_server_engine` made it
    return CardSharingEngine(server, create_spare)


def create_backend(
    settings: Settings,
    catalogue: DatasetCatalog,
    engine: Engine,
    compare: Callable[[TrainingJob], ComparisonTargets],
    earlier: Callable[[TrainingJob], Sequence[str]],
) -> TrainingBackend:
    """Create the training backend that TRAINER names; `compare` names the versions that a new one
    is measured beside, `earlier` the jobs whose written replies one may take over.
    """
    options = JobFolderOptions(
        serving_precision=engine.precision,
        environ=os.environ | evaluation_environ(settings),
        secrets=settings.trainer_secrets,
        compare=compare,
        earlier=earlier,
        limits=RunLimits.of(settings),
        card=settings.trainer_card,
    )
    if settings.trainer == "ray":
        # Ray's client is imported only where the setting names it.
        from bot.training.backends.ray_backend import open_ray_backend

        return open_ray_backend(settings, catalogue, **options)
    backend = SubprocessBackend(
        settings.home,
        catalogue,
        SystemClock(),
        threads=settings.trainer_threads,
        nice=settings.trainer_nice,
        **options,
    )
    # A training takes the GPU if there is one, so the bot's own engine has to be able to leave.
    if isinstance(engine, LLMEngine):
        return GpuOffloadBackend(backend, engine)
    if settings.engine == "vllm" and not settings.engine_urls:
        from personas.engine.remote.card_sharing_engine import CardSharingEngine

        assert isinstance(engine, CardSharingEngine)  # `create_engine` made it
        return GpuOffloadBackend(backend, engine, free_card_bytes)
    return backend
