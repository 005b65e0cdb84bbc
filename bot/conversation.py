"""From a channel to a request: its persona, its recent turns (our own copies), matching lore, the live adapter."""

from __future__ import annotations

import time
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

    def speaking(self, persona_id: str) -> str | None:
        """The version that speaks now: the live one, unless it was made for another base model."""
        live = self.store.versions.live(persona_id)
        return None if self.left_behind.model_of(persona_id, live) else live

    def adapter(self, persona_id: str, version: str) -> AdapterRef:
        """A version of a persona's adapter."""
        return adapter_ref(self.home, persona_id, version)

    def request(self, persona: Persona, place: Place, trigger_seq: int, event_id: int) -> ChatRequest:
        """What to ask the engine so that the persona answers the stored message `trigger_seq`, in reply to an event."""
        history = self.store.messages.recent(place.channel_id, until_seq=trigger_seq)
        version, heard = self._chosen(persona.id, event_id)
        turns = tuple(self._turn(message, persona) for message in _since_it_speaks(history, persona, heard))
        return ChatRequest(
            persona=persona,
            turns=turns,
            lore=tuple(self.lore.search(persona.id, turns[-1].text, guild_id=place.guild_id)),
            adapter=self.adapter(persona.id, version) if version else None,
            sampling=replace(self.sampling, stop=others_begin(turns)),
            guild_id=place.guild_id or place.channel_id,  # a talk in direct messages stands for itself
        )

    def _chosen(self, persona_id: str, event_id: int) -> tuple[str | None, set[str | None]]:
        """The version that makes a reply, and the versions whose words it is shown.

        Where two versions take turns by chance both are shown the words of both: the talk goes on, and neither has less
        of it to go by than the other.
        """
        live = self.speaking(persona_id)
        rollout = self.store.rollouts.of_reply(event_id, time.time())
        if rollout is None or rollout.is_promoted or self.left_behind.model_of(persona_id, rollout.version):
            return live, {live}
        version = rollout.version if rollout.draws(event_id) else live
        return version, {live, rollout.version} if rollout.is_drawn else {version}

    def _turn(self, message: Message, persona: Persona) -> Turn:
        return Turn(message.author_name, message.text, by_persona=message.persona_id == persona.id)


def _since_it_speaks(history: list[Message], persona: Persona, heard: set[str | None]) -> list[Message]:
    """The history after the last words of any other version: shown those, a new one would go on in the old voice."""
    others = [at for at, m in enumerate(history) if m.persona_id == persona.id and m.adapter_version not in heard]
    return history[others[-1] + 1 :] if others else history


def others_begin(turns: tuple[Turn, ...]) -> tuple[str, ...]:
    """Where a reply ends because it would go on to speak for somebody else."""
    return tuple(dict.fromkeys(f"\n{turn.name}:" for turn in turns if not turn.by_persona))
