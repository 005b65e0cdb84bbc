"""`/persona remove`: asks, removes, leaves the card's file, and can be undone for a day."""

from contextlib import suppress

import discord
from discord import app_commands

from bot.personas.discord_cards import card_files, cards_are_for_moderators
from bot.personas.discord_lore import UndoLoreRemovalButton
from bot.personas.discord_undo import ENTRY, PERSONA_ID, UndoButton, Undone
from bot.platform.discord_kit.transformers import (
    PERSONA,
    Interaction,
    OwnPersonaOption,
    require_persona,
)
from bot.platform.discord_kit.ui import (
    PersistentButton,
    button_view,
    defer,
    edit_response,
    respond,
)
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, gettext_noop, join_texts
from bot.platform.messages import markdown_name
from personas.home.persona_ids import short_id
from personas.home.trash import KEPT_S
from personas.schemas.chat import Persona


@cards_are_for_moderators
@PERSONA.command(
    description=gettext_noop("Remove a persona of this server, after a question (moderators).")
)
@app_commands.describe(persona=gettext_noop("Which persona"))
async def remove(interaction: Interaction, persona: OwnPersonaOption) -> None:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    services.personas.require_removable(guild_id, persona)
    trainings = len(services.trainings.open_of_persona(persona.id))
    question = gettext_lazy(
        "Remove **{persona}** (`{id}`)? They have {belongings}. This can be undone for a day; then "
        "memories and lore are deleted for good.",
        persona=markdown_name(persona),
        id=short_id(persona, guild_id),
        belongings=services.removal.belongings(guild_id, persona, trainings).text(),
    )
    button = RemovePersonaButton(persona.id)
    await respond(interaction, question, button_view(button))


class RemovePersonaButton(PersistentButton, template=rf"remove-persona:{PERSONA_ID}"):
    """Removes a persona, and posts its card with a button that brings it back."""

    label = gettext_lazy("Remove")
    style = discord.ButtonStyle.danger
    moderators_only = True
    persona: str

    async def pressed(self, interaction: Interaction) -> None:
        services = interaction.client.services
        guild_id = interaction.guild_id or 0
        persona = require_persona(interaction, self.persona)
        services.personas.require_removable(guild_id, persona)
        await defer(interaction)
        files: list[discord.File] = []
        with suppress(RefusedError):  # too large for a message: the trash has it
            _, files = await card_files(interaction, persona, "charx")
        # First: a queued one would begin meanwhile, and fail for want of the persona.
        cancelled = services.trainings.cancel_all(persona.id, interaction.user.id)
        entry = await services.removal.remove(guild_id, persona)
        services.audit.record(
            guild_id,
            interaction.user.id,
            gettext_lazy("removed the persona {persona}", persona=f"**{markdown_name(persona)}**"),
        )
        text = join_texts(_removed_text(persona, guild_id, entry.at), *cancelled)
        undo = UndoRemovalButton(persona.id, entry.stamp)
        view = button_view(undo)
        await edit_response(interaction, content=text, view=view, attachments=files)


def _removed_text(persona: Persona, guild_id: int, at: float) -> str:
    return gettext_lazy(
        "**{persona}** is removed. **Undo** brings them back with everything until <t:{until}:f>. "
        "Later, `/persona import` of this card file with `id:{id}` makes them anew, with their "
        "versions.",
        persona=markdown_name(persona),
        until=int(at + KEPT_S),
        id=short_id(persona, guild_id),
    )


class UndoRemovalButton(UndoButton, template=rf"undo-removal:{ENTRY}"):
    """Brings a removed persona back."""

    async def undo(self, interaction: Interaction, guild_id: int) -> Undone:
        back = await interaction.client.services.removal.bring_back(
            guild_id, self.persona, stamp=self.stamp, by=interaction.user.id
        )
        name = f"**{markdown_name(back.persona)}**"
        texts: list[str] = [
            gettext_lazy(
                "**{persona}** is back, with channels, versions, memories and lore.",
                persona=markdown_name(back.persona),
            )
        ]
        if back.changed_channels:
            channels = ", ".join(f"<#{channel_id}>" for channel_id in back.changed_channels)
            texts.append(
                gettext_lazy(
                    "Meanwhile these channels were given other personas, and keep them: {channels}.",
                    channels=channels,
                )
            )
        return Undone(
            gettext_lazy("brought back the persona {persona}", persona=name), join_texts(*texts)
        )


REMOVAL_BUTTONS = (RemovePersonaButton, UndoRemovalButton, UndoLoreRemovalButton)
