"""Filters, deduplicates and splits conversations into training and held-out sides by a stable
hash.
"""

import hmac
import tempfile
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from personas.errors import MaterialError
from personas.home.holdout_index import HoldoutIndex
from trainer.dataset.holdout_fingerprints import HoldoutFingerprints, Mask, is_in_sorted, reply_keys
from trainer.dataset.ledger import describe_dropped
from trainer.dataset.minhash import IndexArray, MinHashIndex, merge_clusters, split_words, words_key
from trainer.dataset.quality_filters import QualityFilters
from trainer.sources.conversation import Conversation

HELD_OUT = "held out"
OPENING_WORDS, PROMPT_WORDS, REPLY_OPENING_WORDS = 12, 5, 8
"""An opening has at least twelve words, five of them addressed to the persona, and the first eight
of each reply.
"""
HoldoutMask = NDArray[np.bool_]
TRAIN = "train"
NO_REPLY = "nobody answers"
UNADDRESSED_REPLY = "reply to nobody"
EXACT_DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near duplicate"
SIDES = (HELD_OUT, TRAIN)
MAX_CLUSTERS_PER_REPLY = 16
"""A reply that occurs in more clusters is a set phrase, and moves none of them to the held-out
side.
"""


def hash_fraction(purpose: str, text: str) -> float:
    """Hash purpose and text to a number in [0, 1), the same on every machine."""
    key = f"understudy {purpose}".encode()
    digest = hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256")
    return int.from_bytes(digest[:7], "big") / 2**56


class TooLittleMaterialError(MaterialError):
    """Too few different conversations to train on some and to measure with others."""


@dataclass(frozen=True)
class SplitKey:
    """The beginning of a conversation. `is_settled`: it is long enough to be distinctive."""

    words: tuple[str, ...]
    is_settled: bool

    @classmethod
    def of(cls, conversation: Conversation) -> Self:
        """Take the first message to the persona and the start of the reply, and more if that is
        short.

        Skips the persona's greeting, with which all its conversations may begin. Only the first
        eight words of replies count: the last reply may grow with the log.
        """
        words: list[str] = []
        prompt_words = 0
        is_answered = False
        for message in conversation.messages:
            if message.speaker.is_persona and not prompt_words:
                continue
            message_words = split_words(message.text)
            if message.speaker.is_persona:
                is_answered = True
                words += message_words[:REPLY_OPENING_WORDS]
            else:
                prompt_words += len(message_words)
                words += message_words
            if is_answered and prompt_words >= PROMPT_WORDS and len(words) >= OPENING_WORDS:
                return cls(tuple(words), is_settled=True)
        return cls(tuple(words), is_settled=False)

    @property
    def draw(self) -> float:
        """A number in [0, 1): conversations below the held-out share are held out."""
        return hash_fraction(HELD_OUT, " ".join(self.words))

    @property
    def key(self) -> int:
        """The key that conversations with the same beginning share; 0 for beginnings too short to
        be distinctive.
        """
        return words_key([*self.words]) if self.is_settled else 0


def select_holdout(
    draws: Sequence[float], clusters: NDArray[np.int64], share: float, before: HoldoutMask
) -> HoldoutMask:
    """Select the held-out conversations by draw (`SplitKey.draw`) and cluster; those held out
    `before` stay so.

    If a side would be empty, the cluster nearest to the border moves, unless it was held out
    before. Raises `TooLittleMaterialError` for a single cluster, or if no training data would remain.
    """
    lowest = np.full(len(clusters), np.inf)
    np.minimum.at(lowest, clusters, np.asarray(draws, dtype=float))
    was = np.zeros(len(clusters), dtype=bool)
    np.logical_or.at(was, clusters, before)
    roots = np.flatnonzero(np.isfinite(lowest))
    if len(roots) < 2:
        count = "only one conversation" if len(roots) else "no conversation with a reply"
        raise TooLittleMaterialError(
            f"There is {count}; training and evaluation need one each.", "Add more."
        )
    if was[roots].all():
        raise TooLittleMaterialError(
            "All conversations were held out before, for evaluation, and held-out data is never "
            "trained on.",
            "Add other conversations, or work in another UNDERSTUDY_HOME.",
        )
    out = was | (lowest < share)
    nearest = roots[np.argsort(lowest[roots], kind="stable")]
    if not out[roots].any():
        out[nearest[0]] = True
    elif out[roots].all():
        out[nearest[~was[nearest]][-1]] = False
    side: HoldoutMask = out[clusters]
    return side


