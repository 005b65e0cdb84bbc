"""Which conversations a data set takes: what filters leave, one of each duplicate cluster, each on its side."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from trainer.conversation import Conversation
from trainer.duplicates import DuplicateIndex, exact_key, merged, words_of
from trainer.filters import Filters
from trainer.split import HELD_OUT, drawn, held_out

TRAIN = "train"
NO_REPLY, TO_NOBODY = "nobody answers", "reply to nobody"
EXACT, NEAR = "duplicate", "near duplicate"
SIDES = (HELD_OUT, TRAIN)
OPENING_WORDS = 16


class Sieve:
    """Takes conversations one after another, then says what becomes of each. Memory: some 60 bytes a conversation."""

    def __init__(self, filters: Filters, folder: Path | None = None) -> None:
        """`folder` is where the index of duplicates keeps its files, a temporary place unless given."""
        self._filters, self._index = filters, DuplicateIndex(folder)
        self._faults: dict[int, str] = {}
        self._numbers, self._draws, self._sizes = array("q"), array("d"), array("q")
        self._openings = array("Q")
        self._count = 0
        self.besides: tuple[float, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._index.__exit__(kind, error, trace)

    def add(self, conversation: Conversation) -> None:
        """Add the next conversation."""
        if fault := self._fault(conversation):
            self._faults[self._count] = fault
        else:
            self._index.add(conversation.raw_text)
            self._numbers.append(self._count)
            self._draws.append(drawn(HELD_OUT, conversation.raw_text))
            self._sizes.append(len(conversation.raw_text))
            self._openings.append(_opening(conversation))
        self._count += 1

    def fates(self, heldout_share: float, besides: Collection[float] = ()) -> list[str]:
        """For each conversation one of `SIDES`, or why it is dropped. Raises `MaterialError` when a side is empty.

        `besides` are draws that are held out whatever the share (see `held_out`); what they are now is in `besides`.
        Of a cluster the longest conversation stays: where rows repeat a talk and go on by a turn each, it holds all of
        their replies.
        """
        exact, near = self._index.clusters()
        sizes = np.asarray(self._sizes)
        # What begins alike goes on one side: paths of one tree, rows that repeat a talk and go on.
        together = merged(near, np.asarray(self._openings))
        sides, self.besides = held_out(self._draws, together, heldout_share, besides)
        longest_first = np.lexsort((np.arange(len(sizes)), -sizes))
        clusters, first = np.unique(near[longest_first], return_index=True)
        kept = dict(zip(clusters.tolist(), longest_first[first].tolist(), strict=True))
        fates = [self._faults.get(number, "") for number in range(self._count)]
        for place, number in enumerate(self._numbers):
            stays = kept[int(near[place])]
            if stays == place:
                fates[number] = HELD_OUT if sides[place] else TRAIN
            else:
                fates[number] = EXACT if exact[stays] == exact[place] else NEAR
        return fates

    def _fault(self, conversation: Conversation) -> str:
        replies = [m for place, m in enumerate(conversation.messages) if m.speaker.is_persona and place]
        if not replies:
            return TO_NOBODY if conversation.messages and conversation.messages[0].speaker.is_persona else NO_REPLY
        if fault := self._filters.language_fault(conversation):
            return fault
        faults = [self._filters.reply_fault(reply.text) for reply in replies]
        return faults[0] if all(faults) else ""


def _opening(conversation: Conversation) -> int:
    """A key of the first two messages, 0 when they are so short that many talks begin so."""
    opening = "\n".join(message.text for message in conversation.messages[:2])
    return int.from_bytes(exact_key(opening), "little") if len(words_of(opening)) >= OPENING_WORDS else 0


def sift(conversations: Sequence[Conversation], filters: Filters, heldout_share: float) -> list[str]:
    """What becomes of each conversation: one of `SIDES`, or why it is dropped."""
    with Sieve(filters) as sieve:
        for conversation in conversations:
            sieve.add(conversation)
        return sieve.fates(heldout_share)
