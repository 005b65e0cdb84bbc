"""Conversations as every source yields them: messages with their speakers, and rejected records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from personas.schemas.chat import Persona

GUEST_IDS = tuple(f"guest {number}" for number in range(1, 25))
"""Ids of people who are made up: they ask a persona what nobody has asked it."""


@dataclass(frozen=True, slots=True)
class SourceSpeaker:
    """The author of a message. `names` lists every name in use for them, the display name first."""

    id: str
    names: tuple[str, ...]
    is_persona: bool = False

    @property
    def name(self) -> str:
        """The display name."""
        return self.names[0]


@dataclass(slots=True, unsafe_hash=True)
class SourceMessage:
    """A speaker's uninterrupted turn.

    `row` is its position in the source, `rows` the number of source messages joined into it. `at`
    is its time in seconds since 1970, 0 if unknown. `by` holds the ids of the people who wrote what
    a persona says. `is_trained` is False for a reply that its source excludes from training: it is
    history all the same.
    """

    speaker: SourceSpeaker
    text: str
    row: str
    rows: int = 1
    at: float = 0.0
    by: tuple[str, ...] = ()
    is_trained: bool = True


@dataclass(slots=True, unsafe_hash=True)
class Conversation:
    """Messages that belong together, in order.

    `right` is the right to use the material, `arrived` its date of arrival (ISO 8601), empty if
    each message's time is used. `raw_text` is the text before pseudonymisation, so that decisions
    based on it remain stable. `system` is the system text or persona description that came with it,
    `rows` the number of source records, `rejected` the dispreferred alternative to the last message
    (of a preference row), `lang` its language if the source states it. `unheard` are people in the
    source whose own lines are left out or appear under the persona's name, but whom others may
    mention. `roles` are the characters whose lines could be learned, if the record names them.
    `input_lines` is the number of lines at the end of the last prompt that came as a separate input
    to an instruction. `later_systems` are system texts in the middle, each with the index of the
    first message that may know it. `channel` is the file and channel of a log's session; the
    sessions of a channel follow each other in order. Empty for anything else.
    """

    messages: tuple[SourceMessage, ...]
    source: str
    right: str
    raw_text: str
    system: str = ""
    rows: int = 1
    rejected: str = ""
    lang: str = ""
    arrived: str = ""
    unheard: tuple[SourceSpeaker, ...] = ()
    roles: tuple[str, ...] = ()
    input_lines: int = 0
    channel: str = ""
    later_systems: tuple[tuple[int, str], ...] = ()

    def system_at(self, place: int) -> str:
        """Return the system text that the message at an index may know."""
        later = [text for start, text in self.later_systems if start <= place]
        return "\n".join(filter(None, (self.system, *later)))

    @classmethod
    def of(
        cls, messages: Sequence[SourceMessage], source: str, right: str, **fields: Any
    ) -> Conversation:
        """Build a conversation, joining consecutive messages of the same speaker; `fields` are the
        optional ones.
        """
        raw_text = "\n".join([message.text for message in messages])
        return cls(_merge_consecutive(messages), source, right, raw_text, **fields)


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """Source records that are not used, with the reason. `row` is the position of the first;
    `roles` as above.
    """

    row: str
    reason: str
    rows: int = 1
    roles: tuple[str, ...] = ()


def _merge_consecutive(messages: Sequence[SourceMessage]) -> tuple[SourceMessage, ...]:
    turns: list[SourceMessage] = []
    for message in messages:
        if turns and turns[-1].speaker.id == message.speaker.id:
            last = turns.pop()
            text = f"{last.text}\n{message.text}"
            by = tuple(dict.fromkeys((*last.by, *message.by)))
            rows = last.rows + message.rows
            is_trained = last.is_trained and message.is_trained
            message = SourceMessage(
                last.speaker, text, last.row, rows=rows, at=message.at, by=by, is_trained=is_trained
            )
        turns.append(message)
    return tuple(turns)


def author_ids(message: SourceMessage) -> tuple[str, ...]:
    """Return the ids of the people who wrote a message; none if a machine did."""
    return message.by if message.speaker.is_persona else (message.speaker.id,)


def is_chat_log(conversation: Conversation) -> bool:
    """Report whether messages have times, as in a chat between people with names."""
    return any(message.at for message in conversation.messages)


def day_of(at: float) -> str:
    """Return a timestamp's UTC date (ISO 8601), or an empty string if it is unknown or out of
    range.
    """
    try:
        return datetime.fromtimestamp(at, UTC).date().isoformat() if at else ""
    except (ValueError, OverflowError, OSError):
        return ""


def persona_speaks(persona: Persona, conversation: Conversation) -> bool:
    """Report whether the persona itself, not an assistant, speaks in a conversation."""
    return any(m.speaker.is_persona and m.speaker.id == persona.id for m in conversation.messages)


def replace_assistant(persona: Persona, conversation: Conversation) -> Conversation:
    """Return the conversation with the persona in place of the assistant."""
    speaker = SourceSpeaker(persona.id, (persona.name,), is_persona=True)
    messages = []
    for message in conversation.messages:
        if message.speaker.is_persona:
            message = replace(message, speaker=speaker)
        messages.append(message)
    return replace(conversation, messages=tuple(messages))
