"""Dialogues as chat messages: JSON Lines of `{"messages": [{"role": …, "content": …}]}`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from trainer.conversation import Conversation, Message, Rejected, Speaker
from trainer.sources.files import Peek, SourceFile
from trainer.sources.formats import Format, ReadOptions
from trainer.sources.text import read_text, wrong_shape

EXPECTED = 'one JSON object a line: {"messages": [{"role": "system" | "user" | "assistant", "content": "…"}]}'
USER = Speaker("user", ("user",))
ASSISTANT = Speaker("assistant", ("assistant",), is_persona=True)


class ChatMessage(BaseModel):
    """One message of a dialogue."""

    role: Literal["system", "user", "assistant"]
    content: str


class Dialogue(BaseModel):
    """One line of the file."""

    messages: list[ChatMessage]


def read_messages(path: Path, right: str, dropped: Counter[str]) -> Iterator[Conversation]:
    """One conversation a line; `dropped` counts what is left out. Raises `MaterialError` naming file and line."""
    for number, line in enumerate(read_text(path, EXPECTED).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            dialogue = Dialogue.model_validate_json(line)
        except ValidationError as error:
            raise wrong_shape(f"{path.name}, line {number},", error, EXPECTED) from None
        messages = [_message(m, number) for m in dialogue.messages if _is_spoken(m, dropped)]
        if messages:
            yield Conversation.of(messages, path.name, right)


def _is_spoken(message: ChatMessage, dropped: Counter[str]) -> bool:
    if message.role == "system":  # a persona speaks from its card; a dialogue adapter serves without a system text
        dropped["system text"] += 1
    elif not message.content.strip():
        dropped["no text"] += 1
    else:
        return True
    return False


def _message(message: ChatMessage, line: int) -> Message:
    return Message(ASSISTANT if message.role == "assistant" else USER, message.content.strip(), f"line {line}")


def _recognises(peek: Peek) -> bool:
    return any(isinstance(row.get("messages"), list) for row in peek.records)


def _read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | Rejected]:
    yield from read_messages(file.path, options.right, Counter())


FORMATS = (Format("openai", "OpenAI messages", EXPECTED, _recognises, _read),)
