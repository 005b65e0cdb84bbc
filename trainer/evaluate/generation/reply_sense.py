"""Estimated sense of replies: the mark that a reader would give, learned from replies that readers
have marked.

`data/evaluation/marks.jsonl` has the marks, and docs/quality.md the agreement with them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from personas.lore.index_terms import STOP_WORDS
from personas.lore.minilm import Vectors, load_minilm
from trainer.dataset.minhash import split_words
from trainer.dataset.synthetic.question_bank import IN_EARNEST, read_openers
from trainer.evaluate.generation.reply_tasks import MARKS_FILE, read_jsonl

MARK_VALUES = {"sensible": 1.0, "half": 0.5, "beside": 0.0, "contradicts": 0.0}
"""What a reader's mark is worth."""
PENALTY = 0.003
"""L2 penalty of the fit."""
OTHER_QUESTIONS_STEP = 8
"""Every eighth English opener is one of the questions that a reply does not answer."""
NO_TEXT = "."
STAGE_DIRECTION = re.compile(r"\*[^*]*\*")
Features = NDArray[np.float64]


@dataclass(frozen=True)
class MarkedReply:
    """A reply with the marks of the readers, from `source`: `real`, `trained`, `base` or
    `shuffled`.

    `features` are those of `sense_features`, stored.
    """

    persona: str
    source: str
    question: str
    reply: str
    marks: tuple[str, ...]
    features: tuple[float, ...]

    @property
    def mean_mark(self) -> float:
        """Mean of the marks: 1 is sensible, 0 beside the point or contradicting."""
        return sum(MARK_VALUES[mark] for mark in self.marks) / len(self.marks)


@dataclass(frozen=True)
class SenseEstimator:
    """Estimates marks as a product of two logistic functions: whether a reply is to the point, by
    its first feature, and whether it repeats itself, by the second.

    A product, because a reply has to be both. Features are standardised by `mean` and `deviation`;
    `weights` are of the features, then the two intercepts.
    """

    mean: Features
    deviation: Features
    weights: Features

    @classmethod
    def fit(cls, marked: Sequence[MarkedReply]) -> "SenseEstimator":
        """Fit to mean marks, by cross-entropy. Raises `ValueError` without marks."""
        if not marked:
            raise ValueError("no marks to learn from")
        from scipy.optimize import minimize  # importing takes half a second

        features = np.array([reply.features for reply in marked])
        marks = np.array([reply.mean_mark for reply in marked])
        mean = features.mean(axis=0)
        deviation = np.maximum(features.std(axis=0), np.finfo(float).tiny)

        def loss(weights: Features) -> float:
            chance = np.clip(cls(mean, deviation, weights).estimate(features), 1e-6, 1 - 1e-6)
            entropy = marks * np.log(chance) + (1 - marks) * np.log(1 - chance)
            return float(PENALTY * np.sum(weights[:-2] ** 2) - entropy.mean())

        start = np.ones(features.shape[1] + 2)
        return cls(mean, deviation, minimize(loss, start, method="BFGS").x)

    def estimate(self, features: Features) -> Features:
        """Estimate the marks of replies from their features, [replies, features]."""
        standard = (features - self.mean) / self.deviation
        by_relevance, by_variety, relevance, variety = self.weights
        to_the_point = standard[:, 0] * by_relevance + relevance
        varied = standard[:, 1] * by_variety + variety
        return _logistic(to_the_point) * _logistic(varied)


def read_marks() -> list[MarkedReply]:
    """Read the marked replies."""
    marked = []
    for row in read_jsonl(MARKS_FILE):
        marked.append(
            MarkedReply(
                persona=row["persona"],
                source=row["source"],
                question=row["question"],
                reply=row["reply"],
                marks=tuple(row["marks"]),
                features=tuple(row["features"]),
            )
        )
    return marked


def fit_without(persona: str | None, marked: Sequence[MarkedReply]) -> SenseEstimator:
    """Fit to the marks of the other personas, so that nobody is judged by their own."""
    return SenseEstimator.fit([reply for reply in marked if reply.persona != persona])


def sense_features(pairs: Sequence[tuple[str, str]]) -> Features:
    """Return the features of pairs of a question and a reply, [pairs, 2].

    They are the share of other questions that are farther from the reply than its own is, and the
    share of the reply's words that are different ones. The reply is read without the words of its
    question: one that says the question again is near to it, and no answer. Without any word of its
    own beside the commonest, its first feature is 0.
    """
    encoder = load_minilm()
    others = _other_vectors()
    questions = [question for question, _ in pairs]
    remaining = [remove_words_of(question, reply) for question, reply in pairs]
    texts = list(dict.fromkeys((*questions, *remaining)))
    vectors = dict(zip(texts, encoder.embed(texts), strict=True))
    rows = []
    for (question, reply), rest in zip(pairs, remaining, strict=True):
        near = vectors[rest] @ vectors[question]
        rank = float(np.mean(others @ vectors[rest] < near)) if content_words(rest) else 0.0
        rows.append((rank, share_of_different_words(reply)))
    return np.array(rows)


@lru_cache
def other_questions() -> tuple[str, ...]:
    """Return the openers with which a reply's own question is compared."""
    english = [
        row.text for row in read_openers() if row.lang == "en" and row.kind not in IN_EARNEST
    ]
    return tuple(text.replace("{{char}}", "they") for text in english[::OTHER_QUESTIONS_STEP])


@lru_cache
def _other_vectors() -> Vectors:
    return load_minilm().embed(other_questions())


def remove_words_of(question: str, reply: str) -> str:
    """Return a reply without the question's words beside the commonest, and, unless there is
    nothing else, without stage directions.
    """
    asked = content_words(question)
    spoken = STAGE_DIRECTION.sub(" ", reply).strip() or reply
    rest = [word for word in spoken.split() if not asked.intersection(split_words(word))]
    return " ".join(rest) or NO_TEXT


def content_words(text: str) -> set[str]:
    """Return the words of a text that are none of the commonest."""
    return {word for word in split_words(text) if word not in STOP_WORDS}


def share_of_different_words(reply: str) -> float:
    """Return the share of a reply's words that are different ones; 0 without words."""
    words = split_words(reply)
    return len(set(words)) / max(len(words), 1)


def _logistic(values: Features) -> Features:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -30, 30))))
