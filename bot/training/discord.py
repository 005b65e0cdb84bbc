"""`/finetune start|preview|all|status|cancel|resume`: moderators train a persona, or all."""

import asyncio

from discord import app_commands
from discord.app_commands import Range
from discord.ext import commands

from bot.data.discord import offer_fetch
from bot.platform.clock import BackgroundTask
from bot.platform.discord_kit.layouts import text_card
from bot.platform.discord_kit.transformers import (
    CHANNEL_PERSONA_HELP,
    FINETUNE,
    Interaction,
    PersonaOption,
    SuggestionTransformer,
    channel_persona,
    persona_option,
    require_persona,
)
from bot.platform.discord_kit.ui import defer, respond, respond_with_layout
from bot.platform.errors import error_text, redact_paths
from bot.platform.localisation import gettext_lazy, gettext_noop, localise
from bot.platform.messages import markdown_name, message_texts
from bot.services import Bot
from bot.store import TrainingJob
from bot.training.discord_buttons import cancel_job, resume_job
from bot.training.discord_options import job_labels, select_job
from bot.training.discord_progress import (
    ProgressMessages,
    current_job_text,
)
from bot.training.discord_start import parse_request, progress_channel, queue_training
from bot.training.discord_ways import show_training_ways
from bot.training.request_materials import NoChatLogError
from bot.training.start_options import (
    SourceOption,
    card_share,
    default_job_name,
    merge_settings,
)
from bot.training.status_text import plan_texts, retrain_all_text
from bot.training.teacher_text import expectation_texts
from bot.versions.discord import usable_versions
from personas.home.dataset_catalogue import DatasetNotFetchedError
from personas.schemas.chat import Persona
from personas.schemas.training import TaskType, TrainingRequest

PLAN_REST_TEXT = gettext_lazy("-# The rest is on the dashboard's page for plans.")
RETRY_INTERVAL_S = 60.0
"""Interval at which results that could not be posted are posted again."""
OPTION_HELP = {
    "dataset": gettext_noop("A data set of the catalogue (the persona's own log if left out)"),
    "task_type": gettext_noop(
        "What to train (a persona's voice if left out); preference: from votes and taught replies"
    ),
    "persona": CHANNEL_PERSONA_HELP,
    "recipe": gettext_noop(
        "Recipe (default: card with from:card; quick first on a CPU; preference for votes; else "
        "demo-cpu)"
    ),
    "general": gettext_noop(
        "General dialogue to mix in, where the recipe mixes (part of the bundled dialogue if left "
        "out)"
    ),
    "lore_pairs": gettext_noop(
        "Share of the replies that come from lore: 0.3; 1 is lore alone (none if left out)"
    ),
    "source": gettext_noop(
        "card: a model first writes replies from card and lore; with a dataset, up to half of them"
    ),
    "start_from": gettext_noop(
        "A dialogue adapter to train further; for preferences a version (the live one if left out)"
    ),
}
"""Descriptions of the options that `start` and `preview` share."""


