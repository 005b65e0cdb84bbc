"""**Repeat with changes** below a training that has ended: a form with its recipe and settings."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import discord

from bot.platform.discord_kit.refused_forms import TryAgainButton, offer_again
from bot.platform.discord_kit.transformers import Interaction, require_action
from bot.platform.discord_kit.ui import (
    MAX_DESCRIPTION_CHARS,
    PersistentButton,
    defer,
    form,
    select_field,
    send_form,
)
from bot.platform.errors import error_text
from bot.platform.localisation import gettext_lazy, gettext_noop, translate
from bot.store import TrainingJob
from bot.training.discord_start import progress_channel, queue_training
from bot.training.repeat import RepeatForm, find_repeatable
from personas.errors import UnderstudyError

REPEAT_FORM_PREFIX = "repeat-training:"
"""Prefix of the form's custom id; the job's id follows."""
MAX_SETTINGS_CHARS = 1000
MAX_NUMBER_CHARS = 20
REPEAT_TEXT = gettext_lazy("Repeat with changes")
INTRO_TEXT = gettext_noop(
    "This repeats {version} as a new version, on the same material as it is now. The recipe decides "
    "what you leave empty."
)


class RepeatButton(PersistentButton, template=r"repeat-training:(?P<job_id>[\w.-]+)"):
    """Opens the form of a training that has ended, with its recipe and settings."""

    label = REPEAT_TEXT
    moderators_only = True
    actions = ("train",)
    job_id: str

    async def pressed(self, interaction: Interaction) -> None:
        store = interaction.client.services.store
        job = find_repeatable(store, self.job_id, interaction.guild_id or 0)
        typed = RepeatForm.of_request(job.request)
        await send_form(interaction, repeat_form(interaction, job, typed))


def repeat_form(interaction: Interaction, job: TrainingJob, typed: RepeatForm) -> discord.ui.Modal:
    """The form, with these texts."""
    services = interaction.client.services
    names = [job.version]
    if job.persona:
        names.insert(0, services.personas.markdown_name_of(job.persona, job.guild_id))
    version = f"**{' '.join(names)}**"
    intro: discord.ui.TextDisplay[Any] = discord.ui.TextDisplay(
        translate(INTRO_TEXT, version=version)
    )
    options = []
    for name, text in services.catalogue.recipe_labels().items():
        purpose = text.removeprefix(name).removeprefix(": ")[:MAX_DESCRIPTION_CHARS]
        options.append(
            discord.SelectOption(
                label=name, value=name, description=purpose or None, default=name == typed.recipe
            )
        )
    return form(
        translate(gettext_noop("Repeat with changes")),
        f"{REPEAT_FORM_PREFIX}{job.job_id}",
        intro,
        select_field(
            translate(gettext_noop("Recipe")),
            "recipe",
            options,
            placeholder=translate(gettext_noop("Choose a recipe")),
        ),
        _text(
            gettext_noop("Epochs"),
            gettext_noop("Passes over the data (the recipe's if left out)"),
            "epochs",
            typed.epochs,
        ),
        _text(
            gettext_noop("Learning rate"),
            gettext_noop("Peak learning rate (the recipe's if left out)"),
            "learning_rate",
            typed.learning_rate,
        ),
        _text(
            gettext_noop("More settings"),
            gettext_noop("More settings of the recipe, such as: lora_r=8, warmup_ratio=0.1"),
            "settings",
            typed.settings,
        ),
    )


def _text(label: str, hint: str, custom_id: str, value: str) -> discord.ui.Label[Any]:
    is_long = custom_id == "settings"
    box: discord.ui.TextInput[Any] = discord.ui.TextInput(
        custom_id=custom_id,
        style=discord.TextStyle.paragraph if is_long else discord.TextStyle.short,
        default=value or None,
        max_length=max(MAX_SETTINGS_CHARS if is_long else MAX_NUMBER_CHARS, len(value)),
        required=False,
    )
    return discord.ui.Label(text=translate(label), description=translate(hint), component=box)


async def repeat_from_form(interaction: Interaction, job_id: str, values: dict[str, str]) -> None:
    """Queue the training of a submitted form, or say what is wrong and offer the form again."""
    require_action(interaction, "train")
    channel = progress_channel(interaction)
    services = interaction.client.services
    job = find_repeatable(services.store, job_id, channel.guild.id)
    await defer(interaction, ephemeral=True, thinking=True)
    typed = RepeatForm.of_fields(values)
    try:
        request = services.trainings.parse(typed.body(job.request))
        await queue_training(interaction, channel, request)
    except UnderstudyError as error:
        button = RepeatAgainButton(job_id)
        await offer_again(interaction, error_text(error), button, asdict(typed))


class RepeatAgainButton(TryAgainButton, template=r"retry-training:(?P<job_id>[\w.-]+)"):
    """Opens a refused form with what was typed."""

    moderators_only = True
    actions = ("train",)
    job_id: str

    def form_with(self, interaction: Interaction, typed: Mapping[str, str]) -> discord.ui.Modal:
        store = interaction.client.services.store
        job = find_repeatable(store, self.job_id, interaction.guild_id or 0)
        return repeat_form(interaction, job, RepeatForm.of_fields(typed))
