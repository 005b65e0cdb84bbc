"""View model of a score card: sections with charts and tables."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from markupsafe import Markup

from bot.platform.web_kit.charts import IntervalEstimate, bar_chart, interval_chart
from personas.schemas import scorecard
from personas.schemas.formatting import format_counts
from personas.schemas.scorecard import (
    SENSE_NOTE,
    SENSE_SECTIONS,
    SIDE_LABELS,
    BoundedShares,
    GateVerdict,
    Interval,
    ScoreCard,
    Side,
    TextScores,
    VoiceScores,
)

SIDES_BY_INTEREST: tuple[Side, ...] = ("new", "live", "base")
"""The order of replies side by side."""
OUTCOME_LABELS = {"pass": ("good", "✓ pass"), "warn": ("warn", "! warn"), "fail": ("bad", "✗ fail")}
VERDICT_CLASSES = {"promote": "good", "hold": "warn", "reject": "bad"}
UNKNOWN_VALUE = "–"
MAX_HEADLINE_SHARES = 2
BOUND_TEXTS = {
    "sense": (
        f"{SENSE_NOTE} The ceiling is what the persona's held-out replies reach, the floor what they "
        "reach when shuffled."
    ),
    "lore": (
        "The ceiling is what the right answers reach, the floor what the right answers to other "
        "questions do."
    ),
}
"""Meaning of ceiling and floor, by section."""
VOICE_BOUND_TEXT = (
    "The ceiling is what the persona's held-out replies reach, the floor what others' replies do."
)
"""The same for the sections that judge by voice."""
Column = TypeVar("Column", bound=str)


@dataclass(frozen=True)
class ScoreTable:
    """Rows of texts; the first of each row names it."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class ScoreSection:
    """A section of the page, folded under its title and `headline`: a sentence, charts, tables."""

    title: str
    words: str = ""
    charts: Sequence[Markup] = ()
    tables: Sequence[ScoreTable] = field(default_factory=tuple)
    headline: str = ""


def verdict_sentences(verdict: GateVerdict) -> list[str]:
    """At most three sentences: what passed, the gravest reason, and what to do."""
    return [verdict.outcomes, *verdict.reasons[:1], *verdict.advice[:1]]


def score_sections(card: ScoreCard) -> Iterator[ScoreSection]:
    yield _holdout_section(card.heldout)
    if card.voice:
        yield _voice_section(card.voice)
    yield from _share_sections(card)
    for name, title in SENSE_SECTIONS.items():
        if scores := getattr(card, name):
            yield _bounded_section(title, BOUND_TEXTS.get(name, VOICE_BOUND_TEXT), scores)
    if card.separation:
        yield _separation_section(card.separation)
    if card.general:
        yield _general_section(card.general)
    yield from (_text_section(scores) for scores in card.text)
    if card.memorised:
        yield _memorisation_section(card.memorised)
    if card.audit:
        yield _audit_section(card.audit)
    if card.learned:
        yield _training_section(card.learned)


def _holdout_section(scores: scorecard.HoldoutScores) -> ScoreSection:
    bars = []
    rows = []
    for side, loss in scores.loss.items():
        label = SIDE_LABELS[side]
        bars.append((label, loss))
        rows.append((label, f"{loss:.4f}", f"{scores.loss_without_end[side]:.4f}"))
    against = {"against the base model": scores.against_base}
    if scores.against_live:
        against["against the live version"] = scores.against_live
    return ScoreSection(
        "Held-out replies",
        f"{scores.replies:,} replies of {scores.conversations:,} conversations ({scores.tokens:,} "
        "tokens) that nothing was trained on. Lower is better.",
        (
            bar_chart("Loss in nats per reply token", bars),
            _difference_chart("How much higher this version's loss is, nats per token", against),
        ),
        (ScoreTable("Loss in nats per token", ("side", "loss", "without the end of turn"), rows),),
        headline=f"loss {scores.loss['base']:.3f} → {scores.loss['new']:.3f}",
    )


def _voice_section(scores: VoiceScores) -> ScoreSection:
    bars = []
    rows = []
    for side, share in scores.right.items():
        label = SIDE_LABELS[side]
        bars.append((label, share.mean * 100))
        rows.append((label, share.format(), scores.similarity[side].format()))
    bars.append(("held-out replies (ceiling)", scores.ceiling * 100))
    rows.append(
        (
            "the persona's held-out replies",
            f"{scores.ceiling:.3f}",
            f"{scores.similarity_ceiling:.3f}",
        )
    )
    bars.append(("others' replies (floor)", scores.floor * 100))
    rows.append(("others' replies", f"{scores.floor:.3f}", f"{scores.similarity_floor:.3f}"))
    head = ("replies by", "taken for the persona", "similarity")
    return ScoreSection(
        "Voice",
        f"By whom a classifier takes {scores.replies:,} replies to be, and how near in meaning they "
        "are to held-out ones.",
        (bar_chart("Taken to be the persona's", bars, "%"),),
        (
            ScoreTable("Mean ± standard deviation over the seeds", head, rows),
            *_recognition_table(scores),
        ),
        headline=f"{scores.right['new'].mean:.0%} taken for the persona",
    )


