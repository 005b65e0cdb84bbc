"""Puts into words what members send beside text: files, pictures, stickers and polls.

The words stay with the message, in the history too. They have the name and size of a file, and
nothing of its content. Source of the fields: discord.com/developers/docs/resources/message.
"""

from pathlib import PurePath

import discord

from personas.prompt.frames import (
    ACTIVITY_PART,
    AUDIO_PART,
    FILE_PART,
    NAMED,
    PICTURE_PART,
    POLL_PART,
    STICKER_PART,
    VIDEO_PART,
    VOICE_PART,
)
from personas.schemas.formatting import format_size

ATTACHMENT_KINDS = {"image/": PICTURE_PART, "video/": VIDEO_PART, "audio/": AUDIO_PART}
"""Names by the beginning of a media type."""
MAX_NAME_CHARS = 100
MAX_DESCRIPTION_CHARS = 500
"""Characters of a file's name and of its description; Discord allows more than a prompt needs."""
MessageContent = discord.Message | discord.MessageSnapshot


def described_parts(message: discord.Message) -> list[str]:
    """Describe the parts of a message and of the messages that it forwards, each in brackets:
    "[a sticker: Wave]".
    """
    parts = list[str]()
    for content in contents_of(message):
        parts += map(describe_attachment, content.attachments)
        parts += [f"{STICKER_PART}: {_one_line(sticker.name)}" for sticker in content.stickers]
    if message.poll is not None:
        parts.append(_describe_poll(message.poll))
    if message.activity is not None:
        parts.append(ACTIVITY_PART)
    return [NAMED.fill(name=part) for part in parts]


def contents_of(message: discord.Message) -> list[MessageContent]:
    """Return a message and the messages that it forwards."""
    return [message, *message.message_snapshots]


def has_pictures(message: discord.Message) -> bool:
    """Report whether a message has or forwards a picture."""
    for content in contents_of(message):
        if any(_kind(attachment) == PICTURE_PART for attachment in content.attachments):
            return True
    return False


def describe_attachment(attachment: discord.Attachment) -> str:
    """Describe a file by its kind, name, size and description, without reading it."""
    if attachment.is_voice_message():
        return f"{VOICE_PART} of {attachment.duration or 0:.0f} s"
    words = f"{_kind(attachment)}: {attachment_name(attachment)}, {format_size(attachment.size)}"
    if attachment.description:
        words += f", described as: {_one_line(attachment.description, MAX_DESCRIPTION_CHARS)}"
    return words


def attachment_name(attachment: discord.Attachment) -> str:
    """Return a file's name as members see it: Discord puts signs that it does not take in file
    names into the title alone.
    """
    name = attachment.filename.removeprefix("SPOILER_")
    if attachment.title:
        ending = PurePath(name).suffix
        name = attachment.title.removesuffix(ending) + ending
    return _one_line(name)


def _kind(attachment: discord.Attachment) -> str:
    media_type = attachment.content_type or ""
    for prefix, kind in ATTACHMENT_KINDS.items():
        if media_type.startswith(prefix):
            return kind
    return FILE_PART


def _describe_poll(poll: discord.Poll) -> str:
    answers = " / ".join(_one_line(answer.text or str(answer.emoji)) for answer in poll.answers)
    return f"{POLL_PART}: {_one_line(poll.question, MAX_DESCRIPTION_CHARS)} ({answers})"


def _one_line(text: str, max_chars: int = MAX_NAME_CHARS) -> str:
    line = " ".join(text.split())
    return line if len(line) <= max_chars else f"{line[: max_chars - 1]}…"
