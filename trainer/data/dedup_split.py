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


def hash_fraction(purpose: str, text: str) -> float:
    """A number in [0, 1) that depends on nothing but purpose and text: the same on every machine, for ever."""
    digest = hmac.digest(f"understudy {purpose}".encode(), text.encode("utf-8", "surrogatepass"), "sha256")
    return int.from_bytes(digest[:7], "big") / 2**56


@dataclass(frozen=True)
class SplitKey:
    """How a conversation begins. `is_settled` says that it is long enough to be told from others by it."""

    words: tuple[str, ...]
    is_settled: bool

    @classmethod
    def of(cls, conversation: Conversation) -> Self:
        """The first that is said to the persona and the beginning of the reply, and what follows where that is little.

        A greeting of the persona's is left out, for all its talks may begin with it. Of replies only the first eight
        words count: the last one may go on when the log does.
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
        """A number in [0, 1): a conversation that draws below the held-out share is held out."""
        return hash_fraction(HELD_OUT, " ".join(self.words))

    @property
    def key(self) -> int:
        """What talks that begin alike share; 0 where it is so short that many begin so."""
        return words_key([*self.words]) if self.is_settled else 0


def select_holdout(
    draws: Sequence[float], clusters: NDArray[np.int64], share: float, before: HoldoutMask
) -> HoldoutMask:
    """Which conversations are held out, from each one's draw (`Opening.draw`), cluster, and whether it was `before`.

    Where one side would stay empty, the cluster that came nearest to the border changes over, unless it was held out
    before. Raises `MaterialError` for a single cluster, and where nothing is left to learn from.
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


TRAIN = "train"


NO_REPLY, UNADDRESSED_REPLY = "nobody answers", "reply to nobody"


EXACT_DUPLICATE, NEAR_DUPLICATE = "duplicate", "near duplicate"


SIDES = (HELD_OUT, TRAIN)


MAX_CLUSTERS_PER_REPLY = 16


"""A reply that held-out talks share with more clusters than this brings none of them over: it is a set phrase."""


class ConversationSplitter:
    """Takes conversations one after another, then says what becomes of each.

    Memory: some 60 bytes a conversation, and at the end, while all are compared, some 500.
    """

    def __init__(self, filters: QualityFilters, folder: Path | None = None, before: HoldoutIndex | None = None) -> None:
        """`folder` is where files lie meanwhile, a temporary place unless given; `before` was held out before."""
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
        """Add the next conversation, as it came: before anybody in it has a pseudonym."""
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
        """For each conversation one of `SIDES`, or why it is dropped. Raises `MaterialError` when a side is empty.

        The error says what was dropped, `dropped` before it came here included.

        Of a cluster the longest conversation stays: where rows repeat a talk and go on by a turn each, it holds all of
        their replies. Then `select_holdout` is what was held out before and what is now, and `kept_back` says of
        conversations to train on which of their replies (counted from 0) were held out before, and are not to be
        learned.
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
        """Which texts are held out. What is like one that is held out, by the measure of later builds, is so already.

        So the same build over the list that it leaves holds out the same.
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
    """The keys of all replies, (replies, 2), on disk, and how many each conversation has."""

    def __init__(self, stack: ExitStack, folder: Path | None) -> None:
        self._file = stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  closed by the stack
        self._counts = array("q")

    def add(self, conversation: Conversation) -> None:
        keys = array("Q", [key for pair in reply_keys(conversation) for key in pair])
        self._file.write(keys.tobytes())
        self._counts.append(len(keys) // 2)

    def read(self) -> tuple[IndexArray, NDArray[np.uint64]]:
        """Of each reply the place of its conversation among those that were added, and its two keys."""
        self._file.seek(0)
        keys = np.fromfile(self._file, np.uint64).reshape(-1, 2)
        return np.repeat(np.arange(len(self._counts)), self._counts), keys

    def places(self, chosen: Mask, owners: IndexArray, numbers: Sequence[int]) -> dict[int, frozenset[int]]:
        """By the number of the conversation, which of its replies are among the chosen."""
        first = np.cumsum(self._counts) - np.asarray(self._counts) if len(self._counts) else np.empty(0, np.int64)
        found: dict[int, set[int]] = {}
        for reply in np.flatnonzero(chosen).tolist():
            owner = int(owners[reply])
            found.setdefault(numbers[owner], set()).add(reply - int(first[owner]))
        return {number: frozenset(replies) for number, replies in found.items()}


def _mostly_held_out(known: Mask, replies: NDArray[np.uint64], owners: IndexArray, clusters: IndexArray) -> Mask:
    """Which conversations consist, by half or more of their replies, of some that were held out.

    Replies of few words do not count, nor does one that stands in very many talks: it would bring all of them over.
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
    """What `ConversationSplitter` has found, see `Sieve.fates`."""

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
    """What becomes of each conversation, where `before` was held out before. Raises `MaterialError` as `ConversationSplitter` does."""
    with ConversationSplitter(filters, before=before) as sieve:
        for conversation in conversations:
            sieve.add(conversation)
        return SplitResult(sieve.outcomes(heldout_share, dropped), sieve.withheld_replies, sieve.held_out)
