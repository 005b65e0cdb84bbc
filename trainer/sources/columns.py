"""Table columns and their roles, by name, by content or by `--map`; row schemas."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from personas.errors import MaterialError
from trainer.sources.conversation_builder import ROLES, RawDialogue
from trainer.sources.record_fields import cell_list

Row = dict[str, Any]
ROLE_COLUMNS: dict[str, tuple[str, ...]] = {
    "user": tuple(
        "instruction prompt question query user user_input human user_message input_text request src".split()
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
        "text transcript dialogue dialog conversation chat content best_generated_conversation".split()
    ),
    "chosen": tuple("chosen accepted preferred winner_response".split()),
    "rejected": tuple("rejected dispreferred loser_response".split()),
    "facts": tuple("persona_b personality persona personas your_persona persona_facts profile facts".split()),
    "lang": tuple("lang language locale".split()),
}
"""Column names by role, likeliest first, in lower case with underscores."""
METADATA_COLUMNS = tuple("act title category topic subject source name id type tag tags task domain url model".split())
"""Columns that describe a prompt and do not answer it."""
SPEAKER_KEYS = tuple(
    "from role speaker sender author user name who sender_name speaker_id character is_human turn_role".split()
)
TEXT_KEYS = tuple("value content text message utterance body sentence turn_content".split())
ROLE_NAMES = (*ROLE_COLUMNS, "from", "value")
MAX_SHOWN_COLUMNS = 12
ROLE_ALIASES = {"speaker": "from", "role": "from", "text": "value", "content": "value"}
"""Other words for roles inside a list of messages."""


@dataclass(frozen=True)
class ColumnRoles:
    """The column of each role; `from_key` and `value_key` are keys inside a list of messages."""

    by_role: Mapping[str, str]
    from_key: str = ""
    value_key: str = ""

    def get(self, row: Row, role: str) -> Any:
        """Return the role's cell, or None."""
        name = self.by_role.get(role)
        return row.get(name) if name is not None else None

    def __str__(self) -> str:
        keys = {"from": self.from_key, "value": self.value_key}
        return ", ".join(f"{role}={column}" for role, column in {**self.by_role, **keys}.items() if column)


@lru_cache(maxsize=4096)
def normalise_column(name: str) -> str:
    """Return a column's name in lower case, with words joined by underscores."""
    return "_".join(name.strip().lower().replace("-", " ").replace("_", " ").split())


def has_role_name(column: str, role: str) -> bool:
    """Report whether a column is named like a role."""
    return normalise_column(column) in ROLE_COLUMNS[role]


def find_column(row: Iterable[str], role: str) -> str | None:
    """Find the column of a role by name."""
    columns = {normalise_column(column): column for column in row if isinstance(column, str)}
    return next((columns[name] for name in ROLE_COLUMNS[role] if name in columns), None)


def parse_mapping(mapping: Mapping[str, str]) -> ColumnRoles:
    """Parse the operator's `role=column` or `column=role` pairs. Raises `MaterialError` for an unknown role."""
    by_role: dict[str, str] = {}
    for left, right in mapping.items():
        word, column = (left, right) if _role(left) else (right, left)
        role = _role(word)
        if role is None:
            raise _unknown_role_error(f"--map {left}={right}: neither is a role.", left)
        if role in by_role:
            raise MaterialError(
                f"--map gives {role} twice: {by_role[role]!r} and {column!r}.", "Give each role one column."
            )
        by_role[role] = column
    return ColumnRoles(by_role, by_role.pop("from", ""), by_role.pop("value", ""))


def require_roles(mapping: Mapping[str, str], columns: set[str]) -> None:
    """Raise `MaterialError` for a pair whose left side is neither a role nor one of the columns."""
    for left, right in mapping.items():
        if _role(left) is None and left not in columns:
            raise _unknown_role_error(f"--map {left}={right}: {left!r} is neither a role nor a column.", left)


def did_you_mean(word: str, names: Sequence[str]) -> str:
    """Suggest the most similar name, as a sentence to append; empty if none is similar."""
    return "".join(f" Did you mean {near!r}?" for near in difflib.get_close_matches(word, names, n=1))


def _unknown_role_error(message: str, word: str) -> MaterialError:
    return MaterialError(message + did_you_mean(word, ROLE_NAMES), f"Roles: {', '.join(ROLE_NAMES)}.")


