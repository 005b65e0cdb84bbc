"""`/finetune rollout start|stop|status` and `/finetune history`: a version answers a share of the
replies first.
"""

import time

import discord
from discord import app_commands
from discord.app_commands import Range
from discord.ext import commands

from bot.chat.places import SPEAK_PLACES, GuildChannel
from bot.platform.discord_kit.transformers import (
    CHANNEL_PERSONA_HELP,
    FINETUNE,
    Interaction,
    ModeratorGroup,
    PersonaOption,
    SuggestionTransformer,
    channel_persona,
    persona_option,
    request_origin,
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
from bot.platform.localisation import (
    SOURCE_LANGUAGE,
    Language,
    gettext_lazy,
    gettext_noop,
    interaction_language,
    join_texts,
)
from bot.platform.messages import markdown_name
from bot.services import Bot
from bot.store import NewRollout, Rollout
from bot.versions.discord import PromoteButton, install_named_dialogue, promotion_text
from bot.versions.rollout import report as rollout_report
from bot.versions.rollout.discord_channels import RolloutChannel, require_speaks_in
from bot.versions.rollout.discord_monitor import RolloutMonitor
from bot.versions.rollout.history import VersionHistory
from personas.errors import RequestError

ROLLOUT = ModeratorGroup(
    name="rollout",
    description=gettext_noop("Let a version answer a part of the replies first."),
    parent=FINETUNE,
)


class RolloutCog(commands.Cog):
    """Checks rollouts at start-up, when members judge replies, and when versions change."""

    def __init__(self, bot: Bot) -> None:
        services = bot.services
        self._monitor = RolloutMonitor(
            client=bot,
            home=services.home,
            store=services.store,
            personas=services.personas,
            versions=services.versions,
            buttons=ended_rollout_view,
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


# ----------------------------------------------------------------------------------------- commands


def _other_versions(interaction: Interaction, persona_id: str) -> list[str]:
    """The versions that the server may use and that are not live there, newest first."""
    versions = interaction.client.services.store.versions
    guild_id = interaction.guild_id or 0
    live = versions.live(persona_id, guild_id)
    names = [installed.version for installed in versions.installed(persona_id, guild_id)]
    return [name for name in reversed(names) if name != live]


OtherVersionOption = app_commands.Transform[
    str,
    SuggestionTransformer(
        lambda interaction: _other_versions(interaction, persona_option(interaction).id)
    ),
]


@ROLLOUT.command(
    name="start",
    description=gettext_noop("Let a version that is not live answer a part of the replies."),
)
@app_commands.describe(
    version=gettext_noop("Which version (the newest that is not live if left out)"),
    share=gettext_noop("Percentage of the replies, drawn at random"),
    channel=gettext_noop(
        "In this channel only, with its threads; all of its replies unless a share is given"
    ),
    persona=CHANNEL_PERSONA_HELP,
)
async def start_rollout(
    interaction: Interaction,
    version: OtherVersionOption | None = None,
    share: Range[int, 1, 99] | None = None,
    channel: RolloutChannel | None = None,
    persona: PersonaOption | None = None,
) -> None:
    origin = interaction.channel
    services = interaction.client.services
    if not isinstance(origin, GuildChannel):
        raise RefusedError(
            gettext_lazy("Rollouts are started and reported in {places}.", places=SPEAK_PLACES),
            gettext_lazy("Try it there."),
        )
    if share is None and channel is None:
        raise RequestError(
            gettext_lazy("Neither a share nor a channel is given."),
            gettext_lazy("Name a `share` of the replies, such as 20, or a `channel`, or both."),
        )
    await defer(interaction, ephemeral=True)
    persona = persona or channel_persona(interaction)
    if channel:
        require_speaks_in(services, persona, channel)
    if version is None:
        others = _other_versions(interaction, persona.id)
        if not others:
            raise RequestError(
                gettext_lazy("There is no version that is not live."),
                gettext_lazy("Train one with `/finetune start`."),
            )
        version = others[0]
    version = await install_named_dialogue(interaction, persona, version)
    new = NewRollout(
        persona_id=persona.id,
        version=version,
        guild_id=origin.guild.id,
        channel_id=origin.id,
        started_by=interaction.user.id,
        share=share or 100,
        only_channel=channel.id if channel else None,
    )
    rollout = await services.versions.start_rollout(new)
    await respond(
        interaction,
        rollout_report.started_text(rollout, markdown_name(persona)),
        running_rollout_view(rollout, interaction_language(interaction)),
    )


@ROLLOUT.command(
    name="stop", description=gettext_noop("Let the live version make all replies again.")
)
@app_commands.describe(persona=CHANNEL_PERSONA_HELP)
async def stop_rollout(interaction: Interaction, persona: PersonaOption | None = None) -> None:
    persona = persona or channel_persona(interaction)
    rollouts = interaction.client.services.store.rollouts
    running = rollouts.find_active(persona.id, interaction.guild_id or 0, time.time())
    if running is None:
        raise RequestError(
            gettext_lazy(
                "No version of {persona} is being rolled out here.", persona=markdown_name(persona)
            ),
            gettext_lazy("`/finetune rollout start`"),
        )
    await respond(interaction, stop_with_reply(interaction, running))


@ROLLOUT.command(
    name="status",
    description=gettext_noop(
        "Show what is rolled out or observed here, and members' feedback on it."
    ),
)
async def rollout_status(interaction: Interaction) -> None:
    services = interaction.client.services
    now = time.time()
    texts: list[str] = []
    on_trial = []
    for persona in services.personas.of(interaction.guild_id or 0).values():
        for rollout in services.store.rollouts.running(persona.id, now):
            if rollout.guild_id != interaction.guild_id:
                continue
            comparison = rollout_report.compare_rollout(services.store, rollout)
            texts.append(rollout_report.status_text(rollout, markdown_name(persona), comparison))
            if not rollout.is_promoted:
                on_trial.append(rollout)
    view = None
    if len(on_trial) == 1:
        view = running_rollout_view(on_trial[0], interaction_language(interaction))
    text = gettext_lazy("Nothing is rolled out, and no version was promoted lately.")
    if texts:
        text = join_texts(*texts, separator="\n\n")
    await respond(interaction, text, view)


@FINETUNE.command(
    description=gettext_noop(
        "Show a persona's versions: measured, rolled out, live, rolled back, and why."
    )
)
@app_commands.describe(persona=CHANNEL_PERSONA_HELP)
async def history(interaction: Interaction, persona: PersonaOption | None = None) -> None:
    persona = persona or channel_persona(interaction)
    language = interaction_language(interaction)
    pages = VersionHistory(
        interaction.client.services.store, persona, interaction.guild_id or 0, language=language
    ).pages()
    await respond(interaction, pages[0], history_view(persona.id, 0, len(pages), language=language))


def stop_with_reply(interaction: Interaction, rollout: Rollout) -> str:
    """Stop a rollout; returns the reply to the moderator."""
    persona = require_persona(interaction, rollout.persona_id)
    interaction.client.services.versions.stop_rollout(rollout, interaction.user.id)
    return rollout_report.stopped_text(rollout, markdown_name(persona))


async def restart_with_reply(interaction: Interaction, rollout: Rollout) -> str:
    """Start a rollout again that was rolled back automatically, with counts from zero; returns the
    reply.
    """
    services = interaction.client.services
    persona = require_persona(interaction, rollout.persona_id)
    if not services.store.rollouts.is_last(rollout):
        raise RefusedError(
            gettext_lazy("More has happened since this version was rolled back."),
            gettext_lazy(
                "`/finetune history` says what; `/finetune rollout start` and `/finetune promote` "
                "let it answer again."
            ),
        )
    if rollout.is_promoted:
        result = await services.versions.promote(
            persona.id, rollout.version, request_origin(interaction), anyway=True
        )
        return promotion_text(result, persona)
    new = NewRollout(
        persona_id=rollout.persona_id,
        version=rollout.version,
        guild_id=rollout.guild_id,
        channel_id=rollout.channel_id,
        started_by=interaction.user.id,
        share=rollout.share,
        only_channel=rollout.only_channel,
    )
    started = await services.versions.start_rollout(new)
    return rollout_report.started_text(started, markdown_name(persona))


# ------------------------------------------------------------------------------------------ buttons


def running_rollout_view(rollout: Rollout, language: Language = SOURCE_LANGUAGE) -> discord.ui.View:
    """The buttons under a rollout that goes on."""
    return button_view(
        PromoteButton(rollout.persona_id, rollout.version, language=language),
        StopRolloutButton(rollout.seq, language=language),
    )


def ended_rollout_view(
    rollout: Rollout, language: Language = SOURCE_LANGUAGE
) -> discord.ui.View | None:
    """The button under the announcement of an automatic rollback."""
    if rollout.ending == "worse":
        return button_view(RestartRolloutButton(rollout.seq, language=language))
    return None


def history_view(
    persona_id: str, page: int, pages: int, *, language: Language = SOURCE_LANGUAGE
) -> discord.ui.View | None:
    """The buttons to the neighbours of a page, from 0."""
    buttons = []
    if page > 0:
        newer = gettext_lazy("Newer")
        buttons.append(HistoryPageButton(persona_id, page - 1, label=newer, language=language))
    if page + 1 < pages:
        older = gettext_lazy("Older")
        buttons.append(HistoryPageButton(persona_id, page + 1, label=older, language=language))
    return button_view(*buttons) if buttons else None


class _RolloutButton(PersistentButton, template=r"never:"):
    """A button for one rollout, by its number. Subclasses have the templates of custom ids."""

    moderators_only = True
    actions = ("promote",)
    seq: str

    def rollout(self, interaction: Interaction) -> Rollout:
        """Find the rollout. Raises `RefusedError` where it is unknown here."""
        rollout = interaction.client.services.store.rollouts.get(int(self.seq))
        if rollout is None or rollout.guild_id != interaction.guild_id:
            raise RefusedError(
                gettext_lazy("This rollout is no longer known."),
                gettext_lazy("`/finetune history` lists the versions."),
            )
        return rollout


class StopRolloutButton(_RolloutButton, template=r"rollout-stop:(?P<seq>[0-9]+)"):
    """Ends a rollout."""

    label = gettext_lazy("Stop")

    async def pressed(self, interaction: Interaction) -> None:
        await respond(interaction, stop_with_reply(interaction, self.rollout(interaction)))


class RestartRolloutButton(_RolloutButton, template=r"rollout-undo:(?P<seq>[0-9]+)"):
    """Undoes an automatic rollback."""

    label = gettext_lazy("Undo")

    async def pressed(self, interaction: Interaction) -> None:
        await defer(interaction, thinking=True)
        reply = await restart_with_reply(interaction, self.rollout(interaction))
        await respond(interaction, reply, ephemeral=False)


class HistoryPageButton(
    PersistentButton, template=r"history:(?P<persona_id>[\w-]+):(?P<page>[0-9]+)"
):
    """Turns the pages of a history."""

    label = gettext_lazy("Page")
    moderators_only = True
    actions = ("train", "promote")
    persona_id: str
    page: str

    async def pressed(self, interaction: Interaction) -> None:
        persona = require_persona(interaction, self.persona_id)
        language = interaction_language(interaction)
        pages = VersionHistory(
            interaction.client.services.store, persona, interaction.guild_id or 0, language=language
        ).pages()
        page = min(int(self.page), len(pages) - 1)
        view = history_view(persona.id, page, len(pages), language=language)
        await update_message(interaction, content=pages[page], view=view)


ROLLOUT_BUTTONS = (StopRolloutButton, RestartRolloutButton, HistoryPageButton)
