"""The data sheet of a data set, in markdown: the questions of "Datasheets for Datasets" (arXiv 1803.09010)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from personas.rights import DISCORD_API
from trainer.building.build import Plan


def data_sheet(name: str, plan: Plan, base_model: str, stats: Mapping[str, Any]) -> str:
    """`README.md` of a data set's folder; `stats` is what `stats.json` holds."""
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


def table(head: Iterable[str], rows: Iterable[Iterable[object]], *, numbers: bool = True) -> str:
    """A markdown table; the first column is text, the others are numbers unless all are text."""
    head = list(head)
    lines = [
        head,
        ["---", *["---:" if numbers else "---"] * (len(head) - 1)],
        *([str(cell) for cell in row] for row in rows),
    ]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _purpose(plan: Plan) -> str:
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
    return table(("source", "train", "eval", "share", "tokens", "records used"), rows)


def _lengths(stats: Mapping[str, Any]) -> str:
    def quantiles(name: str) -> list[object]:
        spread = stats[name]
        return [f"{spread[key]:,}" for key in ("min", "median", "p95", "max")]

    sample, reply = quantiles("tokens_per_sample"), quantiles("tokens_per_reply")
    summary = table(
        ("tokens", "least", "median", "95 of 100 below", "most"), [("sample", *sample), ("reply alone", *reply)]
    )
    spread = stats["tokens_per_sample"]
    bins = [
        (f"{low} to {high - 1}", count)
        for low, high, count in zip(spread["edges"], spread["edges"][1:], spread["counts"], strict=False)
    ]
    return f"{summary}\n\n{table(('tokens per sample', 'samples'), bins)}"


def _rights(stats: Mapping[str, Any]) -> str:
    rows = [(right, f"{count:,}") for right, count in stats["by_right"].items()]
    parts = [table(("right", "samples"), rows)]
    stated = [(name, *it.values()) for name, it in stats["statements"].items()]
    if stated:
        parts.append(table(("source", "right", "stated by", "on", "why"), stated, numbers=False))
    if stats["permission"]:
        parts.append(permission_note(stats["permission"]))
    return "\n\n".join(parts)


def permission_note(permission: str) -> str:
    """What stands in a data sheet beside samples that came through Discord's API."""
    return (
        f"`{DISCORD_API}`: only what members who have opted in wrote, and what answers them. Discord's permission, as "
        f"the operator states it: {permission}"
    )


def _processing(plan: Plan, base_model: str, stats: Mapping[str, Any]) -> str:
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
    return f"{used}\n\n{table(('reason', 'records'), rows)}"


def _held_out(plan: Plan) -> str:
    return (
        f"About {plan.recipe.heldout_share:.0%} of the conversations, in `eval.jsonl`. A hash of how each begins "
        "decides, together for all duplicates of it, so that it stays held out when it goes on. `heldout.bin` lists, "
        "under a key, what has been held out here and in this home before. A talk that is nearly the same as one of "
        "those, or in which half of the replies are theirs, is held out again, and a reply of theirs is never learned "
        'from ("held out before" among what was left out). Replies of fewer than eight words are known by them '
        "together with what they answer; where both are fewer, a reply may be said again. A talk that has been "
        "rewritten, beginning and replies, is a new one."
    )
