"""Starts the bot and shuts it down: opens its parts in order, and closes them in the reverse order."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import discord

from bot import demo_guild
from bot.chat.prefix_warmup import ChannelPrefixWarmup
from bot.client import BotClient, ShardedBotClient
from bot.compose import Dependencies, compose, create_backend, create_engine
from bot.demo_guild import SKERROW_HARBOUR, DemoGuild
from bot.models.measured_speeds import SpeedRecorder
from bot.models.web.pages import OFFER_PATH
from bot.operations.backup.automatic import AutomaticBackup, BackupSchedule
from bot.operations.backup.restore import finish_restore
from bot.operations.doctor.connection_checks import fetch_shard_count
from bot.operations.metrics import BotMetrics
from bot.operations.startup_checks import require_startable
from bot.personas.base_model_compat import IncompatibleVersions, find_incompatible_versions
from bot.personas.guild_lore import read_all_lore
from bot.personas.registry import PersonaRegistry
from bot.platform import permissions
from bot.platform.backup_folder import automatic_folder
from bot.platform.clock import BackgroundTask, SystemClock
from bot.platform.errors import connection_error
from bot.platform.web_kit.auth import Authenticator
from bot.privacy.erasure_service import resume_erasures
from bot.privacy.home_files import delete_path
from bot.privacy.identifiers import PersonIdentifiers
from bot.privacy.retention import Retention, RetentionPeriods
from bot.services import PrivacyServices, Services
from bot.settings import Settings, SettingsError
from bot.store import HOME_DATABASE, Store, TrainingJob
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.resource_sharing import shares_processor
from bot.training.training_plan import PREVIEWS_FOLDER
from bot.transcription.transcriber import Transcriber, worker_command
from bot.transcription.voice_model import locate_voice_model
from bot.versions.actions import AutomaticPromotion
from bot.versions.member_feedback import comparison_targets
from bot.versions.shipped import ShippedVersions
from bot.web_server import WebServer, run_server
from personas.engine import Engine, RequestMetrics
from personas.home.comparison_targets import ComparisonTargets
from personas.home.job_material import ShippedData
from personas.home.lore_sets import LoreSets
from personas.lore.index import LoreIndex
from personas.models import base_model
from sandbox import GuildSeed, Sandbox, StateUnreadable, patch_discord

log = logging.getLogger(__name__)

HOUR_S = 3600.0
SPEED_INTERVAL_S = 60.0
"""Interval at which the measured speed of the base model is stored."""
GUILDS_SETTLE_S = 2.0
SANDBOX_GUILDS_SETTLE_S = 0.1
"""Wait for a further guild before the client counts as ready; the sandbox sends all at once."""
# Labels and paths of the links on the sandbox's page.
DASHBOARD_LINK = ("Dashboard", "/dashboard")
MODELS_LINK = ("Models", "/dashboard/models")


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
    settings: Settings,
    shipped: ShippedData,
    town: DemoGuild = SKERROW_HARBOUR,
    *,
    env_file: Path | None = None,
    metrics: BotMetrics | None = None,
) -> AsyncIterator[App]:
    """Run the bot inside the block; without a token it runs in the demo guild. `env_file` has its
    settings; `metrics` may have warnings from before. Raises `UnderstudyError`.
    """
    async with AsyncExitStack() as stack:
        metrics = metrics or BotMetrics(settings)
        stack.enter_context(metrics.listening())
        stack.push_async_callback(metrics.findings.close)
        await require_startable(settings)
        finish_restore(settings.home)
        store = Store.open(settings.home / HOME_DATABASE)
        stack.callback(store.close)
        # A bot that was killed may have left members' messages in it.
        delete_path(settings.home / PREVIEWS_FOLDER)

        # The web server answers from here on; until `web_server.open` below with 503.
        web_server = WebServer(_authenticator(settings))
        sandbox = None
        if settings.in_sandbox:
            sandbox = await _open_sandbox(settings, town, web_server, stack)
        if sandbox and settings.is_local:
            url = sandbox.url
        else:
            url = await _open_web_server(settings, web_server, stack)
        stack.enter_context(store.noting_address(sandbox.url if sandbox else f"{url}/dashboard"))

        # Erasures come before anything reads the home, so that nothing of an erased person is read.
        personas = await asyncio.to_thread(PersonaRegistry, shipped.cards, settings.home)
        privacy = _privacy_services(settings, sandbox)
        await resume_erasures(settings.home, store, privacy=privacy, personas=personas.all_names())
        await asyncio.to_thread(personas.reload_guild_cards)
        if not personas.of(0):
            raise NoPersonasError(
                f"There are no persona cards in {shipped.cards}.",
                "Put one there: a *.toml file each.",
            )
        base = await asyncio.to_thread(base_model.locate, settings.base_model)
        speed = SpeedRecorder(settings.home, settings.base_model, settings.engine)

        def note_reply(reply: RequestMetrics) -> None:
            metrics.reply(reply)
            speed.note(reply)

        engine = await create_engine(settings, base, note_reply)
        opening = _open_lore(settings, shipped, personas, stack)
        lore = await _start_beside(engine, opening, stack)
        base_hash = engine.fingerprint  # computed anew each time
        if shipped.adapters and _serves_adapters(settings):
            # A few files of 10 MB, once in the life of a home.
            ShippedVersions(settings.home, store, personas).install(
                shipped.adapters, settings.base_model, base_hash
            )
        catalogue = DatasetCatalog(shipped, settings.base_model, settings.home, store)

        def compare(job: TrainingJob) -> ComparisonTargets:
            return comparison_targets(settings.home, store, personas, job)

        dependencies = Dependencies(
            store=store,
            personas=personas,
            lore=lore,
            catalogue=catalogue,
            engine=engine,
            backend=create_backend(
                settings, catalogue, engine, compare=compare, earlier=store.jobs.ended_before
            ),
            privacy=privacy,
            metrics=metrics,
            sampling=replace(base_model.recommended_sampling(base), **settings.sampling),
            recommended=frozenset(base_model.recommended_values(base)),
            incompatible_versions=await _find_incompatible(settings, store, base_hash),
            shares_processor=lambda: shares_processor(settings, engine),
            env_file=env_file,
            transcriber=await _open_transcriber(settings, stack),
        )
        client, running = await _connect(settings, dependencies, sandbox, stack)
        services = client.services
        if sandbox:
            await demo_guild.assign_channel_personas(
                client, sandbox, services.reply_service, town.homes
            )
        warmup = ChannelPrefixWarmup(
            store=store,
            personas=personas,
            served_versions=services.served_versions,
            engine=engine,
        )
        warmup.start(client)
        _start_retention(client, settings, stack)
        _start_speed_log(services, speed, stack)
        stack.push_async_callback(services.data_jobs.close)
        _start_backups(services, settings, stack)
        _start_trainings(services, stack)
        web_server.open(services)
        stack.callback(web_server.close)
        yield App(client, sandbox, running, url)


async def _open_transcriber(settings: Settings, stack: AsyncExitStack) -> Transcriber | None:
    """Find the model of voice messages, or fetch it. Raises `VoiceModelError`."""
    if not settings.voice_model:
        return None
    folder = await asyncio.to_thread(locate_voice_model, settings.voice_model, fetch=True)
    log.info("voice messages are recognised with %s", settings.voice_model)
    transcriber = Transcriber(worker_command(folder))
    stack.push_async_callback(transcriber.close)
    return transcriber


def _start_retention(client: BotClient, settings: Settings, stack: AsyncExitStack) -> None:
    periods = RetentionPeriods(
        history_days=settings.history_days,
        guild_days=settings.guild_days,
        job_days=settings.job_days,
    )
    retention = Retention(client.services, SystemClock(), periods)
    retention.start(client)
    client.services.background.append(retention.worker)
    stack.push_async_callback(retention.stop)


def _start_speed_log(services: Services, speed: SpeedRecorder, stack: AsyncExitStack) -> None:
    task = BackgroundTask(
        "speed of the model",
        lambda: asyncio.to_thread(speed.store),
        lambda: asyncio.sleep(SPEED_INTERVAL_S),
    )
    task.start()
    services.background.append(task)
    stack.push_async_callback(task.stop)


def _start_backups(services: Services, settings: Settings, stack: AsyncExitStack) -> None:
    if not settings.backup_hours:
        return
    folder = automatic_folder(settings.home, settings.backup_folder)
    schedule = BackupSchedule(settings.backup_hours * HOUR_S, settings.backup_keep, folder)
    backup = AutomaticBackup(settings.home, services.store, SystemClock(), schedule)
    services.background.append(backup.task)
    backup.task.start()
    stack.push_async_callback(backup.task.stop)


def _start_trainings(services: Services, stack: AsyncExitStack) -> None:
    """Start automatic promotion and the training queue."""
    promotion = AutomaticPromotion(services.store, services.versions, services.queue)
    promotion.start()
    services.background.append(promotion.worker)
    stack.push_async_callback(promotion.stop)
    services.queue.start()
    services.background.append(services.queue.worker)
    stack.push_async_callback(services.queue.stop)


async def _open_lore(
    settings: Settings, shipped: ShippedData, personas: PersonaRegistry, stack: AsyncExitStack
) -> LoreIndex:
    everybody = [(guild_id, persona.id) for guild_id, persona in personas.everybody()]
    LoreSets(shipped.lore, settings.home).adopt(everybody)
    passages = await asyncio.to_thread(read_all_lore, shipped.lore, personas.of(0), settings.home)
    cache = settings.home / "cache" / "lore.sqlite"
    lore = await asyncio.to_thread(LoreIndex, passages, cache, settings.lore_encoder)
    stack.callback(lore.close)
    return lore


async def _start_beside(
    engine: Engine, opening: Awaitable[LoreIndex], stack: AsyncExitStack
) -> LoreIndex:
    """Start the engine while the lore is opened: at a first start, each computes for seconds.

    Waits for both, and raises the error of the engine before that of the lore.
    """
    started, lore = await asyncio.gather(engine.start(), opening, return_exceptions=True)
    if isinstance(started, BaseException):
        raise started
    stack.push_async_callback(engine.close)
    if isinstance(lore, BaseException):
        raise lore
    return lore


async def _find_incompatible(
    settings: Settings, store: Store, base_hash: str
) -> IncompatibleVersions:
    """Find the versions of another base model, and log a warning about live ones."""
    versions = [(persona_id, version) for persona_id, version, _ in store.versions.all_installed()]
    incompatible = await asyncio.to_thread(
        find_incompatible_versions, settings.home, versions, base_hash
    )
    incompatible = replace(incompatible, has_adapters=_serves_adapters(settings))
    if warning := incompatible.warning(store.versions.all_live(), settings.base_model):
        log.warning("%s", warning)
    return incompatible


def _serves_adapters(settings: Settings) -> bool:
    return settings.engine != "openai"


def _privacy_services(settings: Settings, sandbox: Sandbox | None) -> PrivacyServices:
    if sandbox is None:
        return PrivacyServices.of(settings)

    def forget_in_sandbox(traces: PersonIdentifiers) -> None:
        demo_guild.forget_in_sandbox(sandbox, traces)

    return PrivacyServices.of(settings, forget_in_sandbox)


def _authenticator(settings: Settings) -> Authenticator:
    return Authenticator(
        settings.web_token,
        settings.web_names,
        is_local=settings.is_local,
        proxies=settings.web_proxies,
    )


async def _open_sandbox(
    settings: Settings, town: DemoGuild, web_server: WebServer, stack: AsyncExitStack
) -> Sandbox:
    state = settings.home / "sandbox.sqlite"
    try:
        sandbox = Sandbox(_seed_with_notice(town, settings), state)
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
                web_server.mount,
                links=(DASHBOARD_LINK, MODELS_LINK),
                notice=OFFER_PATH if _serves_bundled_model(settings) else "",
                create_runner=web_server.create_runner,
            )
        else:
            # Anybody can act as any member there, so it stays on this machine, at a port of its own.
            await sandbox.start()
    except OSError as error:
        raise _port_taken_error(settings, error) from error
    stack.push(patch_discord(sandbox))
    return sandbox


def _seed_with_notice(town: DemoGuild, settings: Settings) -> GuildSeed:
    """Return the guild's seed, whose welcome says so where the bundled model answers."""
    if not _serves_bundled_model(settings):
        return town.seed
    return replace(town.seed, welcome=(*town.seed.welcome, demo_guild.SMALL_MODEL_LINE))