class ConversationSplitter(ExitStack):
    """Collects conversations, then decides the outcome of each.

    Memory: some 60 bytes per conversation, and some 500 during the final comparison.
    """

    def __init__(
        self,
        filters: QualityFilters,
        folder: Path | None = None,
        before: HoldoutIndex | None = None,
    ) -> None:
        """`folder` holds working files, a temporary folder by default; `before` was held out
        before.
        """
        super().__init__()
        self._filters = filters
        self._before = HoldoutIndex.empty(b"") if before is None else before
        self._index = self.enter_context(MinHashIndex(folder))
        self._replies = _ReplyKeys(self, folder)
        self._faults: dict[int, str] = {}
        self._numbers, self._draws, self._sizes = array("q"), array("d"), array("q")
        self._openings = array("Q")
        self._count = 0
        self.held_out = self._before
        self.withheld_replies: dict[int, frozenset[int]] = {}

    def add(self, conversation: Conversation) -> None:
        """Add the next conversation, before pseudonymisation."""
        fault = self._fault(conversation)
        if fault:
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
        """Return each conversation's side, or the reason for dropping it. Raises `MaterialError`
        for an empty side.

        The error lists what was dropped, including earlier drops in `dropped`. Of a cluster, the
        longest conversation remains: if rows repeat a conversation with one more turn each, it
        contains all replies. Afterwards `held_out` describes past and new held-out texts, and
        `withheld_replies` maps training conversations to their replies (counted from 0) that were
        held out before and must not be trained on.
        """
        exact, near = self._index.clusters()
        sizes = np.asarray(self._sizes)
        # Conversations with the same beginning go to one side: paths of a tree, rows that continue
        # an earlier row.
        together = merge_clusters(near, np.asarray(self._openings))
        try:
            side = self._sides(together, heldout_share)
        except TooLittleMaterialError as error:
            reasons = describe_dropped(Counter(dropped or {}) + Counter(self._faults.values()))
            raise TooLittleMaterialError(f"{error.message}{reasons}", error.advice) from None
        longest_first = np.lexsort((np.arange(len(sizes)), -sizes))
        clusters, first = np.unique(near[longest_first], return_index=True)
        longest = dict(zip(clusters.tolist(), longest_first[first].tolist(), strict=True))
        outcomes = [self._faults.get(number, "") for number in range(self._count)]
        for place, number in enumerate(self._numbers):
            kept = longest[int(near[place])]
            if kept == place:
                outcomes[number] = HELD_OUT if side[place] else TRAIN
            elif exact[kept] == exact[place]:
                outcomes[number] = EXACT_DUPLICATE
            else:
                outcomes[number] = NEAR_DUPLICATE
        return outcomes

    def _sides(self, clusters: IndexArray, share: float) -> Mask:
        """Select the held-out texts, including those similar to held-out ones by the measure of
        later builds.

        Thus the same build with its own holdout list selects the same texts.
        """
        fingerprints = HoldoutFingerprints(self._index, self._before.key)
        owners, replies = self._replies.read()
        replies = fingerprints.reply_hashes(replies)
        known = is_in_sorted(replies, self._before.replies)
        before = fingerprints.match_any(self._before)
        before |= _mostly_held_out(known, replies, owners, clusters)
        # Again until nothing moves: what is similar to a text that is held out now joins it, since
        # the next build would hold it out anyway.
        while True:
            side = select_holdout(self._draws, clusters, share, before)
            trained = ~side[owners]
            # Replies on both sides were not held out.
            own = np.unique(replies[~trained])
            own = np.setdiff1d(
                own[own != 0], replies[is_in_sorted(replies, own) & trained[:, None]]
            )
            self.held_out = self._before.merge(fingerprints.of(np.flatnonzero(side), own))
            more = fingerprints.match_any(self.held_out) & ~side
            if not more.any():
                break
            before |= more
        withheld = known.any(axis=1) & trained
        self.withheld_replies = self._replies.places(withheld, owners, self._numbers)
        return side

    def _fault(self, conversation: Conversation) -> str:
        messages = conversation.messages
        replies = [message for message in messages[1:] if message.speaker.is_persona]
        if not replies:
            return UNADDRESSED_REPLY if messages and messages[0].speaker.is_persona else NO_REPLY
        language_fault = self._filters.language_fault(conversation)
        if language_fault:
            return language_fault
        faults = [self._filters.reply_fault(reply.text) for reply in replies]
        return faults[0] if all(faults) else ""


class _ReplyKeys:
    """Keys of all replies, (replies, 2), on disk, and the number of replies per conversation."""

    def __init__(self, stack: ExitStack, folder: Path | None) -> None:
        self._file = stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  closed by the stack
        self._counts = array("q")

    def add(self, conversation: Conversation) -> None:
        keys = array("Q")
        for pair in reply_keys(conversation):
            keys.extend(pair)
        self._file.write(keys.tobytes())
        self._counts.append(len(keys) // 2)

    def read(self) -> tuple[IndexArray, NDArray[np.uint64]]:
        """Return each reply's conversation index and its two keys."""
        self._file.seek(0)
        keys = np.fromfile(self._file, np.uint64).reshape(-1, 2)
        return np.repeat(np.arange(len(self._counts)), self._counts), keys

    def places(
        self, chosen: Mask, owners: IndexArray, numbers: Sequence[int]
    ) -> dict[int, frozenset[int]]:
        """Return the chosen replies' indices by conversation number."""
        counts = np.asarray(self._counts, dtype=np.int64)
        first = np.cumsum(counts) - counts
        chosen_of: dict[int, set[int]] = {}
        for reply in np.flatnonzero(chosen).tolist():
            owner = int(owners[reply])
            chosen_of.setdefault(numbers[owner], set()).add(reply - int(first[owner]))
        return {number: frozenset(replies) for number, replies in chosen_of.items()}


def _mostly_held_out(
    known: Mask, replies: NDArray[np.uint64], owners: IndexArray, clusters: IndexArray
) -> Mask:
    """Find conversations at least half of whose replies were held out.

    Short replies do not count, nor do replies that occur in very many conversations.
    """
    # Half, because conversations that share a phrase would pull each other over in a chain.
    in_clusters: set[tuple[int, int]] = set()
    for row, kind in np.argwhere(known & (replies != 0)).tolist():
        in_clusters.add((int(replies[row, kind]), int(clusters[owners[row]])))
    counts = Counter(key for key, _ in in_clusters)
    rare_keys = [key for key, count in counts.items() if count <= MAX_CLUSTERS_PER_REPLY]
    rare = np.array(rare_keys, dtype=np.uint64)
    size = len(clusters)
    shared = np.bincount(owners[is_in_sorted(replies, np.sort(rare)).any(axis=1)], minlength=size)
    telling = np.bincount(owners[(replies != 0).any(axis=1)], minlength=size)
    mostly: Mask = (shared > 0) & (2 * shared >= telling)
    return mostly
