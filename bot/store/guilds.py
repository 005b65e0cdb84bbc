"""Guilds that removed the bot, and the deletion of all data of a guild."""

from collections.abc import Collection
from dataclasses import dataclass

from bot.store.database import Table

SHARED_TABLES = ("replies", "channels", "mutes", "gifts", "taught", "comparisons")
GUILD_TABLES = (
    "messages", "rollouts", *SHARED_TABLES, "guild_feedback", "webhooks", "promoting", "departed_guilds",
)  # fmt: skip
PERSONA_TABLES = ("promotions", "rollouts", "withdrawn", "versions", "guild_feedback", *SHARED_TABLES)
"""Tables whose rows are deleted with a guild, and with its own personas. Jobs stay where versions of other personas
refer to them, without who requested them and where.
"""


@dataclass(frozen=True)
class DepartedGuild:
    """A guild that the bot has left, and when that was noticed (seconds since 1970)."""

    guild_id: int
    at: float


class Guilds(Table):
    """Guilds that the bot is in or has left, and the deletion of their data. Guild 0, direct messages, is none."""

    def record_present(self, guild_ids: Collection[int], application_id: int) -> None:
        """Record that this account of the bot is in these guilds; those that it had left count as rejoined."""
        with self._db.atomic():
            for guild_id in guild_ids:
                sql = """insert into guilds values (:guild, :account, null)
                    on conflict do update set application_id = excluded.application_id"""
                self._db.write(sql, guild=guild_id, account=application_id)
                self.record_returned(guild_id)

    def record_left(self, guild_id: int, at: float) -> None:
        """Record that the bot is no longer in a guild; the first time counts."""
        self._db.insert("departed_guilds", {"guild_id": guild_id, "at": at}, ignore=True)

    def record_returned(self, guild_id: int) -> None:
        """Record that the bot is in the guild again."""
        self._db.write("delete from departed_guilds where guild_id = :guild", guild=guild_id)

    def departed(self) -> list[DepartedGuild]:
        """List the guilds that the bot has left and whose data are not deleted yet, earliest first."""
        return self._db.all(DepartedGuild, "select guild_id, at from departed_guilds order by at")

    def left_before(self, at: float) -> list[int]:
        """List the guilds that the bot left before a time."""
        return [departed.guild_id for departed in self.departed() if departed.at < at]

    def is_auto_promotion_enabled(self, guild_id: int) -> bool:
        """Return whether versions that pass the gate are promoted automatically in a guild."""
        return self._db.first("select 1 from promoting where guild_id = :guild", guild=guild_id) is not None

    def set_auto_promotion(self, guild_id: int, is_automatic: bool) -> None:
        """Enable or disable automatic promotion in a guild."""
        if is_automatic:
            self._db.insert("promoting", {"guild_id": guild_id}, ignore=True)
        else:
            self._db.write("delete from promoting where guild_id = :guild", guild=guild_id)

    def known(self) -> set[int]:
        """Return all guilds with any stored data."""
        kept = " union ".join(f"select guild_id from {table}" for table in GUILD_TABLES)
        return {row["guild_id"] for row in self._db.read(f"{kept} union select guild_id from jobs")} - {0}

    def guilds_of_other_account(self, application_id: int) -> set[int]:
        """Return the guilds that another account of the bot was in last: this one was not removed from them."""
        rows = self._db.read("select guild_id from guilds where application_id <> :account", account=application_id)
        return {row["guild_id"] for row in rows}

    def deleted(self) -> dict[int, float]:
        """Return the guilds whose data were deleted, and when last (seconds since 1970); some may have come back."""
        rows = self._db.read("select guild_id, deleted_at from guilds where deleted_at is not null")
        return {row["guild_id"]: row["deleted_at"] for row in rows}

    def record_deletion(self, guild_id: int, at: float) -> None:
        """Record that all data of a guild are deleted from the disk, so that a backup does not restore them."""
        sql = """insert into guilds values (:guild, null, :at)
            on conflict do update set deleted_at = excluded.deleted_at"""
        self._db.write(sql, guild=guild_id, at=at)

    def delete(self, guild_id: int, personas: Collection[str] = ()) -> None:
        """Delete all data of a guild and of its own personas."""
        with self._db.atomic(shared=True):
            sql = """delete from fresh_starts where channel_id in
                (select channel_id from messages where guild_id = :guild)"""
            self._db.write(sql, guild=guild_id)
            for table in GUILD_TABLES:
                self._db.write(f"delete from {table} where guild_id = :guild", guild=guild_id)
            self._db.write("update promotions set guild_id = 0 where guild_id = :guild", guild=guild_id)
            for persona_id in personas:
                self._delete_persona(persona_id)
            sql = "delete from jobs where guild_id = :guild and job_id not in (select job_id from versions)"
            self._db.write(sql, guild=guild_id)
            sql = """update jobs set guild_id = 0, channel_id = 0, requested_by = 0, progress_message_id = null
                where guild_id = :guild"""
            self._db.write(sql, guild=guild_id)

    def _delete_persona(self, persona_id: str) -> None:
        values = {"persona": persona_id}
        self._db.write("update promotions set previous = null where persona_id = :persona", **values)
        for table in PERSONA_TABLES:
            self._db.write(f"delete from {table} where persona_id = :persona", **values)
        self._db.write("delete from version_numbers where name = :persona", **values)
        self._db.write("delete from jobs where persona = :persona", **values)
