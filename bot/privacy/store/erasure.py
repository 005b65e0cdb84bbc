"""The erasure of a member from all tables."""

from collections import Counter
from collections.abc import Callable, Iterator

from bot.platform.db.database import MAX_TIMESTAMP_S, DatabaseConnection, Row, Table
from bot.platform.db.erased_ids import ErasedIds

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
TIME_COLUMNS = {
    "messages": "at",
    "quoted_messages": "at",
    "replies": "created_at",
    "votes": "at",
    "gifts": "at",
    "taught": "at",
    "comparisons": "shown_at",
    "memories": "at",
    "talks": "spoke_at",
    "blocks": "at",
    "greeted_members": "at",
    "reports": "at",
    "consents": "at",
    "reply_attempts": "at",
}
"""When each row was stored, which decides whether an erasure reaches it."""
FREE_TEXT_COLUMNS = {
    "messages": ("text", "author_name"),
    "quoted_messages": ("text", "author_name"),
    "replies": ("end_note", "prompt"),
    "jobs": (
        "name",
        "request",
        "error",
        "advice",
        "progress",
        "result",
        "card_progress",
        "card_error",
    ),
    "promotions": ("why",),
    "version_numbers": ("name",),
    "gifts": ("what",),
    "taught": ("prompt", "reply", "instead_of"),
    "comparisons": ("prompt", "text_a", "text_b"),
    "memories": ("text",),
    "scheduled_lines": ("prompt",),
    "member_greetings": ("text",),
    "answered": ("body",),
    "reports": ("note",),
}
"""Free-text columns by table, in which names and texts are replaced."""
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
        columns = {
            "messages": "author_id", "votes": "user_id", "jobs": "requested_by", "promotions": "promoted_by",
            "mutes": "muted_by", "training_schedules": "set_by",
            "scheduled_lines": "set_by", "member_greetings": "set_by",
            "taught": "user_id", "comparisons": "user_id", "memories": "user_id", "reports": "user_id",
        }  # fmt: skip
        counts = Counter[str]()
        for table, column in columns.items():
            sql = f"select count(*) from {table} where {column} = :user"
            counts[table] = self._db.value(int, sql, user=user_id) or 0
        sql = "select count(*) from quoted_messages where author_id = :user"
        counts["messages"] += self._db.value(int, sql, user=user_id) or 0
        sql = "select count(*) from channel_personas where set_by = :user and position = 0"
        counts["channels"] = self._db.value(int, sql, user=user_id) or 0
        return counts

    def rows_of(self, user_id: int) -> dict[str, list[dict[str, object]]]:
        """Return all rows about a member by table, without secrets and others' texts."""
        queries = {
            "messages": "select guild_id, channel_id, discord_message_id, author_name, text, at from messages "
            "where author_id = :user order by seq",
            "quoted_messages": "select guild_id, channel_id, discord_message_id, author_name, text, at "
            "from quoted_messages where author_id = :user order by at",
            "replies_to_you": "select event_id, guild_id, channel_id, persona_id, state, created_at from replies "
            "where asked_by = :user",
            "votes": "select event_id, attempt, vote, at from votes where user_id = :user",
            "consent": "select opted_in, at, language from consents where user_id = :user",
            "gifts": "select guild_id, persona_id, what, at from gifts where user_id = :user",
            "taught": "select guild_id, persona_id, prompt, reply, instead_of, right, at from taught "
            "where user_id = :user order by seq",
            "comparisons": "select guild_id, persona_id, prompt, version_a, text_a, version_b, text_b, shown_at, "
            "choice, voted_at from comparisons where user_id = :user order by seq",
            "memories": "select seq as number, guild_id, persona_id, text, by_persona, at from memories "
            "where user_id = :user order by seq",
            "jobs": "select job_id, guild_id, channel_id, name, version, state, queued_at, request from jobs "
            "where requested_by = :user",
            "scheduled_lines": "select guild_id, channel_id, prompt, set_at from scheduled_lines where set_by = :user",
            "member_greetings": "select guild_id, channel_id, text, set_at from member_greetings where set_by = :user",
            "training_schedules": "select guild_id, channel_id, persona_id, options, set_at from training_schedules "
            "where set_by = :user",
            "promotions": "select persona_id, version, at, why from promotions where promoted_by = :user",
            "channels": "select guild_id, channel_id, persona_id, answers, set_at from channel_personas "
            "where set_by = :user and position = 0",
            "mutes": "select guild_id, channel_id, persona_id, at from mutes where muted_by = :user",
            "blocks": "select guild_id, persona_id, at, user_id in (:user, :erased) as of_you from blocks "
            "where user_id in (:user, :erased) or blocked_by = :user",
            "reports": "select guild_id, channel_id, message_id, persona_id, reason, note, at from reports "
            "where user_id = :user order by seq",
            "talks": "select guild_id, channel_id, spoke_at, told_at, told_event from talks where user_id = :user",
            "greeted_members": "select guild_id, at from greeted_members where user_id = :user",
            "reply_attempts": "select guild_id, at from reply_attempts where user_id in (:user, :erased) "
            "order by seq",
        }
        values = {"user": user_id, "erased": self._erased_ids.of(user_id)}
        return {name: self._db.read(sql, **values) for name, sql in queries.items()}

    def user_ids(self) -> set[int]:
        """Return the ids of all members with any row, without those who are known by the key alone."""
        columns = ("messages.author_id", "quoted_messages.author_id", "votes.user_id", "consents.user_id",
                   "gifts.user_id", "replies.asked_by",
                   "jobs.requested_by", "promotions.promoted_by",
                   "channel_personas.set_by", "mutes.muted_by", "taught.user_id", "comparisons.user_id",
                   "training_schedules.set_by", "scheduled_lines.set_by", "member_greetings.set_by",
                   "memories.user_id", "talks.user_id", "blocks.user_id", "blocks.blocked_by",
                   "reports.user_id", "greeted_members.user_id", "reply_attempts.user_id")  # fmt: skip
        each = (f"select {column} as id from {column.partition('.')[0]}" for column in columns)
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
        for table, columns in FREE_TEXT_COLUMNS.items():
            for rows in self._rows(table, columns, MAX_TIMESTAMP_S):
                for row in rows:
                    texts = [row[column] for column in columns]
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
            for table, column in TIME_COLUMNS.items():
                self._db.write(
                    f"update {table} set {column} = :to where {column} > :after", after=after, to=to
                )

    def erase(self, user_id: int, until: float, redacted: Callable[[str], str]) -> Counter[str]:
        """Erase a member in one transaction; `redacted` removes them from texts. Returns the number
        of rows by kind.
        """
        with self._db.atomic():
            done = self._delete(user_id, until)
            for rows in self._rows_by_table(until):
                done["mentions"] += self._redact(*rows, redacted)
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
        for rows in self._rows_by_table(until):
            with self._db.atomic():
                mentions = self._redact(*rows, redacted)
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

    def _redact(
        self, table: str, columns: tuple[str, ...], rows: list[Row], redacted: Callable[[str], str]
    ) -> int:
        changed = 0
        for row in rows:
            new = {column: redacted(row[column]) for column in columns if row[column] is not None}
            if any(new[column] != row[column] for column in new):
                sets = ", ".join(f"{column} = :{column}" for column in new)
                values = {**new, "row": row["row"]}
                sql = f"update or ignore {table} set {sets} where rowid = :row"
                if not self._db.write(sql, **values):
                    # Without the name the row is equal to another one, and is not needed.
                    self._db.write(f"delete from {table} where rowid = :row", **values)
                changed += 1
        return changed

    def _rows_by_table(self, until: float) -> Iterator[tuple[str, tuple[str, ...], list[Row]]]:
        for table, columns in FREE_TEXT_COLUMNS.items():
            for rows in self._rows(table, columns, until):
                yield table, columns, rows

    def _rows(self, table: str, columns: tuple[str, ...], until: float) -> Iterator[list[Row]]:
        """Yield a table's rows, of messages those up to a time, some at a time; `row` is the
        rowid.
        """
        before = "and at <= :until" if table in ("messages", "quoted_messages") else ""
        sql = f"""select rowid as row, {", ".join(columns)} from {table} where rowid > :last {before}
            order by rowid limit {ROWS_AT_A_TIME}"""
        last = 0
        while rows := self._db.read(sql, last=last, until=until):
            yield rows
            last = rows[-1]["row"]
