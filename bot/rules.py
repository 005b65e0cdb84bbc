"""Who may do what with a reply, and where personas are silenced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import discord

from bot.errors import RefusedError
from bot.permissions import is_moderator
from bot.place import Place
from bot.store import Store, StoredReply
from personas.contracts import Persona


@dataclass(frozen=True)
class Rules:
    """The rules, checked where something is done; hidden buttons and default permissions are a courtesy besides."""

    store: Store

    def require_owner(self, asked_by: int, user: discord.abc.User, what: str) -> None:
        """Refuse whoever neither asked for the reply nor moderates."""
        if user.id != asked_by and not is_moderator(user):
            raise RefusedError(f"Only the one who asked, or a moderator, can {what}.")

    def require_voice(self, interaction: discord.Interaction[Any]) -> None:
        """Refuse whoever may not write here: what goes through a form or a command stands in the channel, too."""
        may = interaction.permissions
        speaks = may.send_messages_in_threads if isinstance(interaction.channel, discord.Thread) else may.send_messages
        if interaction.guild_id and not speaks:
            raise RefusedError("You may not send messages in this channel.", "A moderator can change that.")

    def require_reply(self, reply: StoredReply | None) -> StoredReply:
        """Refuse where a reply is not, or no longer, known."""
        if reply is None:
            raise RefusedError("This is no reply of a persona, or it is no longer kept.", "Choose another message.")
        return reply

    def require_unmuted(self, persona: Persona, at: Place) -> None:
        """Refuse where a moderator has silenced the persona."""
        if self.muted(persona, at):
            raise RefusedError(f"A moderator has silenced {persona.name} here.", "`/persona unmute` lifts that.")

    def muted(self, persona: Persona, at: Place) -> bool:
        """Whether a moderator has silenced the persona in this place."""
        return self.store.mutes.holding(at.guild_id, at.channel_id, at.parent_id, persona.id) is not None
