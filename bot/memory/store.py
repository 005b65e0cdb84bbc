"""Memories: texts that members asked a persona to keep."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bot.platform.db.database import DatabaseConnection, Table
from bot.platform.db.gone import Gone


@dataclass(frozen=True)
class Memory:
    """A text that a member asked a persona to keep in a guild (0: direct messages), at a time in
    seconds since 1970.

    `by_persona`: the persona said it to them. `message_id` is the message that it is a copy of,
    None once it is not; `channel_id` is that message's channel.
    """

    guild_id: int
    persona_id: str
    user_id: int
    text: str
    by_persona: bool
    message_id: int | None
    at: float
    seq: int = 0
    channel_id: int | None = None


class Memories(Table):
    """The memories that were not forgotten, oldest first."""

    def add(self, memory: Memory) -> int:
        """Store a memory and return its number."""
        row = {**vars(memory)}
        del row["seq"]  # the database numbers it
        return self._db.insert("memories", row)

    def get(self, seq: int, user_id: int) -> Memory | None:
        """Return the memory of a member with this number; None where there is none, or it is
        another member's.
        """
        sql = "select * from memories where seq = :seq and user_id = :user"
        return self._db.one(_memory, sql, seq=seq, user=user_id)

    def of_member(self, user_id: int, guild_id: int, persona_id: str | None = None) -> list[Memory]:
        """List what a member asked a persona to keep in a guild, or with None all personas."""
        sql = """select * from memories where user_id = :user and guild_id = :guild
            and persona_id = coalesce(:persona, persona_id) order by seq"""
        return self._db.all(_memory, sql, user=user_id, guild=guild_id, persona=persona_id)

    def count(self, persona_id: str) -> int:
        """Return how many memories of members a persona has."""
        sql = "select count(*) from memories where persona_id = :persona"
        return self._db.value(int, sql, persona=persona_id) or 0

    def vectors(self, seqs: Iterable[int], encoder: str) -> dict[int, bytes]:
        """Return the encoder's vectors of memories by `seq`; some may have none."""
        sql = """select seq, vectors from memory_vectors
            where encoder = :encoder and seq in (select value from json_each(:seqs))"""
        rows = self._db.read(sql, encoder=encoder, seqs=json.dumps(list(seqs)))
        return {row["seq"]: row["vectors"] for row in rows}

    def store_vectors(self, encoder: str, vectors: Mapping[tuple[int, str], bytes]) -> None:
        """Store vectors of memories by `seq` and text, but for memories that were forgotten or
        edited meanwhile.
        """
        self._store_vectors(vectors, encoder, "memory_vectors", of="memories")

    def edit(self, seq: int, text: str) -> None:
        """Replace a memory by what the member has written; it is no copy of a message any more."""
        sql = "update memories set text = :text, by_persona = 0, message_id = null where seq = :seq"
        self._db.write(sql, seq=seq, text=text)

    def has_copies(self, message_id: int) -> bool:
        """Report whether a member had a message kept as a memory."""
        sql = "select 1 from memories where message_id = :id"
        return self._db.first(sql, id=message_id) is not None

    def edit_copies(self, message_id: int, text: str) -> None:
        """Replace the text of memories of a message that was edited."""
        self._db.write(
            "update memories set text = :text where message_id = :id", id=message_id, text=text
        )

    def forget_copies(self, message_id: int) -> None:
        """Delete the memories of a message."""
        with self._db.atomic():
            forget_memories(self._db, "message_id = :id", id=message_id)

    def forget(self, seqs: Iterable[int]) -> None:
        """Delete memories."""
        with self._db.atomic():
            for seq in seqs:
                forget_memories(self._db, "seq = :seq", seq=seq)


def _memory(by_persona: int, **columns: Any) -> Memory:
    return Memory(by_persona=bool(by_persona), **columns)


def forget_memories(database: DatabaseConnection, condition: str, **values: object) -> None:
    """Delete the memories of a condition in a transaction, so that no backup restores them."""
    # The deletion is recorded, as a backup from before has the memory.
    which = f"from memories where {condition}"
    Gone(database, "memory").record_rows("seq", which, **values)
    database.write(f"delete {which}", **values)
