"""Finds exact and near duplicates among any number of texts with MinHash LSH, with signatures on
disk.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MIN_SIMILARITY = 0.8
NUM_BANDS = 16
ROWS_PER_BAND = 8
NUM_PERMUTATIONS = NUM_BANDS * ROWS_PER_BAND
SHINGLE_WORDS = 3
BATCH_SHINGLES = 100_000
COMPARE_BATCH_PAIRS = 50_000
MAX_BUCKET_NEIGHBOURS = 64
"""In a larger bucket each text is compared with the next ones only: a template repeated a million
times would take for ever, and the most similar texts also share other bands.
"""
MAX_CACHED_WORDS = 500_000
# Chinese, Japanese, Thai and Lao have no spaces: each character counts as a word.
UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
ASCII_WORD = re.compile(r"\w+")
IndexArray = NDArray[np.int64]
# Libraries have changed their signatures between versions, which would move conversations across
# the split, and keep their index in memory.
_rng = np.random.Generator(
    np.random.PCG64(20261120)
)  # PCG64's stream is guaranteed to stay the same
_FACTORS = _rng.integers(1, 2**31, NUM_PERMUTATIONS, dtype=np.uint32) * 2 + 1
_SUMMANDS = _rng.integers(0, 2**32, NUM_PERMUTATIONS, dtype=np.uint32)
_BAND_FACTORS = _rng.integers(1, 2**63, ROWS_PER_BAND, dtype=np.uint64) * 2 + 1


def split_words(text: str) -> list[str]:
    """Split a text into lower-case words without punctuation."""
    return (ASCII_WORD if text.isascii() else WORD).findall(text.casefold())


class MinHashIndex(ExitStack):
    """Index of texts for duplicate detection. Its files are in `folder` and removed at the end."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` None uses the system's temporary folder."""
        super().__init__()
        self._exact, self._minima, *self._bands = [
            self.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  closed by the stack
            for _ in range(NUM_BANDS + 2)
        ]
        self._hash_of = _WordHashes()
        self._pending: list[list[int]] = []
        self._pending_shingles = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, text: str) -> None:
        """Add the next text."""
        words = split_words(text)
        self._exact.write(_exact_key(words, text))
        hash_of = self._hash_of
        self._pending.append([hash_of[word] for word in words] or [hash_of[text.strip()]])
        self._pending_shingles += len(words)
        self._count += 1
        if self._pending_shingles >= BATCH_SHINGLES or len(self._pending) >= BATCH_SHINGLES:
            self._flush()

    def clusters(self) -> tuple[IndexArray, IndexArray]:
        """Return, for each text, the index of the first equal text, and of the first near
        duplicate.

        A text without duplicates is its own. Clusters are transitive.
        """
        self._flush()
        union = _UnionFind(self._count)
        for left, right in _equal_pairs(self.exact_keys(), crowd=1):
            union.join(left, right)
        exact = union.roots()
        numbers = np.flatnonzero(exact == np.arange(self._count))  # one of each set of equal texts
        for band in range(NUM_BANDS):
            for left, right in _equal_pairs(self.band(band)[numbers], MAX_BUCKET_NEIGHBOURS):
                self._join_similar(union, numbers[left], numbers[right])
        return exact, union.roots()

    def exact_keys(self) -> NDArray[np.uint64]:
        """Return a number for each text that texts of the same words share."""
        self._flush()
        return np.asarray(_read(self._exact, np.uint64))

    def band(self, number: int) -> NDArray[np.uint64]:
        """Return each text's key of one of the `NUM_BANDS` bands: near duplicates share at least
        one.
        """
        self._flush()
        return np.asarray(_read(self._bands[number], np.uint64))

    def signatures(self, numbers: IndexArray) -> NDArray[np.uint16]:
        """Return the minima of texts, (numbers, MINIMA): the share of equal minima estimates their
        similarity.
        """
        self._flush()
        if not len(numbers):
            return np.empty((0, NUM_PERMUTATIONS), np.uint16)
        mapped = np.memmap(
            self._minima, dtype=np.uint16, mode="r", shape=(self._count, NUM_PERMUTATIONS)
        )
        return np.asarray(mapped[numbers])

    def _join_similar(self, union: _UnionFind, left: IndexArray, right: IndexArray) -> None:
        roots = union.roots()
        apart = roots[left] != roots[right]
        left = left[apart]
        right = right[apart]
        for start in range(0, len(left), COMPARE_BATCH_PAIRS):
            some = left[start : start + COMPARE_BATCH_PAIRS]
            others = right[start : start + COMPARE_BATCH_PAIRS]
            agreement = (self.signatures(some) == self.signatures(others)).mean(axis=1)
            union.join(some[agreement >= MIN_SIMILARITY], others[agreement >= MIN_SIMILARITY])

    def _flush(self) -> None:
        if not self._pending:
            return
        minima = _minhash(self._pending)
        # Sixteen bits of a minimum tell two apart nearly as well as 32, in half the room.
        self._minima.write((minima >> np.uint32(16)).astype(np.uint16).tobytes())
        keys = minima.reshape(-1, NUM_BANDS, ROWS_PER_BAND).astype(np.uint64)
        for band, file in enumerate(self._bands):
            file.write((keys[:, band] * _BAND_FACTORS).sum(axis=1, dtype=np.uint64).tobytes())
        for file in (self._exact, self._minima, *self._bands):
            file.flush()
        self._pending = []
        self._pending_shingles = 0


