"""The bot's memory: one SQLite file, `<home>/understudy.sqlite`, and the bot its only writer.

    with Store.open(home / "understudy.sqlite") as store:
        store.channels.assign(...)

Use a store from one thread, the event loop's: each call is short. A call that returns has been written to the disk
(WAL, `synchronous=FULL`). Any call may raise `StoreError`.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from bot.store.answered import AnsweredRequests
from bot.store.channels import Answers, Channel, Channels
from bot.store.comparisons import (
    BASE,
    Choice,
    Comparison,
    Comparisons,
    JudgementCounts,
    NewComparison,
    Preference,
)
from bot.store.database import Connection, StoreError, open_for_writing, open_read_only, translated
from bot.store.erasure import Erasure
from bot.store.forgettings import Forgetting, Forgettings
from bot.store.guilds import Guilds
from bot.store.jobs import Job, JobResult, Jobs, JobState
from bot.store.messages import Message, Messages
from bot.store.mutes import EVERYONE, EVERYWHERE, Mute, Mutes
from bot.store.people import CARD, Decision, Gift, People
from bot.store.replies import Replies, ReplyState, StoredReply, Votes
from bot.store.rollouts import NewRollout, Rollout, Rollouts
from bot.store.taking_over import TakenOver, take_over
from bot.store.tallies import JudgedReply, Selection, Tallies, Tally
from bot.store.taught import Lesson, Taught
from bot.store.versions import InstalledVersion, Promotion, PromotionKind, Versions

__all__ = [
    "BASE",
    "CARD",
    "EVERYONE",
    "EVERYWHERE",
    "Answers",
    "Channel",
    "Choice",
    "Comparison",
    "Decision",
    "Forgetting",
    "Gift",
    "HomeInUseError",
    "InstalledVersion",
    "Job",
    "JobResult",
    "JobState",
    "JudgedReply",
    "JudgementCounts",
    "Lesson",
    "Message",
    "Mute",
    "NewComparison",
    "NewRollout",
    "Preference",
    "Promotion",
    "PromotionKind",
    "ReplyState",
    "Rollout",
    "Selection",
    "Store",
    "StoreError",
    "StoredReply",
    "TakenOver",
    "Tally",
    "Votes",
    "locked",
]


class HomeInUseError(StoreError):
    """Another process writes to this home."""


class Store:
    """All that is remembered, by concern: `channels`, `messages`, `replies`, `people`, `versions` and so on."""

    def __init__(self, connection: Connection, lock: FileLock | None = None) -> None:
        self._connection, self._lock = connection, lock
        self.channels = Channels(connection)
        self.messages = Messages(connection)
        self.replies = Replies(connection)
        self.mutes = Mutes(connection)
        self.versions = Versions(connection)
        self.rollouts = Rollouts(connection, self.versions)
        self.tallies = Tallies(connection)
        self.jobs = Jobs(connection, self.versions)
        self.people = People(connection)
        self.taught = Taught(connection)
        self.guilds = Guilds(connection)
        self.comparisons = Comparisons(connection)
        self.answered = AnsweredRequests(connection)
        self.erasure = Erasure(connection)
        self.forgettings = Forgettings(connection)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file for writing; it and its folder are made when missing.

        Raises `StoreError` when another process has it open for writing, and when the file is damaged, not ours, newer
        than this program or not writable; the file is left as it was.
        """
        lock = locked(path)
        try:
            return cls(open_for_writing(path), lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def read_only(cls, path: Path) -> Self:
        """Open the file for reading, also while a bot runs on it. Raises `StoreError`; so does every change."""
        return cls(open_read_only(path))

    def compact(self) -> None:
        """Leave nothing of what was deleted in the file or beside it. Takes seconds with a large file."""
        self._connection.compact()

    def take_over(self, later: Store) -> TakenOver:
        """Let hold in this older copy what members and Discord have decided since, as the later store knows it."""
        return take_over(self._connection, later._connection)

    def trim(self) -> None:
        """Leave nothing of what was deleted beside the file, and give room back where most of the file is empty."""
        self._connection.trim()

    def close(self) -> None:
        """Let go of the file. May be called twice."""
        self._connection.close()
        if self._lock:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def locked(path: Path) -> FileLock:
    """The lock of the home whose database `path` is; the kernel lets go of it when the process dies.

    Raises `StoreError` when another process holds it.
    """
    lock = FileLock(path.with_suffix(".lock"), timeout=0, fallback_to_soft=False)
    with translated(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise HomeInUseError(
                f"Another bot runs on this home ({path.parent}).", "Stop it first, or set another UNDERSTUDY_HOME."
            ) from None
    return lock
