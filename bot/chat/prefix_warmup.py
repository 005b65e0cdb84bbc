"""Warm-up of the prompt prefixes of the personas in use."""

from dataclasses import dataclass

from discord.ext import commands

from bot.personas.registry import PersonaRegistry
from bot.personas.served_versions import ServedVersions
from bot.store import Store
from personas.engine import Engine

MAX_PREPARED_CHANNELS = 256
"""Channels whose prompt prefixes are computed at the start: more have no room in the engine, and
delay replies.
"""


@dataclass(frozen=True, kw_only=True)
class ChannelPrefixWarmup:
    """Has the engine compute the prompt prefixes of the personas in use while it is idle."""

    store: Store
    personas: PersonaRegistry
    served_versions: ServedVersions
    engine: Engine

    def start(self, client: commands.Bot) -> None:
        """Prepare the channels used last now, and each persona again when its live version
        changes.
        """
        present = {guild.id for guild in client.guilds}
        latest = self.store.channels.lately_used(MAX_PREPARED_CHANNELS)
        # Several channels may have the same persona; its prefix is the same.
        residents = self.store.channels.residents(latest)
        used = [(use.guild_id, each) for use in latest for each in residents[use.channel_id]]
        for guild_id, persona_id in dict.fromkeys(used):
            if guild_id in present:
                self._prepare(guild_id, persona_id)
        client.add_listener(self._prepare_changed, "on_version_changed")

    async def _prepare_changed(self, guild_id: int | None, persona_id: str) -> None:
        self._prepare(guild_id or 0, persona_id)

    def _prepare(self, guild_id: int, persona_id: str) -> None:
        if persona := self.personas.get(persona_id, guild_id):
            adapter = self.served_versions.speaking_adapter(persona_id, guild_id)
            self.engine.prepare(persona, adapter)
