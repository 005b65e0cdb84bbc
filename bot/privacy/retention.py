"""Deletes expired data every hour: conversations, review files, data of ended jobs, and guilds that
removed the bot.
"""

import asyncio
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import discord

from bot.moderation.limits import COUNTED_S
from bot.platform.clock import BackgroundTask, Clock
from bot.privacy.guild_deletion import GuildDeletion, find_guilds_on_disk
from bot.privacy.home_files import remove_path
from bot.privacy.pending_jobs import has_discord_data
from bot.reports.actions import REPORT_DAYS
from bot.services import Bot, Services
from personas.errors import UnderstudyError
from personas.home.atomic_files import delete_abandoned_files, delete_abandoned_folders
from personas.home.external_files import delete_expired_reviews
from personas.home.holdout_index import HOLDOUT_FILE, NEW_HOLDOUT_FILE
from personas.home.job_attempt import CHECKPOINTS_FOLDER
from personas.home.job_folder import ADAPTER_FOLDER, DATASET_FOLDER, MATERIAL_FOLDER, REQUEST_FILE
from personas.home.written_replies import WRITTEN_FOLDER
from personas.lore.index import guild_owner

log = logging.getLogger(__name__)
DAY_S = 86_400.0
CHECK_INTERVAL_S = 3600.0
RETRY_DELAY_S = 60.0  # delay before a failed task is tried again
DELETE_BATCH_ROWS = 100  # rows deleted in one transaction: the event loop waits so long
FOLDERS_OF_PROGRAMS = ("jobs", "models", "runs")
"""Folders of the home into which people put nothing themselves."""
EXPIRING_PARTS = (
    MATERIAL_FOLDER,
    DATASET_FOLDER,
    WRITTEN_FOLDER,
    CHECKPOINTS_FOLDER,
    ADAPTER_FOLDER,
    HOLDOUT_FILE,
    NEW_HOLDOUT_FILE,
)
"""Parts of a job folder that are needed only to run, resume or evaluate the job; an adapter is
installed elsewhere.
"""


@dataclass(frozen=True)
class RetentionPeriods:
    """Days for which conversations are kept, the data of guilds that removed the bot, and the data
    of ended jobs.
    """

    history_days: int
    guild_days: int
    job_days: int = 90


class RetentionError(UnderstudyError):
    """Expired data that could not be deleted."""


