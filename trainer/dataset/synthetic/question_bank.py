"""Draws the questions that a voice is trained on without anybody's messages: openers written for
this project (`data/questions/openers.jsonl`), and questions made by rules from card and lore.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from personas.lore.passages import Passage
from personas.schemas.chat import Persona
from personas.shipped_folders import SHIPPED_DATA
from trainer.dataset.minhash import MinHashIndex, split_words
from trainer.dataset.synthetic.lore_subjects import find_language
from trainer.dataset.synthetic.question_rules import (
    card_questions,
    lore_questions,
    world_questions,
)

OPENERS_FILE = SHIPPED_DATA / "questions" / "openers.jsonl"
EVALUATION_PROMPTS = (
    "evaluation/*.jsonl",
    "evaluation/prompts/*.txt",
    "questions/lore.jsonl",
    "questions/small_talk*.txt",
)
"""Files of `data` whose messages measure a version. Nothing may be trained on them."""
MAX_HELD_OUT_COSINE = 0.7
"""TF-IDF cosine from which a question counts as a held-out message in other words.

"got any hobbies" and "hobbies" have 0.73; "is there somebody you miss" and "Tell me about somebody
you miss." have 0.64.
"""
LORE = "lore"
CARD = "card"
WORLD = "world"
AI_OR_PERSON = "ai_or_person"
SINCERE = "sincere"
IN_EARNEST = frozenset({AI_OR_PERSON, SINCERE})
"""Kinds that a model which plays a part answers with a claim to be human, or a joke."""
OTHER_LANGUAGE = "other_language"
SHARES = {
    LORE: 16,
    CARD: 8,
    "self": 11,
    WORLD: 6,
    "small_talk": 8,
    "feelings": 8,
    "advice": 7,
    "opinion": 6,
    AI_OR_PERSON: 7,
    SINCERE: 5,
    "provocation": 4,
    "knowledge": 3,
    "creative": 3,
    "humour": 3,
    "fragment": 2,
    OTHER_LANGUAGE: 3,
}
"""Shares of a draw by kind, in percent.

Four in ten ask about the character and its world, because nothing else teaches a version what its
card and lore say. Three in ten are what communities talk about most. One in six is sincere or
provoking: a reply that claims to be human or leaves the role fails the gate. Every training has the
few openers that ask whether a person writes: of one or two, a small model does not learn to say so.
The rest, and a few in languages that are not the persona's, keep a version from answering only what
it was asked about in training.
"""


@dataclass(frozen=True)
class Question:
    """A first message to a persona. `lang` is its ISO 639-1 code; `kind` is one of `SHARES`, but
    not `OTHER_LANGUAGE`.
    """

    text: str
    kind: str
    lang: str


def draw_questions(
    persona: Persona,
    passages: Sequence[Passage],
    count: int,
    *,
    seed: int,
    excluded: Iterable[str] = (),
) -> list[Question]:
    """Draw `count` different questions for a persona, or all there are if these are fewer.

    The same arguments draw the same questions, and a smaller `count` the first of them. Kinds
    alternate by `SHARES`; where one has no more questions, the others take its place. Near
    duplicates of `excluded` (held-out messages), of the evaluation's prompts and of each other are
    left out.
    """
    language = find_language(persona, [p for p in passages if p.owner == persona.id])
    name = persona.nickname or persona.name
    texts_by_kind = {
        LORE: lore_questions(persona, passages),
        WORLD: world_questions(persona, passages),
        CARD: card_questions(persona, passages),
    }
    rules = [
        Question(text, kind, language)
        for kind, texts in texts_by_kind.items()
        for text in texts
        if "{{" not in text  # "do you like {{user}}?"
    ]
    openers = [replace(row, text=row.text.replace("{{char}}", name)) for row in read_openers()]
    pools: dict[str, list[Question]] = {kind: [] for kind in SHARES}
    held_out = [*evaluation_messages(), *excluded]
    questions = _without_reworded([*rules, *openers], held_out)
    for question in _without_near_duplicates(questions, held_out):
        kind = question.kind if question.lang == language else OTHER_LANGUAGE
        pools[kind].append(question)
    for pool in pools.values():
        # By a hash of each text, so that a line added to the bank moves no other.
        pool.sort(key=lambda question: _seeded_hash(f"{seed} {persona.id} {question.text}"))
    if language != "en":  # where its own has too few questions, English is the likeliest other one
        pools[OTHER_LANGUAGE].sort(key=lambda question: question.lang != "en")
    return list(itertools.islice(_alternate_by_shares(pools), count))


@lru_cache
def read_openers() -> tuple[Question, ...]:
    """Read the openers written for this project. Their `{{char}}` stands for a persona's name."""
    lines = OPENERS_FILE.read_text(encoding="utf-8").splitlines()
    return tuple(Question(**json.loads(line)) for line in lines)


@lru_cache
def evaluation_messages() -> tuple[str, ...]:
    """Read every member's message in `EVALUATION_PROMPTS`."""
    messages: list[str] = []
    for pattern in EVALUATION_PROMPTS:
        for file in sorted(SHIPPED_DATA.glob(pattern)):
            lines = file.read_text(encoding="utf-8").splitlines()
            if file.suffix == ".txt":
                messages += [line for line in lines if not line.startswith("#")]
            else:
                for line in lines:
                    messages += _messages(json.loads(line))
    return tuple(messages)


def _messages(row: dict[str, Any]) -> list[str]:
    """Return the messages of a row: a question, its other wording, or the lines of a talk."""
    texts = [row[key] for key in ("text", "question", "reworded") if key in row]
    turns = [turn["text"] for turn in row.get("turns", ())]
    return [*texts, *turns, *row.get("lines", ())]


def _without_reworded(questions: Sequence[Question], held_out: Sequence[str]) -> list[Question]:
    """Return the questions that share few of their rarer words with each held-out message.

    MinHash compares runs of three words, of which lines as short as these have too few.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # half a second to import

    texts = [question.text for question in questions]
    vectorizer = TfidfVectorizer(tokenizer=split_words, token_pattern=None)
    vectors = vectorizer.fit_transform([*held_out, *texts])
    cosines = vectors[len(held_out) :] @ vectors[: len(held_out)].T
    nearest = cosines.max(axis=1).toarray().ravel()
    return [
        question
        for question, cosine in zip(questions, nearest, strict=True)
        if cosine < MAX_HELD_OUT_COSINE
    ]


def _without_near_duplicates(
    questions: Sequence[Question], held_out: Sequence[str]
) -> Iterator[Question]:
    """Yield the first question of each cluster that has no held-out message."""
    with MinHashIndex() as index:
        for text in held_out:
            index.add(text)
        for question in questions:
            index.add(question.text)
        _, clusters = index.clusters()
    for number, question in enumerate(questions, start=len(held_out)):
        # A cluster is numbered by its first text.
        if clusters[number] == number:
            yield question


def _alternate_by_shares(pools: Mapping[str, Sequence[Question]]) -> Iterator[Question]:
    """Yield every question, at each step from the kind that is furthest behind its share."""
    taken = dict.fromkeys(pools, 0)
    while True:
        left = [kind for kind, pool in pools.items() if taken[kind] < len(pool)]
        if not left:
            return
        kind = min(left, key=lambda kind: (taken[kind] + 1) / SHARES[kind])
        yield pools[kind][taken[kind]]
        taken[kind] += 1


def _seeded_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
