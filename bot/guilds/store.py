"""Guilds that the bot is in or has left, the deletion of all data of one, and the settings of its
channels.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from bot.memory.store import forget_memories
from bot.platform.db.database import MAX_TIMESTAMP_S, Table

SHARED_TABLES = ("replies", "channels", "mutes", "gifts", "taught", "comparisons", "memories")
GUILD_TABLES = (
    "messages", "quoted_messages", "rollouts", *SHARED_TABLES, "guild_feedback", "webhooks", "threads", "promoting",
    "reply_candidates", "departed_guilds",
)  # fmt: skip
LONG_TABLES = ("messages", "replies")
"""Of them, those with many rows of each guild, and an index that begins with the guild."""
PERSONA_TABLES = (
    "promotions",
    "rollouts",
    "withdrawn",
    "versions",
    "guild_feedback",
    *SHARED_TABLES,
)
"""Tables whose rows are deleted with a guild, and with its own personas. Jobs stay where versions
of other personas refer to them, without who requested them and where.
"""
AnswerMode = Literal["mentions", "everything"]
"""The messages that a persona answers in a channel: those that mention the bot, or all."""
ALL_CHANNELS, ALL_PERSONAS = 0, ""
"""Stands for all channels of a guild, and for all personas."""
ALL_GUILDS = 0
"""Stands for all guilds without a live version of their own."""
BASE36_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def guild_suffix(guild_id: int) -> str:
    """Suffix of the ids of a guild's own personas; empty for guild 0, whose personas are shared."""
    digits = ""
    while guild_id:
        guild_id, digit = divmod(guild_id, len(BASE36_DIGITS))
        digits = BASE36_DIGITS[digit] + digits
    return digits and f"-{digits}"


@dataclass(frozen=True)
class DepartedGuild:
    """A guild that the bot has left, and when that was noticed (seconds since 1970)."""

    guild_id: int
    at: float


