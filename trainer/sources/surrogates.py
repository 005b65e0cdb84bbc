"""Repairs half characters: programs that cut texts, or write the two halves of an emoji one by one,
leave surrogates, which are no text. One costs a character (U+FFFD), not its record.
"""

import io
import re
from typing import Any, BinaryIO

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
ENCODED = re.compile(
    rb"(\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf])|\xed[\xa0-\xbf][\x80-\xbf]"
)
"""Surrogates in UTF-8, or two that are one character (CESU-8)."""
ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""An escape of JSON or Python; the group is a surrogate without its other half."""
BUFFER_BYTES = 1 << 20
CUT = re.compile(rb"\xed(?:[\xb0-\xbf]|[\xa0-\xaf](?:[\x80-\xbf](?:\xed[\xb0-\xbf]?)?)?)?\Z")
"""The beginning of one or two surrogates, whose end is in the next block."""
MAX_CUT_BYTES = 5


def repair_bytes(content: bytes) -> bytes:
    """Return text with the halves of characters joined, or replaced where the other is missing."""
    # Hangul has this byte too, but not the next one.
    return ENCODED.sub(_encode, content) if b"\xed" in content else content


def _encode(match: re.Match[bytes]) -> bytes:
    text = match[0].decode("utf-8", "surrogatepass")
    if match[1]:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        return text.encode()
    return REPLACEMENT.encode()


def replace_half_escapes(text: str) -> str:
    """Return JSON or Python source in which no escape is half a character."""
    return ESCAPE.sub(lambda match: r"\ufffd" if match[1] else match[0], text)


class RepairedStream(io.RawIOBase):
    """A stream of text without halves of characters in UTF-8."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self._ahead = b""
        self._cut = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._ahead:
            block = self._stream.read(BUFFER_BYTES)
            content = self._cut + block
            if not content:
                return 0
            self._cut = b""
            cut = CUT.search(content, max(0, len(content) - MAX_CUT_BYTES)) if block else None
            if cut:
                self._cut = cut[0]
                content = content[: cut.start()]
            self._ahead = repair_bytes(content)
        size = min(len(buffer), len(self._ahead))
        buffer[:size] = self._ahead[:size]
        self._ahead = self._ahead[size:]
        return size


def repaired(stream: BinaryIO) -> io.BufferedReader:
    """Return a stream's text without halves of characters."""
    return io.BufferedReader(RepairedStream(stream), BUFFER_BYTES)
