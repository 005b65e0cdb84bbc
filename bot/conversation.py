"""From a channel to a request: its persona, its recent turns (our own copies), matching lore, the live adapter."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from bot.personas import Personas
from bot.place import Place
from bot.served import LeftBehind
from bot.store import Message, Store
from personas.adapters import adapter_ref
from personas.contracts import AdapterRef, ChatRequest, Persona, Sampling, Turn
from personas.lore import LoreIndex


@dataclass(frozen=True)
class Conversations:
    """Makes `ChatRequest`s. `home` is UNDERSTUDY_HOME, where the adapters lie; those `left_behind` stay silent."""

    store: Store
    personas: Personas
    lore: LoreIndex
    sampling: Sampling
    home: Path
    left_behind: LeftBehind = field(default_factory=LeftBehind)

    def persona_in(self, place: Place) -> Persona | None:
        """The persona of a channel or, for a thread without its own, of its parent."""
        channel = self.store.channels.get(place.guild_id, place.channel_id, place.parent_id)
        return self.personas.get(channel.persona_id, place.guild_id) if channel else None

    def live_adapter(self, persona_id: str) -> AdapterRef | None:
        """The adapter that answers now; None for the base model."""
        version = self.speaking(persona_id)
        return self.adapter(persona_id, version) if version else None

    def speaking(self, persona_id: str) -> str | None:
        """The version that speaks now: the live one, unless it was made for another base model."""
        live = self.store.versions.live(persona_id)
        return None if self.left_behind.model_of(persona_id, live) else live

    def adapter(self, persona_id: str, version: str) -> AdapterRef:
        """A version of a persona's adapter."""
        return adapter_ref(self.home, persona_id, version)

    def request(self, persona: Persona, place: Place, trigger_seq: int) -> ChatRequest:
        """What to ask the engine so that the persona answers the stored message `trigger_seq`."""
        history = self.store.messages.recent(place.channel_id, until_seq=trigger_seq)
        speaking = self.speaking(persona.id)
        turns = tuple(self._turn(message, persona) for message in _since_it_speaks(history, persona, speaking))
        return ChatRequest(
            persona=persona,
            turns=turns,
            lore=tuple(self.lore.search(persona.id, turns[-1].text, guild_id=place.guild_id)),
            adapter=self.live_adapter(persona.id),
            sampling=replace(self.sampling, stop=_others_begin(turns)),
            guild_id=place.guild_id or place.channel_id,  # a talk in direct messages stands for itself
        )

    def _turn(self, message: Message, persona: Persona) -> Turn:
        return Turn(message.author_name, message.text, by_persona=message.persona_id == persona.id)


def _since_it_speaks(history: list[Message], persona: Persona, version: str | None) -> list[Message]:
    """The history after the last words of another version: shown those, a new one would go on in the old voice."""
    others = [at for at, m in enumerate(history) if m.persona_id == persona.id and m.adapter_version != version]
    return history[others[-1] + 1 :] if others else history


def _others_begin(turns: tuple[Turn, ...]) -> tuple[str, ...]:
    """Where a reply ends because it would go on to speak for somebody else."""
    return tuple(dict.fromkeys(f"\n{turn.name}:" for turn in turns if not turn.by_persona))
