"""The one composition root: settings → store → engine → queue → sandbox or Discord → client, and back down again."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
import discord

from bot import local_guild, permissions
from bot.answering import Answerer
from bot.backup import finish_restore
from bot.catalogue import Catalogue, ShippedData
from bot.client import Understudy
from bot.clock import Clock, SystemClock
from bot.cogs.reply_buttons import ReplyButtons
from bot.comparing import to_compare
from bot.conversation import Conversations
from bot.giving_way import GivingWay
from bot.house import House, Keeping
from bot.local_guild import SKERROW, Town
from bot.lore import read_all_lore
from bot.making_room import MakingRoom
from bot.personas import Personas
from bot.preparing import Preparing
from bot.preview import PREVIEWS
from bot.privacy.files import delete
from bot.privacy.replay import take_up
from bot.queue import JobQueue
from bot.retention import Limits, Retention
from bot.sandbox import Sandbox, StateUnreadable, point_discord_py_at
from bot.served import LeftBehind, left_behind
from bot.settings import Settings, SettingsError
from bot.store import Job, Store
from bot.training import SubprocessBackend
from bot.voices import Voices
from bot.watch import Watch
from bot.web import Front, listening
from bot.web.sessions import Door
from personas import base_model
from personas.base_model import BaseModel
from personas.compare import Compare
from personas.contracts import Sampling
from personas.engine.local import LocalEngine
from personas.lore import LoreIndex
from personas.precisions import choose

log = logging.getLogger(__name__)

DASHBOARD = ("Dashboard", "/dashboard")
"""What the sandbox's page links to."""


class PortTakenError(SettingsError):
    """Another program listens on WEB_PORT."""


class NobodyHomeError(SettingsError):
    """There are no personas."""


@dataclass(frozen=True)
class App:
    """A running bot. `sandbox` is None on Discord; `running` ends when the client does; `url` is its web server's."""

    client: Understudy
    sandbox: Sandbox | None
    running: asyncio.Task[None]
    url: str

    @property
    def house(self) -> House:
        """What the bot works with."""
        return self.client.house


@asynccontextmanager
async def opened(settings: Settings, shipped: ShippedData, town: Town = SKERROW) -> AsyncIterator[App]:
    """The bot, ready; taken down in order at the end of the block. Without a token it is in a town of its own.

    Raises `UnderstudyError` when it cannot start.
    """
    async with AsyncExitStack() as stack:
        finish_restore(settings.home)
        store = Store.open(settings.home / "understudy.sqlite")
        stack.callback(store.close)
        delete(settings.home / PREVIEWS)
        front = Front(Door(settings.web_token, settings.web_names, is_local=settings.is_local))
        sandbox = await _sandbox(settings, town, front, stack) if settings.in_sandbox else None
        url = sandbox.url if sandbox and settings.is_local else await _listening(settings, front, stack)
        personas = Personas(shipped.cards, settings.home)
        keeping = _keeping(settings, sandbox)
        # Before anything reads the home: nobody who was forgotten is in what follows.
        await take_up(settings.home, store, keeping, personas.every_name())
        _read(personas, shipped)
        lore = await _lore(settings, shipped, personas, stack)
        watch = _watch(settings, stack)
        engine = await _engine(settings, watch, stack)
        catalogue = Catalogue(shipped, settings.base_model, settings.home, store)
        clock = SystemClock()
        compare = functools.partial(to_compare, settings.home, store, personas)
        backend = _backend(settings, catalogue, clock, engine, compare)
        queue = JobQueue(store, MakingRoom(backend, engine), clock)
        behind = await _left_behind(settings, store, engine.base)
        conversations = Conversations(store, personas, lore, _sampling(settings), settings.home, behind)

        def house(client: discord.Client) -> House:
            voices, way = Voices(client, store), GivingWay(backend.hold)
            answerer = Answerer(store, engine, conversations, voices, ReplyButtons(), way)
            return House(
                store, conversations, answerer, queue, catalogue, settings.base_model, settings.home, keeping=keeping,
                comparisons_per_day=settings.comparisons_per_day, client=client, watch=watch,
                max_upload_bytes=settings.max_upload_gib * 2**30,
            )  # fmt: skip

        client, running = await _client(settings, house, sandbox, stack)
        if sandbox:
            await local_guild.move_in(client, sandbox, client.house.answerer, town.homes)
        Preparing(client.house).start(client)
        retention = Retention(client.house, clock, Limits(settings.history_days, settings.guild_days))
        retention.start(client)
        stack.push_async_callback(retention.stop)
        queue.start()
        stack.push_async_callback(queue.stop)
        front.open(client.house)
        stack.callback(front.close)
        yield App(client, sandbox, running, url)


async def _lore(settings: Settings, shipped: ShippedData, personas: Personas, stack: AsyncExitStack) -> LoreIndex:
    passages = read_all_lore(shipped.lore, personas.of(0), settings.home)
    lore = await asyncio.to_thread(LoreIndex, passages, settings.home / "cache" / "lore.sqlite")
    stack.callback(lore.close)
    return lore


def _watch(settings: Settings, stack: AsyncExitStack) -> Watch:
    watch = Watch(settings)
    stack.enter_context(watch.listening())
    stack.push_async_callback(watch.findings.close)
    return watch


def _sampling(settings: Settings) -> Sampling:
    return Sampling(temperature=settings.temperature, top_p=settings.top_p, max_new_tokens=settings.max_new_tokens)


