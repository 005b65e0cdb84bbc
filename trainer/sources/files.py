"""Opening material: what a file is, by its content, and its records one by one.

Plain or gzipped, UTF-8 with or without a byte-order mark; JSON as an array, an object or lines, CSV and TSV, Parquet,
Arrow, YAML, plain text, zip archives, PNG pictures, and folders. Everything is streamed: memory does not grow with the
file. Damage inside a record rejects the record; damage to the file itself is a `MaterialError`.
"""

from __future__ import annotations

import gzip
import io
import itertools
import os
import shutil
import stat
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydantic_core import from_json

from personas.errors import MaterialError
from trainer.conversation import Rejected
from trainer.sources import kinds, tables
from trainer.sources.json_mend import LONGEST_RECORD_BYTES, Broken, decode, values_by_line
from trainer.sources.json_stream import array_at, arrays_in, arrays_within, members_of
from trainer.sources.kinds import BOM, Kind

HEAD_BYTES = 1 << 20
DAMAGE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError)
"""What decompressors raise; `RuntimeError` is an archive's with a password or a method that Python does not know."""
PEEKED = 64
MOST_NAMES = 1_000_000
"""Of files in a folder; an export of a chat may well hold a file for each channel and day."""
Record = tuple[str, dict[str, Any]]
"""Where a record stands ("line 3", "row 7", "messages 12") and what it holds."""


