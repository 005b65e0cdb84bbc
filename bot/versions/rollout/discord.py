"""`/finetune rollout start|stop|status` and `/finetune history`: a version answers a share of the
replies first.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import discord
from discord import app_commands
from discord.app_commands import Range
from discord.ext import commands

from bot.chat.places import GuildChannel, SpeakChannel, channel_ref, fetch_channel
from bot.personas.registry import PersonaRegistry
from bot.platform.discord_kit.transformers import (
    CHANNEL_PERSONA_HELP,
    FINETUNE,
    Interaction,
    ModeratorGroup,
    PersonaOption,
    SuggestionTransformer,
    channel_persona,
    persona_option,
    require_persona,
)
from bot.platform.discord_kit.ui import (
    PersistentButton,
    button_view,
    defer,
    respond,
    update_message,
)
from bot.platform.errors import RefusedError
from bot.platform.messages import NO_MENTIONS
from bot.services import Bot, Services
from bot.store import BASE_MODEL_NAME, NewRollout, Rollout, Store
from bot.versions.actions import LiveVersions
from bot.versions.discord import PromoteButton, install_named_dialogue, promote_with_reply
from bot.versions.member_feedback import record_member_feedback, share_votes
from bot.versions.rollout import report as rollout_report
from bot.versions.rollout.history import VersionHistory
from personas.errors import RequestError
from personas.schemas.chat import Persona

log = logging.getLogger(__name__)
ROLLOUT = ModeratorGroup(
    name="rollout", description="Let a version answer a part of the replies first.", parent=FINETUNE
)


class RolloutCog(commands.Cog):
    """Checks rollouts at start-up, when members judge replies, and when versions change."""

    def __init__(self, bot: Bot) -> None:
        services = bot.services
        self._monitor = RolloutMonitor(
            bot,
            services.home,
            services.store,
            services.personas,
            services.versions,
            ended_rollout_view,
            bot.serves,
        )

    @commands.Cog.listener()
    async def on_ready(self) -> None:
        await self._monitor.settle_all()

    @commands.Cog.listener()
    async def on_reply_judged(self, event_id: int) -> None:
        await self._monitor.on_reply_judged(event_id)

    @commands.Cog.listener()
    async def on_version_changed(self, guild_id: int, persona_id: str) -> None:
        await self._monitor.settle(persona_id)


# ------------------------------------------------------------------------------------------
# commands


def _other_versions(interaction: Interaction, persona_id: str) -> list[str]:
    """The versions that the server may use and that are not live there, newest first."""
    versions = interaction.client.services.store.versions
    guild_id = interaction.guild_id or 0
    live = versions.live(persona_id, guild_id)
    return [
        it.version
        for it in reversed(versions.installed(persona_id, guild_id))
        if it.version != live
    ]


OtherVersionOption = app_commands.Transform[
    str, SuggestionTransformer(lambda it: _other_versions(it, persona_option(it).id))
]


@ROLLOUT.command(
    name="start", description="Let a version that is not live answer a part of the replies."
)
@app_commands.describe(
    version="Which version (the newest that is not live if left out)",
    share="Percentage of the replies, drawn at random",
    channel="In this channel only, with its threads; all of its replies unless a share is given",
    persona=CHANNEL_PERSONA_HELP,
)
async def start_rollout(
    interaction: Interaction,
    version: OtherVersionOption | None = None,
    share: Range[int, 1, 99] | None = None,
    channel: discord.TextChannel | None = None,
    persona: PersonaOption | None = None,
) -> None:
    origin = interaction.channel
    services = interaction.client.services
    if not isinstance(origin, GuildChannel):
        raise RefusedError(
            "Rollouts are started and reported in text channels and threads.", "Try it there."
        )
    if share is None and channel is None:
        raise RequestError(
            "How far?", "Name a `share` of the replies, such as 20, or a `channel`, or both."
        )
    await defer(interaction, ephemeral=True)
    persona = persona or channel_persona(interaction)
    if channel:
        require_speaks_in(services, persona, channel)
    version = version or next(iter(_other_versions(interaction, persona.id)), None)
    if version is None:
        raise RequestError(
            "There is no version that is not live.", "Train one with `/finetune start`."
        )
    version = await install_named_dialogue(interaction, persona, version)
    only_channel = channel.id if channel else None
    new = NewRollout(
        persona.id,
        version,
        origin.guild.id,
        origin.id,
        interaction.user.id,
        share or 100,
        only_channel,
    )
    rollout = await services.versions.start_rollout(new)
    await respond(
        interaction,
        rollout_report.started_text(rollout, persona.name),
        running_rollout_view(rollout),
    )


@ROLLOUT.command(name="stop", description="Let the live version make all replies again.")
@app_commands.describe(persona=CHANNEL_PERSONA_HELP)
async def stop_rollout(interaction: Interaction, persona: PersonaOption | None = None) -> None:
    persona = persona or channel_persona(interaction)
    rollouts = interaction.client.services.store.rollouts
    running = rollouts.find_active(persona.id, interaction.guild_id or 0, time.time())
    if running is None:
        raise RequestError(
            f"No version of {persona.name} is being rolled out here.", "`/finetune rollout start`"
        )
    await respond(interaction, stop_with_reply(interaction, running))


@ROLLOUT.command(
    name="status",
    description="Show what is rolled out or observed here, and members' feedback on it.",
)
async def rollout_status(interaction: Interaction) -> None:
    services = interaction.client.services
    now = time.time()
    texts = []
    on_trial = []
    for persona in services.personas.of(interaction.guild_id or 0).values():
        for rollout in services.store.rollouts.running(persona.id, now):
            if rollout.guild_id == interaction.guild_id:
                comparison = rollout_report.compare_rollout(services.store, rollout)
                texts.append(rollout_report.status_text(rollout, persona.name, comparison))
                on_trial += [] if rollout.is_promoted else [rollout]
    view = running_rollout_view(on_trial[0]) if len(on_trial) == 1 else None
    await respond(
        interaction,
        "\n\n".join(texts) or "Nothing is rolled out, and no version was promoted lately.",
        view,
    )


@FINETUNE.command(
    description="Show a persona's versions: measured, rolled out, live, rolled back, and why."
)
@app_commands.describe(persona=CHANNEL_PERSONA_HELP)
async def history(interaction: Interaction, persona: PersonaOption | None = None) -> None:
    persona = persona or channel_persona(interaction)
    pages = VersionHistory(
        interaction.client.services.store, persona, interaction.guild_id or 0
    ).pages()
    await respond(interaction, pages[0], history_view(persona.id, 0, len(pages)))


def require_speaks_in(services: Services, persona: Persona, channel: discord.TextChannel) -> None:
    """Raise `RequestError` where a persona answers neither in a channel nor in a thread of it."""
    places: list[SpeakChannel] = [channel, *channel.threads]
    residents = [services.persona_in(channel_ref(place)) for place in places]
    if not any(it and it.id == persona.id for it in residents):
        raise RequestError(
            f"{persona.name} does not live in #{channel.name}, so none of its versions would "
            "answer there.",
            "Name the channel in which it lives, or give it that one with `/persona set`.",
        )


def stop_with_reply(interaction: Interaction, rollout: Rollout) -> str:
    """Stop a rollout; returns the reply to the moderator."""
    persona = require_persona(interaction, rollout.persona_id)
    interaction.client.services.versions.stop_rollout(rollout, interaction.user.id)
    return rollout_report.stopped_text(rollout, persona.name)


async def restart_with_reply(interaction: Interaction, rollout: Rollout) -> str:
    """Start a rollout again that was rolled back automatically, with counts from zero; returns the
    reply.
    """
    services = interaction.client.services
    persona = require_persona(interaction, rollout.persona_id)
    if not services.store.rollouts.is_last(rollout):
        raise RefusedError(
            "More has happened since this version was rolled back.",
            "`/finetune history` says what; `/finetune rollout start` and `/finetune promote` let "
            "it answer again.",
        )
    if rollout.is_promoted:
        return await promote_with_reply(interaction, persona, rollout.version)
    new = NewRollout(**{name: getattr(rollout, name) for name in NewRollout.__dataclass_fields__})
    started = await services.versions.start_rollout(replace(new, started_by=interaction.user.id))
    return rollout_report.started_text(started, persona.name)


# ------------------------------------------------------------------------------------------ buttons


def running_rollout_view(rollout: Rollout) -> discord.ui.View:
    """The buttons under a rollout that goes on."""
    return button_view(
        PromoteButton(rollout.persona_id, rollout.version), StopRolloutButton(rollout.seq)
    )


def ended_rollout_view(rollout: Rollout) -> discord.ui.View | None:
    """The button under the announcement of an automatic rollback."""
    return button_view(RestartRolloutButton(rollout.seq)) if rollout.ending == "worse" else None


def history_view(persona_id: str, page: int, pages: int) -> discord.ui.View | None:
    """The buttons to the neighbours of a page, from 0."""
    neighbours = {"Newer": page - 1, "Older": page + 1}
    buttons = [
        HistoryPageButton(persona_id, at, label=label)
        for label, at in neighbours.items()
        if 0 <= at < pages
    ]
    return button_view(*buttons) if buttons else None


class _RolloutButton(PersistentButton, template=r"never:"):
    """A button for one rollout, by its number."""

    moderators_only = True
    seq: str

    def rollout(self, interaction: Interaction) -> Rollout:
        """Find the rollout. Raises `RefusedError` where it is unknown here."""
        rollout = interaction.client.services.store.rollouts.get(int(self.seq))
        if rollout is None or rollout.guild_id != interaction.guild_id:
            raise RefusedError(
                "This rollout is no longer known.", "`/finetune history` lists the versions."
            )
        return rollout


class StopRolloutButton(_RolloutButton, template=r"rollout-stop:(?P<seq>[0-9]+)"):
    """Ends a rollout."""

    label = "Stop"

    async def pressed(self, interaction: Interaction) -> None:
        await respond(interaction, stop_with_reply(interaction, self.rollout(interaction)))


class RestartRolloutButton(_RolloutButton, template=r"rollout-undo:(?P<seq>[0-9]+)"):
    """Undoes an automatic rollback."""

    label = "Undo"

    async def pressed(self, interaction: Interaction) -> None:
        await defer(interaction, thinking=True)
        reply = await restart_with_reply(interaction, self.rollout(interaction))
        await respond(interaction, reply, ephemeral=False)


class HistoryPageButton(
    PersistentButton, template=r"history:(?P<persona_id>[\w-]+):(?P<page>[0-9]+)"
):
    """Turns the pages of a history."""

    label = "Page"
    moderators_only = True
    persona_id: str
    page: str

    async def pressed(self, interaction: Interaction) -> None:
        persona = require_persona(interaction, self.persona_id)
        pages = VersionHistory(
            interaction.client.services.store, persona, interaction.guild_id or 0
        ).pages()
        page = min(int(self.page), len(pages) - 1)
        await update_message(
            interaction, content=pages[page], view=history_view(persona.id, page, len(pages))
        )


ROLLOUT_BUTTONS = (StopRolloutButton, RestartRolloutButton, HistoryPageButton)


# ------------------------------------------------------------------------------------------ endings


@dataclass
class RolloutMonitor:
    """Stores how each rollout ends, then announces it; a failed announcement is repeated at the
    next occasion.

    `buttons` creates the buttons under the announcement. `serves`: rollouts of other guilds are
    other processes'.
    """

    client: discord.Client
    home: Path
    store: Store
    personas: PersonaRegistry
    versions: LiveVersions
    buttons: Callable[[Rollout], discord.ui.View | None]
    serves: Callable[[int], bool] = lambda guild_id: True
    _announcement_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def on_reply_judged(self, event_id: int) -> None:
        """Re-evaluate the rollouts of a judged reply, and write the members' feedback for the
        gate.
        """
        if reply := self.store.replies.get(event_id):
            await self.look(reply.persona_id)
            rollout = self.store.rollouts.get(reply.rollout) if reply.rollout else None
            live = self.store.versions.live(reply.persona_id, reply.guild_id) or BASE_MODEL_NAME
            for version in filter(
                None, {reply.adapter_version, rollout.version if rollout else None}
            ):
                share_votes(self.store, reply.persona_id, version, live, reply.guild_id)
                await record_member_feedback(
                    self.home, self.store, self.personas, reply.persona_id, version
                )

    async def look(self, persona_id: str) -> None:
        """Roll back each version that turned out worse."""
        for rollout in filter(self._is_own, self.store.rollouts.running(persona_id, time.time())):
            comparison = rollout_report.compare_rollout(self.store, rollout)
            if comparison.worse:
                self.versions.revert_rollout(
                    rollout, rollout_report.rollback_reason(rollout, comparison)
                )
        await self.announce()

    async def settle(self, persona_id: str) -> None:
        """End and announce the rollouts that a promotion, rollback or withdrawal has decided."""
        self.store.rollouts.end_superseded(persona_id, time.time())
        await self.announce()

    async def settle_all(self) -> None:
        """Settle and announce, at start-up, everything that ended or turned out worse meanwhile."""
        for guild_id, persona_id, version, against in self.store.guild_feedback.pairs():
            share_votes(self.store, persona_id, version, against, guild_id)
        for persona_id in self.store.rollouts.personas():
            self.store.rollouts.end_superseded(persona_id, time.time())
            await self.look(persona_id)
        await self.announce()

    async def announce(self) -> None:
        """Announce the ended rollouts that have not been announced."""
        async with self._announcement_lock:
            for rollout in filter(self._is_own, self.store.rollouts.unannounced()):
                try:
                    await self._announce(rollout)
                except (discord.HTTPException, aiohttp.ClientError, OSError) as error:
                    log.warning("the end of a rollout could not be announced yet: %s", error)
                else:
                    self.store.rollouts.mark_announced(rollout.seq)

    def _is_own(self, rollout: Rollout) -> bool:
        return self.serves(rollout.guild_id)

    async def _announce(self, rollout: Rollout) -> None:
        persona = self.personas.get(rollout.persona_id, rollout.guild_id)
        channel = await fetch_channel(self.client, rollout.channel_id)
        if persona is None or channel is None:
            return  # nobody is left to read it
        view = self.buttons(rollout) or discord.utils.MISSING
        try:
            await channel.send(
                rollout_report.ended_text(rollout, persona.name),
                view=view,
                allowed_mentions=NO_MENTIONS,
            )
        except (discord.Forbidden, discord.NotFound) as error:
            log.warning("the end of a rollout cannot be announced in #%s: %s", channel, error)
