"""Scores of texts, against values reckoned by hand."""

import pytest

from personas.schemas.scorecard import HELDOUT_TASK, MeanStd
from trainer.evaluate.generation.reply_tasks import (
    EvaluationPrompt,
    GeneratedReply,
    select_replies,
    true_share,
)
from trainer.evaluate.generation.text_metrics import score_texts, split_words


def test_rouge_by_hand():
    scores = score_texts(["The cat sat on the mat."], ["the CAT sat"])
    # Three of three words and three of six; two of two pairs and two of five; the longest common
    # run is three.
    assert scores["rouge1"] == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert scores["rouge2"] == pytest.approx(2 * 1 * 0.4 / 1.4)
    assert scores["rougeL"] == pytest.approx(2 * 1 * 0.5 / 1.5)
    swapped = score_texts(["sat the cat"], ["the cat sat"])
    assert swapped["rouge1"] == pytest.approx(1) and swapped["rougeL"] == pytest.approx(2 / 3)


def test_rouge_is_the_mean_over_texts_and_the_best_over_references():
    assert score_texts(["one two", "three"], ["one two", "four"])["rouge1"] == pytest.approx(0.5)
    assert score_texts([["nothing like it", "one two"]], ["one two"])["rouge1"] == pytest.approx(1)


def test_rouge_knows_letters_beyond_ascii():
    assert score_texts(["đèn lồng đỏ"], ["Đèn lồng"])["rouge1"] == pytest.approx(
        2 * 1 * (2 / 3) / (5 / 3)
    )
    assert split_words("你好, Ada") == ["你", "好", "ada"]
    assert score_texts(["你好吗"], ["你好"])["rouge1"] == pytest.approx(2 * 1 * (2 / 3) / (5 / 3))


def test_bleu_by_hand():
    scores = score_texts(["the cat sat on a mat"], ["the cat sat on the mat"])
    # 5 of 6 words ("the" counts once), 3 of 5 pairs, 2 of 4 triples, 1 of 3 runs of four; as long
    # as the reference.
    assert scores["bleu"] == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25, abs=1e-6)
    # Where nothing parts the words characters count: 3 of 4, 2 of 3, 1 of 2, none of 1 (counted as
    # half of one).
    assert score_texts(["一二三四"], ["一二三五"])["bleu"] == pytest.approx(
        (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25
    )


def test_chrf_by_hand():
    # Of abc and abd: 2 of 3 letters, 1 of 2 pairs, 0 of 1 triple, in both directions.
    assert score_texts(["abd"], ["abc"])["chrf"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3, abs=1e-6)
    assert score_texts(["abd"], ["abd"])["chrf"] == pytest.approx(1)


def test_variety_repetition_and_length_by_hand():
    scores = score_texts(["a b c d", "a b"], ["a b a", "a c"])
    assert scores["distinct1"] == pytest.approx(3 / 5) and scores["distinct2"] == pytest.approx(
        3 / 3
    )
    assert scores["length_ratio"] == pytest.approx(5 / 6)
    assert score_texts(["x"], ["a b c d a b c d"])["repetition"] == pytest.approx(1 / 5)
    assert (
        score_texts(["x", "x"], ["a b c d", "a b c d"])["repetition"] == 0
    )  # two texts may say the same


def test_an_empty_reply_scores_nothing():
    scores = score_texts(["a b c"], [""])
    assert {name: scores[name] for name in ("rouge1", "rougeL", "bleu", "distinct1", "length_ratio")} == {
        "rouge1": 0, "rougeL": 0, "bleu": 0, "distinct1": 0, "length_ratio": 0,
    }  # fmt: skip


def test_texts_and_references_have_to_be_as_many():
    with pytest.raises(ValueError, match="1 candidates for 2 references"):
        score_texts(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="0 candidates"):
        score_texts([], [])


def answer(number, side, seed, text, ended=True, task=HELDOUT_TASK):
    return GeneratedReply(
        EvaluationPrompt(task, number, (1, 2), "hello"), side, seed, text, 3, ended
    )


def test_answers_are_found_by_task_side_and_seed():
    answers = [
        answer(2, "new", 0, "b"),
        answer(1, "new", 0, "a"),
        answer(1, "new", 1, "c"),
        answer(1, "base", 0, "d"),
    ]
    assert [it.text for it in select_replies(answers, HELDOUT_TASK, side="new", seed=0)] == [
        "a",
        "b",
    ]
    assert [it.text for it in select_replies(answers, HELDOUT_TASK, side="new")] == ["a", "c", "b"]


def test_one_run_has_no_deviation_and_none_has_no_mean():
    assert MeanStd.of([0.25]).sd == 0 and MeanStd.of([0.25]).runs == 1
    with pytest.raises(ValueError, match="no runs"):
        MeanStd.of([])
    assert true_share([]) == 0 and true_share([True, False]) == 0.5
