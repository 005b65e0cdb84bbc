"""Progress messages of training jobs, the buttons under them, and what these do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import discord

from bot.chat.discord_channels import NO_MENTIONS, GuildChannel
from bot.cogs.transformers import Interaction, require_moderator, require_persona
from bot.cogs.ui import PersistentButton, respond_privately
from bot.services import Bot, Services
from bot.store import TrainingJob
from bot.training.status_text import job_result_text, job_status_text, job_title
from bot.versions import promotion
from bot.versions.promotion import promote_automatically
from personas.schemas.chat import Persona

EDIT_INTERVAL_S = 1.5


SCORE_CARD_PICTURE = Path("report") / "scorecard.png"


AUTOMATIC_PROMOTION_TEXT = "It was promoted by itself, as this server has chosen; **Roll back** takes it back."


MAX_REFRESHED_RESULTS = 5


"""So many of the latest results of a persona show whether their version speaks."""


ButtonFactory = Callable[[TrainingJob, str | None], discord.ui.View | None]


class ProgressMessages:
    """Keeps the messages true. `buttons` makes what can be pressed under a job, given the version that speaks."""

    def __init__(self, bot: Bot, buttons: ButtonFactory) -> None:
        self._bot, self._buttons = bot, buttons
        self._shown: dict[str, asyncio.Task[None]] = {}

    def follow(self, job: TrainingJob) -> None:
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
        jobs = [job for job in self._bot.services.store.jobs.of_guild(guild_id) if job.persona == persona_id]
        for job in [job for job in jobs if job.state == "done"][:MAX_REFRESHED_RESULTS]:
            with suppress(discord.HTTPException):  # gone, or out of reach: the versions are what counts
                await self._edit(job, job_result_text(job, self._live(job)))

    async def _show(self, job_id: str) -> None:
        """Edit the job's message, at most every 1.5 s, until the job has ended."""
        store = self._bot.services.store
        await self._bot.wait_until_ready()
        last = ""
        while job := store.jobs.get(job_id):
            ended = job.state not in ("queued", "running")
            words = current_job_text(self._bot.services, job)
            if words != last:
                with suppress(discord.Forbidden):  # the job goes on where nobody may be told
                    await (self._end(job, words) if ended else self._write(job, words))
                last = words
            if ended:
                break
            await asyncio.sleep(EDIT_INTERVAL_S)
        self._shown.pop(job_id, None)

    async def _write(self, job: TrainingJob, words: str) -> None:
        if job.progress_message_id:
            with suppress(discord.NotFound):  # someone deleted it: write another
                return await self._edit(job, words)
        await self._send(job, words)

    async def _end(self, job: TrainingJob, words: str) -> None:
        if await promote_automatically(self._bot.services, job):
            self._bot.dispatch("version_changed", job.guild_id, job.persona)
            words = f"{current_job_text(self._bot.services, job)}\n{AUTOMATIC_PROMOTION_TEXT}"
        if job.state == "cancelled" or not job.progress_message_id:
            return await self._write(job, words)
        await self._send(job, words)
        channel = self._bot.get_channel(job.channel_id)
        if isinstance(channel, GuildChannel):
            with suppress(discord.NotFound):
                ended = f"{job_title(job, 'Training ended')}. The result is below."
                old = channel.get_partial_message(job.progress_message_id)
                await old.edit(content=ended, view=None, allowed_mentions=NO_MENTIONS)

    async def _send(self, job: TrainingJob, words: str) -> None:
        channel = self._bot.get_channel(job.channel_id)
        if isinstance(channel, GuildChannel):
            view = self._buttons(job, self._live(job)) or discord.utils.MISSING
            may_attach = channel.permissions_for(channel.guild.me).attach_files
            picture = (_score_card_file(job) if may_attach else None) or discord.utils.MISSING
            sent = await channel.send(words, view=view, file=picture, allowed_mentions=NO_MENTIONS)
            self._bot.services.store.jobs.set_progress_message(job.job_id, sent.id)

    async def _edit(self, job: TrainingJob, words: str) -> None:
        channel = self._bot.get_channel(job.channel_id)
        if isinstance(channel, GuildChannel) and job.progress_message_id:
            message = channel.get_partial_message(job.progress_message_id)
            view = self._buttons(job, self._live(job))
            await message.edit(content=words, view=view, allowed_mentions=NO_MENTIONS)

    def _live(self, job: TrainingJob) -> str | None:
        return live_version(self._bot.services, job)


def _score_card_file(job: TrainingJob) -> discord.File | None:
    """The score card's picture, where the job has made one."""
    if job.state != "done" or job.result is None:
        return None
    path = Path(job.result.adapter) / SCORE_CARD_PICTURE
    return discord.File(path, description="The score card of the new version") if path.is_file() else None


def current_job_text(services: Services, job: TrainingJob) -> str:
    """A job in words, as it is at this moment."""
    position, gives_way = services.queue.position(job.job_id), services.throttle.is_asked
    return job_status_text(job, position, time.time(), live_version(services, job), gives_way=gives_way)


def live_version(services: Services, job: TrainingJob) -> str | None:
    """The version of a job's persona that speaks."""
    return services.store.versions.live(job.persona) if job.persona else None


async def promote_with_reply(interaction: Interaction, persona: Persona, version: str) -> str:
    """Make a version live after loading it, so that a damaged one never gets to speak. Gives the words to say."""
    asked_in = (interaction.guild_id or 0, interaction.channel_id or 0, interaction.user.id)
    if not await promotion.promote_version(interaction.client.services, persona.id, version, *asked_in):
        return f"{version} of **{persona.name}** speaks already."
    return f"{version} of **{persona.name}** speaks from the next reply on."


