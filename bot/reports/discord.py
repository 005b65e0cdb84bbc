"""Apps → **Report this reply** for members, and `/moderation reports`, which lists reports."""

from collections.abc import Mapping
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from bot.chat.places import may_see
from bot.moderation.age import is_age_restricted
from bot.platform.discord_kit.refused_forms import TryAgainButton, offer_again
from bot.platform.discord_kit.transformers import MODERATION, Interaction
from bot.platform.discord_kit.ui import (
    PersistentSelect,
    form,
    respond,
    select_field,
    send_form,
    update_message,
)
from bot.platform.errors import RefusedError, error_text
from bot.platform.localisation import gettext_lazy, gettext_noop, localise, ngettext_lazy, translate
from bot.platform.messages import latest_lines
from bot.reports.actions import (
    MAX_NOTE_CHARS,
    REASONS,
    REPORT_DAYS,
    AlreadyReportedError,
    reply_link,
)
from bot.reports.store import Report
from bot.services import Bot
from bot.store import StoredReply

REPORT_FORM_PREFIX = "report-reply:"
"""Prefix of the form's custom id; the id of the reported message follows."""
FORM_TITLE = gettext_noop("Report this reply")
ASK_TEXT = gettext_lazy(
    "Moderators of this server see your reason, your note and the reply, not who reported it."
)
MAX_LISTED = 20
"""Reported replies that are read for a list; fewer have room in a message."""
MAX_NOTES_CHARS = 1200
"""Of the notes on a reported reply in a list, whose length is limited: any two have room."""
ARCHIVED_TEXT = gettext_lazy(
    "Notes are not shown: its channel is archived or deleted. A message in a thread opens it again."
)
RESTRICTED_TEXT = gettext_lazy(
    "Notes are not shown here: the reply is for age-restricted channels. Type the command in one."
)
LIST_FOOTER = gettext_lazy("-# `/moderation reports done` deletes one that you have dealt with.")
THANKS_TEXT = gettext_lazy(
    "Thank you. Moderators of this server see the report, not who made it. It is deleted once they "
    "have dealt with it, and after {days} days.",
    days=REPORT_DAYS,
)


def report_form(message_id: int, typed: Mapping[str, str] | None = None) -> discord.ui.Modal:
    """The form for the report of a message, with what was typed before."""
    before = typed or {}
    options = []
    for reason, label in REASONS.items():
        shown = localise(label)
        option = discord.SelectOption(
            label=shown[0].upper() + shown[1:],
            value=reason,
            default=reason == before.get("reason"),
        )
        options.append(option)
    reason_field = select_field(
        translate(gettext_noop("What is wrong with this reply?")),
        "reason",
        options,
        placeholder=translate(gettext_noop("Choose a reason")),
    )
    note: discord.ui.TextInput[Any] = discord.ui.TextInput(
        custom_id="note",
        style=discord.TextStyle.paragraph,
        default=before.get("note") or None,
        max_length=max(MAX_NOTE_CHARS, len(before.get("note", ""))),
        required=False,
    )
    note_field: discord.ui.Label[Any] = discord.ui.Label(
        text=translate(gettext_noop("Note")),
        description=translate(gettext_noop("What moderators should know. It may stay empty.")),
        component=note,
    )
    intro: discord.ui.TextDisplay[Any] = discord.ui.TextDisplay(localise(ASK_TEXT))
    title = translate(FORM_TITLE)
    return form(title, f"{REPORT_FORM_PREFIX}{message_id}", intro, reason_field, note_field)


async def report_from_form(
    interaction: Interaction, message_id: str, values: dict[str, str]
) -> None:
    """Store the report of a submitted form, or say what is wrong and offer the form again."""
    reply = _require_reply(interaction, int(message_id))
    reason = values.get("reason", "")
    note = values.get("note", "")
    try:
        _report(interaction, reply, int(message_id), reason=reason, note=note)
    except AlreadyReportedError:
        raise
    except RefusedError as error:
        button = ReportAgainButton(message_id)
        await offer_again(interaction, error_text(error), button, values)
        return
    await respond(interaction, THANKS_TEXT)


def _require_reply(interaction: Interaction, message_id: int) -> StoredReply:
    services = interaction.client.services
    reply = services.store.replies.of_message(message_id)
    return services.reply_service.rules.require_reply(reply)


