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
from trainer.sources.unread_columns import holds_media

LOSS_KEYS = ("weight", "loss_weight", "train", "training", "trainable", "loss", "output_with_loss")
MASK_KEYS = ("mask", "masked", "ignore_loss")
READ_KEYS = frozenset((*LOSS_KEYS, *MASK_KEYS, "tool_calls", "function_call"))
"""Keys of messages that decide on their use, beside those of speaker, text and order."""


def message_turns(messages: list[Any], from_key: str, value_key: str) -> list[tuple[str, str]]:
    """Return the turns of a list of messages, in order (`message_order`).

    Raises `UnusableRecordError` for malformed messages and unknown roles.
    """
    labels, texts = _sides(sort_messages(messages), from_key, value_key)
    return list(zip(labels, texts, strict=True))


def _sides(messages: list[Any], from_key: str, value_key: str) -> tuple[list[str], list[str]]:
    """Return labels and texts; falls back to checking messages one by one if any is malformed."""
    # Most messages have a speaker and a text alone.
    keys = (from_key, value_key)
    if any(isinstance(m, dict) and len(m) > 2 and holds_media(m, keys) for m in messages):
        raise UnusableRecordError("contains pictures or sound")
    # Nearly all lists are well-formed, and are checked as a whole.
    try:
        labels = [message[from_key] for message in messages]
        texts = [message[value_key] for message in messages]
        if set(map(type, texts)) == {str} and ROLES.keys() >= set(labels):
            return labels, texts
    except (KeyError, TypeError):
        pass
    are_roles = from_key == "role" and not have_names(messages, from_key)
    labels = []
    texts = []
    for number, message in enumerate(messages, start=1):
        label, text = _turn(message, number, from_key, value_key, are_roles=are_roles)
        labels.append(label)
        texts.append(text)
    return labels, texts


def excluded_turns(messages: list[Any]) -> frozenset[int]:
    """Return the indices of messages that carry a flag which excludes them from training."""
    excluded = set()
    for number, message in enumerate(messages):
        # Most have a speaker and a text alone.
        if len(message) > 2 and is_excluded(message):
            excluded.add(number)
    return frozenset(excluded)


def is_excluded(item: dict[str, Any], loss_keys: tuple[str, ...] = LOSS_KEYS) -> bool:
    """Report whether a message or row has a flag that excludes it from training.

    `weight` is OpenAI's and Mistral's, `train` and `training` axolotl's, `loss` ms-swift's and
    XTuner's.
    """
    if any(_is_off(item[key]) for key in loss_keys if key in item):
        return True
    if loss_keys is not LOSS_KEYS:
        return False  # a row's `mask` may be anything
    return any(_is_on(item[key]) for key in MASK_KEYS if key in item)


