"""Streams an uploaded file to disk with bounded memory and checks its type by its first bytes."""

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from bot.data.errors import (
    DataConflictError,
    IncompleteUploadError,
    NoDiskSpaceError,
    UnsupportedFileError,
    UploadTooLargeError,
)
from personas.home.atomic_files import claim_temporary, replace_durably

MAGIC_BYTES = {
    ".zip": (b"PK\x03\x04", b"PK\x05\x06"),
    ".parquet": (b"PAR1",),
    ".gz": (b"\x1f\x8b",),
}
"""First bytes of binary files."""
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of text that may hold zero bytes."""
OTHER_FILE_TYPES = {
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "packed with gzip",
    b"PAR1": "Parquet",
    b"\x7fELF": "a program",
    b"SQLite format 3\0": "a database",
    b"%PDF-": "a PDF",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}
SNIFFED_BYTES = 4096
BLOCK_BYTES = 2**20
RESERVED_DISK_BYTES = 2 * 2**30
"""Kept free on the disk for trainings and the database."""
IDLE_TIMEOUT_S = 60.0
"""An upload is aborted after so long without data."""
PARTIAL_SUFFIX = ".part"
CONNECTION_ERRORS = (
    ConnectionError,
    ClientPayloadError,
    HttpProcessingError,
    web.RequestPayloadError,
    TimeoutError,
)
ReadChunk = Callable[[], Awaitable[bytes]]
"""Returns the next bytes of a body or of a form's part; empty at the end."""


def require_file_type(name: str, first: bytes | bytearray) -> None:
    """Raise `UnsupportedFileError` if the first bytes contradict the file's suffix."""
    kind = PurePath(name).suffix.lower()
    start = bytes(first[:SNIFFED_BYTES])
    if kind in MAGIC_BYTES:
        if not start.startswith(MAGIC_BYTES[kind]):
            raise _wrong_type(f"{name} does not begin as {kind} files do.")
        return
    for mark, what in OTHER_FILE_TYPES.items():
        if start.startswith(mark):
            raise _wrong_type(f"{name} is {what}, not text.")
    if b"\0" in start and not start.startswith(UTF16_MARKS):
        raise _wrong_type(f"{name} holds zero bytes, and is no text.")


def _wrong_type(message: str) -> UnsupportedFileError:
    return UnsupportedFileError(
        message, "Upload another file, or this one with the suffix of its type."
    )


@dataclass(frozen=True)
class ReceivedFile:
    path: Path
    bytes: int


class ActiveUploads:
    """Uploads in progress, one for each name."""

    def __init__(self) -> None:
        self._paths: set[Path] = set()

    @contextmanager
    def of(self, place: Path) -> Iterator[None]:
        """Mark a file as being uploaded. Raises `DataConflictError` if it is already."""
        if place in self._paths:
            raise DataConflictError(
                f"{place.name} is being uploaded already.",
                "Wait for it, or cancel it there.",
            )
        if not self._paths:  # then partial files stem from a bot that was killed
            for left_over in place.parent.glob(f".*{PARTIAL_SUFFIX}"):
                left_over.unlink(missing_ok=True)
        self._paths.add(place)
        try:
            yield
        finally:
            self._paths.discard(place)


def max_upload_bytes(place: Path) -> int:
    """Free disk space of this folder, less the reserve."""
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    return max(0, shutil.disk_usage(there).free - RESERVED_DISK_BYTES)


@dataclass(frozen=True)
class UploadLimits:
    """Limits on a file's size: free disk space, and the operator's setting."""

    room: int
    most: int

    def require(self, place: Path, size: int) -> None:
        """Raise `UploadTooLargeError` or `NoDiskSpaceError` for a larger file."""
        if size > self.most:
            raise UploadTooLargeError(
                (
                    f"{place.name} is larger than {self.most / 2**30:.1f} GiB, the limit of "
                    "uploads here."
                ),
                "Upload a part of it, or raise MAX_UPLOAD_GIB.",
            )
        if size > self.room or self.room <= 0:
            raise NoDiskSpaceError(
                (
                    f"{place.name} is larger than what the disk has room for: "
                    f"{self.room / 2**30:.1f} GiB, with {RESERVED_DISK_BYTES / 2**30:.0f} GiB kept "
                    "free."
                ),
                "Free the disk, or bring in a part of it.",
            )


async def receive_file(
    read: ReadChunk,
    place: Path,
    expected_bytes: int | None,
    *,
    replace: bool,
    most_bytes: int,
    before_rename: Callable[[], object] = lambda: None,
) -> ReceivedFile:
    """Write an upload to its path; `before_rename` is called in a thread when it is complete, before
    it replaces what is there.

    Raises a `DataError` for a file that exists and is not to be replaced, and for one that is
    incomplete, too large, or of another type than its suffix says.
    """
    require_no_file(place, replace)
    limits = UploadLimits(await asyncio.to_thread(max_upload_bytes, place.parent), most_bytes)
    limits.require(place, expected_bytes or 0)
    await asyncio.to_thread(place.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        received = await _write_stream(read, partial, place, limits)
        # Another one may have been put there while this one came in.
        require_no_file(place, replace)
        await asyncio.to_thread(before_rename)
        await asyncio.to_thread(replace_durably, partial, place)
        return received
    except CONNECTION_ERRORS as error:
        raise IncompleteUploadError(f"{place.name} is incomplete.", "Send it again.") from error
    except OSError as error:
        raise NoDiskSpaceError(
            f"{place.name} cannot be written: {error.strerror}.",
            "Check the disk.",
        ) from error
    finally:
        await asyncio.to_thread(partial.unlink, missing_ok=True)


def require_no_file(place: Path, replace: bool) -> None:
    """Raise `DataConflictError` for a file that exists and is not to be replaced."""
    if place.exists() and not replace:
        raise DataConflictError(
            f"There is a file {place.name} already.",
            "Choose another name, or replace it.",
        )


async def _write_stream(
    read: ReadChunk, partial: Path, place: Path, limits: UploadLimits
) -> ReceivedFile:
    total = 0
    with await asyncio.to_thread(_create_private, partial) as file:
        # The lock tells the hourly retention that the file is being written.
        claim_temporary(file.fileno())
        async for block in _read_blocks(read):
            if not total:
                require_file_type(place.name, block)
            total += len(block)
            limits.require(place, total)
            await asyncio.to_thread(file.write, block)
        await asyncio.to_thread(_sync, file)
    return ReceivedFile(place, total)


async def _read_blocks(read: ReadChunk) -> AsyncIterator[bytearray]:
    """Yield the incoming bytes in blocks large enough to write."""
    block = bytearray()
    while True:
        async with asyncio.timeout(IDLE_TIMEOUT_S):
            piece = await read()
        if not piece:
            break
        block += piece
        if len(block) >= BLOCK_BYTES:
            yield block
            block = bytearray()
    if block:
        yield block


def _create_private(path: Path) -> BinaryIO:
    # Other users of the machine must not read what members have written.
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
