"""`/finetune start|preview|status|cancel|resume|promote|rollback|promotion`: moderators train a persona."""

from __future__ import annotations

import time
from typing import Any, Literal

from discord import app_commands
from discord.ext import commands, tasks
from pydantic import ValidationError

from bot.chat.discord_channels import NO_MENTIONS, GuildChannel
from bot.cogs.compare_cog import CompareCommands
from bot.cogs.progress_messages import (
    ProgressMessages,
    cancel_job,
    current_job_text,
    job_buttons,
    promote_or_confirm,
    resume_job,
    roll_back_with_reply,
)
from bot.cogs.rollout_cog import RolloutCommands
from bot.cogs.transformers import (
    MAX_CHOICES,
    Choices,
    Interaction,
    PersonaOption,
    channel_persona,
    check_moderator,
    persona_option,
)
from bot.errors import RefusedError, redact_paths
from bot.permissions import MODERATOR_PERMISSIONS
from bot.personas.base_model_compat import compatibility_notes
from bot.services import Bot
from bot.store import TrainingJob
from bot.training.training_plan import plan_text
from personas.errors import RequestError
from personas.schemas.base import explain_validation_error
from personas.schemas.hyperparameters import Hyperparameters, parse_settings_line
from personas.schemas.training import TaskType, TrainingRequest

RETRY_INTERVAL_S = 60.0
"""Interval at which results that could not be posted are posted again."""
ASK_TEXT = "Asked: a new version speaks when a moderator presses Promote, whatever the gate says."
AUTOMATIC_TEXT = (
    "Automatic: a new version that the gate would promote speaks at once, which is said, with a button that takes it "
    "back. Of all others a moderator is asked."
)


class PromotionCommands(commands.Cog):
    """A command of the group `/finetune`: a base of its cog."""

    bot: Bot

    @app_commands.command(description="Whether a new version that is measurably better goes live by itself here.")
    @app_commands.describe(way="ask, which is the default, or automatic (only said if left out)")
    async def promotion(self, interaction: Interaction, way: Literal["ask", "automatic"] | None = None) -> None:
        guilds, guild_id = self.bot.services.store.guilds, interaction.guild_id or 0
        if way:
            guilds.set_auto_promotion(guild_id, way == "automatic")
        words = AUTOMATIC_TEXT if guilds.is_auto_promotion_enabled(guild_id) else ASK_TEXT
        await interaction.response.send_message(words, ephemeral=True)