@dataclass(frozen=True)
class Peek:
    """The beginning of a file, by which formats recognise it.

    `records` are its first rows, if it has any; `head` the members of a JSON object with long arrays cut short (the
    last values may be incomplete); `columns` those of a table; `text` its first characters; `names` what a folder or
    archive holds; `problem` why the first of its records that cannot be read cannot.
    """

    kind: Kind
    name: str
    records: tuple[dict[str, Any], ...] = ()
    head: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    text: str = ""
    names: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class SourceFile:
    """A file, a member of an archive, or a folder. `name` is what people are told, `path` lies on disk.

    `is_inside` tells that the content is not as it lies there: packed, or a member of an archive.
    """

    path: Path
    name: str
    kind: Kind
    delimiter: str
    start: bytes
    names: tuple[str, ...]
    opened: Callable[[], AbstractContextManager[BinaryIO]]
    is_inside: bool = False

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The content, decompressed. What goes wrong while it is read becomes a `MaterialError`."""
        try:
            with self.opened() as stream:
                yield stream
        except DAMAGE as error:
            raise unreadable(self.name, error) from None

    def read(self, limit_bytes: int) -> bytes:
        """All of it. Raises `MaterialError` when it is longer."""
        with self.open() as stream:
            content = stream.read(limit_bytes + 1)
        if len(content) > limit_bytes:
            raise MaterialError(f"{self.name} is larger than {limit_bytes >> 20} MiB.", "Split it.")
        return content.removeprefix(BOM)

    def lines(self) -> Iterator[str]:
        """Lines with their ends; bytes that are not UTF-8 come as lone surrogates."""
        with self.open() as stream:
            decoded = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
            yield from decoded  # named, so that it does not end before the stream is closed

    def member(self, name: str) -> SourceFile:
        """One of `names`: a file of the folder or archive."""
        if self.kind == "folder":
            return open_source(self.path / name, f"{self.name}/{name}")
        return _source(self.path, f"{self.name}/{name}", lambda: self._archived(name), is_inside=True)

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        """Open as long as this file or one of its members is in use: each opening reads the whole list of contents."""
        if not self.is_inside:
            return zipfile.ZipFile(self.path)
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115  closed with the archive
        with self.opened() as stream:
            shutil.copyfileobj(stream, unpacked)
        archive = zipfile.ZipFile(unpacked)
        weakref.finalize(archive, unpacked.close)
        return archive

    @contextmanager
    def _archived(self, name: str) -> Iterator[BinaryIO]:
        try:
            member = self._archive.open(name)
        except KeyError:
            raise MaterialError(f"{self.name} holds no {name}.", "Check the archive.") from None
        with member:
            yield cast(BinaryIO, member)

    def records(self, *path: str) -> Iterator[Record | Rejected]:
        """The rows of a table, the lines, the elements of an array; of a JSON object those of the array at `path`.

        A JSON object without a path is one record. Text, archives, pictures and folders have none.
        """
        if self.kind == "JSON lines":
            yield from self._json_lines()
        elif self.kind == "JSON array" or path:
            yield from self._elements(path)
        elif self.kind == "JSON object":
            yield _record("line 1", decode(self.read(LONGEST_RECORD_BYTES)))
        elif self.kind in ("CSV", "TSV"):
            yield from tables.csv_rows(self.lines(), self.delimiter)
        elif self.kind in ("Parquet", "Arrow"):
            rows = tables.parquet_rows if self.kind == "Parquet" else tables.arrow_rows
            with self.open() as stream:
                yield from rows(stream, self.name)

    def grouped(self, path: tuple[str, ...], key: str) -> Iterator[tuple[dict[str, Any], Iterator[Record | Rejected]]]:
        """Of a JSON object, for each object of the array at `path`: its texts and numbers, and its array at `key`.

        The rows of one are to be taken before the next.
        """
        with self.open() as stream:
            self._skip_mark(stream)
            for head, elements in arrays_within(stream, path, key):
                yield head, (_record(f"{key} {number}", value) for number, value in enumerate(elements, start=1))

    def arrays(self) -> Iterator[tuple[str, Iterator[Record | Rejected]]]:
        """The arrays among a JSON object's members, by key. The elements of one are to be taken before the next."""
        with self.open() as stream:
            self._skip_mark(stream)
            for key, elements in arrays_in(stream):
                yield key, (_record(f"{key} {number}", value) for number, value in enumerate(elements, start=1))

    @property
    def is_cut(self) -> bool:
        """Whether a peek shows only the beginning of the file."""
        return len(self.start) >= HEAD_BYTES

    def peek(self, count: int = PEEKED) -> Peek:
        """The first records, members or lines."""
        if self.kind == "folder" or self.kind == "zip":
            return Peek(self.kind, self.name, names=self.names)
        text = self.start.removeprefix(BOM).decode("utf-8", "replace") if self.kind in kinds.TEXTS else ""
        columns = tables.header_of(text, self.delimiter) if self.delimiter else ()
        head = _head(self.start) if self.kind == "JSON object" else {}
        first = [] if head else list(itertools.islice(self.records(), count))
        problem = next((f"{r.row}: {r.reason}" for r in first if isinstance(r, Rejected)), "")
        records = tuple(r[1] for r in first if not isinstance(r, Rejected))
        return Peek(self.kind, self.name, records, head, columns, text, problem=problem)

    def _json_lines(self) -> Iterator[Record | Rejected]:
        with self.open() as stream:
            self._skip_mark(stream)
            for found in values_by_line(stream):
                yield found if type(found[1]) is dict else _record(*found)

    def _skip_mark(self, stream: BinaryIO) -> None:
        if self.start.startswith(BOM):
            stream.read(len(BOM))

    def _elements(self, path: tuple[str, ...]) -> Iterator[Record | Rejected]:
        prefix = " ".join((*path, "")) if path else "row "
        with self.open() as stream:
            self._skip_mark(stream)
            elements = array_at(stream, path)
            if elements is None:  # then its records are others, and none is passed over in silence
                yield from (Rejected(_place_of(found), f"not in a list {'.'.join(path)!r}") for found in self.records())
                return
            for number, element in enumerate(elements, start=1):
                yield _record(f"{prefix}{number}", element)


