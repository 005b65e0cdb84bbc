"""Facts about Discord's messages that every feature needs."""

from collections.abc import Iterable

import discord

MAX_MESSAGE_CHARS = 2000
NO_MENTIONS = discord.AllowedMentions.none()


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