class Guilds(Table):
    """Guilds that the bot is in or has left, and the deletion of their data. Guild 0, direct
    messages, is none.
    """

    def record_present(self, guild_ids: Collection[int], application_id: int) -> None:
        """Record that this account of the bot is in these guilds; those that it had left count as
        rejoined.
        """
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
        """List the guilds that the bot has left and whose data are not deleted yet, earliest
        first.
        """
        return self._db.all(DepartedGuild, "select guild_id, at from departed_guilds order by at")

    def left_before(self, at: float) -> list[int]:
        """List the guilds that the bot left before a time."""
        return [departed.guild_id for departed in self.departed() if departed.at < at]

    def is_auto_promotion_enabled(self, guild_id: int) -> bool:
        """Return whether versions that pass the gate are promoted automatically in a guild."""
        return (
            self._db.first("select 1 from promoting where guild_id = :guild", guild=guild_id)
            is not None
        )

    def set_auto_promotion(self, guild_id: int, is_automatic: bool) -> None:
        """Enable or disable automatic promotion in a guild."""
        if is_automatic:
            self._db.insert("promoting", {"guild_id": guild_id}, ignore=True)
        else:
            self._db.write("delete from promoting where guild_id = :guild", guild=guild_id)

    def reply_candidates(self, guild_id: int) -> int | None:
        """Return among how many candidates a guild's replies begin; None where its moderators have
        not decided it.
        """
        return self._db.value(
            int, "select candidates from reply_candidates where guild_id = :guild", guild=guild_id
        )

    def clear_reply_candidates(self, guild_id: int) -> None:
        """Let a guild's replies begin among as many candidates as the operator has set."""
        self._db.write("delete from reply_candidates where guild_id = :guild", guild=guild_id)

    def set_reply_candidates(self, guild_id: int, candidates: int) -> None:
        """Set among how many candidates, 1 to 8, a guild's replies begin."""
        self._db.insert(
            "reply_candidates", {"guild_id": guild_id, "candidates": candidates}, replace=True
        )

    def known(self) -> set[int]:
        """Return all guilds with any stored data."""
        tables = (*GUILD_TABLES, "jobs")
        kept = " union ".join(
            f"select guild_id from {table}" for table in tables if table not in LONG_TABLES
        )
        found = {row["guild_id"] for row in self._db.read(kept)}
        for (
            table
        ) in LONG_TABLES:  # from one guild to the next in the index, however many rows each has
            sql = f"""with recursive known(guild_id) as (select min(guild_id) from {table} union all
                select (select min(guild_id) from {table} where guild_id > known.guild_id) from known
                where known.guild_id is not null) select guild_id from known"""
            found.update(self._db.column(int, sql))
        return found - {0}

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
        sql = """insert into guilds values (:guild, null, :at)
            on conflict do update set deleted_at = excluded.deleted_at"""
        self._db.write(sql, guild=guild_id, at=at)

    def delete(self, guild_id: int, personas: Collection[str] = ()) -> None:
        """Delete all data of a guild and of its own personas."""
        with self._db.atomic(shared=True):
            self.forget_new_conversations(guild_id)
            for table in GUILD_TABLES:
                self._db.write(f"delete from {table} where guild_id = :guild", guild=guild_id)
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

    def delete_messages(self, guild_id: int, most: int) -> int:
        """Delete at most so many messages of a guild, whose other data `delete` deletes later;
        returns their number.
        """
        sql = (
            "delete from messages where seq in (select seq from messages where guild_id = :guild "
            "limit :most)"
        )
        return self._db.write(sql, guild=guild_id, most=most)

    def forget_new_conversations(self, guild_id: int) -> None:
        """Forget where talks began anew, which is known by messages: before those are deleted one
        after another.
        """
        sql = """delete from fresh_starts where channel_id in
            (select channel_id from messages where guild_id = :guild)"""
        self._db.write(sql, guild=guild_id)

    def record_persona_removal(self, persona_id: str, at: float) -> None:
        """Record that a shared persona is removed; every process then calls
        `forget_removed_personas`.
        """
        self._db.insert("removed_personas", {"persona_id": persona_id, "at": at}, replace=True)

    def forget_removed_personas(self) -> None:
        """Delete what other processes, or this one before it was killed, have not deleted of
        removed personas.
        """
        for row in self._db.read("select persona_id, at from removed_personas"):
            self.forget_persona(row["persona_id"], row["at"])

    def forget_persona(self, persona_id: str, until: float = MAX_TIMESTAMP_S) -> None:
        """Delete the channels and memories that a removed persona had up to a time: nobody could
        look at them.
        """
        with self._db.atomic():
            forget_memories(
                self._db, "persona_id = :persona and at <= :until", persona=persona_id, until=until
            )
            sql = "delete from channels where persona_id = :persona and set_at <= :until"
            self._db.write(sql, persona=persona_id, until=until)

    def _delete_persona(self, persona_id: str) -> None:
        values = {"persona": persona_id}
        self._db.write(
            "update promotions set previous = null where persona_id = :persona", **values
        )
        for table in PERSONA_TABLES:
            self._db.write(f"delete from {table} where persona_id = :persona", **values)
        self._db.write("delete from version_numbers where name = :persona", **values)
        self._db.write("delete from jobs where persona = :persona", **values)


@dataclass(frozen=True)
class Channel:
    """A channel with a persona. `set_at` in seconds since 1970."""

    guild_id: int
    channel_id: int
    persona_id: str
    answers: AnswerMode
    set_by: int
    set_at: float


