"""Streams the elements of JSON arrays of any size, at any depth of a file, in bounded memory.

Not by ijson: it ends at the first error, while here a broken element is one rejected record, and
the elements after it are read. Whole batches go to orjson; a parser of events would call Python for
every value.
"""

import collections
import io
import itertools
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from trainer.sources.json_recovery import (
    MAX_RECORD_BYTES,
    SPACE,
    BrokenJson,
    RecordPattern,
    decode_json,
    find_value_end,
)

CHUNK_BYTES = 1 << 20
STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_COMMA = 2
_STRUCTURAL = np.zeros(256, dtype=np.int8)


class JsonCursor:
    """A position in a stream of JSON text with a look-ahead buffer."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._ahead = b""
        self._between = b""
        self._is_taken_up = False

    def next(self) -> bytes:
        """Return the next byte that is not white space without consuming it; empty at the end."""
        self._ahead = self._ahead.lstrip(SPACE)
        while not self._ahead and self._fill():
            self._ahead = self._ahead.lstrip(SPACE)
        return self._ahead[:1]

    def skip(self, count: int) -> None:
        """Consume bytes that `next` has returned."""
        self._ahead = self._ahead[count:]

    def reach(self, path: tuple[str, ...]) -> bool:
        """Move into the array at a path of keys; return False if there is none."""
        if not all(self.next() == b"{" and self.enter(key) for key in path):
            return False
        if self.next() != b"[":
            return False
        self.skip(1)
        return True

    def members(self) -> Iterator[str]:
        """Yield the keys of the object that begins here, each with its value at the cursor, to be
        consumed.
        """
        sign = self.next()
        while sign in (b"{", b","):
            self.skip(1)
            if self.next() != b'"':
                return
            key = self.string()
            if key is None or self.next() != b":":
                return
            self.skip(1)
            yield str(decode_json(key))
            sign = self.next()

    def enter(self, wanted_key: str, passed: dict[str, Any] | None = None) -> bool:
        """Move from an object's opening bracket to the value of one of its keys; return False if
        the key is missing.

        `passed` collects the texts and numbers on the way.
        """
        for key in self.members():
            if key == wanted_key:
                return True
            value = self.pass_value()
            if passed is not None and value:
                passed[key] = decode_json(value)
        return False

    def inside(self) -> Iterator[Any]:
        """Yield the elements of the array that begins here."""
        self.skip(1)
        return self.elements()

    def leave(self) -> None:
        """Move past the closing bracket of the current object."""
        while self.next() not in (b"", b"}", b"]"):
            if self.next() in (b",", b":"):
                self.skip(1)
            else:
                self.pass_value()
        self.skip(1)

    def elements(self) -> Iterator[Any]:
        """Yield the decoded elements up to the closing bracket, resynchronising after broken
        ones.
        """
        pattern = RecordPattern()
        for batch, commas in self._batches():
            values = decode_json(b"[" + batch + b"]")
            if isinstance(values, list) and len(values) == len(commas) + 1:
                pattern.learn(values)
                yield from values
            elif batch.strip(SPACE) or commas:
                yield from self._one_by_one(batch, commas, pattern)

    def _one_by_one(self, batch: bytes, commas: list[int], pattern: RecordPattern) -> Iterator[Any]:
        """Decode the elements of a batch with a broken one, whose commas may not be element
        boundaries.
        """
        for before, end in itertools.pairwise([-1, *commas, len(batch)]):
            start = before + 1
            piece = batch[before + 1 : end]
            if end == len(batch) and not piece.strip(SPACE):
                return
            value = decode_json(piece)
            if isinstance(value, BrokenJson) and (place := pattern.next_in(piece)):
                self._ahead = batch[start + place :] + self._between + self._ahead
                self._is_taken_up = True
                # It is complete if only the comma was missing.
                yield decode_json(piece[:place].rstrip(SPACE + b","))
                return
            pattern.learn([value])
            yield value

    def _batches(self) -> Iterator[tuple[bytes, list[int]]]:
        """Yield batches of complete elements with the positions of the commas between them."""
        size = CHUNK_BYTES
        while True:
            commas, end = _structure(self._ahead)
            if end < 0 and commas:
                end = commas.pop()
            elif end < 0:
                if len(self._ahead) <= MAX_RECORD_BYTES and self._fill(size):
                    # An element longer than what was read is not searched again and again.
                    size *= 2
                    continue
                # The file ends inside an element, or the element is too long.
                end = len(self._ahead)
            batch = self._ahead[:end]
            self._between = self._ahead[end : end + 1]
            self._ahead = self._ahead[end + 1 :]
            self._is_taken_up = False
            size = CHUNK_BYTES
            if batch.strip(SPACE):
                yield batch, commas
            if self._is_taken_up:
                continue
            if self._between == b"]" or not (self._ahead or self._fill()):
                return
            if self._between == b"}" and self.next() == b",":
                self.skip(1)  # an extra bracket after an element

    def value(self) -> Any:
        """Return the decoded value at the cursor, or `BrokenJson`, and consume it."""
        if self.next() not in (b"[", b"{"):
            return decode_json(self.pass_value())
        end, _ = find_value_end(self._ahead)
        if end < 0:
            return BrokenJson("not ended")
        text = self._ahead[:end]
        self.skip(end)
        return decode_json(text)

    def pass_foreign(self) -> bytes:
        """Skip non-JSON text up to the next array or object; return the beginning of the skipped
        text.
        """
        passed = b""
        while self._ahead or self._fill():
            bracket = re.search(rb"[\[{]", self._ahead[1:])
            if bracket:
                passed += self._ahead[: bracket.start() + 1]
                self.skip(bracket.start() + 1)
                break
            passed += self._ahead
            self._ahead = b""
            passed = passed[:CHUNK_BYTES]
        return passed.strip()

    def pass_value(self) -> bytes:
        """Skip the value at the cursor; return it unless it is an array or an object."""
        if self.next() in (b"[", b"{"):
            self.skip(1)
            self._pass_nested()
            return b""
        if self.next() == b'"':
            text = self.string()
            if text is None:
                self._ahead = b""  # it never ends, so nothing can follow it
            return text or b""
        passed = b""
        while self.next() not in (b"", b",", b"}", b"]"):
            passed += self.next()
            self.skip(1)
        return passed

    def _pass_nested(self) -> None:
        depth = 1
        is_quoted = 0
        while self._ahead or self._fill():
            while self._ahead.endswith(b"\\") and self._fill(1):
                pass  # so that no escape is cut in two
            text = _without_escapes(self._ahead)
            places, signs = _structural_characters(text, is_quoted)
            depths = depth + np.cumsum(np.where(signs == _COMMA, 0, signs), dtype=np.int64)
            closed = np.flatnonzero(depths == 0)
            if closed.size:
                return self.skip(int(places[closed[0]]) + 1)
            depth = int(depths[-1]) if depths.size else depth
            is_quoted = (is_quoted + text.count(b'"')) & 1
            self._ahead = b""

    def string(self) -> bytes | None:
        """Read the string that starts here, quotes included; None if it does not end."""
        while (match := STRING.match(self._ahead)) is None:
            # Twice as much each time, so that a long text is not matched again and again.
            size = max(CHUNK_BYTES, len(self._ahead))
            if len(self._ahead) > MAX_RECORD_BYTES or not self._fill(size):
                return None
        self.skip(match.end())
        return match[0]

    def _fill(self, size: int = CHUNK_BYTES) -> bool:
        more = self._stream.read(size)
        self._ahead += more
        return bool(more)


def _structure(text: bytes) -> tuple[list[int], int]:
    """Return the positions of the commas at depth 0 up to the closing bracket, and the bracket's
    position or -1.
    """
    places, signs = _structural_characters(_without_escapes(text))
    depths = np.cumsum(np.where(signs == _COMMA, 0, signs), dtype=np.int64)
    closed = np.flatnonzero(depths < 0)
    end = int(closed[0]) if closed.size else -1
    upto = end if end >= 0 else len(places)
    commas = places[:upto][(signs[:upto] == _COMMA) & (depths[:upto] == 0)]
    return commas.tolist(), int(places[end]) if end >= 0 else -1


def _structural_characters(
    text: bytes, is_quoted: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Return the positions and kinds of commas and brackets outside strings: 1 opens, -1 closes, or
    `_COMMA`.

    The text must not contain escapes; `is_quoted` is 1 if it begins inside a string.
    """
    plain = np.frombuffer(text, dtype=np.uint8)
    outside = (np.cumsum(plain == ord('"'), dtype=np.int32) & 1) == is_quoted
    signs = _STRUCTURAL[plain]
    places = np.flatnonzero((signs != 0) & outside)
    return places, signs[places]


