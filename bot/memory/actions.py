"""Keeps, changes and forgets what a member asked a persona to remember, with the limits."""

import time
from dataclasses import dataclass

from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy
from bot.platform.messages import markdown_name
from bot.store import Memory, Store
from personas.schemas.chat import Persona

MAX_MEMORIES = 24
"""Memories of a member with one persona of a server, one less than a Discord menu can show."""


@dataclass(frozen=True)
class MemberMemories:
    """The memories of a member in a guild (0: direct messages); nobody else's are reached."""

    store: Store
    user_id: int
    guild_id: int

    def of_persona(self, persona: Persona | None) -> list[Memory]:
        """List what the member asked a persona, or (None) all, to keep."""
        persona_id = persona.id if persona else None
        return self.store.memories.of_member(self.user_id, self.guild_id, persona_id)

    def require(self, seq: str, persona: Persona | None = None) -> Memory:
        """Find a memory by its number, the persona's if one is named. Raises `RefusedError`."""
        number = 0
        if seq.isascii() and seq.isdecimal() and len(seq) < 19:
            number = int(seq)
        memory = self.store.memories.get(number, self.user_id)
        if memory is None or memory.guild_id != self.guild_id:
            raise RefusedError(
                gettext_lazy("There is no memory {number} of yours here.", number=seq),
                gettext_lazy("`/memory show` lists them."),
            )
        if persona and memory.persona_id != persona.id:
            raise RefusedError(
                gettext_lazy(
                    "Memory {number} is not {persona}'s.",
                    number=seq,
                    persona=markdown_name(persona),
                ),
                gettext_lazy("Leave out `persona`, or name a memory of theirs."),
            )
        return memory

    def add(
        self,
        persona: Persona,
        text: str,
        *,
        by_persona: bool,
        message_id: int | None,
        channel_id: int | None,
    ) -> int:
        """Store a memory and return its number; `message_id` is the message that it is a copy of.

        Raises `RefusedError` for a text that is known, and for one memory too many.
        """
        known = self.of_persona(persona)
        if any(memory.text.casefold() == text.casefold() for memory in known):
            raise RefusedError(
                gettext_lazy("{persona} remembers that already.", persona=markdown_name(persona)),
                gettext_lazy("`/memory show` lists it."),
            )
        if len(known) >= MAX_MEMORIES:
            what = gettext_lazy(
                "{persona} remembers {count} things for you here, as many as it can.",
                persona=markdown_name(persona),
                count=MAX_MEMORIES,
            )
            raise RefusedError(what, gettext_lazy("Let it forget one: `/memory forget`."))
        memory = Memory(
            guild_id=self.guild_id,
            persona_id=persona.id,
            user_id=self.user_id,
            text=text,
            by_persona=by_persona,
            message_id=message_id,
            at=time.time(),
            channel_id=channel_id if message_id else None,
        )
        return self.store.memories.add(memory)

    def edit(self, memory: Memory, text: str) -> None:
        """Replace the text of a memory. Raises `RefusedError` for a text that is known."""
        known = self.store.memories.of_member(self.user_id, self.guild_id, memory.persona_id)
        for other in known:
            if other.text.casefold() == text.casefold() and other.seq != memory.seq:
                raise RefusedError(
                    gettext_lazy("The persona remembers that already."),
                    gettext_lazy("`/memory show` lists it."),
                )
        self.store.memories.edit(memory.seq, text)

    def forget(self, seq: str, persona: Persona | None = None) -> None:
        """Delete a memory. Raises `RefusedError` as `require` does."""
        self.store.memories.forget([self.require(seq, persona).seq])

    def forget_all(self, persona: Persona) -> int:
        """Delete all memories with a persona; returns their number. Raises `RefusedError` for none."""
        memories = self.of_persona(persona)
        if not memories:
            raise RefusedError(
                gettext_lazy(
                    "{persona} remembers nothing for you here.", persona=markdown_name(persona)
                ),
                gettext_lazy("`/remember` lets it keep something."),
            )
        self.store.memories.forget(memory.seq for memory in memories)
        return len(memories)