def _report(
    interaction: Interaction, reply: StoredReply, message_id: int, *, reason: str, note: str = ""
) -> None:
    interaction.client.services.reports.report(
        reply,
        message_id,
        reason,
        guild_id=interaction.guild_id or 0,
        user_id=interaction.user.id,
        note=note,
    )


class ReportAgainButton(TryAgainButton, template=r"retry-report:(?P<message>[0-9]+)"):
    """Opens a refused report with what was typed."""

    message: str

    def form_with(self, interaction: Interaction, typed: Mapping[str, str]) -> discord.ui.Modal:
        return report_form(int(self.message), typed)


class ReasonSelect(PersistentSelect, template=r"report:(?P<message>[0-9]+)"):
    """The menu of reasons that stood in place of the form before; sent ones still work."""

    message: str

    async def chosen(self, interaction: Interaction, value: str) -> None:
        message_id = int(self.message)
        reply = _require_reply(interaction, message_id)
        _report(interaction, reply, message_id, reason=value)
        await update_message(interaction, content=THANKS_TEXT, view=None)


class ReportCog(commands.Cog):
    """The command in the menu of a message."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self._menu = app_commands.ContextMenu(
            name=FORM_TITLE,
            callback=self.report_reply,
            allowed_contexts=app_commands.AppCommandContext(guild=True),
        )

    async def cog_load(self) -> None:
        self.bot.tree.add_command(self._menu)

    async def cog_unload(self) -> None:
        self.bot.tree.remove_command(self._menu.name, type=self._menu.type)

    async def report_reply(self, interaction: Interaction, message: discord.Message) -> None:
        """Open the form for the report of a persona's reply."""
        reply = _require_reply(interaction, message.id)
        guild_id = interaction.guild_id or 0
        self.bot.services.reports.require_can_report(reply, guild_id, interaction.user.id)
        await send_form(interaction, report_form(message.id))


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
    text = _list_text(interaction)
    await respond(interaction, text or gettext_lazy("No reply is reported."), suppress_embeds=True)


def _list_text(interaction: Interaction) -> str:
    """List the reported replies, each once, latest last; empty where there are none."""
    reports = interaction.client.services.store.reports
    guild_id = interaction.guild_id or 0
    latest = reports.latest(guild_id, MAX_LISTED)
    lines = [_reply_text(interaction, first) for first in latest]
    earlier = reports.count_replies(guild_id) - len(latest)
    return latest_lines(lines, LIST_FOOTER, earlier=earlier)


def _reply_text(interaction: Interaction, first: Report) -> str:
    """A reported reply: what was reported and why, and the latest notes below."""
    services = interaction.client.services
    reasons = []
    for reason, count in services.store.reports.reasons(first.event_id).items():
        why = localise(REASONS.get(reason, reason))
        reasons.append(f"{why} ×{count}" if count > 1 else why)
    version = localise(services.reports.version_text(first))
    line = (
        f"**{first.seq}** · <t:{int(first.at)}:R> · {version}: "
        f"{', '.join(reasons)}. {reply_link(first)}"
    )
    notes = _notes(interaction, first)
    return "\n> ".join([line, *(localise(note) for note in notes)])


def _notes(interaction: Interaction, first: Report) -> list[str]:
    """The latest notes on a reported reply, which may quote it, in a line each; else why they are not
    shown.
    """
    services = interaction.client.services
    notes = services.store.reports.notes(first.event_id)
    if not notes:
        return []
    guild_id = first.guild_id
    channel = interaction.guild and interaction.guild.get_channel_or_thread(first.channel_id)
    if channel is None:
        return [ARCHIVED_TEXT]
    if not isinstance(interaction.user, discord.Member) or not may_see(channel, interaction.user):
        return [gettext_lazy("Notes are not shown: you do not see its channel.")]
    persona = services.personas.get(first.persona_id, guild_id)
    age = services.reply_service.rules.age
    is_restricted = age.restricts_reply(persona, channel, guild_id=guild_id)
    if is_restricted and not is_age_restricted(interaction.channel):
        return [RESTRICTED_TEXT]
    room = MAX_NOTES_CHARS
    lines: list[str] = []
    for note in reversed(notes):
        line = discord.utils.escape_markdown(" ".join(note.split()))
        room -= len(line)
        if room < 0:
            break
        lines.insert(0, line)
    if more := len(notes) - len(lines):
        lines.append(
            ngettext_lazy("… and {count} earlier note", "… and {count} earlier notes", more)
        )
    return lines