class Retention:
    """Deletes expired data. For the event loop's thread."""

    def __init__(self, services: Services, clock: Clock, limits: RetentionPeriods) -> None:
        self._services = services
        self._clock = clock
        self._limits = limits
        self._wake = asyncio.Event()
        self.worker = BackgroundTask(
            "retention", self._work, self._until_due, clock, retry_delay_s=RETRY_DELAY_S
        )
        self._client: Bot | None = None
        self._failures: list[str] = []

    def start(self, client: Bot) -> None:
        """Start, and follow the guilds that a ready client joins and leaves."""
        self._client = client
        client.add_listener(self._on_removed, "on_guild_remove")
        client.add_listener(self._on_joined, "on_guild_join")
        self.worker.start()

    async def stop(self) -> None:
        """Stop; may be called twice."""
        if self._client is None or not self.worker.is_running:
            return
        self._client.remove_listener(self._on_removed, "on_guild_remove")
        self._client.remove_listener(self._on_joined, "on_guild_join")
        await self.worker.stop()

    async def _on_removed(self, guild: discord.Guild) -> None:
        """Record that a guild removed the bot, or was deleted. (An unavailable guild triggers
        another event.)
        """
        log.warning(
            "The bot is no longer in %s; its data are deleted in %d days",
            guild.id,
            self._limits.guild_days,
        )
        self._services.store.guilds.record_left(guild.id, self._clock.now())
        if not self._limits.guild_days:
            self._wake.set()

    async def _on_joined(self, guild: discord.Guild) -> None:
        self._record_present({guild.id})

    def _record_absent(self) -> None:
        """Record the guilds that removed the bot while it was not running."""
        client = self._client
        if client is None or not client.is_ready() or not client.application_id:
            return
        guild_ids = {guild.id for guild in client.guilds}
        self._record_present(guild_ids)
        guilds = self._services.store.guilds
        known = guilds.known() | find_guilds_on_disk(self._services.home)
        others = guilds.guilds_of_other_account(client.application_id)
        for guild_id in known - guild_ids - others:
            guilds.record_left(guild_id, self._clock.now())

    def _record_present(self, guild_ids: set[int]) -> None:
        # It has logged in.
        assert self._client is not None and self._client.application_id is not None
        self._services.store.guilds.record_present(guild_ids, self._client.application_id)

    async def _work(self) -> None:
        self._wake.clear()
        if not await self.tidy():
            raise RetentionError(" ".join(self._failures))

    async def _until_due(self) -> None:
        waits = {
            asyncio.ensure_future(self._clock.sleep(CHECK_INTERVAL_S)),
            asyncio.ensure_future(self._wake.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def tidy(self) -> bool:
        """Delete all expired data. False when something could not be deleted."""
        self._failures = []
        now = self._clock.now()
        cutoff = now - self._limits.history_days * DAY_S
        with self._logged("guilds that removed the bot"):
            self._record_absent()
        with self._logged("old conversations"):
            delete = self._services.store.messages.delete_before
            await _in_steps(lambda: delete(cutoff, DELETE_BATCH_ROWS))
        with self._logged("talks that have ended"):
            self._services.store.talks.delete_before(now - DAY_S)
        with self._logged("replies that count for no limit any more"):
            self._services.store.reply_attempts.delete_before(now - COUNTED_S)
        with self._logged("old reports of replies"):
            self._services.store.reports.delete_before(now - REPORT_DAYS * DAY_S)
        with self._logged("who was greeted long ago"):
            self._services.store.greeted_members.delete_before(cutoff)
        with self._logged("memories of removed personas"):
            self._services.removal.forget_memories(now)
        with self._logged("expired idempotency keys"):
            self._services.store.idempotency_keys.delete_expired(now)
        due_guilds: list[int] = []
        with self._logged("the list of servers"):
            # Guilds left at this very moment, too, where the period is 0.
            left_until = math.nextafter(now - self._limits.guild_days * DAY_S, math.inf)
            due_guilds = self._services.store.guilds.left_before(left_until)
        for guild_id in due_guilds:
            with self._logged(f"the server {guild_id}"):
                await self._delete_guild(guild_id, now)
        await self._tidy_home(cutoff, now)
        with self._logged("deleted rows in the database"):
            await _in_steps(self._services.store.trim)
        return not self._failures

    async def _tidy_home(self, cutoff: float, now: float) -> None:
        """Delete expired files that belong to no guild."""
        home = self._services.home
        for folder in sorted((home / "jobs").glob("[!.]*/")):
            with self._logged(f"the job folder {folder.name}"):
                await self._delete_job_folder(folder, cutoff)
                await self._shrink_job_folder(folder, now - self._limits.job_days * DAY_S)
        requests = [*home.glob(f"runs/*/{REQUEST_FILE}")]
        requests += home.glob(f"runs/*/sweep/*/{REQUEST_FILE}")
        for request in sorted(requests):
            with self._logged(f"the run {request.parent.name}"):
                await asyncio.to_thread(_empty_if_from_discord, request.parent, cutoff)
        with self._logged("what was removed a day ago"):
            await self._services.removal.empty_trash(now)
        with self._logged("review files"):
            await asyncio.to_thread(delete_expired_reviews, home, now)
        with self._logged("temporary files"):
            await asyncio.to_thread(_delete_leftovers, home)

    @contextmanager
    def _logged(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # usually a full disk, or a file that another process holds
            self._failures.append(f"{what}: {str(error).removesuffix('.')}.")
            if not isinstance(error, UnderstudyError | OSError):
                log.error("%s: not deleted", what, exc_info=error)

    async def _delete_guild(self, guild_id: int, now: float) -> None:
        services = self._services
        for job in services.store.jobs.of_guild(guild_id, limit=-1):
            if job.state in ("queued", "running"):
                # The deletion fails while its trainer still writes, and is tried again.
                services.queue.cancel(job.job_id)
        services.personas.remove_guild(guild_id)
        for folder in (services.home / "lore" / str(guild_id)).glob("*/"):
            await asyncio.to_thread(services.lore.replace, guild_owner(guild_id, folder.name), ())
        deletion = GuildDeletion.of(services.home, services.store, guild_id)
        deletion.withdraw(now)
        await asyncio.to_thread(deletion.delete_files)
        # Messages go in steps first: `delete_rows` is one transaction, for which everything waits.
        await _in_steps(lambda: services.store.guilds.delete_talk(guild_id, DELETE_BATCH_ROWS))
        deletion.delete_rows(now)
        log.warning("All data of the guild %d have been deleted.", guild_id)

    async def _delete_job_folder(self, folder: Path, before: float) -> None:
        """Delete the folder of a job that ended long ago if it has Discord data; job and adapter
        stay.
        """
        job = self._services.store.jobs.get(folder.name)
        if job is None or (job.finished_at is not None and job.finished_at < before):
            await asyncio.to_thread(_delete_if_from_discord, folder, None if job else before)

    async def _shrink_job_folder(self, folder: Path, before: float) -> None:
        """Delete the data of a job that ended long ago, unless its version is live; its curves and
        log stay.
        """
        store = self._services.store
        job = store.jobs.get(folder.name)
        if job is None or job.finished_at is None or job.finished_at >= before:
            return
        # New versions of other personas are compared with a live one.
        live = store.versions.live_anywhere(job.persona) if job.persona else ()
        if job.state == "done" and job.version in live:
            return
        if job.can_resume:
            advice = f"Start a new one: its data were deleted after {self._limits.job_days} days."
            self._services.queue.publish(store.jobs.expire(job.job_id, advice))
        for name in EXPIRING_PARTS:
            await asyncio.to_thread(remove_path, folder / name)


def _delete_leftovers(home: Path) -> None:
    """Delete what killed processes left half written."""
    deleted = delete_abandoned_files(home)
    for name in FOLDERS_OF_PROGRAMS:
        deleted += delete_abandoned_folders(home / name)
    for path in deleted:
        log.info("%s, which a killed process left, has been deleted", path)


async def _in_steps(step: Callable[[], object]) -> None:
    """Repeat a step while it returns that there is more to do; the event loop goes on in
    between.
    """
    has_more = True
    while has_more:
        has_more = bool(step())
        await asyncio.sleep(0)


def _delete_if_from_discord(folder: Path, touched_before: float | None) -> None:
    """Delete a job folder with Discord data; `touched_before` limits this for folders of unknown
    jobs.
    """
    is_old = touched_before is None or folder.stat().st_mtime < touched_before
    if is_old and has_discord_data(folder):
        shutil.rmtree(folder)


def _empty_if_from_discord(run: Path, touched_before: float) -> None:
    """Delete the training data of a run that the operator started; its adapter exists nowhere else
    and stays.
    """
    if run.stat().st_mtime < touched_before and has_discord_data(run):
        for name in (MATERIAL_FOLDER, DATASET_FOLDER, "checkpoints"):
            if (run / name).exists():
                shutil.rmtree(run / name)