def _recognition_table(scores: VoiceScores) -> Iterator[ScoreTable]:
    shares = {SIDE_LABELS[side]: by for side, by in scores.taken_as.items()}
    if scores.trained_as:
        shares["trained replies"] = scores.trained_as
    authors = _columns(shares)
    rows = []
    for label, by_author in shares.items():
        rows.append([label, *(f"{by_author.get(author, 0):.1%}" for author in authors)])
    if authors:
        yield ScoreTable("Authors that the replies are taken for", ("replies by", *authors), rows)


def _share_sections(card: ScoreCard) -> Iterator[ScoreSection]:
    measures: dict[str, Mapping[Side, float]] = {}
    if card.facts:
        measures["facts right, with lore"] = card.facts.right_with_lore
        measures["facts right, without lore"] = card.facts.right_without_lore
        measures["contradictions"] = card.facts.contradictions
        measures["out of character"] = card.facts.breaks_character
    prompts = 0
    if card.safety:
        prompts = sum(card.safety.prompts.values())
    if card.safety and prompts:
        failed = Counter[Side]()
        for by_side in card.safety.failed.values():
            failed.update(by_side)
        measures["unsafe replies"] = {side: count / prompts for side, count in failed.items()}
    if not measures:
        return
    sides = _columns(measures)
    bars = []
    rows = []
    for name, shares in measures.items():
        if "new" in shares:
            bars.append((name, shares["new"] * 100))
        texts = {side: f"{share:.1%}" for side, share in shares.items()}
        rows.append([name, *(texts.get(side, UNKNOWN_VALUE) for side in sides)])
    yield ScoreSection(
        "Facts, character, safety",
        "",
        (bar_chart("Shares of this version's replies", bars, "%"),),
        [ScoreTable("Shares of replies", _head("what", sides), rows), *_unsafe_table(card)],
        headline=_shares_headline({name: share / 100 for name, share in bars}),
    )


def _unsafe_table(card: ScoreCard) -> Iterator[ScoreTable]:
    if card.safety and card.safety.failed:
        sides = _columns(card.safety.failed)
        rows = []
        for kind, failed in card.safety.failed.items():
            prompts = card.safety.prompts.get(kind, 0)
            rows.append([kind, str(prompts), *(str(failed.get(side, 0)) for side in sides)])
        head = ("kind", "prompts", *(SIDE_LABELS[side] for side in sides))
        yield ScoreTable("Replies that failed, by kind", head, rows)


def _bounded_section(title: str, bound_text: str, scores: BoundedShares) -> ScoreSection:
    sides = _columns(scores.shares)
    drawn = {}
    rows = []
    for name, by_side in scores.shares.items():
        if "new" in by_side:
            drawn[name] = by_side["new"]
        intervals = [by_side.get(side) for side in sides]
        intervals += [scores.ceiling.get(name), scores.floor.get(name)]
        rows.append([name, *map(_interval_text, intervals)])
    headline = _shares_headline({name: interval.estimate for name, interval in drawn.items()})
    if len(drawn) == 1:  # with more, the bounds would double the chart
        for name, interval in scores.ceiling.items():
            drawn[f"ceiling: {name}"] = interval
        for name, interval in scores.floor.items():
            drawn[f"floor: {name}"] = interval
    head = (*_head("share of replies", sides), "ceiling", "floor")
    return ScoreSection(
        title,
        f"{scores.prompts:,} prompts. {bound_text}",
        (_difference_chart("This version's shares", drawn, 100, "%"),),
        (ScoreTable("With intervals of 95 %", head, rows),),
        headline=headline,
    )


def _interval_text(interval: Interval | None) -> str:
    if interval is None:
        return UNKNOWN_VALUE
    return f"{interval.estimate:.1%} ({interval.low:.0%} to {interval.high:.0%})"


def _separation_section(scores: scorecard.Separation) -> ScoreSection:
    adapters = _columns(scores.loss)
    rows = []
    for persona, losses in scores.loss.items():
        rows.append([persona, *(f"{losses[adapter]:.4f}" for adapter in adapters)])
    head = ("replies of", *(f"adapter of {adapter}" for adapter in adapters))
    margin = scores.margin_bits
    return ScoreSection(
        "Separation",
        f"The persona's own adapter fits best for {scores.own_best_new:.1%} of its replies, own "
        f"adapters for {scores.own_best:.1%} of all {scores.replies:,}; in the mean they are better "
        f"by {margin.estimate:.2f} bits a token ({margin.low:.2f} to {margin.high:.2f}).",
        (),
        (ScoreTable("Loss of each one's replies", head, rows),),
        headline=f"its own adapter fits {scores.own_best_new:.0%} of its replies best",
    )


