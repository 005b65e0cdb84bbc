"""Progress messages of training jobs, and the buttons under them."""

import asyncio
import hashlib
import logging
import secrets
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import discord

from bot.chat.delivery import is_temporary
from bot.chat.places import GuildChannel, fetch_channel
from bot.data.discord import FETCH_BUTTONS
from bot.platform.discord_kit.layouts import Item
from bot.platform.localisation import (
    SOURCE_LANGUAGE,
    Language,
    gettext_lazy,
    language_of,
    localise,
    override,
)
from bot.services import Bot, Services
from bot.store import StoreError, TrainingJob
from bot.training.discord_buttons import CancelJobButton, ResumeJobButton, StopMeasuringButton
from bot.training.discord_repeat import RepeatAgainButton, RepeatButton
from bot.training.discord_result import JobMessage, result_message, text_message
from bot.training.discord_start import (
    ReadFirstButton,
    TrainFromCardButton,
    repeats_by_button,
)
from bot.training.repeat import is_repeatable
from bot.training.status_text import (
    NO_EXCERPT,
    CardExcerpt,
    changed_verdict_text,
    job_status_text,
    job_title,
    outcomes_text,
)
from bot.versions.discord import PromoteButton, PromoteDialogueButton, RollbackButton
from personas.errors import UnderstudyError
from personas.home.adapters import DIALOGUE_PREFIX, read_score_card
from personas.home.shared_personas import OPERATOR_GUILD_ID

log = logging.getLogger(__name__)

EDIT_INTERVAL_S = 1.5
CARD_EDIT_INTERVAL_S = 15.0
"""Interval at which a result shows how far the rest of its score card is."""
UNREACHABLE_ERRORS = (discord.HTTPException, aiohttp.ClientError, OSError, StoreError)
AUTOMATIC_PROMOTION_TEXT = gettext_lazy(
    "Promoted automatically, as this server has chosen. **Roll back** undoes it."
)
START_AGAIN_TEXT = gettext_lazy("Start it again")
MAX_REFRESHED_RESULTS = 5
"""Number of latest results of a persona that are updated when its live version changes."""


class ServerUnavailableError(OSError):
    """Discord has not sent the server since the bot has connected."""


