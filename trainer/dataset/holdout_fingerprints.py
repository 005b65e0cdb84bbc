"""Recognises conversations and replies held out by earlier builds, from keyed SipHash
fingerprints.
"""

import hmac
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from personas.home.holdout_index import LSH_BANDS, HoldoutIndex
from trainer.dataset.minhash import (
    COMPARE_BATCH_PAIRS,
    MIN_SIMILARITY,
    NUM_PERMUTATIONS,
    IndexArray,
    MinHashIndex,
    split_words,
    words_key,
)
from trainer.sources.conversation import Conversation

KEY_BYTES = 16
HASH_BATCH = 250_000
INITIAL_STATE = tuple(
    int.from_bytes(word, "big") for word in (b"somepseu", b"dorandom", b"lygenera", b"tedbytes")
)
LAST_BLOCK = 8 << 56  # the message's length in its top byte: every message here has eight bytes
Hashes = NDArray[np.uint64]
MIN_REPLY_KEY_WORDS = 8  # shorter replies recur by chance
MAX_COMPARED_PER_KEY = 32
"""Number of held-out texts in a shared band that a text is compared with: templates may fill a
band.
"""
NIBBLE_VALUES = 16
CHANCE_AGREEMENT = 1 / NIBBLE_VALUES  # probability that four bits of two different minima agree
Mask = NDArray[np.bool_]


def siphash(key: bytes, values: Hashes) -> Hashes:
    """Hash each value as eight little-endian bytes, for any shape."""
    flat = np.ascontiguousarray(values, dtype=np.uint64).reshape(-1)
    result = np.empty_like(flat)
    for start in range(0, len(flat), HASH_BATCH):
        result[start : start + HASH_BATCH] = _hash_batch(key, flat[start : start + HASH_BATCH])
    return result.reshape(np.shape(values))


def _hash_batch(key: bytes, values: Hashes) -> Hashes:
    # SipHash-2-4: two rounds for each block, and four at the end.
    halves = [int.from_bytes(key[:8], "little"), int.from_bytes(key[8:KEY_BYTES], "little")]
    state = []
    for place, word in enumerate(INITIAL_STATE):
        state.append(np.full(len(values), word ^ halves[place % 2], np.uint64))
    for block in (values, np.uint64(LAST_BLOCK)):
        state[3] = state[3] ^ block
        for _ in range(2):
            _round(state)
        state[0] = state[0] ^ block
    state[2] = state[2] ^ np.uint64(0xFF)
    for _ in range(4):
        _round(state)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _round(v: list[Hashes]) -> None:
    v[0] = v[0] + v[1]
    v[1] = _rotate(v[1], 13) ^ v[0]
    v[0] = _rotate(v[0], 32)
    v[2] = v[2] + v[3]
    v[3] = _rotate(v[3], 16) ^ v[2]
    v[0] = v[0] + v[3]
    v[3] = _rotate(v[3], 21) ^ v[0]
    v[2] = v[2] + v[1]
    v[1] = _rotate(v[1], 17) ^ v[2]
    v[2] = _rotate(v[2], 32)


def _rotate(values: Hashes, bits: int) -> Hashes:
    return (values << np.uint64(bits)) | (values >> np.uint64(64 - bits))


def reply_keys(conversation: Conversation) -> Iterator[tuple[int, int]]:
    """Return, for each reply, the key of its words and the key including the message before it; 0
    for too few words.
    """
    before: list[str] = []
    for place, message in enumerate(conversation.messages):
        words = split_words(message.text)
        if place and message.speaker.is_persona:
            yield _key(words), _key([*before, "\n", *words])
        before = words


def match_held_out(replies: Sequence[str], held_out: HoldoutIndex) -> list[bool]:
    """Report which replies are in a holdout list, by their words; short ones need their context."""
    keys = np.array([_key(split_words(reply)) for reply in replies], dtype=np.uint64)
    hashes = siphash(_derive_key(held_out.key, "reply"), keys)
    matches: Mask = is_in_sorted(hashes, held_out.replies) & (keys != 0)
    return list(map(bool, matches))


def _derive_key(key: bytes, what: str) -> bytes:
    return hmac.digest(key, what.encode(), "sha256")


def _key(words: list[str]) -> int:
    return words_key(words) if len(words) >= MIN_REPLY_KEY_WORDS else 0


