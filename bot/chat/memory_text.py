"""Texts that a member asks a persona to keep: one short line each."""

import unicodedata
from dataclasses import replace

from bot.chat.message_text import ANONYMOUS_NAMES, NameOf, has_words, readable_text
from bot.chat.reply_text import INVISIBLE_PATTERN
from bot.store import Store
from personas.lore.passages import MAX_PASSAGE_WORDS, count_words

MAX_MEMORY_CHARS = 400


def clean_memory(text: str, channel: NameOf = ANONYMOUS_NAMES.channel) -> str:
    """Return a text as one line in Unicode's form NFC, without control characters; nobody is
    mentioned in it.

    Emojis of servers and commands become their names. `channel` names channels.
    """
    names = replace(ANONYMOUS_NAMES, channel=channel)
    text = INVISIBLE_PATTERN.sub(" ", unicodedata.normalize("NFC", text))
    return " ".join(readable_text(text, names, keep_code=False).split())


def shorten_memory(text: str) -> str:
    """Return as much of a text, as one line, as a memory may have."""
    text = clean_memory(text)[:MAX_MEMORY_CHARS]
    while count_words(text) > MAX_PASSAGE_WORDS:
        text = text[:-1]
    return text.strip()


def edit_memory_copies(store: Store, message_id: int, text: str) -> None:
    """Shorten the new text of a message to the size of a memory, for its copies; without words
    they are forgotten.
    """
    text = shorten_memory(text)
    if has_words(text):
        store.memories.edit_copies(message_id, text)
    else:
        store.memories.forget_copies(message_id)