class ProgressMessages:
    """Keeps the jobs' messages, and the buttons under them, up to date."""

    def __init__(self, bot: Bot) -> None:
        self._bot = bot
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, job: TrainingJob) -> None:
        """Show a changed job, unless it is of no server, or a task does so already."""
        if job.guild_id == OPERATOR_GUILD_ID:
            return
        task = self._tasks.get(job.job_id)
        if task is None or task.done():
            self._tasks[job.job_id] = asyncio.create_task(
                self._follow(job.job_id), name=f"progress of {job.job_id}"
            )

    def follow_unannounced(self) -> None:
        """Post the results that a crash or a failed request has left unposted."""
        for job in self._bot.services.store.jobs.unannounced():
            self.follow(job)

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    async def refresh(self, guild_id: int, persona_id: str) -> None:
        """Update the latest results of a persona, and their buttons, after its live version has
        changed.
        """
        jobs = self._bot.services.store.jobs.of_guild(guild_id)
        jobs = [job for job in jobs if job.persona == persona_id]
        for job in [job for job in jobs if job.state == "done" and job.announced][
            :MAX_REFRESHED_RESULTS
        ]:
            with suppress(*UNREACHABLE_ERRORS):  # or deleted: the stored versions are what counts
                await self._edit(job, await self._message(job))

    async def _follow(self, job_id: str) -> None:
        try:
            await self._show(job_id)
        except UnderstudyError as error:  # mostly a full disk; the job's next change begins anew
            log.error("the progress of the job %s is not shown for now: %s", job_id, error)
        except Exception:
            log.exception("the progress of the job %s is not shown for now", job_id)
        finally:
            self._tasks.pop(job_id, None)

    async def _show(self, job_id: str) -> None:
        """Show a job until it has ended, then post its result."""
        await self._bot.wait_until_ready()
        while (job := await self._show_progress(job_id)) and job.is_announceable:
            await self._announce(job)
            now = self._bot.services.store.jobs.get(job_id)
            if now is None or now.finished_at == job.finished_at:
                break  # else it was resumed meanwhile
        await self._follow_card(job_id)

    async def _show_progress(self, job_id: str) -> TrainingJob | None:
        """Edit the job's message, at most every 1.5 s, until the job has ended. Returns it as it is
        then; None where it is gone.
        """
        store = self._bot.services.store
        shown: str | None = ""
        error_text = ""
        while (job := store.jobs.get(job_id)) and not job.has_ended:
            message = await self._message(job)
            if message.text != shown:
                try:
                    await self._write(job, message)
                    shown = message.text
                    error_text = ""
                except UNREACHABLE_ERRORS as error:
                    if not is_temporary(error):  # the job goes on where the bot may not write
                        shown = message.text
                    if str(error) != error_text:
                        log.warning(
                            "the progress of the job %s could not be shown: %s", job_id, error
                        )
                    error_text = str(error)
            await asyncio.sleep(EDIT_INTERVAL_S)
        return job

    async def _follow_card(self, job_id: str) -> None:
        """Keep a result up to date while the rest of its score card is measured; announce another
        verdict.
        """
        store = self._bot.services.store
        job = store.jobs.get(job_id)
        if job is None or not job.announced or job.card_state is None:
            return
        while job:
            with suppress(*UNREACHABLE_ERRORS):  # the pages show the same
                await self._edit(job, await self._message(job))
            if not job.has_open_card:
                break
            state = job.card_state
            for _ in range(round(CARD_EDIT_INTERVAL_S / EDIT_INTERVAL_S)):
                await asyncio.sleep(EDIT_INTERVAL_S)
                job = store.jobs.get(job_id)
                if job is None or job.card_state != state:
                    break
        text = changed_verdict_text(job, learner_name(self._bot.services, job)) if job else ""
        if job and text:
            digest = hashlib.sha256(f"{job_id} verdict".encode()).hexdigest()
            with suppress(*UNREACHABLE_ERRORS):
                if channel := await self._fetch_channel(job):
                    with override(self._language(job)):
                        await channel.send(localise(text), nonce=digest[:16])

    async def _announce(self, job: TrainingJob) -> None:
        """Post the result once it is decided who promotes it; a request that failed for a while is
        repeated later.
        """
        try:
            note = AUTOMATIC_PROMOTION_TEXT if job.decision == "promoted" else ""
            await self._post_result(job, await self._message(job, note))
        except ServerUnavailableError:
            return
        except UNREACHABLE_ERRORS as error:
            if is_temporary(error):
                log.warning(
                    "the result of the job %s could not be posted yet: %s", job.job_id, error
                )
                return
            log.warning("the result of the job %s cannot be posted: %s", job.job_id, error)
        self._bot.services.store.jobs.mark_announced(job)

    async def _message(self, job: TrainingJob, note: str = "") -> JobMessage:
        """Describe a job in the language of its server: who has started it may have another one."""
        with override(self._language(job)):
            return await self._describe(job, note)

    async def _describe(self, job: TrainingJob, note: str) -> JobMessage:
        """Describe a job; a result with the replies of its score card, and a note."""
        live = live_version(self._bot.services, job)
        buttons = job_buttons(job, live)
        if job.state != "done" or job.result is None:
            text = current_job_text(self._bot.services, job)
            return text_message(text, buttons)
        excerpt = await asyncio.to_thread(_read_excerpt, Path(job.result.adapter))
        channel = await self._fetch_channel(job)
        if self._must_hide_replies(job, channel):
            excerpt = replace(excerpt, replies=())
        return result_message(
            job,
            live,
            excerpt,
            learner=learner_name(self._bot.services, job),
            note=note,
            buttons=buttons,
            with_picture=bool(channel and channel.permissions_for(channel.guild.me).attach_files),
        )

    def _language(self, job: TrainingJob) -> Language:
        """Return the language of a job's server, whose channel shows it."""
        guild = self._bot.get_guild(job.guild_id)
        return language_of(guild.preferred_locale) if guild else SOURCE_LANGUAGE

    def _must_hide_replies(self, job: TrainingJob, channel: GuildChannel | None) -> bool:
        """Report whether a result is posted where its age-restricted persona may not speak."""
        services = self._bot.services
        persona = services.personas.get(job.persona, job.guild_id) if job.persona else None
        if persona is None:
            return False
        return services.reply_service.rules.age.refuses(persona, channel)

    async def _write(self, job: TrainingJob, message: JobMessage) -> None:
        nonce = ""
        if job.progress_message_id:
            with suppress(discord.NotFound):  # someone deleted it: send another
                return await self._edit(job, message)
            nonce = secrets.token_hex(8)
        if channel := self._channel(job):
            await self._send(job, message, channel, nonce)

    async def _post_result(self, job: TrainingJob, message: JobMessage) -> None:
        if job.state == "cancelled" and job.progress_message_id:
            return await self._write(job, message)
        channel = await self._fetch_channel(job)
        if channel is None:
            return
        await self._send(job, message, channel)  # which opens an archived thread
        if job.progress_message_id:
            with suppress(discord.NotFound):
                ended = gettext_lazy(
                    "{title}. The result is below.",
                    title=job_title(
                        job,
                        gettext_lazy("Training ended"),
                        learner_name(self._bot.services, job),
                    ),
                )
                with override(self._language(job)):
                    content = localise(ended)
                progress = channel.get_partial_message(job.progress_message_id)
                await progress.edit(content=content, view=None)

    async def _send(
        self, job: TrainingJob, message: JobMessage, channel: GuildChannel, nonce: str = ""
    ) -> None:
        """Send a message. Discord ignores a nonce that comes again, as after a crash before the id
        was stored.
        """
        if not nonce:
            state = f"{job.job_id} {job.finished_at or job.queued_at}"
            nonce = hashlib.sha256(state.encode()).hexdigest()[:16]
        view: Any = message.view or discord.utils.MISSING
        sent = await channel.send(message.text, view=view, files=message.files, nonce=nonce)
        self._bot.services.store.jobs.set_progress_message(job, sent.id)

    async def _edit(self, job: TrainingJob, message: JobMessage) -> None:
        if (channel := self._channel(job)) and job.progress_message_id:
            posted = channel.get_partial_message(job.progress_message_id)
            await posted.edit(**message.fields())

    def _channel(self, job: TrainingJob) -> GuildChannel | None:
        """Return the job's channel, None if it is gone or an archived thread, in which nothing can be
        edited. Raises `ServerUnavailableError` while nobody knows that.
        """
        guild = self._guild(job)
        channel = guild.get_channel_or_thread(job.channel_id)
        return channel if isinstance(channel, GuildChannel) else None

    async def _fetch_channel(self, job: TrainingJob) -> GuildChannel | None:
        """Return the job's channel, also an archived thread, unless moderators have locked that; None
        if it is gone. Raises as `_channel`, and discord.py's errors.
        """
        self._guild(job)
        channel = await fetch_channel(self._bot, job.channel_id)
        if isinstance(channel, discord.Thread) and channel.archived and channel.locked:
            return None
        return channel if isinstance(channel, GuildChannel) else None

    def _guild(self, job: TrainingJob) -> discord.Guild:
        guild = self._bot.get_guild(job.guild_id)
        if guild is None or guild.unavailable:
            raise ServerUnavailableError("Discord has not sent its server yet")
        return guild


