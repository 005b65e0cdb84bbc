"""Row schemas with lists of messages, texts, pairs or transcripts (OpenAI, ShareGPT, UltraChat,
DailyDialog).
"""

from typing import Any

from trainer.sources.columns import (
    ColumnRoles,
    Row,
    RowSchema,
    find_column,
    has_role_name,
    message_keys,
)
from trainer.sources.conversation_builder import (
    ASSISTANT,
    ROLES,
    TOOL_ROLES,
    RawDialogue,
    Turns,
    is_character,
    parse_transcript,
)
from trainer.sources.message_order import sort_messages
from trainer.sources.record_fields import UnusableRecordError, cell_list, cell_text

LOSS_KEYS = ("weight", "loss_weight", "train", "training", "trainable", "loss", "output_with_loss")
MASK_KEYS = ("mask", "masked", "ignore_loss")
READ_KEYS = frozenset((*LOSS_KEYS, *MASK_KEYS, "tool_calls", "function_call"))
"""Keys of messages that decide on their use, beside those of speaker, text and order."""


def message_turns(messages: list[Any], from_key: str, value_key: str) -> list[tuple[str, str]]:
    """Return the turns of a list of messages, in order (`message_order`).

    Raises `UnusableRecordError` for malformed messages and unknown roles.
    """
    return list(zip(*_sides(sort_messages(messages), from_key, value_key), strict=True))


def _sides(messages: list[Any], from_key: str, value_key: str) -> tuple[list[str], list[str]]:
    """Return labels and texts; falls back to checking messages one by one if any is malformed."""
    try:
        labels = [message[from_key] for message in messages]
        texts = [message[value_key] for message in messages]
        if set(map(type, texts)) == {str} and ROLES.keys() >= set(labels):
            return labels, texts
    except (KeyError, TypeError):
        pass
    are_roles = from_key == "role" and not have_names(messages, from_key)
    turns = [
        _turn(it, number, from_key, value_key, are_roles)
        for number, it in enumerate(messages, start=1)
    ]
    return [label for label, _ in turns], [text for _, text in turns]


def excluded_turns(messages: list[Any]) -> frozenset[int]:
    """Return the indices of messages that carry a flag which excludes them from training."""
    return frozenset(
        number
        for number, message in enumerate(messages)
        if len(message) > 2 and is_excluded(message)
    )


def is_excluded(item: dict[str, Any], loss_keys: tuple[str, ...] = LOSS_KEYS) -> bool:
    """Report whether a message or row has a flag that excludes it from training.

    `weight` is OpenAI's and Mistral's, `train` and `training` axolotl's, `loss` ms-swift's and
    XTuner's.
    """
    if any(_is_off(item[key]) for key in loss_keys if key in item):
        return True
    return loss_keys is LOSS_KEYS and any(_is_on(item[key]) for key in MASK_KEYS if key in item)


def _is_off(value: Any) -> bool:
    return (isinstance(value, int | float) and not value) or (
        isinstance(value, str) and value.strip().lower() in ("0", "0.0", "false", "no")
    )


def _is_on(value: Any) -> bool:
    return (isinstance(value, int | float) and bool(value)) or (
        isinstance(value, str) and value.strip().lower() in ("1", "true", "yes")
    )


def have_names(messages: list[Any], from_key: str) -> bool:
    """Report whether the roles in a list of messages are names of characters, such as `Oda`."""
    labels = [str(message.get(from_key)) for message in messages if isinstance(message, dict)]
    if from_key not in ("role", "character") or any(
        ROLES.get(label.casefold()) is ASSISTANT for label in labels
    ):
        return False
    return any(
        is_character(label) and not (label.isascii() and label.islower()) for label in labels
    )


