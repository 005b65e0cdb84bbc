"""Belonging: a reply's own question is found among eight, real replies bound it above and shuffled
ones below.
"""

from dataclasses import replace

import numpy as np
import pytest

from personas.schemas.scorecard import BELONGS, HELDOUT_TASK, Interval
from tests.trainer.test_voice_classifier import ADA, data
from trainer.evaluate.generation.belonging import (
    QUESTION_CHOICES,
    group_questions,
    match_questions,
    measure_belonging,
)
from trainer.evaluate.generation.reply_tasks import (
    EvaluationPrompt,
    GeneratedReply,
    MeasuredShares,
    ReplyValue,
    mean_interval,
    paired_difference,
)
from trainer.evaluate.time_budget import TimeBudget
from trainer.schemas import PromptReply

TOPICS = (
    "soup rope gull lamp bell rain boat bread crane ghost chair clock eel frost glove hat ink jam "
    "kite lace"
).split()
PAIRS = tuple(
    PromptReply(f"talk {n}", f"what of the {topic}?", f"the {topic} is here")
    for n, topic in enumerate(TOPICS)
)


def in_words(replies, questions):
    """A judge that counts shared words, and one that finds nothing."""
    shared = [
        [len(set(reply.split()) & set(it.strip("?").split())) for it in questions]
        for reply in replies
    ]
    return [np.array(shared, dtype=float), np.zeros((len(replies), len(questions)))]


def answer(number, text, side="new", seed=0):
    return GeneratedReply(
        EvaluationPrompt(HELDOUT_TASK, number, (1,), ""), side, seed, text, 3, True
    )


def heldout(pairs=PAIRS):
    made = data(ADA, ["a reply"] * 3, ["unused"])
    object.__setattr__(made, "heldout_prompt_replies", tuple(pairs))
    return made


def measured(answers, sides=("new",), seconds=60.0, score=in_words, pairs=PAIRS):
    budget = TimeBudget(seconds)
    return measure_belonging(heldout(pairs), answers, sides, score, budget=budget)


def test_each_asked_question_is_tested_once_among_eight_different_ones():
    groups = group_questions(range(12), PAIRS)
    assert [group.asked for group in groups] == [8, 4]
    assert sorted(n for group in groups for n in group.questions[: group.asked]) == list(range(12))
    assert all(len(set(group.questions)) == QUESTION_CHOICES for group in groups)
    assert set(groups[1].questions[4:]) <= set(range(12, 20)), "those that are not asked fill it up"
    assert group_questions(range(12), PAIRS) == groups


def test_the_same_question_stands_once_and_less_than_eight_are_no_choice():
    again = (
        *PAIRS[:9],
        PromptReply("other", "What of the SOUP? ", "hm"),
        PromptReply("m", "x?", "y", by_persona=False),
    )
    groups = group_questions(range(11), again)
    assert sum(group.asked for group in groups) == 9
    assert (
        group_questions(range(7), PAIRS[:7]) == []
        and measured([answer(0, "soup")], pairs=PAIRS[:7]) is None
    )


def test_a_question_that_suits_every_reply_wins_no_more():
    """Without the correction the last question would get each of these replies."""
    real = np.eye(8) + np.array([0.0] * 7 + [5.0])
    assert real.argmax(axis=1).tolist() == [7] * 8
    assert match_questions([real], [real]).argmax(axis=1).tolist() == list(range(8))


def test_judges_count_alike_whatever_their_scale():
    weak = np.eye(8)[:1] * 1e-3
    sure = np.eye(8)[1:2] * 50.0
    none = np.zeros((8, 8))
    both = match_questions([weak, sure], [none, none])[0]
    assert both[0] == pytest.approx(both[1]) and both[2] < both[0]
    assert np.isfinite(match_questions([none], [none])).all(), (
        "a judge that finds no difference decides nothing"
    )


def test_real_replies_are_the_ceiling_shuffled_ones_the_floor_and_a_version_lies_between():
    said = [
        answer(n, pair.reply if n % 2 else "the weather is fine")
        for n, pair in enumerate(PAIRS[:16])
    ]
    said += [answer(n, "the weather is fine", "base") for n in range(16)]
    section = measured(said, ("base", "new")).section()
    assert section.shares[BELONGS]["base"].estimate < section.shares[BELONGS]["new"].estimate
    assert (
        section.prompts == 16
        and section.ceiling[BELONGS].estimate == 1
        and section.floor[BELONGS].estimate == 0
    )
    assert 0.5 <= section.shares[BELONGS]["new"].estimate < 0.75
    low = section.shares[BELONGS]["new"].low
    high = section.shares[BELONGS]["new"].high
    assert 0.2 < low < section.shares[BELONGS]["new"].estimate < high < 1


def test_as_many_groups_are_measured_as_there_is_time_for_but_one():
    said = [answer(n, pair.reply) for n, pair in enumerate(PAIRS)]
    assert measured(said, seconds=0.0).section().prompts == 8
    assert measured(said).section().prompts == 20


def test_a_prompt_is_matched_once_with_the_reply_of_whichever_seed_answered_it():
    said = [answer(n, pair.reply, seed=n // 8) for n, pair in enumerate(PAIRS[:16])]
    said += [answer(n, "the weather is fine", seed=2) for n in range(8)]
    values = measured(said).values[BELONGS]["new"]
    assert sorted((it.number, it.seed, it.value) for it in values) == [
        (n, n // 8, 1.0) for n in range(16)
    ]


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
