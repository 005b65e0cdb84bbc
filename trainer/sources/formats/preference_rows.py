"""Row schemas of preference pairs and scored answers (HH-RLHF, UltraFeedback, DPO pairs, SHP)."""

import math
from typing import Any

from trainer.sources.columns import (
    ColumnRoles,
    Row,
    RowSchema,
    column_roles,
    find_column,
    message_keys,
)
from trainer.sources.conversation_builder import ROLES, RawDialogue, Turns, parse_transcript
from trainer.sources.formats.message_rows import message_turns
from trainer.sources.formats.qa_rows import answer_text, parse_side
from trainer.sources.header_names import name_words
from trainer.sources.record_fields import UnusableRecordError, cell_list, cell_text
from trainer.sources.verdicts import CHOICE_WORDS

SCORE_KEYS = tuple("overall_score score pm_score rating reward votes upvotes rank ranking".split())
SCORE_LIST_KEYS = tuple("scores ratings rewards ranks rank ranking overall_scores".split())
ANSWER_LIST_KEYS = tuple(
    "completions responses answers responses_and_scores outputs output candidates response "
    "answer".split()
)
BETTER_WORDS = frozenset(
    "chosen accepted preferred winner winning win positive better good best w".split()
)
WORSE_WORDS = frozenset(
    "rejected dispreferred nonpreferred unpreferred loser losing lose negative worse bad worst "
    "l".split()
)
ANSWER_WORDS = frozenset(
    "answer answers response responses reply replies completion completions output outputs "
    "generation generations candidate candidates".split()
)
ANSWER_STEMS = ANSWER_WORDS | frozenset(
    "message messages conversation conversations dialogue text texts turn turns".split()
)
BARE_SIDES = frozenset(
    "chosen accepted preferred positive rejected dispreferred nonpreferred negative".split()
)
"""Words that are the name of a column of answers by themselves."""
CHOICE_NAMES = CHOICE_WORDS | frozenset(("better", "chosen", "preferred", "selected"))
COMPARED_SIDES = (("a", "b"), ("0", "1"), ("1", "2"), ("first", "second"), ("left", "right"))
COMPARISON_KEYS = (
    ("response_0", "response_1", "better_response_id"),
    ("human_ref_A", "human_ref_B", "labels"),
    ("conversation_a", "conversation_b", "winner"),
    ("response_a", "response_b", "winner"),
    ("response_a", "response_b", "preference"),
    ("output_1", "output_2", "preference"),
    ("completion_a", "completion_b", "preference"),
)
"""Two answers and the column that says which is better."""
SECOND_IS_BETTER = ("1", "2", "b", "model_b", "response_b", "second")
FIRST_WHERE_ONE = ("human_ref_A", "output_1")
"""Sets that say 1 for the first answer."""


def _find_pair(row: Row) -> tuple[str, str] | None:
    """Return the columns of the better and the worse answer: names that differ by one word, such as
    `answer_w` and `answer_l`, and otherwise speak of answers or messages.
    """
    sides: dict[tuple[str, ...], dict[bool, str]] = {}
    for name in row:
        words = name_words(name) if isinstance(name, str) else ()
        for is_better, side in ((True, BETTER_WORDS), (False, WORSE_WORDS)):
            found = [word for word in words if word in side]
            rest = tuple(word for word in words if word not in side)
            is_telling = bool(rest) or (words[:1] and words[0] in BARE_SIDES)
            if len(found) == 1 and is_telling and ANSWER_STEMS.issuperset(rest):
                sides.setdefault(rest, {}).setdefault(is_better, name)
    pairs = [(len(rest), pair) for rest, pair in sides.items() if len(pair) == 2]
    if not pairs:
        return None
    pair = min(pairs, key=lambda item: item[0])[1]
    are_answers = all(isinstance(row[name], str | list | dict) for name in pair.values())
    return (pair[True], pair[False]) if are_answers else None


