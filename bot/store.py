"""The bot's database: one SQLite file, `<home>/understudy.sqlite`, written by the bot alone."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from bot.chat.store.attempts import ReplyAttempts
from bot.chat.store.interaction_tokens import InteractionToken, InteractionTokens
from bot.chat.store.messages import EarlierTalk, Exchange, MessageHistory, StoredMessage
from bot.chat.store.quoted_messages import QuotedMessage, QuotedMessages
from bot.chat.store.replies import ReplyState, StoredReplies, StoredReply, VoteCounts
from bot.chat.store.reply_stats import (
    MemberRating,
    ReplySelection,
    ReplyStats,
    ReplyTally,
)
from bot.faces.store import BotFaces
from bot.guild_settings.store import StoredSettings
from bot.guilds.store.channels import MAX_CHANNEL_PERSONAS, AnswerMode, Channel, Channels
from bot.guilds.store.guilds import ALL_GUILDS, Guilds
from bot.guilds.store.mutes import ALL_CHANNELS, ALL_PERSONAS, Mute, Mutes
from bot.guilds.store.places import Places
from bot.lessons.store import Lesson, Lessons
from bot.memory.store import Memories, Memory
from bot.moderation.store import ActionRoles, Blocks
from bot.operations.backup.store import BackupMergeCounts, merge_later_decisions
from bot.platform.db.database import (
    HOME_DATABASE,
    DatabaseConnection,
    StoreError,
    StoreLockedError,
    open_for_writing,
    open_read_only,
    translate_errors,
)
from bot.platform.db.erased_ids import ErasedIds
from bot.platform.db.idempotency_keys import IdempotencyKeys
from bot.privacy.store.erasure import Erasure
from bot.privacy.store.erasure_requests import ErasureRequest, ErasureRequests
from bot.privacy.store.people import (
    CARD_CONTRIBUTION,
    ConsentDecision,
    Contribution,
    MemberRecords,
)
from bot.reports.store import Reports
from bot.safety.store import SafetyCounts, Talks
from bot.schedules.store import (
    GreetedMembers,
    MemberGreetings,
    ScheduledLines,
    TrainingSchedules,
)
from bot.training.store import CardState, JobResult, JobState, TrainingJob, TrainingJobs
from bot.versions.blind_test.store import (
    BASE_MODEL_NAME,
    BlindComparison,
    BlindComparisons,
    JudgementCounts,
    NewBlindComparison,
    VoteChoice,
    VotePreference,
)
from bot.versions.store import InstalledVersion, Promotion, PromotionKind, Versions
from personas.home.atomic_files import write_private_file
from personas.home.persona_ids import guild_suffix

__all__ = [
    "ALL_CHANNELS",
    "ALL_GUILDS",
    "ALL_PERSONAS",
    "BASE_MODEL_NAME",
    "CARD_CONTRIBUTION",
    "HOME_DATABASE",
    "MAX_CHANNEL_PERSONAS",
    "AnswerMode",
    "BackupMergeCounts",
    "BlindComparison",
    "CardState",
    "Channel",
    "ConsentDecision",
    "Contribution",
    "EarlierTalk",
    "ErasureRequest",
    "Exchange",
    "HomeInUseError",
    "InstalledVersion",
    "InteractionToken",
    "JobResult",
    "JobState",
    "JudgementCounts",
    "Lesson",
    "MemberRating",
    "MemberRecords",
    "Memory",
    "Mute",
    "NewBlindComparison",
    "Promotion",
    "PromotionKind",
    "QuotedMessage",
    "ReplySelection",
    "ReplyState",
    "ReplyTally",
    "Store",
    "StoreError",
    "StoreLockedError",
    "StoredMessage",
    "StoredReply",
    "TrainingJob",
    "VoteChoice",
    "VoteCounts",
    "VotePreference",
    "acquire_home_lock",
    "guild_suffix",
    "is_in_use",
]  # fmt: skip


class HomeInUseError(StoreError):
    """Another process writes to this home."""


class Store:
    """The bot's database, by concern: `channels`, `messages`, `replies`, `people`, `versions` and
    so on.
    """

    def __init__(self, connection: DatabaseConnection, lock: FileLock | None = None) -> None:
        self._connection = connection
        self._lock = lock
        erased_ids = ErasedIds(connection.path.parent)
        self.channels = Channels(connection)
        self.places = Places(connection)
        self.messages = MessageHistory(connection)
        self.quoted = QuotedMessages(connection)
        self.reply_attempts = ReplyAttempts(connection, erased_ids)
        self.replies = StoredReplies(connection, self.reply_attempts)
        self.interaction_tokens = InteractionTokens(connection)
        self.mutes = Mutes(connection)
        self.blocks = Blocks(connection, erased_ids)
        self.reports = Reports(connection)
        self.faces = BotFaces(connection)
        self.action_roles = ActionRoles(connection)
        self.versions = Versions(connection)
        self.reply_stats = ReplyStats(connection)
        self.jobs = TrainingJobs(connection, self.versions)
        self.people = MemberRecords(connection)
        self.memories = Memories(connection)
        self.talks = Talks(connection)
        self.safety_answers = SafetyCounts(connection, "helplines")
        self.emergency_answers = SafetyCounts(connection, "emergency")
        self.withheld_replies = SafetyCounts(connection, "withheld")
        self.lessons = Lessons(connection)
        self.guilds = Guilds(connection)
        self.settings = StoredSettings(connection)
        self.training_schedules = TrainingSchedules(connection)
        self.scheduled_lines = ScheduledLines(connection)
        self.member_greetings = MemberGreetings(connection)
        self.greeted_members = GreetedMembers(connection)
        self.comparisons = BlindComparisons(connection)
        self.idempotency_keys = IdempotencyKeys(connection)
        self.erasure = Erasure(connection, erased_ids)
        self.erasure_requests = ErasureRequests(connection)

    def atomic(self) -> AbstractContextManager[None]:
        """Write everything in the block in one transaction, or nothing of it."""
        return self._connection.atomic()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file for writing, creating it and its folder where missing.

        Raises `StoreError` when another process has it open for writing, or when the file is
        damaged, foreign, from an earlier or newer program, or not writable; the file is left unchanged then.
        """
        lock = acquire_home_lock(path)
        try:
            return cls(open_for_writing(path), lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def read_only(cls, path: Path) -> Self:
        """Open the file for reading, also while a bot writes to it. Raises `StoreError`, as every
        write does.
        """
        return cls(open_read_only(path))

    def open_reader(self) -> "Store":
        """Open the file once more for reading, in another thread; it sees what is committed. Raises
        `StoreError`.
        """
        return Store.read_only(self._connection.path)

    def check_writable(self, at: float) -> None:
        """Write a row. Raises `StoreError` if nothing can be stored."""
        self._connection.check_writable(at)

    @contextmanager
    def noting_address(self, url: str) -> Iterator[None]:
        """Inside, `HomeInUseError` tells another process that this one is at an address."""
        file = _address_file(self._connection.path)
        with suppress(OSError):  # it is a help for the other process, and no need of this one
            write_private_file(file, url.encode())
        try:
            yield
        finally:
            with suppress(OSError):
                file.unlink(missing_ok=True)

    def merge_later_decisions(self, later: Self) -> BackupMergeCounts:
        """Merge what members and Discord decided since into this older copy, read from the later
        store.
        """
        return merge_later_decisions(self._connection, later._connection)

    def trim(self) -> bool:
        """Shrink a file that is mostly empty by a step, or else remove deleted rows from the WAL.
        False at the end.
        """
        return self._connection.trim()

    def truncate_wal(self) -> None:
        """Remove deleted rows from the WAL."""
        self._connection.truncate_wal()

    def close(self) -> None:
        """Close the file and release the lock. May be called twice."""
        self._connection.close()
        if self._lock:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def acquire_home_lock(path: Path) -> FileLock:
    """Acquire the lock of the home of the database at `path`. Raises `HomeInUseError` when another
    process holds it.
    """
    lock = FileLock(path.with_suffix(".lock"), timeout=0, fallback_to_soft=False)
    with translate_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise HomeInUseError(
                f"Another bot runs on this home ({path.parent}){_noted_address(path)}.",
                "Stop it first, or set another UNDERSTUDY_HOME.",
            ) from None
        _address_file(path).unlink(missing_ok=True)  # of a process that was killed
    return lock


def _noted_address(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return f", at {_address_file(path).read_text(encoding='utf-8')}"
    return ""


def _address_file(path: Path) -> Path:
    return path.with_suffix(".address")


def is_in_use(path: Path) -> bool:
    """Report whether a process has the database at `path` open for writing. Raises `StoreError`."""
    try:
        acquire_home_lock(path).release()
    except HomeInUseError:
        return True
    return False
