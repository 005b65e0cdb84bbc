"""The erasure of a member from all tables."""

from collections import Counter
from collections.abc import Callable, Iterator

from bot.platform.db.database import MAX_TIMESTAMP_S, DatabaseConnection, Row, Table
from bot.platform.db.erased_ids import ErasedIds
from bot.privacy.store.personal_tables import PERSONAL_TABLES, PersonalTable

REPLIES_TO_MEMBER_SQL = """select event_id from replies where (asked_by = :user
    or trigger_seq in (select seq from messages where author_id = :user)
    or event_id in (select event_id from greeted_members where user_id = :user)) and created_at <= :until"""
"""The replies to a person, which may quote them, and the greetings of them."""
DIRECT_CHANNELS_SQL = """select distinct channel_id from messages
    where guild_id = 0 and author_id = :user and at <= :until"""
"""The person's direct-message channels, in which only they and personas write."""
DELETE_STATEMENTS = {
    "replies": f"""delete from messages where persona_id is not null
        and (channel_id in ({DIRECT_CHANNELS_SQL}) and at <= :until
        or discord_message_id in (select message_id from reply_parts where event_id in ({REPLIES_TO_MEMBER_SQL})))""",
    "reports": f"""delete from reports where (user_id = :user and at <= :until)
        or event_id in ({REPLIES_TO_MEMBER_SQL})""",
    "answers": f"delete from replies where event_id in ({REPLIES_TO_MEMBER_SQL})",
    # Also where somebody has chosen a persona, and said nothing to it.
    "choices": f"""delete from channel_personas where guild_id = 0 and
        (channel_id in ({DIRECT_CHANNELS_SQL}) or (set_by = :user and set_at <= :until))""",
    "settings": f"delete from settings where guild_id = 0 and channel_id in ({DIRECT_CHANNELS_SQL})",
    "messages": "delete from messages where author_id = :user and at <= :until",
    "quoted_messages": "delete from quoted_messages where author_id = :user and at <= :until",
    "votes": "delete from votes where user_id = :user and at <= :until",
    "gifts": "delete from gifts where user_id = :user and at <= :until",
    "taught": "delete from taught where user_id = :user and at <= :until",
    "comparisons": "delete from comparisons where user_id = :user and shown_at <= :until",
    "memories": "delete from memories where user_id = :user and at <= :until",
    "talks": "delete from talks where user_id = :user and spoke_at <= :until",
    "greeted": "delete from greeted_members where user_id = :user and at <= :until",
    "consents": "delete from consents where user_id = :user and at <= :until",
}
"""The deletions, in this order: earlier ones query rows that later ones delete."""
ANONYMISE_STATEMENTS = {
    "mutes": "update mutes set muted_by = 0 where muted_by = :user",
    "blocks": "update blocks set blocked_by = 0 where blocked_by = :user",
    # An erasure must not lift a block, or give further replies: the member is recognised by the key.
    "blocked": "update or replace blocks set user_id = :erased where user_id = :user and at <= :until",
    "reply_attempts": """update reply_attempts set user_id = :erased, event_id = null
        where user_id = :user and at <= :until""",
    "attempts of others": """update reply_attempts set event_id = null
        where event_id not in (select event_id from replies)""",
    "channels": "update channel_personas set set_by = 0 where set_by = :user",
    "jobs": "update jobs set requested_by = 0 where requested_by = :user",
    "scheduled_lines": "update scheduled_lines set set_by = 0 where set_by = :user",
    "member_greetings": "update member_greetings set set_by = 0 where set_by = :user",
    "training_schedules": "update training_schedules set set_by = 0 where set_by = :user",
    "promotions": "update promotions set promoted_by = 0 where promoted_by = :user",
}
"""Updates of rows that the server still needs: they remove the person's id."""
COUNTED_TABLES = (
    "messages", "votes", "jobs", "promotions", "channel_personas", "mutes", "training_schedules",
    "scheduled_lines", "member_greetings", "taught", "comparisons", "memories", "reports",
)  # fmt: skip
"""The tables whose rows of a member are counted for them."""
ROWS_AT_A_TIME = 200
"""Rows in which a person is searched at once: the event loop waits so long."""


