"""Judges the votes between two versions: counts, ruling, and outliers among the voters."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bot.platform.localisation import gettext_lazy
from bot.store import BlindComparison
from bot.versions.statistics.sign_test import (
    NO_PREFERENCE,
    SignTest,
    binomial_tail,
    run_sign_test,
)

MIN_READING_TIME_S = 3.0
"""Time that reading two replies takes at least, in seconds."""
MIN_OUTLIER_VOTES = 5
"""Votes that a member needs to be examined."""
MAX_POSITION_P_VALUE = 0.005
"""Largest p-value of choosing one position so often, given the random order, that counts as odd."""
MAX_DISAGREEMENT_P_VALUE = 0.001
"""Largest p-value of such votes, given the others', that counts as odd."""
MIN_OTHER_MEMBERS = 3
"""Other members, with three decisive votes each, that a comparison with them needs."""
MAX_VOTES_PER_MEMBER = 10
"""Votes of a member between two versions that count for the ruling, so that members weigh alike."""
MEMBER_WINDOW_S = 86_400.0
"""Time after a member's first vote in which their votes count, in seconds."""
UNDECIDED_SCORES = {"tie": NO_PREFERENCE, "bad": NO_PREFERENCE}


@dataclass(frozen=True)
class OutlierMember:
    """A member whose votes look odd, and the reasons."""

    user_id: int
    why: tuple[str, ...]


def find_outliers(votes: Sequence[BlindComparison], version: str) -> list[OutlierMember]:
    """Find members whose votes look odd: unlike the others', for one position, or hasty. Most
    reasons come first.
    """
    members: dict[int, list[BlindComparison]] = defaultdict(list)
    for vote in votes:
        members[vote.user_id].append(vote)
    outliers = []
    for user_id, own in members.items():
        reasons = (
            _disagreement_reason(user_id, members, version),
            _position_bias_reason(own),
            _haste_reason(own),
        )
        if any(reasons):
            outliers.append(OutlierMember(user_id, tuple(filter(None, reasons))))
    return sorted(outliers, key=lambda outlier: -len(outlier.why))


def _haste_reason(own: Sequence[BlindComparison]) -> str:
    taken_s = median(_voted_at(vote) - vote.shown_at for vote in own)
    if len(own) < MIN_OUTLIER_VOTES or taken_s >= MIN_READING_TIME_S:
        return ""
    return gettext_lazy("votes after {seconds:.1f} s", seconds=taken_s)


def _position_bias_reason(own: Sequence[BlindComparison]) -> str:
    decisive = [vote.choice for vote in own if vote.chosen]
    first = decisive.count("a")
    position, most = ("A", first) if first * 2 >= len(decisive) else ("B", len(decisive) - first)
    # Twice, because either position may be the preferred one.
    unlikely = 2 * binomial_tail(most, len(decisive), 0.5) <= MAX_POSITION_P_VALUE
    if unlikely:
        return gettext_lazy(
            "{count} of {votes} votes for {position}, whatever it was",
            count=most,
            votes=len(decisive),
            position=position,
        )
    return ""


def _disagreement_reason(
    user_id: int, members: Mapping[int, Sequence[BlindComparison]], version: str
) -> str:
    """Compares shares of decisive votes; each of the others counts once."""
    own = [vote.chosen == version for vote in members[user_id] if vote.chosen]
    others = []
    for other, votes in members.items():
        choices = [vote.chosen == version for vote in votes if vote.chosen]
        if other != user_id and len(choices) >= MIN_OTHER_MEMBERS:
            others.append(sum(choices) / len(choices))
    if len(own) < MIN_OUTLIER_VOTES or len(others) < MIN_OTHER_MEMBERS:
        return ""
    # Where the others agree, a single different vote would else have the probability 0.
    share = min(max(sum(others) / len(others), 0.05), 0.95)
    ahead = sum(own)
    tail = min(
        binomial_tail(ahead, len(own), share),
        binomial_tail(len(own) - ahead, len(own), 1 - share),
    )
    is_odd = 2 * tail <= MAX_DISAGREEMENT_P_VALUE
    if is_odd:
        return gettext_lazy(
            "{count} of {votes} votes for {version}, others {share:.0%}",
            count=ahead,
            votes=len(own),
            version=version,
            share=share,
        )
    return ""


@dataclass(frozen=True)
class BlindTestJudgement:
    """Result of a blind test of `version` against `against`."""

    version: str
    against: str
    votes: int
    members: int
    test: SignTest
    outliers: tuple[OutlierMember, ...]


def judge_votes(
    comparisons: Sequence[BlindComparison], version: str, against: str, now: float
) -> BlindTestJudgement:
    """Judge the votes on two versions of one persona at a time in seconds since 1970."""
    pair = [vote for vote in comparisons if set(vote.versions) == {version, against}]
    return BlindTestJudgement(
        version=version,
        against=against,
        votes=len(pair),
        members=len({vote.user_id for vote in pair}),
        test=run_sign_test(member_scores(pair, version, now)),
        outliers=tuple(find_outliers(pair, version)),
    )


def member_scores(votes: Iterable[BlindComparison], version: str, now: float) -> list[float]:
    """The members as the rule counts them: each as the mean of their first votes, in the order of
    being complete.

    A member is complete with `MAX_VOTES_PER_MEMBER` votes, or `MEMBER_WINDOW_S` after the first:
    neither depends on what they chose, so nothing is gained by looking at a good moment.
    """
    return [value for at, value in completed_scores(votes, version) if at <= now]


def completed_scores(votes: Iterable[BlindComparison], version: str) -> list[tuple[float, float]]:
    """Return when each member is complete, which may be still to come, and their score."""
    members: dict[int, list[BlindComparison]] = defaultdict(list)
    for vote in sorted(votes, key=_voted_at):
        members[vote.user_id].append(vote)
    scores = [_member_score(own, version) for own in members.values()]
    return sorted(scores, key=lambda score: score[0])


def _member_score(own: Sequence[BlindComparison], version: str) -> tuple[float, float]:
    """Compute when a member is complete, and the mean of the votes that count."""
    complete_at = _voted_at(own[0]) + MEMBER_WINDOW_S
    counted = [vote for vote in own[:MAX_VOTES_PER_MEMBER] if _voted_at(vote) <= complete_at]
    if len(counted) == MAX_VOTES_PER_MEMBER:
        complete_at = _voted_at(counted[-1])
    total = 0.0
    for vote in counted:
        total += UNDECIDED_SCORES.get(vote.choice or "", float(vote.chosen == version))
    return complete_at, total / len(counted)


def _voted_at(vote: BlindComparison) -> float:
    return vote.voted_at or vote.shown_at
