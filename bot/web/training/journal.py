"""What a run has told: `events.jsonl` of its job folder, read from any line on.

A line's number is the byte at which it ends. The file only grows, so whoever has read up to one of these numbers goes
on there and misses nothing. A trainer that was killed may leave half a line, to which the next one's first is added:
that one is found in it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from personas.contracts import TRAINER_EVENT, TrainerEvent

EVENTS = "events.jsonl"
BLOCK_BYTES = 2**20
"""So much is read at once; a longer line is passed over."""

BEGINNING = b'{"event":'


@dataclass(frozen=True)
class Told:
    """An event, and the byte at which its line ends."""

    end: int
    event: TrainerEvent


@dataclass(frozen=True)
class Read:
    """What was read up to `end`. `unreadable` lines held no event. `more`: there is more to read at once.

    `anew`: what was there is another file now, and was read from its beginning.
    """

    told: tuple[Told, ...] = ()
    end: int = 0
    unreadable: int = 0
    more: bool = False
    anew: bool = False


def read_from(path: Path, start: int, most: int | None = None) -> Read:
    """The events after a line's end, 0 for all; at most `most` of them. A file that is not there has none.

    A line that has not ended yet is left for later. Raises `OSError` where the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            anew = not _is_line_end(file, start)
            start = 0 if anew else start
            file.seek(start)
            block = file.read(BLOCK_BYTES)
            is_last = not file.read(1)
    except FileNotFoundError:
        return Read(anew=start > 0)
    whole = block[: block.rfind(b"\n") + 1]
    if not whole and not is_last:
        end = _next_line(path, start)
        return Read(end=end, unreadable=int(end > start), more=end > start, anew=anew)
    return _parsed(whole, start, most, more=not is_last, anew=anew)


def read_all(path: Path) -> Read:
    """All events of a file. Raises `OSError`."""
    told: list[Told] = []
    read = Read(more=True)
    unreadable = 0
    while read.more:
        read = read_from(path, read.end)
        told += read.told
        unreadable += read.unreadable
    return Read(tuple(told), read.end, unreadable)


def is_line_end(path: Path, at: int) -> bool:
    """Whether a line of the file ends there, or nothing has been read (0)."""
    try:
        with path.open("rb") as file:
            return _is_line_end(file, at)
    except FileNotFoundError:
        return at == 0


def _parsed(whole: bytes, start: int, most: int | None, *, more: bool, anew: bool) -> Read:
    told: list[Told] = []
    end, unreadable = start, 0
    for line in whole.split(b"\n")[:-1]:
        if most is not None and len(told) >= most:
            return Read(tuple(told), end, unreadable, True, anew)
        end += len(line) + 1
        event = event_in(line)
        if event is None:
            unreadable += 1
        else:
            told.append(Told(end, event))
    return Read(tuple(told), end, unreadable, more, anew)


def event_in(line: bytes) -> TrainerEvent | None:
    """The event that a line tells, or the end of it after one that was cut off; None where it holds none."""
    try:
        return TRAINER_EVENT.validate_json(line)
    except ValidationError:
        pass
    begins = line.rfind(BEGINNING)
    if begins <= 0:
        return None
    try:
        return TRAINER_EVENT.validate_json(line[begins:])
    except ValidationError:
        return None


def _is_line_end(file: BinaryIO, at: int) -> bool:
    if at == 0:
        return True
    if at > os.fstat(file.fileno()).st_size:
        return False
    file.seek(at - 1)
    return file.read(1) == b"\n"


def _next_line(path: Path, start: int) -> int:
    """Where a line ends that is too long to be read; where it has not ended yet, where it begins."""
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(BLOCK_BYTES):
            if (at := block.find(b"\n")) >= 0:
                return file.tell() - len(block) + at + 1
    return start
