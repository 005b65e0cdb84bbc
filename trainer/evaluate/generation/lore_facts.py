"""Questions about the persona's lore, and detection of correct, contradicting and out-of-character
answers.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from personas.lore.index import LoreIndex
from personas.lore.index_terms import UNSEGMENTED_PATTERN, extract_terms, query_terms
from personas.lore.passages import WORLD, Passage
from personas.prompt.renderer import example_turns, system_text
from personas.schemas.chat import Persona
from personas.schemas.scorecard import (
    FACTS_TASK,
    FACTS_WITHOUT_LORE_TASK,
    LORE_FOUND,
    LORE_RIGHT,
    LORE_RIGHT_REWORDED,
    LORE_RIGHT_WITHOUT,
    LORE_WRONG,
    LORE_WRONG_REWORDED,
    REWORDED_TASK,
    FactScores,
    Side,
)
from trainer.dataset.dataset import Dataset
from trainer.dataset.dedup_split import hash_fraction
from trainer.dataset.synthetic.lore_extraction import LorePair, extract_lore
from trainer.dataset.synthetic.reply_filter import ReplyFilter, find_numbers
from trainer.evaluate.generation.reply_tasks import (
    FACTS_FILE,
    OUT_OF_CHARACTER_FILE,
    PERSONA_TASKS,
    GeneratedReply,
    MeasuredShares,
    ReplyValue,
    read_jsonl,
    read_toml,
    reply_values,
    select_replies,
    true_share,
)

USER_NAMES = (
    "user",
    "human",
    "guest",
)  # names under which models continue as the user, beside the real one
LORE_RIGHT_MEASURES = (LORE_RIGHT, LORE_RIGHT_REWORDED, LORE_RIGHT_WITHOUT)
LORE_TASKS = (FACTS_TASK, FACTS_WITHOUT_LORE_TASK, REWORDED_TASK)
MAX_DERIVED_QUESTIONS = 15
MIN_MATCHING_TERMS = (
    3  # words of a derived answer, beyond the question's, that a right reply must contain
)


@lru_cache(maxsize=1)
def out_of_character_patterns() -> tuple[re.Pattern[str], ...]:
    """Read the patterns of `data/evaluation/out_of_character.toml`, in all languages."""
    listed = read_toml(OUT_OF_CHARACTER_FILE)["breaks"]
    return tuple(re.compile(pattern, re.IGNORECASE) for of in listed for pattern in of["patterns"])


class CharacterBreakDetector:
    """Detects replies that break a persona's character, but for statements of its own card: some
    are machines.
    """

    def __init__(self, persona: Persona) -> None:
        texts = [
            system_text(persona, ""),
            persona.first_mes,
            *(turn.text for turn in example_turns(persona)),
        ]
        card = "\n".join(texts)
        self._patterns = [
            pattern for pattern in out_of_character_patterns() if not pattern.search(card)
        ]

    def is_broken_by(self, reply: str, asker: str) -> bool:
        """Report whether a reply speaks as a program, or continues as `asker`."""
        names = "|".join(map(re.escape, filter(None, (asker, *USER_NAMES))))
        as_another = re.search(rf"^\s*(?:{names})\s*:", reply, re.IGNORECASE | re.MULTILINE)
        return as_another is not None or any(pattern.search(reply) for pattern in self._patterns)


@dataclass(frozen=True)
class FactQuestion:
    """A question with its answer and the patterns of correct and contradicting replies.

    `evidence` is the sentence of the lore that answers it, or the whole passage. `reworded` asks
    the same in other words; it is empty for derived questions.
    """

    text: str
    reference: str
    is_right: Callable[[str], bool]
    contradicts: Callable[[str], bool]
    reworded: str = ""
    evidence: str = ""


def lore_questions(data: Dataset) -> list[FactQuestion]:
    """Return the questions about the lore of the data's persona; none without lore."""
    if data.persona is None or data.lore is None:
        return []
    return fact_questions(
        data.persona, data.lore, {pair.message for pair in data.train_prompt_replies}
    )


def fact_questions(
    persona: Persona, lore: LoreIndex, trained: Collection[str] = ()
) -> list[FactQuestion]:
    """Return the shipped questions that this lore answers or, if there are none, questions derived
    from it.

    Of derived ones, those that are among the messages `trained` on are left out: lore pairs ask the
    same.
    """
    known = " ".join(" ".join(passage.text for passage in lore.passages).split())
    rows = [
        row
        for row in read_jsonl(FACTS_FILE)
        if row["persona"] == persona.id and row["evidence"] in known
    ]
    derived = (
        []
        if rows
        else [it for it in derive_questions(persona, lore.passages) if it.text not in trained]
    )
    return [parse_question(row) for row in rows] or derived[:MAX_DERIVED_QUESTIONS]


def parse_question(row: Mapping[str, Any]) -> FactQuestion:
    """Parse a question of the file. `right` and `wrong` are regular expressions of which one must
    match; `number` is a value and a regular expression of its noun, before which any other value is
    wrong.
    """
    number = row.get("number", {})

    def matches(patterns: str, reply: str) -> bool:
        return any(re.search(pattern, reply, re.IGNORECASE) for pattern in row.get(patterns, ()))

    def is_right(reply: str) -> bool:
        return matches("right", reply) or bool(number and number["is"] in find_numbers(reply))

    def contradicts(reply: str) -> bool:
        return matches("wrong", reply) or bool(number and _has_other_number(reply, number))

    rewording = row.get("reworded", "")
    return FactQuestion(
        row["question"], row["reference"], is_right, contradicts, rewording, row["evidence"]
    )


