"""Opens sources by path and streams their records: JSON, CSV, Parquet, Arrow, YAML, text, zip,
folders.
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
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydantic_core import from_json

from personas.errors import MaterialError
from trainer.sources import file_types, table_reader
from trainer.sources.conversation import RejectedRecord
from trainer.sources.file_types import BOM, FileType
from trainer.sources.json_recovery import MAX_RECORD_BYTES, BrokenJson, decode_json, decode_lines
from trainer.sources.json_stream import (
    parse_members,
    stream_array,
    stream_arrays,
    stream_nested_arrays,
)
from trainer.sources.surrogates import repair_bytes, repaired

HEAD_BYTES = 1 << 20
READ_ERRORS = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError)
"""Errors of decompressors; `RuntimeError` means an encrypted archive or an unsupported method."""
PEEK_RECORDS = 64
MAX_ARCHIVE_NAMES = 1_000_000
"""Maximum files of an archive; a chat export may have one per channel and day."""
Record = tuple[str, dict[str, Any]]
"""A record's position ("line 3", "row 7", "messages 12") and content."""
JSON_TYPE_NAMES = {
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "a boolean",
}


@dataclass(frozen=True)
class Peek:
    """The beginning of a file, from which formats are recognised.

    `records` are its first rows, if any; `head` the members of a JSON object with long arrays
    truncated (the last values may be incomplete); `columns` those of a table; `text` its first
    characters; `names` the contents of a folder or archive; `problem` the reason why the first
    unreadable record cannot be read. `texts` are the first elements of a JSON array without
    objects.
    """

    kind: FileType
    name: str
    records: tuple[dict[str, Any], ...] = ()
    head: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    text: str = ""
    names: tuple[str, ...] = ()
    problem: str = ""
    texts: tuple[Any, ...] = ()

    @property
    def objects(self) -> tuple[dict[str, Any], ...]:
        """The first rows, or the one object that the file is."""
        if self.records or not self.head:
            return self.records
        return (self.head,)


