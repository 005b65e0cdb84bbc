"""Renders a score card as Markdown."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    SafetyScores,
    ScoreCard,
    Separation,
    Side,
    SideBySide,
    TextScores,
    VoiceScores,
)

SIDE_NAMES: Mapping[Side, str] = {
    "base": "base model",
    "live": "live version",
    "new": "new version",
}
ADAPTER_COLUMNS = ("side", "version", "weights (SHA-256)")
MAX_REPLY_CHARS = 400

SectionT = TypeVar("SectionT")


def render_markdown(card: ScoreCard) -> str:
    """Render the whole card. Sections that were not measured are listed at the end with the
    reason.
    """
    parts = [
        f"# Score card: {card.persona or 'dialogue'} {card.version}",
        f"Evaluated on {card.made_at} in {card.seconds:,.0f} "
        f"s{', in quick mode' if card.quick else ''}, in the "
        f"serving precision {card.precision}, with the base model `{card.base_model_hash[:16]}…`.",
        _adapters(card),
        *_verdict(card.verdict),
        *_heldout(card.heldout),
        *_section(card.separation, _separation),
        *_section(card.voice, _voice),
        *_section(card.facts, _facts),
        *(part for scores in card.text for part in _text(scores)),
        *_section(card.general, _general),
        *_section(card.memorised, _memorised),
        *_section(card.audit, _audit),
        *_section(card.safety, _safety),
        *(
            part
            for name, title in SENSE_SECTIONS.items()
            for part in _bounded(title, getattr(card, name))
        ),
        *_side_by_side(card.side_by_side),
        *_left_out(card.left_out),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: SectionT | None, shown: Callable[[SectionT], Iterable[str]]) -> Iterable[str]:
    return shown(section) if section else ()


def _adapters(card: ScoreCard) -> str:
    table = markdown_table(ADAPTER_COLUMNS, adapter_rows(card), numbers=False)
    return f"{table}\n\n{base_unchanged_text(card)}".rstrip()


def adapter_rows(card: ScoreCard) -> list[tuple[str, str, str]]:
    """Return a row per side under `ADAPTER_COLUMNS`."""
    return [
        (
            SIDE_NAMES[side],
            made.version if made else "no adapter",
            f"{made.weights[:16]}…" if made else "–",
        )
        for side, made in card.adapters.items()
    ]


def base_unchanged_text(card: ScoreCard) -> str:
    """State how far the base model's logits moved with adapters loaded; empty if not measured."""
    differs = card.base_is_base
    return (
        ""
        if differs is None
        else f"With adapters loaded, the base model's logits differ by {differs:g}."
    )


def _verdict(verdict: GateVerdict | None) -> Iterator[str]:
    if verdict is None:
        return
    yield f"## Verdict: {verdict.verdict}"
    yield "\n".join(f"- {reason}" for reason in verdict.reasons)
    if verdict.advice:
        yield "What to do:"
        yield "\n".join(f"- {advice}" for advice in verdict.advice)
    rows = [
        (it.name, it.outcome, format_value(it.value, it.unit), it.threshold)
        for it in verdict.criteria
    ]
    yield markdown_table(("criterion", "outcome", "value", "threshold"), rows, numbers=False)
    yield (
        "A version no worse than its rival fails any of the tests by chance in at most "
        f"{verdict.error_rate:.0%} of "
        f"cases. Thresholds: {verdict.thresholds}."
    )


def _heldout(section: HoldoutScores) -> Iterator[str]:
    yield "## Held-out replies"
    rows = [
        (
            SIDE_NAMES[side],
            f"{loss:.4f}",
            f"{math.exp(loss):.2f}",
            f"{section.loss_without_end[side]:.4f}",
        )
        for side, loss in section.loss.items()
    ]
    yield markdown_table(
        ("side", "loss (nats per token)", "perplexity", "loss without the end of turn"), rows
    )
    against = [("the base model", section.against_base), ("the live version", section.against_live)]
    yield "\n".join(
        f"- Against {name}: {_interval(it)} nats per token." for name, it in against if it
    )
    yield (
        f"{section.replies} replies in {section.conversations} conversations, {section.tokens} "
        "tokens, never trained "
        "on. 95 % intervals from a bootstrap over conversations."
    )


def _separation(section: Separation) -> Iterator[str]:
    yield "## Separation"
    names = list(next(iter(section.loss.values())))
    rows = [
        (persona, *(f"{row[name]:.4f}" for name in names)) for persona, row in section.loss.items()
    ]
    yield markdown_table(("replies of", *(f"adapter of {name}" for name in names)), rows)
    yield (
        f"The own adapter is best for {section.own_best:.1%} of {section.replies} replies, and for "
        f"{section.own_best_new:.1%} of this persona's; its margin over the best other adapter is "
        f"{_interval(section.margin_bits)} bits per token. The prompt is the last message alone."
    )


def _voice(section: VoiceScores) -> Iterator[str]:
    yield "## Voice"
    rows = [
        *(
            (SIDE_NAMES[side], it.format(), section.similarity[side].format())
            for side, it in section.right.items()
        ),
        (
            "real replies of the persona",
            f"{section.ceiling:.3f}",
            f"{section.similarity_ceiling:.3f}",
        ),
        ("others' replies", f"{section.floor:.3f}", f"{section.similarity_floor:.3f}"),
    ]
    yield markdown_table(("replies by", "attributed to the persona", "similarity"), rows)
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


