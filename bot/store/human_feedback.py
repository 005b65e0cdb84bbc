"""Human feedback for preference training: blind comparisons of two replies, and replies taught through a form."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Literal

from bot.store.database import DatabaseConnection, Row

VoteChoice = Literal["a", "b", "tie", "bad"]


COMPARISON_LIFETIME_S = 86_400.0


"""For so long after it was last shown a comparison may be voted on, in seconds."""


BASE_MODEL_NAME = "base"


"""How the base model is called where a version is wanted."""


BOTH_SERVED_SQL = """not exists (select 1 from withdrawn where withdrawn.persona_id = comparisons.persona_id
    and withdrawn.version in (version_a, version_b))"""


"""Whether what both versions say may still be served."""


@dataclass(frozen=True)
class NewBlindComparison:
    """What a member is shown: A comes first. A version of None is the base model."""

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
    """It was shown at `shown_at` (seconds since 1970); `choice` and `voted_at` are None until the member has voted."""

    seq: int
    shown_at: float
    choice: VoteChoice | None
    voted_at: float | None

    def has_expired(self, at: float) -> bool:
        """Whether it was not voted on in time."""
        return self.choice is None and at - self.shown_at > COMPARISON_LIFETIME_S

    @property
    def chosen(self) -> str | None:
        """The name of the version that was chosen; None for a tie and for both bad."""
        if self.choice not in ("a", "b"):
            return None
        return (self.version_a if self.choice == "a" else self.version_b) or BASE_MODEL_NAME

    @property
    def versions(self) -> tuple[str, str]:
        """The names of both, A first."""
        return self.version_a or BASE_MODEL_NAME, self.version_b or BASE_MODEL_NAME


@dataclass(frozen=True)
class VotePreference:
    """What one vote says for training. `at` in seconds since 1970.

    A decisive vote has both replies, and `versions` names those that made them, in this order. "Both bad" is two of
    these, each with a rejected reply and its version alone. A tie says nothing, and is none.
    """

    prompt_id: str
    prompt: str
    chosen: str | None
    rejected: str | None
    user_id: int
    guild_id: int
    at: float
    versions: tuple[str, ...]


@dataclass(frozen=True)
class JudgementCounts:
    """How often members chose either of two versions, neither (`ties`), or called both bad; and how many voted."""

    for_a: int
    for_b: int
    ties: int
    both_bad: int
    voters: int

    @property
    def votes(self) -> int:
        """All of them."""
        return self.for_a + self.for_b + self.ties + self.both_bad


class BlindComparisons:
    """The comparisons, in the order in which they were shown."""

    def __init__(self, connection: DatabaseConnection) -> None:
        self._db = connection

    def show(self, new: NewBlindComparison, at: float) -> BlindComparison:
        """Note what a member is about to be shown."""
        row = self._db.first(
            """insert into comparisons (guild_id, persona_id, user_id, prompt_id, prompt, version_a, version_b, text_a,
            text_b, seed_a, seed_b, shown_at) values (:guild_id, :persona_id, :user_id, :prompt_id, :prompt,
            :version_a, :version_b, :text_a, :text_b, :seed_a, :seed_b, :at) returning *""",
            {**asdict(new), "at": at},
        )
        assert row is not None  # an insert always returns its row
        return BlindComparison(**row)

    def mark_shown_again(self, seq: int, at: float) -> None:
        """An open comparison is shown once more; how long the member took is counted from here."""
        self._db.write(
            "update comparisons set shown_at = :at where seq = :seq and choice is null", {"seq": seq, "at": at}
        )

    def vote(self, seq: int, user_id: int, choice: VoteChoice, at: float) -> bool:
        """Take a member's vote. False where it is not theirs, is gone, has expired or has been voted on: then nothing
        changes."""
        changed = self._db.write(
            """update comparisons set choice = :choice, voted_at = :at
            where seq = :seq and user_id = :user and choice is null and shown_at >= :since""",
            {"seq": seq, "user": user_id, "choice": choice, "at": at, "since": at - COMPARISON_LIFETIME_S},
        )
        return changed > 0

    def get(self, seq: int) -> BlindComparison | None:
        """The comparison with this number."""
        return _comparison(self._db.first("select * from comparisons where seq = :seq", {"seq": seq}))

    def find_open(
        self, user_id: int, guild_id: int, persona_id: str, versions: tuple[str | None, str | None], at: float
    ) -> BlindComparison | None:
        """What a member was shown of these two versions, in either order, and may still vote on."""
        row = self._db.first(
            f"""select * from comparisons where user_id = :user and guild_id = :guild and persona_id = :persona
            and choice is null and shown_at >= :since and (version_a is :one and version_b is :other
            or version_a is :other and version_b is :one) and {BOTH_SERVED_SQL} order by seq""",
            {
                "user": user_id,
                "guild": guild_id,
                "persona": persona_id,
                "one": versions[0],
                "other": versions[1],
                "since": at - COMPARISON_LIFETIME_S,
            },
        )
        return _comparison(row)

    def votes_since(self, user_id: int, since: float) -> int:
        """How often a member has voted from then on."""
        row = self._db.first(
            "select count(*) as n from comparisons where user_id = :user and voted_at >= :since",
            {"user": user_id, "since": since},
        )
        return row["n"] if row else 0

    def prompts_seen(self, user_id: int, persona_id: str) -> Counter[str]:
        """How often a member was shown which prompt to a persona, by the prompt's id."""
        rows = self._db.read(
            """select prompt_id, count(*) as n from comparisons where user_id = :user and persona_id = :persona
            group by prompt_id""",
            {"user": user_id, "persona": persona_id},
        )
        return Counter({row["prompt_id"]: row["n"] for row in rows})

    def voted(self, persona_id: str, guild_id: int | None = None) -> list[BlindComparison]:
        """The comparisons of a persona that were voted on, in a guild or (None) in all, first vote first."""
        rows = self._db.read(
            """select * from comparisons where persona_id = :persona and choice is not null
            and (:guild is null or guild_id = :guild) order by voted_at, seq""",
            {"persona": persona_id, "guild": guild_id},
        )
        return [BlindComparison(**row) for row in rows]

    def preferences(self, persona_id: str) -> list[VotePreference]:
        """What all votes but ties say for training, first vote first; nothing that a withdrawn version has said."""
        rows = self._db.read(
            f"""select * from comparisons where persona_id = :persona and choice in ('a', 'b', 'bad') and {BOTH_SERVED_SQL}
            order by voted_at, seq""",
            {"persona": persona_id},
        )
        return [preference for row in rows for preference in _preferences(BlindComparison(**row))]

    def judgement_counts(
        self, persona_id: str, version_a: str | None, version_b: str | None, guild_id: int | None = None
    ) -> JudgementCounts:
        """How members voted between two versions (None is the base model), in a guild or in all."""
        pair = {version_a or BASE_MODEL_NAME, version_b or BASE_MODEL_NAME}
        found = [one for one in self.voted(persona_id, guild_id) if set(one.versions) == pair]
        chosen = Counter(one.chosen for one in found)
        bad = sum(one.choice == "bad" for one in found)
        return JudgementCounts(
            for_a=chosen[version_a or BASE_MODEL_NAME],
            for_b=chosen[version_b or BASE_MODEL_NAME],
            ties=chosen[None] - bad,
            both_bad=bad,
            voters=len({one.user_id for one in found}),
        )


