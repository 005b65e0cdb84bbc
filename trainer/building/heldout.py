"""Finds again what was held out before (`personas.heldout`), in talks that have grown or been edited since.

A conversation is found by its text or one like it, or by the replies in it. A reply is known by its own words where
there are enough of them, and by them together with what it answers. Both are under a key.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from personas.heldout import BANDS, HeldOut
from trainer.building.duplicates import COMPARED_AT_ONCE, MINIMA, SIMILAR, DuplicateIndex, Numbers, key_of, words_of
from trainer.building.siphash import AT_ONCE, siphash
from trainer.conversation import Conversation

REPLY_WORDS = 8
"""Fewer are said again by chance."""
GHOSTS_COMPARED = 32
"""Of texts held out before that share a band with a text, so many are compared with it: for templates, as CROWD is."""

NIBBLE = 16
BY_CHANCE = 1 / NIBBLE
"""How often four bits of two different minima are the same."""

Mask = NDArray[np.bool_]


def reply_keys(conversation: Conversation) -> Iterator[tuple[int, int]]:
    """Of each reply, in order, the key of its words and that of them with what it answers; 0 for too few words."""
    before: list[str] = []
    for place, message in enumerate(conversation.messages):
        words = words_of(message.text)
        if place and message.speaker.is_persona:
            yield _key(words), _key([*before, "\n", *words])
        before = words


def were_held_out(replies: Sequence[str], held_out: HeldOut) -> list[bool]:
    """Which replies a list holds, by their own words: those of too few are not known without what they answer."""
    keys = np.array([_key(words_of(reply)) for reply in replies], dtype=np.uint64)
    known = among(siphash(_under(held_out.key, "reply"), keys), held_out.replies) & (keys != 0)
    return [bool(is_known) for is_known in known]


def _under(key: bytes, what: str) -> bytes:
    return hmac.digest(key, what.encode(), "sha256")


def _key(words: list[str]) -> int:
    return key_of(words) if len(words) >= REPLY_WORDS else 0


def among(values: NDArray[np.uint64], ordered: NDArray[np.uint64]) -> Mask:
    """Which of the values are in a list that is in order. numpy's `isin` sorts all of them, in ten times the room."""
    found: Mask = np.zeros(values.shape, dtype=bool)
    flat, out = values.reshape(-1), found.reshape(-1)
    if len(ordered):
        for start in range(0, len(flat), AT_ONCE):
            some = flat[start : start + AT_ONCE]
            places = np.minimum(np.searchsorted(ordered, some), len(ordered) - 1)
            out[start : start + AT_ONCE] = ordered[places] == some
    return found


class Marks:
    """The marks of a build's conversations, to be held against those that were held out."""

    def __init__(self, index: DuplicateIndex, key: bytes) -> None:
        """`index` holds their texts, `key` is that of the list (`HeldOut.key`)."""
        self._index = index
        self._keys = {what: _under(key, what) for what in ("text", "band", "minimum", "reply")}
        self._key = key

    def like_any(self, ghosts: HeldOut) -> Mask:
        """Which of the texts were held out, or are near duplicates of one that was."""
        texts = siphash(self._keys["text"], self._index.exact_keys())
        found = among(texts, ghosts.texts)
        if len(ghosts):
            for band in range(BANDS):
                for some, others in _equal(self._band(band), ghosts.bands[:, band]):
                    apart = ~found[some]
                    self._compare(found, some[apart], others[apart], ghosts)
        return found

    def of(self, numbers: Numbers, replies: NDArray[np.uint64]) -> HeldOut:
        """What a list says of some of the texts, and of these replies (under `reply_hashes`)."""
        texts = siphash(self._keys["text"], self._index.exact_keys()[numbers])
        texts, first = np.unique(texts, return_index=True)
        numbers = numbers[first]
        bands = [self._band(band)[numbers] for band in range(BANDS)]
        starts = range(0, len(numbers), COMPARED_AT_ONCE)
        signatures = [self._signatures(numbers[start : start + COMPARED_AT_ONCE]) for start in starts]
        return HeldOut(
            self._key,
            texts,
            np.stack(bands, axis=1),
            np.concatenate([np.empty((0, MINIMA // 2), np.uint8), *signatures]),
            np.unique(replies),
        )

    def reply_hashes(self, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Keys of replies as a list holds them; 0 stays 0."""
        hashes = siphash(self._keys["reply"], keys)
        hashes[keys == 0] = 0
        return hashes

    def _band(self, number: int) -> NDArray[np.uint32]:
        return (siphash(self._keys["band"], self._index.band(number)) >> np.uint64(32)).astype(np.uint32)

    def _compare(self, found: Mask, some: Numbers, others: Numbers, ghosts: HeldOut) -> None:
        for start in range(0, len(some), COMPARED_AT_ONCE):
            mine = some[start : start + COMPARED_AT_ONCE]
            theirs = ghosts.signatures[others[start : start + COMPARED_AT_ONCE]]
            differing = self._signatures(mine) ^ theirs
            agreement = ((differing & 0x0F == 0).mean(axis=1) + (differing & 0xF0 == 0).mean(axis=1)) / 2
            found[mine[agreement >= SIMILAR + (1 - SIMILAR) * BY_CHANCE]] = True

    def _signatures(self, numbers: Numbers) -> NDArray[np.uint8]:
        """Four keyed bits of each minimum, two minima a byte."""
        places = np.arange(MINIMA, dtype=np.uint64) << np.uint64(16)
        nibbles = siphash(self._keys["minimum"], self._index.signatures(numbers) | places).astype(np.uint8) % NIBBLE
        return nibbles[:, 0::2] | (nibbles[:, 1::2] << np.uint8(4))


def _equal(keys: NDArray[np.uint32], ghosts: NDArray[np.uint32]) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs of places with equal keys, at most `GHOSTS_COMPARED` of each key."""
    order = np.argsort(ghosts, kind="stable")
    ordered = ghosts[order]
    first = np.searchsorted(ordered, keys)
    numbers = np.arange(len(keys))
    for apart in range(GHOSTS_COMPARED):
        inside = first[numbers] + apart < len(ordered)
        numbers = numbers[inside]
        numbers = numbers[ordered[first[numbers] + apart] == keys[numbers]]
        if not len(numbers):
            return
        yield numbers, order[first[numbers] + apart]
