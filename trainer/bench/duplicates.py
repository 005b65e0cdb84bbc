"""How fast conversations are filtered and their duplicates found, reading and generating not counted."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainer.building.duplicates import DuplicateIndex
from trainer.building.filters import Filters
from trainer.conversation import Conversation


@dataclass(frozen=True)
class Rates:
    """Rows a second; `duplicates` counts those found, exact and near."""

    rows: int
    filter_rows_per_s: float
    dedupe_rows_per_s: float
    duplicates: int


def measure_rates(conversations: Iterable[Conversation], folder: Path | None = None) -> Rates:
    """Filter and deduplicate all of them, whatever the filters say, as a build does; `folder` holds the index's files.

    Memory grows by some 40 bytes a conversation.
    """
    filters, rows = Filters(), 0
    filtering = deduplicating = 0.0
    with DuplicateIndex(folder) as index:
        for conversation in conversations:
            begun = time.perf_counter()
            for message in conversation.messages:
                if message.speaker.is_persona:
                    filters.reply_fault(message.text)
            filtered = time.perf_counter()
            index.add(conversation.raw_text)
            deduplicating += time.perf_counter() - filtered
            filtering += filtered - begun
            rows += conversation.rows
        begun = time.perf_counter()
        _, clusters = index.clusters()
        deduplicating += time.perf_counter() - begun
        duplicates = int((clusters != range(len(index))).sum())
    return Rates(rows, rows / max(filtering, 1e-9), rows / max(deduplicating, 1e-9), duplicates)
