"""What every source yields: conversations of messages, each with its speaker, and the records that are not used.

All are to be left as they are, like frozen dataclasses. `Message` and `Conversation` are not declared so, because
millions are made and a frozen one takes four times as long to make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from personas.contracts import Persona


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who wrote a message. `names` are all the names in use for them, the one to show first."""

    id: str
    names: tuple[str, ...]
    is_persona: bool = False

    @property
    def name(self) -> str:
        """The name to show."""
        return self.names[0]


@dataclass(slots=True, unsafe_hash=True)
class Message:
    """What one speaker said before another spoke.

    `row` is where it stands in its source, `rows` how many messages of the source were joined into it.
    """

    speaker: Speaker
    text: str
    row: str
    rows: int = 1


@dataclass(slots=True, unsafe_hash=True)
class Conversation:
    """Messages that belong together, in order.

    `right` is the right under which the material may be used. `raw_text` is what was said, as it came: pseudonyms do
    not change it, so what is decided by it stays decided. `system` is what came with it for the speaker to go by (a
    system text, a persona's facts), `rows` how many records of the source it takes up, `rejected` the answer that was
    liked less than the last message (of a preference row), `lang` its language where the source says it.
    """

    messages: tuple[Message, ...]
    source: str
    right: str
    raw_text: str
    system: str = ""
    rows: int = 1
    rejected: str = ""
    lang: str = ""

    @classmethod
    def of(
        cls,
        messages: Sequence[Message],
        source: str,
        right: str,
        *,
        system: str = "",
        rows: int = 1,
        rejected: str = "",
        lang: str = "",
    ) -> Conversation:
        """A conversation of the messages as they came, those of one speaker in a row made into one."""
        raw_text = "\n".join([message.text for message in messages])
        return cls(_joined(messages), source, right, raw_text, system, rows, rejected, lang)


@dataclass(frozen=True, slots=True)
class Rejected:
    """Records of a source that are not used, and why. `row` is where the first of them stands."""

    row: str
    reason: str
    rows: int = 1


def _joined(messages: Sequence[Message]) -> tuple[Message, ...]:
    turns: list[Message] = []
    for message in messages:
        if turns and turns[-1].speaker.id == message.speaker.id:
            last = turns.pop()
            message = Message(last.speaker, f"{last.text}\n{message.text}", last.row, last.rows + message.rows)
        turns.append(message)
    return tuple(turns)


def speaks(persona: Persona, conversation: Conversation) -> bool:
    """Whether the persona itself, not some assistant, speaks in a conversation."""
    return any(m.speaker.is_persona and m.speaker.id == persona.id for m in conversation.messages)


def spoken_by(persona: Persona, conversation: Conversation) -> Conversation:
    """The conversation with the persona in the assistant's place."""
    speaker = Speaker(persona.id, (persona.name,), is_persona=True)
    messages = [replace(m, speaker=speaker) if m.speaker.is_persona else m for m in conversation.messages]
    return replace(conversation, messages=tuple(messages))
