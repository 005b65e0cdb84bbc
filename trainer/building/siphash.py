"""SipHash-2-4 of many 64-bit numbers at once (J.-P. Aumasson and D. Bernstein, "SipHash", 2012).

A keyed hash that is safe to give away: without the 128-bit key nobody can tell what a hash is of, nor make one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 16
AT_ONCE = 250_000
INITIAL = tuple(int.from_bytes(word, "big") for word in (b"somepseu", b"dorandom", b"lygenera", b"tedbytes"))
LAST_BLOCK = 8 << 56
"""The message's length in its top byte: every message here has eight bytes."""

Hashes = NDArray[np.uint64]


def siphash(key: bytes, values: Hashes) -> Hashes:
    """The hash of each value, taken as eight bytes, little-endian; any shape."""
    flat = np.ascontiguousarray(values, dtype=np.uint64).reshape(-1)
    result = np.empty_like(flat)
    for start in range(0, len(flat), AT_ONCE):
        result[start : start + AT_ONCE] = _hashed(key, flat[start : start + AT_ONCE])
    return result.reshape(np.shape(values))


def _hashed(key: bytes, values: Hashes) -> Hashes:
    halves = [int.from_bytes(key[:8], "little"), int.from_bytes(key[8:KEY_BYTES], "little")]
    state = [np.full(len(values), word ^ halves[place % 2], np.uint64) for place, word in enumerate(INITIAL)]
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
    v[1] = _turned(v[1], 13) ^ v[0]
    v[0] = _turned(v[0], 32)
    v[2] = v[2] + v[3]
    v[3] = _turned(v[3], 16) ^ v[2]
    v[0] = v[0] + v[3]
    v[3] = _turned(v[3], 21) ^ v[0]
    v[2] = v[2] + v[1]
    v[1] = _turned(v[1], 17) ^ v[2]
    v[2] = _turned(v[2], 32)


def _turned(values: Hashes, bits: int) -> Hashes:
    return (values << np.uint64(bits)) | (values >> np.uint64(64 - bits))
