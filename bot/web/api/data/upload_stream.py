"""Streams an uploaded file to disk with bounded memory and checks its type by its first bytes."""

from __future__ import annotations

import asyncio
import hashlib
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

from bot.web.problems import Problem

MAGIC_BYTES = {".zip": (b"PK\x03\x04", b"PK\x05\x06"), ".parquet": (b"PAR1",), ".gz": (b"\x1f\x8b",)}
"""How files of the kinds that are no text begin."""
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""How text begins that has two bytes a character, of which one may be 0."""
OTHER_FILE_TYPES = {
    b"PK\x03\x04": "a ZIP archive", b"\x1f\x8b": "packed with gzip", b"PAR1": "Parquet", b"\x7fELF": "a program",
    b"SQLite format 3\0": "a database", b"%PDF-": "a PDF", b"\x89PNG": "a picture", b"\xff\xd8\xff": "a picture",
}  # fmt: skip
SNIFFED_BYTES = 4096
BLOCK_BYTES = 2**20
RESERVED_DISK_BYTES = 2 * 2**30
"""What stays free on the disk for trainings and the database."""
IDLE_TIMEOUT_S = 60.0
"""So long nothing may come before the file is given up."""
PARTIAL_SUFFIX = ".part"
CONNECTION_ERRORS = (ConnectionError, ClientPayloadError, HttpProcessingError, web.RequestPayloadError, TimeoutError)
ReadChunk = Callable[[], Awaitable[bytes]]
"""Gives the next bytes, none at the end: a body's, or a part's of a form."""


def require_file_type(name: str, first: bytes | bytearray) -> None:
    """Raise `Problem` where a file that begins so cannot be of the kind that its name says."""
    kind, start = PurePath(name).suffix.lower(), bytes(first[:SNIFFED_BYTES])
    if kind in MAGIC_BYTES:
        if not start.startswith(MAGIC_BYTES[kind]):
            raise _wrong_type(name, f"does not begin as {kind} files do")
        return
    for mark, what in OTHER_FILE_TYPES.items():
        if start.startswith(mark):
            raise _wrong_type(name, f"is {what}, and no text")
    if b"\0" in start and not start.startswith(UTF16_MARKS):
        raise _wrong_type(name, "holds zero bytes, and is no text")


def _wrong_type(name: str, what: str) -> Problem:
    return Problem("wrong-kind", f"{name} {what}.", "Send it under the name of what it is, or another file.")


@dataclass(frozen=True)
class ReceivedFile:
    """A file that has come in whole."""

    path: Path
    bytes: int
    sha256: str


class ActiveUploads:
    """Uploads in progress, one for each name."""

    def __init__(self) -> None:
        self._paths: set[Path] = set()

    @contextmanager
    def of(self, place: Path) -> Iterator[None]:
        """While a file comes in. Raises `Problem` when it does already."""
        if place in self._paths:
            raise Problem("conflict", f"{place.name} is being uploaded already.", "Wait for it, or cancel it there.")
        if not self._paths:  # then whatever was left half was left by a bot that was killed
            for left_over in place.parent.glob(f".*{PARTIAL_SUFFIX}"):
                left_over.unlink(missing_ok=True)
        self._paths.add(place)
        try:
            yield
        finally:
            self._paths.discard(place)


def max_upload_bytes(place: Path) -> int:
    """The largest file this folder has space for, less the reserve."""
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    return max(0, shutil.disk_usage(there).free - RESERVED_DISK_BYTES)


@dataclass(frozen=True)
class UploadLimits:
    """Limits on a file's size: free disk space, and the operator's setting."""

    room: int
    most: int

    def require(self, place: Path, size: int) -> None:
        """Raise `Problem` for a file that is larger."""
        if size > self.most:
            said = f"{place.name} is larger than {self.most / 2**30:.1f} GiB, which uploads are at most here."
            raise Problem("too-large", said, "Upload a part of it, or raise MAX_UPLOAD_GIB.")
        if size > self.room or self.room <= 0:
            raise _disk_full(place.name, self.room)


async def receive_file(
    read: ReadChunk, place: Path, *, expected_bytes: int | None, replace: bool, most_bytes: int
) -> ReceivedFile:
    """Take a file in and put it in its place.

    Raises `Problem` for a file that is there already and is not to be replaced, one that breaks off, one that is too
    large, and one that is not of the kind that its name says.
    """
    require_no_file(place, replace)
    bounds = UploadLimits(await asyncio.to_thread(max_upload_bytes, place.parent), most_bytes)
    bounds.require(place, expected_bytes or 0)
    await asyncio.to_thread(place.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
    aside = place.with_name(f".{place.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        received = await _write_stream(read, aside, place, bounds)
        require_no_file(place, replace)
        await asyncio.to_thread(aside.replace, place)
        return received
    except CONNECTION_ERRORS as error:
        raise Problem("not-whole", f"{place.name} broke off while it was coming in.", "Send it again.") from error
    except OSError as error:
        raise Problem("no-room", f"{place.name} cannot be written: {error.strerror}.", "Check the disk.") from error
    finally:
        await asyncio.to_thread(aside.unlink, missing_ok=True)


def require_no_file(place: Path, replace: bool) -> None:
    """Raise `Problem` for a file that is there and is not to be replaced."""
    if place.exists() and not replace:
        raise Problem("conflict", f"There is a file {place.name} already.", "Choose another name, or replace it.")


async def _write_stream(read: ReadChunk, aside: Path, place: Path, bounds: UploadLimits) -> ReceivedFile:
    digest, total = hashlib.sha256(), 0
    with await asyncio.to_thread(_create_private, aside) as out:
        async for block in _read_blocks(read):
            if not total:
                require_file_type(place.name, block)
            total += len(block)
            bounds.require(place, total)
            await asyncio.to_thread(_write_block, out, block, digest.update)
        await asyncio.to_thread(_sync, out)
    return ReceivedFile(place, total, digest.hexdigest())


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


def _create_private(aside: Path) -> BinaryIO:
    return os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _write_block(out: BinaryIO, block: bytearray, digest: Callable[[bytearray], None]) -> None:
    out.write(block)
    digest(block)


def _sync(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())


def _disk_full(name: str, room: int) -> Problem:
    return Problem(
        "no-room",
        f"{name} is larger than what the disk has room for: {room / 2**30:.1f} GiB, "
        f"with {RESERVED_DISK_BYTES / 2**30:.0f} GiB kept free.",
        "Free the disk, or bring in a part of it.",
    )
