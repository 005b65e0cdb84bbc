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
from bot.platform.messages import MAX_MESSAGE_CHARS
from personas.errors import RequestError
from personas.home.dataset_catalogue import DatasetNotFetchedError
from personas.models.hub_snapshot import find_hub_error

EDIT_INTERVAL_S = 1.5


async def offer_fetch(interaction: Interaction, missing: DatasetNotFetchedError) -> None:
    """Say that a data set has to be fetched, with a button that does so where the bot may and a hub
    can be reached.
    """
    services = interaction.client.services
    about = services.catalogue.require_entry(missing.name).about
    lines = [missing.message]
    if about:
        lines.append(f"Good for: {about.good_for}\nNot for: {about.not_for}")
    if services.fetch_datasets == "off":
        await respond(interaction, "\n".join([*lines, missing.advice]))
        return
    if await asyncio.to_thread(find_hub_error):
        lines.append("It cannot be fetched now: no hub can be reached from the bot's machine.")
        await respond(interaction, "\n".join([*lines, missing.advice]))
        return
    fetchers = "A moderator" if services.fetch_datasets == "moderators" else "The bot's operator"
    lines.append(f"{fetchers} can fetch it with the button. Then run the command again.")
    await respond(interaction, "\n".join(lines), button_view(FetchDatasetButton(missing.name)))


async def _require_fetcher(interaction: Interaction) -> None:
    """Raise `RefusedError` for those who may not have the bot fetch data sets."""
    if interaction.client.services.fetch_datasets == "moderators":
        require_moderator(interaction)
    elif not await interaction.client.is_owner(interaction.user):
        advice = "FETCH_DATASETS=moderators in the bot's settings lets moderators do so."
        raise RefusedError(
            "Only the bot's operator, who owns its application, may fetch data sets.", advice
        )


class FetchDatasetButton(PersistentButton, template=r"fetch:(?P<name>[\w .-]{1,64})"):
    """Fetches a data set from a hub, and shows its progress in the channel."""

    label = "Fetch it"
    style = discord.ButtonStyle.primary
    name: str

    async def pressed(self, interaction: Interaction) -> None:
        await defer(interaction, ephemeral=True, thinking=True)
        await _require_fetcher(interaction)
        job = interaction.client.services.data.fetch(self.name)
        await respond(interaction, f"`{self.name}` is being fetched.")
        if isinstance(interaction.channel, GuildChannel):
            with suppress(discord.HTTPException):  # the fetch goes on where the bot may not write
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
            return f"`{job.subject}` is here: `/finetune start` can take it now."
        case "failed":
            return f"`{job.subject}` could not be fetched. {job.error}"[:MAX_MESSAGE_CHARS]
        case "cancelled":
            return (
                f"The fetch of `{job.subject}` is cancelled; another one continues where it "
                "stopped."
            )
    return f"Fetching `{job.subject}`: {job.said or 'asking the hub'}"


class CancelFetchButton(PersistentButton, template=r"cancel-fetch:(?P<name>[\w .-]{1,64})"):
    """Cancels the fetch of a data set."""

    label = "Cancel"
    name: str

    async def pressed(self, interaction: Interaction) -> None:
        await defer(interaction, ephemeral=True, thinking=True)
        await _require_fetcher(interaction)
        jobs = interaction.client.services.data_jobs
        job = jobs.latest("fetch", self.name)
        if job is None or not job.is_open:
            raise RequestError(f"`{self.name}` is not being fetched.", "Nothing was cancelled.")
        await jobs.cancel(job)
        await respond(interaction, "Cancelled.")


FETCH_BUTTONS = (FetchDatasetButton, CancelFetchButton)
