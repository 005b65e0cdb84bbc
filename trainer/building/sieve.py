"""Which conversations a data set takes: what filters leave, one of each duplicate cluster, each on its side."""

from __future__ import annotations

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
from personas.heldout import HeldOut
from trainer.building.duplicates import DuplicateIndex, Numbers, merged
from trainer.building.filters import Filters
from trainer.building.heldout import Marks, Mask, among, reply_keys
from trainer.building.ledger import dropped_words
from trainer.building.split import HELD_OUT, Opening, held_out
from trainer.conversation import Conversation

TRAIN = "train"
NO_REPLY, TO_NOBODY = "nobody answers", "reply to nobody"
EXACT, NEAR = "duplicate", "near duplicate"
SIDES = (HELD_OUT, TRAIN)
CROWD = 16
"""A reply that held-out talks share with more clusters than this brings none of them over: it is a set phrase."""


class Sieve:
    """Takes conversations one after another, then says what becomes of each.

    Memory: some 60 bytes a conversation, and at the end, while all are compared, some 500.
    """

    def __init__(self, filters: Filters, folder: Path | None = None, before: HeldOut | None = None) -> None:
        """`folder` is where files lie meanwhile, a temporary place unless given; `before` was held out before."""
        self._stack = ExitStack()
        self._filters = filters
        self._before = HeldOut.nothing(b"") if before is None else before
        self._index = self._stack.enter_context(DuplicateIndex(folder))
        self._replies = _Replies(self._stack, folder)
        self._faults: dict[int, str] = {}
        self._numbers, self._draws, self._sizes = array("q"), array("d"), array("q")
        self._openings = array("Q")
        self._count = 0
        self.held_out = self._before
        self.kept_back: dict[int, frozenset[int]] = {}

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
            opening = Opening.of(conversation)
            self._index.add(conversation.raw_text)
            self._numbers.append(self._count)
            self._draws.append(opening.draw)
            self._sizes.append(len(conversation.raw_text))
            self._openings.append(opening.key)
            self._replies.add(conversation)
        self._count += 1

    def fates(self, heldout_share: float, dropped: Mapping[str, int] | None = None) -> list[str]:
        """For each conversation one of `SIDES`, or why it is dropped. Raises `MaterialError` when a side is empty.

        The error says what was dropped, `dropped` before it came here included.

        Of a cluster the longest conversation stays: where rows repeat a talk and go on by a turn each, it holds all of
        their replies. Then `held_out` is what was held out before and what is now, and `kept_back` says of
        conversations to train on which of their replies (counted from 0) were held out before, and are not to be
        learned.
        """
        exact, near = self._index.clusters()
        sizes = np.asarray(self._sizes)
        # What begins alike goes on one side: paths of one tree, rows that repeat a talk and go on.
        together = merged(near, np.asarray(self._openings))
        try:
            side = self._sides(together, heldout_share)
        except MaterialError as error:
            words = dropped_words(Counter(dropped or {}) + Counter(self._faults.values()))
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
                fates[number] = EXACT if exact[stays] == exact[place] else NEAR
        return fates

    def _sides(self, clusters: Numbers, share: float) -> Mask:
        """Which texts are held out. What is like one that is held out, by the measure of later builds, is so already.

        So the same build over the list that it leaves holds out the same.
        """
        marks = Marks(self._index, self._before.key)
        owners, replies = self._replies.read()
        replies = marks.reply_hashes(replies)
        known = among(replies, self._before.replies)
        before = marks.like_any(self._before) | _are_mostly(known, replies, owners, clusters)
        while True:
            side = held_out(self._draws, clusters, share, before)
            trained = ~side[owners]
            # What is said on both sides now was not held out.
            own = np.unique(replies[~trained])
            own = np.setdiff1d(own[own != 0], replies[among(replies, own) & trained[:, None]])
            self.held_out = self._before.joined(marks.of(np.flatnonzero(side), own))
            more = marks.like_any(self.held_out) & ~side
            if not more.any():
                break
            before |= more
        self.kept_back = self._replies.places(known.any(axis=1) & trained, owners, self._numbers)
        return side

    def _fault(self, conversation: Conversation) -> str:
        replies = [m for place, m in enumerate(conversation.messages) if m.speaker.is_persona and place]
        if not replies:
            return TO_NOBODY if conversation.messages and conversation.messages[0].speaker.is_persona else NO_REPLY
        if fault := self._filters.language_fault(conversation):
            return fault
        faults = [self._filters.reply_fault(reply.text) for reply in replies]
        return faults[0] if all(faults) else ""


class _Replies:
    """The keys of all replies, (replies, 2), on disk, and how many each conversation has."""

    def __init__(self, stack: ExitStack, folder: Path | None) -> None:
        self._file = stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  closed by the stack
        self._counts = array("q")

    def add(self, conversation: Conversation) -> None:
        keys = array("Q", [key for pair in reply_keys(conversation) for key in pair])
        self._file.write(keys.tobytes())
        self._counts.append(len(keys) // 2)

    def read(self) -> tuple[Numbers, NDArray[np.uint64]]:
        """Of each reply the place of its conversation among those that were added, and its two keys."""
        self._file.seek(0)
        keys = np.fromfile(self._file, np.uint64).reshape(-1, 2)
        return np.repeat(np.arange(len(self._counts)), self._counts), keys

    def places(self, chosen: Mask, owners: Numbers, numbers: Sequence[int]) -> dict[int, frozenset[int]]:
        """By the number of the conversation, which of its replies are among the chosen."""
        first = np.cumsum(self._counts) - np.asarray(self._counts) if len(self._counts) else np.empty(0, np.int64)
        found: dict[int, set[int]] = {}
        for reply in np.flatnonzero(chosen).tolist():
            owner = int(owners[reply])
            found.setdefault(numbers[owner], set()).add(reply - int(first[owner]))
        return {number: frozenset(replies) for number, replies in found.items()}


def _are_mostly(known: Mask, replies: NDArray[np.uint64], owners: Numbers, clusters: Numbers) -> Mask:
    """Which conversations consist, by half or more of their replies, of some that were held out.

    Replies of few words do not count, nor does one that stands in very many talks: it would bring all of them over.
    """
    places = np.argwhere(known & (replies != 0))
    by_cluster = {(int(replies[row, kind]), int(clusters[owners[row]])) for row, kind in places.tolist()}
    counts = Counter(key for key, _ in by_cluster)
    rare = np.array([key for key, count in counts.items() if count <= CROWD], dtype=np.uint64)
    size = len(clusters)
    shared = np.bincount(owners[among(replies, np.sort(rare)).any(axis=1)], minlength=size)
    telling = np.bincount(owners[(replies != 0).any(axis=1)], minlength=size)
    mostly: Mask = (shared > 0) & (2 * shared >= telling)
    return mostly


@dataclass(frozen=True)
class Sifted:
    """What `Sieve` has found, see `Sieve.fates`."""

    fates: list[str]
    kept_back: dict[int, frozenset[int]]
    held_out: HeldOut


def sift(
    conversations: Sequence[Conversation],
    filters: Filters,
    heldout_share: float,
    before: HeldOut | None = None,
    dropped: Mapping[str, int] | None = None,
) -> Sifted:
    """What becomes of each conversation, where `before` was held out before. Raises `MaterialError` as `Sieve` does."""
    with Sieve(filters, before=before) as sieve:
        for conversation in conversations:
            sieve.add(conversation)
        return Sifted(sieve.fates(heldout_share, dropped), sieve.kept_back, sieve.held_out)
