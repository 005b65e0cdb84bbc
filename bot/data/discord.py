"""The fetch of a data set from a hub: offered by a command that needs the data set, followed in the
channel.
"""

import asyncio
from contextlib import suppress

import discord

from bot.chat.places import GuildChannel
from bot.data.jobs import DataJob
from bot.platform.discord_kit.transformers import Interaction, require_moderator
from bot.platform.discord_kit.ui import PersistentButton, button_view, defer, respond
from bot.platform.errors import RefusedError
from bot.platform.localisation import (
    LocalisableText,
    gettext_lazy,
    join_texts,
    language_of,
    localise,
    override,
)
from bot.platform.messages import MAX_MESSAGE_CHARS
from personas.cli_common import commands_as_typed
from personas.errors import RequestError
from personas.home.dataset_catalogue import DatasetNotFetchedError
from personas.models.hub_snapshot import find_hub_error
from personas.schemas.formatting import format_size

EDIT_INTERVAL_S = 1.5


async def offer_fetch(interaction: Interaction, missing: DatasetNotFetchedError) -> None:
    """Say that a data set has to be fetched, with a button that does so where the bot may and a hub
    can be reached.
    """
    services = interaction.client.services
    entry = services.catalogue.require_entry(missing.name)
    source = entry.hub or ""
    uses = list[str]()
    if entry.about:
        source = f"{source}, {format_size(entry.about.bytes)}, {entry.licence}"
        uses = [
            gettext_lazy("Good for: {uses}", uses=LocalisableText(entry.about.good_for)),
            gettext_lazy("Not for: {uses}", uses=LocalisableText(entry.about.not_for)),
        ]
    absent = gettext_lazy(
        "{name!r} ({source}) has not been fetched to this machine.",
        name=missing.name,
        source=source,
    )
    lines = [absent, *uses]
    advice = gettext_lazy(
        "The operator can fetch it: `{command}`, or on the dashboard.",
        command=commands_as_typed(f"python -m trainer catalogue fetch {missing.name}"),
    )
    if services.fetch_datasets == "off":
        await respond(interaction, join_texts(*lines, advice, separator="\n"))
        return
    if await asyncio.to_thread(find_hub_error):
        lines.append(
            gettext_lazy("It cannot be fetched now: no hub can be reached from the bot's machine.")
        )
        await respond(interaction, join_texts(*lines, advice, separator="\n"))
        return
    who = gettext_lazy(
        "The bot's operator can fetch it with the button. Then run the command again."
    )
    if services.fetch_datasets == "moderators":
        who = gettext_lazy("A moderator can fetch it with the button. Then run the command again.")
    button = FetchDatasetButton(missing.name)
    await respond(interaction, join_texts(*lines, who, separator="\n"), button_view(button))


async def _require_fetcher(interaction: Interaction) -> None:
    """Raise `RefusedError` for those who may not have the bot fetch data sets."""
    if interaction.client.services.fetch_datasets == "moderators":
        require_moderator(interaction)
    elif not await interaction.client.is_owner(interaction.user):
        advice = gettext_lazy(
            "FETCH_DATASETS=moderators in the bot's settings lets moderators do so."
        )
        raise RefusedError(
            gettext_lazy("Only the bot's operator, who owns its application, may fetch data sets."),
            advice,
        )


class FetchDatasetButton(PersistentButton, template=r"fetch:(?P<name>[\w .-]{1,64})"):
    """Fetches a data set from a hub, and shows its progress in the channel."""

    label = gettext_lazy("Fetch it")
    style = discord.ButtonStyle.primary
    name: str

    async def pressed(self, interaction: Interaction) -> None:
        await defer(interaction, ephemeral=True, thinking=True)
        await _require_fetcher(interaction)
        job = interaction.client.services.data.fetch(self.name)
        await respond(interaction, gettext_lazy("`{name}` is being fetched.", name=self.name))
        if isinstance(interaction.channel, GuildChannel):
            with (
                suppress(discord.HTTPException),  # the fetch goes on where the bot may not write
                override(language_of(interaction.channel.guild.preferred_locale)),
            ):
                await _show_fetch(interaction.channel, job)


async def _show_fetch(channel: GuildChannel, job: DataJob) -> None:
    """Edit a message in the channel, at most every 1.5 s, until the fetch has ended."""
    view = button_view(CancelFetchButton(job.subject))
    shown = _fetch_text(job)
    message = await channel.send(shown, view=view)
    while job.is_open:
        await asyncio.sleep(EDIT_INTERVAL_S)
        if job.is_open and (text := _fetch_text(job)) != shown:
            await message.edit(content=text, view=view)
            shown = text
    await message.edit(content=_fetch_text(job), view=None)


def _fetch_text(job: DataJob) -> str:
    match job.state:
        case "done":
            text = gettext_lazy(
                "`{name}` is here: `/finetune start` can take it now.", name=job.subject
            )
        case "failed":
            text = gettext_lazy(
                "`{name}` could not be fetched. {error}", name=job.subject, error=job.error
            )
        case "cancelled":
            text = gettext_lazy(
                "The fetch of `{name}` is cancelled; another one continues where it stopped.",
                name=job.subject,
            )
        case _:
            said = job.said or gettext_lazy("asking the hub")
            text = gettext_lazy("Fetching `{name}`: {progress}", name=job.subject, progress=said)
    return localise(text)[:MAX_MESSAGE_CHARS]


class CancelFetchButton(PersistentButton, template=r"cancel-fetch:(?P<name>[\w .-]{1,64})"):
    """Cancels the fetch of a data set."""

    label = gettext_lazy("Cancel")
    name: str

    async def pressed(self, interaction: Interaction) -> None:
        await defer(interaction, ephemeral=True, thinking=True)
        await _require_fetcher(interaction)
        jobs = interaction.client.services.data_jobs
        job = jobs.latest("fetch", self.name)
        if job is None or not job.is_open:
            raise RequestError(
                gettext_lazy("`{name}` is not being fetched.", name=self.name),
                gettext_lazy("Nothing was cancelled."),
            )
        await jobs.cancel(job)
        await respond(interaction, gettext_lazy("Cancelled."))


FETCH_BUTTONS = (FetchDatasetButton, CancelFetchButton)
