"""Renders a score card as Markdown."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TypeVar

from personas.schemas.formatting import count_of, format_counts, format_value, markdown_table
from personas.schemas.scorecard import (
    SENSE_SECTIONS,
    BoundedShares,
    FactScores,
    GateVerdict,
    GeneralScores,
    HoldoutScores,
    Interval,
    MemorisationAudit,
    MemorisationScores,
    ReplyCounts,
    SafetyScores,
    ScoreCard,
    Separation,
    Side,
    VoiceScores,
)
from trainer.gate.advice import commands_for

SIDE_NAMES: Mapping[Side, str] = {
    "base": "base model",
    "live": "live version",
    "new": "new version",
}
ADAPTER_COLUMNS = ("side", "version", "weights (SHA-256)")
MAX_REPLY_CHARS = 400
SHORT_CARD_TEXT = ", all sides under the short card"

SectionT = TypeVar("SectionT")


def render_markdown(card: ScoreCard) -> str:
    """Render the whole card. Sections that were not measured are listed at the end with the
    reason.
    """
    mode = ", in quick mode" if card.quick else ""
    parts = [
        f"# Score card: {card.persona or 'dialogue'} {card.version}",
        f"Evaluated on {card.made_at} in {card.seconds:,.0f} s{mode}, in the serving precision "
        f"{card.precision}, with the base model `{card.base_model_hash[:16]}…`"
        f"{SHORT_CARD_TEXT if card.prompt_card == 'short' else ''}.",
        *_side_by_side(card),
        *_verdict(card.verdict, commands_for(card)),
        _adapters(card),
        *_heldout(card.heldout),
        *_section(card.separation, _separation),
        *_section(card.voice, _voice),
        *_section(card.facts, _facts),
    ]
    parts += _section(card.replies, _replies)
    parts += _section(card.general, _general)
    parts += _section(card.memorised, _memorised)
    parts += _section(card.audit, _audit)
    parts += _section(card.safety, _safety)
    for name, title in SENSE_SECTIONS.items():
        parts += _bounded(title, getattr(card, name))
    parts += _left_out(card.left_out)
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: SectionT | None, shown: Callable[[SectionT], Iterable[str]]) -> Iterable[str]:
    return shown(section) if section else ()


def _adapters(card: ScoreCard) -> str:
    table = markdown_table(ADAPTER_COLUMNS, adapter_rows(card), numbers=False)
    return f"{table}\n\n{base_unchanged_text(card)}".rstrip()


def adapter_rows(card: ScoreCard) -> list[tuple[str, str, str]]:
    """Return a row per side under `ADAPTER_COLUMNS`."""
    rows = []
    for side, stamp in card.adapters.items():
        if stamp:
            rows.append((SIDE_NAMES[side], stamp.version, f"{stamp.weights[:16]}…"))
        else:
            rows.append((SIDE_NAMES[side], "no adapter", "–"))
    return rows


def base_unchanged_text(card: ScoreCard) -> str:
    """State how far the base model's logits moved with adapters loaded; empty if not measured."""
    if card.base_is_base is None:
        return ""
    return f"With adapters loaded, the base model's logits differ by {card.base_is_base:g}."


def _verdict(verdict: GateVerdict | None, commands: Sequence[str]) -> Iterator[str]:
    if verdict is None:
        return
    yield f"## Verdict: {verdict.verdict}"
    yield "\n".join(f"- {reason}" for reason in verdict.reasons)
    if verdict.advice:
        yield "What to do:"
        yield "\n".join(f"- {advice}" for advice in verdict.advice)
    if commands:
        yield f"In a terminal: {', '.join(f'`{command}`' for command in dict.fromkeys(commands))}."
    rows = []
    for criterion in verdict.criteria:
        value = format_value(criterion.value, criterion.unit)
        rows.append((criterion.name, criterion.outcome, value, criterion.threshold))
    yield markdown_table(("criterion", "outcome", "value", "threshold"), rows, numbers=False)
    yield (
        "A version no worse than its rival fails any of the tests by chance in at most "
        f"{verdict.error_rate:.0%} of cases. Thresholds: {verdict.thresholds}."
    )


