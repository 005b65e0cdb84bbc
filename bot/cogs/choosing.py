"""Choosing whom to talk to, in direct messages: a menu of the personas."""

from __future__ import annotations

import time
from typing import Any, Self

import discord

from bot.cogs.errors import tell
from bot.errors import RefusedError, words_for
from bot.house import House, HouseBot
from bot.place import place_of
from bot.store import Channel

MAX_CHOICES = 25
"""Options that Discord allows in a menu."""


class PersonaMenu(discord.ui.DynamicItem[discord.ui.Select[discord.ui.View]], template="choose-persona"):
    """The menu. Whoever it was sent to chooses; it can be used again to change one's mind."""

    def __init__(self, options: list[discord.SelectOption]) -> None:
        super().__init__(discord.ui.Select(custom_id="choose-persona", placeholder="Choose a persona", options=options))

    @classmethod
    async def from_custom_id(cls, interaction: discord.Interaction[Any], item: Any, match: Any) -> Self:
        return cls(item.options)

    async def callback(self, interaction: discord.Interaction[HouseBot]) -> None:  # type: ignore[override]
        try:
            await self._chosen(interaction, self.item.values[0])
        except Exception as error:
            await tell(interaction, words_for(error))

    async def _chosen(self, interaction: discord.Interaction[HouseBot], persona_id: str) -> None:
        house, channel = interaction.client.house, interaction.channel
        persona = house.conversations.personas.get(persona_id, 0)
        if persona is None or not isinstance(channel, discord.DMChannel):
            raise RefusedError("This persona is no longer here.", "Write to me again for a new menu.")
        await interaction.response.defer()
        place = place_of(channel)
        setting = Channel(place.guild_id, place.channel_id, persona.id, "everything", interaction.user.id, time.time())
        house.store.channels.assign(setting)
        if asked := house.unanswered.pop(channel.id, None):
            await house.answerer.answer(asked, persona, channel)
        else:
            await house.answerer.greet(persona, channel, interaction.user.display_name)


def choice_view(house: House) -> discord.ui.View:
    """The menu of the personas that everybody can talk to. Raises `RefusedError` when there are none."""
    personas = list(house.conversations.personas.of(0).values())[:MAX_CHOICES]
    if not personas:
        raise RefusedError("There are no personas here.", "The operator can add cards to personas/cards.")
    view = discord.ui.View(timeout=None)
    options = [discord.SelectOption(label=p.name, value=p.id, description=p.tagline[:100] or None) for p in personas]
    view.add_item(PersonaMenu(options))
    return view
