"""The bot on a stage: the real client, store and queue against a real sandbox; only model and
trainer are fakes.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from bot import client as client_module
from bot.app import DASHBOARD_LINK
from bot.client import BotClient, ShardedBotClient
from bot.compose import Dependencies, compose
from bot.demo_guild import (
    MEMBER,
    MODERATOR,
    SKERROW_SEED,
    assign_channel_personas,
    forget_in_sandbox,
)
from bot.personas.base_model_compat import IncompatibleVersions
from bot.personas.registry import PersonaRegistry
from bot.platform.clock import Clock, SystemClock
from bot.platform.discord_kit.command_sync import sync_commands
from bot.services import PrivacyServices
from bot.settings import Settings
from bot.store import Store
from bot.training import discord_progress
from bot.training.dataset_catalog import DatasetCatalog
from bot.transcription.transcriber import Transcriber
from bot.versions.actions import AutomaticPromotion
from bot.web_server import WebServer
from personas.home.job_material import ShippedData
from personas.lore import index as lore_index
from personas.lore import semantic
from personas.lore.index import LoreIndex
from personas.lore.lore_folder import read_lore
from personas.lore.passages import WORLD, Passage
from sandbox import Sandbox, message_text, patch_discord
from tests.bot.registered_commands import RegisteredCommands
from tests.bot.restartable_queue import TrainingHome
from tests.fake_engine import FakeEngine
from tests.fakes import FakeTrainingBackend

QUAY = "weighbridge-quay"
INN = "the-damp-lantern"
STAGE = "drowned-stage"
OFFICE = "harbour-office"
PROGRESS_INTERVAL_S = 0.05
"""Interval between two edits of a progress message on stage; a bot's 1.5 s are only waited for."""


@dataclass
class Stage:
    """A running bot and the people around it."""

    sandbox: Sandbox
    client: BotClient
    store: Store
    engine: FakeEngine
    backend: FakeTrainingBackend

    @property
    def moderator(self) -> Any:
        return self.sandbox.member(MODERATOR)

    @property
    def member(self) -> Any:
        return self.sandbox.member(MEMBER)

    @property
    def mark(self) -> int:
        """Now, as `since` of `sees`."""
        return len(self.sandbox.events)

    def live(self, persona_id: str) -> str | None:
        """The version that is live in the server."""
        return self.store.versions.live(persona_id, int(self.sandbox.guild_id))

    async def sees(
        self, words: str, kind: str = "any", since: int = 0, by: str | None = None
    ) -> dict[str, Any]:
        """The next message, new or edited, in which these words stand."""

        def fits(message: dict[str, Any]) -> bool:
            return words in message_text(message) and by in (
                None,
                message["author"]["username"],
            )

        kinds = ("message", "edit") if kind == "any" else (kind,)
        waits = [asyncio.create_task(self.sandbox.wait_for(k, fits, 8.0, since)) for k in kinds]
        done, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in rest:
            wait.cancel()
        return done.pop().result()

    async def finished(self, channel: str, since: int) -> dict[str, Any]:
        """The next finished reply in a channel."""
        return await finished_reply(self.sandbox, channel, since)


async def finished_reply(
    sandbox: Sandbox, channel: str, since: int, *, timeout_s: float = 8.0
) -> dict[str, Any]:
    """The next finished reply in a channel."""
    channel_id = sandbox.channel(channel)["id"]
    return await sandbox.wait_for(
        "edit",
        lambda message: (
            message["channel_id"] == channel_id and "\n-# AI-written" in message["content"]
        ),
        timeout_s=timeout_s,
        since=since,
    )


@cache
def _read_passages(lore: Path, owners: tuple[str, ...]) -> tuple[Passage, ...]:
    """The passages of the shipped lore, read once."""
    return tuple(read_lore(lore, owners))


@cache
def _lore_vectors(passages: tuple[Passage, ...]) -> dict[str, semantic.Vectors]:
    """Vectors of the shipped lore, which every erasure drops from memory; to compute them takes
    five seconds.
    """
    semantic.clear_vectors()
    LoreIndex(passages).close()
    return dict(semantic._VECTOR_CACHE)