class FinetuneCog(commands.Cog):
    """Keeps the progress messages of training jobs up to date."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self._messages = ProgressMessages(bot)
        self._unannounced = BackgroundTask(
            "results of jobs", self._post_unannounced, lambda: asyncio.sleep(RETRY_INTERVAL_S)
        )

    async def cog_load(self) -> None:
        self.bot.services.queue.subscribe(self._messages.follow)
        # Their places in the queue change with the others'.
        for job in self.bot.services.store.jobs.in_state("queued"):
            self._messages.follow(job)
        self.bot.services.background.append(self._unannounced)
        self._unannounced.start()

    async def _post_unannounced(self) -> None:
        self._messages.follow_unannounced()

    async def cog_unload(self) -> None:
        await self._unannounced.stop()
        self.bot.services.queue.unsubscribe(self._messages.follow)
        self._messages.close()

    @commands.Cog.listener()
    async def on_version_changed(self, guild_id: int, persona_id: str) -> None:
        """A version was promoted or rolled back."""
        await self._messages.refresh(guild_id, persona_id)


# ------------------------------------------------------------------------------------------ options


def _suggested_parents(interaction: Interaction) -> list[str]:
    """Suggest adapters to train further: versions for preferences, else dialogue adapters."""
    services = interaction.client.services
    if interaction.namespace.task_type == "preference":
        return usable_versions(interaction, persona_option(interaction))
    return services.catalogue.dialogue_adapters(interaction.guild_id or 0)


def _open_jobs(interaction: Interaction) -> list[TrainingJob]:
    jobs = interaction.client.services.store.jobs.of_guild(interaction.guild_id or 0)
    return [job for job in jobs if not job.has_ended or job.has_open_card]


def _resumable_jobs(interaction: Interaction) -> list[TrainingJob]:
    jobs = interaction.client.services.store.jobs.resumable()
    return [job for job in reversed(jobs) if job.guild_id == interaction.guild_id]


def _suggested_datasets(interaction: Interaction) -> dict[str, str]:
    catalogue = interaction.client.services.catalogue
    return catalogue.with_unfetched(catalogue.datasets())


def _suggested_dialogues(interaction: Interaction) -> dict[str, str]:
    catalogue = interaction.client.services.catalogue
    return catalogue.with_unfetched(catalogue.dialogues())


def _suggested_recipes(interaction: Interaction) -> dict[str, str]:
    labels = interaction.client.services.catalogue.recipe_labels()
    return {label: name for name, label in labels.items()}


DatasetOption = app_commands.Transform[str, SuggestionTransformer(_suggested_datasets)]
GeneralOption = app_commands.Transform[str, SuggestionTransformer(_suggested_dialogues)]
RecipeOption = app_commands.Transform[str, SuggestionTransformer(_suggested_recipes)]
ShareOption = Range[float, 0.0, 1.0]
ParentOption = app_commands.Transform[str, SuggestionTransformer(_suggested_parents)]
OpenJobOption = app_commands.Transform[
    str,
    SuggestionTransformer(lambda interaction: job_labels(interaction, _open_jobs(interaction))),
]
ResumableJobOption = app_commands.Transform[
    str,
    SuggestionTransformer(
        lambda interaction: job_labels(interaction, _resumable_jobs(interaction))
    ),
]


# ----------------------------------------------------------------------------------------- training


@FINETUNE.command(description=gettext_noop("Train a persona; it keeps answering meanwhile."))
@app_commands.rename(source="from")
@app_commands.describe(
    job_name=gettext_noop("A name for this job (chosen for you if left out)"),
    epochs=gettext_noop("Passes over the data (the recipe's if left out)"),
    learning_rate=gettext_noop("Peak learning rate (the recipe's if left out)"),
    settings=gettext_noop("More settings of the recipe, such as: lora_r=8, warmup_ratio=0.1"),
    **OPTION_HELP,
)
async def start(
    interaction: Interaction,
    # Clients show the first two, and fold the others: what a moderator chooses comes first.
    persona: PersonaOption | None = None,
    recipe: RecipeOption | None = None,
    dataset: DatasetOption | None = None,
    task_type: TaskType = "persona",
    epochs: Range[float, 0.1, 50.0] | None = None,
    source: SourceOption | None = None,
    lore_pairs: ShareOption | None = None,
    learning_rate: Range[float, 1e-6, 1e-2] | None = None,
    settings: Range[str, 1, 1000] | None = None,
    general: GeneralOption | None = None,
    start_from: ParentOption | None = None,
    job_name: Range[str, 1, 64] | None = None,
) -> None:
    services = interaction.client.services
    channel = progress_channel(interaction)
    await defer(interaction, ephemeral=True)
    persona_id = _trained_persona_id(interaction, task_type, persona)
    from_card = card_share(source, dataset)
    request = parse_request(
        interaction,
        job_name=job_name or default_job_name(persona_id or task_type),
        task_type=task_type,
        persona=persona_id,
        dataset=dataset,
        recipe=recipe
        or services.trainings.default_recipe(persona_id, task_type, from_card=bool(from_card)),
        general=general,
        start_from=start_from,
        lore_pairs=lore_pairs,
        from_card=from_card,
        hyperparameters=merge_settings(
            settings or "", num_train_epochs=epochs, learning_rate=learning_rate
        ),
    )
    try:
        await queue_training(interaction, channel, request)
    except NoChatLogError:
        await _say_no_chat_log(interaction, request)


@FINETUNE.command(
    description=gettext_noop("Preview a training run: its samples, and how long it takes.")
)
@app_commands.rename(source="from")
@app_commands.describe(**OPTION_HELP)
async def preview(
    interaction: Interaction,
    persona: PersonaOption | None = None,
    recipe: RecipeOption | None = None,
    dataset: DatasetOption | None = None,
    task_type: TaskType = "persona",
    source: SourceOption | None = None,
    lore_pairs: ShareOption | None = None,
    general: GeneralOption | None = None,
    start_from: ParentOption | None = None,
) -> None:
    await defer(interaction, ephemeral=True)
    persona_id = _trained_persona_id(interaction, task_type, persona)
    services = interaction.client.services
    trainings = services.trainings
    from_card = card_share(source, dataset)
    request = parse_request(
        interaction,
        job_name="preview",
        task_type=task_type,
        persona=persona_id,
        dataset=dataset,
        recipe=recipe or trainings.default_recipe(persona_id, task_type, from_card=bool(from_card)),
        general=general,
        start_from=start_from,
        lore_pairs=lore_pairs,
        from_card=from_card,
    )
    try:
        planned = await trainings.plan(request, interaction.guild_id or 0)
    except DatasetNotFetchedError as missing:
        return await offer_fetch(interaction, missing)
    except NoChatLogError:
        return await _say_no_chat_log(interaction, request)
    texts = plan_texts(
        planned.plan,
        request.recipe,
        position=planned.position,
        is_training=planned.is_another_running,
        conflict=error_text(planned.conflict) if planned.conflict else "",
    )
    texts += expectation_texts(request, services.models.recommended_title)
    title = gettext_lazy("### Plan of a training: dialogue")
    if persona_id:
        name = services.personas.markdown_name_of(persona_id, interaction.guild_id or 0)
        title = gettext_lazy("### Plan of a training: **{persona}**", persona=name)
    card = text_card([title, *texts], rest=PLAN_REST_TEXT)
    await respond_with_layout(interaction, card)


@FINETUNE.command(
    name="all",
    description=gettext_noop("Retrain personas whose versions are for another base model."),
)
@app_commands.describe(
    start=gettext_noop("Queue the trainings (without it: only say what they would take)")
)
async def train_all(interaction: Interaction, start: bool = False) -> None:
    services = interaction.client.services
    channel = progress_channel(interaction)
    await defer(interaction, ephemeral=True)
    if start:
        plan = services.retrain_all.start(channel.guild.id, channel.id, interaction.user.id)
    else:
        plan = await services.retrain_all.plan(channel.guild.id)
    text = localise(retrain_all_text(plan))
    await respond(interaction, redact_paths(text, services.home))


async def _say_no_chat_log(interaction: Interaction, request: TrainingRequest) -> None:
    persona = require_persona(interaction, request.persona or "")
    problem = gettext_lazy("{name} has no chat log to learn from yet.", name=markdown_name(persona))
    await show_training_ways(interaction, persona, problem=problem)


def _trained_persona_id(
    interaction: Interaction, task_type: TaskType, persona: Persona | None
) -> str | None:
    """The persona that a run is for, by default the channel's; None for dialogue in general."""
    if task_type == "dialogue":
        return None
    return (persona or channel_persona(interaction)).id


