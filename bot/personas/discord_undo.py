"""The button that brings back what was removed or replaced."""

from dataclasses import dataclass

from bot.platform.discord_kit.transformers import Interaction
from bot.platform.discord_kit.ui import PersistentButton, button_view, defer, edit_response
from bot.platform.localisation import gettext_lazy
from bot.platform.trash import STAMP

PERSONA_ID = r"(?P<persona>[a-z0-9][a-z0-9_-]*)"
ENTRY = rf"{PERSONA_ID}:{STAMP}"
"""The persona and the entry of the trash, in a button's custom id: at most 84 characters."""


@dataclass(frozen=True)
class Undone:
    """What was brought back: for the audit channel, for whoever has asked, and an undo of that."""

    change: str
    text: str
    again: PersistentButton | None = None


class UndoButton(PersistentButton, template=r"never undo:"):
    """Brings back what is in the trash under its stamp."""

    label = gettext_lazy("Undo")
    moderators_only = True
    persona: str
    stamp: str

    async def pressed(self, interaction: Interaction) -> None:
        await defer(interaction)
        undone = await self.undo(interaction, interaction.guild_id or 0)
        interaction.client.services.audit.record(
            interaction.guild_id or 0, interaction.user.id, undone.change
        )
        view = button_view(undone.again) if undone.again else None
        await edit_response(interaction, content=undone.text, view=view, attachments=[])

    async def undo(self, interaction: Interaction, guild_id: int) -> Undone:
        """Bring it back. Raises `UnderstudyError` where it cannot be."""
        raise NotImplementedError
