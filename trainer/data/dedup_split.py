"""Filters, deduplicates and splits conversations into training and held-out sides by a stable hash."""

from __future__ import annotations

import hmac
import tempfile
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from personas.errors import MaterialError
from personas.home.holdout_index import HoldoutIndex
from trainer.data.holdout_fingerprints import HoldoutFingerprints, Mask, is_in_sorted, reply_keys
from trainer.data.ledger import describe_dropped
from trainer.data.minhash import IndexArray, MinHashIndex, merge_clusters, split_words, words_key
from trainer.data.quality_filters import QualityFilters
from trainer.sources.conversation import Conversation

HELD_OUT = "held out"
OPENING_WORDS, PROMPT_WORDS, REPLY_OPENING_WORDS = 12, 5, 8
"""An opening has twelve words at least, five of them said to the persona, and of each reply the first eight."""
HoldoutMask = NDArray[np.bool_]
TRAIN = "train"
NO_REPLY, UNADDRESSED_REPLY = "nobody answers", "reply to nobody"
EXACT_DUPLICATE, NEAR_DUPLICATE = "duplicate", "near duplicate"
SIDES = (HELD_OUT, TRAIN)
MAX_CLUSTERS_PER_REPLY = 16
"""A reply that held-out talks share with more clusters than this brings none of them over: it is a set phrase."""


def hash_fraction(purpose: str, text: str) -> float:
    """Hash purpose and text to a number in [0, 1), the same on every machine."""
    digest = hmac.digest(f"understudy {purpose}".encode(), text.encode("utf-8", "surrogatepass"), "sha256")
    return int.from_bytes(digest[:7], "big") / 2**56


@dataclass(frozen=True)
class SplitKey:
    """The beginning of a conversation. `is_settled`: it is long enough to be distinctive."""

    words: tuple[str, ...]
    is_settled: bool

    @classmethod
    def of(cls, conversation: Conversation) -> Self:
        """Take the first message to the persona and the start of the reply, and more if that is short.

        Skips the persona's greeting, with which all its conversations may begin. Only the first eight words of replies
        count: the last reply may grow with the log.
        """
        words: list[str] = []
        asked, is_answered = 0, False
        for message in conversation.messages:
            if message.speaker.is_persona and not asked:
                continue
            said = split_words(message.text)
            is_answered |= message.speaker.is_persona
            asked += 0 if message.speaker.is_persona else len(said)
            words += said[:REPLY_OPENING_WORDS] if message.speaker.is_persona else said
            if is_answered and asked >= PROMPT_WORDS and len(words) >= OPENING_WORDS:
                return cls(tuple(words), is_settled=True)
        return cls(tuple(words), is_settled=False)

    @property
    def draw(self) -> float:
        """A number in [0, 1): conversations below the held-out share are held out."""
        return hash_fraction(HELD_OUT, " ".join(self.words))

    @property
    def key(self) -> int:
        """The key that conversations with the same beginning share; 0 for beginnings too short to be distinctive."""
        return words_key([*self.words]) if self.is_settled else 0


def select_holdout(
    draws: Sequence[float], clusters: NDArray[np.int64], share: float, before: HoldoutMask
) -> HoldoutMask:
    """Select the held-out conversations from each one's draw (`SplitKey.draw`), cluster, and earlier holdout
    (`before`).

    If a side would be empty, the cluster nearest to the border moves, unless it was held out before. Raises
    `MaterialError` for a single cluster, or if no training data would remain.
    """
    lowest = np.full(len(clusters), np.inf)
    np.minimum.at(lowest, clusters, np.asarray(draws, dtype=float))
    was = np.zeros(len(clusters), dtype=bool)
    np.logical_or.at(was, clusters, before)
    roots = np.flatnonzero(np.isfinite(lowest))
    if len(roots) < 2:
        found = "only one conversation" if len(roots) else "no conversation in which somebody is answered"
        raise MaterialError(f"There is {found}; learning and measuring need one each.", "Give more of them.")
    if was[roots].all():
        raise MaterialError(
            "All of it has been held out before, to measure with, and what was held out is never trained on.",
            "Give talk besides, or work in another UNDERSTUDY_HOME.",
        )
    out = was | (lowest < share)
    nearest = roots[np.argsort(lowest[roots], kind="stable")]
    if not out[roots].any():
        out[nearest[0]] = True
    elif out[roots].all():
        out[nearest[~was[nearest]][-1]] = False
    side: HoldoutMask = out[clusters]
    return side


