"""Data subjects: people in a folder (`people.json`), consent (`consent.json`), and erasures while
data is made.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from personas.errors import ErasedMeanwhileError, ErasureRunningError, MaterialError
from personas.home.atomic_files import read_model, write_model
from personas.schemas.base import FrozenModel

PEOPLE_FILE = "people.json"
CONSENT_FILE = "consent.json"
ERASURE_FILE = "erasure.lock"
"""Locked while a result is stored and while an erasure begins or ends; contains a number that each
of them changes.
"""
ERASING = "erasing "
ERASURE_TIMEOUT_S = 60.0
LOCK_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.1
Storing = Callable[[], AbstractContextManager[None]]
"""Surrounds the last step by which a result gets its name (`ErasureFence.storing`)."""


class DataSubjects(FrozenModel):
    """Content of `people.json`: for each person, the number of samples in which they speak or are
    named.
    """

    format: Literal[1] = 1
    people: Mapping[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")], Annotated[int, Field(ge=0)]]


def write_people(folder: Path, counts: Mapping[str, int]) -> None:
    """Write the list into a folder; `counts` maps keyed people to samples. Raises `OSError`."""
    people = DataSubjects(people=dict(sorted(counts.items())))
    (folder / PEOPLE_FILE).write_text(people.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_people(folder: Path) -> Mapping[str, int]:
    """Read the people in a folder; empty without a list. Raises `MaterialError` if it cannot be
    read.
    """
    listed = read_model(folder / PEOPLE_FILE, DataSubjects, "Create the folder again.")
    return listed.people if listed else {}


def contains_any_person(folder: Path, people: Collection[str]) -> bool:
    """Return True if one of these keyed people is in a folder, or if its list cannot be read."""
    try:
        return not read_people(folder).keys().isdisjoint(people)
    except MaterialError:
        return True


class Consent(FrozenModel):
    """Consent to train on Discord messages: Discord's permission as the operator states it, and
    members' ids.
    """

    format: Literal[1] = 1
    permission: str = ""
    opted_in: frozenset[str] = frozenset()


NO_CONSENT = Consent()


def write_consent(folder: Path, consent: Consent) -> None:
    """Write the file, readable by its owner only. Raises `OSError`."""
    write_model(folder / CONSENT_FILE, consent)


def read_consent(folder: Path) -> Consent:
    """Read the consent; none without a file. Raises `MaterialError` if it cannot be read."""
    advice = "The bot writes it again when it starts; until then nobody has consented."
    return read_model(folder / CONSENT_FILE, Consent, advice) or NO_CONSENT


@dataclass(frozen=True)
class ErasureFence:
    """Keeps data that was read before or during an erasure from being stored after it, where it
    would be missed.
    """

    home: Path
    seen: str

    @classmethod
    def begin(cls, home: Path, timeout_s: float | None = None) -> Self:
        """To be called before people's texts are read; waits for the end of an erasure,
        `ERASURE_TIMEOUT_S` at most.

        Raises `ErasureRunningError`, and `MaterialError` if another process holds the lock.
        """
        if timeout_s is None:
            timeout_s = ERASURE_TIMEOUT_S
        until = time.monotonic() + timeout_s
        while (seen := _read_erasure(home)).startswith(ERASING):
            if time.monotonic() > until:
                advice = (
                    "Try again in some minutes; an interrupted erasure goes on when the bot starts."
                )
                raise ErasureRunningError("A member is being erased.", advice)
            time.sleep(POLL_INTERVAL_S)
        return cls(home, seen)

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Run the block, which stores the result. Raises `ErasedMeanwhileError` if an erasure has
        begun since.
        """
        # Shared: any number of results may be stored at once, but none while an erasure begins.
        with _lock_erasure(self.home, fcntl.LOCK_SH) as handle:
            if handle is not None and os.pread(handle, 100, 0).decode() != self.seen:
                raise ErasedMeanwhileError(
                    "A member was erased meanwhile, who may be in it: nothing was stored.",
                    "Run it again.",
                )
            yield


def mark_erasure(home: Path, *, running: bool) -> None:
    """Note that an erasure begins or has ended; waits while a result is stored. Raises `OSError`,
    `MaterialError`.
    """
    with _lock_erasure(home, fcntl.LOCK_EX) as handle:
        if handle is None:
            raise MaterialError(
                f"{home / ERASURE_FILE} cannot be written.", "Check the rights of the folder."
            )
        if os.pread(handle, 100, 0).decode().startswith(ERASING) is running:
            return  # an interrupted erasure goes on
        # A new number each time: results that were begun before it are told by theirs.
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{ERASING * running}{secrets.token_hex(8)}".encode(), 0)
        os.fsync(handle)


def _read_erasure(home: Path) -> str:
    with _lock_erasure(home, fcntl.LOCK_SH) as handle:
        if handle is None:
            return ""
        return os.pread(handle, 100, 0).decode()


@contextmanager
def _lock_erasure(home: Path, kind: int) -> Iterator[int | None]:
    """Lock the file, and create it; None in a home where it can be neither created nor read: it has
    no bot.
    """
    try:
        handle = os.open(home / ERASURE_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        try:
            handle = os.open(home / ERASURE_FILE, os.O_RDONLY)
        except OSError:
            yield None
            return
    try:
        _wait_for_lock(handle, kind)
        yield handle
    finally:
        os.close(handle)


def _wait_for_lock(handle: int, kind: int) -> None:
    until = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise MaterialError(
                    "Another process holds the lock of erasures.", "End the one that hangs."
                ) from None
            time.sleep(POLL_INTERVAL_S)
        else:
            return
