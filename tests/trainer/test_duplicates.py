"""Duplicates: what counts as one, how well near ones are found, and that clusters only grow."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.conversations import sentence
from trainer.dataset.minhash import MinHashIndex, split_words


def clusters(texts):
    with MinHashIndex() as index:
        for text in texts:
            index.add(text)
        exact, near = index.clusters()
        return exact.tolist(), near.tolist()


def jaccard(left, right):
    sets = [
        set(zip(words, words[1:], words[2:], strict=False))
        for words in (split_words(left), split_words(right))
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def changed(text, count, seed):
    words = text.split()
    draw = random.Random(seed)
    for place in draw.sample(range(len(words)), count):
        words[place] = f"x{draw.random()}"
    return " ".join(words)


def test_the_same_words_are_the_same_whatever_stands_between_them():
    exact, near = clusters(["Hello, world!", "something else", "hello   WORLD", "…", "…", "?!", ""])
    assert exact == near == [0, 1, 0, 3, 3, 5, 6]


def test_near_duplicates_are_found_and_others_left_alone():
    found = {True: [], False: []}
    for number in range(150):
        text = sentence(number, 120)
        other = changed(text, (1, 12)[number % 2], number)
        found[jaccard(text, other) > 0.85].append(clusters([text, other])[1] == [0, 0])
    assert len(found[True]) == 75 and all(found[True])
    assert not any(found[False])


def test_chinese_is_compared_by_characters():
    text = "今天天气很好我们一起去海边散步吧听说那里的风景非常美丽还有很多好吃的东西等着我们去发现"
    assert clusters([text, text[:-1], "作为起重机我每天在码头上搬运货物"])[1] == [0, 0, 2]


def test_a_word_that_differs_in_a_short_text_is_a_difference():
    assert clusters([f"question {n} answer {n}" for n in range(300)])[1] == list(range(300))
    assert clusters([f"What do you weigh? I weigh {n} stone." for n in ("ten", "two", "six")])[
        1
    ] == [0, 1, 2]


def test_what_is_like_one_of_a_cluster_belongs_to_it():
    first = sentence(1, 100)
    second = changed(first, 2, 1)
    third = ""
    third = changed(second, 3, 2)
    assert jaccard(first, third) < jaccard(first, second)
    assert clusters([third, sentence(2), first, second])[1] == [0, 1, 0, 0]


def test_a_template_repeated_does_not_take_for_ever():
    texts = [f"{sentence(7, 40)} number {n} {sentence(n, 12)}" for n in range(3000)]
    _, near = clusters(texts)
    assert len(set(near)) > 1000


texts = st.lists(st.sampled_from([sentence(n, 40) for n in range(6)]), max_size=12).map(
    lambda chosen: [changed(text, place % 4, place) for place, text in enumerate(chosen)]
)


@settings(max_examples=60, deadline=None)
@given(texts, texts)
def test_clusters_only_grow(before, more):
    _, few = clusters(before)
    _, all_of_them = clusters(before + more)
    assert all(
        all_of_them[one] == all_of_them[other]
        for one in range(len(few))
        for other in range(len(few))
        if few[one] == few[other]
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=20))
def test_any_text_is_taken(given_texts):
    exact, near = clusters(given_texts)
    assert len(exact) == len(near) == len(given_texts)
    assert all(
        exact[place] <= place and near[place] <= exact[place] for place in range(len(given_texts))
    )


@pytest.mark.parametrize("count", [1, 99_999, 100_001])
def test_batches_change_nothing(monkeypatch, count):
    texts = [sentence(n % 40, 30) for n in range(120)]
    expected = clusters(texts)
    monkeypatch.setattr("trainer.dataset.minhash.BATCH_SHINGLES", count)
    assert clusters(texts) == expected


def test_the_signatures_never_change():
    """What is held out depends on them: other numbers here move conversations of data sets that
    exist.
    """
    with MinHashIndex() as index:
        index.add("The quick brown fox jumps over the lazy dog.")
        index._flush()
        minima = np.memmap(index._minima, dtype=np.uint16, mode="r")
        assert minima[:6].tolist() == [780, 28972, 2755, 5970, 5120, 3297]
