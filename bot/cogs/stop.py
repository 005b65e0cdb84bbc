"""The Stop button under a reply that is being written."""

from __future__ import annotations

from typing import Any, Self

import discord

from bot.house import HouseBot


class StopButton(discord.ui.DynamicItem[discord.ui.Button[discord.ui.View]], template=r"stop:(?P<event>[0-9]+)"):
    """Stops the reply it hangs under. Works after a restart too: it carries the event's id, not a reference."""

    def __init__(self, event_id: int) -> None:
        self.event_id = event_id
        super().__init__(
            discord.ui.Button(label="Stop", style=discord.ButtonStyle.secondary, custom_id=f"stop:{event_id}")
        )

    @classmethod
    async def from_custom_id(cls, interaction: discord.Interaction[Any], item: Any, match: Any) -> Self:
        return cls(int(match["event"]))

    async def callback(self, interaction: discord.Interaction[HouseBot]) -> None:  # type: ignore[override]
        answerer = interaction.client.house.answerer
        if not answerer.is_running(self.event_id):
            await interaction.response.edit_message(view=None)
        elif refusal := answerer.stop(self.event_id, interaction.user):
            await interaction.response.send_message(refusal, ephemeral=True)
        else:
            await interaction.response.defer()


def stop_view(event_id: int) -> discord.ui.View:
    """A Stop button for one reply."""
    view = discord.ui.View(timeout=None)
    view.add_item(StopButton(event_id))
    return view
