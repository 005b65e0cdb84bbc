"""The composition root: builds store, engine, queue and client from the settings, and shuts them
down in order.
"""

import asyncio
import functools
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import discord

from bot import demo_guild
from bot.chat.discord_buttons import ReplyButtonViews
from bot.chat.request import ChatRequestBuilder
from bot.client import BotClient, ChannelPrefixWarmup, ShardedBotClient
from bot.demo_guild import SKERROW_HARBOUR, DemoGuild
from bot.operations.backup.automatic import AutomaticBackup, BackupSchedule
from bot.operations.backup.restore import finish_restore
from bot.operations.metrics import BotMetrics
from bot.personas.base_model_compat import IncompatibleVersions, find_incompatible_versions
from bot.personas.guild_lore import read_all_lore
from bot.personas.registry import PersonaRegistry
from bot.platform import permissions
from bot.platform.clock import Clock, SystemClock
from bot.platform.errors import connection_error
from bot.platform.web_kit.auth import Authenticator
from bot.privacy.erasure_service import resume_erasures
from bot.privacy.home_files import delete_path
from bot.privacy.retention import Retention, RetentionPeriods
from bot.services import PrivacyServices, Services
from bot.settings import Settings, SettingsError
from bot.store import HOME_DATABASE, Store, TrainingJob
from bot.training.backend_protocol import TrainingBackend
from bot.training.backends.job_folder_backend import JobFolderOptions
from bot.training.backends.subprocess_backend import SubprocessBackend
from bot.training.backends.trainer_environment import evaluation_environ
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.queue import JobQueue
from bot.training.resource_sharing import GpuOffloadBackend, TrainerThrottle, shares_processor
from bot.training.run_limits import RunLimits
from bot.training.training_plan import PREVIEWS_FOLDER
from bot.versions.actions import AutomaticPromotion
from bot.versions.member_feedback import comparison_targets
from bot.web_server import WebServer, run_server
from personas.engine import Engine
from personas.engine.llm_engine import LLMEngine
from personas.engine.serving_precision import PRECISION_BY_SETTING, choose_precision
from personas.home.job_folder import ComparisonTargets
from personas.home.job_material import ShippedData
from personas.lore.index import LoreIndex
from personas.models import base_model
from personas.models.base_model import BaseModel
from sandbox import Sandbox, StateUnreadable, patch_discord

log = logging.getLogger(__name__)

HOUR_S = 3600.0
GATEWAY_HEALTH_INTERVAL_S = 5.0  # a gateway may count the requests
DASHBOARD_LINK = ("Dashboard", "/dashboard")  # label and path of the link on the sandbox's page


class PortTakenError(SettingsError):
    """Another program listens on WEB_PORT."""


class NoPersonasError(SettingsError):
    """There are no personas."""


@dataclass(frozen=True)
class App:
    """A running bot. `sandbox` is None on Discord, `running` ends with the client, `url` is the web
    server's.
    """

    client: BotClient
    sandbox: Sandbox | None
    running: asyncio.Task[None]
    url: str

    @property
    def services(self) -> Services:
        return self.client.services


@asynccontextmanager
async def open_app(
    settings: Settings, shipped: ShippedData, town: DemoGuild = SKERROW_HARBOUR
) -> AsyncIterator[App]:
    """Run the bot inside the block; without a token it runs in the demo guild. Raises
    `UnderstudyError`.
    """
    async with AsyncExitStack() as stack:
        finish_restore(settings.home)
        store, start_following = _open_store(settings, stack)
        delete_path(settings.home / PREVIEWS_FOLDER)
        front = WebServer(_authenticator(settings))
        sandbox = await _open_sandbox(settings, town, front, stack) if settings.in_sandbox else None
        url = (
            sandbox.url
            if sandbox and settings.is_local
            else await _open_web_server(settings, front, stack)
        )
        personas = await asyncio.to_thread(PersonaRegistry, shipped.cards, settings.home)
        privacy = _privacy_services(settings, sandbox)
        # Before anything reads the home, so that nothing of an erased person is read.
        await resume_erasures(settings.home, store, privacy, personas.all_names(), settings.shards)
        await asyncio.to_thread(_check_cards, personas, shipped)
        lore = await _open_lore(settings, shipped, personas, stack)
        metrics = _open_metrics(settings, stack)
        base, engine = await _open_engine(settings, metrics, stack)
        catalogue = DatasetCatalog(shipped, settings.base_model, settings.home, store)
        catalogue.shards = settings.shards
        clock = SystemClock()
        compare = functools.partial(comparison_targets, settings.home, store, personas)
        backend = _create_backend(settings, catalogue, clock, engine, compare)
        queue = JobQueue(store, backend, clock)
        incompatible = await _find_incompatible(settings, store, engine)
        builder = _request_builder(settings, base, store, personas, lore, incompatible)

        create_services = functools.partial(
            Services.create,
            builder=builder,
            engine=engine,
            throttle=TrainerThrottle(
                backend.hold, functools.partial(shares_processor, settings, engine)
            ),
            views=ReplyButtonViews(),
            queue=queue,
            catalogue=catalogue,
            base_model=settings.base_model,
            privacy=privacy,
            comparisons_per_day=settings.comparisons_per_day,
            fetch_adapters=settings.fetch_adapters,
            max_upload_bytes=settings.max_upload_gib * 2**30,
            fetch_datasets=settings.fetch_datasets,
            metrics=metrics,
        )
        client, running = await _connect_client(settings, create_services, sandbox, stack)
        if sandbox:
            await demo_guild.assign_channel_personas(
                client, sandbox, client.services.reply_service, town.homes
            )
        start_following(client)
        _start_background(client, settings, clock, stack)
        front.open(client.services)
        stack.callback(front.close)
        yield App(client, sandbox, running, url)


