"""Conversations as every source yields them: messages with their speakers, and rejected records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from personas.schemas.chat import Persona


@dataclass(frozen=True, slots=True)
class SourceSpeaker:
    """Who wrote a message. `names` are all the names in use for them, the one to show first."""

    id: str
    names: tuple[str, ...]
    is_persona: bool = False

    @property
    def name(self) -> str:
        """The name to show."""
        return self.names[0]


@dataclass(slots=True, unsafe_hash=True)
class SourceMessage:
    """What one speaker said before another spoke.

    `row` is where it stands in its source, `rows` how many messages of the source were joined into it. `at` is when it
    was said, in seconds since 1970, 0 where nobody knows. `by` are the ids of the people who wrote what a persona says.
    """

    speaker: SourceSpeaker
    text: str
    row: str
    rows: int = 1
    at: float = 0.0
    by: tuple[str, ...] = ()


@dataclass(slots=True, unsafe_hash=True)
class Conversation:
    """Messages that belong together, in order.

    `right` is the right under which the material may be used, `arrived` the day on which it came (ISO 8601), empty
    where that is when each message was said. `raw_text` is what was said, as it came: pseudonyms do not change it, so
    what is decided by it stays decided. `system` is what came with it for the speaker to go by (a system text, a
    persona's facts), `rows` how many records of the source it takes up, `rejected` the answer that was liked less than
    the last message (of a preference row), `lang` its language where the source says it. `unheard` are people of the
    source whose own lines are left out or stand under the persona's name, but who may be named in others'.
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

    @classmethod
    def of(
        cls,
        messages: Sequence[SourceMessage],
        source: str,
        right: str,
        *,
        system: str = "",
        rows: int = 1,
        rejected: str = "",
        lang: str = "",
        arrived: str = "",
        unheard: tuple[SourceSpeaker, ...] = (),
    ) -> Conversation:
        """A conversation of the messages as they came, those of one speaker in a row made into one."""
        raw_text = "\n".join([message.text for message in messages])
        joined = _merge_consecutive(messages)
        return cls(joined, source, right, raw_text, system, rows, rejected, lang, arrived, unheard)


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """Records of a source that are not used, and why. `row` is where the first of them stands."""

    row: str
    reason: str
    rows: int = 1


def _merge_consecutive(messages: Sequence[SourceMessage]) -> tuple[SourceMessage, ...]:
    turns: list[SourceMessage] = []
    for message in messages:
        if turns and turns[-1].speaker.id == message.speaker.id:
            last = turns.pop()
            text, by = f"{last.text}\n{message.text}", tuple(dict.fromkeys((*last.by, *message.by)))
            message = SourceMessage(last.speaker, text, last.row, last.rows + message.rows, message.at, by)
        turns.append(message)
    return tuple(turns)


def author_ids(message: SourceMessage) -> tuple[str, ...]:
    """The ids of the people who wrote a message; none where a machine did."""
    return message.by if message.speaker.is_persona else (message.speaker.id,)


def is_chat_log(conversation: Conversation) -> bool:
    """Whether it was said at known moments, as in a chat: by people, then, who have names."""
    return any(message.at for message in conversation.messages)


def day_of(at: float) -> str:
    """The day of a moment in UTC (ISO 8601), empty where it is not known or no calendar holds it."""
    try:
        return datetime.fromtimestamp(at, UTC).date().isoformat() if at else ""
    except (ValueError, OverflowError, OSError):
        return ""


def persona_speaks(persona: Persona, conversation: Conversation) -> bool:
    """Whether the persona itself, not some assistant, speaks in a conversation."""
    return any(m.speaker.is_persona and m.speaker.id == persona.id for m in conversation.messages)


def replace_assistant(persona: Persona, conversation: Conversation) -> Conversation:
    """The conversation with the persona in the assistant's place."""
    speaker = SourceSpeaker(persona.id, (persona.name,), is_persona=True)
    messages = [replace(m, speaker=speaker) if m.speaker.is_persona else m for m in conversation.messages]
    return replace(conversation, messages=tuple(messages))
