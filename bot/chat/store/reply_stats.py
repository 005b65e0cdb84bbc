"""Counts of replies by version: votes on them, and those that were stopped or regenerated."""

from dataclasses import asdict, dataclass

from bot.platform.db.database import Table

COUNTED_SQL = "asked_by <> 0 and state <> 'failed'"
"""Excludes greetings, which answer nobody, and failures, which say nothing about a version."""

SELECTED_SQL = f"""replies.persona_id = :persona_id and adapter_version is :version
    and {COUNTED_SQL} and (:guild_id is null or guild_id = :guild_id)"""

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


@dataclass(frozen=True)
class ReplySelection:
    """Replies of one version (None is the base model).

    `guild_id` None is every guild, direct messages included.
    """

    persona_id: str
    version: str | None
    guild_id: int | None = None


@dataclass(frozen=True)
class MemberRating:
    """A member's vote on a reply, 👎 or 👍. `at` in seconds since 1970."""

    at: float
    is_down: bool


class ReplyStats(Table):
    """Counts replies; members are told apart, never named."""

    def of(self, selection: ReplySelection) -> ReplyTally:
        """Tally a selection."""
        sql = f"""select count(*) as replies,
            coalesce(sum({UP_VOTES_SQL}), 0) as up, coalesce(sum({DOWN_VOTES_SQL}), 0) as down,
            count(interrupted_at) as interrupted from replies where {SELECTED_SQL}"""
        row = self._db.first(sql, **asdict(selection))
        return ReplyTally(**row) if row else ReplyTally()

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
