"""Recovery from damaged JSON: finds the end of a value and the start of the next record.

Not by json-repair: it needs the whole text in memory and completes a damaged record by guesses,
which would then be trained on. Here nothing is completed: the record is rejected with its reason.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Protocol

import orjson

from trainer.sources.surrogates import repair_bytes, replace_half_escapes

MAX_RECORD_BYTES = 64 << 20  # longer records are considered broken: a quote or a bracket is missing
SPACE = b" \t\r\n"
TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]+|[\]}]+|"', re.DOTALL)
FIRST_KEY = re.compile(rb'[\[\s]*\{\s*"([^"\\]{1,80})"\s*:')
INDENT = re.compile(rb"\s*(\n[ \t]*)(?=\{)")
LINE_START = re.compile(rb"\A(?:\xef\xbb\xbf|data:[ \t]*(?=[\[{]))+")
"""A byte order mark, or the field of a stream of events: joined files have either in every line."""
STREAM_END = b"[DONE]"
MAX_RECORD_PATTERNS = 32
RECORD_KEYS = (
    "messages",
    "conversations",
    "conversation",
    "dialog",
    "instruction",
    "prompt",
    "question",
    "query",
)
"""Record starts that are assumed before any intact record has been seen."""
LEARNED_RECORDS = 8  # first and last records of a run that show the shape of its records
BARE_OBJECTS = (b"{", b"{}", b"{},")
"""First lines of objects within a record that is written over several lines without indentation."""
UNKNOWN_DEPTH = -1


def strip_line_start(line: bytes) -> bytes:
    """Return a line without what some programs write before each value."""
    return LINE_START.sub(b"", line, count=1)


class BrokenJson(str):
    """The reason why a record cannot be decoded, in place of its value."""


def decode_json(text: bytes) -> Any:
    """Decode a value, or return `BrokenJson`. Accepts NaN and infinities, which Python's `json`
    writes, and halves of characters (see `surrogates`).
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        repaired = _without_halves(text)
        if repaired != text:
            return decode_json(repaired)
        if b"NaN" in text or b"Infinity" in text:
            return _decode_leniently(text)
        return BrokenJson(f"not valid JSON: {error.msg} at character {error.pos + 1}")


def _without_halves(text: bytes) -> bytes:
    text = repair_bytes(text)
    if b"\\ud" not in text.lower():
        return text
    return replace_half_escapes(text.decode("utf-8", "surrogateescape")).encode(
        "utf-8", "surrogateescape"
    )


