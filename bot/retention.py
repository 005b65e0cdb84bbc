"""What is kept for a stated time, and deleted then: conversations, what belongs to servers that are gone, review files.

Wired by `bot/app.py`, once the client is ready and before the queue starts:

    retention = Retention(client.house, clock, Limits(settings.history_days, settings.guild_days))
    retention.start(client)
    stack.push_async_callback(retention.stop)

It works at the start and then every hour. Each task is on its own: one that fails is logged and tried again soon, and
keeps no other from its work.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import discord
from discord.ext import commands

from bot.clock import Clock
from bot.guild_end import GuildEnd, guilds_on_disk
from bot.house import House
from bot.job_folder import REQUEST
from personas.errors import UnderstudyError
from personas.job_folder import MATERIAL
from personas.lore import guild_owner
from personas.reviews import delete_expired
from personas.rights import DISCORD_API

log = logging.getLogger(__name__)

DAY_S = 86_400.0
EVERY_S = 3600.0
AGAIN_S = 60.0
"""After how long a task that failed is tried again."""


@dataclass(frozen=True)
class Limits:
    """For how many days conversations are kept, and what belongs to a server that has removed the bot."""

    history_days: int
    guild_days: int


class Retention:
    """Deletes what has been kept long enough. Use it from the event loop's thread."""

    def __init__(self, house: House, clock: Clock, limits: Limits) -> None:
        self._house, self._clock, self._limits = house, clock, limits
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._client: commands.Bot | None = None
        self._failed = False

    def start(self, client: commands.Bot) -> None:
        """Begin, and hear from a client that is ready which servers come and go."""
        self._client = client
        client.add_listener(self._on_removed, "on_guild_remove")
        client.add_listener(self._on_joined, "on_guild_join")
        self._worker = asyncio.create_task(self._work(), name="retention")

    async def stop(self) -> None:
        """End; may be called twice."""
        if self._client is None or self._worker is None:
            return
        self._client.remove_listener(self._on_removed, "on_guild_remove")
        self._client.remove_listener(self._on_joined, "on_guild_join")
        self._worker.cancel()
        await asyncio.wait({self._worker})
        self._worker = None

    # -------------------------------------------------------------------------------------- servers come and go

    async def _on_removed(self, guild: discord.Guild) -> None:
        """A server has removed the bot, or is no more. (One that cannot be reached for a while makes another event.)"""
        log.warning("The bot is no longer in %s; what is kept of it goes in %d days", guild.id, self._limits.guild_days)
        self._house.store.guilds.left(guild.id, self._clock.now())
        if not self._limits.guild_days:
            self._wake.set()

    async def _on_joined(self, guild: discord.Guild) -> None:
        self._present({guild.id})

    def _compare(self) -> None:
        """Notice which servers removed the bot while nobody was there to hear it."""
        client = self._client
        if client is None or not client.is_ready() or not client.application_id:
            return
        here = {guild.id for guild in client.guilds}
        self._present(here)
        known = self._house.store.guilds.known() | guilds_on_disk(self._house.home)
        others = self._house.store.guilds.of_another_account(client.application_id)
        for guild_id in known - here - others:
            self._house.store.guilds.left(guild_id, self._clock.now())

    def _present(self, guild_ids: set[int]) -> None:
        assert self._client is not None and self._client.application_id is not None  # it has logged in
        self._house.store.guilds.present(guild_ids, self._client.application_id)

    # -------------------------------------------------------------------------------------- the work

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            failed = not await self.tidy()
            await self._until_due(AGAIN_S if failed else EVERY_S)

    async def _until_due(self, seconds: float) -> None:
        waits = {asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._wake.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def tidy(self) -> bool:
        """Delete all that is due. False when something could not be deleted."""
        self._failed = False
        now, home = self._clock.now(), self._house.home
        said_before = now - self._limits.history_days * DAY_S
        with self._logged("servers that have removed the bot"):
            self._compare()
        with self._logged("old conversations"):
            self._house.store.messages.delete_before(said_before)
        with self._logged("old answers over HTTP"):
            self._house.store.answered.forget_old(now)
        for guild_id in self._due_guilds(now):
            with self._logged(f"the server {guild_id}"):
                await self._end(guild_id, now)
        for folder in sorted((home / "jobs").glob("[!.]*/")):
            with self._logged(f"the job folder {folder.name}"):
                await self._end_job_folder(folder, said_before)
        for request in sorted([*home.glob(f"runs/*/{REQUEST}"), *home.glob(f"runs/*/sweep/*/{REQUEST}")]):
            with self._logged(f"the run {request.parent.name}"):
                await asyncio.to_thread(_empty_if_said, request.parent, said_before)
        with self._logged("review files"):
            await asyncio.to_thread(delete_expired, home, now)
        with self._logged("what was deleted in the database"):
            self._house.store.trim()
        return not self._failed

    @contextmanager
    def _logged(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # above all a full disk, or a file that something else holds
            self._failed = True
            shown = None if isinstance(error, UnderstudyError | OSError) else error
            log.error("%s: not done, to be tried again: %s", what, error, exc_info=shown)

    # ------------------------------------------------------------------------------------------ servers that are gone

    def _due_guilds(self, now: float) -> list[int]:
        # Also what was left at this very moment, where it goes at once.
        left_until = math.nextafter(now - self._limits.guild_days * DAY_S, math.inf)
        return self._house.store.guilds.left_before(left_until)

    async def _end(self, guild_id: int, now: float) -> None:
        house = self._house
        for job in house.store.jobs.of_guild(guild_id, limit=-1):
            if job.state in ("queued", "running"):
                house.queue.cancel(job.job_id)  # while its trainer still writes this fails, and comes again
        house.conversations.personas.drop_guild(guild_id)
        for folder in (house.home / "lore" / str(guild_id)).glob("*/"):
            house.conversations.lore.replace(guild_owner(guild_id, folder.name), ())
        end = GuildEnd.of(house.home, house.store, guild_id)
        end.withdraw(now)
        await asyncio.to_thread(end.delete_files)
        end.delete_rows(now)
        log.warning("All that was kept of the server %d has been deleted.", guild_id)

    # ------------------------------------------------------------------------------------------ job folders

    async def _end_job_folder(self, folder: Path, before: float) -> None:
        """Delete the folder of a job that ended so long ago where what was said on Discord is in it.

        The adapter stays in its place and the job in the store.
        """
        job = self._house.store.jobs.get(folder.name)
        if job is None or (job.finished_at is not None and job.finished_at < before):
            await asyncio.to_thread(_delete_if_said, folder, None if job else before)


def _delete_if_said(folder: Path, touched_before: float | None) -> None:
    """`touched_before` is for the folder of a job that nobody knows any more."""
    if (touched_before is None or folder.stat().st_mtime < touched_before) and _holds_what_was_said(folder):
        shutil.rmtree(folder)


def _empty_if_said(run: Path, touched_before: float) -> None:
    """Of a run that the operator has started: what it learned from goes, the adapter stays, which is nowhere else."""
    if run.stat().st_mtime < touched_before and _holds_what_was_said(run):
        for name in (MATERIAL, "checkpoints"):
            if (run / name).exists():
                shutil.rmtree(run / name)


def _holds_what_was_said(job_folder: Path) -> bool:
    """Whether a job's material came through Discord's API; one that cannot be read may have."""
    try:
        materials = json.loads((job_folder / REQUEST).read_bytes())["materials"]
        return any(material["right"] == DISCORD_API for material in materials)
    except (OSError, ValueError, KeyError, TypeError):
        return True