def _read_excerpt(adapter: Path) -> CardExcerpt:
    """Read what a result shows of a whole score card; nothing of one that cannot be read."""
    card = read_score_card(adapter)
    if card is None:
        return NO_EXCERPT
    outcomes = outcomes_text(card.verdict) if card.verdict else ""
    return CardExcerpt(outcomes, card.side_by_side)


def current_job_text(services: Services, job: TrainingJob) -> str:
    """Describe a job's current state."""
    position = services.queue.position(job.job_id)
    gives_way = services.throttle.is_asked
    return job_status_text(
        job,
        position,
        time.time(),
        live_version(services, job),
        learner=learner_name(services, job),
        gives_way=gives_way,
        is_late=services.queue.is_late(job.job_id),
    )


def learner_name(services: Services, job: TrainingJob) -> str:
    """The name of a job's persona, for Markdown; empty for a dialogue adapter."""
    return services.personas.markdown_name_of(job.persona, job.guild_id) if job.persona else ""


def live_version(services: Services, job: TrainingJob) -> str | None:
    """The live version of a job's persona in its server."""
    if job.persona:
        return services.store.versions.live(job.persona, job.guild_id)
    return None


def job_buttons(job: TrainingJob, live: str | None) -> list[Item]:
    """Create the buttons under a job's message; `live` is its persona's live version."""
    if not job.has_ended:
        return [CancelJobButton(job.job_id)]
    repeat = [RepeatButton(job.job_id)] if is_repeatable(job) else []
    if job.state == "done" and job.persona is None:
        name = job.name.removeprefix(DIALOGUE_PREFIX)
        return [PromoteDialogueButton(name), *repeat]
    stop = [StopMeasuringButton(job.job_id)] if job.has_open_card else []
    if job.state == "done" and live == job.version:
        return [RollbackButton(job.persona), *stop, *repeat]
    if job.state == "done":
        return [PromoteButton(job.persona, job.version), *stop, *repeat]
    buttons: list[Item] = []
    if job.can_resume:
        buttons.append(ResumeJobButton(job.job_id))
    # Anew, and so with what the settings name by then: a resumed job keeps its teacher.
    if repeats_by_button(job) and not job.waits_for_review:
        button = ReadFirstButton if job.request.review else TrainFromCardButton
        buttons.append(button(job.persona, label=START_AGAIN_TEXT))
    return [*buttons, *repeat]


JOB_BUTTONS = (
    CancelJobButton,
    ResumeJobButton,
    StopMeasuringButton,
    TrainFromCardButton,
    ReadFirstButton,
    RepeatButton,
    RepeatAgainButton,
    *FETCH_BUTTONS,
)
