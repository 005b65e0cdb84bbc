"""Discord exports as DiscordChatExporter writes them in JSON.

Format: https://github.com/Tyrrrz/DiscordChatExporter (Exporting/JsonMessageWriter). Only the fields named here are
read; others may be there or not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from personas.contracts import Persona
from personas.errors import MaterialError
from trainer.conversation import Conversation, Message, Rejected, Speaker
from trainer.sources.files import Peek, SourceFile
from trainer.sources.formats import Format, ReadOptions
from trainer.sources.text import read_text, wrong_shape

EXPECTED = "a Discord export in JSON: {guild, channel, messages: [{id, type, timestamp, content, author}]}"
SPOKEN_TYPES = ("Default", "Reply")
COMMAND_PREFIXES = ("/", "!")
SHOWN_SPEAKERS = 12


class Author(BaseModel):
    """`nickname` is the author's name in that guild."""

    id: str
    name: str
    nickname: str | None = None
    isBot: bool = False


class ExportedMessage(BaseModel):
    """One message of the export."""

    id: str
    type: str
    timestamp: datetime
    content: str
    author: Author


class Export(BaseModel):
    """The file."""

    messages: list[ExportedMessage]


def read_export(
    path: Path, right: str, persona: Persona, session_gap_s: float, dropped: Counter[str]
) -> Iterator[Conversation]:
    """Conversations of an export, cut where nobody spoke for `session_gap_s`; `dropped` counts what is left out.

    Raises `MaterialError` for a file that is not such an export, or in which the persona never speaks.
    """
    spoken = [message for message in _parse(path).messages if _is_spoken(message, persona, dropped)]
    _require_persona(spoken, persona, path)
    spoken.sort(key=lambda message: message.timestamp.timestamp())
    for session in _sessions(spoken, session_gap_s):
        messages = [Message(_speaker(m.author, persona), m.content.strip(), m.id) for m in session]
        yield Conversation.of(messages, path.name, right)


def _parse(path: Path) -> Export:
    try:
        export = Export.model_validate_json(read_text(path, EXPECTED))
    except ValidationError as error:
        raise wrong_shape(path.name, error, EXPECTED) from None
    if not export.messages:
        raise MaterialError(f"{path.name} holds no messages.", "Export a channel in which the persona speaks.")
    return export


def _is_spoken(message: ExportedMessage, persona: Persona, dropped: Counter[str]) -> bool:
    text = message.content.strip()
    reasons = {
        "system message": message.type not in SPOKEN_TYPES,
        "another bot": message.author.isBot and not _is_persona(message.author, persona),
        "no text": not text,
        "command": text.startswith(COMMAND_PREFIXES),
    }
    reason = next((name for name, applies in reasons.items() if applies), None)
    if reason:
        dropped[reason] += 1
    return reason is None


def _require_persona(spoken: list[ExportedMessage], persona: Persona, path: Path) -> None:
    if any(_is_persona(message.author, persona) for message in spoken):
        return
    speakers = Counter(message.author.nickname or message.author.name for message in spoken)
    found = ", ".join(name for name, _ in speakers.most_common(SHOWN_SPEAKERS)) or "nobody"
    raise MaterialError(
        f"{persona.name} never speaks in {path.name}. Speakers found: {found}.",
        f"The persona's messages must be by an author named {persona.name!r} or {persona.id!r}.",
    )


def _sessions(messages: list[ExportedMessage], gap_s: float) -> Iterator[list[ExportedMessage]]:
    session: list[ExportedMessage] = []
    for message in messages:
        if session and (message.timestamp - session[-1].timestamp).total_seconds() > gap_s:
            yield session
            session = []
        session.append(message)
    if session:
        yield session


def _speaker(author: Author, persona: Persona) -> Speaker:
    if _is_persona(author, persona):
        return Speaker(persona.id, (persona.name,), is_persona=True)
    names = (author.nickname, author.name) if author.nickname else (author.name,)
    return Speaker(author.id, names)


def _is_persona(author: Author, persona: Persona) -> bool:
    own = (persona.name.casefold(), persona.id.casefold())
    return any(name.strip().casefold() in own for name in (author.name, author.nickname or ""))


def _recognises(peek: Peek) -> bool:
    return {"guild", "channel", "messages"} <= peek.head.keys()


def _read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | Rejected]:
    if options.persona is None:
        raise MaterialError(f"{file.name} is a log of several people.", "Say which persona it is for.")
    dropped: Counter[str] = Counter()
    yield from read_export(file.path, options.right, options.persona, options.session_gap_s, dropped)
    yield from (Rejected(file.name, reason, rows) for reason, rows in dropped.items())


FORMATS = (Format("discord", "Discord export", EXPECTED, _recognises, _read),)