def _start_background(
    client: BotClient, settings: Settings, clock: Clock, stack: AsyncExitStack
) -> None:
    """Start prefix warm-up, retention, and in one process alone automatic promotion and the
    training queue.
    """
    services = client.services
    ChannelPrefixWarmup(services).start(client)
    retention = Retention(
        services,
        clock,
        RetentionPeriods(settings.history_days, settings.guild_days, settings.job_days),
    )
    retention.start(client)
    services.background.append(retention.worker)
    stack.push_async_callback(retention.stop)
    stack.push_async_callback(services.data_jobs.close)
    if not client.is_primary:
        return
    if settings.backup_hours and (settings.shards is None or settings.shards.is_whole):
        schedule = BackupSchedule(settings.backup_hours * HOUR_S, settings.backup_keep)
        backup = AutomaticBackup(settings.home, services.store, clock, schedule)
        services.background.append(backup.task)
        backup.task.start()
        stack.push_async_callback(backup.task.stop)
    promotion = AutomaticPromotion(services.store, services.versions, services.queue)
    promotion.start()
    services.background.extend((promotion.worker, services.queue.worker))
    stack.push_async_callback(promotion.stop)
    services.queue.start()
    stack.push_async_callback(services.queue.stop)


def _open_store(
    settings: Settings, stack: AsyncExitStack
) -> tuple[Store, Callable[[BotClient], None]]:
    """Open the database; returns what makes a client of some shards follow the other processes."""
    if settings.shards is None or settings.shards.is_whole:
        store = Store.open(settings.home / HOME_DATABASE)
        stack.callback(store.close)
        store.guilds.forget_removed_personas()
        return store, lambda client: None
    from bot.operations.shards.shard_process import (
        StateFollower,
        open_shard_store,
    )  # only with SHARDS

    store, mirror = open_shard_store(settings.home, settings.shards, settings.shared_db)
    stack.callback(store.close)
    stack.callback(mirror.leave)

    def start_following(client: BotClient) -> None:
        assert isinstance(client, ShardedBotClient)
        follower = StateFollower(mirror, client.take_up, client.close)
        follower.start()
        stack.push_async_callback(follower.stop)

    return store, start_following


async def _open_lore(
    settings: Settings, shipped: ShippedData, personas: PersonaRegistry, stack: AsyncExitStack
) -> LoreIndex:
    passages = await asyncio.to_thread(read_all_lore, shipped.lore, personas.of(0), settings.home)
    part = (
        f"-shard-{settings.shards.first}"
        if settings.shards and not settings.shards.is_whole
        else ""
    )
    cache = settings.home / "cache" / f"lore.sqlite{part}"
    lore = await asyncio.to_thread(LoreIndex, passages, cache, settings.lore_encoder)
    stack.callback(lore.close)
    return lore


def _open_metrics(settings: Settings, stack: AsyncExitStack) -> BotMetrics:
    metrics = BotMetrics(settings)
    stack.enter_context(metrics.listening())
    stack.push_async_callback(metrics.findings.close)
    return metrics


