"""SillyTavern's chats: one message a line, below a header that may be missing, with alternative
replies (`swipes`).

Source: what SillyTavern writes to `chats/` and its "Export chat" as JSONL (public/script.js). `mes`
is the text that is shown, and `swipes[swipe_id]` the same before it was edited. `is_system` marks
messages that are hidden from the prompt.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.conversation_builder import (
    RawDialogue,
    build_conversation,
    is_character,
    list_characters,
)
from trainer.sources.record_fields import UnusableRecordError, optional_text, text_field
from trainer.sources.source_file import Peek, SourceFile
from trainer.sources.source_format import ReadOptions, SourceFormat

HEADER_FIELDS = ("user_name", "character_name", "chat_metadata")
HIDDEN = "hidden from the prompt (is_system)"
NO_TEXT = "no text"


def read(file: SourceFile, options: ReadOptions) -> Iterator[Conversation | RejectedRecord]:
    """Yield the chat as one conversation, and the lines that are not used."""
    labels: list[str] = []
    texts: list[str] = []
    user = ""
    first_row = ""
    for record in file.records():
        if isinstance(record, RejectedRecord):
            yield record
            continue
        row, line = record
        if "mes" not in line and any(field in line for field in HEADER_FIELDS):
            continue
        try:
            name = text_field(line, "name").strip()
            text = _shown_text(line)
        except UnusableRecordError as error:
            yield RejectedRecord(row, str(error))
            continue
        if line.get("is_system") is True:
            yield RejectedRecord(row, HIDDEN)
            continue
        if not text.strip():
            yield RejectedRecord(row, NO_TEXT)
            continue
        first_row = first_row or row
        texts.append(text)
        if line.get("is_user") is True:
            labels.append("user")
            user = user or name
        else:
            labels.append(name or "assistant")
    if labels:
        yield build_conversation(_dialogue(labels, texts, user), first_row, options, len(labels))


def _shown_text(line: Mapping[str, Any]) -> str:
    """Return the text that the chat shows: the chosen one of the swipes, or `mes` if it was edited
    afterwards.
    """
    text = optional_text(line, "mes")
    swipes = line.get("swipes")
    chosen = line.get("swipe_id")
    if not isinstance(swipes, list) or not isinstance(chosen, int) or not 0 <= chosen < len(swipes):
        return text
    is_edited = bool(text) and text not in swipes
    return text if is_edited else str(swipes[chosen])


def _dialogue(labels: list[str], texts: list[str], user: str) -> RawDialogue:
    """Build the dialogue: the user by name, the characters as those whose lines can be learned."""
    characters = list_characters([label for label in labels if label != "user"])
    character = characters[0] if characters else "assistant"
    is_named = bool(characters) and is_character(user) and user not in characters
    if user:
        texts = [text.replace("{{user}}", user) for text in texts]
    texts = [text.replace("{{char}}", character) for text in texts]
    if is_named:
        labels = [user if label == "user" else label for label in labels]
    return RawDialogue(labels, texts, roles=characters)


def _recognises(peek: Peek) -> bool:
    rows = peek.objects
    messages = 0
    headers = 0
    for row in rows:
        if "mes" in row:
            messages += "name" in row and ("is_user" in row or "swipes" in row)
        else:
            headers += "user_name" in row and "character_name" in row
    return messages > 0 and 2 * (messages + headers) > len(rows)


EXPECTED = 'a chat of SillyTavern: {"name": "Oda", "is_user": false, "mes": "…", "swipes": […]} on each line'
FORMAT = SourceFormat(
    "sillytavern",
    "SillyTavern chat",
    EXPECTED,
    matches=_recognises,
    read=read,
    meanings=("of several swipes, the one that is shown is the reply; the others are left out",),
)
