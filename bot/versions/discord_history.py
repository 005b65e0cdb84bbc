"""`/finetune history`, and the buttons that turn its pages."""

import discord
from discord import app_commands

from bot.platform.discord_kit.transformers import (
    CHANNEL_PERSONA_HELP,
    FINETUNE,
    Interaction,
    PersonaOption,
    channel_persona,
    require_persona,
)
from bot.platform.discord_kit.ui import PersistentButton, button_view, respond, update_message
from bot.platform.localisation import gettext_lazy, gettext_noop
from bot.versions.history import VersionHistory


@FINETUNE.command(
    description=gettext_noop("Show a persona's versions: measured, live, rolled back, and why.")
)
@app_commands.describe(persona=CHANNEL_PERSONA_HELP)
async def history(interaction: Interaction, persona: PersonaOption | None = None) -> None:
    persona = persona or channel_persona(interaction)
    pages = VersionHistory(
        interaction.client.services.store, persona, interaction.guild_id or 0
    ).pages()
    await respond(interaction, pages[0], history_view(persona.id, 0, len(pages)))


def history_view(persona_id: str, page: int, pages: int) -> discord.ui.View | None:
    """The buttons to the neighbours of a page, from 0."""
    buttons = []
    if page > 0:
        newer = gettext_lazy("Newer")
        buttons.append(HistoryPageButton(persona_id, page - 1, label=newer))
    if page + 1 < pages:
        older = gettext_lazy("Older")
        buttons.append(HistoryPageButton(persona_id, page + 1, label=older))
    return button_view(*buttons) if buttons else None


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
        pages = VersionHistory(
            interaction.client.services.store, persona, interaction.guild_id or 0
        ).pages()
        page = min(int(self.page), len(pages) - 1)
        view = history_view(persona.id, page, len(pages))
        await update_message(interaction, content=pages[page], view=view)