def _without_escapes(text: bytes) -> bytes:
    """Blank out two-byte escapes from the left, so that every remaining quote delimits a string."""
    return text.replace(b"\\\\", b"__").replace(b'\\"', b"__")


_STRUCTURAL[[ord("["), ord("{")]] = 1
_STRUCTURAL[[ord("]"), ord("}")]] = -1
_STRUCTURAL[ord(",")] = _COMMA


def stream_array(stream: BinaryIO, path: tuple[str, ...]) -> Iterator[Any] | None:
    """Stream the elements of the array at `path` (none: the file is the array); None if there is
    none.

    Yields decoded values and `BrokenJson`. If the file itself is the array, whatever follows it is
    read too: another array, or more elements.
    """
    cursor = JsonCursor(stream)
    if not cursor.reach(path):
        return None
    return cursor.elements() if path else _all_elements(cursor)


def _all_elements(cursor: JsonCursor) -> Iterator[Any]:
    yield from cursor.elements()
    while sign := cursor.next():
        if sign in (b"[", b","):
            cursor.skip(1)
        elif sign != b"{":
            foreign = cursor.pass_foreign()[:40].decode(errors="replace")
            yield BrokenJson(f"no JSON, behind the end of the array: {foreign!r}")
            continue
        yield from cursor.elements()