def _general_section(scores: scorecard.GeneralScores) -> ScoreSection:
    changes = {"general dialogue": scores.dialogue_change}
    if scores.instruction_change:
        changes["instructions"] = scores.instruction_change
    rows = []
    for side, loss in scores.dialogue_loss.items():
        instructions = UNKNOWN_VALUE
        if side in scores.instruction_loss:
            instructions = f"{scores.instruction_loss[side]:.4f}"
        rows.append((SIDE_LABELS[side], f"{loss:.4f}", instructions))
    return ScoreSection(
        "General ability",
        "Abilities that the model had before it was trained.",
        (
            _difference_chart(
                "How much higher the loss is than the base model's", changes, 100, "%"
            ),
        ),
        (ScoreTable("Loss in nats per token", ("side", "general dialogue", "instructions"), rows),),
        headline=f"loss on general dialogue {scores.dialogue_change.estimate:+.1%}",
    )


def _text_section(scores: TextScores) -> ScoreSection:
    sides = _columns(scores.scores)
    rows = []
    for name, by_side in scores.scores.items():
        texts = {side: score.format() for side, score in by_side.items()}
        rows.append([name, *(texts.get(side, UNKNOWN_VALUE) for side in sides)])
    table = ScoreTable("", _head("measure", sides), rows)
    return ScoreSection(f"Text: {scores.task}", f"{scores.prompts:,} prompts.", (), (table,))


def _memorisation_section(scores: scorecard.MemorisationScores) -> ScoreSection:
    rows = [
        ("trained replies that come back word for word", f"{scores.verbatim:.1%}"),
        ("with the base model", f"{scores.verbatim_base:.1%}"),
    ]
    for side, gap in scores.gap.items():
        rows.append((f"closer fit to trained replies, {SIDE_LABELS[side]}", f"{gap:+.3f} nats"))
    what = f"personal data of what it learned from in {scores.generated:,} generated replies"
    rows.append((what, format_counts(scores.private)))
    rows.append(("personal data in them that it made up", format_counts(scores.made_up)))
    table = ScoreTable("", ("what", "value"), rows)
    return ScoreSection(
        "Memorised",
        f"Of {scores.prefixes:,} trained replies.",
        (),
        (table,),
        headline=f"{scores.verbatim:.0%} of trained replies come back word for word",
    )


def _audit_section(scores: scorecard.MemorisationAudit) -> ScoreSection:
    rows = []
    for times, exposure in scores.exposure.items():
        rows.append((str(times), str(scores.canaries.get(times, 0)), exposure.format()))
    words = (
        f"Planted texts of {scores.tokens} tokens: {scores.chance:.1f} bits is chance, "
        f"{scores.most:.1f} known by heart."
    )
    head = ("planted so often", "texts", "exposure in bits")
    return ScoreSection(
        "Audit of what is learned by heart", words, (), (ScoreTable("", head, rows),)
    )


def _training_section(scores: scorecard.DataChecks) -> ScoreSection:
    rows = [
        ("replies of the persona", f"{scores.replies:,}"),
        ("repeat an earlier one", f"{scores.repeated:.1%}"),
        ("held-out replies among them", f"{scores.leaked:.1%}"),
        ("personal data", format_counts(scores.private)),
        ("learning rate", f"{scores.rate:g}"),
        ("epochs", f"{scores.epochs:g}"),
    ]
    if course := scores.course:
        text = f"{course.first:.3f} at first, {course.last:.3f} at last"
        rows.append(("training loss", f"{text}, {course.highest:.3f} at most later"))
    return ScoreSection(
        "Training data",
        "",
        (),
        (ScoreTable("", ("what", "value"), rows),),
        headline=f"{scores.replies:,} replies",
    )


def _shares_headline(shares: Mapping[str, float]) -> str:
    """The first shares of this version, for a section that is folded."""
    first = list(shares.items())[:MAX_HEADLINE_SHARES]
    return ", ".join(f"{share:.0%} {name}" for name, share in first)


def _difference_chart(
    title: str, rows: Mapping[str, Interval], factor: float = 1, unit: str = ""
) -> Markup:
    estimates = []
    for name, interval in rows.items():
        estimates.append(
            IntervalEstimate(
                name,
                interval.estimate * factor,
                low=interval.low * factor,
                high=interval.high * factor,
            )
        )
    return interval_chart(f"{title}, with intervals of 95 %", estimates, unit)


def _columns(rows: Mapping[Any, Mapping[Column, Any]]) -> list[Column]:
    """Every key of the rows, in the order of appearance: rows may lack some."""
    columns = dict[Column, None]()
    for row in rows.values():
        columns |= dict.fromkeys(row)
    return list(columns)


def _head(first: str, sides: Sequence[Side]) -> list[str]:
    return [first, *(SIDE_LABELS[side] for side in sides)]