def _turn(
    message: Any, number: int, from_key: str, value_key: str, are_roles: bool
) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise UnusableRecordError(f"message {number} is not an object")
    label = message.get(from_key)
    if not isinstance(label, str | int) or not str(label).strip():
        raise UnusableRecordError(f"message {number} does not name its speaker ({from_key!r})")
    label = str(label) if from_key != "is_human" else ("assistant", "user")[bool(label)]
    if message.get("tool_calls") or message.get("function_call"):
        raise UnusableRecordError("contains tool calls")
    if are_roles and label.casefold() not in ROLES and label.casefold() not in TOOL_ROLES:
        raise UnusableRecordError(f"message {number} has an unknown role {label[:20]!r}")
    if value_key not in message:
        raise UnusableRecordError(f"message {number} has no {value_key!r}")
    return label, cell_text(message[value_key])


def _plan_messages(row: Row) -> ColumnRoles | None:
    return _plan_list([name for name in row if has_role_name(name, "messages")], row)


def _plan_any_list(row: Row) -> ColumnRoles | None:
    return _plan_list(list(row), row)


def _plan_list(names: list[str], row: Row) -> ColumnRoles | None:
    for name in names:
        if (messages := _dicts(row[name])) and (keys := message_keys(messages)):
            return ColumnRoles(add_optional_roles(row, {"messages": name}), *keys)
    return None


def _dicts(cell: Any) -> list[Any]:
    cells = cell_list(cell) if cell else None
    return cells if cells and isinstance(cells[0], dict) else []


def add_optional_roles(row: Row, by_role: dict[str, str]) -> dict[str, str]:
    """Add the columns of system text and language, if any."""
    for role in ("system", "lang"):
        if (column := find_column(row, role)) and column not in by_role.values():
            by_role[role] = column
    return by_role


def _plan_openai(row: Row) -> ColumnRoles | None:
    columns = _plan_messages(row)
    return columns if columns and columns.from_key == "role" else None


def dialogue_from_messages(row: Row, columns: ColumnRoles) -> RawDialogue:
    """Build a dialogue from a list of messages."""
    messages = _messages(row, columns)
    dialogue = RawDialogue(*_sides(messages, columns.from_key, columns.value_key))
    dialogue.untrained = excluded_turns(messages)
    return _add_system_and_language(dialogue, row, columns)


def _messages(row: Row, columns: ColumnRoles) -> list[Any]:
    if messages := cell_list(columns.get(row, "messages")):
        return sort_messages(messages)
    raise UnusableRecordError("no messages")


def make_dialogue(turns: Turns, row: Row, columns: ColumnRoles) -> RawDialogue:
    """Build a dialogue from turns with the row's system text and language."""
    return _add_system_and_language(RawDialogue.of(turns), row, columns)


def _add_system_and_language(dialogue: RawDialogue, row: Row, columns: ColumnRoles) -> RawDialogue:
    if len(columns.by_role) > 1:
        system = columns.get(row, "system")
        lang = columns.get(row, "lang")
        dialogue.system = system if isinstance(system, str) else ""
        dialogue.lang = lang if isinstance(lang, str) else ""
    return dialogue


def _plan_texts(row: Row) -> ColumnRoles | None:
    name = find_column(row, "messages")
    texts = cell_list(row[name]) if name else None
    is_talk = (
        texts
        and len(texts) > 1
        and all(isinstance(text, str) for text in texts)
        and "question_id" not in row
    )
    return ColumnRoles(add_optional_roles(row, {"messages": name})) if name and is_talk else None


def _plan_ultrachat(row: Row) -> ColumnRoles | None:
    columns = _plan_texts(row)
    return columns if columns and columns.by_role["messages"] == "data" else None


