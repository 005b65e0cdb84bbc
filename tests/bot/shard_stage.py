"""A bot process with some of the shards; fakes stand for model and trainer alone.

`python -m tests.bot.shard_stage HOME URL TOKEN SHARDS [SHARED_DB [HOLD_S]]` runs one as a process
until SIGTERM.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bot.client import ShardedBotClient
from bot.compose import Dependencies, compose
from bot.operations.shards import ShardRange, request_limiter
from bot.operations.shards.request_limiter import RateBudget, open_limiter
from bot.operations.shards.shard_store import open_shard_store
from bot.operations.shards.shared_state import SharedConnection
from bot.operations.shards.state_follower import StateFollower
from bot.personas.base_model_compat import IncompatibleVersions
from bot.personas.registry import PersonaRegistry
from bot.privacy.erasure_service import resume_erasures
from bot.services import PrivacyServices, Services
from bot.settings import Settings
from bot.store import Channel, Store
from bot.training.dataset_catalog import DatasetCatalog
from bot.versions.actions import AutomaticPromotion
from personas.home.job_material import ShippedData
from personas.lore.index import LoreIndex
from sandbox import patch_discord
from tests.fake_engine import FakeEngine
from tests.fakes import FakeTrainingBackend

PERSONA = "ballast"


@dataclass
class ShardStage:
    """A running process of a sharded bot."""

    client: ShardedBotClient
    store: Store
    mirror: SharedConnection
    engine: FakeEngine
    backend: FakeTrainingBackend
    follower: StateFollower
    running: asyncio.Task[None]

    @property
    def services(self) -> Services:
        return self.client.services


@asynccontextmanager
async def shard_stage(
    home: Path, token: str, shards: str, shared_db: str = ""
) -> AsyncIterator[ShardStage]:
    """Run the process; discord.py must be patched to the sandbox."""
    settings = Settings(
        home=home,
        discord_token=token,
        discord_permission="Granted by Discord to the test, 2026",
        shards=ShardRange.parse(shards),
        shared_db=shared_db,
    )
    shipped = ShippedData.from_source_tree()
    engine = FakeEngine()
    backend = FakeTrainingBackend()
    personas = PersonaRegistry(shipped.cards, home)
    store, mirror = open_shard_store(home, settings.shards, shared_db)
    privacy = PrivacyServices.of(settings)
    await resume_erasures(home, store, privacy, personas.all_names(), settings.shards)
    lore = LoreIndex([])
    dependencies = Dependencies(
        store=store,
        personas=personas,
        lore=lore,
        catalogue=DatasetCatalog(shipped, settings.base_model, home, store),
        engine=engine,
        backend=backend,
        privacy=privacy,
        incompatible_versions=IncompatibleVersions(served_hash=""),
    )
    limiter = open_limiter(home, shared_db)
    client = ShardedBotClient(
        message_content=True, guilds_settle_s=0.1, shards=settings.shards, limiter=limiter
    )
    client.services = compose(settings, dependencies, client)
    queue = client.services.queue
    running = asyncio.create_task(client.start(token))
    ready = asyncio.create_task(client.wait_until_ready())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        await running
    for guild in client.guilds:
        for channel in guild.text_channels:
            store.channels.assign(
                Channel(guild.id, channel.id, PERSONA, "everything", 1, time.time())
            )
    follower = StateFollower(mirror, client.take_up, client.close)
    follower.start()
    promotion = AutomaticPromotion(store, client.services.versions, queue)
    if client.is_primary:
        promotion.start()
        queue.start()
    try:
        yield ShardStage(client, store, mirror, engine, backend, follower, running)
    finally:
        await queue.stop()
        await promotion.stop()
        await client.services.reply_service.close()
        await client.close()
        await asyncio.gather(running, return_exceptions=True)
        await follower.stop()
        await limiter.close()
        mirror.leave()
        store.close()
        lore.close()


async def hold_replies(engine: FakeEngine, seconds: float) -> None:
    """Hold each reply after its first words for up to some seconds."""
    while seconds:
        engine.free.clear()
        await asyncio.sleep(seconds)
        engine.free.set()
        await asyncio.sleep(0.05)


async def main(
    home: str, url: str, token: str, shards: str, shared_db: str = "", hold_s: str = "0"
) -> None:
    request_limiter.IDENTIFIES = RateBudget(
        0.06
    )  # the sandbox's clock runs a hundred times as fast
    logging.basicConfig(level=logging.INFO)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    with patch_discord(url):
        async with shard_stage(Path(home), token, shards, shared_db) as stage:
            holding = asyncio.create_task(hold_replies(stage.engine, float(hold_s)))
            print("ready", flush=True)
            waits = {asyncio.create_task(ended.wait()), stage.running}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            holding.cancel()
            stage.engine.free.set()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
