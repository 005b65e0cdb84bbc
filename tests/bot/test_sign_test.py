"""The rule that says which version more members prefer: its exact error rate, also under a
coordinated tenth, and its power.
"""

from collections import defaultdict
from itertools import pairwise, product
from math import comb, prod

import pytest

from bot.versions.statistics.judgement import MAX_VOTES_PER_MEMBER, MEMBER_WINDOW_S, member_scores
from bot.versions.statistics.sign_test import ALPHA, LOOKS, run_sign_test, sign_test_p_value
from tests.bot.simulated_votes import START, a_vote


def chances(share, forged=(0, 0, 0)):
    """The exact probability of each ruling by the last look, where so many members prefer the
    version, by enumeration of the honest votes between the looks. Between them, so many forged
    votes for the version are added.
    """
    sizes = [end - start for start, end in pairwise((0, *LOOKS))]
    honest = [size - extra for size, extra in zip(sizes, forged, strict=True)]
    found = defaultdict(float)
    for counts in product(*(range(size + 1) for size in honest)):
        scores = []
        for size, extra, count in zip(sizes, forged, counts, strict=True):
            scores += [1.0] * (count + extra) + [0.0] * (size - count - extra)
        ways = prod(comb(size, count) for size, count in zip(honest, counts, strict=True))
        liking = sum(counts)
        weight = ways * share**liking * (1 - share) ** (sum(honest) - liking)
        found[run_sign_test(scores).ruling] += weight
    assert sum(found.values()) == pytest.approx(1)
    return found


def test_of_equal_versions_neither_is_preferred_by_chance_more_often_than_stated():
    found = chances(0.5)
    assert found["better"] == pytest.approx(found["worse"])
    assert found["better"] + found["worse"] == pytest.approx(0.006, abs=0.0005)
    assert found["better"] + found["worse"] <= ALPHA and found["open"] == 0


@pytest.mark.parametrize("forged", [(1, 1, 2), (0, 2, 2), (0, 0, 4), (1, 0, 3)])
def test_a_coordinated_tenth_does_not_decide_between_equal_versions(forged):
    found = chances(0.5, forged)
    assert found["better"] + found["worse"] <= ALPHA


@pytest.mark.parametrize("look", LOOKS)
def test_each_look_has_a_third_of_the_error_rate_whoever_a_tenth_votes_for(look):
    forged = look // 10
    honest = look - forged
    wrong = 0.0
    for count in range(honest + 1):
        if sign_test_p_value(count + forged, look) <= ALPHA / 3:
            wrong += comb(honest, count) / 2**honest
    assert wrong <= ALPHA / 3


@pytest.mark.parametrize(
    ("share", "power"), [(0.6, 0.047), (0.7, 0.333), (0.75, 0.604), (0.8, 0.849), (0.9, 0.999)]
)
def test_a_preference_is_found_as_often_as_the_docs_say(share, power):
    assert chances(share)["better"] == pytest.approx(power, abs=0.0006)
    assert chances(1 - share)["worse"] == pytest.approx(power, abs=0.0006)


@pytest.mark.parametrize(("look", "needed"), [(10, 10), (20, 17), (40, 30)])
def test_so_many_members_decide_a_look_and_one_less_does_not(look, needed):
    limit = ALPHA / len(LOOKS)
    assert sign_test_p_value(needed, look) <= limit < sign_test_p_value(needed - 1, look)
    assert sign_test_p_value(look - needed, look) == sign_test_p_value(needed, look)


def test_it_is_looked_at_when_so_many_prefer_one_and_at_no_other_time():
    found = run_sign_test([1.0] * 9)
    assert (found.ruling, found.next_look, found.share) == ("open", 10, None)
    assert run_sign_test([1.0] * 9 + [0.5] * 20).ruling == "open", "who prefers neither is none"
    found = run_sign_test([0.0] + [1.0] * 18)
    assert (found.ruling, found.members, found.next_look) == ("open", 19, 20)
    found = run_sign_test([0.0] + [1.0] * 19)
    assert (found.ruling, found.share, found.next_look) == ("better", 0.95, None)
    assert run_sign_test([]).ruling == "open"


def test_a_ruling_stays_whoever_comes_later():
    assert run_sign_test([1.0] * 10 + [0.0] * 90).ruling == "better"
    even = [1.0, 0.0] * 20
    found = run_sign_test([*even, *[1.0] * 100])
    assert (found.ruling, found.preferring, found.members) == ("undecided", 20, 40)
    assert (found.share, found.next_look) == (None, None)


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