def _is_off(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("0", "0.0", "false", "no")
    return isinstance(value, int | float) and not value


def _is_on(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("1", "true", "yes")
    return isinstance(value, int | float) and bool(value)


def have_names(messages: list[Any], from_key: str) -> bool:
    """Report whether the roles in a list of messages are names of characters, such as `Oda`."""
    if from_key not in ("role", "character"):
        return False
    labels = [str(message.get(from_key)) for message in messages if isinstance(message, dict)]
    if any(ROLES.get(label.casefold()) is ASSISTANT for label in labels):
        return False
    names = [label for label in labels if not (label.isascii() and label.islower())]
    return any(is_character(name) for name in names)


def _turn(
    message: Any, number: int, from_key: str, value_key: str, *, are_roles: bool
) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise UnusableRecordError(f"message {number} is not an object")
    label = message.get(from_key)
    if not isinstance(label, str | int) or not str(label).strip():
        raise UnusableRecordError(f"message {number} does not name its speaker ({from_key!r})")
    if from_key == "is_human":
        label = "user" if label else "assistant"
    label = str(label)
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
        keys = message_keys(_dicts(row[name]))
        if keys:
            roles = add_optional_roles(row, {"messages": name})
            return ColumnRoles(roles, from_key=keys[0], value_key=keys[1])
    return None


def _dicts(cell: Any) -> list[Any]:
    cells = cell_list(cell) if cell else None
    return cells if cells and isinstance(cells[0], dict) else []


def add_optional_roles(row: Row, by_role: dict[str, str]) -> dict[str, str]:
    """Add the columns of system text and language, if any."""
    for role in ("system", "lang"):
        column = find_column(row, role)
        if column and column not in by_role.values():
            by_role[role] = column
    return by_role


def _plan_openai(row: Row) -> ColumnRoles | None:
    columns = _plan_messages(row)
    return columns if columns and columns.from_key == "role" else None


def dialogue_from_messages(row: Row, columns: ColumnRoles) -> RawDialogue:
    """Build a dialogue from a list of messages."""
    messages = _messages(row, columns)
    labels, texts = _sides(messages, columns.from_key, columns.value_key)
    dialogue = RawDialogue(labels, texts)
    dialogue.untrained = excluded_turns(messages)
    return _add_system_and_language(dialogue, row, columns)


def _messages(row: Row, columns: ColumnRoles) -> list[Any]:
    messages = cell_list(columns.get(row, "messages"))
    if not messages:
        raise UnusableRecordError("no messages")
    return sort_messages(messages)


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
    if name is None or "question_id" in row:
        # With such an id, the texts are prompts without answers (`prompts`).
        return None
    texts = cell_list(row[name]) or []
    if len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        return None
    return ColumnRoles(add_optional_roles(row, {"messages": name}))


def _plan_ultrachat(row: Row) -> ColumnRoles | None:
    columns = _plan_texts(row)
    return columns if columns and columns.by_role["messages"] == "data" else None


def dialogue_from_texts(row: Row, columns: ColumnRoles) -> RawDialogue:
    """Build a dialogue from a list of alternating texts; each may begin with its speaker."""
    texts = _messages(row, columns)
    if set(map(type, texts)) != {str}:
        texts = [cell_text(text) for text in texts]
    # Speakers alternate by position; labels before the texts count only if all texts have one.
    if ":" in texts[0][:32]:
        turns = parse_transcript("\n".join(texts))
        if len(turns) == len(texts):
            return make_dialogue(turns, row, columns)
    labels = ["user", "assistant"] * ((len(texts) + 1) // 2)
    return _add_system_and_language(RawDialogue(labels[: len(texts)], texts), row, columns)


def _plan_pairs(row: Row) -> ColumnRoles | None:
    for name in row:
        pairs = _dicts(row[name]) if name != "data" else []
        user = find_column(pairs[0], "user") if pairs else None
        assistant = find_column(pairs[0], "assistant") if pairs else None
        if user and assistant:
            return ColumnRoles(add_optional_roles(row, {"messages": name}), user, assistant)
    return None


def _dialogue_from_pairs(row: Row, columns: ColumnRoles) -> RawDialogue:
    turns: list[tuple[str, str]] = []
    pairs = sort_messages(cell_list(columns.get(row, "messages")) or [])
    excluded = set()
    for number, pair in enumerate(pairs, start=1):
        if not isinstance(pair, dict):
            raise UnusableRecordError(f"turn {number} is not an object")
        turns.append(("user", cell_text(pair.get(columns.from_key))))
        turns.append(("assistant", cell_text(pair.get(columns.value_key))))
        if is_excluded(pair):
            excluded.add(len(turns) - 1)  # the answer
    dialogue = make_dialogue(turns, row, columns)
    dialogue.untrained = frozenset(excluded)
    return dialogue


def _plan_transcript(row: Row) -> ColumnRoles | None:
    name = find_column(row, "transcript")
    for other_name in ("prompt", "sample"):
        if name is None and other_name in row:
            name = other_name
    if name is None or not isinstance(row[name], str) or not parse_transcript(row[name]):
        return None
    return ColumnRoles(add_optional_roles(row, {"transcript": name}))


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
