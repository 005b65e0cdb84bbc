"""Shares of replies: their means, intervals and differences."""

from dataclasses import replace

import pytest

from personas.schemas.scorecard import HELDOUT_TASK, Interval
from trainer.evaluate.generation.reply_tasks import (
    MeasuredShares,
    ReplyValue,
    mean_interval,
    paired_difference,
)


def value(unit, number, it, seed=0):
    return ReplyValue(unit, HELDOUT_TASK, number, seed, it)


def test_a_mean_stays_a_share_and_its_interval_is_over_whole_units():
    alone = mean_interval([value(f"talk {n}", n, n % 2) for n in range(40)])
    few = mean_interval([value(f"talk {n // 10}", n, float(n < 20)) for n in range(40)])
    assert alone.estimate == few.estimate == 0.5
    assert few.high - few.low > 2 * (alone.high - alone.low) and few.low >= 0 and few.high <= 1


def test_a_share_of_0_or_1_has_about_the_exact_interval_and_a_wider_one_of_few_units():
    all_right = [value(f"talk {n}", n, 1.0) for n in range(40)]
    right = mean_interval(all_right)
    wrong = mean_interval([replace(it, value=0.0) for it in all_right])
    assert (right.estimate, right.high, wrong.estimate, wrong.low) == (1, 1, 0, 0)
    assert right.low == pytest.approx(0.025 ** (1 / 40), abs=0.02) and wrong.high == pytest.approx(
        1 - right.low
    )
    assert (
        mean_interval([replace(it, unit=f"talk {it.number // 20}") for it in all_right]).low
        < right.low
    )
    assert mean_interval(all_right[:1]) == Interval(estimate=1, low=0, high=1)
    assert mean_interval(all_right[:2]).low == 0


def test_a_difference_is_of_the_same_replies_and_certain_if_it_excludes_zero():
    a = [value(f"talk {n}", n, 1.0) for n in range(20)]
    b = [value(f"talk {n}", n, float(n % 2)) for n in range(20)]
    better = paired_difference(a, [*b, value("elsewhere", 99, 0.0)])
    assert better.estimate == 0.5 and better.low > 0
    assert paired_difference(b, a).high < 0
    noise = paired_difference(
        b, [value(f"talk {n}", n, float((n + n // 3) % 2)) for n in range(20)]
    )
    assert noise.low < 0 < noise.high
    assert paired_difference(a, [value("talk 1", 1, 1.0, seed=9)]) is None


def test_a_section_has_every_side():
    found = MeasuredShares()
    found.add("m", "base", [value("t", 1, 0.0), value("u", 2, 1.0)])
    found.add("m", "new", [value("t", 1, 1.0), value("u", 2, 1.0)])
    section = found.section()
    assert section.prompts == 2 and section.new("m") == 1 and section.new("other") is None
    assert section.shares["m"]["base"].estimate == 0.5 and not section.ceiling
