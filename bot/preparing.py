"""What prompts begin with, made ready: for all channels' personas at the start, for one when its version changes."""

from __future__ import annotations

from bot.house import House, HouseBot


class Preparing:
    """Asks the engine to prepare; it does so while nobody waits for it."""

    def __init__(self, house: House) -> None:
        self._house = house

    def start(self, client: HouseBot) -> None:
        """Prepare the channels of all servers, and hear from then on when another version speaks."""
        for guild in client.guilds:
            for persona_id in dict.fromkeys(at.persona_id for at in self._house.store.channels.of_guild(guild.id)):
                self._prepare(guild.id, persona_id)
        client.add_listener(self._changed, "on_version_changed")

    async def _changed(self, guild_id: int | None, persona_id: str) -> None:
        self._prepare(guild_id or 0, persona_id)

    def _prepare(self, guild_id: int, persona_id: str) -> None:
        conversations = self._house.conversations
        if persona := conversations.personas.get(persona_id, guild_id):
            version = conversations.speaking(persona_id)
            adapter = conversations.adapter(persona_id, version) if version else None
            self._house.answerer.engine.prepare(persona, adapter)