class Channels(Table):
    """The personas of the channels. A thread without its own inherits its parent's."""

    def assign(self, channel: Channel) -> None:
        """Assign a persona to a channel, replacing the one before."""
        self._db.insert("channels", vars(channel), replace=True)

    def clear(self, guild_id: int, channel_id: int) -> bool:
        """Remove a channel's persona. False when it had none."""
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
        found: dict[int, list[int]] = {}
        for row in self._db.read(
            "select guild_id, channel_id from channels order by set_at, channel_id"
        ):
            found.setdefault(row["guild_id"], []).append(row["channel_id"])
        return found

    def lately_used(self, limit: int) -> list[Channel]:
        """List the channels with a persona in which messages came last; those without any at the
        end.
        """
        columns = ", ".join(f"channels.{name}" for name in Channel.__dataclass_fields__)
        sql = f"""select {columns} from channels order by (select at from messages
            where messages.channel_id = channels.channel_id order by ordinal desc limit 1) desc, set_at desc
            limit :limit"""
        return self._db.all(Channel, sql, limit=limit)

    def with_personas(self, persona_ids: Collection[str]) -> list[Channel]:
        """List the channels of all guilds that have one of these personas, by guild, oldest
        assignment first.
        """
        sql = """select * from channels where persona_id in (select value from json_each(:ids))
            order by guild_id, set_at, channel_id"""
        return self._db.all(Channel, sql, ids=json.dumps(list(persona_ids)))

    def record_thread(self, guild_id: int, channel_id: int, parent_id: int | None) -> None:
        """Store the parent of a thread (None: it is none) with messages or memories, which are
        deleted with it.
        """
        if parent_id is None:
            return
        sql = """insert or ignore into threads select :channel, :guild, :parent
            where exists (select 1 from messages where channel_id = :channel)
            or exists (select 1 from memories where channel_id = :channel)"""
        self._db.write(sql, channel=channel_id, guild=guild_id, parent=parent_id)

    def threads_of(self, parent_id: int) -> list[int]:
        """List the threads of a channel with messages or memories, also those that Discord has
        archived.
        """
        return self._db.column(
            int, "select channel_id from threads where parent_id = :parent", parent=parent_id
        )

    def webhook(self, channel_id: int) -> tuple[int, str] | None:
        """Return id and token (a secret) of the webhook that personas use in a channel."""
        row = self._db.first(
            "select webhook_id, token from webhooks where channel_id = :id", id=channel_id
        )
        return (row["webhook_id"], row["token"]) if row else None

    def set_webhook(self, guild_id: int, channel_id: int, webhook_id: int, token: str) -> None:
        """Store a channel's webhook, replacing the one before."""
        row = {
            "channel_id": channel_id,
            "guild_id": guild_id,
            "webhook_id": webhook_id,
            "token": token,
        }
        self._db.insert("webhooks", row, replace=True)

    def delete_webhook(self, channel_id: int) -> None:
        """Delete a channel's webhook, which no longer exists on Discord."""
        self._db.write("delete from webhooks where channel_id = :id", id=channel_id)


@dataclass(frozen=True)
class Mute:
    """A muted persona, channel or guild. `at` in seconds since 1970."""

    guild_id: int
    channel_id: int
    persona_id: str
    muted_by: int
    at: float


class Mutes(Table):
    """The mutes of all guilds. They survive a restart, and apply to personas assigned later,
    too.
    """

    def add(self, mute: Mute) -> None:
        """Add a mute; idempotent."""
        self._db.insert("mutes", vars(mute), ignore=True)

    def remove(self, guild_id: int, channel_id: int, persona_id: str) -> bool:
        """Remove the mute of exactly this channel and persona. False when there is none."""
        sql = (
            "delete from mutes where guild_id = :guild and channel_id = :channel and persona_id = "
            ":persona"
        )
        return self._db.write(sql, guild=guild_id, channel=channel_id, persona=persona_id) > 0

    def find_applying(
        self, guild_id: int, channel_id: int, parent_id: int | None, persona_id: str
    ) -> Mute | None:
        """Find a mute that applies to a persona in a channel, or in a thread of the channel
        `parent_id`.
        """
        sql = """select * from mutes where guild_id = :guild and channel_id in (0, :channel, :parent)
            and persona_id in ('', :persona) limit 1"""
        return self._db.one(
            Mute, sql, guild=guild_id, channel=channel_id, parent=parent_id, persona=persona_id
        )

    def of_guild(self, guild_id: int) -> list[Mute]:
        """List the mutes of a guild, oldest first."""
        return self._db.all(
            Mute, "select * from mutes where guild_id = :guild order by at", guild=guild_id
        )
