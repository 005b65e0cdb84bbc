"""Guilds that removed the bot, and the deletion of all data of a guild."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from bot.store.database import DatabaseConnection

SHARED_TABLES = ("replies", "channels", "mutes", "gifts", "taught", "comparisons")
GUILD_TABLES = ("messages", "rollouts", *SHARED_TABLES, "webhooks", "promoting", "departed_guilds")
PERSONA_TABLES = ("promotions", "rollouts", "withdrawn", "versions", *SHARED_TABLES)
"""What is deleted with a server, and with its own personas. Of its jobs those stay that versions of other personas are
known by, without who asked and where."""


@dataclass(frozen=True)
class DepartedGuild:
    """A server that the bot has left, and when that was noticed (seconds since 1970)."""

    guild_id: int
    at: float


class Guilds:
    """Which servers are gone, and their end here. Guild 0, direct messages, is none."""

    def __init__(self, connection: DatabaseConnection) -> None:
        self._db = connection

    def present(self, guild_ids: Collection[int], application_id: int) -> None:
        """This account of the bot is in these servers now; those that it had left have come back."""
        with self._db.atomic():
            for guild_id in guild_ids:
                self._db.write(
                    """insert into guilds values (:guild, :account, null)
                    on conflict do update set application_id = excluded.application_id""",
                    {"guild": guild_id, "account": application_id},
                )
                self.returned(guild_id)

    def left(self, guild_id: int, at: float) -> None:
        """The bot is no longer in a server; the first time that it was noticed counts."""
        self._db.write("insert or ignore into departed_guilds values (:guild, :at)", {"guild": guild_id, "at": at})

    def returned(self, guild_id: int) -> None:
        """The bot is in the server again."""
        self._db.write("delete from departed_guilds where guild_id = :guild", {"guild": guild_id})

    def departed(self) -> list[DepartedGuild]:
        """The servers that the bot has left and of which something is kept still, first the one left first."""
        return [DepartedGuild(**row) for row in self._db.read("select guild_id, at from departed_guilds order by at")]

    def left_before(self, at: float) -> list[int]:
        """The servers that the bot left so long ago."""
        return [departed.guild_id for departed in self.departed() if departed.at < at]

    def is_auto_promotion_enabled(self, guild_id: int) -> bool:
        """Whether a version goes live there by itself when the gate would promote it."""
        found = self._db.first("select 1 from promoting where guild_id = :guild", {"guild": guild_id})
        return found is not None

    def set_auto_promotion(self, guild_id: int, is_automatic: bool) -> None:
        """Choose that, or that somebody is asked."""
        change = "insert or ignore into promoting values (:guild)"
        ask = "delete from promoting where guild_id = :guild"
        self._db.write(change if is_automatic else ask, {"guild": guild_id})

    def known(self) -> set[int]:
        """All servers of which anything is kept."""
        kept = " union ".join(f"select guild_id from {table}" for table in GUILD_TABLES)
        return {row["guild_id"] for row in self._db.read(f"{kept} union select guild_id from jobs")} - {0}

    def guilds_of_other_account(self, application_id: int) -> set[int]:
        """The servers that another account of the bot was in last: this one is not in them, and was not removed."""
        rows = self._db.read(
            "select guild_id from guilds where application_id <> :account", {"account": application_id}
        )
        return {row["guild_id"] for row in rows}

    def deleted(self) -> dict[int, float]:
        """The servers of which all was deleted, and when last (seconds since 1970); some have come back since."""
        rows = self._db.read("select guild_id, deleted_at from guilds where deleted_at is not null")
        return {row["guild_id"]: row["deleted_at"] for row in rows}

    def record_deletion(self, guild_id: int, at: float) -> None:
        """All of a server is deleted, from the disk too: a backup shall not bring it back."""
        self._db.write(
            """insert into guilds values (:guild, null, :at)
            on conflict do update set deleted_at = excluded.deleted_at""",
            {"guild": guild_id, "at": at},
        )

    def delete(self, guild_id: int, personas: Collection[str] = ()) -> None:
        """Delete all that is kept of a server, and of its own personas."""
        with self._db.atomic():
            self._db.write(
                """delete from fresh_starts where channel_id in
                (select channel_id from messages where guild_id = :guild)""",
                {"guild": guild_id},
            )
            for table in GUILD_TABLES:
                self._db.write(f"delete from {table} where guild_id = :guild", {"guild": guild_id})
            self._db.write("update promotions set guild_id = 0 where guild_id = :guild", {"guild": guild_id})
            for persona_id in personas:
                self._delete_persona(persona_id)
            self._db.write(
                "delete from jobs where guild_id = :guild and job_id not in (select job_id from versions)",
                {"guild": guild_id},
            )
            self._db.write(
                """update jobs set guild_id = 0, channel_id = 0, requested_by = 0, progress_message_id = null
                where guild_id = :guild""",
                {"guild": guild_id},
            )

    def _delete_persona(self, persona_id: str) -> None:
        values = {"persona": persona_id}
        self._db.write("update promotions set previous = null where persona_id = :persona", values)
        for table in PERSONA_TABLES:
            self._db.write(f"delete from {table} where persona_id = :persona", values)
        self._db.write("delete from version_numbers where name = :persona", values)
        self._db.write("delete from jobs where persona = :persona", values)