def _read(personas: Personas, shipped: ShippedData) -> None:
    personas.reread()
    if not personas.of(0):
        raise NobodyHomeError(f"There are no persona cards in {shipped.cards}.", "Put one there: a *.toml file each.")


async def _left_behind(settings: Settings, store: Store, base: BaseModel) -> LeftBehind:
    """The versions of another base model; the operator is told whose they are."""
    versions = [(persona_id, version) for persona_id, version, _ in store.versions.all_installed()]
    behind = await asyncio.to_thread(left_behind, settings.home, versions, base_model.fingerprint(base))
    live = {persona_id: store.versions.live(persona_id) for persona_id, _ in versions}
    if words := behind.words(live, settings.base_model):
        log.warning("%s", words)
    return behind


def _keeping(settings: Settings, sandbox: Sandbox | None) -> Keeping:
    leave = functools.partial(local_guild.forget_in, sandbox) if sandbox else None
    return Keeping(settings.discord_permission, settings.history_days, settings.in_sandbox, leave)


async def _sandbox(settings: Settings, town: Town, front: Front, stack: AsyncExitStack) -> Sandbox:
    state = settings.home / "sandbox.sqlite"
    try:
        sandbox = Sandbox(town.seed, state)
    except StateUnreadable as error:
        raise SettingsError(f"{error}.", f"Move {state} away: a new guild is made in its place.") from error
    stack.push_async_callback(sandbox.stop)
    try:
        if settings.is_local:
            await sandbox.start(settings.web_host, settings.web_port, front.mount, (DASHBOARD,))
        else:  # it lets anybody be anybody, so it stays on this machine, at a port of its own
            await sandbox.start()
    except OSError as error:
        raise _port_taken(settings, error) from error
    stack.push(point_discord_py_at(sandbox))
    return sandbox


async def _listening(settings: Settings, front: Front, stack: AsyncExitStack) -> str:
    """A web server of its own, where there is no sandbox to share one with; gives its address."""
    try:
        return await stack.enter_async_context(listening(front, settings.web_port, settings.web_host))
    except OSError as error:
        raise _port_taken(settings, error) from error


def _port_taken(settings: Settings, error: OSError) -> PortTakenError:
    return PortTakenError(
        f"Port {settings.web_port} cannot be used: {error.strerror}.",
        "End the other program (perhaps another bot), or set WEB_PORT to another number; "
        f"WEB_HOST ({settings.web_host}) has to be an address of this machine.",
    )


async def _engine(settings: Settings, watch: Watch, stack: AsyncExitStack) -> LocalEngine:
    log.info("loading the base model (%s) …", settings.base_model)
    base = await asyncio.to_thread(base_model.locate, settings.base_model)
    chosen = await asyncio.to_thread(choose, settings.engine_precision, base.name)
    log.info("the base model serves in %s: %s", chosen.precision, chosen.why)
    engine = LocalEngine(base, chosen.precision, max_waiting=settings.max_waiting_replies, on_reply=watch.reply)
    await engine.start()
    stack.push_async_callback(engine.close)
    return engine


def _backend(
    settings: Settings, catalogue: Catalogue, clock: Clock, engine: LocalEngine, compare: Callable[[Job], Compare]
) -> SubprocessBackend:
    return SubprocessBackend(
        settings.home,
        catalogue,
        clock,
        threads=settings.trainer_threads,
        nice=settings.trainer_nice,
        serving_precision=engine.precision,
        environ=os.environ,
        secrets=settings.wandb,
        compare=compare,
        card=settings.trainer_card,
    )


async def _client(
    settings: Settings, house: Callable[[discord.Client], House], sandbox: Sandbox | None, stack: AsyncExitStack
) -> tuple[Understudy, asyncio.Task[None]]:
    """Log in and wait until ready; without the message content intent where Discord does not grant it."""
    token = sandbox.token if sandbox else settings.discord_token
    wanted = settings.message_content_intent
    for message_content in dict.fromkeys((wanted, False)):
        client = Understudy(house, message_content=message_content, guilds_settle_s=0.1 if sandbox else 2.0)
        running = asyncio.create_task(client.start(token), name="discord")
        try:
            await _ready(client, running)
        except discord.PrivilegedIntentsRequired:
            await client.close()
            need = permissions.MESSAGE_CONTENT
            log.warning(
                "Discord does not grant this bot the message content intent, needed to %s; without it %s. Grant it "
                "under Bot → Privileged Gateway Intents, or set MESSAGE_CONTENT_INTENT=false.", need.why, need.cost
            )  # fmt: skip
        else:
            stack.push_async_callback(client.close)
            stack.push_async_callback(client.house.answerer.close)
            return client, running
    raise AssertionError("without privileged intents Discord asks for none")


async def _ready(client: Understudy, running: asyncio.Task[None]) -> None:
    """Wait until the client is ready or has failed. Raises `SettingsError` for a token that Discord does not know."""
    ready = asyncio.create_task(client.wait_until_ready())
    await asyncio.wait({ready, running}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done() and not running.done():
        return
    ready.cancel()
    try:
        await running
    except discord.LoginFailure as error:
        await client.close()
        raise SettingsError(
            "Discord does not accept DISCORD_TOKEN.",
            "Copy the bot's token anew (Developer Portal → Bot → Reset Token), or leave it empty for the sandbox.",
        ) from error
    except (aiohttp.ClientConnectionError, discord.HTTPException, discord.GatewayNotFound) as error:
        await client.close()
        raise SettingsError(f"Discord cannot be reached: {error}.", "Check the network and try again.") from error