def _comparison(row: Row | None) -> BlindComparison | None:
    return BlindComparison(**row) if row else None


def _preferences(one: BlindComparison) -> list[VotePreference]:
    texts, versions, at = (one.text_a, one.text_b), one.versions, one.voted_at or one.shown_at

    def preference(chosen: int | None, rejected: int) -> VotePreference:
        made_by = [versions[which] for which in (chosen, rejected) if which is not None]
        return VotePreference(
            one.prompt_id,
            one.prompt,
            None if chosen is None else texts[chosen],
            texts[rejected],
            one.user_id,
            one.guild_id,
            at,
            tuple(made_by),
        )

    if one.choice == "bad":
        return [preference(None, 0), preference(None, 1)]
    return [preference(0, 1) if one.choice == "a" else preference(1, 0)]


LESSON_COLUMNS = "seq, guild_id, persona_id, user_id, as_moderator, prompt, reply, instead_of, right, at"


@dataclass(frozen=True)
class Lesson:
    """What somebody says to a persona, and what it should answer. `instead_of` is what it should not, empty where
    nobody said.

    `as_moderator`: whoever taught it managed the server then. `right` is under which it may be trained on, `at` when it
    was given (seconds since 1970).
    """

    guild_id: int
    persona_id: str
    user_id: int
    as_moderator: bool
    prompt: str
    reply: str
    instead_of: str
    right: str
    at: float
    seq: int = 0


class Lessons:
    """All that was taught and not taken back."""

    def __init__(self, connection: DatabaseConnection) -> None:
        self._db = connection

    def add(self, lesson: Lesson) -> int:
        """Keep it; gives its number, by which it can be taken back."""
        row = self._db.first(
            """insert into taught (guild_id, persona_id, user_id, as_moderator, prompt, reply, instead_of, right, at)
            values (:guild_id, :persona_id, :user_id, :as_moderator, :prompt, :reply, :instead_of, :right, :at)
            returning seq""",
            vars(lesson),
        )
        assert row is not None  # or it would have raised
        return int(row["seq"])

    def get(self, seq: int) -> Lesson | None:
        """What has this number; None when it was taken back."""
        row = self._db.first(f"select {LESSON_COLUMNS} from taught where seq = :seq", {"seq": seq})
        return _lesson(row) if row else None

    def take_back(self, seq: int) -> bool:
        """It is not kept any more. False when it was not."""
        return self._db.write("delete from taught where seq = :seq", {"seq": seq}) > 0

    def of_persona(self, persona_id: str, guild_id: int) -> list[Lesson]:
        """What a persona was taught in a server, or anywhere for guild 0; oldest first."""
        rows = self._db.read(
            f"""select {LESSON_COLUMNS} from taught where persona_id = :persona and :guild in (0, guild_id)
            order by seq""",
            {"persona": persona_id, "guild": guild_id},
        )
        return [_lesson(row) for row in rows]

    def count(self, user_id: int) -> int:
        """How many replies a member has taught."""
        row = self._db.first("select count(*) as n from taught where user_id = :user", {"user": user_id})
        return int(row["n"]) if row else 0


def _lesson(row: dict[str, object]) -> Lesson:
    return Lesson(**{**row, "as_moderator": bool(row["as_moderator"])})  # type: ignore[arg-type]  # as in the schema