def dialogue_from_texts(row: Row, columns: ColumnRoles) -> RawDialogue:
    """Build a dialogue from a list of alternating texts; each may begin with its speaker."""
    texts = _messages(row, columns)
    if set(map(type, texts)) != {str}:
        texts = [cell_text(text) for text in texts]
    # Speakers alternate by position; labels before the texts count only if all texts have one.
    if ":" in texts[0][:32] and len(turns := parse_transcript("\n".join(texts))) == len(texts):
        return make_dialogue(turns, row, columns)
    labels = ["user", "assistant"] * ((len(texts) + 1) // 2)
    return _add_system_and_language(RawDialogue(labels[: len(texts)], texts), row, columns)


def _plan_pairs(row: Row) -> ColumnRoles | None:
    for name in row:
        pairs = _dicts(row[name]) if name != "data" else []
        if (
            pairs
            and (user := find_column(pairs[0], "user"))
            and (assistant := find_column(pairs[0], "assistant"))
        ):
            return ColumnRoles(add_optional_roles(row, {"messages": name}), user, assistant)
    return None


def _dialogue_from_pairs(row: Row, columns: ColumnRoles) -> RawDialogue:
    turns: list[tuple[str, str]] = []
    pairs = sort_messages(cell_list(columns.get(row, "messages")) or [])
    for number, pair in enumerate(pairs, start=1):
        if not isinstance(pair, dict):
            raise UnusableRecordError(f"turn {number} is not an object")
        keys = {"user": columns.from_key, "assistant": columns.value_key}
        turns += [(role, cell_text(pair.get(key))) for role, key in keys.items()]
    dialogue = make_dialogue(turns, row, columns)
    dialogue.untrained = frozenset(
        2 * number + 1 for number, pair in enumerate(pairs) if is_excluded(pair)
    )
    return dialogue


def _plan_transcript(row: Row) -> ColumnRoles | None:
    name = find_column(row, "transcript") or next(
        (column for column in ("prompt", "sample") if column in row), None
    )
    cell = row[name] if name else None
    if not isinstance(cell, str) or not parse_transcript(cell):
        return None
    return ColumnRoles(add_optional_roles(row, {"transcript": str(name)}))


def dialogue_from_transcript(row: Row, columns: ColumnRoles) -> RawDialogue:
    """Build a dialogue from a text whose lines or marks name the speakers."""
    turns = parse_transcript(cell_text(columns.get(row, "transcript")))
    if not turns:
        raise UnusableRecordError("no speaker labels")
    return make_dialogue(turns, row, columns)


OPENAI_ROW = '{"messages": [{"role": "user", "content": "…"}]}'
SHAREGPT_ROW = '{"conversations": [{"from": "human", "value": "…"}]}'
ULTRACHAT_ROW = '{"id": "…", "data": ["question", "answer", …]}'
PAIRS_ROW = '{"conversation": [{"human": "…", "assistant": "…"}]}'
MESSAGE_SCHEMAS = (
    RowSchema(
        "openai", "OpenAI messages", OPENAI_ROW, plan=_plan_openai, parse=dialogue_from_messages
    ),
    RowSchema(
        "sharegpt", "ShareGPT", SHAREGPT_ROW, plan=_plan_messages, parse=dialogue_from_messages
    ),
    RowSchema(
        "ultrachat", "UltraChat", ULTRACHAT_ROW, plan=_plan_ultrachat, parse=dialogue_from_texts
    ),
    RowSchema("pairs", "Pairs in a list", PAIRS_ROW, plan=_plan_pairs, parse=_dialogue_from_pairs),
)
ANY_MESSAGES_ROW = 'a list of {"speaker": "…", "text": "…"} in any column'
TEXTS_ROW = '{"dialog": ["one says", "the other says", …]}'
TRANSCRIPT_ROW = '{"text": "Human: …\\nAssistant: …"}'
FALLBACK_SCHEMAS = (
    RowSchema(
        "messages",
        "Messages in a list",
        ANY_MESSAGES_ROW,
        plan=_plan_any_list,
        parse=dialogue_from_messages,
    ),
    RowSchema("turns", "Turns in a list", TEXTS_ROW, plan=_plan_texts, parse=dialogue_from_texts),
    RowSchema(
        "transcript",
        "Transcript in a column",
        TRANSCRIPT_ROW,
        plan=_plan_transcript,
        parse=dialogue_from_transcript,
    ),
)
"""Schemas that are tried last, as other data uses their columns too."""
