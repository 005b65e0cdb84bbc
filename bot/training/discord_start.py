"""Starts trainings on Discord: the answer to whoever starts one, and the buttons that train from a card."""

from typing import Any

from discord import ButtonStyle

from bot.chat.places import SPEAK_PLACES, GuildChannel
from bot.data.discord import offer_fetch
from bot.platform.discord_kit.layouts import text_card
from bot.platform.discord_kit.transformers import Interaction, require_persona
from bot.platform.discord_kit.ui import PersistentButton, defer, respond_with_layout
from bot.platform.errors import RefusedError, redact_paths
from bot.platform.localisation import gettext_lazy, join_texts, localise
from bot.store import TrainingJob
from bot.training.discord_buttons import CancelJobButton
from bot.training.start_options import card_share, default_job_name
from bot.training.teacher_text import expectation_texts
from personas.errors import RequestError
from personas.home.dataset_catalogue import DatasetNotFetchedError
from personas.schemas.training import CARD_RECIPE, TrainingRequest

REST_TEXT = gettext_lazy("-# The rest is on the page of the training.")
PERSONA_ID = r"(?P<persona_id>[a-z0-9][a-z0-9_-]*)"


class TrainFromCardButton(PersistentButton, template=rf"train-from-card:{PERSONA_ID}"):
    """Does what `/finetune start from:card` does for a persona."""

    label = gettext_lazy("Train from the card")
    style = ButtonStyle.primary
    moderators_only = True
    actions = ("train",)
    persona_id: str

    async def pressed(self, interaction: Interaction) -> None:
        await _train_from_card(interaction, self.persona_id)


class ReadFirstButton(PersistentButton, template=rf"read-first-from-card:{PERSONA_ID}"):
    """Does the same, but the training stops once the replies are written, to be read."""

    label = gettext_lazy("Let me read the replies first")
    moderators_only = True
    actions = ("train",)
    persona_id: str

    async def pressed(self, interaction: Interaction) -> None:
        await _train_from_card(interaction, self.persona_id, review=True)


async def _train_from_card(
    interaction: Interaction, wanted: str, *, review: bool | None = None
) -> None:
    persona_id = require_persona(interaction, wanted).id
    channel = progress_channel(interaction)
    await defer(interaction, ephemeral=True, thinking=True)
    request = from_card_request(interaction, persona_id, review=review)
    await queue_training(interaction, channel, request)


def from_card_request(
    interaction: Interaction, persona_id: str, *, review: bool | None = None
) -> TrainingRequest:
    """The request of the buttons."""
    trainings = interaction.client.services.trainings
    return parse_request(
        interaction,
        job_name=default_job_name(persona_id),
        persona=persona_id,
        recipe=trainings.default_recipe(persona_id, from_card=True),
        from_card=card_share("card", None),
        review=review,
    )


def repeats_by_button(job: TrainingJob) -> bool:
    """Report whether one of the buttons starts the same training as a job."""
    try:
        request = job.request
    except RequestError:  # it was stored by another version of the bot
        return False
    if not job.persona or not request.from_card:
        return False
    same = TrainingRequest(
        job_name=request.job_name,
        persona=request.persona,
        recipe=CARD_RECIPE,
        from_card=card_share("card", None),
        review=request.review,
        base_model=request.base_model,
        teacher=request.teacher,
    )
    return request == same


def progress_channel(interaction: Interaction) -> GuildChannel:
    """Return the channel in which a training's progress is shown. Raises `RefusedError`."""
    if not isinstance(interaction.channel, GuildChannel):
        raise RefusedError(
            gettext_lazy("Progress is shown in {places}.", places=SPEAK_PLACES),
            gettext_lazy("Try it there."),
        )
    return interaction.channel


async def queue_training(
    interaction: Interaction, channel: GuildChannel, request: TrainingRequest
) -> None:
    """Queue a training, and say so with what is to be expected of it."""
    services = interaction.client.services
    try:
        started = services.trainings.start(
            request,
            guild_id=channel.guild.id,
            channel_id=channel.id,
            requested_by=interaction.user.id,
        )
    except DatasetNotFetchedError as missing:
        return await offer_fetch(interaction, missing)
    head = join_texts(
        gettext_lazy(
            "Queued as `{job}`, with the recipe `{recipe}`. Its progress and the time left are "
            "below.",
            job=started.job.job_id,
            recipe=request.recipe,
        ),
        gettext_lazy(
            "-# **Cancel** stops it. `/finetune preview` shows the plan of a run without starting "
            "one."
        ),
        separator="\n",
    )
    notes: list[str] = [*expectation_texts(request, services.models.recommended_title)]
    notes += [redact_paths(localise(note), services.home) for note in started.notes]
    card = text_card(
        [head, join_texts(*notes, separator="\n")],
        rest=REST_TEXT,
        buttons=[CancelJobButton(started.job.job_id)],
    )
    await respond_with_layout(interaction, card)


def parse_request(interaction: Interaction, **options: Any) -> TrainingRequest:
    """Build a request from a command's options; those left out (None) take their defaults. Raises
    `RequestError`.
    """
    body = {name: value for name, value in options.items() if value is not None}
    return interaction.client.services.trainings.parse(body)
