"""Members whose votes look odd."""

import random

import pytest

from bot.versions.statistics.judgement import find_outliers
from tests.bot.simulated_votes import START, a_vote, prefers, votes_of


def crowd(share=0.5, members=10, count=12):
    rng = random.Random(3)
    return [
        vote
        for user in range(members)
        for vote in votes_of(user, prefers("v2", share, rng), count, rng=rng)
    ]


def test_members_who_vote_as_others_do_are_not_flagged_and_random_ones_are_no_liars():
    assert find_outliers(crowd(), "v2") == []
    rng = random.Random(8)
    assert find_outliers([*crowd(), *votes_of(77, lambda a, b: rng.choice("ab"))], "v2") == []


def test_who_always_chooses_one_position_is_flagged():
    odd = find_outliers([*crowd(), *votes_of(77, lambda a, b: "b", 12)], "v2")
    assert [one.user_id for one in odd] == [77] and "12 of 12 votes for B" in odd[0].why[0]


def test_who_votes_faster_than_one_can_read_is_flagged():
    rng = random.Random(9)
    hasty = [a_vote(77, rng.choice("ab"), at=START + number, taken=1.2) for number in range(8)]
    (odd,) = find_outliers([*crowd(), *hasty], "v2")
    assert odd.user_id == 77 and odd.why == ("votes after 1.2 s",)
    assert find_outliers([*crowd(), *hasty[:4]], "v2") == [], "too few to say"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_brigade_stands_out_from_the_others(share):
    brigade = [
        vote
        for user in (77, 78)
        for vote in votes_of(user, prefers("v2", share, random.Random(user)), 20)
    ]
    odd = find_outliers([*crowd(members=18), *brigade], "v2")
    assert [one.user_id for one in odd] == [77, 78]
    assert f"{20 * share:.0f} of 20 votes for v2, others" in odd[0].why[0]


def test_who_agrees_with_all_that_one_version_is_better_is_not_odd():
    assert (
        find_outliers([*crowd(0.9), *votes_of(77, prefers("v2", 1.0, random.Random(1)), 20)], "v2")
        == []
    )