# ------------------------------------------------------------------------------------------ jobs


@FINETUNE.command(
    description=gettext_noop("Show running, queued and recently finished training runs.")
)
async def status(interaction: Interaction) -> None:
    services = interaction.client.services
    jobs = services.store.jobs.of_guild(interaction.guild_id or 0, limit=5)
    texts = [f"{current_job_text(services, job)}\n" for job in jobs]
    for text in message_texts(texts or [gettext_lazy("No jobs yet.")]):
        await respond(interaction, text)


@FINETUNE.command(
    description=gettext_noop(
        "Cancel a job, or the measuring after it. Live versions stay as they are."
    )
)
@app_commands.describe(
    job=gettext_noop("The job, or what it trains (the latest unfinished one if left out)")
)
async def cancel(interaction: Interaction, job: OpenJobOption | None = None) -> None:
    chosen = select_job(
        _open_jobs(interaction),
        job,
        none=gettext_lazy("There is no job that is queued or running."),
        none_such=gettext_lazy("There is no such job that is queued or running."),
    )
    await cancel_job(interaction, chosen.job_id)


@FINETUNE.command(description=gettext_noop("Resume a failed training once its cause is fixed."))
@app_commands.describe(
    job=gettext_noop("The job, or what it trains (the latest that can be resumed if left out)")
)
async def resume(interaction: Interaction, job: ResumableJobOption | None = None) -> None:
    chosen = select_job(
        _resumable_jobs(interaction),
        job,
        none=gettext_lazy("There is no job that can be resumed."),
        none_such=gettext_lazy("There is no such job that can be resumed."),
    )
    await resume_job(interaction, chosen.job_id)