def _request_builder(
    settings: Settings,
    base: BaseModel,
    store: Store,
    personas: PersonaRegistry,
    lore: LoreIndex,
    incompatible: IncompatibleVersions,
) -> ChatRequestBuilder:
    sampling = replace(base_model.recommended_sampling(base), **settings.sampling)
    candidates = (settings.reply_candidates, settings.max_reply_candidates)
    return ChatRequestBuilder(
        store, personas, lore, sampling, settings.home, incompatible, *candidates
    )


def _check_cards(personas: PersonaRegistry, shipped: ShippedData) -> None:
    personas.reload_guild_cards()
    if not personas.of(0):
        raise NoPersonasError(
            f"There are no persona cards in {shipped.cards}.", "Put one there: a *.toml file each."
        )


async def _find_incompatible(
    settings: Settings, store: Store, engine: Engine
) -> IncompatibleVersions:
    """Find the versions of another base model, and log a warning about live ones."""
    versions = [(persona_id, version) for persona_id, version, _ in store.versions.all_installed()]
    incompatible = await asyncio.to_thread(
        find_incompatible_versions, settings.home, versions, engine.fingerprint
    )
    incompatible = replace(incompatible, has_adapters=settings.engine != "openai")
    if warning := incompatible.warning(store.versions.all_live(), settings.base_model):
        log.warning("%s", warning)
    return incompatible


def _privacy_services(settings: Settings, sandbox: Sandbox | None) -> PrivacyServices:
    leave = functools.partial(demo_guild.forget_in_sandbox, sandbox) if sandbox else None
    hosts = settings.engine_hosts
    return PrivacyServices(
        settings.discord_permission, settings.history_days, settings.in_sandbox, leave, hosts
    )


def _authenticator(settings: Settings) -> Authenticator:
    is_local = settings.is_local
    proxies = settings.web_proxies
    return Authenticator(settings.web_token, settings.web_names, is_local=is_local, proxies=proxies)


async def _open_sandbox(
    settings: Settings, town: DemoGuild, front: WebServer, stack: AsyncExitStack
) -> Sandbox:
    state = settings.home / "sandbox.sqlite"
    try:
        sandbox = Sandbox(town.seed, state)
    except StateUnreadable as error:
        raise SettingsError(
            f"{error}.", f"Move {state} away: a new guild is created in its place."
        ) from error
    stack.push_async_callback(sandbox.stop)
    try:
        if settings.is_local:
            await sandbox.start(
                settings.web_host,
                settings.web_port,
                front.mount,
                links=(DASHBOARD_LINK,),
                create_runner=front.create_runner,
            )
        else:  # anybody can act as any member there, so it stays on this machine, at a port of its own
            await sandbox.start()
    except OSError as error:
        raise _port_taken_error(settings, error) from error
    stack.push(patch_discord(sandbox))
    return sandbox


async def _open_web_server(settings: Settings, front: WebServer, stack: AsyncExitStack) -> str:
    """Start a separate web server, where there is no sandbox to share one with; returns its
    address.
    """
    try:
        return await stack.enter_async_context(
            run_server(front, settings.web_port, settings.web_host)
        )
    except OSError as error:
        raise _port_taken_error(settings, error) from error


def _port_taken_error(settings: Settings, error: OSError) -> PortTakenError:
    return PortTakenError(
        f"Port {settings.web_port} cannot be used: {error.strerror}.",
        "End the other program (perhaps another bot), or set WEB_PORT to another number; "
        f"WEB_HOST ({settings.web_host}) has to be an address of this machine.",
    )


async def _open_engine(
    settings: Settings, metrics: BotMetrics, stack: AsyncExitStack
) -> tuple[BaseModel, Engine]:
    base = await asyncio.to_thread(base_model.locate, settings.base_model)
    if settings.engine == "local":
        engine = await _create_local_engine(settings, base, metrics)
    else:
        engine = _create_remote_engine(settings, base, metrics)
    await engine.start()
    stack.push_async_callback(engine.close)
    return base, engine


async def _create_local_engine(settings: Settings, base: BaseModel, metrics: BotMetrics) -> Engine:
    log.info("loading the base model (%s) …", settings.base_model)
    chosen = await asyncio.to_thread(choose_precision, settings.engine_precision, base.name)
    log.info("the base model serves in %s: %s", chosen.precision, chosen.reason)
    return LLMEngine(
        base, chosen.precision, max_waiting=settings.max_waiting_replies, on_reply=metrics.reply
    )