@app_commands.guild_only()
@app_commands.default_permissions(MODERATOR_PERMISSIONS)
class FinetuneCog(
    RolloutCommands,
    PromotionCommands,
    CompareCommands,
    commands.GroupCog,
    group_name="finetune",
    group_description="Retrain a persona (moderators).",
):
    """The commands, and the progress messages of the jobs."""

    def __init__(self, bot: Bot) -> None:
        self._messages = ProgressMessages(bot, job_buttons)
        super().__init__(bot)

    async def cog_load(self) -> None:
        self.bot.services.queue.subscribe(self._messages.follow)
        for job in self.bot.services.store.jobs.in_state("queued"):  # their place in the queue changes with the others'
            self._messages.follow(job)
        self._post_unannounced.start()

    @tasks.loop(seconds=RETRY_INTERVAL_S)
    async def _post_unannounced(self) -> None:
        self._messages.follow_unannounced()

    async def cog_unload(self) -> None:
        self._post_unannounced.cancel()
        self.bot.services.queue.unsubscribe(self._messages.follow)
        self._messages.close()

    @commands.Cog.listener()
    async def on_version_changed(self, guild_id: int, persona_id: str) -> None:
        """A version was promoted or rolled back."""
        await self._messages.refresh(guild_id, persona_id)

    async def interaction_check(self, interaction: Interaction, /) -> bool:  # type: ignore[override]
        return check_moderator(interaction)

    # ------------------------------------------------------------------------------------------ the commands

    @app_commands.command(description="Train a persona anew; it keeps talking meanwhile.")
    @app_commands.describe(
        job_name="A name for this job (chosen for you if left out)",
        dataset="A data set of the catalogue (the persona's own log if left out)",
        task_type="What to train (a persona's voice if left out); preference: from votes and taught replies",
        epochs="Passes over the data (the recipe's if left out)",
        persona="Whose voice (this channel's persona if left out)",
        learning_rate="Peak learning rate (the recipe's if left out)",
        recipe="How to train (demo-cpu if left out; for preferences their own)",
        settings="More settings of the recipe, such as: lora_r=8, warmup_ratio=0.1",
        general="General dialogue to mix in, where the recipe mixes (a part of what ships if left out)",
        start_from="A dialogue adapter to train further; for preferences a version (else the live one)",
    )
    async def start(
        self,
        interaction: Interaction,
        job_name: app_commands.Range[str, 1, 64] | None = None,
        dataset: str | None = None,
        task_type: TaskType = "persona",
        epochs: app_commands.Range[float, 0.1, 50.0] | None = None,
        persona: PersonaOption | None = None,
        learning_rate: app_commands.Range[float, 1e-6, 1e-2] | None = None,
        recipe: str | None = None,
        settings: app_commands.Range[str, 1, 1000] | None = None,
        general: str | None = None,
        start_from: str | None = None,
    ) -> None:
        channel = interaction.channel
        if not isinstance(channel, GuildChannel):
            raise RefusedError("Progress is shown in text channels and threads.", "Try it there.")
        await interaction.response.defer(ephemeral=True)
        who = (persona or channel_persona(interaction)) if task_type != "dialogue" else None
        request = _training_request(
            job_name=job_name or f"{who.id if who else task_type}-{time.strftime('%m%d-%H%M%S', time.gmtime())}",
            base_model=self.bot.services.base_model,
            dataset=dataset,
            task_type=task_type,
            persona=who.id if who else None,
            **({"recipe": recipe} if recipe else {}),
            general=general,
            start_from=start_from,
            hyperparameters=_parse_hyperparameters(
                settings or "", num_train_epochs=epochs, learning_rate=learning_rate
            ),
        )
        job = self.bot.services.queue.enqueue(
            request, guild_id=channel.guild.id, channel_id=channel.id, requested_by=interaction.user.id
        )
        services = self.bot.services
        notes = [redact_paths(note, services.home) for note in compatibility_notes(request, services.base_model)]
        said = [f"Queued as `{job.job_id}`. Its progress is below.", *notes]
        await interaction.followup.send("\n".join(said), ephemeral=True)
        self._messages.follow(job)

    @app_commands.command(description="Say what a training would do: what it learns from, how long it takes.")
    @app_commands.describe(
        dataset="A data set of the catalogue (the persona's own log if left out)",
        task_type="What to train (a persona's voice if left out); preference: from votes and taught replies",
        persona="Whose voice (this channel's persona if left out)",
        recipe="How to train (demo-cpu if left out; for preferences their own)",
        general="General dialogue to mix in, where the recipe mixes (a part of what ships if left out)",
        start_from="A dialogue adapter to train further; for preferences a version (else the live one)",
    )
    async def preview(
        self,
        interaction: Interaction,
        dataset: str | None = None,
        task_type: TaskType = "persona",
        persona: PersonaOption | None = None,
        recipe: str | None = None,
        general: str | None = None,
        start_from: str | None = None,
    ) -> None:
        await interaction.response.defer(ephemeral=True)
        queue = self.bot.services.queue
        who = (persona or channel_persona(interaction)) if task_type != "dialogue" else None
        request = _training_request(
            job_name="preview",
            base_model=self.bot.services.base_model,
            dataset=dataset,
            task_type=task_type,
            persona=who.id if who else None,
            **({"recipe": recipe} if recipe else {}),
            general=general,
            start_from=start_from,
            hyperparameters={},
        )
        plan = await queue.plan(request, interaction.guild_id or 0)
        is_training = bool(self.bot.services.store.jobs.in_state("running"))
        guild_id = interaction.guild_id or 0
        conflict = queue.conflict(request, guild_id)
        words = plan_text(
            plan, request.recipe, queue.position_for_guild(guild_id), is_training, str(conflict) if conflict else ""
        )
        await interaction.followup.send(words, ephemeral=True, allowed_mentions=NO_MENTIONS)

    @start.autocomplete("dataset")
    @preview.autocomplete("dataset")
    async def _datasets(self, interaction: Interaction, current: str) -> Choices:
        return _matching_choices(self.bot.services.catalogue.datasets(), current)

    @start.autocomplete("general")
    @preview.autocomplete("general")
    async def _dialogues(self, interaction: Interaction, current: str) -> Choices:
        return _matching_choices(self.bot.services.catalogue.dialogues(), current)

    @start.autocomplete("start_from")
    @preview.autocomplete("start_from")
    async def _adapters(self, interaction: Interaction, current: str) -> Choices:
        if interaction.namespace.task_type == "preference":
            whose = persona_option(interaction)
            versions = self.bot.services.store.versions.installed(whose.id)
            return _matching_choices([it.version for it in reversed(versions)], current)
        return _matching_choices(self.bot.services.catalogue.dialogue_adapters(interaction.guild_id or 0), current)

    @start.autocomplete("recipe")
    @preview.autocomplete("recipe")
    async def _recipes(self, interaction: Interaction, current: str) -> Choices:
        return _matching_choices(self.bot.services.catalogue.recipes(), current)

    @app_commands.command(description="What is training, what waits, what ended.")
    async def status(self, interaction: Interaction) -> None:
        jobs = self.bot.services.store.jobs.of_guild(interaction.guild_id or 0, limit=5)
        words = [current_job_text(self.bot.services, job) for job in jobs]
        await interaction.response.send_message("\n\n".join(words)[:2000] or "No jobs yet.", ephemeral=True)

    @app_commands.command(description="End a job that waits or trains. Nothing that is live changes.")
    @app_commands.describe(job="The job, or whose (the latest unfinished one if left out)")
    async def cancel(self, interaction: Interaction, job: str | None = None) -> None:
        await interaction.response.defer(ephemeral=True)
        await cancel_job(interaction, _select_job(self._open_jobs(interaction), job, "waits or trains").job_id)

    @cancel.autocomplete("job")
    async def _cancellable(self, interaction: Interaction, current: str) -> Choices:
        return _job_choices(self._open_jobs(interaction), current)

    @app_commands.command(description="Go on with a training that failed, once what was missing is there again.")
    @app_commands.describe(job="The job, or whose (the latest that can go on if left out)")
    async def resume(self, interaction: Interaction, job: str | None = None) -> None:
        await interaction.response.defer(ephemeral=True)
        await resume_job(interaction, _select_job(self._resumable_jobs(interaction), job, "can go on").job_id)

    @resume.autocomplete("job")
    async def _resumable(self, interaction: Interaction, current: str) -> Choices:
        return _job_choices(self._resumable_jobs(interaction), current)

    @app_commands.command(description="Let a trained version speak from the next reply on.")
    @app_commands.describe(persona="Whose (this channel's persona if left out)", version="Which (else the newest)")
    async def promote(
        self, interaction: Interaction, persona: PersonaOption | None = None, version: str | None = None
    ) -> None:
        await interaction.response.defer(ephemeral=True)
        who = persona or channel_persona(interaction)
        installed = self.bot.services.store.versions.installed(who.id)
        if not installed:
            raise RequestError(f"{who.name} has no trained version yet.", "Train one with `/finetune start`.")
        await promote_or_confirm(interaction, who, version or installed[-1].version)

    @app_commands.command(description="Go back to the version that spoke before.")
    @app_commands.describe(persona="Whose (this channel's persona if left out)")
    async def rollback(self, interaction: Interaction, persona: PersonaOption | None = None) -> None:
        await interaction.response.defer(ephemeral=True)
        await interaction.followup.send(
            await roll_back_with_reply(interaction, persona or channel_persona(interaction))
        )

    # ------------------------------------------------------------------------------------------ whom and which

    def _open_jobs(self, interaction: Interaction) -> list[TrainingJob]:
        jobs = self.bot.services.store.jobs.of_guild(interaction.guild_id or 0)
        return [job for job in jobs if job.state in ("queued", "running")]

    def _resumable_jobs(self, interaction: Interaction) -> list[TrainingJob]:
        jobs = self.bot.services.store.jobs.resumable()
        return [job for job in reversed(jobs) if job.guild_id == interaction.guild_id]


