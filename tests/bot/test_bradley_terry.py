"""Bradley and Terry's strengths, their intervals by member, and members whose votes look odd."""

import math
import random

import pytest

from bot.versions.statistics.bradley_terry import fit_strengths, win_probability
from bot.versions.statistics.judgement import find_outliers
from tests.bot.simulated_votes import START, a_vote, prefers, votes_of


def test_two_versions_have_the_odds_of_the_votes_with_ties_by_halves():
    votes = (
        [a_vote(1, "a")] * 5
        + [a_vote(2, "a", "v1", "v2")] * 2
        + [a_vote(3, "tie")]
        + [a_vote(3, "bad")]
    )
    (found,) = fit_strengths(votes, "v1")
    assert found.version == "v2" and found.log_odds == pytest.approx(
        math.log((5 + 1 + 0.5) / (2 + 1 + 0.5))
    )
    assert win_probability(found.log_odds) == pytest.approx(6.5 / 10)
    (other,) = fit_strengths(votes, "v2")
    assert other.log_odds == pytest.approx(-found.log_odds)


def test_one_sided_votes_do_not_give_endless_odds():
    (found,) = fit_strengths([a_vote(user, "a") for user in range(6)], "v1")
    assert found.log_odds == pytest.approx(math.log(6.5 / 0.5)) and found.high < 4


def test_several_versions_are_fitted_together_and_what_is_not_connected_is_left_out():
    """Votes made of known strengths: the fit of all pairs finds them again."""
    true = {"base": 0.0, "v1": 0.7, "v2": 1.5}
    rng = random.Random(1)
    votes = []
    pairs = [("v1", "base"), ("v2", "v1")]
    for number in range(4000):
        a, b = pairs[number % 2]
        votes.append(
            a_vote(
                number % 50, "a" if rng.random() < win_probability(true[a] - true[b]) else "b", a, b
            )
        )
    found = {
        one.version: one for one in fit_strengths([*votes, a_vote(1, "a", "v8", "v9")], "base")
    }
    assert set(found) == {"v1", "v2"}
    assert [one.version for one in fit_strengths(votes, "base")] == ["v2", "v1"], "strongest first"
    for version in ("v1", "v2"):
        assert found[version].log_odds == pytest.approx(true[version], abs=0.25)
        assert found[version].low < true[version] < found[version].high


def test_the_interval_is_wider_where_members_differ_though_the_votes_are_the_same():
    agreed = []
    split = []
    for user in range(20):
        rng = random.Random(user)
        agreed += votes_of(
            user, lambda a, b, rng=rng: rng.choice("ab"), count=20, rng=random.Random(user)
        )
        split += votes_of(
            user, prefers("v2", float(user % 2), rng), count=20, rng=random.Random(user)
        )
    (narrow,), (wide,) = fit_strengths(agreed, "v1"), fit_strengths(split, "v1")
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    rng = random.Random(5)
    for _ in range(40):
        votes = [
            vote
            for user in range(40)
            for vote in votes_of(user, prefers("v2", 0.6, rng), 5, rng=rng)
        ]
        (found,) = fit_strengths(votes, "v1")
        hits += found.low < math.log(0.6 / 0.4) < found.high
    assert hits >= 34


def test_a_few_members_have_no_interval_and_no_votes_no_strength():
    (found,) = fit_strengths([a_vote(user, "a") for user in range(4)], "v1")
    assert found.low is None and found.high is None
    assert fit_strengths([], "v1") == []


# -------------------------------------------------------------------------------------- odd members


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
