"""Blind comparisons of two replies, with the members' votes."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from bot.platform.db.database import Table

VoteChoice = Literal["a", "b", "tie", "bad"]

COMPARISON_LIFETIME_S = 86_400.0
"""Time after which a comparison can no longer be voted on, in seconds since it was last shown."""
BASE_MODEL_NAME = "base"
"""Name of the base model where a version is expected."""
BOTH_SERVED_SQL = """not exists (select 1 from withdrawn where withdrawn.persona_id = comparisons.persona_id
    and withdrawn.version in (version_a, version_b))"""
"""Condition that neither version was withdrawn."""
PREFERRED_SQL = f"""persona_id = :persona and :guild in (0, guild_id) and {BOTH_SERVED_SQL}
    and (choice = 'bad' or choice in ('a', 'b') and text_a <> text_b)"""
"""Condition for votes that prefer one reply, or neither; both versions may say the same."""


@dataclass(frozen=True)
class NewBlindComparison:
    """The two replies to show to a member, A first. A version of None is the base model."""

    guild_id: int
    persona_id: str
    user_id: int
    prompt_id: str
    prompt: str
    version_a: str | None
    version_b: str | None
    text_a: str
    text_b: str
    seed_a: int
    seed_b: int


@dataclass(frozen=True)
class BlindComparison(NewBlindComparison):
    """A comparison shown at `shown_at` (seconds since 1970); `choice` and `voted_at` are None until
    the vote.
    """

    seq: int
    shown_at: float
    choice: VoteChoice | None
    voted_at: float | None

    def has_expired(self, at: float) -> bool:
        """Return whether the time to vote has passed without a vote."""
        return self.choice is None and at - self.shown_at > COMPARISON_LIFETIME_S

    @property
    def chosen(self) -> str | None:
        """The name of the chosen version; None for a tie and for both bad."""
        match self.choice:
            case "a":
                return self.version_a or BASE_MODEL_NAME
            case "b":
                return self.version_b or BASE_MODEL_NAME
        return None

    @property
    def versions(self) -> tuple[str, str]:
        """The names of both versions, A first."""
        return self.version_a or BASE_MODEL_NAME, self.version_b or BASE_MODEL_NAME


@dataclass(frozen=True)
class VotePreference:
    """Preference data of one vote. `at` in seconds since 1970.

    A decisive vote gives one with both replies, "both bad" two with one rejected reply each, a tie
    none.
    """

    prompt: str
    chosen: str | None
    rejected: str
    user_id: int
    guild_id: int
    at: float


class JudgementCounts(NamedTuple):
    """Number of votes for either of two versions, for neither (`ties`) and against both."""

    for_a: int
    for_b: int
    ties: int
    both_bad: int


class BlindComparisons(Table):
    """The comparisons, in the order in which they were shown."""

    def show(self, new: NewBlindComparison, at: float) -> BlindComparison:
        """Store a comparison before it is shown."""
        row = {**asdict(new), "shown_at": at}
        return BlindComparison(
            seq=self._db.insert("comparisons", row), choice=None, voted_at=None, **row
        )

    def mark_shown_again(self, seq: int, at: float) -> None:
        """Restart the time of an open comparison that is shown again."""
        self._db.write(
            "update comparisons set shown_at = :at where seq = :seq and choice is null",
            seq=seq,
            at=at,
        )

    def vote(self, seq: int, user_id: int, choice: VoteChoice, at: float) -> bool:
        """Store a member's vote. False, and no change, where it is another member's, deleted,
        expired or voted on.
        """
        sql = """update comparisons set choice = :choice, voted_at = :at
            where seq = :seq and user_id = :user and choice is null and shown_at >= :since"""
        return (
            self._db.write(
                sql, seq=seq, user=user_id, choice=choice, at=at, since=at - COMPARISON_LIFETIME_S
            )
            > 0
        )

    def get(self, seq: int) -> BlindComparison | None:
        """Return the comparison with this number."""
        return self._db.one(BlindComparison, "select * from comparisons where seq = :seq", seq=seq)

    def find_open(
        self,
        user_id: int,
        guild_id: int,
        persona_id: str,
        versions: tuple[str | None, str | None],
        at: float,
    ) -> BlindComparison | None:
        """Find a comparison of these two versions, in either order, that a member may still vote
        on.
        """
        sql = f"""select * from comparisons where user_id = :user and guild_id = :guild and persona_id = :persona
            and choice is null and shown_at >= :since and (version_a is :one and version_b is :other
            or version_a is :other and version_b is :one) and {BOTH_SERVED_SQL} order by seq"""
        since = at - COMPARISON_LIFETIME_S
        named = {
            "user": user_id,
            "guild": guild_id,
            "persona": persona_id,
            "one": versions[0],
            "other": versions[1],
        }
        return self._db.one(BlindComparison, sql, since=since, **named)

    def votes_since(self, user_id: int, since: float) -> int:
        """Count a member's votes since a time."""
        sql = "select count(*) from comparisons where user_id = :user and voted_at >= :since"
        return self._db.value(int, sql, user=user_id, since=since) or 0

    def prompts_seen(self, user_id: int, persona_id: str) -> Counter[str]:
        """Count how often each prompt, by id, was shown to a member with a persona."""
        sql = """select prompt_id, count(*) as n from comparisons where user_id = :user and persona_id = :persona
            group by prompt_id"""
        rows = self._db.read(sql, user=user_id, persona=persona_id)
        return Counter({row["prompt_id"]: row["n"] for row in rows})

    def voted(self, persona_id: str, guild_id: int | None = None) -> list[BlindComparison]:
        """List the comparisons of a persona with a vote, in a guild or (None) in all, first vote
        first.
        """
        sql = """select * from comparisons where persona_id = :persona and choice is not null
            and (:guild is null or guild_id = :guild) order by voted_at, seq"""
        return self._db.all(BlindComparison, sql, persona=persona_id, guild=guild_id)

    def preferences(self, persona_id: str, guild_id: int, limit: int) -> list[VotePreference]:
        """List the preferences from the latest votes but ties, first vote first, without withdrawn
        versions.

        Of a guild or, for guild 0, of all.
        """
        sql = (
            f"select * from comparisons where {PREFERRED_SQL} order by voted_at desc, seq desc "
            "limit :limit"
        )
        voted = self._db.all(BlindComparison, sql, persona=persona_id, guild=guild_id, limit=limit)
        preferences = []
        for comparison in reversed(voted):
            preferences += _preferences(comparison)
        return preferences

    def has_preferences(self, persona_id: str, guild_id: int) -> bool:
        """Report whether `preferences` would list any."""
        sql = f"select 1 from comparisons where {PREFERRED_SQL} limit 1"
        return self._db.first(sql, persona=persona_id, guild=guild_id) is not None

    def count_preferences(self, persona_id: str, guild_id: int, since: float) -> int:
        """Count the votes since a time that `preferences` would list."""
        sql = f"select count(*) from comparisons where {PREFERRED_SQL} and voted_at > :since"
        return self._db.value(int, sql, persona=persona_id, guild=guild_id, since=since) or 0

    def judgement_counts(
        self,
        persona_id: str,
        version_a: str | None,
        version_b: str | None,
        guild_id: int | None = None,
    ) -> JudgementCounts:
        """Count the votes between two versions (None is the base model), in a guild or in all."""
        pair = {version_a or BASE_MODEL_NAME, version_b or BASE_MODEL_NAME}
        votes = [vote for vote in self.voted(persona_id, guild_id) if set(vote.versions) == pair]
        chosen = Counter(vote.chosen for vote in votes)
        bad = sum(vote.choice == "bad" for vote in votes)
        for_a = chosen[version_a or BASE_MODEL_NAME]
        for_b = chosen[version_b or BASE_MODEL_NAME]
        return JudgementCounts(for_a, for_b, ties=chosen[None] - bad, both_bad=bad)


def _preferences(vote: BlindComparison) -> list[VotePreference]:
    a = vote.text_a
    b = vote.text_b
    pairs: dict[str | None, list[tuple[str | None, str]]] = {
        "a": [(a, b)],
        "b": [(b, a)],
        "bad": [(None, a), (None, b)],
    }
    preferences = []
    for chosen, rejected in pairs[vote.choice]:
        preference = VotePreference(
            prompt=vote.prompt,
            chosen=chosen,
            rejected=rejected,
            user_id=vote.user_id,
            guild_id=vote.guild_id,
            at=vote.voted_at or vote.shown_at,
        )
        preferences.append(preference)
    return preferences
