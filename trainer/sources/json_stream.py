"""JSON read piece by piece: the elements of arrays of any size, wherever in a file they stand, in bounded memory."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import Any, BinaryIO

from trainer.sources.json_cursor import Cursor
from trainer.sources.json_mend import Broken, decode


def array_at(stream: BinaryIO, path: tuple[str, ...]) -> Iterator[Any] | None:
    """The elements of the array to which the keys of `path` lead (none: the file is the array); None without one.

    Yields decoded values and `Broken`. Where the file is the array, what follows it is read too: another array, or more
    elements.
    """
    cursor = Cursor(stream)
    if not cursor.reach(path):
        return None
    return cursor.elements() if path else _all_elements(cursor)


def _all_elements(cursor: Cursor) -> Iterator[Any]:
    yield from cursor.elements()
    while sign := cursor.next():
        if sign in (b"[", b","):
            cursor.skip(1)
        elif sign != b"{":
            foreign = cursor.pass_foreign()[:40].decode(errors="replace")
            yield Broken(f"no JSON, behind the end of the array: {foreign!r}")
            continue
        yield from cursor.elements()


def members_of(text: bytes, most: int) -> dict[str, Any]:
    """The members of the JSON object that a text begins with, of its arrays so many elements that are whole.

    What is broken, and what follows a broken member that is no array, is left out.
    """
    cursor = Cursor(io.BytesIO(text))
    sign = b"{" if cursor.next() == b"{" else b""
    members: dict[str, Any] = {}
    while sign in (b"{", b","):
        cursor.skip(1)
        if cursor.next() != b'"' or (key := cursor.string()) is None or cursor.next() != b":":
            break
        cursor.skip(1)
        if cursor.next() == b"[":
            whole = (value for value in cursor.inside() if not isinstance(value, Broken))
            value: Any = list(itertools.islice(whole, most))
            for _ in whole:
                pass
        elif isinstance(value := cursor.value(), Broken):
            break
        members[str(decode(key))] = value
        sign = cursor.next()
    return members


def arrays_within(stream: BinaryIO, path: tuple[str, ...], key: str) -> Iterator[tuple[dict[str, Any], Iterator[Any]]]:
    """Of each object in the array at `path`: its texts and numbers before `key`, and the elements of the array there.

    The elements are to be taken before the next object. What is no object comes as one `Broken` element.
    """
    cursor = Cursor(stream)
    if not cursor.reach(path):
        return
    while (sign := cursor.next()) not in (b"", b"]", b"}"):
        head: dict[str, Any] = {}
        if sign != b"{":
            cursor.pass_value()
            yield head, iter([Broken("an object was expected")])
        elif cursor.enter(key, head):
            elements = iter(()) if cursor.next() != b"[" else cursor.inside()
            yield head, elements
            for _ in elements:
                pass
            cursor.leave()
        else:
            yield head, iter(())
            cursor.leave()
        if cursor.next() == b",":
            cursor.skip(1)


def arrays_in(stream: BinaryIO) -> Iterator[tuple[str, Iterator[Any]]]:
    """The arrays among the members of the object that the file is, by key; each is to be taken before the next."""
    cursor = Cursor(stream)
    sign = b"{" if cursor.next() == b"{" else b""
    while sign in (b"{", b","):
        cursor.skip(1)
        if cursor.next() != b'"' or (key := cursor.string()) is None or cursor.next() != b":":
            return
        cursor.skip(1)
        if cursor.next() == b"[":
            elements = cursor.inside()
            yield str(decode(key)), elements
            for _ in elements:
                pass
        else:
            cursor.pass_value()
        sign = cursor.next()
