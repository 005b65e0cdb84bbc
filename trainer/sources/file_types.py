"""Detects the type and encoding of a file from its first bytes, regardless of its name."""

import io
import re
from typing import Literal

from charset_normalizer import from_bytes
from pydantic_core import from_json

from personas.errors import MaterialError
from trainer.sources.json_recovery import SPACE, decode_json, find_value_end, strip_line_start
from trainer.sources.table_reader import detect_delimiter

FileType = Literal[
    "folder",
    "zip",
    "PNG",
    "Parquet",
    "Arrow",
    "JSON array",
    "JSON object",
    "JSON lines",
    "CSV",
    "TSV",
    "YAML",
    "text",
]
TEXT_TYPES: tuple[FileType, ...] = (
    "JSON array",
    "JSON object",
    "JSON lines",
    "CSV",
    "TSV",
    "YAML",
    "text",
)
BOM = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"
ZIP = b"PK\x03\x04"
MAGIC: tuple[tuple[bytes, FileType], ...] = (
    (ZIP, "zip"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"PAR1", "Parquet"),
    (b"ARROW1", "Arrow"),
    (b"\xff\xff\xff\xff", "Arrow"),  # a stream: the mark before each message's length
)
UTF_BOMS = ((b"\xff\xfe\x00\x00", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
ASCII = frozenset(map(chr, range(128)))
WESTERN = frozenset(
    "àâáãäåæçèéêëìíîïñòóôõöøœùúûüÿßÀÂÁÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØŒÙÚÛÜŸ«»‘’“”„…–—·°§€£¡¿ºª\xa0"
)
SAMPLED_LINES = 64
MAX_FOREIGN_SHARE = 0.2
"""Share of the first lines that may be invalid UTF-8 and are rejected; with more, the file is
rejected.
"""


def detect_file_type(
    start: bytes, name: str, *, is_whole: bool, is_followed: bool = False
) -> tuple[FileType, str]:
    """Return the file type, and the delimiter for tables. `is_whole`: the bytes are the complete
    file.

    `is_followed`: the first line continues beyond them and a second object begins on the next line.

    Raises `MaterialError` if the file is empty, of an unknown binary type, or text that is not
    UTF-8.
    """
    for magic, kind in MAGIC:
        if start.startswith(magic):
            return kind, ""
    text = _decode_text(start, name)
    if not text.strip():
        raise MaterialError(f"{name} is empty.", "Name a file with content.")
    lines = list(io.StringIO(text, newline=""))
    if len(lines) > 1 and not is_whole:
        lines.pop()  # cut in the middle
    filled = [strip_line_start(line.encode()).decode() for line in lines if line.strip()]
    first = strip_line_start(text.lstrip().encode()).decode()
    json_kind = _json_kind(first, filled[:SAMPLED_LINES])
    if json_kind == "JSON object" and (is_followed or text.lstrip().startswith("data:")):
        return "JSON lines", ""
    if json_kind:
        return json_kind, ""
    lower_name = name.lower().removesuffix(".gz")
    if re.match(r"acts:\s", text) or lower_name.endswith((".yml", ".yaml")):
        return "YAML", ""
    is_named_table = lower_name.endswith((".csv", ".tsv"))
    delimiter = detect_delimiter(lines[: 16 * SAMPLED_LINES], is_named_so=is_named_table)
    if not delimiter:
        return "text", ""
    return ("TSV" if delimiter == "\t" else "CSV"), delimiter


def _json_kind(text: str, lines: list[str]) -> FileType | None:
    if re.match(r'\[\s*[\[{"\]]', text):
        # Some sets have a list of messages on each line: then the first line is not the whole file.
        are_lists = len(lines) > 1 and all(map(_is_message_list, lines[:2]))
        return "JSON lines" if are_lists else "JSON array"
    stripped = [line.strip() for line in lines]
    rows = sum(line.startswith("{") and line.endswith("}") for line in stripped)
    if len(stripped) > 1 and 2 * rows > len(stripped):
        return "JSON lines"
    if not text.startswith("{"):
        # The first row is broken. With as many rows as other lines, one has to be readable.
        are_rows = 2 * rows == len(stripped) and any(map(_is_object, stripped))
        return "JSON lines" if are_rows else None
    return "JSON lines" if _is_json_lines(text, lines) else "JSON object"


def _is_json_lines(text: str, lines: list[str]) -> bool:
    """Report whether the text is a sequence of objects, or broken rows among intact ones."""
    content = text.encode()
    end, _ = find_value_end(content)
    rest = content[end:].strip() if end >= 0 else b""
    # Lines that were cut out of an array end in commas.
    if rest.lstrip(b"," + SPACE).startswith(b"{"):
        return True
    if (end >= 0 and not rest) or (end < 0 and _is_truncated_json(text)):
        return False
    is_indented = any(line[0] in " \t" for line in lines)
    if is_indented and any(line.rstrip() in ("{", "}{") for line in lines[1:]):
        # Objects over several lines: nested ones would be indented, too.
        return True
    elements = sum(line.rstrip().endswith("},") for line in lines)  # of an array
    rows = sum(line.startswith("{") and _is_object(line) for line in lines)
    return rows > elements


def _is_truncated_json(text: str) -> bool:
    """Report whether the text is valid JSON apart from a missing end."""
    try:
        from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return False
    return True


def _is_object(line: str) -> bool:
    value = decode_json(line.encode())
    return isinstance(value, dict) and bool(value)


def _is_message_list(line: str) -> bool:
    """Report whether a line is a list of messages, so that each line is a dialogue of its own."""
    if not line.startswith("[{"):
        return False
    value = decode_json(line.rstrip().removesuffix(",").encode())
    first = value[0] if isinstance(value, list) else None
    return isinstance(first, dict) and "role" in first and ("content" in first or "text" in first)


def _decode_text(start: bytes, name: str) -> str:
    for bom, encoding in UTF_BOMS:
        if start.startswith(bom):
            raise _encoding_error(name, encoding)
    start = start.removeprefix(BOM)
    lines = start.splitlines()[: 16 * SAMPLED_LINES]
    # The last line may be cut within a character.
    foreign = [line for line in lines[:-1] or lines if not _is_utf8(line)]
    if b"\0" in start or len(foreign) > MAX_FOREIGN_SHARE * len(lines):
        raise _encoding_error(name, _guess_encoding(start))
    return start.decode("utf-8", "replace")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _guess_encoding(start: bytes) -> str:
    """Guess the encoding; empty if the bytes are not text."""
    sample = start[: 1 << 16]
    if b"\0" not in sample and _is_western(sample):
        return "CP1252 or ISO-8859-1"
    best = from_bytes(sample).best()
    encoding = best.encoding.replace("_", "-").upper() if best else ""
    # In text, zero bytes occur in these encodings alone.
    is_text = b"\0" not in start or encoding.startswith(("UTF-16", "UTF-32"))
    return encoding if is_text else ""


def _is_western(sample: bytes) -> bool:
    """Report whether all non-ASCII characters are Western European, which neighbouring code pages
    lack.
    """
    try:
        foreign = set(sample.decode("cp1252")) - ASCII
    except UnicodeDecodeError:
        return False
    return bool(foreign) and foreign <= WESTERN


def _encoding_error(name: str, encoding: str) -> MaterialError:
    if not encoding:
        return MaterialError(
            f"{name} is neither text nor a known container.", "Unpack or convert it."
        )
    return MaterialError(f"{name} is not UTF-8 (it looks like {encoding}).", "Save it as UTF-8.")
