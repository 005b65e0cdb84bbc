"""Chooses the questions by which score cards measure what a version knows of its lore: those of the
shipped file or, for other lore, derived ones, half of which no training asks.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from personas.lore.index_terms import UNSEGMENTED_PATTERN, query_terms
from personas.lore.passages import Passage, is_lore_set
from personas.schemas.chat import Persona
from personas.shipped_folders import SHIPPED_DATA
from trainer.dataset.dedup_split import hash_fraction
from trainer.dataset.synthetic.lore_extraction import LorePair, extract_lore

FACTS_FILE = SHIPPED_DATA / "evaluation" / "facts.jsonl"
MAX_DERIVED_QUESTIONS = 15
MIN_MATCHING_TERMS = 3
"""Words of a derived answer, beyond the question's, that a right reply must contain."""


def written_facts(
    persona: Persona, passages: Sequence[Passage], file: Path = FACTS_FILE
) -> list[dict[str, Any]]:
    """Return the rows of a file (by default the shipped one) whose questions this lore answers."""
    texts = " ".join(passage.text for passage in passages)
    known = " ".join(texts.split())  # on one line, as the file has its evidence
    lines = file.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    # Lore can be edited: a question whose evidence is gone has no answer any more.
    return [row for row in rows if row["persona"] == persona.id and row["evidence"] in known]


def derived_pairs(
    persona: Persona, passages: Sequence[Passage], trained: Collection[str] = ()
) -> list[LorePair]:
    """Return the questions, with their answers, that rules derive from a persona's own lore to
    measure a version, without those that it was `trained` on: lore pairs ask the same.
    """
    pairs = _all_derived_pairs(persona, passages)
    return [pair for pair in pairs if pair.question not in trained][:MAX_DERIVED_QUESTIONS]


def reserved_questions(persona: Persona, passages: Sequence[Passage]) -> list[str]:
    """Return the derived questions that are kept for measuring a persona's versions: half of them,
    since a version is to learn from the others; none where written ones measure it.
    """
    if written_facts(persona, passages):
        return []
    pairs = _all_derived_pairs(persona, passages)
    half = (len(pairs) + 1) // 2
    return [pair.question for pair in pairs[: min(half, MAX_DERIVED_QUESTIONS)]]


def _all_derived_pairs(persona: Persona, passages: Sequence[Passage]) -> list[LorePair]:
    if all(is_lore_set(passage.owner) for passage in passages):
        return []
    pairs: dict[str, LorePair] = {}
    for pair in extract_lore(persona, passages).pairs:
        if pair.kind == "question" and term_weight(answer_terms(pair)) >= MIN_MATCHING_TERMS:
            pairs[pair.question] = pair
    # By hash, so that the few that are asked come from all of the lore, and are the same each time.
    ordered = sorted(pairs, key=lambda text: hash_fraction("facts", text))
    return [pairs[text] for text in ordered]


def answer_terms(pair: LorePair) -> set[str]:
    """Return the words of a pair's answer: a reply that only repeats the question is not right."""
    return set(query_terms(pair.answer)) - set(query_terms(pair.question))


def term_weight(terms: Iterable[str]) -> float:
    """Count terms; a pair of characters is about half a word, since pairs overlap."""
    weight = 0.0
    for term in terms:
        weight += 0.5 if UNSEGMENTED_PATTERN.match(term) else 1.0
    return weight
