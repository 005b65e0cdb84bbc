"""Row schemas of question and answer, with or without history (Alpaca, BELLE, Firefly, Dolly,
OpenOrca).
"""

from collections.abc import Callable
from typing import Any

from trainer.sources.columns import ColumnRoles, Row, RowSchema, find_column, message_keys
from trainer.sources.conversation_builder import (
    RawDialogue,
    Turns,
    parse_labelled_turns,
    parse_transcript,
)
from trainer.sources.formats.message_rows import add_optional_roles, make_dialogue, message_turns
from trainer.sources.record_fields import UnusableRecordError, cell_list, cell_text

NO_INPUT = ("<noinput>", "nan", "none", "n/a", "无")
ANSWER_KEYS = ("response", "text", "output", "answer", "completion", "content", "value", "body")


def answer_columns(row: Row) -> dict[str, str]:
    """Return the columns of question and answer by role, with those of input, history, system text
    and language if there are any; empty without a question or without an answer.
    """
    by_role: dict[str, str] = {}
    for role in ("user", "input", "assistant", "history"):
        column = find_column(row, role)
        if column:
            by_role[role] = column
    if "user" not in by_role and "input" in by_role:
        # Firefly and others ask in `input` alone.
        by_role["user"] = by_role.pop("input")
    if not {"user", "assistant"} <= by_role.keys():
        return {}
    return add_optional_roles(row, by_role)


def _plan_answers(row: Row) -> ColumnRoles | None:
    by_role = answer_columns(row)
    return ColumnRoles(by_role) if by_role else None


def _plan_history(row: Row) -> ColumnRoles | None:
    return _plan_answers(row) if find_column(row, "history") else None


def _plan_exactly(*names: str) -> Callable[[Row], ColumnRoles | None]:
    """Return a plan for rows that have all these columns, and possibly others."""
    return lambda row: _plan_answers(row) if all(name in row for name in names) else None


def dialogue_from_answer(row: Row, columns: ColumnRoles) -> RawDialogue:
    """Build a dialogue from instruction (with input and history) and answer; the first of several
    answers.
    """
    turns = [*_history(columns.get(row, "history")), *parse_side(columns.get(row, "user"), "user")]
    text = cell_text(columns.get(row, "input")).strip()
    has_input = bool(text) and text.lower() not in NO_INPUT
    if has_input:
        turns.append(("user", text))
    answer = columns.get(row, "assistant")
    is_plural = columns.by_role.get("assistant", "").lower() in ("answers", "outputs", "responses")
    answers = cell_list(answer) if is_plural or isinstance(answer, list | dict) else None
    if answers and isinstance(answers[0], dict) and message_keys(answers):
        turns.extend(parse_side(answers, "assistant"))
    elif answers:
        filled = filter(str.strip, map(answer_text, answers))
        turns.append(("assistant", next(filled, "")))
    else:
        turns.append(("assistant", cell_text(answer)))
    dialogue = make_dialogue(turns, row, columns)
    if has_input:
        dialogue.input_lines = text.count("\n") + 1
    return dialogue


def answer_text(answer: Any) -> str:
    """Return the text of an answer that may be nested in an object."""
    if isinstance(answer, dict):
        key = next((key for key in ANSWER_KEYS if key in answer), None)
        return cell_text(answer[key]) if key else ""
    return cell_text(answer)


def parse_side(value: Any, role: str) -> list[tuple[str, str]]:
    """Return the turns of a question or an answer: a text, a transcript whose last turn may be
    open, or messages.
    """
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        value = value["messages"]
    messages = cell_list(value) if isinstance(value, list | dict) else None
    if messages and isinstance(messages[0], dict):
        keys = message_keys(messages)
        if keys:
            return message_turns(messages, *keys)
    if isinstance(value, dict):
        keys = message_keys([value])
        if keys:
            return message_turns([value], *keys)
    text = cell_text(value)
    return parse_labelled_turns(text) or [(role, text)]


def _history(value: Any) -> Turns:
    """Return the preceding turns: pairs of question and answer, messages, alternating texts, or a
    transcript.

    Raises `UnusableRecordError` for anything else: an answer is not learned without its context.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", *NO_INPUT)):
        return []
    if isinstance(value, str) and not value.lstrip().startswith("["):
        transcript = parse_transcript(value)
        if not transcript:
            raise UnusableRecordError("history: no speaker labels")
        return transcript
    items = cell_list(value)
    if items is None:
        raise UnusableRecordError("history: a list was expected")
    turns: list[tuple[str, str]] = []
    for place, item in enumerate(items):
        turns += _history_item(item, place)
    return turns


def _history_item(item: Any, place: int) -> Turns:
    """Return the turns of one history item, counted from 0."""
    if isinstance(item, list | tuple):
        if len(item) not in (0, 2):
            raise UnusableRecordError(
                f"history {place + 1}: a pair of question and answer was expected"
            )
        return list(zip(("user", "assistant"), (cell_text(text) for text in item), strict=False))
    if isinstance(item, dict):
        keys = message_keys([item])
        if keys:
            return message_turns([item], *keys)
        user = find_column(item, "user")
        answer = find_column(item, "assistant")
        if user and answer:
            return [("user", cell_text(item[user])), ("assistant", cell_text(item[answer]))]
    return [("user" if place % 2 == 0 else "assistant", cell_text(item))]


def _answer_schema(
    name: str,
    title: str,
    expected: str,
    plan: Callable[[Row], ColumnRoles | None],
    also_read: tuple[str, ...] = (),
) -> RowSchema:
    return RowSchema(
        name, title, expected, plan=plan, parse=dialogue_from_answer, also_read=also_read
    )


QA_SCHEMAS = (
    _answer_schema(
        "history",
        "Answer with history",
        '{"prompt", "response", "history": [["…", "…"]]}',
        _plan_history,
    ),
    _answer_schema(
        "firefly",
        "Firefly",
        '{"kind", "input", "target"}',
        _plan_exactly("kind", "input", "target"),
    ),
    _answer_schema(
        "alpaca",
        "Alpaca",
        '{"instruction", "input", "output"}',
        _plan_exactly("instruction", "input", "output"),
        also_read=("text",),  # all three again, as a prompt
    ),
    _answer_schema(
        "belle",
        "BELLE evaluation",
        '{"question", "std_answer", "class"}',
        _plan_exactly("question", "std_answer"),
    ),
    _answer_schema(
        "wizardlm",
        "WizardLM",
        '{"instruction", "output"}',
        _plan_exactly("instruction", "output"),
    ),
    _answer_schema(
        "dolly",
        "Dolly",
        '{"instruction", "context", "response"}',
        _plan_exactly("instruction", "response"),
    ),
    _answer_schema(
        "answers",
        "Questions and answers",
        "columns such as prompt or question, response or answer",
        _plan_answers,
    ),
)