class Erasure(Table):
    """Finds and erases one person at a time, up to a time `until`."""

    def __init__(self, connection: DatabaseConnection, erased_ids: ErasedIds) -> None:
        super().__init__(connection)
        self._erased_ids = erased_ids

    def names(self, user_id: int) -> set[str]:
        """Return the names under which a member has written."""
        sql = """select author_name from messages where author_id = :user
            union select author_name from quoted_messages where author_id = :user"""
        return set(self._db.column(str, sql, user=user_id))

    def texts(self, user_id: int) -> list[str]:
        """Return the stored texts that a member has written, taught, or asked a persona to
        remember.
        """
        texts = self._db.column(
            str, "select text from messages where author_id = :user order by seq", user=user_id
        )
        sql = "select text from quoted_messages where author_id = :user and text is not null order by at"
        texts += self._db.column(str, sql, user=user_id)
        sql = "select prompt, reply, instead_of from taught where user_id = :user order by seq"
        lessons = self._db.read(sql, user=user_id)
        sql = "select text from memories where user_id = :user and not by_persona order by seq"
        memories = self._db.column(str, sql, user=user_id)
        for row in lessons:
            texts += filter(None, row.values())
        return [*texts, *memories]

    def answers(self, user_id: int) -> list[int]:
        """Return the ids of the Discord messages that are replies to a member."""
        sql = (
            f"select message_id as id from reply_parts where event_id in ({REPLIES_TO_MEMBER_SQL})"
        )
        return self._db.column(int, sql, user=user_id, until=MAX_TIMESTAMP_S)

    def job_names(self, user_id: int) -> list[str]:
        """Return the names of the jobs that a member requested."""
        sql = "select distinct request ->> 'job_name' as name from jobs where requested_by = :user order by name"
        return self._db.column(str, sql, user=user_id)

    def names_of_others(self, user_id: int) -> list[str]:
        """Return the names under which others have written."""
        # With the id, because the index has the names by author.
        sql = "select distinct author_id, author_name from messages where author_id != :user"
        return list(dict.fromkeys(row["author_name"] for row in self._db.read(sql, user=user_id)))

    def counts(self, user_id: int) -> Counter[str]:
        """Count the rows of a member by table."""
        counts = Counter[str]()
        for table in PERSONAL_TABLES:
            if table.name in COUNTED_TABLES:
                sql = f"select count(*) {table.rows_sql}"
                name = table.exported_as or table.name
                counts[name] = self._db.value(int, sql, user=user_id) or 0
        sql = "select count(*) from quoted_messages where author_id = :user"
        counts["messages"] += self._db.value(int, sql, user=user_id) or 0
        return counts

    def rows_of(self, user_id: int) -> dict[str, list[dict[str, object]]]:
        """Return all rows about a member by table, without secrets and others' texts."""
        values = {"user": user_id, "erased": self._erased_ids.of(user_id)}
        return {
            table.exported_as or table.name: self._db.read(table.export_sql, **values)
            for table in PERSONAL_TABLES
            if table.exported
        }

    def user_ids(self) -> set[int]:
        """Return the ids of all members with any row, without those who are known by the key alone."""
        each = [
            f"select {column} as id from {table.name}"
            for table in PERSONAL_TABLES
            for column in table.people
        ]
        return {user_id for user_id in self._db.column(int, " union ".join(each)) if user_id > 0}

    def first_seen(self, user_id: int) -> float | None:
        """Return the time of a member's first message, vote, contribution or decision; None where
        there is none.
        """
        sql = """select min(at) as at from (select at from messages where author_id = :user
            union all select at from quoted_messages where author_id = :user
            union all select at from votes where user_id = :user union all select at from gifts where user_id = :user
            union all select at from consents where user_id = :user
            union all select at from taught where user_id = :user
            union all select at from memories where user_id = :user
            union all select shown_at as at from comparisons where user_id = :user)"""
        return self._db.value(float, sql, user=user_id)

    def free_texts(self) -> Iterator[str]:
        """Yield all texts that may name somebody."""
        for table, rows in self._rows_by_table(MAX_TIMESTAMP_S):
            for row in rows:
                texts = [row[column] for column in table.texts]
                yield from (str(text) for text in texts if text is not None)

    def since(self, user_id: int) -> float | None:
        """Return the time of a member's oldest stored message."""
        sql = """select min(at) from (select at from messages where author_id = :user
            union all select at from quoted_messages where author_id = :user)"""
        return self._db.value(float, sql, user=user_id)

    def date_back(self, after: float, to: float) -> None:
        """Date rows from after a time to another one: the clock was ahead when they were stored,
        and was set back.
        """
        with self._db.atomic():
            for table in PERSONAL_TABLES:
                if table.time:
                    sql = f"update {table.name} set {table.time} = :to where {table.time} > :after"
                    self._db.write(sql, after=after, to=to)

    def erase(self, user_id: int, until: float, redacted: Callable[[str], str]) -> Counter[str]:
        """Erase a member in one transaction; `redacted` removes them from texts. Returns the number
        of rows by kind.
        """
        with self._db.atomic():
            done = self._delete(user_id, until)
            for table, rows in self._rows_by_table(until):
                done["mentions"] += self._redact(table, rows, redacted)
        return done

    def erase_in_steps(
        self, user_id: int, until: float, redacted: Callable[[str], str]
    ) -> Iterator[Counter[str]]:
        """Erase a member like `erase`, in short transactions: their rows first, then what is said
        about them.

        Others may use the store between two steps. One that is killed has to be repeated with the
        same `redacted`.
        """
        with self._db.atomic():
            done = self._delete(user_id, until)
        yield done
        for table, rows in self._rows_by_table(until):
            with self._db.atomic():
                mentions = self._redact(table, rows, redacted)
            yield Counter(mentions=mentions)

    def _delete(self, user_id: int, until: float) -> Counter[str]:
        values = {"user": user_id, "until": until, "erased": self._erased_ids.of(user_id)}
        done = Counter(
            {name: self._db.write(sql, **values) for name, sql in DELETE_STATEMENTS.items()}
        )
        for sql in ANONYMISE_STATEMENTS.values():
            self._db.write(sql, **values)
        self._db.write(
            "update replies set asked_by = 0 where asked_by = :user and created_at <= :until",
            **values,
        )
        return done

    def _redact(self, table: PersonalTable, rows: list[Row], redacted: Callable[[str], str]) -> int:
        changed = 0
        for row in rows:
            new = {name: redacted(row[name]) for name in table.texts if row[name] is not None}
            if any(new[column] != row[column] for column in new):
                sets = ", ".join(f"{column} = :{column}" for column in new)
                values = {**new, "row": row["row"]}
                sql = f"update or ignore {table.name} set {sets} where rowid = :row"
                if not self._db.write(sql, **values):
                    # Without the name the row is equal to another one, and is not needed.
                    self._db.write(f"delete from {table.name} where rowid = :row", **values)
                changed += 1
        return changed

    def _rows_by_table(self, until: float) -> Iterator[tuple[PersonalTable, list[Row]]]:
        for table in PERSONAL_TABLES:
            if table.texts:
                for rows in self._rows(table, until):
                    yield table, rows

    def _rows(self, table: PersonalTable, until: float) -> Iterator[list[Row]]:
        """Yield a table's rows, of messages those up to a time, some at a time; `row` is the
        rowid.
        """
        before = "and at <= :until" if table.name in ("messages", "quoted_messages") else ""
        sql = f"""select rowid as row, {", ".join(table.texts)} from {table.name}
            where rowid > :last {before} order by rowid limit {ROWS_AT_A_TIME}"""
        last = 0
        while rows := self._db.read(sql, last=last, until=until):
            yield rows
            last = rows[-1]["row"]