def _serves_bundled_model(settings: Settings) -> bool:
    return settings.base_model == base_model.EMBEDDED and settings.engine == "local"


async def _open_web_server(settings: Settings, web_server: WebServer, stack: AsyncExitStack) -> str:
    """Start a separate web server, where there is no sandbox to share one with; returns its
    address.
    """
    try:
        return await stack.enter_async_context(
            run_server(web_server, settings.web_port, settings.web_host)
        )
    except OSError as error:
        raise _port_taken_error(settings, error) from error


def _port_taken_error(settings: Settings, error: OSError) -> PortTakenError:
    return PortTakenError(
        f"Port {settings.web_port} cannot be used: {error.strerror}.",
        "End the other program (perhaps another bot), or set WEB_PORT to another number; "
        f"WEB_HOST ({settings.web_host}) has to be an address of this machine.",
    )


async def _connect(
    settings: Settings,
    dependencies: Dependencies,
    sandbox: Sandbox | None,
    stack: AsyncExitStack,
) -> tuple[BotClient, asyncio.Task[None]]:
    """Log in and wait until ready; without the privileged intents that Discord does not grant."""
    client_type = BotClient
    if not sandbox and await fetch_shard_count(settings.discord_token) > 1:
        client_type = ShardedBotClient
    settle_s = SANDBOX_GUILDS_SETTLE_S if sandbox else GUILDS_SETTLE_S

    async def log_in(intents: PrivilegedIntents) -> tuple[BotClient, asyncio.Task[None]]:
        client = client_type(guilds_settle_s=settle_s, **vars(intents))
        client.services = compose(settings, dependencies, client)
        token = sandbox.token if sandbox else settings.discord_token
        running = asyncio.create_task(client.start(token), name="discord")
        stack.push_async_callback(_disconnect, client, running)
        await _wait_until_ready(client, running)
        stack.push_async_callback(client.services.reply_service.close)
        return client, running

    wanted = PrivilegedIntents(settings.message_content_intent, settings.members_intent)
    for intents in wanted.fewer():
        try:
            client, running = await log_in(intents)
        except discord.PrivilegedIntentsRequired:  # Discord does not say which
            continue
        _warn_of_refused(wanted, intents)
        return client, running
    none = PrivilegedIntents(message_content=False, members=False)
    _warn_of_refused(wanted, none)
    return await log_in(none)