def _heldout(section: HoldoutScores) -> Iterator[str]:
    yield "## Held-out replies"
    rows = []
    for side, loss in section.loss.items():
        without_end = f"{section.loss_without_end[side]:.4f}"
        rows.append((SIDE_NAMES[side], f"{loss:.4f}", f"{math.exp(loss):.2f}", without_end))
    head = ("side", "loss (nats per token)", "perplexity", "loss without the end of turn")
    yield markdown_table(head, rows)
    differences = [f"- Against the base model: {_interval(section.against_base)} nats per token."]
    if section.against_live:
        difference = _interval(section.against_live)
        differences.append(f"- Against the live version: {difference} nats per token.")
    yield "\n".join(differences)
    yield (
        f"{section.replies} replies in {section.conversations} conversations, {section.tokens} "
        "tokens, never trained on. 95 % intervals from a bootstrap over conversations."
    )


def _separation(section: Separation) -> Iterator[str]:
    yield "## Separation"
    names = list(next(iter(section.loss.values())))
    rows = []
    for persona, losses in section.loss.items():
        rows.append((persona, *(f"{losses[name]:.4f}" for name in names)))
    yield markdown_table(("replies of", *(f"adapter of {name}" for name in names)), rows)
    yield (
        f"The own adapter is best for {section.own_best:.1%} of {section.replies} replies, and for "
        f"{section.own_best_new:.1%} of this persona's; its margin over the best other adapter is "
        f"{_interval(section.margin_bits)} bits per token. The prompt is the last message alone."
    )


def _voice(section: VoiceScores) -> Iterator[str]:
    yield "## Voice"
    rows = []
    for side, right in section.right.items():
        rows.append((SIDE_NAMES[side], right.format()))
    rows.append(("held-out replies of the persona", f"{section.ceiling:.3f}"))
    rows.append(("others' replies", f"{section.floor:.3f}"))
    yield markdown_table(("replies by", "attributed to the persona"), rows)
    yield (
        f"{section.replies} generated replies; the classifier's classes are "
        f"{', '.join(section.classes)}."
    )


def _facts(section: FactScores) -> Iterator[str]:
    yield "## Facts"
    measures = {
        "right, with lore": section.right_with_lore,
        "right, without": section.right_without_lore,
        "contradictions": section.contradictions,
        "out of character": section.breaks_character,
    }
    yield _by_side(measures, "{:.1%}")
    yield f"{count_of(section.questions, 'question')} with known answers."


def _replies(section: ReplyCounts) -> Iterator[str]:
    yield "## Replies"
    yield _by_side({"end by themselves": section.ended, "copied": section.copied}, "{:.1%}")
    yield (
        f"To {count_of(section.prompts, 'held-out prompt')}. Copied: eight words in a row of a trained "
        "reply or of the card, or a whole one. No copy counts for the voice."
    )


def _general(section: GeneralScores) -> Iterator[str]:
    yield "## General ability"
    measures = {"general dialogue": section.dialogue_loss, "instructions": section.instruction_loss}
    yield _by_side({name: losses for name, losses in measures.items() if losses}, "{:.4f}")
    change = _change(section.dialogue_change)
    changes = [f"- Dialogue ({section.dialogue_replies} replies): {change}"]
    if section.instruction_change:
        change = _change(section.instruction_change)
        changes.append(f"- Instructions ({section.instruction_replies} replies): {change}")
    yield "\n".join(changes)


def _memorised(section: MemorisationScores) -> Iterator[str]:
    yield "## Memorised"
    if section.gap:
        yield _by_side({"loss on held-out minus trained replies": section.gap}, "{:+.4f}")
    yield (
        f"- Of {section.prefixes} trained replies, {section.verbatim:.1%} are completed word for "
        f"word from their first half (base model: {section.verbatim_base:.1%}).\n"
        f"- Personal data in {section.generated} generated replies: "
        f"{format_counts(section.private)} from the training data; invented: "
        f"{format_counts(section.made_up)}."
    )


