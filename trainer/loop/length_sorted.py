"""The order in which samples are trained on: of like length together, else random."""

from __future__ import annotations

import random
from collections.abc import Sequence

SORTED_BATCHES = 8
"""So many batches are sorted by length together: enough to save padding, few enough to stay in random order."""


def length_sorted(lengths: Sequence[int], batch_size: int, seed: int) -> list[int]:
    """A random order of the samples in which those that fall into one batch are about equally long.

    Shuffled, cut into windows of `SORTED_BATCHES` batches, sorted by length inside each, and the window's batches
    shuffled again; a batch that is not full comes last. Each sample appears once.
    """
    shuffle = random.Random(seed)
    order = shuffle.sample(range(len(lengths)), len(lengths))
    window = batch_size * SORTED_BATCHES
    result: list[int] = []
    for start in range(0, len(order), window):
        by_length = sorted(order[start : start + window], key=lambda place: lengths[place], reverse=True)
        batches = [by_length[first : first + batch_size] for first in range(0, len(by_length), batch_size)]
        shuffle.shuffle(batches)
        batches.sort(key=len, reverse=True)
        result += [place for batch in batches for place in batch]
    return result