class ConversationSplitter:
    """Collects conversations, then decides the outcome of each.

    Memory: some 60 bytes per conversation, and some 500 during the final comparison.
    """

    def __init__(self, filters: QualityFilters, folder: Path | None = None, before: HoldoutIndex | None = None) -> None:
        """`folder` holds working files, a temporary folder by default; `before` was held out before."""
        self._stack = ExitStack()
        self._filters = filters
        self._before = HoldoutIndex.empty(b"") if before is None else before
        self._index = self._stack.enter_context(MinHashIndex(folder))
        self._replies = _ReplyKeys(self._stack, folder)
        self._faults: dict[int, str] = {}
        self._numbers, self._draws, self._sizes = array("q"), array("d"), array("q")
        self._openings = array("Q")
        self._count = 0
        self.held_out = self._before
        self.withheld_replies: dict[int, frozenset[int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, conversation: Conversation) -> None:
        """Add the next conversation, before pseudonymisation."""
        if fault := self._fault(conversation):
            self._faults[self._count] = fault
        else:
            opening = SplitKey.of(conversation)
            self._index.add(conversation.raw_text)
            self._numbers.append(self._count)
            self._draws.append(opening.draw)
            self._sizes.append(len(conversation.raw_text))
            self._openings.append(opening.key)
            self._replies.add(conversation)
        self._count += 1

    def outcomes(self, heldout_share: float, dropped: Mapping[str, int] | None = None) -> list[str]:
        """Return, for each conversation, one of `SIDES` or a reason for dropping it. Raises `MaterialError` for an
        empty side.

        The error lists what was dropped, including earlier drops in `dropped`. Of a cluster, the longest conversation
        remains: if rows repeat a conversation with one more turn each, it contains all replies. Afterwards `held_out`
        describes past and new held-out texts, and `kept_back` maps training conversations to their replies (counted
        from 0) that were held out before and must not be trained on.
        """
        exact, near = self._index.clusters()
        sizes = np.asarray(self._sizes)
        # What begins alike goes on one side: paths of one tree, rows that repeat a talk and go on.
        together = merge_clusters(near, np.asarray(self._openings))
        try:
            side = self._sides(together, heldout_share)
        except MaterialError as error:
            words = describe_dropped(Counter(dropped or {}) + Counter(self._faults.values()))
            raise MaterialError(f"{error.message}{words}", error.advice) from None
        longest_first = np.lexsort((np.arange(len(sizes)), -sizes))
        clusters, first = np.unique(near[longest_first], return_index=True)
        kept = dict(zip(clusters.tolist(), longest_first[first].tolist(), strict=True))
        fates = [self._faults.get(number, "") for number in range(self._count)]
        for place, number in enumerate(self._numbers):
            stays = kept[int(near[place])]
            if stays == place:
                fates[number] = HELD_OUT if side[place] else TRAIN
            else:
                fates[number] = EXACT_DUPLICATE if exact[stays] == exact[place] else NEAR_DUPLICATE
        return fates

    def _sides(self, clusters: IndexArray, share: float) -> Mask:
        """Select the held-out texts, including those similar to held-out ones by the measure of later builds.

        Thus the same build with its own holdout list selects the same texts.
        """
        marks = HoldoutFingerprints(self._index, self._before.key)
        owners, replies = self._replies.read()
        replies = marks.reply_hashes(replies)
        known = is_in_sorted(replies, self._before.replies)
        before = marks.match_any(self._before) | _mostly_held_out(known, replies, owners, clusters)
        while True:
            side = select_holdout(self._draws, clusters, share, before)
            trained = ~side[owners]
            # What is said on both sides now was not held out.
            own = np.unique(replies[~trained])
            own = np.setdiff1d(own[own != 0], replies[is_in_sorted(replies, own) & trained[:, None]])
            self.held_out = self._before.merge(marks.of(np.flatnonzero(side), own))
            more = marks.match_any(self.held_out) & ~side
            if not more.any():
                break
            before |= more
        self.withheld_replies = self._replies.places(known.any(axis=1) & trained, owners, self._numbers)
        return side

    def _fault(self, conversation: Conversation) -> str:
        replies = [m for place, m in enumerate(conversation.messages) if m.speaker.is_persona and place]
        if not replies:
            return (
                UNADDRESSED_REPLY if conversation.messages and conversation.messages[0].speaker.is_persona else NO_REPLY
            )
        if fault := self._filters.language_fault(conversation):
            return fault
        faults = [self._filters.reply_fault(reply.text) for reply in replies]
        return faults[0] if all(faults) else ""


class _ReplyKeys:
    """Keys of all replies, (replies, 2), on disk, and the number of replies per conversation."""

    def __init__(self, stack: ExitStack, folder: Path | None) -> None:
        self._file = stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  closed by the stack
        self._counts = array("q")

    def add(self, conversation: Conversation) -> None:
        keys = array("Q", [key for pair in reply_keys(conversation) for key in pair])
        self._file.write(keys.tobytes())
        self._counts.append(len(keys) // 2)

    def read(self) -> tuple[IndexArray, NDArray[np.uint64]]:
        """Return each reply's conversation index and its two keys."""
        self._file.seek(0)
        keys = np.fromfile(self._file, np.uint64).reshape(-1, 2)
        return np.repeat(np.arange(len(self._counts)), self._counts), keys

    def places(self, chosen: Mask, owners: IndexArray, numbers: Sequence[int]) -> dict[int, frozenset[int]]:
        """Return the chosen replies' indices by conversation number."""
        first = np.cumsum(self._counts) - np.asarray(self._counts) if len(self._counts) else np.empty(0, np.int64)
        found: dict[int, set[int]] = {}
        for reply in np.flatnonzero(chosen).tolist():
            owner = int(owners[reply])
            found.setdefault(numbers[owner], set()).add(reply - int(first[owner]))
        return {number: frozenset(replies) for number, replies in found.items()}


def _mostly_held_out(known: Mask, replies: NDArray[np.uint64], owners: IndexArray, clusters: IndexArray) -> Mask:
    """Find conversations at least half of whose replies were held out.

    Short replies do not count, nor do replies that occur in very many conversations.
    """
    places = np.argwhere(known & (replies != 0))
    by_cluster = {(int(replies[row, kind]), int(clusters[owners[row]])) for row, kind in places.tolist()}
    counts = Counter(key for key, _ in by_cluster)
    rare = np.array([key for key, count in counts.items() if count <= MAX_CLUSTERS_PER_REPLY], dtype=np.uint64)
    size = len(clusters)
    shared = np.bincount(owners[is_in_sorted(replies, np.sort(rare)).any(axis=1)], minlength=size)
    telling = np.bincount(owners[(replies != 0).any(axis=1)], minlength=size)
    mostly: Mask = (shared > 0) & (2 * shared >= telling)
    return mostly


@dataclass(frozen=True)
class SplitResult:
    """The results of `ConversationSplitter.outcomes`."""

    outcomes: list[str]
    withheld_replies: dict[int, frozenset[int]]
    held_out: HoldoutIndex


def split_conversations(
    conversations: Sequence[Conversation],
    filters: QualityFilters,
    heldout_share: float,
    before: HoldoutIndex | None = None,
    dropped: Mapping[str, int] | None = None,
) -> SplitResult:
    """Split conversations, with those `before` held out earlier. Raises `MaterialError` as `ConversationSplitter`
    does.
    """
    with ConversationSplitter(filters, before=before) as sieve:
        for conversation in conversations:
            sieve.add(conversation)
        return SplitResult(sieve.outcomes(heldout_share, dropped), sieve.withheld_replies, sieve.held_out)
