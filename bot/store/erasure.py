"""Erases a member from the tables, and stores the progress of each erasure request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from bot.store.database import DatabaseConnection, Row

REPLIES_TO_MEMBER_SQL = """select event_id from replies left join messages on messages.seq = trigger_seq
    where (asked_by = :user or messages.author_id = :user) and created_at <= :until"""


"""The replies to a person: they may say again what the person said."""


MAX_TIMESTAMP_S = 1e18


"""A time that never comes, in seconds since 1970."""


DIRECT_CHANNELS_SQL = (
    "select distinct channel_id from messages where guild_id = 0 and author_id = :user and at <= :until"
)


"""The person's direct messages, in which nobody else but personas speaks."""


DELETE_STATEMENTS = {
    "replies": f"""delete from messages where persona_id is not null and (channel_id in ({DIRECT_CHANNELS_SQL}) and at <= :until
        or discord_message_id in (select message_id from reply_parts where event_id in ({REPLIES_TO_MEMBER_SQL})))""",
    "answers": f"delete from replies where event_id in ({REPLIES_TO_MEMBER_SQL})",
    "choices": f"delete from channels where guild_id = 0 and channel_id in ({DIRECT_CHANNELS_SQL})",
    "messages": "delete from messages where author_id = :user and at <= :until",
    "votes": "delete from votes where user_id = :user and at <= :until",
    "gifts": "delete from gifts where user_id = :user and at <= :until",
    "taught": "delete from taught where user_id = :user and at <= :until",
    "comparisons": "delete from comparisons where user_id = :user and shown_at <= :until",
    "consents": "delete from consents where user_id = :user and at <= :until",
}


"""What is deleted, in this order: the earlier ones look at what the later ones delete."""


ANONYMISE_STATEMENTS = {
    "mutes": "update mutes set muted_by = 0 where muted_by = :user",
    "channels": "update channels set set_by = 0 where set_by = :user",
    "jobs": "update jobs set requested_by = 0 where requested_by = :user",
    "promotions": "update promotions set promoted_by = 0 where promoted_by = :user",
    "rollouts": """update rollouts set started_by = iif(started_by = :user, 0, started_by),
        ended_by = iif(ended_by = :user, 0, ended_by) where :user in (started_by, ended_by)""",
}


"""What the server goes on using, while nothing says any more whose doing it was."""


FREE_TEXT_COLUMNS = {
    "messages": ("text", "author_name"),
    "jobs": ("name", "request", "error", "advice", "progress", "result"),
    "promotions": ("why",),
    "version_numbers": ("name",),
    "gifts": ("what",),
    "taught": ("prompt", "reply", "instead_of"),
    "comparisons": ("prompt", "text_a", "text_b"),
    "answered": ("body",),
}


"""The columns in which anything may stand, by table: a person's name or words are replaced there."""


