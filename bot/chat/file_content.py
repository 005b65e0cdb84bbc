"""Tells by its content what a file is, and reads a text or a picture for the prompt."""

import codecs
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from bot.chat.file_download import HEAD_BYTES
from bot.chat.picture_content import MAX_PICTURE_BYTES, is_picture, shrink_picture
from personas.prompt.frames import FILE, LONG_FILE, UNREAD_FILE, break_file_end, frame_name
from personas.schemas.chat import Picture
from personas.schemas.formatting import format_size

MAX_TEXT_BYTES = 64 * 1024
MAX_TOKEN_CHARS = 8
"""Characters that a token has at most, on average: what is longer need not be counted."""
KEPT_CONTROLS = frozenset("\t\n")
CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class ReadFile:
    """A file of a message: its text, up to `MAX_TEXT_BYTES`, or its picture, made small; neither of
    other types. `problem` says why it is not shown.
    """

    name: str
    size_bytes: int
    text: str = ""
    picture: Picture | None = None
    problem: str = ""

    @property
    def kept_bytes(self) -> int:
        """Bytes in memory."""
        return len(self.text) + (len(self.picture.data) if self.picture else 0)


def read_limit(head: bytes, *, sees_pictures: bool) -> int:
    """Return how many bytes of a file are read, by its first ones; 0 for a type that is not read."""
    if is_picture(head):
        # One more tells that it is too large.
        return MAX_PICTURE_BYTES + 1 if sees_pictures else 0
    is_cut = len(head) >= HEAD_BYTES
    return MAX_TEXT_BYTES if decode_text(head, is_cut=is_cut) else 0


def read_file(name: str, size_bytes: int, data: bytes, *, sees_pictures: bool) -> ReadFile:
    """Read a file from its beginning."""
    if not is_picture(data):
        text = decode_text(data[:MAX_TEXT_BYTES], is_cut=len(data) >= MAX_TEXT_BYTES)
        return ReadFile(name, size_bytes, text=text or "")
    if not sees_pictures:
        return ReadFile(name, size_bytes)
    if len(data) > MAX_PICTURE_BYTES:
        return ReadFile(name, size_bytes, problem="is too large to be looked at")
    picture = shrink_picture(name, data)
    problem = "" if picture else "cannot be looked at: it is damaged, or has too many pixels"
    return ReadFile(name, size_bytes, picture=picture, problem=problem)


def decode_text(data: bytes, *, is_cut: bool = False) -> str | None:
    """Decode a text in UTF-8; None for anything else. Of one that `is_cut`, half a character may be
    missing.
    """
    if b"\0" in data:
        return None
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        text = decoder.decode(data, final=not is_cut)
    except UnicodeDecodeError:
        return None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(sign for sign in text if sign in KEPT_CONTROLS or _is_shown(sign))


def _is_shown(sign: str) -> bool:
    return unicodedata.category(sign) != "Cc"


def quoted_file(file: ReadFile, room_tokens: int, count_tokens: CountTokens) -> str:
    """Quote a file for the prompt, cut at the end of a line to what has room, with a note; empty
    for one that is not read.
    """
    name = frame_name(file.name)
    if file.problem:
        return UNREAD_FILE.fill(name=name, problem=file.problem)
    if not file.text.strip():
        return ""
    whole = file.text.strip("\n")
    text = _cut(whole, room_tokens, count_tokens)
    if not text:
        return LONG_FILE.fill(name=name)
    note = ""
    if text != whole or file.size_bytes > MAX_TEXT_BYTES:
        shown = format_size(len(text.encode()))
        note = f"\n(only the first {shown} of {format_size(file.size_bytes)})"
    return FILE.fill(name=name, text=break_file_end(text, name) + note)


def _cut(text: str, room_tokens: int, count_tokens: CountTokens) -> str:
    """Cut a text to a number of tokens, at the end of a line where that leaves half of it."""
    text = text[: max(0, room_tokens) * MAX_TOKEN_CHARS]
    while text and (tokens := count_tokens(text)) > room_tokens:
        text = text[: len(text) * max(0, room_tokens) // (tokens + 1)]
        line_end = text.rfind("\n")
        if line_end > len(text) // 2:
            text = text[:line_end]
    return text