def _role(word: str) -> str | None:
    if word in ROLE_NAMES:
        return word
    if word in ROLE_ALIASES:
        return ROLE_ALIASES[word]
    return next((role for role in ("user", "input", "assistant", "system") if has_role_name(word, role)), None)


def message_keys(messages: list[Any]) -> tuple[str, str] | None:
    """Find the keys of speaker and text in a list of messages."""
    first = next((m for m in messages if isinstance(m, dict)), None)
    if first is None:
        return None
    speaker = next((key for key in SPEAKER_KEYS if key in first), None)
    text = next((key for key in TEXT_KEYS if key in first and key != speaker), None)
    return (speaker, text) if speaker and text else None


def guess_columns(rows: list[Row]) -> ColumnRoles | None:
    """Guess the roles of unknown columns, by name, then by content; None if nothing fits.

    A list of objects with a short recurring text and a longer one is taken as messages. Of text columns, the two
    longest are question and answer, in column order.
    """
    if messages := _guess_message_list(rows):
        return messages
    lengths = {column: _mean_length([row.get(column) for row in rows]) for column in rows[0]}
    texts = sorted((column for column, length in lengths.items() if length), key=lambda column: -lengths[column])
    named = {
        role: column for role in ("user", "assistant", "system", "input") if (column := find_column(rows[0], role))
    }
    rest = [column for column in texts if column not in named.values() and not has_role_name(column, "lang")]
    if "user" in named and "assistant" in named:
        return ColumnRoles(named)
    if "user" in named or "assistant" in named or "input" in named:
        if "input" in named and "user" not in named:
            named["user"] = named.pop("input")
        missing = "assistant" if "user" in named else "user"
        rest = [column for column in rest if normalise_column(column) not in METADATA_COLUMNS]
        return ColumnRoles({**named, missing: rest[0]}) if missing not in named and rest else None
    if len(rest) < 2:
        return None
    user, assistant = sorted(rest[:2], key=list(rows[0]).index)
    return ColumnRoles({**named, "user": user, "assistant": assistant})


def _mean_length(cells: list[Any]) -> float:
    """Return the mean length of distinct texts; 0 for ids, classes and anything that is not text."""
    texts = [cell for cell in cells if isinstance(cell, str)]
    is_prose = 2 * sum(" " in text or not text.isascii() for text in texts) > len(cells)
    if not is_prose or (len(texts) > 4 and len(set(texts)) <= len(texts) / 4):
        return 0.0
    return sum(map(len, texts)) / len(texts)


def _guess_message_list(rows: list[Row]) -> ColumnRoles | None:
    for column in rows[0]:
        lists = [cells for row in rows if (cells := cell_list(row.get(column)))]
        messages = [m for cells in lists for m in cells if isinstance(m, dict)]
        if not messages or len(messages) < sum(map(len, lists)):
            continue
        if keys := message_keys(messages) or _guess_message_keys(messages):
            return ColumnRoles({"messages": column}, *keys)
    return None


def _guess_message_keys(messages: list[Row]) -> tuple[str, str] | None:
    """Return the key with few recurring values and the key with the longest texts."""
    texts = {key: [m[key] for m in messages if isinstance(m.get(key), str)] for key in messages[0]}
    whole = {key: values for key, values in texts.items() if 2 * len(values) > len(messages)}
    if not whole:
        return None
    value = max(whole, key=lambda key: sum(map(len, whole[key])))
    if not _mean_length(whole[value]):
        return None
    speakers = [k for k, names in whole.items() if k != value and 1 < len(set(names)) <= max(2, len(names) // 2)]
    roles = [key for key in speakers if all(text.casefold() in ROLES for text in set(whole[key]))]
    return ((roles or speakers)[0], value) if speakers else None


@dataclass(frozen=True)
class RowSchema:
    """A known row shape: `plan` finds a row's columns, None for other shapes; `parse` raises `UnusableRecordError`.

    A row of several scenes is parsed into a dialogue for each.
    """

    name: str
    title: str
    expected: str
    plan: Callable[[Row], ColumnRoles | None]
    parse: Callable[[Row, ColumnRoles], RawDialogue | list[RawDialogue]]
