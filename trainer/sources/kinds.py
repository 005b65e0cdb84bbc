"""What kind of file some bytes begin, whatever the file is called."""

from __future__ import annotations

import io
import re
from typing import Literal

from personas.errors import MaterialError
from trainer.sources.tables import delimiter_of

Kind = Literal[
    "folder", "zip", "PNG", "Parquet", "Arrow", "JSON array", "JSON object", "JSON lines", "CSV", "TSV", "YAML", "text"
]
TEXTS: tuple[Kind, ...] = ("JSON array", "JSON object", "JSON lines", "CSV", "TSV", "YAML", "text")
BOM = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"
ZIP = b"PK\x03\x04"
MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (ZIP, "zip"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"PAR1", "Parquet"),
    (b"ARROW1", "Arrow"),
    (b"\xff\xff\xff\xff", "Arrow"),  # a stream: the mark before each message's length
)
UTF_BOMS = ((b"\xff\xfe\x00\x00", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
SHOWN_LINES = 64
FOREIGN_SHARE = 0.2
"""So many of the first lines may hold bytes that are not UTF-8; they are rejected. With more, the file is."""


def kind_of(start: bytes, name: str, *, is_whole: bool) -> tuple[Kind, str]:
    """The kind, and for tables what separates the cells. `is_whole` tells that the file ends with these bytes.

    Raises `MaterialError` when the file is empty, binary of no known kind, or text that is not UTF-8.
    """
    for magic, kind in MAGIC:
        if start.startswith(magic):
            return kind, ""
    text = _text(start, name)
    if not text.strip():
        raise MaterialError(f"{name} is empty.", "Name a file with something in it.")
    lines = list(io.StringIO(text, newline=""))
    if len(lines) > 1 and not is_whole:
        lines.pop()  # cut in the middle
    if json := _json_kind(text.lstrip(), [line.strip() for line in lines if line.strip()]):
        return json, ""
    called = name.lower().removesuffix(".gz")
    if re.match(r"acts:\s", text) or called.endswith((".yml", ".yaml")):
        return "YAML", ""
    if delimiter := delimiter_of(lines[: 16 * SHOWN_LINES], is_named_so=called.endswith((".csv", ".tsv"))):
        return ("TSV" if delimiter == "\t" else "CSV"), delimiter
    return "text", ""


def _json_kind(text: str, lines: list[str]) -> Kind | None:
    lines = lines[:SHOWN_LINES]
    rows = sum(line.startswith("{") and line.endswith("}") for line in lines)
    if re.match(r'\[\s*[\[{"\]]', text):
        return "JSON array"
    if len(lines) > 1 and 2 * rows > len(lines):
        return "JSON lines"
    return "JSON object" if text.startswith("{") else None


def _text(start: bytes, name: str) -> str:
    for bom, encoding in UTF_BOMS:
        if start.startswith(bom):
            raise _not_utf8(name, encoding)
    start = start.removeprefix(BOM)
    lines = start.splitlines()[: 16 * SHOWN_LINES]
    foreign = [line for line in lines[:-1] or lines if not _is_utf8(line)]
    if b"\0" in start or len(foreign) > FOREIGN_SHARE * len(lines):
        raise _not_utf8(name, _guessed(start))
    return start.decode("utf-8", "replace")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _guessed(start: bytes) -> str:
    """The encoding that a text most likely has; empty for what is no text."""
    from charset_normalizer import from_bytes

    best = from_bytes(start[: 1 << 16]).best()
    encoding = best.encoding.replace("_", "-").upper() if best else ""
    return encoding if b"\0" not in start or encoding.startswith(("UTF-16", "UTF-32")) else ""


def _not_utf8(name: str, encoding: str) -> MaterialError:
    if not encoding:
        return MaterialError(f"{name} is neither text nor a container that is known here.", "Unpack or convert it.")
    return MaterialError(f"{name} is not UTF-8 (it looks like {encoding}).", "Save it as UTF-8.")
