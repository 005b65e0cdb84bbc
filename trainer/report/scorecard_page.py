"""Renders a score card as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from personas.schemas.formatting import format_counts, format_value
from personas.schemas.scorecard import GateVerdict, Interval, MeanStd, ReplyText, ScoreCard, Side
from trainer.report.scorecard_markdown import ADAPTER_COLUMNS, adapter_rows, base_unchanged_text
from trainer.report.svg_charts import ChartRow, ReferenceLine, bar_chart, interval_chart

PAGE_SIDE_NAMES: Mapping[Side, str] = {"base": "base model", "live": "live version", "new": "new version"}
OUTCOME_LABELS = {"pass": "✓ pass", "warn": "! warn", "fail": "✗ fail", "not measured": "– not measured"}
TableCells = Sequence[object]

PAGE_CSS = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1c1f24; --soft: #5a6270; --rule: #d5d9e0; --card: #f5f6f8;
  --base: #8a93a3; --live: #b35900; --new: #1d4f80; --pass: #1b6e3c; --warn: #8a5a00; --fail: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ground: #15181d; --ink: #e8eaee; --soft: #a7afbc; --rule: #363c47;
  --card: #1e232b; --base: #8a93a3; --live: #f0a04b; --new: #6cb0ee; --pass: #6fd08f; --warn: #f1bf5b;
  --fail: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem; max-width: 60rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.soft { color: var(--soft); } .pass { color: var(--pass); } .warn { color: var(--warn); } .fail { color: var(--fail); }
.verdict { background: var(--card); border-left: .35rem solid var(--soft); padding: .75rem 1rem; margin: 1rem 0; }
.verdict.promote { border-color: var(--pass); } .verdict.hold { border-color: var(--warn); }
.verdict.reject { border-color: var(--fail); }
.scrolls { overflow-x: auto; } table { min-width: 30rem; border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--rule);
  overflow-wrap: normal; }
td.said { min-width: 12rem; } caption { text-align: left; color: var(--soft); padding: .25rem 0; }
svg { width: 100%; height: auto; font: 14px system-ui, sans-serif; fill: var(--ink); }
svg rect.base, svg circle.base { fill: var(--base); } svg rect.live, svg circle.live { fill: var(--live); }
svg rect.new, svg circle.new { fill: var(--new); } svg .whisker { stroke: var(--ink); stroke-width: 1.5; fill: none; }
svg .line { stroke: var(--soft); stroke-dasharray: 4 3; fill: none; } svg .small { fill: var(--soft); font-size: 12px; }
"""


def render_page(card: ScoreCard) -> str:
    """The whole page."""
    title = f"{card.persona or 'dialogue'} {card.version}"
    body = "\n".join(_body(card, title))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Score card: {escape(title)}</title><style>{PAGE_CSS}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _body(card: ScoreCard, title: str) -> Iterator[str]:
    yield f"<h1>Score card: {escape(title)}</h1>"
    yield (
        f'<p class="soft">Made on {escape(card.made_at)} in {card.seconds:,.0f} s'
        f"{', the quick way' if card.quick else ''}; measured in {escape(card.precision)}, as it is served.</p>"
    )
    yield _table(ADAPTER_COLUMNS, adapter_rows(card), base_unchanged_text(card))
    if card.verdict:
        yield from _verdict(card.verdict)
    yield from _heldout(card)
    yield from _voice(card)
    yield from _general_ability(card)
    yield from _shares(card)
    yield from _memorised(card)
    yield from _separation(card)
    yield from _texts(card)
    yield from _side_by_side(card)
    if card.left_out:
        items = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in card.left_out.items())
        yield f"<h2>Not measured</h2><ul>{items}</ul>"


def _verdict(verdict: GateVerdict) -> Iterator[str]:
    reasons = "".join(f"<li>{escape(it)}</li>" for it in verdict.reasons)
    advice = "".join(f"<li>{escape(it)}</li>" for it in verdict.advice)
    yield (
        f'<div class="verdict {verdict.verdict}"><strong>The gate says {verdict.verdict}.</strong><ul>{reasons}</ul>'
        f"{f'<p>What to do:</p><ul>{advice}</ul>' if advice else ''}</div>"
    )
    yield "<h2>Criteria</h2>"
    head = ("criterion", "outcome", "value", "asked", "why")
    rows = [
        (
            escape(it.name),
            f'<span class="{it.outcome.split()[0]}">{OUTCOME_LABELS[it.outcome]}</span>',
            escape(format_value(it.value, it.unit)),
            escape(it.threshold),
            escape(it.why),
        )
        for it in verdict.criteria
    ]
    yield _table(head, rows, "", is_escaped=True)
    yield (
        f'<p class="soft">A version that is no worse than its rival fails one of the tests by chance in '
        f"{verdict.error_rate:.0%} of cases at most. Thresholds: {escape(verdict.thresholds)}.</p>"
    )