class Erasure:
    """Finds and erases one person at a time. `until` is a time: what came later is left alone."""

    def __init__(self, connection: DatabaseConnection) -> None:
        self._db = connection

    def names(self, user_id: int) -> set[str]:
        """The names under which a member has spoken."""
        rows = self._db.read("select distinct author_name from messages where author_id = :user", {"user": user_id})
        return {row["author_name"] for row in rows}

    def texts(self, user_id: int) -> list[str]:
        """What a member has said, and taught, as far as it is kept."""
        rows = self._db.read("select text from messages where author_id = :user order by seq", {"user": user_id})
        lessons = self._db.read(
            "select prompt, reply, instead_of from taught where user_id = :user order by seq", {"user": user_id}
        )
        return [*(row["text"] for row in rows), *(text for row in lessons for text in row.values() if text)]

    def answers(self, user_id: int) -> list[int]:
        """The Discord messages that are replies to a member, by id."""
        rows = self._db.read(
            f"select message_id as id from reply_parts where event_id in ({REPLIES_TO_MEMBER_SQL})",
            {"user": user_id, "until": MAX_TIMESTAMP_S},
        )
        return [row["id"] for row in rows]

    def job_names(self, user_id: int) -> list[str]:
        """What the jobs are called that a member asked for."""
        rows = self._db.read(
            "select distinct request ->> 'job_name' as name from jobs where requested_by = :user order by name",
            {"user": user_id},
        )
        return [row["name"] for row in rows]

    def names_shared_with_others(self, user_id: int, names: Iterable[str]) -> set[str]:
        """Those of the names under which others have spoken too."""
        rows = self._db.read("select distinct author_name from messages where author_id != :user", {"user": user_id})
        others = {row["author_name"].casefold() for row in rows}
        return {name for name in names if name.casefold() in others}

    def name_words_of_others(self, user_id: int) -> set[str]:
        """The words of the names under which others have spoken."""
        rows = self._db.read("select distinct author_name from messages where author_id != :user", {"user": user_id})
        return {word for row in rows for word in row["author_name"].split()}

    def counts(self, user_id: int) -> Counter[str]:
        """How much there is of a member: `messages`, `votes`, `jobs`, `promotions`, `rollouts`, `channels`, `mutes`,
        `taught`, `comparisons`.
        """
        columns = {
            "messages": "author_id", "votes": "user_id", "jobs": "requested_by", "promotions": "promoted_by",
            "rollouts": "started_by", "channels": "set_by", "mutes": "muted_by",
            "taught": "user_id", "comparisons": "user_id",
        }  # fmt: skip
        found = Counter[str]()
        for table, column in columns.items():
            row = self._db.first(f"select count(*) as n from {table} where {column} = :user", {"user": user_id})
            found[table] = row["n"] if row else 0
        return found

    def rows_of(self, user_id: int) -> dict[str, list[dict[str, object]]]:
        """All rows about a member, as they stand, by table; secrets and others' words are not in them."""
        queries = {
            "messages": "select guild_id, channel_id, discord_message_id, author_name, text, at from messages "
            "where author_id = :user order by seq",
            "replies_to_you": "select event_id, guild_id, channel_id, persona_id, state, created_at from replies "
            "where asked_by = :user",
            "votes": "select event_id, attempt, vote, at from votes where user_id = :user",
            "consent": "select opted_in, at, language from consents where user_id = :user",
            "gifts": "select guild_id, persona_id, what, at from gifts where user_id = :user",
            "taught": "select guild_id, persona_id, prompt, reply, instead_of, right, at from taught "
            "where user_id = :user order by seq",
            "comparisons": "select guild_id, persona_id, prompt, version_a, text_a, version_b, text_b, shown_at, "
            "choice, voted_at from comparisons where user_id = :user order by seq",
            "jobs": "select job_id, guild_id, channel_id, name, version, state, queued_at, request from jobs "
            "where requested_by = :user",
            "promotions": "select persona_id, version, at, why from promotions where promoted_by = :user",
            "rollouts": "select persona_id, version, guild_id, channel_id, only_channel, share, started_at, ended_at, "
            "ending, started_by = :user as you_started, ended_by = :user as you_ended from rollouts "
            "where :user in (started_by, ended_by)",
            "channels": "select guild_id, channel_id, persona_id, answers, set_at from channels where set_by = :user",
            "mutes": "select guild_id, channel_id, persona_id, at from mutes where muted_by = :user",
        }
        return {name: self._db.read(sql, {"user": user_id}) for name, sql in queries.items()}

    def user_ids(self) -> set[int]:
        """Everybody of whom there is anything."""
        columns = ("messages.author_id", "votes.user_id", "consents.user_id", "gifts.user_id", "replies.asked_by",
                   "jobs.requested_by", "promotions.promoted_by", "rollouts.started_by", "rollouts.ended_by",
                   "channels.set_by", "mutes.muted_by", "taught.user_id", "comparisons.user_id")  # fmt: skip
        each = (f"select {column} as id from {column.partition('.')[0]}" for column in columns)
        return {row["id"] for row in self._db.read(" union ".join(each))} - {0}

    def first_seen(self, user_id: int) -> float | None:
        """When the first thing was that a member said, voted, gave or decided; None where there is none."""
        row = self._db.first(
            """select min(at) as at from (select at from messages where author_id = :user
            union all select at from votes where user_id = :user union all select at from gifts where user_id = :user
            union all select at from consents where user_id = :user
            union all select at from taught where user_id = :user
            union all select shown_at as at from comparisons where user_id = :user)""",
            {"user": user_id},
        )
        return row["at"] if row else None

    def free_texts(self) -> Iterator[str]:
        """All texts in which somebody may be named."""
        for table, columns in FREE_TEXT_COLUMNS.items():
            for column in columns:
                rows = self._db.read(f"select {column} as text from {table} where {column} is not null")
                yield from (row["text"] for row in rows)

    def since(self, user_id: int) -> float | None:
        """When the oldest kept message of a member was said."""
        row = self._db.first("select min(at) as at from messages where author_id = :user", {"user": user_id})
        return row["at"] if row else None

    def erase(self, user_id: int, until: float, redacted: Callable[[str], str]) -> Counter[str]:
        """Take a member out; all of it or nothing. `redacted` gives a text without the person.

        Gives how many rows were deleted (`messages`, `replies`, `votes`, …) or rewritten (`mentions`).
        """
        values = {"user": user_id, "until": until}
        done = Counter[str]()
        with self._db.atomic():
            for name, sql in DELETE_STATEMENTS.items():
                done[name] += self._db.write(sql, values)
            for sql in ANONYMISE_STATEMENTS.values():
                self._db.write(sql, {"user": user_id})
            self._db.write("update replies set asked_by = 0 where asked_by = :user and created_at <= :until", values)
            for table, columns in FREE_TEXT_COLUMNS.items():
                done["mentions"] += self._redact(table, columns, until, redacted)
        return done

    def _redact(self, table: str, columns: tuple[str, ...], until: float, redacted: Callable[[str], str]) -> int:
        before = " where at <= :until" if table == "messages" else ""
        changed = 0
        for row in self._db.read(f"select rowid as row, {', '.join(columns)} from {table}{before}", {"until": until}):
            new = {column: redacted(row[column]) for column in columns if row[column] is not None}
            if any(new[column] != row[column] for column in new):
                sets = ", ".join(f"{column} = :{column}" for column in new)
                values = {**new, "row": row["row"]}
                if not self._db.write(f"update or ignore {table} set {sets} where rowid = :row", values):
                    self._db.write(f"delete from {table} where rowid = :row", values)  # there is such a row already
                changed += 1
        return changed


