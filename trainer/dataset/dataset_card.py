"""Statistics and data sheet of a data set, after \"Datasheets for Datasets\" (arXiv 1803.09010)."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from personas.schemas.base import DISCORD_API
from personas.schemas.import_report import ImportReport
from trainer.anonymise.name_detector import describe_name_search
from trainer.dataset.builder import BuiltSample, DatasetBuilder, DatasetPlan
from trainer.dataset.dedup_split import TRAIN
from trainer.dataset.ledger import Ledger

HISTOGRAM_BINS = 24


@dataclass
class DatasetStatistics:
    """Statistics updated sample by sample; stores all lengths, four bytes each."""

    samples: Counter[str] = field(default_factory=Counter)
    by_source: dict[str, Counter[str]] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    rights: Counter[str] = field(default_factory=Counter)
    lengths: array[int] = field(default_factory=lambda: array("i"))
    reply_lengths: array[int] = field(default_factory=lambda: array("i"))
    with_lore: int = 0
    with_trimmed_history: int = 0
    with_earlier_history: int = 0
    with_thought: int = 0

    def add(self, built: BuiltSample) -> None:
        """Count a sample."""
        side = "train" if built.side == TRAIN else "eval"
        tokens = len(built.made.sample.ids)
        reply_tokens = built.made.sample.reply_tokens
        self.samples[side] += 1
        self.kinds[built.kind] += 1
        self.rights[built.right] += 1
        counts = self.by_source.setdefault(built.source, Counter())
        counts.update({side: 1, "tokens": tokens, "reply tokens": reply_tokens})
        self.lengths.append(tokens)
        self.reply_lengths.append(reply_tokens)
        self.with_lore += bool(built.made.lore)
        self.with_trimmed_history += bool(built.made.trimmed)
        self.with_earlier_history += bool(built.made.earlier)
        self.with_thought += bool(built.made.thought)

    @property
    def tokens(self) -> int:
        """Tokens of all samples, prompts and replies."""
        return sum(self.lengths)

    @property
    def reply_tokens(self) -> int:
        """Tokens with loss, or evaluated."""
        return sum(self.reply_lengths)

    def sources(self, ledger: Ledger) -> dict[str, dict[str, int]]:
        """Return, by source, its samples on each side, their tokens, and its records with their
        outcomes.
        """
        names = [*dict.fromkeys([*self.by_source, *ledger.by_source])]
        return {name: self._source(name, ledger) for name in names}

    def _source(self, name: str, ledger: Ledger) -> dict[str, int]:
        counts = self.by_source.get(name, Counter())
        rows = ledger.by_source.get(name, Counter())
        return {
            "train": counts["train"],
            "eval": counts["eval"],
            "tokens": counts["tokens"],
            "reply_tokens": counts["reply tokens"],
            "rows": rows["used"] + rows["dropped"],
            "rows_used": rows["used"],
        }


def dataset_summary(
    statistics: DatasetStatistics, builder: DatasetBuilder, digest: str, imported: ImportReport
) -> dict[str, Any]:
    """Return the published object of `dataset build --json`, once `builder` has made its samples."""
    ledger = builder.ledger
    sources = {}
    for name, figures in statistics.sources(ledger).items():
        sources[name] = figures["train"] + figures["eval"]
    return {
        "samples": {side: statistics.samples[side] for side in ("train", "eval")},
        "tokens": statistics.tokens,
        "rows": ledger.rows,
        "rows_used": ledger.rows_used,
        "dropped": dict(ledger.dropped.most_common()),
        "dropped_replies": dict(ledger.replies.most_common()),
        "with_thought": statistics.with_thought,
        "sources": sources,
        "hash": digest,
        "import_report": imported.as_json(),
        "name_search": builder.anonymiser.searched_scripts,
    }


def dataset_details(statistics: DatasetStatistics, ledger: Ledger) -> dict[str, Any]:
    """Return the fields of `stats.json` beyond the summary."""
    return {
        "reply_tokens": statistics.reply_tokens,
        "by_source": statistics.sources(ledger),
        "by_kind": dict(statistics.kinds),
        "by_right": dict(statistics.rights),
        "with_lore": statistics.with_lore,
        "with_trimmed_history": statistics.with_trimmed_history,
        "with_earlier_history": statistics.with_earlier_history,
        "tokens_per_sample": length_distribution(statistics.lengths),
        "tokens_per_reply": length_distribution(statistics.reply_lengths),
    }


def length_distribution(lengths: Sequence[int]) -> dict[str, Any]:
    """Return quantiles and a histogram: `counts[i]` lengths are at least `edges[i]` and below
    `edges[i + 1]`.
    """
    if not lengths:
        return {"min": 0, "median": 0, "p95": 0, "max": 0, "edges": [], "counts": []}
    values = np.asarray(lengths)
    quantiles = np.quantile(values, [0, 0.5, 0.95, 1], method="nearest")
    low, middle, high, top = map(int, quantiles)
    width = max(1, -(-(top + 1 - low) // HISTOGRAM_BINS))
    edges = list(range(low, top + width + 1, width))
    counts = list(map(int, np.histogram(values, bins=edges)[0]))
    return {"min": low, "median": middle, "p95": high, "max": top, "edges": edges, "counts": counts}


def render_data_sheet(
    name: str, plan: DatasetPlan, base_model: str, stats: Mapping[str, Any]
) -> str:
    """Render `README.md` of a data set folder from `stats.json`."""
    environment = Environment(  # nosec B701  # markdown
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "n": "{:,}".format,
        "cell": lambda value: str(value).replace("|", "\\|"),
    }
    by_source = stats["by_source"].values()
    samples = sum(figures["train"] + figures["eval"] for figures in by_source)
    template = environment.get_template("data_sheet.md.jinja")
    return template.render(
        name=name,
        plan=plan,
        base_model=base_model,
        stats=stats,
        total=max(samples, 1),
        permission_note=render_permission_note,
        describe_name_search=describe_name_search,
    )


def render_permission_note(permission: str) -> str:
    """Render the data sheet's note on samples that came through Discord's API."""
    return (
        f"`{DISCORD_API}`: only messages by members who have opted in, and replies to them. "
        "Discord's permission, as "
        f"stated by the operator: {permission}"
    )