def _select_job(jobs: list[TrainingJob], wanted: str | None, which: str) -> TrainingJob:
    """The first of these jobs, or the one that is named by its id or by whose it is. Raises `RequestError`."""
    for job in jobs:
        if wanted in (None, job.job_id, job.name):
            return job
    known = ", ".join(f"{job.name} (`{job.job_id}`)" for job in jobs) or "none"
    raise RequestError(f"There is no such job that {which}.", f"There are: {known}.")


def _job_choices(jobs: list[TrainingJob], current: str) -> Choices:
    labels = {f"{job.name} {job.version} · {job.state} · {job.job_id}": job.job_id for job in jobs}
    found = [label for label in labels if current.casefold() in label.casefold()]
    return [app_commands.Choice(name=label[:100], value=labels[label]) for label in found[:MAX_CHOICES]]


def _training_request(**fields: Any) -> TrainingRequest:
    try:
        return TrainingRequest(**{**fields, "hyperparameters": Hyperparameters(**fields["hyperparameters"])})
    except ValidationError as error:
        raise explain_validation_error(error) from error


def _parse_hyperparameters(text: str, **named: float | None) -> dict[str, Any]:
    """Merge `settings` with the named options. Raises `RequestError` for what both set."""
    written = parse_settings_line(text).model_dump(exclude_none=True)
    own = {name: value for name, value in named.items() if value is not None}
    if twice := sorted(written.keys() & own.keys()):
        raise RequestError(f"{', '.join(twice)} is set twice: in `settings`, and by itself.", "Leave one of them out.")
    return {**written, **own}


def _matching_choices(names: list[str], current: str) -> Choices:
    found = [name for name in names if current.casefold() in name.casefold()]
    return [app_commands.Choice(name=name, value=name) for name in found[:MAX_CHOICES]]