def _shipped_units(rows: Sequence[Passage], encoder: str = "") -> list[list[str]]:
    return _units_of(tuple(rows), encoder)


@cache
def _units_of(rows: tuple[Passage, ...], encoder: str) -> list[list[str]]:
    """The texts that are embedded of the shipped lore, cut once."""
    return semantic.embedding_units(rows, encoder)


@asynccontextmanager
async def on_stage(
    home: Path,
    *,
    seed: Any = SKERROW_SEED,
    more_guilds: Sequence[Any] = (),
    shards: int = 1,
    engine: FakeEngine | None = None,
    message_content: bool = True,
    members: bool = False,
    permission: str = "",
    served_hash: str = "",
    candidates: tuple[int, int] = (1, 4),
    clock: Clock | None = None,
    user_install: bool = False,
    own_words: bool = False,
    web_server: WebServer | None = None,
    transcriber: Transcriber | None = None,
    notice: str = "",
    registers_commands: bool = False,
) -> AsyncIterator[Stage]:
    """Run the bot with fakes at the seams; `home` may hold an earlier life of it.

    `registers_commands` makes it register them even where an earlier stage did.
    """
    settings = Settings(
        home=home,
        discord_permission=permission,
        reply_candidates=candidates[0],
        max_reply_candidates=candidates[1],
        user_install=user_install,
        own_words=own_words,
    )
    shipped = ShippedData.from_source_tree()
    personas = PersonaRegistry(shipped.cards, home)
    file = home / "sandbox.sqlite"
    sandbox = Sandbox(seed, file, rate_window=0.02, more_guilds=more_guilds, shards=shards)
    front = web_server or WebServer()
    await sandbox.start(mount=front.mount, links=(DASHBOARD_LINK,), notice=notice)
    engine = engine or FakeEngine()
    backend = FakeTrainingBackend()
    registered = RegisteredCommands(sandbox, user_install=user_install, permission=permission)
    sync = sync_commands if registers_commands else registered.sync
    with (
        Store.open(home / "understudy.sqlite") as store,
        patch_discord(sandbox),
        mock.patch.object(discord_progress, "EDIT_INTERVAL_S", PROGRESS_INTERVAL_S),
        mock.patch.object(client_module, "sync_commands", sync),
    ):
        passages = _read_passages(shipped.lore, (*personas.of(0), WORLD))
        semantic._VECTOR_CACHE.update(_lore_vectors(passages))
        with mock.patch.object(lore_index, "embedding_units", _shipped_units):
            lore = LoreIndex(passages)
        dependencies = Dependencies(
            store=store,
            personas=personas,
            lore=lore,
            catalogue=DatasetCatalog(shipped, settings.base_model, home, store),
            engine=engine,
            backend=backend,
            privacy=PrivacyServices.of(settings, partial(forget_in_sandbox, sandbox)),
            incompatible_versions=IncompatibleVersions(served_hash=served_hash),
            clock=clock or SystemClock(),
            transcriber=transcriber,
        )
        client_type = ShardedBotClient if shards > 1 else BotClient
        client = client_type(message_content=message_content, members=members, guilds_settle_s=0.1)
        client.services = compose(settings, dependencies, client)
        queue = client.services.queue
        running = asyncio.create_task(client.start(sandbox.token))
        ready = asyncio.create_task(client.wait_until_ready())
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        await assign_channel_personas(client, sandbox, client.services.reply_service)
        promotion = AutomaticPromotion(store, client.services.versions, queue)
        promotion.start()
        queue.start()
        front.open(client.services)
        try:
            yield Stage(sandbox, client, store, engine, backend)
        finally:
            front.close()
            await queue.stop()
            await promotion.stop()
            await client.services.reply_service.close()
            await client.close()
            await asyncio.gather(running, return_exceptions=True)
            lore.close()
            await sandbox.stop()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with on_stage(tmp_path) as made:
        yield made
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[TrainingHome]:
    """The home of tests of the queue; other modules have a `home` of their own."""
    home = TrainingHome(tmp_path)
    yield home
    await home.queue.stop()
    await home.kill()