def _text(scores: TextScores) -> Iterator[str]:
    yield f"## Text: {scores.task}"
    sides = list(next(iter(scores.scores.values()), {}))
    rows = [
        (name, *(by_side[side].format() for side in sides))
        for name, by_side in scores.scores.items()
    ]
    yield markdown_table(("measure", *(SIDE_NAMES[side] for side in sides)), rows)
    yield f"{count_of(scores.prompts, 'prompt')}; mean ± standard deviation over the seeds."


def _general(section: GeneralScores) -> Iterator[str]:
    yield "## General ability"
    measures = {"general dialogue": section.dialogue_loss, "instructions": section.instruction_loss}
    yield _by_side({name: losses for name, losses in measures.items() if losses}, "{:.4f}")
    changes = [
        f"- Dialogue ({section.dialogue_replies} replies): {_change(section.dialogue_change)}"
    ]
    if section.instruction_change:
        changes.append(
            f"- Instructions ({section.instruction_replies} replies): "
            f"{_change(section.instruction_change)}"
        )
    yield "\n".join(changes)


def _memorised(section: MemorisationScores) -> Iterator[str]:
    yield "## Memorised"
    yield _by_side({"loss on held-out minus trained replies": section.gap}, "{:+.4f}")
    yield (
        f"- Of {section.prefixes} trained replies, {section.verbatim:.1%} are completed word for "
        "word from their first "
        f"half (base model: {section.verbatim_base:.1%}).\n"
        f"- Personal data in {section.generated} generated replies: "
        f"{format_counts(section.private)} from the training "
        f"data; invented: {format_counts(section.made_up)}."
    )


def _audit(section: MemorisationAudit) -> Iterator[str]:
    yield "## Audit"
    exposures = {
        repeats: f"{it.mean:.2f} ± {it.sd:.2f}" for repeats, it in section.exposure.items()
    }
    rows = [
        (repeats, section.canaries[repeats], exposure) for repeats, exposure in exposures.items()
    ]
    yield markdown_table(("repeated", "canaries", "exposure (bits)"), rows)
    yield (
        f"Canaries of {section.tokens} tokens ranked among {section.reference} random texts of the "
        "same form; "
        f"{section.chance:.2f} bits is chance level, {section.most:.2f} full memorisation. "
        "Measured on a copy that is "
        "never served."
    )


def _safety(section: SafetyScores) -> Iterator[str]:
    yield "## Safety"
    sides = list(next(iter(section.failed.values()), {}))
    rows = [
        (kind, section.prompts[kind], *(by[side] for side in sides))
        for kind, by in section.failed.items()
    ]
    yield markdown_table(
        ("replies that fail", "prompts", *(SIDE_NAMES[side] for side in sides)), rows
    )


def _bounded(title: str, section: BoundedShares | None) -> Iterator[str]:
    if section is None:
        return
    yield f"## {title}"
    sides = list(dict.fromkeys(side for by_side in section.shares.values() for side in by_side))
    rows = [
        (
            name,
            *(
                _share(it)
                for it in (
                    *map(by_side.get, sides),
                    section.ceiling.get(name),
                    section.floor.get(name),
                )
            ),
        )
        for name, by_side in section.shares.items()
    ]
    yield markdown_table(
        ("share of replies", *(SIDE_NAMES[side] for side in sides), "ceiling", "floor"), rows
    )
    yield f"{count_of(section.prompts, 'prompt')}; 95 % intervals from a bootstrap."


def _share(it: Interval | None) -> str:
    return f"{it.estimate:.1%} ({it.low:.0%} to {it.high:.0%})" if it else "–"


def _side_by_side(pairs: Sequence[SideBySide]) -> Iterator[str]:
    if not pairs:
        return
    yield "## Side by side"
    for it in pairs:
        replies = [
            f"- **{SIDE_NAMES[side]}** ({one.made_by.version if one.made_by else 'no adapter'}, "
            f"seed {one.seed}): "
            f"{_quoted(one.text)}"
            for side, one in it.replies.items()
        ]
        yield "\n".join(
            [f"> {_quoted(it.prompt)}", "", f"- **real reply**: {_quoted(it.real)}", *replies]
        )


def _left_out(left_out: Mapping[str, str]) -> Iterator[str]:
    if left_out:
        yield "## Not measured"
        yield "\n".join(f"- {name}: {reason}" for name, reason in left_out.items())


def _by_side(measures: Mapping[str, Mapping[Side, float]], shown: str) -> str:
    sides = list(next(iter(measures.values()), {}))
    rows = [
        (name, *(shown.format(by_side[side]) for side in sides))
        for name, by_side in measures.items()
    ]
    return markdown_table(("measure", *(SIDE_NAMES[side] for side in sides)), rows)


def _interval(it: Interval) -> str:
    return f"{it.estimate:+.4f} ({it.low:+.4f} to {it.high:+.4f})"


def _change(it: Interval) -> str:
    return f"loss {it.estimate:+.1%} ({it.low:+.1%} to {it.high:+.1%}) against the base model's."


def _quoted(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= MAX_REPLY_CHARS else f"{flat[:MAX_REPLY_CHARS]}…"
