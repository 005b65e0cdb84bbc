"""Merges later decisions, deletions and edits into a restored backup."""

from dataclasses import dataclass

from bot.memory.store import forget_memories
from bot.platform.db.database import DatabaseConnection
from bot.platform.db.gone import Gone
from bot.versions.store import Versions


@dataclass(frozen=True)
class BackupMergeCounts:
    """Number of decisions, deletions and edits that were missing from a backup."""

    decisions: int = 0
    deleted: int = 0
    edited: int = 0


def merge_later_decisions(
    restored: DatabaseConnection, later: DatabaseConnection
) -> BackupMergeCounts:
    """Merge into an older copy of a database what happened since, read from the later one.

    That is: consent given and withdrawn, messages deleted and edited on Discord, memories forgotten
    and edited, erased persons, withdrawn versions, guilds that were left, counts of answers with
    helplines, and version numbers, which are not reused.
    """
    with restored.atomic():
        decisions = _decisions(restored, later)
        deleted = _deleted_messages(restored, later)
        edited = _edited_messages(restored, later)
        _memories(restored, later)
        Gone(restored, "person").copy_from(later)
        versions = Versions(restored)
        for row in later.read("select * from withdrawn"):
            versions.withdraw(
                row["persona_id"],
                row["version"],
                row["at"],
                "withdrawn before the backup was restored",
            )
        _copy(
            restored,
            later,
            "guilds",
            """on conflict do update set application_id = coalesce(excluded.application_id, application_id),
            left_at = excluded.left_at,
            deleted_at = coalesce(excluded.deleted_at, deleted_at)""",
        )
        _parents_of_threads(restored, later)
        _copy(
            restored,
            later,
            "safety_counts",
            "on conflict do update set total = max(total, excluded.total)",
        )
        _copy(
            restored,
            later,
            "version_numbers",
            "on conflict do update set last = max(last, excluded.last)",
        )
        _unfinished_forgettings(restored, later)
    return BackupMergeCounts(decisions, deleted, edited)


def _decisions(restored: DatabaseConnection, later: DatabaseConnection) -> int:
    newer = """on conflict do update set opted_in = excluded.opted_in, at = excluded.at, language = excluded.language
        where excluded.at > at"""
    return _copy(restored, later, "consents", newer)


def _deleted_messages(restored: DatabaseConnection, later: DatabaseConnection) -> int:
    deleted = 0
    for id in Gone(later, "message").times():
        deleted += restored.write("delete from messages where discord_message_id = :id", id=id)
        restored.write("delete from reply_parts where message_id = :id", id=id)
        restored.write("delete from quoted_messages where discord_message_id = :id", id=id)
    Gone(restored, "message").copy_from(later)
    return deleted


def _edited_messages(restored: DatabaseConnection, later: DatabaseConnection) -> int:
    texts = (
        "select discord_message_id as id, text from messages where discord_message_id is not null"
    )
    known = {row["id"]: row["text"] for row in restored.read(texts)}
    edited = [row for row in later.read(texts) if known.get(row["id"], row["text"]) != row["text"]]
    for row in edited:
        restored.write("update messages set text = :text where discord_message_id = :id", **row)
    for row in later.read("select discord_message_id as id, text from quoted_messages"):
        restored.write(
            "update quoted_messages set text = :text where discord_message_id = :id", **row
        )
    return len(edited)


def _memories(restored: DatabaseConnection, later: DatabaseConnection) -> None:
    """Forget what members had forgotten, and take their edits."""
    Gone(restored, "memory").copy_from(later)
    forgotten = "select id, at from gone where kind = 'memory'"
    forget_memories(restored, f"(cast(seq as text), at) in ({forgotten})")
    for row in later.read("select seq, at, text, by_persona, message_id from memories"):
        sql = """update memories set text = :text, by_persona = :by_persona, message_id = :message_id
            where seq = :seq and at = :at"""
        restored.write(sql, **row)


def _parents_of_threads(restored: DatabaseConnection, later: DatabaseConnection) -> None:
    threads = "select channel_id, guild_id, parent_id from places where parent_id is not null"
    for row in later.read(threads):
        sql = """insert into places (channel_id, guild_id, parent_id)
            values (:channel_id, :guild_id, :parent_id)
            on conflict do update set parent_id = excluded.parent_id"""
        restored.write(sql, **row)


def _unfinished_forgettings(restored: DatabaseConnection, later: DatabaseConnection) -> None:
    """Restart unfinished erasures: their steps were taken in the later home only."""
    for row in later.read(
        "select person, asked_at, step, traces, receipt from forgettings where step != ''"
    ):
        restored.write(
            "delete from forgettings where person = :person and asked_at = :asked_at", **row
        )
        sql = """insert into forgettings (person, asked_at, step, traces, receipt) values (:person, :asked_at,
            iif(coalesce(json_array_length(:traces, '$.ids'), 0), 'gather', :step), :traces, :receipt)"""
        restored.write(sql, **row)


def _copy(
    restored: DatabaseConnection, later: DatabaseConnection, table: str, on_conflict: str
) -> int:
    """Copy a table's rows and return how many were new or changed."""
    changed = 0
    for row in later.read(f"select * from {table}"):
        values = ", ".join(f":{column}" for column in row)
        changed += restored.write(
            f"insert into {table} ({', '.join(row)}) values ({values}) {on_conflict}", **row
        )
    return changed