def _heldout(card: ScoreCard) -> Iterator[str]:
    found = card.heldout
    yield "<h2>Held-out replies</h2>"
    yield bar_chart(
        "Loss in nats per reply token",
        [ChartRow(PAGE_SIDE_NAMES[it], loss, kind=it) for it, loss in found.loss.items()],
    )
    rows = [
        (PAGE_SIDE_NAMES[it], f"{loss:.4f}", f"{found.loss_without_end[it]:.4f}") for it, loss in found.loss.items()
    ]
    yield _table(("side", "loss", "without the end of turn"), rows, f"{found.replies} replies, nats per token")
    against: list[tuple[str, Interval, Side]] = [("against the base model", found.against_base, "base")]
    if found.against_live:
        against.append(("against the live version", found.against_live, "live"))
    yield _differences("How much higher the new version's loss is, nats per token", against)


def _voice(card: ScoreCard) -> Iterator[str]:
    found = card.voice
    if found is None:
        return
    yield "<h2>Voice</h2>"
    lines = [
        ReferenceLine(f"ceiling {found.ceiling:.0%}", found.ceiling),
        ReferenceLine(f"floor {found.floor:.0%}", found.floor),
    ]
    yield bar_chart("Share of replies taken to be the persona's", _spreads(found.right), lines, "{:.0%}")
    rows = [(PAGE_SIDE_NAMES[it], _spread(of), _spread(found.similarity[it])) for it, of in found.right.items()]
    rows.append(("the persona's real replies", f"{found.ceiling:.3f}", f"{found.similarity_ceiling:.3f}"))
    rows.append(("others' replies", f"{found.floor:.3f}", f"{found.similarity_floor:.3f}"))
    yield _table(
        ("replies by", "taken for the persona", "similarity"), rows, "mean ± standard deviation over the seeds"
    )


def _general_ability(card: ScoreCard) -> Iterator[str]:
    found = card.general
    if found is None:
        return
    yield "<h2>General ability</h2>"
    rows: list[tuple[str, Interval, Side]] = [("general dialogue", found.dialogue_change, "new")]
    if found.instruction_change:
        rows.append(("instructions", found.instruction_change, "new"))
    yield _differences("How much higher the loss is than the base model's, as a share of it", rows, "{:+.1%}")


def _shares(card: ScoreCard) -> Iterator[str]:
    measures: dict[str, Mapping[Side, float]] = {}
    if card.facts:
        measures["facts right, with lore"] = card.facts.right_with_lore
        measures["contradictions"] = card.facts.contradictions
        measures["out of character"] = card.facts.breaks_character
    if card.safety and (asked := sum(card.safety.prompts.values())):
        sides = dict.fromkeys(side for by in card.safety.failed.values() for side in by)
        measures["unsafe replies"] = {
            side: sum(by.get(side, 0) for by in card.safety.failed.values()) / asked for side in sides
        }
    if not measures:
        return
    yield "<h2>Facts, character, safety</h2>"
    rows = [
        ChartRow(f"{name} ({side})", share, kind=side)
        for name, by_side in measures.items()
        for side, share in by_side.items()
    ]
    yield bar_chart("Shares of replies", rows, shown="{:.0%}")
    sides = dict.fromkeys(side for by in measures.values() for side in by)
    cells = [(name, *(f"{by[side]:.1%}" if side in by else "–" for side in sides)) for name, by in measures.items()]
    yield _table(("share of replies", *(PAGE_SIDE_NAMES[side] for side in sides)), cells)
    if card.safety:
        failed = [(kind, card.safety.prompts[kind], *(by.get(side, "–") for side in sides))
                  for kind, by in card.safety.failed.items()]  # fmt: skip
        yield _table(
            ("unsafe replies", "prompts", *(PAGE_SIDE_NAMES[side] for side in sides)),
            failed,
            "counts, by kind of prompt",
        )


