"""The shapes that rows of published dialogue and instruction sets have, and how each becomes a talk.

Sources of the shapes: the data cards of Alpaca, BELLE, Firefly, WizardLM, Dolly, OpenOrca, UltraChat, ShareGPT,
FineTome and DailyDialog; OpenAI's fine-tuning guide; TRL's and LLaMA-Factory's data set formats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainer.sources.columns import Columns, Row, find, message_keys
from trainer.sources.talk import ROLES, TOOL_ROLES, Talk, Turns, Unusable, list_of, text_of
from trainer.sources.transcripts import labelled, turns_in

NO_INPUT = ("<noinput>", "nan", "none", "n/a", "无")


@dataclass(frozen=True)
class Shape:
    """`plan` looks at one row and says what its columns are, None when the row has another shape; `talk` reads rows
    with these columns and raises `Unusable`."""

    name: str
    title: str
    expected: str
    plan: Callable[[Row], Columns | None]
    talk: Callable[[Row, Columns], Talk]


def message_turns(messages: list[Any], from_key: str, value_key: str) -> Turns:
    """Turns of a list of messages. Raises `Unusable` for messages that are none and roles that do not exist."""
    try:
        turns = [(m[from_key], m[value_key]) for m in messages]
        if all(type(text) is str and label in ROLES for label, text in turns):
            return turns
    except (KeyError, TypeError):
        pass
    return [_turn(message, number, from_key, value_key) for number, message in enumerate(messages, start=1)]


def _turn(message: Any, number: int, from_key: str, value_key: str) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise Unusable(f"message {number} is no object")
    label = message.get(from_key)
    if not isinstance(label, str | int) or not str(label).strip():
        raise Unusable(f"message {number} does not say who speaks ({from_key!r})")
    label = str(label)
    if message.get("tool_calls") or message.get("function_call"):
        raise Unusable("holds calls of tools")
    if from_key == "role" and label.casefold() not in ROLES and label.casefold() not in TOOL_ROLES:
        raise Unusable(f"message {number} has an unknown role {label[:20]!r}")
    if value_key not in message:
        raise Unusable(f"message {number} has no {value_key!r}")
    return label, text_of(message[value_key])


# ------------------------------------------------------------------------------------------------ lists of messages


def _plan_messages(row: Row) -> Columns | None:
    for name in row:
        if (messages := _dicts(row[name])) and (keys := message_keys(messages)):
            return Columns(_with_extras(row, {"messages": name}), *keys)
    return None


def _dicts(cell: Any) -> list[Any]:
    found = list_of(cell) if cell else None
    return found if found and isinstance(found[0], dict) else []


def _with_extras(row: Row, by_role: dict[str, str]) -> dict[str, str]:
    for role in ("system", "lang"):
        if (column := find(row, role)) and column not in by_role.values():
            by_role[role] = column
    return by_role


def _plan_openai(row: Row) -> Columns | None:
    columns = _plan_messages(row)
    return columns if columns and columns.from_key == "role" else None


def talk_of_messages(row: Row, columns: Columns) -> Talk:
    """A talk from a list of messages."""
    messages = columns.get(row, "messages")
    if type(messages) is not list:
        messages = list_of(messages)
    if not messages:
        raise Unusable("no messages")
    turns = message_turns(messages, columns.from_key, columns.value_key)
    return Talk(turns, _extra(row, columns, "system"), lang=_extra(row, columns, "lang"))


def _extra(row: Row, columns: Columns, role: str) -> str:
    value = columns.get(row, role)
    return value if isinstance(value, str) else ""


# ------------------------------------------------------------------------------------------------ lists of texts


def _plan_texts(row: Row) -> Columns | None:
    name = find(row, "messages")
    texts = list_of(row[name]) if name else None
    is_talk = texts and len(texts) > 1 and all(isinstance(text, str) for text in texts)
    return Columns(_with_extras(row, {"messages": name})) if name and is_talk else None


def _plan_ultrachat(row: Row) -> Columns | None:
    columns = _plan_texts(row)
    return columns if columns and columns.by_role["messages"] == "data" else None


def talk_of_texts(row: Row, columns: Columns) -> Talk:
    """A talk from a list of texts by two who take turns; each may begin with who says it."""
    texts = columns.get(row, "messages")
    if type(texts) is not list:
        texts = list_of(texts)
    if not texts:
        raise Unusable("no messages")
    if any(type(text) is not str for text in texts):
        texts = [text_of(text) for text in texts]
    # Rows of this shape are pairs by position; a label before each text is kept only where all have one.
    turns: Turns = [("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(texts)]
    if ":" in texts[0][:32] and len(spoken := turns_in("\n".join(texts))) == len(texts):
        turns = spoken
    return Talk(turns, _extra(row, columns, "system"), lang=_extra(row, columns, "lang"))


# ------------------------------------------------------------------------------------------------ lists of pairs


def _plan_pairs(row: Row) -> Columns | None:
    for name in row:
        pairs = _dicts(row[name]) if name != "data" else []
        if pairs and (user := find(pairs[0], "user")) and (assistant := find(pairs[0], "assistant")):
            return Columns(_with_extras(row, {"messages": name}), user, assistant)
    return None


def _talk_of_pairs(row: Row, columns: Columns) -> Talk:
    turns: list[tuple[str, str]] = []
    for number, pair in enumerate(list_of(columns.get(row, "messages")) or [], start=1):
        if not isinstance(pair, dict):
            raise Unusable(f"turn {number} is no object")
        turns.append(("user", text_of(pair.get(columns.from_key))))
        turns.append(("assistant", text_of(pair.get(columns.value_key))))
    return Talk(turns, _extra(row, columns, "system"), lang=_extra(row, columns, "lang"))


# ------------------------------------------------------------------------------------------------ question and answer


def _plan_answers(row: Row) -> Columns | None:
    by_role = {role: column for role in ("user", "input", "assistant", "history") if (column := find(row, role))}
    if "user" not in by_role and "input" in by_role:
        by_role["user"] = by_role.pop("input")
    if not {"user", "assistant"} <= by_role.keys():
        return None
    return Columns(_with_extras(row, by_role))


def _plan_exactly(*names: str) -> Callable[[Row], Columns | None]:
    """The plan of a set whose rows have all these columns, besides which they may have others."""
    return lambda row: _plan_answers(row) if all(name in row for name in names) else None


def talk_of_answer(row: Row, columns: Columns) -> Talk:
    """A talk from instruction (and input, history) and answer; the first of several answers."""
    turns = [*_history(columns.get(row, "history")), *side(columns.get(row, "user"), "user")]
    extra = columns.get(row, "input")
    if extra is not None and (extra := text_of(extra)).strip() and extra.strip().lower() not in NO_INPUT:
        turns.append(("user", extra))
    answer = columns.get(row, "assistant")
    answers = list_of(answer) if isinstance(answer, list | dict) else None
    if answers and isinstance(answers[0], dict) and message_keys(answers):
        turns.extend(side(answers, "assistant"))
    elif answers:
        turns.append(("assistant", next((found for each in answers if (found := answer_text(each)).strip()), "")))
    else:
        turns.append(("assistant", text_of(answer)))
    return Talk(turns, _extra(row, columns, "system"), lang=_extra(row, columns, "lang"))


def answer_text(answer: Any) -> str:
    """The text of an answer that may stand in an object of its own."""
    if isinstance(answer, dict):
        key = next(
            (
                key
                for key in ("response", "text", "output", "answer", "completion", "content", "value", "body")
                if key in answer
            ),
            None,
        )
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


def _history(value: Any) -> list[tuple[str, str]]:
    """What was said before: pairs of question and answer, messages, texts in turn, or a transcript."""
    turns: list[tuple[str, str]] = []
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return turns_in(value)
    for place, item in enumerate(list_of(value) or []):
        if isinstance(item, list | tuple):
            turns.extend(zip(("user", "assistant"), (text_of(text) for text in item), strict=False))
        elif isinstance(item, dict) and (keys := message_keys([item])):
            turns.extend(message_turns([item], *keys))
        elif isinstance(item, dict) and (user := find(item, "user")) and (answer := find(item, "assistant")):
            turns.extend((("user", text_of(item[user])), ("assistant", text_of(item[answer]))))
        else:
            turns.append(("user" if place % 2 == 0 else "assistant", text_of(item)))
    return turns


# ------------------------------------------------------------------------------------------------ transcripts


def _plan_transcript(row: Row) -> Columns | None:
    name = find(row, "transcript") or next((column for column in ("prompt", "sample") if column in row), None)
    cell = row[name] if name else None
    if not isinstance(cell, str) or not turns_in(cell):
        return None
    return Columns(_with_extras(row, {"transcript": str(name)}))


def talk_of_transcript(row: Row, columns: Columns) -> Talk:
    """A talk from a text in which each line, or mark, says who speaks."""
    turns = turns_in(text_of(columns.get(row, "transcript")))
    if not turns:
        raise Unusable("no line says who speaks")
    return Talk(turns, _extra(row, columns, "system"), lang=_extra(row, columns, "lang"))


SHAPES: tuple[Shape, ...] = (
    Shape(
        "openai", "OpenAI messages", '{"messages": [{"role": "user", "content": "…"}]}', _plan_openai, talk_of_messages
    ),
    Shape(
        "sharegpt", "ShareGPT", '{"conversations": [{"from": "human", "value": "…"}]}', _plan_messages, talk_of_messages
    ),
    Shape("ultrachat", "UltraChat", '{"id": "…", "data": ["question", "answer", …]}', _plan_ultrachat, talk_of_texts),
    Shape(
        "pairs", "Pairs in a list", '{"conversation": [{"human": "…", "assistant": "…"}]}', _plan_pairs, _talk_of_pairs
    ),
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
    Shape("turns", "Turns in a list", '{"dialog": ["one says", "the other says", …]}', _plan_texts, talk_of_texts),
    Shape(
        "transcript",
        "Transcript in a column",
        '{"text": "Human: …\\nAssistant: …"}',
        _plan_transcript,
        talk_of_transcript,
    ),
)
