"""Intervals over conversations."""

import random

import numpy as np
import pytest

from trainer.evaluate.bootstrap import RESAMPLES, bootstrap_ratio


def replies(talks, each, seed, talk_sd=0.0):
    """So many talks of so many replies: differences around -0.1, those of one talk alike."""
    draw = random.Random(seed)
    names = []
    above = []
    below = []
    for talk in range(talks):
        shift = draw.gauss(0, talk_sd)
        for _ in range(each):
            names.append(f"talk {talk}")
            below.append(10.0)
            above.append(10 * (-0.1 + shift + draw.gauss(0, 0.05)))
    return names, above, below


def test_the_estimate_is_the_ratio_of_the_sums_and_the_interval_holds_it():
    names, above, below = replies(30, 2, seed=1)
    found = bootstrap_ratio(names, above, below)
    assert found.estimate == pytest.approx(sum(above) / sum(below))
    assert found.low < found.estimate < found.high
    assert found == bootstrap_ratio(names, above, below)  # seeded


def test_replies_of_one_talk_count_as_one_draw():
    names, above, below = replies(10, 20, seed=2, talk_sd=0.2)
    by_talk = bootstrap_ratio(names, above, below)
    by_reply = bootstrap_ratio([str(place) for place in range(len(names))], above, below)
    assert by_talk.high - by_talk.low > 3 * (by_reply.high - by_reply.low)


@pytest.mark.parametrize(("talks", "each"), [(4, 2), (40, 1)])
def test_the_interval_holds_the_truth_in_95_of_100_cases(talks, each):
    """With few talks plain percentiles would hold it in 80 of 100."""
    found = [bootstrap_ratio(*replies(talks, each, seed, talk_sd=0.1)) for seed in range(150)]
    held = sum(it.low <= -0.1 <= it.high for it in found) / len(found)
    assert 0.9 <= held <= 0.995


def test_fewer_talks_make_a_wider_interval():
    widths = []
    for talks in (2, 5, 9, 10, 20, 80):
        names = ["a", "b"] * (talks // 2) + ["c"] * (talks % 2)
        above = []
        below = [10.0] * talks
        names = [f"{name}{place}" for place, name in enumerate(names)]
        above = [-1.0 + 0.5 * (-1) ** place for place in range(talks)]
        found = bootstrap_ratio(names, above, below)
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)


def test_a_single_talk_is_resampled_reply_by_reply_and_a_single_reply_has_no_width():
    found = bootstrap_ratio(["a"] * 6, [1, 2, 3, 4, 5, 6], [2] * 6)
    assert found.low < found.estimate < found.high
    alone = bootstrap_ratio(["a"], [1.0], [2.0])
    assert (alone.low, alone.estimate, alone.high) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="no replies"):
        bootstrap_ratio([], [], [])


def test_many_talks_are_resampled_in_parts(monkeypatch):
    names, above, below = replies(50, 1, seed=3)
    whole = bootstrap_ratio(names, above, below)
    monkeypatch.setattr("trainer.evaluate.bootstrap.MAX_DRAWS_PER_ARRAY", 50 * RESAMPLES // 7)
    parts = bootstrap_ratio(names, above, below)
    assert np.allclose([whole.low, whole.high], [parts.low, parts.high], atol=2e-3)
