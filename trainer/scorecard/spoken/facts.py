"""Questions whose answers are in the persona's lore, and what counts as knowing them.

For the personas that ship the questions are written (`data/evaluation/facts.jsonl`), and asked only where the lore at
hand still says what they go by. For others they are made from lore by rules (`trainer.lore.extract`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from personas.contracts import Persona
from personas.lore import WORLD, LoreIndex, Passage
from personas.lore.words import index_words, query_terms, reads_as_english
from personas.scorecard import Facts, Side
from trainer.building.split import drawn
from trainer.lore.extract import extract
from trainer.lore.filters import Judge, numbers_in
from trainer.scorecard.spoken.answers import AS_PERSONA, FACTS, UNAIDED, Answer, answers_of, share
from trainer.scorecard.spoken.character import Character
from trainer.scorecard.spoken.material import FACTS_FILE, rows_of

MOST_DERIVED = 15
ENOUGH_TERMS = 3
"""Of a derived answer so many words that the question does not hold have to come; one with fewer is not asked for."""


@dataclass(frozen=True)
class Question:
    """A question, an answer to it, and what tells whether a reply knows it, or says something else instead."""

    text: str
    reference: str
    is_right: Callable[[str], bool]
    contradicts: Callable[[str], bool]


def questions_for(persona: Persona, lore: LoreIndex) -> list[Question]:
    """The written questions that this lore answers or, where there are none, some that are made from it."""
    known = " ".join(" ".join(passage.text for passage in lore.passages).split())
    rows = [row for row in rows_of(FACTS_FILE) if row["persona"] == persona.id and row["evidence"] in known]
    return [written(row) for row in rows] or derived(persona, lore.passages)


def written(row: Mapping[str, Any]) -> Question:
    """A question of the file. `right` and `wrong` are regular expressions of which one has to be found; `number` is a
    value and, as a regular expression, the noun that any other value before it is wrong of."""
    number = row.get("number", {})

    def is_right(reply: str) -> bool:
        says = any(re.search(pattern, reply, re.IGNORECASE) for pattern in row.get("right", ()))
        return says or bool(number and number["is"] in numbers_in(reply))

    def contradicts(reply: str) -> bool:
        says = any(re.search(pattern, reply, re.IGNORECASE) for pattern in row.get("wrong", ()))
        return says or bool(number and _other_numbers(reply, number))

    return Question(row["question"], row["reference"], is_right, contradicts)


def derived(persona: Persona, passages: Sequence[Passage]) -> list[Question]:
    """Questions that rules make of the persona's own lore, as many as are usual; none where the rules find nothing."""
    if not any(passage.owner != WORLD and reads_as_english(passage.text) for passage in passages):
        return []
    judge = Judge(persona, passages)
    asked = {pair.messages[0]["content"]: pair.messages[1]["content"]
             for pair in extract(persona, passages).pairs if pair.kind == "question"}  # fmt: skip
    order = sorted(asked, key=lambda text: drawn("facts", text))
    found = [_derived(text, asked[text], judge) for text in order]
    return [question for question in found if question][:MOST_DERIVED]


def measure_facts(
    questions: Sequence[Question], answers: Sequence[Answer], sides: Sequence[Side], character: Character
) -> Facts | None:
    """None where no question was answered."""
    asked = {it.asked.number for it in answers if it.asked.task == FACTS}
    if not asked:
        return None

    def right(task: str, side: Side) -> float:
        return share(questions[it.asked.number].is_right(it.text) for it in answers_of(answers, task, side=side))

    def contradicting(side: Side) -> float:
        found = answers_of(answers, FACTS, UNAIDED, side=side)
        return share(questions[it.asked.number].contradicts(it.text) for it in found)

    def breaking(side: Side) -> float:
        found = answers_of(answers, *AS_PERSONA, side=side)
        return share(character.is_broken_by(it.text, it.asked.asker) for it in found)

    return Facts(
        questions=len(asked),
        right_with_lore={side: right(FACTS, side) for side in sides},
        right_without_lore={side: right(UNAIDED, side) for side in sides if answers_of(answers, UNAIDED, side=side)},
        contradictions={side: contradicting(side) for side in sides},
        breaks_character={side: breaking(side) for side in sides},
    )


def _other_numbers(reply: str, number: Mapping[str, Any]) -> bool:
    """Whether something else than the number stands before the noun."""
    before = re.finditer(rf"([\w,-]+)\s+(?:{number['of']})\b", reply, re.IGNORECASE)
    return any(value != number["is"] for match in before for value in numbers_in(match[1]))


def _derived(text: str, reference: str, judge: Judge) -> Question | None:
    terms = set(query_terms(reference)) - set(query_terms(text))
    if len(terms) < ENOUGH_TERMS:
        return None

    def is_right(reply: str) -> bool:
        return len(terms & set(index_words(reply))) >= ENOUGH_TERMS

    return Question(text, reference, is_right, lambda reply: judge.contradicts(reply, text))
