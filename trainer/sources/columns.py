"""Table columns and their roles, by name or by `--map`; row schemas."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from personas.errors import MaterialError
from trainer.sources.column_profile import cell_at
from trainer.sources.conversation_builder import RawDialogue
from trainer.sources.header_names import normalise_column

Row = dict[str, Any]
ROLE_COLUMNS: dict[str, tuple[str, ...]] = {
    "user": tuple(
        "instruction prompt question query user user_input human user_message input_text request "
        "src".split()
    ),
    "input": ("input", "context"),
    "assistant": (
        *"output response answer completion target std_answer reply assistant gpt outputs responses answers".split(),
        *"assistant_message model_output output_text bot label solution".split(),
    ),
    "system": tuple("system system_prompt system_message sys".split()),
    "history": tuple("history conversation_history chat_history".split()),
    "messages": (
        *"messages conversations conversation conv data dialog dialogue dialogs turns utterances chat items".split(),
        *"message_list message_tree".split(),
    ),
    "transcript": tuple(
        "text transcript dialogue dialog conversation chat content "
        "best_generated_conversation".split()
    ),
    "chosen": tuple("chosen accepted preferred winner_response".split()),
    "rejected": tuple("rejected dispreferred loser_response".split()),
    "facts": tuple(
        "persona_b personality persona personas your_persona persona_facts profile facts".split()
    ),
    "lang": tuple("lang language locale".split()),
}
"""Column names by role, likeliest first, in lower case with underscores."""
CHARACTER_COLUMNS = (
    *"role character character_name role_name char_name agent_role_name agent_role agent_name bot_name char".split(),
    *"role_b npc 角色 人物".split(),
)
"""Columns that name a character, likeliest first."""
METADATA_COLUMNS = tuple(
    "act title category topic subject source name id type tag tags task domain url model".split()
)
"""Columns that describe a prompt and do not answer it."""
SPEAKER_KEYS = tuple(
    "from role speaker sender author user name who sender_name speaker_id character is_human "
    "turn_role participant "
    "userId".split()
)
FLAGGED_SIDES = {
    **dict.fromkeys("isbot isai isassistant ismodel isnpc frombot fromai".split(), True),
    **dict.fromkeys("isuser ishuman fromuser fromhuman isprompter".split(), False),
}
"""Flags that say whose message it is, without underscores; the value is the assistant's."""
TEXT_KEYS = tuple("value content text message utterance body sentence turn_content".split())
CHAT_COLUMNS = ("speaker", "text", "time", "date", "conversation")
"""Roles of columns in a table with one message in each row."""
ROLE_NAMES = (*ROLE_COLUMNS, "from", "value", *CHAT_COLUMNS)
MAX_SHOWN_COLUMNS = 12
ROLE_ALIASES = {"speaker": "from", "role": "from", "text": "value", "content": "value"}
"""Other words for roles inside a list of messages. In a table without one, they are columns
(`CHAT_COLUMNS`).
"""


@dataclass(frozen=True)
class ColumnRoles:
    """The column of each role; `from_key` and `value_key` are keys inside a list of messages."""

    by_role: Mapping[str, str]
    from_key: str = ""
    value_key: str = ""

    def get(self, row: Row, role: str) -> Any:
        """Return the role's cell, or None."""
        name = self.by_role.get(role)
        if name is None:
            return None
        return row[name] if name in row else cell_at(row, name)

    def __str__(self) -> str:
        columns = {**self.by_role, "from": self.from_key, "value": self.value_key}
        return ", ".join(f"{role}={column}" for role, column in columns.items() if column)


def has_role_name(column: str, role: str) -> bool:
    """Report whether a column is named like a role."""
    return normalise_column(column) in ROLE_COLUMNS[role]


def find_column(row: Iterable[str], role: str) -> str | None:
    """Find the column of a role by name."""
    columns = _columns_by_name(row)
    return next((columns[name] for name in ROLE_COLUMNS[role] if name in columns), None)


def find_filled_column(row: Row, names: Sequence[str]) -> str | None:
    """Find the first column of these names that is not empty."""
    columns = _columns_by_name(row)
    for name in names:
        if name in columns and row[columns[name]]:
            return columns[name]
    return None


