"""The rule that says which version members like better: its error rate, also under a brigade, and
its power.
"""

import numpy as np
import pytest

from bot.versions.statistics.judgement import MAX_VOTES_PER_MEMBER, MEMBER_WINDOW_S, member_scores
from bot.versions.statistics.sequential_test import (
    ALPHA,
    MAX_CONTAMINATED_SHARE,
    MIN_RULING_MEMBERS,
    confidence_range,
    decide_ruling,
    members_needed,
    votes_needed,
)
from tests.bot.simulated_votes import START, a_vote

MEMBERS = 80
TASTE_CONCENTRATION = 8.0
"""Concentration of the beta distribution: the higher, the less members differ."""


def honest_members(rng, share, members):
    """Members who choose the version in this share of their votes on average."""
    own = rng.beta(share * TASTE_CONCENTRATION, (1 - share) * TASTE_CONCENTRATION, members)
    return rng.binomial(MAX_VOTES_PER_MEMBER, own) / MAX_VOTES_PER_MEMBER


def with_brigade(rng, values, says):
    """Replaces each member with probability 0.1 by one of a brigade that always votes the same."""
    return np.where(rng.random(len(values)) < MAX_CONTAMINATED_SHARE, says, values)


def rulings(runs, share, seed, brigade=None, members=MEMBERS):
    """What the rule says at any time until so many members have voted, over many communities."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(runs):
        values = honest_members(rng, share, members)
        found.append(
            decide_ruling(
                list(with_brigade(rng, values, brigade) if brigade is not None else values)
            )
        )
    return found


def wrong(found, true):
    """The share of rulings that say what is not so."""
    return sum(one not in ("open", *true) for one in found) / len(found)


@pytest.mark.parametrize("brigade", [None, 1.0, 0.0])
def test_of_equal_versions_neither_is_called_better_whether_a_brigade_wishes_it_or_not(brigade):
    assert wrong(rulings(150, 0.5, 1, brigade), ("alike",)) <= ALPHA


@pytest.mark.parametrize(("share", "says"), [(0.7, "better"), (0.3, "worse")])
def test_a_clear_difference_is_seen(share, says):
    assert rulings(60, share, 2).count(says) >= 55


@pytest.mark.parametrize(("share", "says"), [(0.8, "better"), (0.2, "worse")])
def test_a_tenth_against_a_clear_difference_does_not_flip_it(share, says):
    found = rulings(60, share, 3, brigade=float(share < 0.5))
    assert set(found) <= {says, "open"} and found.count(says) >= 50


@pytest.mark.parametrize("early", [True, False])
def test_a_tenth_that_comes_in_one_raid_or_as_early_as_it_can_changes_nothing(early):
    rng = np.random.default_rng(4)
    flipped = 0
    for _ in range(60):
        values = list(honest_members(rng, 0.5, 90))
        if early:
            raided = [1.0 if number % 10 == 0 else value for number, value in enumerate(values)]
        else:
            raided = [*values, *[1.0] * 10]
        flipped += decide_ruling(raided) in ("better", "worse")
    assert flipped <= 60 * ALPHA


def test_both_capitals_have_to_be_there():
    """Without the loudest tenth [0.7] * 20 suffice, and against a higher mean [0.884] * 11: alone,
    neither does.
    """
    assert decide_ruling([0.7] * 20) == "open" and decide_ruling([0.7] * 24) == "better"
    assert decide_ruling([0.884] * 11) == "open" and decide_ruling([0.9] * 11) == "better"


def test_a_mob_that_is_no_tenth_any_more_is_believed():
    values = [1.0 if number % 2 else 0.5 for number in range(MEMBERS)]
    assert decide_ruling(values) == "better"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "brigade", "true"),
    [
        (0.5, None, ("alike",)),
        (0.5, 1.0, ("alike",)),
        (0.5, 0.0, ("alike",)),
        (0.55, 0.0, ("better", "alike")),
        (0.65, 0.0, ("better",)),
        (0.35, 1.0, ("worse",)),
    ],
)
def test_the_error_rate_holds_over_many_communities(share, brigade, true):
    assert wrong(rulings(1500, share, 5, brigade, members=150), true) <= ALPHA


def test_ruled_once_stays_ruled_whoever_comes_later():
    values = [0.8] * 60
    assert decide_ruling(values) == "better"
    assert decide_ruling([*values, *[0.2] * 60]) == "better"
    low = confidence_range(values).low
    high = confidence_range(values).high
    assert 0.5 < low < 0.8 < high
    later = confidence_range([*values, *[0.6] * 30])
    assert later.low >= low and later.high <= high


def test_nothing_is_ruled_among_a_few():
    assert decide_ruling([1.0] * (MIN_RULING_MEMBERS - 1)) == "open" and decide_ruling([]) == "open"
    assert (
        confidence_range([1.0] * (MIN_RULING_MEMBERS - 1)).low == 0.0
        and confidence_range([]).high == 1.0
    )


def test_versions_that_nobody_can_tell_apart_are_called_alike_in_the_end():
    assert decide_ruling([0.5] * 20) == "open"
    assert decide_ruling([0.4, 0.6] * 100) == "alike"


def test_the_needed_members_are_about_those_that_it_then_takes():
    values = [0.7, 0.8, 0.6, 0.7, 0.5, 0.9, 0.7, 0.6, 0.8, 0.7]
    more = members_needed(values)
    assert decide_ruling(values) == "open" and more
    rounds = -(-more // len(values))
    assert decide_ruling(values * (1 + 2 * rounds)) == "better"
    assert decide_ruling(values + values[: more // 3]) == "open"
    assert members_needed([0.5] * 30) is None and members_needed([]) is None
    assert members_needed([1 - value for value in values]) == more


@pytest.mark.parametrize(
    ("share", "votes"), [(0.55, 783), (0.6, 194), (0.65, 85), (0.7, 47), (0.75, 29), (0.45, 783)]
)
def test_a_plain_test_needs_as_many_votes_as_textbooks_say(share, votes):
    assert votes_needed(share) == votes


# ----------------------------------------------------------------------------- who counts, and when


def test_a_member_is_one_number_from_their_first_votes_for_the_version_not_for_a_side():
    votes = [
        a_vote(1, "a", "v2", "v1", at=START),
        a_vote(1, "a", "v1", "v2", at=START + 1),
        a_vote(1, "tie", at=START + 2),
        a_vote(1, "bad", at=START + 3),
    ]
    assert member_scores(votes, "v2", START + MEMBER_WINDOW_S) == [(1 + 0 + 0.5 + 0.5) / 4]
    assert member_scores(votes, "v2", START + MEMBER_WINDOW_S - 1) == [], "more votes may come"
    late = a_vote(1, "a", at=START + MEMBER_WINDOW_S + 1)
    assert member_scores([*votes, late], "v2", START + 2 * MEMBER_WINDOW_S) == [0.5], (
        "too late to count"
    )


def test_ten_votes_complete_a_member_and_more_change_nothing():
    votes = [a_vote(1, "a", at=START + number) for number in range(MAX_VOTES_PER_MEMBER)]
    assert member_scores(votes, "v2", START + MAX_VOTES_PER_MEMBER) == [1.0]
    assert member_scores(votes[:-1], "v2", START + MAX_VOTES_PER_MEMBER) == []
    more = [a_vote(1, "b", at=START + 20 + number) for number in range(50)]
    assert member_scores([*votes, *more], "v2", START + 100) == [1.0]


def test_members_count_in_the_order_of_being_complete_whenever_one_looks():
    slow = [a_vote(1, "a", at=START)]
    quick = [a_vote(2, "b", at=START + 10 + number) for number in range(MAX_VOTES_PER_MEMBER)]
    assert member_scores([*slow, *quick], "v2", START + 100) == [0.0]
    assert member_scores([*quick, *slow], "v2", START + MEMBER_WINDOW_S) == [0.0, 1.0]