def open_source(path: Path, name: str = "") -> SourceFile:
    """What lies there. Raises `MaterialError` when that is nothing, empty, or not readable as text or a container."""
    name = name or path.name or path.resolve().name or str(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise MaterialError(f"There is no {path}.", "Check the path.") from None
    except OSError as error:
        raise unreadable(name, error) from None
    if stat.S_ISDIR(mode):
        names = tuple(sorted(itertools.islice(files_below(path), MOST_NAMES + 1)))
        if len(names) > MOST_NAMES:
            raise MaterialError(f"{name} holds more than {MOST_NAMES:,} files.", "Name the folder with the material.")
        return SourceFile(path, name, "folder", "", b"", names, lambda: path.open("rb"))
    if not stat.S_ISREG(mode):  # a pipe has no end that one could wait for, and can be read only once
        raise MaterialError(f"{name} is neither a file nor a folder.", "Save what it gives to a file, and name that.")
    return _source(path, name, lambda: path.open("rb"))


def files_below(folder: Path) -> Iterator[str]:
    """All but folders, by their paths from there; what links lead to is read once, and links to nothing are named."""
    seen: set[tuple[int, int]] = set()
    for here, below, files in os.walk(folder, followlinks=True):
        found = Path(here).stat()
        if (found.st_dev, found.st_ino) in seen:
            below.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        yield from (Path(here, name).relative_to(folder).as_posix() for name in files)


def _source(
    path: Path, name: str, opened: Callable[[], AbstractContextManager[BinaryIO]], *, is_inside: bool = False
) -> SourceFile:
    try:
        with opened() as stream:
            packed = stream.read(len(kinds.GZIP)) == kinds.GZIP
        unpacked = (lambda: _unpacked(opened)) if packed else opened
        with unpacked() as stream:
            start = stream.read(HEAD_BYTES)
            is_followed = _is_followed(start, stream)
        names = _archive_names(unpacked) if start.startswith(kinds.ZIP) else ()
    except DAMAGE as error:
        raise unreadable(name, error) from None
    is_whole = len(start) < HEAD_BYTES
    kind, delimiter = kinds.kind_of(start, name, is_whole=is_whole, is_followed=is_followed)
    return SourceFile(path, name, kind, delimiter, start, names, unpacked, is_inside or packed)


def _is_followed(start: bytes, stream: BinaryIO) -> bool:
    """Whether a first line with an object, of which `start` is the beginning only, has another behind it."""
    if len(start) < HEAD_BYTES or not start.removeprefix(BOM).lstrip().startswith(b"{") or b"\n" in start.strip():
        return False
    rest = stream.readline(LONGEST_RECORD_BYTES)
    return not rest.rstrip().endswith((b",", b"[", b"{", b":")) and stream.readline(HEAD_BYTES).startswith(b"{")


@contextmanager
def _unpacked(opened: Callable[[], AbstractContextManager[BinaryIO]]) -> Iterator[BinaryIO]:
    with opened() as packed, gzip.GzipFile(fileobj=packed) as stream:
        yield cast(BinaryIO, stream)


def unreadable(name: str, error: Exception) -> MaterialError:
    """The error for a file that the system or a decompressor cannot read."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return MaterialError(f"{name} cannot be read: {said}.", "Check the path, its rights, and that it is whole.")


def _archive_names(opened: Callable[[], AbstractContextManager[BinaryIO]]) -> tuple[str, ...]:
    with opened() as stream, zipfile.ZipFile(stream) as archive:
        return tuple(info.filename for info in archive.infolist() if not info.is_dir())


def _head(start: bytes) -> dict[str, Any]:
    try:
        head = from_json(start.removeprefix(BOM), allow_partial="trailing-strings")
    except ValueError:
        return members_of(start.removeprefix(BOM), PEEKED)
    return head if isinstance(head, dict) else {}


def _place_of(found: Record | Rejected) -> str:
    return found.row if isinstance(found, Rejected) else found[0]


def _record(row: str, value: Any) -> Record | Rejected:
    if isinstance(value, dict):
        return row, value
    if isinstance(value, Broken):
        return Rejected(row, value)
    return Rejected(row, f"{_CALLED.get(type(value), 'a value')} where an object was expected")


_CALLED = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a truth value", type(None): "null"}