@dataclass(frozen=True)
class ErasureRequest:
    """One forgetting. `person` is keyed (`personas.home.pseudonyms.keyed_person`), `asked_at` in seconds since 1970.

    `step` is the next step to take, empty when all are done. `traces` (JSON) says whom to look for and is erased in the
    course of it; `receipt` (JSON) names nobody and stays.
    """

    seq: int
    person: str
    asked_at: float
    step: str
    traces: str = field(repr=False)
    receipt: str


class ErasureRequests:
    """The forgettings, in the order in which they were asked for."""

    def __init__(self, connection: DatabaseConnection) -> None:
        self._db = connection

    def begin(self, person: str, at: float, step: str, traces: str, receipt: str) -> ErasureRequest:
        """Note that somebody is to be forgotten: from here on it happens, whatever becomes of this process."""
        row = self._db.first(
            """insert into forgettings (person, asked_at, step, traces, receipt)
            values (:person, :at, :step, :traces, :receipt) returning *""",
            {"person": person, "at": at, "step": step, "traces": traces, "receipt": receipt},
        )
        assert row is not None  # an insert always returns its row
        return _erasure_request(row)

    def advance(self, seq: int, step: str, receipt: str, traces: str | None = None) -> ErasureRequest:
        """A step is done, and `step` is the next one. New `traces` take the place of the old."""
        row = self._db.first(
            """update forgettings set step = :step, receipt = :receipt, traces = coalesce(:traces, traces)
            where seq = :seq returning *""",
            {"seq": seq, "step": step, "receipt": receipt, "traces": traces},
        )
        assert row is not None  # rows are never deleted
        return _erasure_request(row)

    def unfinished(self) -> list[ErasureRequest]:
        """Those with a step left, oldest first."""
        return [
            _erasure_request(row) for row in self._db.read("select * from forgettings where step != '' order by seq")
        ]

    def count(self) -> int:
        """How many were ever asked for."""
        row = self._db.first("select count(*) as n from forgettings", {})
        return int(row["n"]) if row else 0

    def of(self, person: str) -> list[ErasureRequest]:
        """A person's, latest first."""
        rows = self._db.read("select * from forgettings where person = :person order by seq desc", {"person": person})
        return [_erasure_request(row) for row in rows]


def _erasure_request(row: Row) -> ErasureRequest:
    return ErasureRequest(**row)