def _plan_chosen(row: Row) -> ColumnRoles | None:
    pair = _find_pair(row)
    if pair is None:
        return None
    lists = [name for name in ("conversations", "messages") if isinstance(row.get(name), list)]
    lists += [name for name in row if name not in pair and message_keys(cell_list(row[name]) or [])]
    user = find_column(row, "user")
    given = find_column(row, "input")
    return column_roles(
        chosen=pair[0],
        rejected=pair[1],
        messages=lists[0] if lists else None,
        user=user if user not in lists[:1] else None,
        input=given if given not in lists[:1] else None,
        system=find_column(row, "system"),
        lang=find_column(row, "lang"),
    )


def _dialogue_from_chosen(row: Row, columns: ColumnRoles) -> RawDialogue:
    chosen = _answer(columns.get(row, "chosen"))
    rejected = _answer(columns.get(row, "rejected"))
    prompt: list[tuple[str, str]] = []
    # In HH-RLHF, an answer is the whole talk up to it.
    if not _has_prompt(chosen):
        prompt = [*_history_turns(columns.get(row, "messages")), *_prompt_turns(row, columns)]
    return _preferred([*prompt, *chosen], rejected, columns.get(row, "system"))


def _has_prompt(turns: Turns) -> bool:
    return any(ROLES.get(label.lower()) is ROLES["user"] for label, _ in turns)


def _prompt_turns(row: Row, columns: ColumnRoles) -> list[tuple[str, str]]:
    turns: list[tuple[str, str]] = []
    for role in ("user", "input"):
        cell = columns.get(row, role)
        if cell:
            turns += parse_side(cell, "user")
    # HH-RLHF and similar sets end the question with the answer's label.
    if turns and not turns[-1][1].strip():
        turns.pop()
    return turns


def _history_turns(messages: Any) -> list[tuple[str, str]]:
    history = cell_list(messages) or []
    keys = message_keys(history)
    return list(message_turns(history, *keys)) if keys else []


def _answer(value: Any) -> Turns:
    if isinstance(value, str):
        is_transcript = value.lstrip().startswith(("Human:", "User:", "<|", "### "))
        return parse_transcript(value) if is_transcript else [("assistant", value)]
    if isinstance(value, dict) and not message_keys([value]):
        return [("assistant", answer_text(value))]
    return parse_side(value, "assistant")


def _preferred(turns: Turns, rejected: Turns, system: Any = "") -> RawDialogue:
    """Build a dialogue that ends with the better answer; of two equal ones, none is rejected.

    Raises `UnusableRecordError` if the better answer is empty.
    """
    if not turns or not turns[-1][1].strip():
        raise UnusableRecordError("the better answer is empty")
    worse = rejected[-1][1] if rejected else ""
    if worse.strip() == turns[-1][1].strip():
        worse = ""
    return RawDialogue.of(turns, system if isinstance(system, str) else "", worse)


def _plan_scored(row: Row) -> ColumnRoles | None:
    user = find_column(row, "user") or find_column(row, "input")
    answers = next((name for name in ANSWER_LIST_KEYS if cell_list(row.get(name))), None)
    if not user or not answers or user == answers:
        return None
    cells = cell_list(row[answers]) or []
    keys = [key for key in SCORE_KEYS if isinstance(cells[0], dict) and key in cells[0]]
    lists = [name for name in SCORE_LIST_KEYS if len(cell_list(row.get(name)) or []) == len(cells)]
    if not keys and not lists:
        return None
    by_role = {"user": user, "assistant": answers}
    system = find_column(row, "system")
    if system:
        by_role["system"] = system
    if keys:
        return ColumnRoles(by_role, from_key=keys[0])
    return ColumnRoles(by_role, value_key=lists[0])


