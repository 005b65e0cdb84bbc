"""The figures of a data set: what came from where, under which right, how long it is, what was dropped and why."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainer.building.build import Built
from trainer.building.ledger import Ledger
from trainer.building.sieve import TRAIN

BINS = 24


@dataclass
class Statistics:
    """Grows with each sample; the lengths of all samples are kept, four bytes each."""

    samples: Counter[str] = field(default_factory=Counter)
    by_source: dict[str, Counter[str]] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    rights: Counter[str] = field(default_factory=Counter)
    lengths: array[int] = field(default_factory=lambda: array("i"))
    reply_lengths: array[int] = field(default_factory=lambda: array("i"))
    with_lore: int = 0
    with_trimmed_history: int = 0

    def add(self, built: Built) -> None:
        """Count a sample."""
        side = "train" if built.side == TRAIN else "eval"
        tokens, reply_tokens = len(built.made.sample.ids), built.made.sample.reply_tokens
        self.samples[side] += 1
        self.kinds[built.kind] += 1
        self.rights[built.right] += 1
        of = self.by_source.setdefault(built.source, Counter())
        of.update({side: 1, "tokens": tokens, "reply tokens": reply_tokens})
        self.lengths.append(tokens)
        self.reply_lengths.append(reply_tokens)
        self.with_lore += bool(built.made.lore)
        self.with_trimmed_history += bool(built.made.trimmed)

    @property
    def tokens(self) -> int:
        """Tokens of all samples, prompts and replies."""
        return sum(self.lengths)

    @property
    def reply_tokens(self) -> int:
        """Tokens that are learned or measured."""
        return sum(self.reply_lengths)

    def sources(self, ledger: Ledger) -> dict[str, dict[str, int]]:
        """By source: its samples on each side, their tokens, its records and what became of them."""
        names = [*dict.fromkeys([*self.by_source, *ledger.by_source])]
        return {name: self._source(name, ledger) for name in names}

    def _source(self, name: str, ledger: Ledger) -> dict[str, int]:
        of, rows = self.by_source.get(name, Counter()), ledger.by_source.get(name, Counter())
        return {
            "train": of["train"],
            "eval": of["eval"],
            "tokens": of["tokens"],
            "reply_tokens": of["reply tokens"],
            "rows": rows["used"] + rows["dropped"],
            "rows_used": rows["used"],
        }


def summary(statistics: Statistics, ledger: Ledger, digest: str) -> dict[str, Any]:
    """The published object of `dataset build --json`."""
    return {
        "samples": {side: statistics.samples[side] for side in ("train", "eval")},
        "tokens": statistics.tokens,
        "rows": ledger.rows,
        "rows_used": ledger.rows_used,
        "dropped": dict(ledger.dropped.most_common()),
        "sources": {name: of["train"] + of["eval"] for name, of in statistics.sources(ledger).items()},
        "hash": digest,
    }


def details(statistics: Statistics, ledger: Ledger) -> dict[str, Any]:
    """What `stats.json` holds beside the summary."""
    return {
        "reply_tokens": statistics.reply_tokens,
        "dropped_replies": dict(ledger.replies.most_common()),
        "by_source": statistics.sources(ledger),
        "by_kind": dict(statistics.kinds),
        "by_right": dict(statistics.rights),
        "with_lore": statistics.with_lore,
        "with_trimmed_history": statistics.with_trimmed_history,
        "tokens_per_sample": spread(statistics.lengths),
        "tokens_per_reply": spread(statistics.reply_lengths),
    }


def spread(lengths: Sequence[int]) -> dict[str, Any]:
    """Quantiles and a histogram: `counts[i]` lengths lie from `edges[i]` up to, not including, `edges[i + 1]`."""
    if not lengths:
        return {"min": 0, "median": 0, "p95": 0, "max": 0, "edges": [], "counts": []}
    values = np.asarray(lengths)
    low, middle, high, top = (int(value) for value in np.quantile(values, [0, 0.5, 0.95, 1], method="nearest"))
    width = max(1, -(-(top + 1 - low) // BINS))
    edges = list(range(low, top + width + 1, width))
    counts = [int(count) for count in np.histogram(values, bins=[*edges[:-1], edges[-1]])[0]]
    return {"min": low, "median": middle, "p95": high, "max": top, "edges": edges, "counts": counts}