def is_in_sorted(values: NDArray[np.uint64], ordered: NDArray[np.uint64]) -> Mask:
    """Report which values are in a sorted list. numpy's `isin` sorts everything with ten times the
    memory.
    """
    found: Mask = np.zeros(values.shape, dtype=bool)
    flat = values.reshape(-1)
    out = found.reshape(-1)
    if len(ordered):
        for start in range(0, len(flat), HASH_BATCH):
            some = flat[start : start + HASH_BATCH]
            places = np.minimum(np.searchsorted(ordered, some), len(ordered) - 1)
            out[start : start + HASH_BATCH] = ordered[places] == some
    return found


class HoldoutFingerprints:
    """Fingerprints of a build's conversations, for comparison with held-out ones."""

    def __init__(self, index: MinHashIndex, key: bytes) -> None:
        """`index` holds their texts, `key` is the holdout list's key."""
        self._index = index
        self._keys = {what: _derive_key(key, what) for what in ("text", "band", "minimum", "reply")}
        self._key = key

    def match_any(self, held_out: HoldoutIndex) -> Mask:
        """Report which texts were held out, or are near duplicates of one that was."""
        texts = siphash(self._keys["text"], self._index.exact_keys())
        found = is_in_sorted(texts, held_out.texts)
        if len(held_out):
            for band in range(LSH_BANDS):
                for some, others in _equal_key_pairs(self._band(band), held_out.bands[:, band]):
                    apart = ~found[some]
                    self._compare(found, some[apart], others[apart], held_out)
        return found

    def of(self, numbers: IndexArray, replies: NDArray[np.uint64]) -> HoldoutIndex:
        """Build the holdout entry of some texts and of these replies (hashed by `reply_hashes`)."""
        texts = siphash(self._keys["text"], self._index.exact_keys()[numbers])
        texts, first = np.unique(texts, return_index=True)
        numbers = numbers[first]
        bands = [self._band(band)[numbers] for band in range(LSH_BANDS)]
        signatures = [np.empty((0, NUM_PERMUTATIONS // 2), np.uint8)]
        for start in range(0, len(numbers), COMPARE_BATCH_PAIRS):
            signatures.append(self._signatures(numbers[start : start + COMPARE_BATCH_PAIRS]))
        return HoldoutIndex(
            self._key,
            texts,
            np.stack(bands, axis=1),
            signatures=np.concatenate(signatures),
            replies=np.unique(replies),
        )

    def reply_hashes(self, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Hash reply keys for a holdout list; 0 stays 0."""
        hashes = siphash(self._keys["reply"], keys)
        hashes[keys == 0] = 0
        return hashes

    def _band(self, number: int) -> NDArray[np.uint32]:
        return (siphash(self._keys["band"], self._index.band(number)) >> np.uint64(32)).astype(
            np.uint32
        )

    def _compare(
        self, found: Mask, some: IndexArray, others: IndexArray, held_out: HoldoutIndex
    ) -> None:
        for start in range(0, len(some), COMPARE_BATCH_PAIRS):
            mine = some[start : start + COMPARE_BATCH_PAIRS]
            theirs = held_out.signatures[others[start : start + COMPARE_BATCH_PAIRS]]
            differing = self._signatures(mine) ^ theirs
            agreement = (
                (differing & 0x0F == 0).mean(axis=1) + (differing & 0xF0 == 0).mean(axis=1)
            ) / 2
            found[mine[agreement >= MIN_SIMILARITY + (1 - MIN_SIMILARITY) * CHANCE_AGREEMENT]] = (
                True
            )

    def _signatures(self, numbers: IndexArray) -> NDArray[np.uint8]:
        """Return four keyed bits of each minimum, two minima per byte."""
        places = np.arange(NUM_PERMUTATIONS, dtype=np.uint64) << np.uint64(16)
        hashes = siphash(self._keys["minimum"], self._index.signatures(numbers) | places)
        nibbles = hashes.astype(np.uint8) % NIBBLE_VALUES
        return nibbles[:, 0::2] | (nibbles[:, 1::2] << np.uint8(4))


def _equal_key_pairs(
    keys: NDArray[np.uint32], held_out: NDArray[np.uint32]
) -> Iterator[tuple[IndexArray, IndexArray]]:
    """Return index pairs with equal keys, at most `MAX_COMPARED_PER_KEY` per key."""
    order = np.argsort(held_out, kind="stable")
    ordered = held_out[order]
    first = np.searchsorted(ordered, keys)
    numbers = np.arange(len(keys))
    for apart in range(MAX_COMPARED_PER_KEY):
        inside = first[numbers] + apart < len(ordered)
        numbers = numbers[inside]
        numbers = numbers[ordered[first[numbers] + apart] == keys[numbers]]
        if not len(numbers):
            return
        yield numbers, order[first[numbers] + apart]
