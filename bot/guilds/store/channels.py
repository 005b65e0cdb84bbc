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
    """A channel with a persona. `set_at` in seconds since 1970.

    It may have further personas (`Channels.further`), which answer where they are called.
    """

    guild_id: int
    channel_id: int
    persona_id: str
    answers: AnswerMode
    set_by: int
    set_at: float


class Channels(Table):
    """The personas of the channels. A thread without its own inherits its parent's."""

    def assign(self, channel: Channel, further: Sequence[str] = ()) -> None:
        """Assign a persona to a channel, with further ones, replacing those before."""
        place = {"guild_id": channel.guild_id, "channel_id": channel.channel_id}
        with self._db.atomic():
            self._db.insert("channels", vars(channel), replace=True)
            self._clear_further(channel.guild_id, channel.channel_id)
            for position, persona_id in enumerate(further):
                row = {**place, "persona_id": persona_id, "position": position}
                self._db.insert("channel_personas", row)

    def further(self, channel: Channel) -> list[str]:
        """List the ids of a channel's further personas, in their order."""
        sql = """select persona_id from channel_personas where guild_id = :guild
            and channel_id = :channel order by position"""
        return self._db.column(str, sql, guild=channel.guild_id, channel=channel.channel_id)

    def _clear_further(self, guild_id: int, channel_id: int) -> None:
        sql = "delete from channel_personas where guild_id = :guild and channel_id = :channel"
        self._db.write(sql, guild=guild_id, channel=channel_id)

    def clear(self, guild_id: int, channel_id: int) -> bool:
        """Remove a channel's persona. False when it had none."""
        self._clear_further(guild_id, channel_id)
        sql = "delete from channels where guild_id = :guild and channel_id = :channel"
        return self._db.write(sql, guild=guild_id, channel=channel_id) > 0

    def get(self, guild_id: int, channel_id: int, parent_id: int | None = None) -> Channel | None:
        """Return the channel's own persona or, for a thread with a `parent_id`, the parent's."""
        sql = """select * from channels where guild_id = :guild and channel_id in (:channel, :parent)
            order by channel_id = :channel desc limit 1"""
        return self._db.one(Channel, sql, guild=guild_id, channel=channel_id, parent=parent_id)

    def of_guild(self, guild_id: int) -> list[Channel]:
        """List the channels of a guild that have their own persona, oldest assignment first."""
        sql = "select * from channels where guild_id = :guild order by set_at, channel_id"
        return self._db.all(Channel, sql, guild=guild_id)

    def by_guild(self) -> dict[int, list[int]]:
        """Return the ids of the channels with a persona, by guild."""
        channel_ids: dict[int, list[int]] = {}
        for row in self._db.read(
            "select guild_id, channel_id from channels order by set_at, channel_id"
        ):
            channel_ids.setdefault(row["guild_id"], []).append(row["channel_id"])
        return channel_ids

    def lately_used(self, limit: int) -> list[Channel]:
        """List the channels with a persona in which messages came last; those without any at the
        end.
        """
        columns = ", ".join(f"channels.{name}" for name in Channel.__dataclass_fields__)
        sql = f"""select {columns} from channels order by (select at from messages
            where messages.channel_id = channels.channel_id order by ordinal desc limit 1) desc, set_at desc
            limit :limit"""
        return self._db.all(Channel, sql, limit=limit)

    def where_live(self, persona_ids: Collection[str]) -> list[tuple[str, Channel]]:
        """List the channels of all guilds that have one of these personas, as their first or as a
        further one, each with that persona, by guild, oldest assignment first.
        """
        columns = ", ".join(f"channels.{name}" for name in Channel.__dataclass_fields__)
        among = "in (select value from json_each(:ids))"
        sql = f"""select persona_id as resident, {columns} from channels where persona_id {among}
            union all select channel_personas.persona_id, {columns} from channel_personas
            join channels using (guild_id, channel_id) where channel_personas.persona_id {among}
            order by guild_id, set_at, channel_id"""
        rows = self._db.read(sql, ids=json.dumps(list(persona_ids)))
        return [(row.pop("resident"), Channel(**row)) for row in rows]

    def residents(self, channels: Collection[Channel]) -> dict[int, list[str]]:
        """Return the ids of the personas of these channels by channel, the first one's first."""
        sql = """select channel_id, persona_id from channel_personas
            where channel_id in (select value from json_each(:ids)) order by channel_id, position"""
        residents = {channel.channel_id: [channel.persona_id] for channel in channels}
        for row in self._db.read(sql, ids=json.dumps(list(residents))):
            residents[row["channel_id"]].append(row["persona_id"])
        return residents
