"""Row schemas of talks whose messages, or lists of participants, say which side is the bot's.

ConvAI (`sender_class`, or ids with a class beside the talk), flags such as `is_bot`, and messages
with their speaker's name as the only key (`{"Oda": "…"}`), as sets of role-play have them. Sources:
http://convai.io/data and the DeepPavlov ConvAI2 logs.
"""

from collections.abc import Iterator
from typing import Any

from personas.schemas.chat import fold_name
from trainer.sources.columns import (
    TEXT_KEYS,
    ColumnRoles,
    Row,
    RowSchema,
    column_roles,
    find_column,
    message_keys,
    side_of_flag,
)
from trainer.sources.conversation_builder import ROLES, RawDialogue, is_character
from trainer.sources.formats.message_rows import excluded_turns
from trainer.sources.formats.persona_rows import join_facts
from trainer.sources.message_order import sort_messages
from trainer.sources.record_fields import UnusableRecordError, cell_list, cell_text

CLASS_KEYS = tuple(
    "sender_class senderClass sender_type sender_role author_type author_role speaker_type "
    "speaker_role user_type "
    "userType class type role".split()
)
"""Keys of a side; the last three only describe a participant."""
MESSAGE_CLASS_KEYS = CLASS_KEYS[:-3]
ID_KEYS = tuple("id userId user_id name participant".split())
PARTICIPANT_COLUMNS = (*"users participants participant1_id participant2_id user_profile".split(),)
FACT_COLUMNS = ("bot_profile", "bot_persona", "agent_profile")
MIN_NAMED_TURNS = 2


def _side(value: object) -> str:
    """Return the role that a class such as `Bot` or `Human` stands for; empty for any other
    value.
    """
    role = fold_name(value) if isinstance(value, str) else ""
    return role if ROLES.get(role) is not None else ""