def _create_remote_engine(settings: Settings, base: BaseModel, metrics: BotMetrics) -> Engine:
    from personas.engine.remote.openai_engine import OpenAIEngine  # only where the setting names it
    from personas.engine.remote.replicas import ReplicaLimits
    from personas.engine.remote.vllm_engine import VllmEngine

    log.info("connecting to %s …", ", ".join(settings.engine_urls))
    limits = ReplicaLimits(rows=settings.engine_rows, adapters=settings.engine_loras)
    if settings.engine == "openai":
        create: Callable[..., Engine] = functools.partial(OpenAIEngine, model=settings.engine_model)
        limits = replace(limits, adapters=0, health_interval_s=GATEWAY_HEALTH_INTERVAL_S)
    else:
        create = functools.partial(VllmEngine, server_home=settings.engine_home)
    return create(
        base,
        PRECISION_BY_SETTING[settings.engine_precision] or "bfloat16",
        settings.engine_urls,
        settings.home,
        key=settings.engine_key,
        limits=limits,
        max_waiting=settings.max_waiting_replies,
        on_reply=metrics.reply,
    )


def _create_backend(
    settings: Settings,
    catalogue: DatasetCatalog,
    clock: Clock,
    engine: Engine,
    compare: Callable[[TrainingJob], ComparisonTargets],
) -> TrainingBackend:
    options = JobFolderOptions(
        serving_precision=engine.precision,
        environ=os.environ | evaluation_environ(settings),
        secrets=settings.wandb,
        compare=compare,
        limits=RunLimits.of(settings),
    )
    if settings.trainer == "ray":
        from bot.training.backends.ray_backend import (
            open_ray_backend,  # only where the setting names it
        )

        return open_ray_backend(settings, catalogue, **options)
    threads = settings.trainer_threads
    nice = settings.trainer_nice
    card = settings.trainer_card
    backend = SubprocessBackend(
        settings.home, catalogue, clock, threads=threads, nice=nice, card=card, **options
    )
    return GpuOffloadBackend(backend, engine) if isinstance(engine, LLMEngine) else backend


async def _connect_client(
    settings: Settings,
    create_services: Callable[..., Services],
    sandbox: Sandbox | None,
    stack: AsyncExitStack,
) -> tuple[BotClient, asyncio.Task[None]]:
    """Log in and wait until ready; without the message content intent where Discord does not grant
    it.
    """
    token = sandbox.token if sandbox else settings.discord_token
    create_client = _client_factory(settings, stack)
    wanted = settings.message_content_intent
    for message_content in dict.fromkeys((wanted, False)):
        client = create_client(
            create_services,
            message_content=message_content,
            guilds_settle_s=0.1 if sandbox else 2.0,
        )
        running = asyncio.create_task(client.start(token), name="discord")
        stack.push_async_callback(_disconnect, client, running)
        try:
            await _wait_until_ready(client, running)
        except discord.PrivilegedIntentsRequired:
            await client.close()
            need = permissions.MESSAGE_CONTENT
            log.warning(
                "Discord does not grant this bot the message content intent, needed to %s; without "
                "it %s. Grant it "
                "under Bot → Privileged Gateway Intents, or set "
                "MESSAGE_CONTENT_INTENT=false.", need.why, need.cost
            )  # fmt: skip
        else:
            stack.push_async_callback(client.services.reply_service.close)
            return client, running
    raise AssertionError("without privileged intents Discord asks for none")


def _client_factory(settings: Settings, stack: AsyncExitStack) -> Callable[..., BotClient]:
    if settings.shards is None:
        return BotClient
    from bot.operations.shards.shard_process import open_limiter  # only with SHARDS

    limiter = open_limiter(settings.home, settings.shared_db)
    stack.push_async_callback(limiter.close)
    return functools.partial(ShardedBotClient, shards=settings.shards, limiter=limiter)


async def _wait_until_ready(client: BotClient, running: asyncio.Task[None]) -> None:
    """Wait until the client is ready, or has failed. Raises `DiscordError`, and
    `PrivilegedIntentsRequired`.
    """
    ready = asyncio.create_task(client.wait_until_ready())
    try:
        await asyncio.wait({ready, running}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ready.cancel()
    if not running.done():
        return
    try:
        await running
    except discord.PrivilegedIntentsRequired:
        raise
    except Exception as error:  # discord.py raises whatever an unexpected response leads to
        raise connection_error(error) from error


async def _disconnect(client: BotClient, running: asyncio.Task[None]) -> None:
    await client.close()
    running.cancel()  # it may wait for Discord
    await asyncio.gather(running, return_exceptions=True)