async def promote_or_confirm(interaction: Interaction, persona: Persona, version: str) -> None:
    """Make a version live and say so; of one that the gate or the members reject say why, and ask once more.

    The interaction has been acknowledged.
    """
    services, guild_id = interaction.client.services, interaction.guild_id or 0
    spoke_already = services.store.versions.live(persona.id) == version
    if found := await promotion.find_objections(services, persona.id, version, guild_id):
        view = discord.ui.View(timeout=None)
        view.add_item(PromoteAnywayButton(persona.id, version))
        why = "\n".join(f"- {reason}" for reason in found.reasons)
        asked = f"{found.who} {version} of **{persona.name}**:\n{why}"[:2000]
        await interaction.followup.send(asked, view=view, ephemeral=True)
        return
    await interaction.followup.send(await promote_with_reply(interaction, persona, version), ephemeral=spoke_already)


async def roll_back_with_reply(interaction: Interaction, persona: Persona) -> str:
    """Make the version live that was so before. Gives the words to say."""
    row = promotion.roll_back_version(
        interaction.client.services, persona, interaction.guild_id or 0, interaction.user.id
    )
    return f"Rolled back: {row.version or 'the base model'} speaks for **{persona.name}** from the next reply on."


async def cancel_job(interaction: Interaction, job_id: str) -> None:
    """Cancel, and tell the moderator what happened."""
    interaction.client.services.queue.cancel(job_id)
    await respond_privately(interaction, f"`{job_id}` is cancelled.")


async def resume_job(interaction: Interaction, job_id: str) -> None:
    """Resume, and tell the moderator what happened."""
    interaction.client.services.queue.resume(job_id)
    await respond_privately(interaction, f"`{job_id}` goes on.")


def job_buttons(job: TrainingJob, live: str | None) -> discord.ui.View | None:
    """What can be pressed under a job's message; `live` is the version of its persona that speaks now."""
    view = discord.ui.View(timeout=None)
    if job.state in ("queued", "running"):
        view.add_item(CancelJobButton(job.job_id))
    elif job.state == "done" and job.persona:
        promoted = live == job.version
        view.add_item(RollbackButton(job.persona) if promoted else PromoteButton(job.persona, job.version))
    elif job.can_resume:
        view.add_item(ResumeJobButton(job.job_id))
    else:
        return None
    return view


class ModeratorButton(PersistentButton, template=r"never:"):
    """A button that only moderators may press."""

    def require(self, interaction: Interaction) -> None:
        require_moderator(interaction)


class CancelJobButton(ModeratorButton, template=r"cancel:(?P<job_id>[\w.-]+)"):
    """Cancels a job."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(discord.ui.Button(label="Cancel", custom_id=f"cancel:{job_id}"))

    async def pressed(self, interaction: Interaction) -> None:
        await interaction.response.defer(ephemeral=True)
        await cancel_job(interaction, self.job_id)


class ResumeJobButton(ModeratorButton, template=r"resume:(?P<job_id>[\w.-]+)"):
    """Resumes a job that has failed."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(discord.ui.Button(label="Resume", custom_id=f"resume:{job_id}"))

    async def pressed(self, interaction: Interaction) -> None:
        await interaction.response.defer(ephemeral=True)
        await resume_job(interaction, self.job_id)


class PromoteButton(ModeratorButton, template=r"promote:(?P<persona_id>[\w-]+):(?P<version>v[0-9]+)"):
    """Makes a version live."""

    def __init__(self, persona_id: str, version: str) -> None:
        self.persona_id, self.version = persona_id, version
        super().__init__(
            discord.ui.Button(
                label="Promote", style=discord.ButtonStyle.success, custom_id=f"promote:{persona_id}:{version}"
            )
        )

    async def pressed(self, interaction: Interaction) -> None:
        await interaction.response.defer()
        persona = require_persona(interaction, self.persona_id)
        await promote_or_confirm(interaction, persona, self.version)


class PromoteAnywayButton(ModeratorButton, template=r"promote-anyway:(?P<persona_id>[\w-]+):(?P<version>v[0-9]+)"):
    """Makes a version live that the gate has rejected."""

    def __init__(self, persona_id: str, version: str) -> None:
        self.persona_id, self.version = persona_id, version
        super().__init__(
            discord.ui.Button(
                label="Promote anyway",
                style=discord.ButtonStyle.danger,
                custom_id=f"promote-anyway:{persona_id}:{version}",
            )
        )

    async def pressed(self, interaction: Interaction) -> None:
        await interaction.response.defer()
        persona = require_persona(interaction, self.persona_id)
        await interaction.followup.send(await promote_with_reply(interaction, persona, self.version))


class RollbackButton(ModeratorButton, template=r"rollback:(?P<persona_id>[\w-]+)"):
    """Goes back to the version before."""

    def __init__(self, persona_id: str) -> None:
        self.persona_id = persona_id
        super().__init__(discord.ui.Button(label="Roll back", custom_id=f"rollback:{persona_id}"))

    async def pressed(self, interaction: Interaction) -> None:
        await interaction.response.defer()
        await interaction.followup.send(
            await roll_back_with_reply(interaction, require_persona(interaction, self.persona_id))
        )


JOB_BUTTONS = (CancelJobButton, ResumeJobButton, PromoteButton, PromoteAnywayButton, RollbackButton)
