"""Rows of question and answer, alone or after what was said before.

Sources of the shapes: the data cards of Alpaca, BELLE, Firefly, WizardLM, Dolly and OpenOrca; LLaMA-Factory's formats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainer.sources.columns import Columns, Row, find, message_keys
from trainer.sources.shapes import Shape, message_turns, talk_of, with_extras
from trainer.sources.talk import Talk, Turns, Unusable, list_of, text_of
from trainer.sources.transcripts import labelled, turns_in

NO_INPUT = ("<noinput>", "nan", "none", "n/a", "无")
ANSWER_KEYS = ("response", "text", "output", "answer", "completion", "content", "value", "body")


def _plan_answers(row: Row) -> Columns | None:
    by_role = {role: column for role in ("user", "input", "assistant", "history") if (column := find(row, role))}
    if "user" not in by_role and "input" in by_role:
        by_role["user"] = by_role.pop("input")
    if not {"user", "assistant"} <= by_role.keys():
        return None
    return Columns(with_extras(row, by_role))


def _plan_exactly(*names: str) -> Callable[[Row], Columns | None]:
    """The plan of a set whose rows have all these columns, besides which they may have others."""
    return lambda row: _plan_answers(row) if all(name in row for name in names) else None


def talk_of_answer(row: Row, columns: Columns) -> Talk:
    """A talk from instruction (and input, history) and answer; the first of several answers."""
    turns = [*_history(columns.get(row, "history")), *side(columns.get(row, "user"), "user")]
    given = columns.get(row, "input")
    if given is not None and (given := text_of(given)).strip() and given.strip().lower() not in NO_INPUT:
        turns.append(("user", given))
    answer = columns.get(row, "assistant")
    answers = list_of(answer) if isinstance(answer, list | dict) else None
    if answers and isinstance(answers[0], dict) and message_keys(answers):
        turns.extend(side(answers, "assistant"))
    elif answers:
        turns.append(("assistant", next((found for each in answers if (found := answer_text(each)).strip()), "")))
    else:
        turns.append(("assistant", text_of(answer)))
    return talk_of(turns, row, columns)


def answer_text(answer: Any) -> str:
    """The text of an answer that may stand in an object of its own."""
    if isinstance(answer, dict):
        key = next((key for key in ANSWER_KEYS if key in answer), None)
        return text_of(answer[key]) if key else ""
    return text_of(answer)


def side(value: Any, role: str) -> list[tuple[str, str]]:
    """Turns of a question or an answer: a text, a transcript whose last turn may still be open, or messages."""
    messages = list_of(value) if isinstance(value, list | dict) else None
    if messages and isinstance(messages[0], dict) and (keys := message_keys(messages)):
        return list(message_turns(messages, *keys))
    if isinstance(value, dict) and (keys := message_keys([value])):
        return list(message_turns([value], *keys))
    text = text_of(value)
    return labelled(text) or [(role, text)]


def _history(value: Any) -> Turns:
    """What was said before: pairs of question and answer, messages, texts in turn, or a transcript.

    Raises `Unusable` for what is none of these: an answer is not learned without what it goes back to.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", *NO_INPUT)):
        return []
    if isinstance(value, str) and not value.lstrip().startswith("["):
        if turns := turns_in(value):
            return turns
        raise Unusable("history: nothing says who speaks")
    items = list_of(value)
    if items is None:
        raise Unusable("history: a list was expected")
    return [turn for place, item in enumerate(items) for turn in _earlier(item, place)]


def _earlier(item: Any, place: int) -> Turns:
    """The turns of one item of a history, counted from 0."""
    if isinstance(item, list | tuple):
        if len(item) not in (0, 2):
            raise Unusable(f"history {place + 1}: a pair of question and answer was expected")
        return list(zip(("user", "assistant"), (text_of(text) for text in item), strict=False))
    if isinstance(item, dict) and (keys := message_keys([item])):
        return message_turns([item], *keys)
    if isinstance(item, dict) and (user := find(item, "user")) and (answer := find(item, "assistant")):
        return [("user", text_of(item[user])), ("assistant", text_of(item[answer]))]
    return [("user" if place % 2 == 0 else "assistant", text_of(item))]


ANSWERS: tuple[Shape, ...] = (
    Shape(
        "history",
        "Answer with history",
        '{"prompt", "response", "history": [["…", "…"]]}',
        lambda row: _plan_answers(row) if find(row, "history") else None,
        talk_of_answer,
    ),
    Shape(
        "firefly", "Firefly", '{"kind", "input", "target"}', _plan_exactly("kind", "input", "target"), talk_of_answer
    ),
    Shape(
        "alpaca",
        "Alpaca",
        '{"instruction", "input", "output"}',
        _plan_exactly("instruction", "input", "output"),
        talk_of_answer,
    ),
    Shape(
        "belle",
        "BELLE evaluation",
        '{"question", "std_answer", "class"}',
        _plan_exactly("question", "std_answer"),
        talk_of_answer,
    ),
    Shape("wizardlm", "WizardLM", '{"instruction", "output"}', _plan_exactly("instruction", "output"), talk_of_answer),
    Shape(
        "dolly",
        "Dolly",
        '{"instruction", "context", "response"}',
        _plan_exactly("instruction", "response"),
        talk_of_answer,
    ),
    Shape(
        "answers",
        "Questions and answers",
        "a column such as prompt or question, one such as response or answer",
        _plan_answers,
        talk_of_answer,
    ),
)