def parse_members(text: bytes, most: int) -> dict[str, Any]:
    """Parse the members of a JSON object at the start of a text, with at most `most` complete
    elements of each array.

    Drops broken members and everything after a broken member that is not an array.
    """
    cursor = JsonCursor(io.BytesIO(text))
    members: dict[str, Any] = {}
    for key in cursor.members():
        if cursor.next() == b"[":
            elements = itertools.filterfalse(_is_broken, cursor.inside())
            members[key] = list(itertools.islice(elements, most))
            exhaust(elements)
            continue
        value = cursor.value()
        if _is_broken(value):
            break
        members[key] = value
    return members


def _is_broken(value: object) -> bool:
    return isinstance(value, BrokenJson)


def exhaust(elements: Iterator[Any]) -> None:
    """Consume the rest of an iterator."""
    collections.deque(elements, maxlen=0)


def stream_nested_arrays(
    stream: BinaryIO, path: tuple[str, ...], key: str
) -> Iterator[tuple[dict[str, Any], Iterator[Any]]]:
    """Yield, for each object in the array at `path`, its texts and numbers before `key`, and the
    elements of `key`.

    Consume the elements before advancing to the next object. Other values yield a single
    `BrokenJson` element.
    """
    cursor = JsonCursor(stream)
    if not cursor.reach(path):
        return
    while (sign := cursor.next()) not in (b"", b"]", b"}"):
        head: dict[str, Any] = {}
        if sign != b"{":
            cursor.pass_value()
            yield head, iter([BrokenJson("an object was expected")])
        elif cursor.enter(key, head):
            elements = iter(()) if cursor.next() != b"[" else cursor.inside()
            yield head, elements
            exhaust(elements)
            cursor.leave()
        else:
            yield head, iter(())
            cursor.leave()
        if cursor.next() == b",":
            cursor.skip(1)


def stream_arrays(stream: BinaryIO) -> Iterator[tuple[str, Iterator[Any]]]:
    """Yield the array members of the top-level object by key; consume each before advancing to the
    next.
    """
    cursor = JsonCursor(stream)
    for key in cursor.members():
        if cursor.next() == b"[":
            elements = cursor.inside()
            yield key, elements
            exhaust(elements)
        else:
            cursor.pass_value()