def _message_lists(row: Row) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the columns that hold lists of objects."""
    for name, cell in row.items():
        may_be_list = isinstance(cell, list | dict) or str(cell)[:1] == "["
        messages = cell_list(cell) if may_be_list else None
        if messages and all(isinstance(message, dict) for message in messages):
            yield name, messages


def _side_key(messages: list[dict[str, Any]]) -> str:
    """Return the key whose values say of every message whose side it is; empty without one."""
    for key in messages[0]:
        if key in MESSAGE_CLASS_KEYS and all(_side(message.get(key)) for message in messages):
            return key
        if all(side_of_flag(key, message.get(key)) for message in messages):
            return key
    return ""


def _plan_sides(row: Row) -> ColumnRoles | None:
    """Find messages that state their side, or whose speakers the row lists with a class."""
    for name, messages in _message_lists(row):
        text = next((key for key in TEXT_KEYS if key in messages[0]), None)
        if text is None or name in ("users", "participants"):
            continue
        if _has_roles(messages):
            return None
        side_key = _side_key(messages)
        if side_key:
            return ColumnRoles({"messages": name}, from_key=side_key, value_key=text)
        keys = message_keys(messages)
        if keys is None:
            continue
        sides = _participant_sides(row, skipped=name)
        if any(str(message.get(keys[0])) in sides for message in messages):
            return column_roles(keys, messages=name, participants=name)
    return None


def _has_roles(messages: list[dict[str, Any]]) -> bool:
    """Report whether messages name plain roles, as OpenAI's and ShareGPT's do."""
    keys = message_keys(messages)
    return keys is not None and all(_side(message.get(keys[0])) for message in messages)


def _participant_sides(row: Row, skipped: str) -> dict[str, str]:
    """Map the ids of participants to roles, from objects that state a class: one each, or a list of
    them.
    """
    sides: dict[str, str] = {}
    for name, cell in row.items():
        if name == skipped:
            continue
        if isinstance(cell, dict):
            side = _class_of(cell)
            if side:
                # Messages name such a participant by an id of its own or by the column.
                sides[name.removesuffix("_id")] = side
                sides.update(_ids_with_side(cell, side))
        elif isinstance(cell, list):
            for participant in cell:
                side = _class_of(participant)
                if side:
                    sides.update(_ids_with_side(participant, side))
    return sides


def _class_of(participant: object) -> str:
    """Return the role of an object that states a class; empty for anything else."""
    if isinstance(participant, dict):
        for key in CLASS_KEYS:
            side = _side(participant.get(key))
            if side:
                return side
    return ""


def _ids_with_side(participant: dict[str, Any], side: str) -> dict[str, str]:
    return {str(participant[key]): side for key in ID_KEYS if key in participant}


def _dialogue_from_sides(row: Row, columns: ColumnRoles) -> RawDialogue:
    messages = cell_list(columns.get(row, "messages"))
    if not messages:
        raise UnusableRecordError("no messages")
    messages = sort_messages(messages)
    are_listed = "participants" in columns.by_role
    sides = _participant_sides(row, skipped=columns.by_role["messages"]) if are_listed else {}
    turns = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            raise UnusableRecordError(f"message {number} is not an object")
        value = message.get(columns.from_key)
        if are_listed:
            side = sides.get(str(value), "")
        else:
            side = _side(value) or side_of_flag(columns.from_key, value)
        if not side:
            raise UnusableRecordError(
                f"message {number} does not say whose it is ({columns.from_key!r})"
            )
        turns.append((side, cell_text(message.get(columns.value_key))))
    facts = next((row[name] for name in FACT_COLUMNS if row.get(name)), None)
    dialogue = RawDialogue.of(turns, join_facts(facts or columns.get(row, "system")))
    dialogue.untrained = excluded_turns(messages)
    return dialogue


def _plan_named(row: Row) -> ColumnRoles | None:
    """Find messages that have their speaker's name as the only key, with at least one name that
    recurs or two.
    """
    for name, messages in _message_lists(row):
        if all(len(message) == 1 for message in messages) and _are_named_turns(messages):
            return column_roles(messages=name, system=find_column(row, "system"))
    return None


def _are_named_turns(messages: list[dict[str, Any]]) -> bool:
    """Report whether objects with one key each are turns by two or more speakers whose names
    recur.
    """
    names: set[str] = set()
    for message in messages:
        names.update(message)
    if len(messages) < MIN_NAMED_TURNS or not 2 <= len(names) <= len(messages) / 2 + 1:
        return False
    if not all(is_character(name) or name in ROLES for name in names):
        return False
    for message in messages:
        if not all(isinstance(text, str) for text in message.values()):
            return False
    return True


def _dialogue_from_named(row: Row, columns: ColumnRoles) -> RawDialogue:
    turns: list[tuple[str, str]] = []
    for number, message in enumerate(cell_list(columns.get(row, "messages")) or [], start=1):
        if not isinstance(message, dict) or len(message) != 1:
            raise UnusableRecordError(f"message {number} is not one name with one text")
        turns += [(str(name), cell_text(text)) for name, text in message.items()]
    system = columns.get(row, "system")
    return RawDialogue.of(turns, system if isinstance(system, str) else "")


SIDES_ROW = '{"dialog": [{"sender": "…", "sender_class": "Bot", "text": "…"}]}, or ids with a class beside the talk'
NAMED_ROW = '{"dialogue": [{"Mira": "…"}, {"Oda": "…"}]}'
PARTICIPANT_SCHEMAS = (
    RowSchema(
        "sides",
        "Talks that say which side is the bot's",
        SIDES_ROW,
        plan=_plan_sides,
        parse=_dialogue_from_sides,
        also_read=(*PARTICIPANT_COLUMNS, *FACT_COLUMNS),
    ),
    RowSchema(
        "named-turns", "Turns by name", NAMED_ROW, plan=_plan_named, parse=_dialogue_from_named
    ),
)
