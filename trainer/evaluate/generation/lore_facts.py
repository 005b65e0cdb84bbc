"""Questions about the persona's lore, and detection of correct and contradicting answers."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas.lore.index import LoreIndex
from personas.lore.index_terms import extract_terms
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
from trainer.dataset.synthetic.lore_extraction import LorePair
from trainer.dataset.synthetic.measuring_questions import (
    FACTS_FILE,
    MIN_MATCHING_TERMS,
    answer_terms,
    derived_pairs,
    term_weight,
    written_facts,
)
from trainer.dataset.synthetic.number_words import find_numbers
from trainer.dataset.synthetic.reply_filter import ReplyFilter
from trainer.evaluate.generation.character_breaks import CharacterBreakDetector
from trainer.evaluate.generation.reply_tasks import (
    PERSONA_TASKS,
    EvaluationPrompt,
    GeneratedReply,
    MeasuredShares,
    ReplyValue,
    reply_values,
    select_replies,
    true_share,
)

LORE_RIGHT_MEASURES = (LORE_RIGHT, LORE_RIGHT_REWORDED, LORE_RIGHT_WITHOUT)
LORE_TASKS = (FACTS_TASK, FACTS_WITHOUT_LORE_TASK, REWORDED_TASK)


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
    trained = {pair.message for pair in data.train_prompt_replies}
    return fact_questions(data.persona, data.lore, trained)


def fact_questions(
    persona: Persona,
    lore: LoreIndex,
    trained: Collection[str] = (),
    *,
    file: Path = FACTS_FILE,
) -> list[FactQuestion]:
    """Return the questions of a file (by default the shipped ones) that this lore answers or, if
    there are none, questions derived from it.

    Of derived ones, those that are among the messages `trained` on are left out: lore pairs ask the
    same.
    """
    rows = written_facts(persona, lore.passages, file)
    if rows:
        return [parse_question(row) for row in rows]
    judge = ReplyFilter(persona, lore.passages)
    pairs = derived_pairs(persona, lore.passages, trained)
    return [_derived_question(pair, judge) for pair in pairs]


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

    return FactQuestion(
        text=row["question"],
        reference=row["reference"],
        is_right=is_right,
        contradicts=contradicts,
        reworded=row.get("reworded", ""),
        evidence=row["evidence"],
    )


def measure_facts(
    questions: Sequence[FactQuestion],
    answers: Sequence[GeneratedReply],
    sides: Sequence[Side],
    character: CharacterBreakDetector,
) -> FactScores | None:
    """Measure the section of facts; None if no question was answered."""
    prompts = [answer.prompt for answer in answers]
    numbers = {prompt.number for prompt in prompts if prompt.task == FACTS_TASK}
    if not numbers:
        return None

    def share(test: Callable[[GeneratedReply], bool], side: Side, *tasks: str) -> float:
        return true_share(map(test, select_replies(answers, *tasks, side=side)))

    def is_right(reply: GeneratedReply) -> bool:
        return questions[reply.prompt.number].is_right(reply.text)

    def contradicts(reply: GeneratedReply) -> bool:
        return questions[reply.prompt.number].contradicts(reply.text)

    def is_broken(reply: GeneratedReply) -> bool:
        return character.is_broken_by(reply.text, reply.prompt.asker)

    right_with_lore: dict[Side, float] = {}
    right_without_lore: dict[Side, float] = {}
    contradictions: dict[Side, float] = {}
    breaks_character: dict[Side, float] = {}
    for side in sides:
        right_with_lore[side] = share(is_right, side, FACTS_TASK)
        if select_replies(answers, FACTS_WITHOUT_LORE_TASK, side=side):
            right_without_lore[side] = share(is_right, side, FACTS_WITHOUT_LORE_TASK)
        contradictions[side] = share(contradicts, side, FACTS_TASK, FACTS_WITHOUT_LORE_TASK)
        breaks_character[side] = share(is_broken, side, *PERSONA_TASKS)
    return FactScores(
        questions=len(numbers),
        right_with_lore=right_with_lore,
        right_without_lore=right_without_lore,
        contradictions=contradictions,
        breaks_character=breaks_character,
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
    shares = MeasuredShares()
    asked = {reply.prompt for reply in answers if reply.prompt.task in (FACTS_TASK, REWORDED_TASK)}
    has_passage = {}
    for prompt in asked:
        # In the prompt itself: a passage that was found may have been dropped for lack of room.
        text = " ".join(decode(prompt.ids).split())
        has_passage[prompt] = questions[prompt.number].evidence in text

    def add(measure: str, side: Side, reply: GeneratedReply, is_hit: bool) -> None:
        shares.add(measure, side, reply_values([reply], [is_hit], [_unit(reply.prompt)]))

    for side in sides:
        for reply in select_replies(answers, *LORE_TASKS, side=side):
            prompt = reply.prompt
            question = questions[prompt.number]
            is_reworded = prompt.task == REWORDED_TASK
            if prompt not in asked:
                add(LORE_RIGHT_WITHOUT, side, reply, question.is_right(reply.text))
            elif has_passage[prompt]:
                measure = LORE_RIGHT_REWORDED if is_reworded else LORE_RIGHT
                add(measure, side, reply, question.is_right(reply.text))
            measure = LORE_WRONG_REWORDED if is_reworded else LORE_WRONG
            add(measure, side, reply, question.contradicts(reply.text))
    if not shares.values:
        return None
    for prompt in asked:
        value = ReplyValue(
            unit=_unit(prompt),
            task=prompt.task,
            number=prompt.number,
            seed=0,
            value=float(has_passage[prompt]),
        )
        shares.add(LORE_FOUND, sides[-1], [value])
    numbers = sorted({prompt.number for prompt in asked})
    _bound_lore(shares, [questions[number] for number in numbers])
    return shares


def _unit(prompt: EvaluationPrompt) -> str:
    """Name the question: replies to it correlate."""
    return f"question {prompt.number}"


def _bound_lore(shares: MeasuredShares, questions: Sequence[FactQuestion]) -> None:
    """Set the bounds: the right answers and, of several questions, those to the next one."""
    for bounds, step in ((shares.ceiling, 0), (shares.floor, 1))[: len(questions)]:
        values = []
        for number, question in enumerate(questions):
            reference = questions[(number + step) % len(questions)].reference
            value = ReplyValue(
                unit=f"question {number}",
                task=FACTS_TASK,
                number=number,
                seed=0,
                value=float(question.is_right(reference)),
            )
            values.append(value)
        for measure in LORE_RIGHT_MEASURES:
            if measure in shares.values:
                bounds[measure] = values


def _has_other_number(reply: str, number: Mapping[str, Any]) -> bool:
    """Report whether something other than the number precedes the noun."""
    for match in re.finditer(rf"([\w,-]+)\s+(?:{number['of']})\b", reply, re.IGNORECASE):
        if any(value != number["is"] for value in find_numbers(match[1])):
            return True
    return False


def _derived_question(pair: LorePair, judge: ReplyFilter) -> FactQuestion:
    terms = answer_terms(pair)

    def is_right(reply: str) -> bool:
        return term_weight(terms & set(extract_terms(reply))) >= MIN_MATCHING_TERMS

    def contradicts(reply: str) -> bool:
        return judge.contradicts(reply, pair.question)

    evidence = " ".join(pair.passages[0].text.split())
    return FactQuestion(pair.question, pair.answer, is_right, contradicts, evidence=evidence)