def derive_questions(persona: Persona, passages: Sequence[Passage]) -> list[FactQuestion]:
    """Derive questions from the persona's own lore by rules."""
    if not any(passage.owner != WORLD for passage in passages):
        return []
    judge = ReplyFilter(persona, passages)
    pairs = [pair for pair in extract_lore(persona, passages).pairs if pair.kind == "question"]
    by_text = {pair.messages[0]["content"]: pair for pair in pairs}
    texts = sorted(by_text, key=lambda text: hash_fraction("facts", text))
    questions = [_derive_question(by_text[text], judge) for text in texts]
    return [question for question in questions if question]


def measure_facts(
    questions: Sequence[FactQuestion],
    answers: Sequence[GeneratedReply],
    sides: Sequence[Side],
    character: CharacterBreakDetector,
) -> FactScores | None:
    """Measure the section of facts; None if no question was answered."""
    numbers = {it.prompt.number for it in answers if it.prompt.task == FACTS_TASK}
    if not numbers:
        return None

    def share(test: Callable[[GeneratedReply], bool], side: Side, *tasks: str) -> float:
        return true_share(map(test, select_replies(answers, *tasks, side=side)))

    def is_right(it: GeneratedReply) -> bool:
        return questions[it.prompt.number].is_right(it.text)

    def contradicts(it: GeneratedReply) -> bool:
        return questions[it.prompt.number].contradicts(it.text)

    def is_broken(it: GeneratedReply) -> bool:
        return character.is_broken_by(it.text, it.prompt.asker)

    without_lore = [
        side for side in sides if select_replies(answers, FACTS_WITHOUT_LORE_TASK, side=side)
    ]
    return FactScores(
        questions=len(numbers),
        right_with_lore={side: share(is_right, side, FACTS_TASK) for side in sides},
        right_without_lore={
            side: share(is_right, side, FACTS_WITHOUT_LORE_TASK) for side in without_lore
        },
        contradictions={
            side: share(contradicts, side, FACTS_TASK, FACTS_WITHOUT_LORE_TASK) for side in sides
        },
        breaks_character={side: share(is_broken, side, *PERSONA_TASKS) for side in sides},
    )


def measure_lore(
    questions: Sequence[FactQuestion],
    answers: Sequence[GeneratedReply],
    sides: Sequence[Side],
    decode: Callable[[Sequence[int]], str],
) -> MeasuredShares | None:
    """Measure answers with the passage in the prompt, as asked and in other words, and without;
    None without answers.

    Contradictions in other words count apart: the base model is not asked those. Prompts for which
    the search found another passage count for neither; `LORE_FOUND` is the share of the others. The
    ceiling are the reference answers, the floor those of other questions.
    """
    found = MeasuredShares()
    asked = {it.prompt for it in answers if it.prompt.task in (FACTS_TASK, REWORDED_TASK)}
    has_passage = {
        it: questions[it.number].evidence in " ".join(decode(it.ids).split()) for it in asked
    }
    for side in sides:
        for it in select_replies(answers, *LORE_TASKS, side=side):
            question = questions[it.prompt.number]
            unit = [f"question {it.prompt.number}"]
            if it.prompt not in asked:
                found.add(
                    LORE_RIGHT_WITHOUT, side, reply_values([it], [question.is_right(it.text)], unit)
                )
            elif has_passage[it.prompt]:
                measure = LORE_RIGHT if it.prompt.task == FACTS_TASK else LORE_RIGHT_REWORDED
                found.add(measure, side, reply_values([it], [question.is_right(it.text)], unit))
            wrong = LORE_WRONG_REWORDED if it.prompt.task == REWORDED_TASK else LORE_WRONG
            found.add(wrong, side, reply_values([it], [question.contradicts(it.text)], unit))
    if not found.values:
        return None
    passages = [
        ReplyValue(f"question {it.number}", it.task, it.number, 0, float(has_passage[it]))
        for it in asked
    ]
    found.add(LORE_FOUND, sides[-1], passages)
    _bound_lore(found, [questions[number] for number in sorted({it.number for it in asked})])
    return found


def _bound_lore(found: MeasuredShares, questions: Sequence[FactQuestion]) -> None:
    """Set the bounds: the right answers and, of several questions, those to the next one."""
    for bounds, step in ((found.ceiling, 0), (found.floor, 1))[: len(questions)]:
        references = [
            questions[(n + step) % len(questions)].reference for n in range(len(questions))
        ]
        right = [float(it.is_right(text)) for it, text in zip(questions, references, strict=True)]
        values = [
            ReplyValue(f"question {n}", FACTS_TASK, n, 0, value) for n, value in enumerate(right)
        ]
        bounds |= {measure: values for measure in LORE_RIGHT_MEASURES if measure in found.values}


def _has_other_number(reply: str, number: Mapping[str, Any]) -> bool:
    """Report whether something other than the number precedes the noun."""
    before = re.finditer(rf"([\w,-]+)\s+(?:{number['of']})\b", reply, re.IGNORECASE)
    return any(value != number["is"] for match in before for value in find_numbers(match[1]))


def _term_weight(terms: Iterable[str]) -> float:
    """Count terms; a pair of characters is about half a word, since pairs overlap."""
    return sum(0.5 if UNSEGMENTED_PATTERN.match(term) else 1.0 for term in terms)


def _derive_question(pair: LorePair, judge: ReplyFilter) -> FactQuestion | None:
    text, reference = (message["content"] for message in pair.messages[:2])
    terms = set(query_terms(reference)) - set(query_terms(text))
    if _term_weight(terms) < MIN_MATCHING_TERMS:
        return None

    def is_right(reply: str) -> bool:
        return _term_weight(terms & set(extract_terms(reply))) >= MIN_MATCHING_TERMS

    evidence = " ".join(pair.passages[0].text.split())
    return FactQuestion(
        text, reference, is_right, lambda reply: judge.contradicts(reply, text), evidence=evidence
    )