@dataclass(frozen=True)
class PrivilegedIntents:
    """The privileged intents that the bot asks for."""

    message_content: bool
    members: bool

    def fewer(self) -> Iterator["PrivilegedIntents"]:
        """Yield these, and then fewer and fewer of them."""
        seen = set()
        for content, members in ((True, True), (True, False), (False, True)):
            intents = PrivilegedIntents(self.message_content and content, self.members and members)
            if intents not in seen and (intents.message_content or intents.members):
                seen.add(intents)
                yield intents


def _warn_of_refused(wanted: PrivilegedIntents, granted: PrivilegedIntents) -> None:
    needs = {
        "message content intent": (permissions.MESSAGE_CONTENT, "message_content"),
        "server members intent": (permissions.MEMBERS, "members"),
    }
    for name, (need, field_name) in needs.items():
        if getattr(wanted, field_name) and not getattr(granted, field_name):
            log.warning(
                "Discord does not grant this bot the %s, %s. Grant it under Bot → Privileged Gateway "
                "Intents, or set %s_INTENT=false.",
                name,
                f"needed to {need.why}; without it {need.cost}",
                field_name.upper(),
            )


async def _wait_until_ready(client: BotClient, running: asyncio.Task[None]) -> None:
    """Wait until the client is ready. Raises `DiscordError`, and, once the client is closed,
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
        await client.close()
        raise
    except Exception as error:  # discord.py raises whatever an unexpected response leads to
        raise connection_error(error) from error


async def _disconnect(client: BotClient, running: asyncio.Task[None]) -> None:
    await client.close()
    running.cancel()  # it may wait for Discord
    await asyncio.gather(running, return_exceptions=True)
