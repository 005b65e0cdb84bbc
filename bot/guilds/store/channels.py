"""Personas of channels."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from bot.platform.db.database import Table

AnswerMode = Literal["mentions", "everything"]
"""The messages that a persona answers in a channel: those that mention the bot, or all."""
MAX_CHANNEL_PERSONAS = 5
"""Personas of a channel, the one that answers what names none of them among them."""


@dataclass(frozen=True)
class Channel:
    """A channel with personas, of which `persona_id` is the first. `set_at` in seconds since 1970.

    Further ones (`Channels.personas`) answer where they are called.
    """

    guild_id: int
    channel_id: int
    persona_id: str
    answers: AnswerMode
    set_by: int
    set_at: float


CHANNEL_FIELDS = tuple(Channel.__dataclass_fields__)
CHANNEL_COLUMNS = ", ".join(CHANNEL_FIELDS)


class Channels(Table):
    """The personas of the channels. A thread without its own inherits its parent's."""

    def assign(self, channel: Channel, further: Sequence[str] = ()) -> None:
        """Assign a persona to a channel, with further ones, replacing those before."""
        with self._db.atomic():
            self.clear(channel.guild_id, channel.channel_id)
            for position, persona_id in enumerate((channel.persona_id, *further)):
                row = {**vars(channel), "persona_id": persona_id, "position": position}
                self._db.insert("channel_personas", row)

    def personas(self, guild_id: int, channel_id: int) -> list[str]:
        """List the ids of a channel's own personas, in their order."""
        sql = """select persona_id from channel_personas where guild_id = :guild
            and channel_id = :channel order by position"""
        return self._db.column(str, sql, guild=guild_id, channel=channel_id)

    def clear(self, guild_id: int, channel_id: int) -> bool:
        """Remove a channel's personas. False when it had none."""
        sql = "delete from channel_personas where guild_id = :guild and channel_id = :channel"
        return self._db.write(sql, guild=guild_id, channel=channel_id) > 0

    def remove_persona(self, persona_id: str) -> None:
        """Remove a persona from all channels; those that follow it move up."""
        with self._db.atomic():
            sql = """update channel_personas as later set position = position - 1
                where position > (select position from channel_personas as removed
                where removed.guild_id = later.guild_id and removed.channel_id = later.channel_id
                and removed.persona_id = :persona)"""
            self._db.write(sql, persona=persona_id)
            sql = "delete from channel_personas where persona_id = :persona"
            self._db.write(sql, persona=persona_id)

    def get(self, guild_id: int, channel_id: int, parent_id: int | None = None) -> Channel | None:
        """Return the channel with its own persona or, for a thread with a `parent_id`, the
        parent's.
        """
        sql = f"""select {CHANNEL_COLUMNS} from channel_personas where guild_id = :guild
            and channel_id in (:channel, :parent) and position = 0
            order by channel_id = :channel desc limit 1"""
        return self._db.one(Channel, sql, guild=guild_id, channel=channel_id, parent=parent_id)

    def of_guild(self, guild_id: int) -> list[Channel]:
        """List the channels of a guild that have their own persona, oldest assignment first."""
        sql = f"""select {CHANNEL_COLUMNS} from channel_personas where guild_id = :guild
            and position = 0 order by set_at, channel_id"""
        return self._db.all(Channel, sql, guild=guild_id)

    def by_guild(self) -> dict[int, list[int]]:
        """Return the ids of the channels with a persona, by guild."""
        channel_ids: dict[int, list[int]] = {}
        sql = """select guild_id, channel_id from channel_personas where position = 0
            order by set_at, channel_id"""
        for row in self._db.read(sql):
            channel_ids.setdefault(row["guild_id"], []).append(row["channel_id"])
        return channel_ids

    def lately_used(self, limit: int) -> list[Channel]:
        """List the channels with a persona in which messages came last; those without any at the
        end.
        """
        sql = f"""select {CHANNEL_COLUMNS} from channel_personas where position = 0
            order by (select at from messages where messages.channel_id = channel_personas.channel_id
            order by ordinal desc limit 1) desc, set_at desc limit :limit"""
        return self._db.all(Channel, sql, limit=limit)

    def where_live(self, persona_ids: Collection[str]) -> list[tuple[str, Channel]]:
        """List the channels of all guilds that have one of these personas, as their first or as a
        further one, each with that persona, by guild, oldest assignment first.
        """
        columns = ", ".join(f"first.{name}" for name in CHANNEL_FIELDS)
        sql = f"""select resident.persona_id as resident, {columns} from channel_personas as resident
            join channel_personas as first using (guild_id, channel_id)
            where resident.persona_id in (select value from json_each(:ids)) and first.position = 0
            order by guild_id, first.set_at, channel_id, resident.position"""
        rows = self._db.read(sql, ids=json.dumps(list(persona_ids)))
        return [(row.pop("resident"), Channel(**row)) for row in rows]

    def residents(self, channels: Collection[Channel]) -> dict[int, list[str]]:
        """Return the ids of the personas of these channels by channel, the first one's first."""
        sql = """select channel_id, persona_id from channel_personas where (guild_id, channel_id) in
            (select value ->> 0, value ->> 1 from json_each(:places)) order by position"""
        places = [(channel.guild_id, channel.channel_id) for channel in channels]
        residents: dict[int, list[str]] = {channel_id: [] for _, channel_id in places}
        for row in self._db.read(sql, places=json.dumps(places)):
            residents[row["channel_id"]].append(row["persona_id"])
        return residents
