"""What is held out: decided by a keyed hash of how each conversation begins, so that it stays so however it goes on.

Each conversation draws a number from its opening. Those that draw below the held-out share are held out, and with each
of them its whole cluster: its duplicates and what begins as it does. A cluster only ever grows. What openings cannot
tell (that it was edited, or has become part of a longer talk) is told by the list of what was held out before
(`personas.heldout`), where there is one.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from personas.errors import MaterialError
from trainer.building.duplicates import key_of, words_of
from trainer.conversation import Conversation

HELD_OUT = "held out"
OPENING_WORDS, ASKED_WORDS, REPLY_BEGINNING = 12, 5, 8
"""An opening has twelve words at least, five of them said to the persona, and of each reply the first eight."""

Mask = NDArray[np.bool_]


def drawn(purpose: str, text: str) -> float:
    """A number in [0, 1) that depends on nothing but purpose and text: the same on every machine, for ever."""
    digest = hmac.digest(f"understudy {purpose}".encode(), text.encode("utf-8", "surrogatepass"), "sha256")
    return int.from_bytes(digest[:7], "big") / 2**56


@dataclass(frozen=True)
class Opening:
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
            said = words_of(message.text)
            is_answered |= message.speaker.is_persona
            asked += 0 if message.speaker.is_persona else len(said)
            words += said[:REPLY_BEGINNING] if message.speaker.is_persona else said
            if is_answered and asked >= ASKED_WORDS and len(words) >= OPENING_WORDS:
                return cls(tuple(words), is_settled=True)
        return cls(tuple(words), is_settled=False)

    @property
    def draw(self) -> float:
        """A number in [0, 1): a conversation that draws below the held-out share is held out."""
        return drawn(HELD_OUT, " ".join(self.words))

    @property
    def key(self) -> int:
        """What talks that begin alike share; 0 where it is so short that many begin so."""
        return key_of([*self.words]) if self.is_settled else 0


def held_out(draws: Sequence[float], clusters: NDArray[np.int64], share: float, before: Mask) -> Mask:
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
    side: Mask = out[clusters]
    return side
