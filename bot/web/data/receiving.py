"""A file that comes in: streamed to the disk beside its place, bounded by the room there, and put there whole.

Memory holds one block of it at a time, whatever its size. Whoever sends it may break off; then nothing stays.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from bot.web.data.sniffing import require_kind
from bot.web.problems import Problem

BLOCK_BYTES = 2**20
RESERVE_BYTES = 2 * 2**30
"""What stays free on the disk for trainings and the database."""
IDLE_S = 60.0
"""So long nothing may come before the file is given up."""
PART = ".part"
BROKEN_OFF = (ConnectionError, ClientPayloadError, HttpProcessingError, web.RequestPayloadError, TimeoutError)

Read = Callable[[], Awaitable[bytes]]
"""Gives the next bytes, none at the end: a body's, or a part's of a form."""


@dataclass(frozen=True)
class Received:
    """A file that has come in whole."""

    path: Path
    bytes: int
    sha256: str


class Incoming:
    """Which files are coming in: one at a time of each name."""

    def __init__(self) -> None:
        self._paths: set[Path] = set()

    @contextmanager
    def of(self, place: Path) -> Iterator[None]:
        """While a file comes in. Raises `Problem` when it does already."""
        if place in self._paths:
            raise Problem("conflict", f"{place.name} is being uploaded already.", "Wait for it, or cancel it there.")
        if not self._paths:  # then whatever was left half was left by a bot that was killed
            for left_over in place.parent.glob(f".*{PART}"):
                left_over.unlink(missing_ok=True)
        self._paths.add(place)
        try:
            yield
        finally:
            self._paths.discard(place)


def room_bytes(place: Path) -> int:
    """How large a file in this folder may be: what is free, but for the reserve."""
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    return max(0, shutil.disk_usage(there).free - RESERVE_BYTES)


@dataclass(frozen=True)
class Bounds:
    """How large a file may be: what the disk has room for, and what the operator lets in."""

    room: int
    most: int

    def require(self, place: Path, size: int) -> None:
        """Raise `Problem` for a file that is larger."""
        if size > self.most:
            said = f"{place.name} is larger than {self.most / 2**30:.1f} GiB, which uploads are at most here."
            raise Problem("too-large", said, "Bring in a part of it, or set MAX_UPLOAD_GIB higher.")
        if size > self.room or self.room <= 0:
            raise _no_room(place.name, self.room)


async def receive(read: Read, place: Path, *, expected_bytes: int | None, replace: bool, most_bytes: int) -> Received:
    """Take a file in and put it in its place.

    Raises `Problem` for a file that is there already and is not to be replaced, one that breaks off, one that is too
    large, and one that is not of the kind that its name says.
    """
    require_free(place, replace)
    bounds = Bounds(await asyncio.to_thread(room_bytes, place.parent), most_bytes)
    bounds.require(place, expected_bytes or 0)
    await asyncio.to_thread(place.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
    aside = place.with_name(f".{place.name}.{secrets.token_hex(4)}{PART}")
    try:
        received = await _written(read, aside, place, bounds)
        require_free(place, replace)
        await asyncio.to_thread(aside.replace, place)
        return received
    except BROKEN_OFF as error:
        raise Problem("not-whole", f"{place.name} broke off while it was coming in.", "Send it again.") from error
    except OSError as error:
        raise Problem("no-room", f"{place.name} cannot be written: {error.strerror}.", "Check the disk.") from error
    finally:
        await asyncio.to_thread(aside.unlink, missing_ok=True)


def require_free(place: Path, replace: bool) -> None:
    """Raise `Problem` for a file that is there and is not to be replaced."""
    if place.exists() and not replace:
        raise Problem("conflict", f"There is a file {place.name} already.", "Choose another name, or replace it.")


async def _written(read: Read, aside: Path, place: Path, bounds: Bounds) -> Received:
    digest, total = hashlib.sha256(), 0
    with await asyncio.to_thread(_created, aside) as out:
        async for block in _blocks(read):
            if not total:
                require_kind(place.name, block)
            total += len(block)
            bounds.require(place, total)
            await asyncio.to_thread(_put, out, block, digest.update)
        await asyncio.to_thread(_settle, out)
    return Received(place, total, digest.hexdigest())


async def _blocks(read: Read) -> AsyncIterator[bytearray]:
    """What comes, in pieces that are worth a write."""
    block = bytearray()
    while True:
        async with asyncio.timeout(IDLE_S):
            piece = await read()
        if not piece:
            break
        block += piece
        if len(block) >= BLOCK_BYTES:
            yield block
            block = bytearray()
    if block:
        yield block


def _created(aside: Path) -> BinaryIO:
    return os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _put(out: BinaryIO, block: bytearray, digest: Callable[[bytearray], None]) -> None:
    out.write(block)
    digest(block)


def _settle(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())


def _no_room(name: str, room: int) -> Problem:
    return Problem(
        "no-room",
        f"{name} is larger than what the disk has room for: {room / 2**30:.1f} GiB, "
        f"with {RESERVE_BYTES / 2**30:.0f} GiB kept free.",
        "Free the disk, or bring in a part of it.",
    )