def _dialogue_from_scores(row: Row, columns: ColumnRoles) -> RawDialogue:
    """Build a dialogue from scored answers. `from_key` is the score's key, or `value_key` the
    column of scores.
    """
    answers = cell_list(columns.get(row, "assistant")) or []
    name = columns.from_key or columns.value_key
    if columns.value_key:
        scores = cell_list(row.get(name)) or []
    else:
        scores = [answer.get(name) if isinstance(answer, dict) else None for answer in answers]
    scored: list[tuple[float, str]] = []
    for value, answer in zip(scores, answers, strict=False):
        score = _number(value)
        text = answer_text(answer) if score is not None else ""
        if score is not None and text.strip():
            # The best rank is the lowest.
            scored.append((-score if "rank" in name else score, text))
    if not scored:
        raise UnusableRecordError("no answer has a score")
    best = max(scored, key=lambda pair: pair[0])
    worst = min(scored, key=lambda pair: pair[0])
    rejected = [("assistant", worst[1])] if worst[0] < best[0] else []
    turns = [*parse_side(columns.get(row, "user"), "user"), ("assistant", best[1])]
    return _preferred(turns, rejected, columns.get(row, "system"))


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _plan_verdict(row: Row) -> ColumnRoles | None:
    for first, second, verdict in COMPARISON_KEYS:
        if {first, second, verdict} <= row.keys():
            asked = (find_column(row, role) for role in ("user", "history", "input"))
            user = next(filter(None, asked), None)
            return column_roles(chosen=first, rejected=second, label=verdict, user=user)
    return _plan_named_comparison(row)


def _plan_named_comparison(row: Row) -> ColumnRoles | None:
    """Find two answers whose names differ by their last word, and a column that names one of
    them.
    """
    names = {name_words(name): name for name in row if isinstance(name, str)}
    choices = [name for words, name in names.items() if CHOICE_NAMES.intersection(words)]
    for words, first in names.items():
        for one, other in COMPARED_SIDES:
            second = names.get((*words[:-1], other))
            if words[-1:] != (one,) or not second or not ANSWER_STEMS.intersection(words):
                continue
            verdict = next((name for name in choices if name not in (first, second)), None)
            user = find_column(row, "user") or find_column(row, "input")
            if verdict and user:
                return column_roles(chosen=first, rejected=second, label=verdict, user=user)
    return None


def _names_second(verdict: str, columns: ColumnRoles) -> bool:
    """Report whether a verdict names the second answer. Raises `UnusableRecordError` if it names
    neither.
    """
    for role, is_second in (("chosen", False), ("rejected", True)):
        name = columns.by_role[role].lower()
        if verdict in (name, name_words(name)[-1], f"model_{name_words(name)[-1]}"):
            return is_second
    raise UnusableRecordError(
        f"{columns.by_role['label']}: {verdict[:20]!r} names neither {columns.by_role['chosen']!r} "
        f"nor {columns.by_role['rejected']!r}"
    )


def _dialogue_from_comparison(row: Row, columns: ColumnRoles) -> RawDialogue:
    verdict = cell_text(columns.get(row, "label")).strip().lower()
    if verdict in ("", "tie", "tie (bothbad)", "none"):
        raise UnusableRecordError("neither answer is the better one")
    keys = tuple(columns.by_role[role] for role in ("chosen", "rejected", "label"))
    if keys in COMPARISON_KEYS:
        second_is_better = verdict in SECOND_IS_BETTER
    else:
        second_is_better = _names_second(verdict, columns)
    if columns.by_role["chosen"] in FIRST_WHERE_ONE:
        second_is_better = verdict != "1"
    better = _answer(columns.get(row, "chosen"))
    worse = _answer(columns.get(row, "rejected"))
    if second_is_better:
        better, worse = worse, better
    prompt = [] if _has_prompt(better) else _prompt_turns(row, columns)
    return _preferred([*prompt, *better], worse)


SCORED_ROW = '{"instruction", "completions": [{"response", "score"}]}'
COMPARISON_ROW = '{"prompt", "response_0", "response_1", "better_response_id"}'
PREFERENCE_SCHEMAS = (
    RowSchema(
        "preference",
        "Better and worse answer",
        '{"prompt", "chosen", "rejected"}',
        plan=_plan_chosen,
        parse=_dialogue_from_chosen,
        also_read=("conversations", "messages"),
    ),
    RowSchema(
        "scored", "Scored answers", SCORED_ROW, plan=_plan_scored, parse=_dialogue_from_scores
    ),
    RowSchema(
        "verdict",
        "Two answers and which is better",
        COMPARISON_ROW,
        plan=_plan_verdict,
        parse=_dialogue_from_comparison,
    ),
)
