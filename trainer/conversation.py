"""What every source yields: conversations of messages, each with its speaker and the row it came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Speaker:
    """Who wrote a message. `names` are all the names in use for them, the one to show first."""

    id: str
    names: tuple[str, ...]
    is_persona: bool = False

    @property
    def name(self) -> str:
        """The name to show."""
        return self.names[0]


@dataclass(frozen=True)
class Message:
    """What one speaker said before another spoke. `row` is where it stands in its source."""

    speaker: Speaker
    text: str
    row: str


@dataclass(frozen=True)
class Conversation:
    """Messages that belong together, in order.

    `right` is the right under which the material may be used. `raw_text` is what was said, as it came: pseudonyms do
    not change it, so what is decided by it stays decided.
    """

    messages: tuple[Message, ...]
    source: str
    right: str
    raw_text: str

    @classmethod
    def of(cls, messages: list[Message], source: str, right: str) -> Conversation:
        """A conversation of the messages as they came, those of one speaker in a row made into one."""
        return cls(_joined(messages), source, right, "\n".join(message.text for message in messages))


def _joined(messages: list[Message]) -> tuple[Message, ...]:
    turns: list[Message] = []
    for message in messages:
        if turns and turns[-1].speaker.id == message.speaker.id:
            last = turns.pop()
            message = Message(last.speaker, f"{last.text}\n{message.text}", last.row)
        turns.append(message)
    return tuple(turns)
