"""Each training job has a message in its channel: edited while it waits and trains, and a new one for its result.

The result is sent anew because whoever waits for it is told of new messages only, not of edits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import discord

from bot.house import House, HouseBot
from bot.place import GuildChannel
from bot.progress import job_words, settled_words, title
from bot.promoting import promoted_by_itself
from bot.store import Job
from bot.voices import NO_MENTIONS

EDIT_EVERY_S = 1.5
PICTURE = Path("report") / "scorecard.png"
BY_ITSELF = "It was promoted by itself, as this server has chosen; **Roll back** takes it back."
RESULTS_KEPT_UP = 5
"""So many of the latest results of a persona show whether their version speaks."""

Buttons = Callable[[Job, str | None], discord.ui.View | None]


class JobMessages:
    """Keeps the messages true. `buttons` makes what can be pressed under a job, given the version that speaks."""

    def __init__(self, bot: HouseBot, buttons: Buttons) -> None:
        self._bot, self._buttons = bot, buttons
        self._shown: dict[str, asyncio.Task[None]] = {}

    def follow(self, job: Job) -> None:
        """A job has changed: make sure that a task is showing it."""
        task = self._shown.get(job.job_id)
        if task is None or task.done():
            self._shown[job.job_id] = asyncio.create_task(self._show(job.job_id), name=f"progress of {job.job_id}")

    def close(self) -> None:
        """Show nothing more."""
        for task in self._shown.values():
            task.cancel()

    async def refresh(self, guild_id: int, persona_id: str) -> None:
        """Another version of a persona speaks: its results say so, and offer what can be done now."""
        jobs = [job for job in self._bot.house.store.jobs.of_guild(guild_id) if job.persona == persona_id]
        for job in [job for job in jobs if job.state == "done"][:RESULTS_KEPT_UP]:
            with suppress(discord.HTTPException):  # gone, or out of reach: the versions are what counts
                await self._edit(job, settled_words(job, self._live(job)))

    async def _show(self, job_id: str) -> None:
        """Edit the job's message, at most every 1.5 s, until the job has ended."""
        store = self._bot.house.store
        await self._bot.wait_until_ready()
        last = ""
        while job := store.jobs.get(job_id):
            ended = job.state not in ("queued", "running")
            words = words_now(self._bot.house, job)
            if words != last:
                with suppress(discord.Forbidden):  # the job goes on where nobody may be told
                    await (self._end(job, words) if ended else self._write(job, words))
                last = words
            if ended:
                break
            await asyncio.sleep(EDIT_EVERY_S)
        self._shown.pop(job_id, None)

    async def _write(self, job: Job, words: str) -> None:
        if job.progress_message_id:
            with suppress(discord.NotFound):  # someone deleted it: write another
                return await self._edit(job, words)
        await self._send(job, words)

    async def _end(self, job: Job, words: str) -> None:
        if await promoted_by_itself(self._bot.house, job):
            self._bot.dispatch("version_changed", job.guild_id, job.persona)
            words = f"{words_now(self._bot.house, job)}\n{BY_ITSELF}"
        if job.state == "cancelled" or not job.progress_message_id:
            return await self._write(job, words)
        await self._send(job, words)
        channel = self._bot.get_channel(job.channel_id)
        if isinstance(channel, GuildChannel):
            with suppress(discord.NotFound):
                ended = f"{title(job, 'Training ended')}. The result is below."
                old = channel.get_partial_message(job.progress_message_id)
                await old.edit(content=ended, view=None, allowed_mentions=NO_MENTIONS)

    async def _send(self, job: Job, words: str) -> None:
        channel = self._bot.get_channel(job.channel_id)
        if isinstance(channel, GuildChannel):
            view = self._buttons(job, self._live(job)) or discord.utils.MISSING
            may_attach = channel.permissions_for(channel.guild.me).attach_files
            picture = (_picture(job) if may_attach else None) or discord.utils.MISSING
            sent = await channel.send(words, view=view, file=picture, allowed_mentions=NO_MENTIONS)
            self._bot.house.store.jobs.set_progress_message(job.job_id, sent.id)

    async def _edit(self, job: Job, words: str) -> None:
        channel = self._bot.get_channel(job.channel_id)
        if isinstance(channel, GuildChannel) and job.progress_message_id:
            message = channel.get_partial_message(job.progress_message_id)
            view = self._buttons(job, self._live(job))
            await message.edit(content=words, view=view, allowed_mentions=NO_MENTIONS)

    def _live(self, job: Job) -> str | None:
        return live_version(self._bot.house, job)


def _picture(job: Job) -> discord.File | None:
    """The score card's picture, where the job has made one."""
    if job.state != "done" or job.result is None:
        return None
    path = Path(job.result.adapter) / PICTURE
    return discord.File(path, description="The score card of the new version") if path.is_file() else None


def words_now(house: House, job: Job) -> str:
    """A job in words, as it is at this moment."""
    position, gives_way = house.queue.position(job.job_id), house.answerer.giving_way.is_asked
    return job_words(job, position, time.time(), live_version(house, job), gives_way=gives_way)


def live_version(house: House, job: Job) -> str | None:
    """The version of a job's persona that speaks."""
    return house.store.versions.live(job.persona) if job.persona else None
