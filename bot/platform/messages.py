"""Facts about Discord's messages that every feature needs."""

import re
from collections.abc import Iterable, Sequence

import discord

from bot.platform.localisation import gettext_lazy, localise
from personas.schemas.chat import Persona

MAX_MESSAGE_CHARS = 2000
NO_MENTIONS = discord.AllowedMentions.none()
MAX_NOTE_CHARS = 40
"""The longest note of lines that are left out."""

ERASED_MEMBER_TEXT = gettext_lazy("a member who had their data erased")
ESCAPE = re.compile(r"\\([*_~|`>#\[\]\\-])")


def markdown_name(persona: Persona) -> str:
    """Return a persona's name for a text that Discord reads as Markdown. Titles of forms, labels of
    buttons and code have the plain name.
    """
    return discord.utils.escape_markdown(persona.name)


def member_mention(user_id: int) -> str:
    """Mention a member; one who is erased has an id below 0 (`ErasedIds`), and no name."""
    return ERASED_MEMBER_TEXT if user_id < 0 else f"<@{user_id}>"


def without_escapes(text: str) -> str:
    """Return a text for Discord, whose names are escaped (`markdown_name`), as a page shows it."""
    return ESCAPE.sub(r"\1", text)


def latest_lines(
    lines: Sequence[str],
    footer: str = "",
    *,
    earlier: int = 0,
) -> str:
    """Join the latest lines that have room in a message, after the number of the earlier ones, with
    `earlier` ones that are not among them, and a footer. Empty where there are no lines.
    """
    footer = localise(footer)
    room = MAX_MESSAGE_CHARS - MAX_NOTE_CHARS - len(footer)
    count = 0
    for line in reversed(lines):
        room -= len(line) + 1
        if room < 0:
            break
        count += 1
    shown = lines[len(lines) - count :]
    left_out = earlier + len(lines) - count
    note = ""
    if left_out:
        note = localise(gettext_lazy("{count} earlier ones, and:", count=left_out))
    return "\n".join(filter(None, [note, *shown, footer])) if lines else ""


def message_texts(parts: Iterable[str]) -> list[str]:
    """Join parts by line breaks to as few texts as have room in a message each. A part is never
    divided.
    """
    texts: list[str] = []
    for part in parts:
        if texts and len(texts[-1]) + len(part) < MAX_MESSAGE_CHARS:
            texts[-1] += f"\n{part}"
        else:
            texts.append(part)
    return texts