def _columns_by_name(row: Iterable[str]) -> dict[str, str]:
    return {normalise_column(column): column for column in row if isinstance(column, str)}


def column_roles(keys: tuple[str, str] = ("", ""), /, **by_role: str | None) -> ColumnRoles:
    """Return the roles that have a column; `keys` are those of speaker and text in messages."""
    filled = {role: column for role, column in by_role.items() if column}
    return ColumnRoles(filled, from_key=keys[0], value_key=keys[1])


def parse_mapping(mapping: Mapping[str, str]) -> ColumnRoles:
    """Parse the operator's `role=column` or `column=role` pairs. Raises `MaterialError` for an
    unknown role.
    """
    by_role: dict[str, str] = {}
    for left, right in mapping.items():
        word, column = (left, right) if _role(left) else (right, left)
        role = _role(word)
        if role is None:
            raise _unknown_role_error(f"--map {left}={right}: neither is a role.", left)
        if role in by_role:
            raise MaterialError(
                f"--map gives {role} twice: {by_role[role]!r} and {column!r}.",
                "Give each role one column.",
            )
        by_role[role] = column
    speaker = by_role.pop("from", "")
    text = by_role.pop("value", "")
    if "messages" in by_role:
        return ColumnRoles(by_role, from_key=speaker, value_key=text)
    return column_roles(**{"speaker": speaker, "text": text, **by_role})


def require_roles(mapping: Mapping[str, str], columns: set[str]) -> None:
    """Raise `MaterialError` for a pair whose left side is neither a role nor one of the columns."""
    for left, right in mapping.items():
        if _role(left) is None and left not in columns:
            raise _unknown_role_error(
                f"--map {left}={right}: {left!r} is neither a role nor a column.", left
            )


def did_you_mean(word: str, names: Sequence[str]) -> str:
    """Suggest the most similar name, as a sentence to append; empty if none is similar."""
    similar = difflib.get_close_matches(word, names, n=1)
    return f" Did you mean {similar[0]!r}?" if similar else ""


def _unknown_role_error(message: str, word: str) -> MaterialError:
    return MaterialError(
        message + did_you_mean(word, ROLE_NAMES), f"Roles: {', '.join(ROLE_NAMES)}."
    )


def _role(word: str) -> str | None:
    if word in ROLE_ALIASES:
        return ROLE_ALIASES[word]
    if word in ROLE_NAMES:
        return word
    # Other spellings of a role, such as `question`, may be names of columns as well.
    for role in ("user", "input", "assistant", "system"):
        if has_role_name(word, role):
            return role
    return None


def side_of_flag(key: str, value: object) -> str:
    """Return the role that a flag such as `is_bot` stands for; empty for any other key or value."""
    assistant = FLAGGED_SIDES.get(key.replace("_", "").lower())
    word = str(value).strip().lower()
    if assistant is None or word not in ("true", "false", "0", "1"):
        return ""
    is_true = word in ("true", "1")
    return "assistant" if is_true is assistant else "user"


def message_keys(messages: list[Any]) -> tuple[str, str] | None:
    """Find the keys of speaker and text in a list of messages."""
    first = next((m for m in messages if isinstance(m, dict)), None)
    if first is None:
        return None
    plain = [key for key, value in first.items() if not isinstance(value, dict)]
    speaker = next((key for key in SPEAKER_KEYS if key in plain), None)
    text = next((key for key in TEXT_KEYS if key in plain and key != speaker), None)
    return (speaker, text) if speaker and text else None


@dataclass(frozen=True)
class ColumnUse:
    """What becomes of a table's columns: those that are read by role, and the `unused` ones.

    `is_mapped`: the operator says so. Both are empty for what is no table.
    """

    used: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    is_mapped: bool = False


@dataclass(frozen=True)
class RowSchema:
    """A known row shape: `plan` finds a row's columns, None for other shapes; `parse` raises
    `UnusableRecordError`.

    A row of several scenes is parsed into a dialogue for each. `also_read` are columns that are
    read without having a role.
    """

    name: str
    title: str
    expected: str
    plan: Callable[[Row], ColumnRoles | None]
    parse: Callable[[Row, ColumnRoles], RawDialogue | list[RawDialogue]]
    also_read: tuple[str, ...] = ()
