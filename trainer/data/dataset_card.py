"""Statistics and data sheet of a data set, after \"Datasheets for Datasets\" (arXiv 1803.09010)."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from personas.schemas.base import DISCORD_API
from personas.schemas.formatting import markdown_table
from trainer.data.builder import BuiltSample, DatasetPlan
from trainer.data.dedup_split import TRAIN
from trainer.data.ledger import Ledger

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

    def add(self, built: BuiltSample) -> None:
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
        """Tokens with loss, or evaluated."""
        return sum(self.reply_lengths)

    def sources(self, ledger: Ledger) -> dict[str, dict[str, int]]:
        """Return, by source, its samples on each side, their tokens, and its records with their outcomes."""
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


def dataset_summary(statistics: DatasetStatistics, ledger: Ledger, digest: str) -> dict[str, Any]:
    """Return the published object of `dataset build --json`."""
    return {
        "samples": {side: statistics.samples[side] for side in ("train", "eval")},
        "tokens": statistics.tokens,
        "rows": ledger.rows,
        "rows_used": ledger.rows_used,
        "dropped": dict(ledger.dropped.most_common()),
        "sources": {name: of["train"] + of["eval"] for name, of in statistics.sources(ledger).items()},
        "hash": digest,
    }


def dataset_details(statistics: DatasetStatistics, ledger: Ledger) -> dict[str, Any]:
    """Return the fields of `stats.json` beyond the summary."""
    return {
        "reply_tokens": statistics.reply_tokens,
        "dropped_replies": dict(ledger.replies.most_common()),
        "by_source": statistics.sources(ledger),
        "by_kind": dict(statistics.kinds),
        "by_right": dict(statistics.rights),
        "with_lore": statistics.with_lore,
        "with_trimmed_history": statistics.with_trimmed_history,
        "tokens_per_sample": length_distribution(statistics.lengths),
        "tokens_per_reply": length_distribution(statistics.reply_lengths),
    }


def length_distribution(lengths: Sequence[int]) -> dict[str, Any]:
    """Return quantiles and a histogram: `counts[i]` lengths lie in `edges[i]` (inclusive) to `edges[i + 1]`
    (exclusive).
    """
    if not lengths:
        return {"min": 0, "median": 0, "p95": 0, "max": 0, "edges": [], "counts": []}
    values = np.asarray(lengths)
    low, middle, high, top = (int(value) for value in np.quantile(values, [0, 0.5, 0.95, 1], method="nearest"))
    width = max(1, -(-(top + 1 - low) // HISTOGRAM_BINS))
    edges = list(range(low, top + width + 1, width))
    counts = [int(count) for count in np.histogram(values, bins=[*edges[:-1], edges[-1]])[0]]
    return {"min": low, "median": middle, "p95": high, "max": top, "edges": edges, "counts": counts}


def render_data_sheet(name: str, plan: DatasetPlan, base_model: str, stats: Mapping[str, Any]) -> str:
    """Render `README.md` of a data set folder from `stats.json`."""
    sections = [
        f"# {name}",
        _purpose(plan),
        "## Composition",
        _composition(stats),
        "![Bars: samples by source, those held out apart; the table above has the same figures](composition.svg)",
        "## Length",
        _lengths(stats),
        "![Histogram: tokens per sample, and the limit; the table above has the same figures](lengths.svg)",
        "## Rights",
        _rights(stats),
        "## What was done to it",
        _processing(plan, base_model, stats),
        "## What was left out",
        _dropped(stats),
        "## What is held out",
        _held_out(plan),
        "## How to use it",
        "`train.jsonl` and `eval.jsonl` hold one sample a line: `messages` as the model is shown them, the reply last, "
        "and with them `kind`, `source`, `row`, `right`, `speakers` (under the names that they have in it), `arrived` "
        "(the day on which it came), `tokens`, `reply_tokens` and the `lore` that was retrieved; where it came through "
        "Discord's API also `people`, whose words it holds, under a key. "
        "`dropped.jsonl` names every record that is not in them, and why; a line with `rows` 0 is a reply that is not "
        "learned from although its record is used. `python -m trainer dataset export` writes other tools' formats.",
        f"Hash of the samples: `{stats['hash']}`. The same sources, settings and seed give the same hash.",
    ]
    return "\n\n".join(part for part in sections if part) + "\n"


def _purpose(plan: DatasetPlan) -> str:
    what = f"to speak as **{plan.persona.name}**" if plan.persona else "to hold a dialogue"
    return f"A data set that teaches a chat model {what}, one reply at a time."


def _composition(stats: Mapping[str, Any]) -> str:
    of = stats["by_source"]
    total = max(sum(figures["train"] + figures["eval"] for figures in of.values()), 1)
    rows = [
        (
            name,
            f"{figures['train']:,}",
            f"{figures['eval']:,}",
            f"{(figures['train'] + figures['eval']) / total:.0%}",
            f"{figures['tokens']:,}",
            f"{figures['rows_used']:,} of {figures['rows']:,}",
        )
        for name, figures in of.items()
    ]
    return markdown_table(("source", "train", "eval", "share", "tokens", "records used"), rows)


def _lengths(stats: Mapping[str, Any]) -> str:
    def quantiles(name: str) -> list[object]:
        spread = stats[name]
        return [f"{spread[key]:,}" for key in ("min", "median", "p95", "max")]

    sample, reply = quantiles("tokens_per_sample"), quantiles("tokens_per_reply")
    summary = markdown_table(
        ("tokens", "least", "median", "95 of 100 below", "most"), [("sample", *sample), ("reply alone", *reply)]
    )
    spread = stats["tokens_per_sample"]
    bins = [
        (f"{low} to {high - 1}", count)
        for low, high, count in zip(spread["edges"], spread["edges"][1:], spread["counts"], strict=False)
    ]
    return f"{summary}\n\n{markdown_table(('tokens per sample', 'samples'), bins)}"


def _rights(stats: Mapping[str, Any]) -> str:
    rows = [(right, f"{count:,}") for right, count in stats["by_right"].items()]
    parts = [markdown_table(("right", "samples"), rows)]
    stated = [(name, *it.values()) for name, it in stats["statements"].items()]
    if stated:
        parts.append(markdown_table(("source", "right", "stated by", "on", "why"), stated, numbers=False))
    if stats["permission"]:
        parts.append(render_permission_note(stats["permission"]))
    return "\n\n".join(parts)


def render_permission_note(permission: str) -> str:
    """Render the data sheet's note on samples that came through Discord's API."""
    return (
        f"`{DISCORD_API}`: only what members who have opted in wrote, and what answers them. Discord's permission, as "
        f"the operator states it: {permission}"
    )


def _processing(plan: DatasetPlan, base_model: str, stats: Mapping[str, Any]) -> str:
    filters, recipe = plan.filters, plan.recipe
    points = [
        f"One sample per reply, with at most {recipe.history_turns} turns before it. What did not fit into "
        f"{recipe.max_length} tokens lost its oldest turns ({stats['with_trimmed_history']:,} samples); no reply is "
        "cut.",
        f"Tokens are those of `{base_model}`.",
        f"{stats['with_lore']:,} samples carry lore; {recipe.lore_share:.0%} are to, where any matches.",
        "Members of chats have pseudonyms." if plan.persona else "",
        f"Replaced: {', '.join(f'{kind} {count:,}' for kind, count in stats['replaced'].items())} (docs/privacy.md)."
        if stats["replaced"]
        else "",
        "Of exact and near duplicates (Jaccard similarity of three-word shingles of 0.8 or more) one stays.",
        f"Languages kept: {', '.join(filters.languages)}." if filters.languages else "",
        f"Mixed {' : '.join(f'{name} {share:g}' for name, share in stats['mix'].items())}." if stats["mix"] else "",
        "All general samples (`stage` 1) come before the persona's (`stage` 2)." if plan.stages else "",
    ]
    return "\n".join(f"- {point}" for point in points if point)


def _dropped(stats: Mapping[str, Any]) -> str:
    used = f"Of {stats['rows']:,} records {stats['rows_used']:,} are used."
    if not stats["dropped"]:
        return used
    rows = [(reason, f"{count:,}") for reason, count in stats["dropped"].items()]
    return f"{used}\n\n{markdown_table(('reason', 'records'), rows)}"


def _held_out(plan: DatasetPlan) -> str:
    return (
        f"About {plan.recipe.heldout_share:.0%} of the conversations, in `eval.jsonl`. A hash of how each begins "
        "decides, together for all duplicates of it, so that it stays held out when it goes on. `heldout.bin` lists, "
        "under a key, what has been held out here and in this home before. A talk that is nearly the same as one of "
        "those, or in which half of the replies are theirs, is held out again, and a reply of theirs is never learned "
        'from ("held out before" among what was left out). Replies of fewer than eight words are known by them '
        "together with what they answer; where both are fewer, a reply may be said again. A talk that has been "
        "rewritten, beginning and replies, is a new one."
    )