def _audit(section: MemorisationAudit) -> Iterator[str]:
    yield "## Audit"
    rows = []
    for repeats, exposure in section.exposure.items():
        bits = f"{exposure.mean:.2f} ± {exposure.sd:.2f}"
        rows.append((repeats, section.canaries[repeats], bits))
    yield markdown_table(("repeated", "canaries", "exposure (bits)"), rows)
    yield (
        f"Canaries of {section.tokens} tokens ranked among {section.reference} random texts of the "
        f"same form; {section.chance:.2f} bits is chance level, {section.most:.2f} full "
        "memorisation. Measured on a copy that is never served."
    )


def _safety(section: SafetyScores) -> Iterator[str]:
    yield "## Safety"
    sides = list(next(iter(section.failed.values()), {}))
    rows = []
    for kind, failed in section.failed.items():
        rows.append((kind, section.prompts[kind], *(failed[side] for side in sides)))
    names = [SIDE_NAMES[side] for side in sides]
    yield markdown_table(("replies that fail", "prompts", *names), rows)


def _bounded(title: str, section: BoundedShares | None) -> Iterator[str]:
    if section is None:
        return
    yield f"## {title}"
    # Measures may be of different sides: the base model is not asked everything.
    sides = list(dict.fromkeys(chain.from_iterable(section.shares.values())))
    rows = []
    for name, by_side in section.shares.items():
        shares = [by_side.get(side) for side in sides]
        shares += [section.ceiling.get(name), section.floor.get(name)]
        rows.append((name, *map(_share, shares)))
    names = [SIDE_NAMES[side] for side in sides]
    yield markdown_table(("share of replies", *names, "ceiling", "floor"), rows)
    yield f"{count_of(section.prompts, 'prompt')}; 95 % intervals from a bootstrap."


def _share(share: Interval | None) -> str:
    if share is None:
        return "–"
    return f"{share.estimate:.1%} ({share.low:.0%} to {share.high:.0%})"


def _side_by_side(card: ScoreCard) -> Iterator[str]:
    if not card.side_by_side:
        return
    yield "## Side by side"
    label = card.reference_label.removeprefix("the ")
    for pair in card.side_by_side:
        lines = [f"> {_quoted(pair.prompt)}", "", f"- **{label}**: {_quoted(pair.real)}"]
        for side, reply in pair.replies.items():
            version = reply.made_by.version if reply.made_by else "no adapter"
            author = f"**{SIDE_NAMES[side]}** ({version}, seed {reply.seed})"
            lines.append(f"- {author}: {_quoted(reply.text)}")
        yield "\n".join(lines)


def _left_out(left_out: Mapping[str, str]) -> Iterator[str]:
    if left_out:
        yield "## Not measured"
        yield "\n".join(f"- {name}: {reason}" for name, reason in left_out.items())


def _by_side(measures: Mapping[str, Mapping[Side, float]], shown: str) -> str:
    sides = list(next(iter(measures.values()), {}))
    rows = []
    for name, by_side in measures.items():
        rows.append((name, *(shown.format(by_side[side]) for side in sides)))
    return markdown_table(("measure", *(SIDE_NAMES[side] for side in sides)), rows)


def _interval(interval: Interval) -> str:
    return f"{interval.estimate:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"


def _change(interval: Interval) -> str:
    bounds = f"{interval.low:+.1%} to {interval.high:+.1%}"
    return f"loss {interval.estimate:+.1%} ({bounds}) against the base model's."


def _quoted(text: str) -> str:
    flat = " ".join(text.split())
    if len(flat) <= MAX_REPLY_CHARS:
        return flat
    return f"{flat[:MAX_REPLY_CHARS]}…"
