"""Simulated members: how often a version is taken to be worse that is, that is not, or that
somebody wants gone.
"""

import random

import pytest

from bot.versions.statistics.sequential_test import (
    ALPHA,
    ALTERNATIVE_RATE_RATIOS,
    E_VALUE_THRESHOLD,
    MIN_ROLLOUT_MEMBERS,
    LikelihoodRatioEProcess,
    PairedEProcess,
)

MEMBERS = 30


class Talk:
    """Members with habits of their own: how often they talk, like and dislike. One in ten dislikes
    everything.
    """

    def __init__(self, seed, *, down=1.0, up=1.0):
        self.dice = random.Random(seed)
        self.weights = [self.dice.expovariate(1) for _ in range(MEMBERS)]
        self.likes = [self.dice.betavariate(2, 6) for _ in range(MEMBERS)]
        self.dislikes = [
            1.0 if self.dice.random() < 0.1 else self.dice.betavariate(1, 9) for _ in range(MEMBERS)
        ]
        self.times = {False: (1.0, 1.0), True: (down, up)}

    def reply(self, is_new):
        """Who was answered, and what they made of it: "down", "up" or nothing."""
        (member,) = self.dice.choices(range(MEMBERS), self.weights)
        down, up = self.times[is_new]
        if self.dice.random() < self.dislikes[member] * down:
            return member, "down"
        return member, "up" if self.dice.random() < self.likes[member] * up else ""


def taken_back(talk, share, replies, foes=0):
    """After how many replies the new version is taken to be worse; None where it is not. Looked at
    after each vote.

    `foes` of the members read the version's name, dislike the new one always and like the other.
    """
    evidence = LikelihoodRatioEProcess(share)
    for number in range(replies):
        is_new = talk.dice.random() < share
        member, vote = talk.reply(is_new)
        if member < foes:
            vote = "down" if is_new else "up"
        if vote:
            evidence.add(member, is_new=is_new, is_bad=vote == "down")
            if evidence.evidence >= E_VALUE_THRESHOLD:
                return number
    return None


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_the_same_version_twice_is_taken_back_no_more_often_than_stated(share):
    runs = 200
    assert (
        sum(taken_back(Talk(seed, down=1, up=1), share, 400) is not None for seed in range(runs))
        <= ALPHA * runs
    )


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_version_that_is_disliked_three_times_as_often_is_taken_back(share):
    ends = [taken_back(Talk(seed, down=3, up=0.6), share, 2000) for seed in range(60)]
    assert sum(end is not None for end in ends) >= 0.9 * len(ends)


def test_a_better_version_is_not_taken_back():
    assert not any(
        taken_back(Talk(seed, down=0.5, up=1.5), 0.3, 1000) is not None for seed in range(60)
    )


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_too_few_members_cannot_bring_it_about_whatever_they_do(share):
    for foes, can in (
        (1, False),
        (MIN_ROLLOUT_MEMBERS - 1, False),
        (MIN_ROLLOUT_MEMBERS + 1, True),
    ):
        evidence = LikelihoodRatioEProcess(share)
        for member in range(foes):
            for _ in range(3000):
                evidence.add(member, is_new=True, is_bad=True)
                evidence.add(member, is_new=False, is_bad=False)
        assert (evidence.evidence > E_VALUE_THRESHOLD) == can, (foes, evidence.evidence)


def test_one_angry_member_among_many_changes_next_to_nothing():
    ends = [taken_back(Talk(seed), 0.2, 400, foes=1) for seed in range(200)]
    assert sum(end is not None for end in ends) <= ALPHA * len(ends)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("is_bad", [True, False])
def test_no_bet_grows_in_expectation_where_the_draw_decides_nothing(share, is_bad):
    after = {}
    for is_new in (True, False):
        evidence = LikelihoodRatioEProcess(share)
        evidence.add(1, is_new=is_new, is_bad=is_bad)
        after[is_new] = evidence.evidence
    mean = share * after[True] + (1 - share) * after[False]
    capped = any(
        times / (share * times + 1 - share) > E_VALUE_THRESHOLD ** (1 / MIN_ROLLOUT_MEMBERS)
        for pair in ALTERNATIVE_RATE_RATIOS
        for times in pair
    )
    assert mean <= 1 + 1e-9 and (capped or mean == pytest.approx(1))


def test_evidence_of_very_much_is_still_a_number():
    evidence = LikelihoodRatioEProcess(0.1)
    for member in range(5000):
        evidence.add(member, is_new=True, is_bad=True)
    assert evidence.evidence > 1e100


# ------------------------------------------------------------------------------------- then and now


def then_and_now(seed, times, members=60, each=5):
    """After how many members the later version is taken to be worse; members keep their habits."""
    dice = random.Random(seed)
    evidence = PairedEProcess()
    for number in range(members):
        habit = 1.0 if dice.random() < 0.1 else dice.betavariate(1, 9)
        before, now = (
            sum(dice.random() < min(1, habit * factor) for _ in range(each)) / each
            for factor in (1.0, times)
        )
        evidence.add(before, now)
        if evidence.evidence >= E_VALUE_THRESHOLD:
            return number + 1
    return None


def test_later_replies_that_are_no_worse_are_taken_back_no_more_often_than_stated():
    runs = 1000
    assert sum(then_and_now(seed, 1.0) is not None for seed in range(runs)) <= ALPHA * runs


def test_later_replies_that_are_much_worse_are_taken_back():
    ends = [then_and_now(seed, 5.0) for seed in range(100)]
    assert sum(end is not None for end in ends) >= 90


def test_each_member_at_most_doubles_what_was_bet():
    evidence = PairedEProcess()
    for members in range(1, 20):
        evidence.add(0.0, 1.0)
        assert evidence.evidence <= 2**members
    assert evidence.evidence > E_VALUE_THRESHOLD
