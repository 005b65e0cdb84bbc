"""Guilds that the bot is in or has left, their settings, and the deletion of all data of one."""

from collections.abc import Collection
from dataclasses import dataclass

from bot.guilds.store.channels import Channel, Channels
from bot.memory.store import forget_memories
from bot.platform.db.database import DatabaseConnection, Table
from bot.platform.db.gone import Gone
from personas.card.spec_card import JsonObject

GUILD_PERSONA_TABLES = (
    "replies", "channel_personas", "mutes", "gifts", "taught", "comparisons", "memories",
    "settings", "training_schedules", "reports", "bot_faces",
)  # fmt: skip
"""Tables whose rows name a guild and a persona."""
GUILD_TABLES = (
    "messages", "quoted_messages", *GUILD_PERSONA_TABLES, "places",
    "scheduled_lines", "member_greetings", "talks", "blocks",
    "action_roles", "greeted_members", "reply_attempts",
)  # fmt: skip
"""Tables whose rows are deleted with a guild. Jobs stay where versions of other personas refer to
them, without who requested them and where.
"""
LONG_TABLES = ("messages", "replies", "reply_attempts")
"""Tables with many rows of each guild, and an index that begins with the guild."""
PERSONA_TABLES = (
    "promotions",
    "withdrawn",
    "versions",
    *GUILD_PERSONA_TABLES,
)
"""Tables whose rows are deleted with the personas of a guild."""
PERSONA_SETTINGS = ("training_schedules", "settings")
"""Tables of what moderators set of a persona, beside its channels."""
ALL_GUILDS = 0
"""Stands for all guilds without a live version of their own."""


@dataclass(frozen=True)
class DepartedGuild:
    """A guild that the bot has left, and when that was noticed (seconds since 1970)."""

    guild_id: int
    at: float


