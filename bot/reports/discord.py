"""Apps → **Report this reply** for members, and `/moderation reports`, which lists reports."""

import discord
from discord import app_commands
from discord.ext import commands

from bot.platform.discord_kit.transformers import MODERATION, Interaction
from bot.platform.discord_kit.ui import (
    PersistentSelect,
    button_view,
    respond,
    update_message,
)
from bot.platform.localisation import (
    Language,
    gettext_lazy,
    gettext_noop,
    interaction_language,
    localise,
    ngettext_lazy,
    translate,
)
from bot.platform.messages import latest_lines
from bot.reports.actions import REASONS, REPORT_DAYS, reply_link
from bot.reports.store import Report
from bot.services import Bot, Services

ASK_TEXT = gettext_lazy(
    "**What is wrong with this reply?** Moderators of this server see your reason and the reply, "
    "not who reported it."
)
MAX_LISTED = 20
"""Reported replies that are read for a list; fewer have room in a message."""
LIST_FOOTER = gettext_lazy("-# `/moderation reports done` deletes one that you have dealt with.")
THANKS_TEXT = gettext_lazy(
    "Thank you. Moderators of this server see the report, not who made it. It is deleted once they "
    "have dealt with it, and after {days} days.",
    days=REPORT_DAYS,
)


class ReasonSelect(PersistentSelect, template=r"report:(?P<message>[0-9]+)"):
    """The menu of reasons for the report of a message."""

    message: str

    @classmethod
    def for_message(cls, message_id: int, language: Language) -> "ReasonSelect":
        options = []
        for reason, label in REASONS.items():
            shown = localise(label, language)
            option = discord.SelectOption(label=shown[0].upper() + shown[1:], value=reason)
            options.append(option)
        placeholder = translate(gettext_noop("Choose a reason"), language)
        return cls(options, str(message_id), placeholder=placeholder)

    async def chosen(self, interaction: Interaction, value: str) -> None:
        services = interaction.client.services
        message_id = int(self.message)
        reply = services.store.replies.of_message(message_id)
        services.reports.report(
            services.reply_service.rules.require_reply(reply),
            message_id,
            value,
            guild_id=interaction.guild_id or 0,
            user_id=interaction.user.id,
        )
        await update_message(interaction, content=THANKS_TEXT, view=None)


class ReportCog(commands.Cog):
    """The command in the menu of a message."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self._menu = app_commands.ContextMenu(
            name=gettext_noop("Report this reply"),
            callback=self.report_reply,
            allowed_contexts=app_commands.AppCommandContext(guild=True),
        )

    async def cog_load(self) -> None:
        self.bot.tree.add_command(self._menu)

    async def cog_unload(self) -> None:
        self.bot.tree.remove_command(self._menu.name, type=self._menu.type)

    async def report_reply(self, interaction: Interaction, message: discord.Message) -> None:
        """Ask a member why they report a persona's reply."""
        services = self.bot.services
        reply = services.reply_service.rules.require_reply(
            services.store.replies.of_message(message.id)
        )
        guild_id = interaction.guild_id or 0
        services.reports.require_can_report(reply, guild_id, interaction.user.id)
        menu = ReasonSelect.for_message(message.id, interaction_language(interaction))
        await respond(interaction, ASK_TEXT, button_view(menu))


@MODERATION.command(description=gettext_noop("List the replies that members have reported."))
@app_commands.describe(
    done=gettext_noop("The number of a report that you have dealt with: it is deleted")
)
async def reports(
    interaction: Interaction, done: app_commands.Range[int, 1, 2**53 - 1] | None = None
) -> None:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    if done is not None:
        count = services.reports.close(guild_id, done, interaction.user.id)
        await respond(
            interaction,
            ngettext_lazy(
                "Dealt with: {count} report of that reply.",
                "Dealt with: {count} reports of that reply.",
                count,
            ),
        )
        return
    text = _list_text(services, guild_id, interaction_language(interaction))
    await respond(interaction, text or gettext_lazy("No reply is reported."), suppress_embeds=True)


def _list_text(services: Services, guild_id: int, language: Language) -> str:
    """List the reported replies, each once, latest last; empty where there are none."""
    reports = services.store.reports
    latest = reports.latest(guild_id, MAX_LISTED)
    lines = [_reply_line(services, first, language) for first in latest]
    earlier = reports.count_replies(guild_id) - len(latest)
    return latest_lines(lines, LIST_FOOTER, earlier=earlier, language=language)


def _reply_line(services: Services, first: Report, language: Language) -> str:
    reasons = []
    for reason, count in services.store.reports.reasons(first.event_id).items():
        why = localise(REASONS.get(reason, reason), language)
        reasons.append(f"{why} ×{count}" if count > 1 else why)
    version = localise(services.reports.version_text(first), language)
    return (
        f"**{first.seq}** · <t:{int(first.at)}:R> · {version}: "
        f"{', '.join(reasons)}. {reply_link(first)}"
    )