def _decode_leniently(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return BrokenJson(f"not valid JSON: {error}")


def find_value_end(text: bytes, depth: int = 0, start: int = 0) -> tuple[int, int]:
    """Return the end of the value that is open at `start` (-1: not in this text) and the bracket
    depth there.

    Returns `UNKNOWN_DEPTH` if a quote stays open or brackets are unbalanced.
    """
    for token in TOKEN.finditer(text, start):
        signs = token[0]
        if signs[0] in b"{[":
            depth += len(signs)
        elif signs[0] in b"}]":
            if depth <= len(signs):
                return (token.start() + depth, 0) if depth > 0 else (-1, UNKNOWN_DEPTH)
            depth -= len(signs)
        elif signs == b'"':
            return -1, UNKNOWN_DEPTH
    return -1, depth


class RecordPattern:
    """The layout of an array's records, used to find the next record after a broken one."""

    def __init__(self) -> None:
        self._first: dict[str, None] = {}
        self._keys: set[frozenset[str]] = set()

    def learn(self, values: list[Any]) -> None:
        """Learn the layout from intact records."""
        if len(values) >= 2 * LEARNED_RECORDS:
            values = values[:LEARNED_RECORDS] + values[-LEARNED_RECORDS:]
        for value in values:
            if type(value) is dict and value:
                self._first.setdefault(next(iter(value)))
                if len(self._keys) < MAX_RECORD_PATTERNS:
                    self._keys.add(frozenset(value))

    def next_in(self, piece: bytes) -> int:
        """Return where the next record begins in a text that starts with a broken one; 0 if
        nowhere.

        Uses indentation if records start on lines of their own, else the first key.
        """
        inside = len(piece) - len(piece.lstrip(SPACE)) + 1
        indented = INDENT.match(piece)
        if indented:
            same_indent = rb",?[ \t\r]*" + re.escape(indented[1]) + rb"(?=\{)"
            line_start = re.search(same_indent, piece[inside:])
            if line_start:
                return inside + line_start.end()
        keys = {key.encode() for key in (*self._first, *RECORD_KEYS)}
        own = FIRST_KEY.match(piece)
        if own:
            keys.add(own[1])
        record_start = re.compile(
            rb'[,}\]"]\s*(\{\s*"(?:' + b"|".join(map(re.escape, keys)) + rb')"\s*:)'
        )
        while match := record_start.search(piece, inside):
            end, _ = find_value_end(piece, 0, match.start(1))
            if end < 0 or self._is_record(decode_json(piece[match.start(1) : end])):
                return match.start(1)
            inside = end - 1  # what is nested in the object is no record either
        return 0

    def _is_record(self, value: Any) -> bool:
        """Report whether a value may be a record, by its keys, and is no nested object with the
        same first key.
        """
        if not isinstance(value, dict) or not self._keys or next(iter(value)) in RECORD_KEYS:
            return True
        for keys in self._keys:
            if 2 * len(keys & value.keys()) >= max(len(keys), len(value)):
                return True
        return False


class _Stream(Protocol):
    def readline(self, size: int, /) -> bytes: ...


def decode_lines(stream: _Stream) -> Iterator[tuple[str, Any]]:
    """Yield the values of a file with one per line, or several lines each, with their positions.

    Broken ones become `BrokenJson` and never swallow the next value.
    """
    lines = _Lines(stream)
    read = stream.readline
    given_back = lines.given_back
    loads = orjson.loads
    while line := (given_back.pop() if given_back else read(MAX_RECORD_BYTES)):
        lines.number += 1
        try:
            yield f"line {lines.number}", loads(line)
        except orjson.JSONDecodeError:
            line = strip_line_start(line)
            if line and not line.isspace() and line.strip() != STREAM_END:
                place = f"line {lines.number}"
                yield place, _decode_multiline(line, lines)


class _Lines:
    """A line iterator with push-back; `number` is the current line."""

    def __init__(self, stream: _Stream) -> None:
        self._read = stream.readline
        self.given_back: list[bytes] = []
        self.number = 0

    def next(self) -> bytes:
        self.number += 1
        return self.given_back.pop() if self.given_back else self._read(MAX_RECORD_BYTES)

    def give_back(self, line: bytes) -> None:
        self.given_back.append(line)
        self.number -= 1


def _decode_multiline(line: bytes, lines: _Lines) -> Any:
    """Decode a value that starts on a line which is not complete by itself."""
    block = [line]
    size = len(line)
    end, depth = find_value_end(line)
    while end < 0 and (more := lines.next()):
        if size > MAX_RECORD_BYTES or not _continues_record(block, more, is_open=depth > 0):
            lines.give_back(more)
            break
        block.append(more)
        size += len(more)
        # Otherwise it is broken already, and only its end is looked for.
        if depth > 0:
            end, depth = find_value_end(more, depth)
    if end < 0:
        return decode_json(b"".join(block))
    whole = b"".join([*block[:-1], block[-1][:end]])
    rest = block[-1][end:]
    if rest.lstrip().startswith(b"{"):
        lines.give_back(rest)  # another one on the same line
    elif rest.strip(b"," + SPACE):
        return decode_json(whole + rest)
    return decode_json(whole)


def _continues_record(block: list[bytes], more: bytes, *, is_open: bool) -> bool:
    """Report whether a line continues the preceding record (`is_open`: brackets are open)."""
    opens = more.lstrip().startswith(b"{") and more.strip() not in BARE_OBJECTS
    if opens and _indent(more) <= _indent(block[0]):
        return False  # it begins the next record
    if is_open and block[-1].rstrip().endswith((b"{", b"[", b",", b":")):
        return True
    return (is_open or len(block) > 1) and more[:1] in b' \t\r\n}]"'


def _indent(line: bytes) -> int:
    return len(line) - len(line.lstrip(b" \t"))