class Guilds(Table):
    """Guilds that the bot is in or has left, and the deletion of their data. Guild 0, direct
    messages, is none.
    """

    def __init__(self, connection: DatabaseConnection) -> None:
        super().__init__(connection)
        self._removed_personas = Gone(connection, "persona")
        self._channels = Channels(connection)

    def record_present(self, guild_ids: Collection[int], application_id: int) -> None:
        """Record that this account of the bot is in these guilds; those that it had left count as
        rejoined.
        """
        with self._db.atomic():
            for guild_id in guild_ids:
                sql = """insert into guilds values (:guild, :account, null, null)
                    on conflict do update set application_id = excluded.application_id"""
                self._db.write(sql, guild=guild_id, account=application_id)
                self.record_returned(guild_id)

    def record_left(self, guild_id: int, at: float) -> None:
        """Record that the bot is no longer in a guild; the first time counts."""
        sql = """insert into guilds values (:guild, null, :at, null)
            on conflict do update set left_at = coalesce(left_at, excluded.left_at)"""
        self._db.write(sql, guild=guild_id, at=at)

    def record_returned(self, guild_id: int) -> None:
        """Record that the bot is in the guild again."""
        self._db.write("update guilds set left_at = null where guild_id = :guild", guild=guild_id)

    def departed(self) -> list[DepartedGuild]:
        """List the guilds that the bot has left and whose data are not deleted yet, earliest
        first.
        """
        sql = """select guild_id, left_at as at from guilds where left_at is not null
            order by left_at"""
        return self._db.all(DepartedGuild, sql)

    def left_before(self, at: float) -> list[int]:
        """List the guilds that the bot left before a time."""
        return [departed.guild_id for departed in self.departed() if departed.at < at]

    def known(self) -> set[int]:
        """Return all guilds with any stored data."""
        tables = (*GUILD_TABLES, "jobs")
        short_tables = [table for table in tables if table not in LONG_TABLES]
        sql = " union ".join(f"select guild_id from {table}" for table in short_tables)
        sql += " union select guild_id from guilds where left_at is not null"
        guild_ids = set(self._db.column(int, sql))
        for table in LONG_TABLES:
            # From one guild to the next in the index: `distinct` would read every row.
            sql = f"""with recursive known(guild_id) as (select min(guild_id) from {table} union all
                select (select min(guild_id) from {table} where guild_id > known.guild_id) from known
                where known.guild_id is not null) select guild_id from known"""
            guild_ids.update(self._db.column(int, sql))
        return guild_ids - {0}

    def guilds_of_other_account(self, application_id: int) -> set[int]:
        """Return the guilds that another account of the bot was in last: this one was not removed
        from them.
        """
        rows = self._db.read(
            "select guild_id from guilds where application_id <> :account", account=application_id
        )
        return {row["guild_id"] for row in rows}

    def deleted(self) -> dict[int, float]:
        """Return the guilds whose data were deleted, and when last (seconds since 1970); some may
        have come back.
        """
        rows = self._db.read("select guild_id, deleted_at from guilds where deleted_at is not null")
        return {row["guild_id"]: row["deleted_at"] for row in rows}

    def record_deletion(self, guild_id: int, at: float) -> None:
        """Record that all data of a guild are deleted from the disk, so that a backup does not
        restore them.
        """
        sql = """insert into guilds values (:guild, null, null, :at)
            on conflict do update set deleted_at = excluded.deleted_at"""
        self._db.write(sql, guild=guild_id, at=at)

    def delete(self, guild_id: int, personas: Collection[str] = ()) -> None:
        """Delete all data of a guild and of its own personas."""
        with self._db.atomic():
            for table in GUILD_TABLES:
                self._db.write(f"delete from {table} where guild_id = :guild", guild=guild_id)
            self.record_returned(guild_id)
            self._db.write(
                "update promotions set previous = null where for_guild = :guild", guild=guild_id
            )
            self._db.write("delete from promotions where for_guild = :guild", guild=guild_id)
            self._db.write(
                "update promotions set guild_id = 0 where guild_id = :guild", guild=guild_id
            )
            for persona_id in personas:
                self._delete_persona(persona_id)
            sql = (
                "delete from jobs where guild_id = :guild and job_id not in (select job_id from "
                "versions)"
            )
            self._db.write(sql, guild=guild_id)
            sql = """update jobs set guild_id = 0, channel_id = 0, requested_by = 0, progress_message_id = null
                where guild_id = :guild"""
            self._db.write(sql, guild=guild_id)

    def delete_talk(self, guild_id: int, most: int) -> int:
        """Delete at most so many messages and replies of a guild, whose other data `delete` deletes
        later; returns their number.
        """
        deleted = 0
        with self._db.atomic():
            for table, key in (("replies", "event_id"), ("messages", "seq")):
                which = f"select {key} from {table} where guild_id = :guild limit :most"
                sql = f"delete from {table} where {key} in ({which})"
                deleted += self._db.write(sql, guild=guild_id, most=most)
        return deleted

    def record_persona_removal(self, persona_id: str, at: float) -> None:
        """Record that a persona is removed: what it remembers goes later."""
        with self._db.atomic():
            self._removed_personas.delete(persona_id)  # the last time counts
            self._removed_personas.record(persona_id, at)

    def personas_removed_before(self, at: float) -> list[str]:
        """List the personas that were removed before a time."""
        removed = self._removed_personas.times()
        return [persona_id for persona_id, removed_at in removed.items() if removed_at < at]

    def forget_persona_memories(self, persona_id: str) -> None:
        """Delete what a persona that cannot be brought back remembers of members."""
        with self._db.atomic():
            forget_memories(self._db, "persona_id = :persona", persona=persona_id)

    def persona_settings(self, persona_id: str) -> JsonObject:
        """Return the channels and settings of a persona as JSON, without who has set them."""
        channels = []
        for _, channel in self._channels.where_live([persona_id]):
            place = {"guild_id": channel.guild_id, "channel_id": channel.channel_id}
            personas = self._channels.personas(**place)
            channels.append({**place, "answers": channel.answers, "personas": personas})
        settings: JsonObject = {"channels": channels}
        for table in PERSONA_SETTINGS:
            rows = self._db.read(
                f"select * from {table} where persona_id = :persona", persona=persona_id
            )
            settings[table] = [
                {name: value for name, value in dict(row).items() if name not in ("seq", "set_by")}
                for row in rows
            ]
        return settings

    def restore_persona_settings(
        self, persona_id: str, settings: JsonObject, *, set_by: int, at: float
    ) -> list[int]:
        """Restore the settings of a persona that is brought back, but for those that were made anew
        since. Returns the channels whose personas have changed.
        """
        changed = []
        with self._db.atomic():
            self._removed_personas.delete(persona_id)
            for channel in settings["channels"]:
                if not self._restore_channel(persona_id, channel, set_by=set_by, at=at):
                    changed.append(channel["channel_id"])
            for row in settings["training_schedules"]:
                self._add_missing("training_schedules", {**row, "set_by": set_by})
            for row in settings["settings"]:
                self._add_missing("settings", row)
        return changed

    def _restore_channel(
        self, persona_id: str, channel: JsonObject, *, set_by: int, at: float
    ) -> bool:
        """Restore the personas of a channel. False where they are not those that stayed."""
        place = {"guild_id": channel["guild_id"], "channel_id": channel["channel_id"]}
        stayed = [other for other in channel["personas"] if other != persona_id]
        if self._channels.personas(**place) != stayed:
            return False
        first, *further = channel["personas"]
        restored = Channel(
            **place, persona_id=first, answers=channel["answers"], set_by=set_by, set_at=at
        )
        self._channels.assign(restored, further)
        return True

    def _add_missing(self, table: str, row: JsonObject) -> None:
        """Insert a row, unless there is one with its key by now."""
        columns = ", ".join(row)
        values = ", ".join(f":{name}" for name in row)
        self._db.write(f"insert or ignore into {table} ({columns}) values ({values})", **row)

    def forget_persona_settings(self, persona_id: str) -> None:
        """Delete the channels and settings of a removed persona: nobody could look at them."""
        with self._db.atomic():
            self._channels.remove_persona(persona_id)
            for table in PERSONA_SETTINGS:
                self._db.write(
                    f"delete from {table} where persona_id = :persona", persona=persona_id
                )

    def _delete_persona(self, persona_id: str) -> None:
        values = {"persona": persona_id}
        self._db.write(
            "update promotions set previous = null where persona_id = :persona", **values
        )
        for table in PERSONA_TABLES:
            self._db.write(f"delete from {table} where persona_id = :persona", **values)
        self._db.write("delete from version_numbers where name = :persona", **values)
        self._db.write("delete from jobs where persona = :persona", **values)
