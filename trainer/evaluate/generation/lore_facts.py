"""Questions about the persona's lore, and detection of correct, contradicting and out-of-character answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from personas.lore.index import LoreIndex
from personas.lore.index_terms import extract_terms, is_mostly_ascii, query_terms
from personas.lore.passages import WORLD, Passage
from personas.prompt import example_turns, system_text
from personas.schemas.chat import Persona
from personas.schemas.scorecard import FACTS_TASK, FACTS_WITHOUT_LORE_TASK, FactScores, Side
from trainer.data.dedup_split import hash_fraction
from trainer.data.synthetic.lore_extraction import extract_lore
from trainer.data.synthetic.reply_filter import ReplyFilter, find_numbers
from trainer.evaluate.generation.reply_tasks import (
    FACTS_FILE,
    OUT_OF_CHARACTER_FILE,
    PERSONA_TASKS,
    GeneratedReply,
    read_jsonl,
    read_toml,
    select_replies,
    true_share,
)

USER_NAMES = ("user", "human", "guest")  # names that models use for the asking person
MAX_DERIVED_QUESTIONS = 15
MIN_MATCHING_TERMS = 3
"""Words of a derived answer, beyond those in the question, that a reply must contain; shorter answers are not used."""


@lru_cache(maxsize=1)
def out_of_character_patterns() -> tuple[re.Pattern[str], ...]:
    """Read the patterns of `data/evaluation/out_of_character.toml`, in all languages."""
    listed = read_toml(OUT_OF_CHARACTER_FILE)["breaks"]
    return tuple(re.compile(pattern, re.IGNORECASE) for of in listed for pattern in of["patterns"])


class CharacterBreakDetector:
    """Detects replies that break a persona's character, except for statements that its own card makes: some are
    machines.
    """

    def __init__(self, persona: Persona) -> None:
        told = [system_text(persona, ""), persona.first_mes, *(turn.text for turn in example_turns(persona))]
        card = "\n".join(told)
        self._patterns = [pattern for pattern in out_of_character_patterns() if not pattern.search(card)]

    def is_broken_by(self, reply: str, asker: str) -> bool:
        """Report whether a reply speaks as a program, or continues as `asker`."""
        names = "|".join(map(re.escape, filter(None, (asker, *USER_NAMES))))
        as_another = re.search(rf"^\s*(?:{names})\s*:", reply, re.IGNORECASE | re.MULTILINE)
        return as_another is not None or any(pattern.search(reply) for pattern in self._patterns)


@dataclass(frozen=True)
class FactQuestion:
    """A question with its answer and the patterns of correct and contradicting replies."""

    text: str
    reference: str
    is_right: Callable[[str], bool]
    contradicts: Callable[[str], bool]


def fact_questions(persona: Persona, lore: LoreIndex) -> list[FactQuestion]:
    """Return the shipped questions that this lore answers or, if there are none, questions derived from it."""
    known = " ".join(" ".join(passage.text for passage in lore.passages).split())
    rows = [row for row in read_jsonl(FACTS_FILE) if row["persona"] == persona.id and row["evidence"] in known]
    return [parse_question(row) for row in rows] or derive_questions(persona, lore.passages)


def parse_question(row: Mapping[str, Any]) -> FactQuestion:
    """Parse a question of the file. `right` and `wrong` are regular expressions of which one must match; `number` is a
    value and a regular expression of its noun, before which any other value is wrong.
    """
    number = row.get("number", {})

    def is_right(reply: str) -> bool:
        says = any(re.search(pattern, reply, re.IGNORECASE) for pattern in row.get("right", ()))
        return says or bool(number and number["is"] in find_numbers(reply))

    def contradicts(reply: str) -> bool:
        says = any(re.search(pattern, reply, re.IGNORECASE) for pattern in row.get("wrong", ()))
        return says or bool(number and _has_other_number(reply, number))

    return FactQuestion(row["question"], row["reference"], is_right, contradicts)


def derive_questions(persona: Persona, passages: Sequence[Passage]) -> list[FactQuestion]:
    """Derive questions from the persona's own lore by rules, up to the usual number."""
    if not any(passage.owner != WORLD and is_mostly_ascii(passage.text) for passage in passages):
        return []
    judge = ReplyFilter(persona, passages)
    asked = {pair.messages[0]["content"]: pair.messages[1]["content"]
             for pair in extract_lore(persona, passages).pairs if pair.kind == "question"}  # fmt: skip
    order = sorted(asked, key=lambda text: hash_fraction("facts", text))
    found = [_derive_question(text, asked[text], judge) for text in order]
    return [question for question in found if question][:MAX_DERIVED_QUESTIONS]


def measure_facts(
    questions: Sequence[FactQuestion],
    answers: Sequence[GeneratedReply],
    sides: Sequence[Side],
    character: CharacterBreakDetector,
) -> FactScores | None:
    """Measure the section of facts; None if no question was answered."""
    asked = {it.asked.number for it in answers if it.asked.task == FACTS_TASK}
    if not asked:
        return None

    def right(task: str, side: Side) -> float:
        return true_share(
            questions[it.asked.number].is_right(it.text) for it in select_replies(answers, task, side=side)
        )

    def contradicting(side: Side) -> float:
        found = select_replies(answers, FACTS_TASK, FACTS_WITHOUT_LORE_TASK, side=side)
        return true_share(questions[it.asked.number].contradicts(it.text) for it in found)

    def breaking(side: Side) -> float:
        found = select_replies(answers, *PERSONA_TASKS, side=side)
        return true_share(character.is_broken_by(it.text, it.asked.asker) for it in found)

    return FactScores(
        questions=len(asked),
        right_with_lore={side: right(FACTS_TASK, side) for side in sides},
        right_without_lore={
            side: right(FACTS_WITHOUT_LORE_TASK, side)
            for side in sides
            if select_replies(answers, FACTS_WITHOUT_LORE_TASK, side=side)
        },
        contradictions={side: contradicting(side) for side in sides},
        breaks_character={side: breaking(side) for side in sides},
    )


def _has_other_number(reply: str, number: Mapping[str, Any]) -> bool:
    """Report whether something other than the number precedes the noun."""
    before = re.finditer(rf"([\w,-]+)\s+(?:{number['of']})\b", reply, re.IGNORECASE)
    return any(value != number["is"] for match in before for value in find_numbers(match[1]))


def _derive_question(text: str, reference: str, judge: ReplyFilter) -> FactQuestion | None:
    terms = set(query_terms(reference)) - set(query_terms(text))
    if len(terms) < MIN_MATCHING_TERMS:
        return None

    def is_right(reply: str) -> bool:
        return len(terms & set(extract_terms(reply))) >= MIN_MATCHING_TERMS

    return FactQuestion(text, reference, is_right, lambda reply: judge.contradicts(reply, text))