def words_key(words: list[str]) -> int:
    """Hash words to 64 bits."""
    return int.from_bytes(_exact_key(words, ""), "little")


def _exact_key(words: list[str], text: str) -> bytes:
    exact = " ".join(words) if words else text.strip()  # a text of signs alone equals only itself
    return hashlib.blake2b(exact.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def merge_clusters(clusters: IndexArray, keys: NDArray[np.uint64]) -> IndexArray:
    """Merge clusters that share a key; key 0 merges nothing."""
    union = _UnionFind(len(clusters))
    union.join(np.arange(len(clusters)), clusters)
    keyed = np.flatnonzero(keys)
    for left, right in _equal_pairs(keys[keyed], crowd=1):
        union.join(keyed[left], keyed[right])
    return union.roots()


class _WordHashes(dict[str, int]):
    """A cache of stable 32-bit word hashes (Python's own are randomised)."""

    def __missing__(self, word: str) -> int:
        if len(self) >= MAX_CACHED_WORDS:
            self.clear()
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest()
        value = int.from_bytes(digest, "little")
        self[word] = value
        return value


def _minhash(texts: list[list[int]]) -> NDArray[np.uint32]:
    """Compute each text's minima, (texts, MINIMA), from its word hashes."""
    lengths = np.array([len(text) for text in texts])
    words = np.fromiter(
        (word for text in texts for word in text), dtype=np.uint32, count=int(lengths.sum())
    )
    ends = np.cumsum(lengths)
    starts = ends - lengths
    shingles = words.copy()
    place = np.arange(len(words)) - np.repeat(starts, lengths)
    for step in range(1, SHINGLE_WORDS):
        # Words before the beginning count as zero, so that texts of one or two words have shingles
        # too.
        before = np.where(place >= step, np.roll(words, step), np.uint32(0))
        shingles = _mix_bits(shingles) ^ (before * np.uint32(0x9E3779B1))
    shingles = _mix_bits(shingles)
    # The first two shingles of a text are partial; in a long text they hardly matter.
    result = np.empty((len(texts), NUM_PERMUTATIONS), dtype=np.uint32)
    for number in range(NUM_PERMUTATIONS):
        result[:, number] = np.minimum.reduceat(
            shingles * _FACTORS[number] + _SUMMANDS[number], starts
        )
    return result


def _mix_bits(hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Mix bits with Murmur3's finaliser."""
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))


def _read(file: IO[bytes], kind: Any) -> NDArray[Any]:
    file.seek(0)
    return np.fromfile(file, dtype=kind)


def _equal_pairs(keys: NDArray[np.uint64], crowd: int) -> Iterator[tuple[IndexArray, IndexArray]]:
    """Return index pairs with equal keys: neighbours first, then further apart, up to `crowd` among
    equals.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    # Only keys that come more than once matter, mostly few.
    same = ordered[1:] == ordered[:-1]
    several = (
        np.flatnonzero(np.append(same, False) | np.insert(same, 0, False)) if len(keys) else order
    )
    order = order[several]
    ordered = ordered[several]
    for apart in range(1, crowd + 1):
        equal = ordered[apart:] == ordered[:-apart]
        if not equal.any():
            return
        yield order[:-apart][equal], order[apart:][equal]


class _UnionFind:
    """Union-find over the numbers below `count`; a root is its cluster's lowest number."""

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count)

    def join(self, left: IndexArray, right: IndexArray) -> None:
        """Join each pair."""
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            a = self._root(one)
            b = self._root(other)
            if a != b:
                self._parent[max(a, b)] = min(a, b)

    def roots(self) -> IndexArray:
        """Return each number's root."""
        while True:
            grand = self._parent[self._parent]
            if np.array_equal(grand, self._parent):
                return self._parent.copy()
            self._parent = grand

    def _root(self, number: int) -> int:
        parent = int(self._parent[number])
        while parent != number:
            # Numbers on the way are moved nearer to the root, so that later walks are shorter.
            self._parent[number] = self._parent[parent]
            number = parent
            parent = int(self._parent[number])
        return number