@dataclass(frozen=True)
class SourceFile:
    """A file, an archive member, or a folder. `name` is the display name, `path` its location on
    disk.

    `is_inside`: the content is compressed, or a member of an archive. `has_header`: the first row
    of a CSV or TSV file names the columns; otherwise their positions do.
    """

    path: Path
    name: str
    kind: FileType
    delimiter: str
    start: bytes
    names: tuple[str, ...]
    opened: Callable[[], AbstractContextManager[BinaryIO]]
    is_inside: bool = False
    has_header: bool = True

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the decompressed content; of text, halves of characters are repaired
        (`surrogates`). Read errors become `MaterialError`.
        """
        try:
            with self.opened() as stream:
                is_text = self.kind in file_types.TEXT_TYPES
                yield cast(BinaryIO, repaired(stream)) if is_text else stream
        except READ_ERRORS as error:
            raise unreadable_error(self.name, error) from None

    def read(self, limit_bytes: int) -> bytes:
        """Read the whole content. Raises `MaterialError` if it is longer than the limit."""
        with self.open() as stream:
            content = stream.read(limit_bytes + 1)
        if len(content) > limit_bytes:
            raise MaterialError(f"{self.name} is larger than {limit_bytes >> 20} MiB.", "Split it.")
        return content.removeprefix(BOM)

    def lines(self) -> Iterator[str]:
        """Yield lines with their line ends; bytes that are not UTF-8 become lone surrogates."""
        with self.open() as stream:
            # Named, so that it does not end, and close the stream, before the last line is taken.
            decoded = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
            yield from decoded

    def member(self, name: str) -> SourceFile:
        """Open one of `names`: a file of the folder or archive."""
        if self.kind == "folder":
            return open_source(self.path / name, f"{self.name}/{name}")
        display_name = f"{self.name}/{name}"
        return _source(self.path, display_name, lambda: self._archived(name), is_inside=True)

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        """Share the open archive between this file and its members: each opening reads the whole
        directory.
        """
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
            raise MaterialError(f"{self.name} contains no {name}.", "Check the archive.") from None
        except UnicodeDecodeError as error:
            # An archive has each name twice, and the entry's own copy may be in another encoding.
            raise zipfile.BadZipFile(str(error)) from None
        with member:
            yield cast(BinaryIO, member)

    def records(self, *path: str) -> Iterator[Record | RejectedRecord]:
        """Yield the rows of a table, the lines, or the elements of an array; for a JSON object, the
        array at `path`.

        A JSON object without a path is one record. Text, archives, pictures and folders have none.
        """
        if self.kind == "JSON lines":
            yield from self._json_lines()
        elif self.kind == "JSON array" or path:
            yield from self._elements(path)
        elif self.kind == "JSON object":
            yield _record("line 1", decode_json(self.read(MAX_RECORD_BYTES)))
        elif self.kind in ("CSV", "TSV"):
            yield from table_reader.csv_rows(self.lines(), self.delimiter, is_named=self.has_header)
        elif self.kind in ("Parquet", "Arrow"):
            rows = table_reader.parquet_rows if self.kind == "Parquet" else table_reader.arrow_rows
            with self.open() as stream:
                yield from rows(stream, self.name)

    def grouped(
        self, path: tuple[str, ...], key: str
    ) -> Iterator[tuple[dict[str, Any], Iterator[Record | RejectedRecord]]]:
        """Yield the texts and numbers of each object in the array at `path` of a JSON object, and
        its array at `key`.

        Consume the rows of one object before the next.
        """
        with self._open_json() as stream:
            for head, elements in stream_nested_arrays(stream, path, key):
                yield head, _number_elements(f"{key} ", elements)

    def arrays(self) -> Iterator[tuple[str, Iterator[Record | RejectedRecord]]]:
        """Yield the array members of a JSON object by key. Consume the elements of one before the
        next.
        """
        with self._open_json() as stream:
            for key, elements in stream_arrays(stream):
                yield key, _number_elements(f"{key} ", elements)

    def values(self) -> Iterator[tuple[str, Any]]:
        """Yield the elements of a JSON array, or of the arrays in a JSON object, with the array's
        key.
        """
        with self._open_json() as stream:
            if self.kind == "JSON array":
                for value in stream_array(stream, ()) or ():
                    yield "", value
                return
            for key, values in stream_arrays(stream):
                for value in values:
                    yield key, value

    @property
    def is_cut(self) -> bool:
        """True if a peek shows only the beginning of the file."""
        return len(self.start) >= HEAD_BYTES

    def peek(self, count: int = PEEK_RECORDS) -> Peek:
        """Return the first records, members or lines."""
        if self.kind in ("folder", "zip"):
            return Peek(self.kind, self.name, names=self.names)
        text = ""
        if self.kind in file_types.TEXT_TYPES:
            text = self.start.removeprefix(BOM).decode("utf-8", "replace")
        columns: tuple[str, ...] = ()
        if self.delimiter:
            columns = table_reader.column_names(text, self.delimiter, is_named=self.has_header)
        head = _head(self.start) if self.kind == "JSON object" else {}
        rows: list[dict[str, Any]] = []
        problem = ""
        # An object is known by its members; as a record, all of it would be read.
        records = iter(()) if head else self.records()
        for record in itertools.islice(records, count):
            if not isinstance(record, RejectedRecord):
                rows.append(record[1])
            elif not problem:
                problem = f"{record.row}: {record.reason}"
        texts: tuple[Any, ...] = ()
        if self.kind == "JSON array" and not rows:
            texts = tuple(value for _, value in itertools.islice(self.values(), count))
        return Peek(
            self.kind,
            self.name,
            tuple(rows),
            head=head,
            columns=columns,
            text=text,
            problem=problem,
            texts=texts,
        )

    def _json_lines(self) -> Iterator[Record | RejectedRecord]:
        with self._open_json() as stream:
            for record in decode_lines(stream):
                yield record if type(record[1]) is dict else _record(*record)

    @contextmanager
    def _open_json(self) -> Iterator[BinaryIO]:
        with self.open() as stream:
            stream.read(len(BOM) if self.start.startswith(BOM) else 0)
            yield stream

    def _elements(self, path: tuple[str, ...]) -> Iterator[Record | RejectedRecord]:
        with self._open_json() as stream:
            elements = stream_array(stream, path)
            if elements is not None:
                prefix = " ".join(path) or "row"
                yield from _number_elements(f"{prefix} ", elements)
                return
            # There is no such array: no record is skipped silently.
            for record in self.records():
                row = record.row if isinstance(record, RejectedRecord) else record[0]
                yield RejectedRecord(row, f"not in a list {'.'.join(path)!r}")


def open_source(path: Path, name: str = "") -> SourceFile:
    """Open a path. Raises `MaterialError` if it is missing, empty, or neither text nor a known
    container.
    """
    name = name or path.name or path.resolve().name or str(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise MaterialError(f"There is no {path}.", "Check the path.") from None
    except OSError as error:
        raise unreadable_error(name, error) from None
    if stat.S_ISDIR(mode):
        names = tuple(sorted(itertools.islice(list_files(path), MAX_ARCHIVE_NAMES + 1)))
        if len(names) > MAX_ARCHIVE_NAMES:
            raise MaterialError(
                f"{name} has more than {MAX_ARCHIVE_NAMES:,} files.",
                "Name the folder with the material.",
            )
        return SourceFile(
            path,
            name,
            "folder",
            delimiter="",
            start=b"",
            names=names,
            opened=lambda: path.open("rb"),
        )
    if not stat.S_ISREG(mode):
        # A pipe may never end, and can be read only once.
        raise MaterialError(
            f"{name} is neither a file nor a folder.", "Save its output to a file, and name that."
        )
    return _source(path, name, lambda: path.open("rb"))


def list_files(folder: Path) -> Iterator[str]:
    """List files recursively by relative path; link targets are read once, broken links are
    included.
    """
    seen: set[tuple[int, int]] = set()
    for parent, subfolders, files in os.walk(folder, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from (Path(parent, name).relative_to(folder).as_posix() for name in files)


def _source(
    path: Path,
    name: str,
    opened: Callable[[], AbstractContextManager[BinaryIO]],
    *,
    is_inside: bool = False,
) -> SourceFile:
    try:
        with opened() as stream:
            packed = stream.read(len(file_types.GZIP)) == file_types.GZIP
        unpacked = (lambda: _decompress(opened)) if packed else opened
        with unpacked() as stream:
            start = stream.read(HEAD_BYTES)
            is_followed = _has_second_record(start, stream)
        names = _archive_names(unpacked) if start.startswith(file_types.ZIP) else ()
    # UnicodeDecodeError: names in an archive that are not in the encoding which they state.
    except (*READ_ERRORS, UnicodeDecodeError) as error:
        raise unreadable_error(name, error) from None
    is_whole = len(start) < HEAD_BYTES
    if not start.startswith(tuple(magic for magic, _ in file_types.MAGIC)):
        start = repair_bytes(start)
    kind, delimiter = file_types.detect_file_type(
        start, name, is_whole=is_whole, is_followed=is_followed
    )
    text = start.removeprefix(BOM).decode("utf-8", "replace") if delimiter else ""
    has_header = not delimiter or table_reader.has_header(text, delimiter)
    return SourceFile(
        path,
        name,
        kind,
        delimiter=delimiter,
        start=start,
        names=names,
        opened=unpacked,
        is_inside=is_inside or packed,
        has_header=has_header,
    )


def _has_second_record(start: bytes, stream: BinaryIO) -> bool:
    """Report whether another object follows a long first line, of which `start` is the
    beginning.
    """
    is_whole = len(start) < HEAD_BYTES
    is_object = start.removeprefix(BOM).lstrip().startswith(b"{")
    if is_whole or not is_object or b"\n" in start.strip():
        return False
    rest = stream.readline(MAX_RECORD_BYTES)
    if rest.rstrip().endswith((b",", b"[", b"{", b":")):
        # The line ends within the object, which goes on in the next one.
        return False
    return stream.readline(HEAD_BYTES).startswith(b"{")


@contextmanager
def _decompress(opened: Callable[[], AbstractContextManager[BinaryIO]]) -> Iterator[BinaryIO]:
    with opened() as packed, gzip.GzipFile(fileobj=packed) as stream:
        yield cast(BinaryIO, stream)


def unreadable_error(name: str, error: Exception) -> MaterialError:
    """Build the error for a file that the system or a decompressor cannot read."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return MaterialError(
        f"{name} cannot be read: {reason}.", "Check that the path is right, readable and complete."
    )


def _archive_names(opened: Callable[[], AbstractContextManager[BinaryIO]]) -> tuple[str, ...]:
    with opened() as stream, zipfile.ZipFile(stream) as archive:
        return tuple(info.filename for info in archive.infolist() if info.filename[-1:] != "/")


def _head(start: bytes) -> dict[str, Any]:
    try:
        head = from_json(start.removeprefix(BOM), allow_partial="trailing-strings")
    except ValueError:
        return parse_members(start.removeprefix(BOM), PEEK_RECORDS)
    return head if isinstance(head, dict) else {}


def _number_elements(prefix: str, elements: Iterable[Any]) -> Iterator[Record | RejectedRecord]:
    for number, element in enumerate(elements, start=1):
        yield _record(f"{prefix}{number}", element)


def _record(row: str, value: Any) -> Record | RejectedRecord:
    if isinstance(value, dict):
        return row, value
    if isinstance(value, list) and len(value) > 1 and {*map(type, value)} in ({str}, {dict}):
        return row, {"messages": value}
    if isinstance(value, BrokenJson):
        return RejectedRecord(row, value)
    kind = JSON_TYPE_NAMES.get(type(value), "null")
    return RejectedRecord(row, f"{kind} where an object was expected")