def _memorised(card: ScoreCard) -> Iterator[str]:
    if found := card.memorised:
        yield "<h2>Memorised</h2>"
        rows = [
            ("trained replies that come back word for word from their first half", f"{found.verbatim:.1%}",
             f"{found.verbatim_base:.1%}", f"{found.prefixes} replies"),
            ("loss on held-out replies less that on trained ones",
             *(f"{found.gap[side]:+.4f}" if side in found.gap else "–" for side in ("new", "base")), "nats per token"),
            ("personal data of what it learned from in generated replies", format_counts(found.private), "–",
             f"{found.generated} replies"),
            ("personal data in them that it made up", format_counts(found.made_up), "–", f"{found.generated} replies"),
        ]  # fmt: skip
        yield _table(("", "new version", "base model", "of"), rows)
    if audit := card.audit:
        yield "<h2>Audit</h2>"
        exposures = [(repeats, audit.canaries[repeats], f"{it.mean:.2f} ± {it.sd:.2f}")
                     for repeats, it in audit.exposure.items()]  # fmt: skip
        told = f"{audit.chance:.2f} bits is chance, {audit.most:.2f} known by heart; on a copy that is never served"
        yield _table(("repeated", "canaries", "exposure (bits)"), exposures, told)


def _separation(card: ScoreCard) -> Iterator[str]:
    found = card.separation
    if found is None:
        return
    yield "<h2>Separation</h2>"
    rows = [ChartRow(f"{persona} by {name}", loss, kind="new" if name == persona else "base")
            for persona, by in found.loss.items() for name, loss in by.items()]  # fmt: skip
    yield bar_chart("Loss of each persona's replies under each adapter", rows)
    names = list(next(iter(found.loss.values()), {}))
    cells = [(persona, *(f"{by[name]:.4f}" for name in names)) for persona, by in found.loss.items()]
    told = f"own adapter best for {found.own_best:.1%} of {found.replies} replies"
    yield _table(("replies of", *(f"adapter of {name}" for name in names)), cells, told)


def _texts(card: ScoreCard) -> Iterator[str]:
    for scores in card.text:
        sides = list(next(iter(scores.scores.values()), {}))
        rows = [(name, *(_spread(by[side]) for side in sides)) for name, by in scores.scores.items()]
        yield f"<h2>Text: {escape(scores.task)}</h2>"
        yield _table(("measure", *(PAGE_SIDE_NAMES[side] for side in sides)), rows, f"{scores.prompts} prompts")


def _side_by_side(card: ScoreCard) -> Iterator[str]:
    if not card.side_by_side:
        return
    sides = list(card.side_by_side[0].replies)
    yield "<h2>Side by side</h2>"
    head = ("asked", "really said", *(PAGE_SIDE_NAMES[side] for side in sides))
    rows = [
        (escape(it.prompt), escape(it.real), *(_reply_with_stamp(it.replies[side]) for side in sides))
        for it in card.side_by_side
    ]
    yield _table(head, rows, cell="said", is_escaped=True)


def _reply_with_stamp(reply: ReplyText) -> str:
    """A reply, and what made it."""
    made = reply.made_by.version if reply.made_by else "no adapter"
    return f'{escape(reply.text)}<br><small class="soft">{escape(made)}, seed {reply.seed}</small>'


def _differences(title: str, rows: Sequence[tuple[str, Interval, Side]], shown: str = "{:+.4f}") -> str:
    plotted = [ChartRow(name, it.estimate, it.low, it.high, side) for name, it, side in rows]
    cells = [(name, *(shown.format(value) for value in (it.estimate, it.low, it.high))) for name, it, _ in rows]
    table = _table(("", "estimate", "from", "to"), cells, f"{title}; intervals of 95 %")
    return interval_chart(title, plotted, (), shown) + table


def _spreads(by_side: Mapping[Side, MeanStd]) -> list[ChartRow]:
    """Shares; no share is below 0 or above 1, however far they are spread."""
    return [
        ChartRow(PAGE_SIDE_NAMES[side], it.mean, max(0.0, it.mean - it.sd), min(1.0, it.mean + it.sd), side)
        for side, it in by_side.items()
    ]


def _spread(it: MeanStd) -> str:
    return f"{it.mean:.3f} ± {it.sd:.3f}"


def _table(
    head: TableCells, rows: Sequence[TableCells], caption: str = "", *, cell: str = "", is_escaped: bool = False
) -> str:
    def shown(value: object) -> str:
        return str(value) if is_escaped else escape(str(value))

    kind = f' class="{cell}"' if cell else ""
    heads = "".join(f'<th scope="col">{escape(str(it))}</th>' for it in head)
    lines = "".join(f"<tr>{''.join(f'<td{kind}>{shown(it)}</td>' for it in row)}</tr>" for row in rows)
    told = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scrolls"><table>{told}<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'
