"""The shapes that rows of published dialogue and instruction sets have, and how each becomes a talk.

Sources of the shapes: the data cards of Alpaca, BELLE, Firefly, WizardLM, Dolly, OpenOrca, UltraChat, ShareGPT,
FineTome and DailyDialog; OpenAI's fine-tuning guide; TRL's and LLaMA-Factory's data set formats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainer.sources.columns import NAMES, Columns, Row, find, message_keys, plain
from trainer.sources.talk import ROLES, TOOL_ROLES, Talk, Turns, Unusable, list_of, text_of
from trainer.sources.transcripts import turns_in


@dataclass(frozen=True)
class Shape:
    """`plan` looks at one row and says what its columns are, None when the row has another shape; `talk` reads rows
    with these columns and raises `Unusable`."""

    name: str
    title: str
    expected: str
    plan: Callable[[Row], Columns | None]
    talk: Callable[[Row, Columns], Talk]


def message_turns(messages: list[Any], from_key: str, value_key: str) -> list[tuple[str, str]]:
    """Turns of a list of messages. Raises `Unusable` for messages that are none and roles that do not exist."""
    return list(zip(*_sides(messages, from_key, value_key), strict=True))


def _sides(messages: list[Any], from_key: str, value_key: str) -> tuple[list[str], list[str]]:
    """Labels and texts. Most messages are as they should be; where one is not, all are looked at one by one."""
    try:
        labels, texts = [message[from_key] for message in messages], [message[value_key] for message in messages]
        if set(map(type, texts)) == {str} and ROLES.keys() >= set(labels):
            return labels, texts
    except (KeyError, TypeError):
        pass
    turns = [_turn(message, number, from_key, value_key) for number, message in enumerate(messages, start=1)]
    return [label for label, _ in turns], [text for _, text in turns]


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
    return _plan_list([name for name in row if plain(name) in NAMES["messages"]], row)


def _plan_list(names: list[str], row: Row) -> Columns | None:
    for name in names:
        if (messages := _dicts(row[name])) and (keys := message_keys(messages)):
            return Columns(with_extras(row, {"messages": name}), *keys)
    return None


def _dicts(cell: Any) -> list[Any]:
    found = list_of(cell) if cell else None
    return found if found and isinstance(found[0], dict) else []


def with_extras(row: Row, by_role: dict[str, str]) -> dict[str, str]:
    """The same, with the columns of system text and language where there are any."""
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
    return _with_rest(Talk(*_sides(messages, columns.from_key, columns.value_key)), row, columns)


def talk_of(turns: Turns, row: Row, columns: Columns) -> Talk:
    """The turns with the row's system text and language."""
    return _with_rest(Talk.of(turns), row, columns)


def _with_rest(talk: Talk, row: Row, columns: Columns) -> Talk:
    if len(columns.by_role) > 1:
        system, lang = columns.get(row, "system"), columns.get(row, "lang")
        talk.system = system if isinstance(system, str) else ""
        talk.lang = lang if isinstance(lang, str) else ""
    return talk


# ------------------------------------------------------------------------------------------------ lists of texts


def _plan_texts(row: Row) -> Columns | None:
    name = find(row, "messages")
    texts = list_of(row[name]) if name else None
    is_talk = texts and len(texts) > 1 and all(isinstance(text, str) for text in texts)
    return Columns(with_extras(row, {"messages": name})) if name and is_talk else None


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
    if set(map(type, texts)) != {str}:
        texts = [text_of(text) for text in texts]
    # Rows of this shape are pairs by position; a label before each text is kept only where all have one.
    if ":" in texts[0][:32] and len(spoken := turns_in("\n".join(texts))) == len(texts):
        return talk_of(spoken, row, columns)
    labels = ["user", "assistant"] * ((len(texts) + 1) // 2)
    return _with_rest(Talk(labels[: len(texts)], texts), row, columns)


# ------------------------------------------------------------------------------------------------ lists of pairs


def _plan_pairs(row: Row) -> Columns | None:
    for name in row:
        pairs = _dicts(row[name]) if name != "data" else []
        if pairs and (user := find(pairs[0], "user")) and (assistant := find(pairs[0], "assistant")):
            return Columns(with_extras(row, {"messages": name}), user, assistant)
    return None


def _talk_of_pairs(row: Row, columns: Columns) -> Talk:
    turns: list[tuple[str, str]] = []
    for number, pair in enumerate(list_of(columns.get(row, "messages")) or [], start=1):
        if not isinstance(pair, dict):
            raise Unusable(f"turn {number} is no object")
        turns.append(("user", text_of(pair.get(columns.from_key))))
        turns.append(("assistant", text_of(pair.get(columns.value_key))))
    return talk_of(turns, row, columns)


# ------------------------------------------------------------------------------------------------ transcripts


def _plan_transcript(row: Row) -> Columns | None:
    name = find(row, "transcript") or next((column for column in ("prompt", "sample") if column in row), None)
    cell = row[name] if name else None
    if not isinstance(cell, str) or not turns_in(cell):
        return None
    return Columns(with_extras(row, {"transcript": str(name)}))


def talk_of_transcript(row: Row, columns: Columns) -> Talk:
    """A talk from a text in which each line, or mark, says who speaks."""
    turns = turns_in(text_of(columns.get(row, "transcript")))
    if not turns:
        raise Unusable("no line says who speaks")
    return talk_of(turns, row, columns)


MESSAGES: tuple[Shape, ...] = (
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
)
LOOSE: tuple[Shape, ...] = (
    Shape(
        "messages",
        "Messages in a list",
        'a list of {"speaker": "…", "text": "…"} in any column',
        lambda row: _plan_list(list(row), row),
        talk_of_messages,
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
"""Shapes to be looked for last: their columns hold other things elsewhere."""
