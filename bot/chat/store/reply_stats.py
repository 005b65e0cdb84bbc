"""Counts of replies by version: votes on them, and those that were stopped or regenerated."""

from dataclasses import asdict, astuple, dataclass
from operator import add
from typing import Self

from bot.platform.db.database import MAX_TIMESTAMP_S, Table

COUNTED_SQL = "asked_by <> 0 and state <> 'failed'"
"""Excludes greetings, which answer nobody, and failures, which say nothing about a version."""

SELECTED_SQL = f"""replies.persona_id = :persona_id and adapter_version is :version
    and created_at >= :since and created_at < :until and {COUNTED_SQL}
    and (:guild_id is null or guild_id = :guild_id) and (:rollout is null or rollout = :rollout)"""

UP_VOTES_SQL = (
    "(select count(distinct user_id) from votes where votes.event_id = replies.event_id and vote = "
    "1)"
)
DOWN_VOTES_SQL = (
    "(select count(distinct user_id) from votes where votes.event_id = replies.event_id and vote = "
    "-1)"
)


@dataclass(frozen=True)
class ReplyTally:
    """Number of replies, of votes on them, and of those that their author stopped or
    regenerated.
    """

    replies: int = 0
    up: int = 0
    down: int = 0
    interrupted: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(*map(add, astuple(self), astuple(other)))


@dataclass(frozen=True)
class JudgedReply:
    """One reply of a rollout. `voter` and `vote` (-1, 1) are the first vote on it, if there is
    one.
    """

    event_id: int
    asked_by: int
    interrupted: bool
    up: int
    down: int
    voter: int | None
    vote: int | None

    @property
    def tally(self) -> ReplyTally:
        """The tally of this reply alone."""
        return ReplyTally(1, self.up, self.down, int(self.interrupted))


@dataclass(frozen=True)
class ReplySelection:
    """Replies of one version (None is the base model), by when they were requested.

    `guild_id` None is every guild, direct messages included; `rollout` None includes replies
    outside of rollouts.
    """

    persona_id: str
    version: str | None
    since: float = 0.0
    until: float = MAX_TIMESTAMP_S
    guild_id: int | None = None
    rollout: int | None = None


@dataclass(frozen=True)
class MemberRating:
    """A member's vote on a reply, 👎 or 👍. `at` in seconds since 1970."""

    at: float
    is_down: bool


class ReplyStats(Table):
    """Counts replies; members are told apart, never named."""

    def of_rollout(self, seq: int) -> list[JudgedReply]:
        """List the replies that count in a rollout, of either version, in the order of their
        events.
        """
        first = "from votes where votes.event_id = replies.event_id order by at, user_id limit 1"
        sql = f"""select event_id, asked_by, interrupted_at is not null as interrupted,
            {UP_VOTES_SQL} as up, {DOWN_VOTES_SQL} as down,
            (select user_id {first}) as voter, (select vote {first}) as vote
            from replies where rollout = :seq and {COUNTED_SQL} order by event_id"""
        rows = self._db.read(sql, seq=seq)
        return [JudgedReply(**{**row, "interrupted": bool(row["interrupted"])}) for row in rows]

    def of(self, selection: ReplySelection) -> ReplyTally:
        """Tally a selection."""
        sql = f"""select count(*) as replies,
            coalesce(sum({UP_VOTES_SQL}), 0) as up, coalesce(sum({DOWN_VOTES_SQL}), 0) as down,
            count(interrupted_at) as interrupted from replies where {SELECTED_SQL}"""
        row = self._db.first(sql, **asdict(selection))
        return ReplyTally(**row) if row else ReplyTally()

    def interruptions_by_member(self, selection: ReplySelection) -> dict[int, list[bool]]:
        """Return, by author and in order, whether they stopped or regenerated the reply."""
        sql = f"""select asked_by as member, interrupted_at is not null as bad from replies
            where {SELECTED_SQL} order by created_at, event_id"""
        rows = self._db.read(sql, **asdict(selection))
        return _by_member(rows)

    def downvotes_by_member(self, selection: ReplySelection) -> dict[int, list[bool]]:
        """Return, by voter and in order, whether the vote was a 👎; one vote a reply, the last for
        regenerated ones.
        """
        sql = f"""select votes.user_id as member, vote = -1 as bad from votes join replies using (event_id)
            where {SELECTED_SQL} and votes.at < :until and not exists (select 1 from votes later
            where later.event_id = votes.event_id and later.user_id = votes.user_id and later.attempt > votes.attempt)
            order by votes.at, event_id"""
        rows = self._db.read(sql, **asdict(selection))
        return _by_member(rows)

    def ratings_by_member(self, selection: ReplySelection) -> dict[int, list[MemberRating]]:
        """Return the 👍 and 👎 by voter and in order; one vote a reply, the last for regenerated
        ones.
        """
        sql = f"""select votes.user_id as member, votes.at, vote = -1 as is_down
            from votes join replies using (event_id)
            where {SELECTED_SQL} and not exists (select 1 from votes later
            where later.event_id = votes.event_id and later.user_id = votes.user_id and later.attempt > votes.attempt)
            order by votes.at, event_id"""
        ratings: dict[int, list[MemberRating]] = {}
        for row in self._db.read(sql, **asdict(selection)):
            rating = MemberRating(row["at"], bool(row["is_down"]))
            ratings.setdefault(row["member"], []).append(rating)
        return ratings


def _by_member(rows: list[dict[str, int]]) -> dict[int, list[bool]]:
    marks: dict[int, list[bool]] = {}
    for row in rows:
        marks.setdefault(row["member"], []).append(bool(row["bad"]))
    return marks
