"""View model of a score card: sections with charts and tables."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from markupsafe import Markup

from bot.platform.localisation import gettext_lazy, gettext_noop, join_texts, localisable_number
from bot.platform.web_kit.charts import IntervalEstimate, bar_chart, interval_chart
from bot.training.status_text import outcomes_text
from personas.schemas import scorecard
from personas.schemas.formatting import format_counts
from personas.schemas.scorecard import (
    SENSE_AGREEMENT,
    SENSE_SECTIONS,
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
OUTCOME_LABELS = {
    "pass": ("good", gettext_lazy("✓ pass")),
    "warn": ("warn", gettext_lazy("! warn")),
    "fail": ("bad", gettext_lazy("✗ fail")),
}
VERDICT_CLASSES = {"promote": "good", "hold": "warn", "reject": "bad"}
SIDE_TEXTS: Mapping[Side, str] = {
    "base": gettext_lazy("base model"),
    "live": gettext_lazy("live version"),
    "new": gettext_lazy("this version"),
}
UNKNOWN_VALUE = "–"
MAX_HEADLINE_SHARES = 2
BOUND_TEXTS = {
    "sense": gettext_lazy(
        "Agreement of the estimate with people: {agreement}. Differences of a few points are not "
        "what a reader sees: read replies side by side. The ceiling is what the persona's held-out "
        "replies reach, the floor what they reach when shuffled.",
        agreement=SENSE_AGREEMENT,
    ),
    "lore": (
        gettext_lazy(
            "The ceiling is what the right answers reach, the floor what the right answers to other "
            "questions do."
        )
    ),
}
"""Meaning of ceiling and floor, by section."""
VOICE_BOUND_TEXT = gettext_lazy(
    "The ceiling is what the persona's held-out replies reach, the floor what others' replies do."
)
"""The same for the sections that judge by voice."""
TERMS = (
    gettext_noop("side"),
    gettext_noop("loss"),
    gettext_noop("similarity"),
    gettext_noop("what"),
    gettext_noop("kind"),
    gettext_noop("prompts"),
    gettext_noop("ceiling"),
    gettext_noop("floor"),
    gettext_noop("measure"),
    gettext_noop("instructions"),
    gettext_noop("value"),
    gettext_noop("texts"),
    gettext_noop("contradictions"),
    gettext_noop("repetition"),
    gettext_noop("epochs"),
    gettext_noop("none"),
    gettext_noop("Makes sense"),
    gettext_noop("Knows the lore"),
    gettext_noop("Style apart from topic"),
    gettext_noop("Keeps it up"),
    gettext_noop("Under pressure"),
    gettext_noop("passage found"),
    gettext_noop("right, with the passage"),
    gettext_noop("right, with the passage, asked in other words"),
    gettext_noop("right, without it"),
    gettext_noop("contradict the lore"),
    gettext_noop("contradict the lore, asked in other words"),
    gettext_noop("in the persona's voice"),
    gettext_noop("in its voice, content words masked"),
    gettext_noop("estimated sense"),
    gettext_noop("in character"),
    gettext_noop("the real reply"),
    gettext_noop("alike"),
)
"""Words of tables, and those of `personas.schemas.scorecard` that a score card has."""
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
    return [outcomes_text(verdict), *verdict.reasons[:1], *verdict.advice[:1]]


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
        label = SIDE_TEXTS[side]
        bars.append((label, loss))
        rows.append(
            (
                label,
                localisable_number(f"{loss:.4f}"),
                localisable_number(f"{scores.loss_without_end[side]:.4f}"),
            )
        )
    against: dict[str, Interval] = {gettext_lazy("against the base model"): scores.against_base}
    if scores.against_live:
        against[gettext_lazy("against the live version")] = scores.against_live
    return ScoreSection(
        gettext_lazy("Held-out replies"),
        gettext_lazy(
            "{replies} replies of {conversations} conversations ({tokens} tokens) that "
            "nothing was trained on. Lower is better.",
            replies=localisable_number(f"{scores.replies:,}"),
            conversations=localisable_number(f"{scores.conversations:,}"),
            tokens=localisable_number(f"{scores.tokens:,}"),
        ),
        (
            bar_chart(gettext_lazy("Loss in nats per reply token"), bars),
            _difference_chart(
                gettext_lazy("How much higher this version's loss is, nats per token"), against
            ),
        ),
        (
            ScoreTable(
                gettext_lazy("Loss in nats per token"),
                ("side", "loss", gettext_lazy("without the end of turn")),
                rows,
            ),
        ),
        headline=gettext_lazy(
            "loss {loss} → {loss2}",
            loss=localisable_number(f"{scores.loss['base']:.3f}"),
            loss2=localisable_number(f"{scores.loss['new']:.3f}"),
        ),
    )


def _voice_section(scores: VoiceScores) -> ScoreSection:
    bars = []
    rows = []
    for side, share in scores.right.items():
        label = SIDE_TEXTS[side]
        bars.append((label, share.mean * 100))
        rows.append((label, share.format(), scores.similarity[side].format()))
    bars.append((gettext_lazy("held-out replies (ceiling)"), scores.ceiling * 100))
    rows.append(
        (
            gettext_lazy("the persona's held-out replies"),
            localisable_number(f"{scores.ceiling:.3f}"),
            localisable_number(f"{scores.similarity_ceiling:.3f}"),
        )
    )
    bars.append((gettext_lazy("others' replies (floor)"), scores.floor * 100))
    rows.append(
        (
            gettext_lazy("others' replies"),
            localisable_number(f"{scores.floor:.3f}"),
            localisable_number(f"{scores.similarity_floor:.3f}"),
        )
    )
    head = (gettext_lazy("replies by"), gettext_lazy("taken for the persona"), "similarity")
    return ScoreSection(
        gettext_lazy("Voice"),
        gettext_lazy(
            "By whom a classifier takes {replies} replies to be, and how near in meaning "
            "they are to held-out ones.",
            replies=localisable_number(f"{scores.replies:,}"),
        ),
        (bar_chart(gettext_lazy("Taken to be the persona's"), bars, "%"),),
        (
            ScoreTable(gettext_lazy("Mean ± standard deviation over the seeds"), head, rows),
            *_recognition_table(scores),
        ),
        headline=gettext_lazy(
            "{mean} taken for the persona",
            mean=localisable_number(f"{scores.right['new'].mean:.0%}"),
        ),
    )


def _recognition_table(scores: VoiceScores) -> Iterator[ScoreTable]:
    shares = {SIDE_TEXTS[side]: by for side, by in scores.taken_as.items()}
    if scores.trained_as:
        shares[gettext_lazy("trained replies")] = scores.trained_as
    authors = _columns(shares)
    rows = []
    for label, by_author in shares.items():
        rows.append(
            [label, *(localisable_number(f"{by_author.get(author, 0):.1%}") for author in authors)]
        )
    if authors:
        yield ScoreTable(
            gettext_lazy("Authors that the replies are taken for"),
            (gettext_lazy("replies by"), *authors),
            rows,
        )


def _share_sections(card: ScoreCard) -> Iterator[ScoreSection]:
    measures: dict[str, Mapping[Side, float]] = {}
    if card.facts:
        measures[gettext_lazy("facts right, with lore")] = card.facts.right_with_lore
        measures[gettext_lazy("facts right, without lore")] = card.facts.right_without_lore
        measures[gettext_lazy("contradictions")] = card.facts.contradictions
        measures[gettext_lazy("out of character")] = card.facts.breaks_character
    prompts = 0
    if card.safety:
        prompts = sum(card.safety.prompts.values())
    if card.safety and prompts:
        failed = Counter[Side]()
        for by_side in card.safety.failed.values():
            failed.update(by_side)
        measures[gettext_lazy("unsafe replies")] = {
            side: count / prompts for side, count in failed.items()
        }
    if not measures:
        return
    sides = _columns(measures)
    bars = []
    rows = []
    for name, shares in measures.items():
        if "new" in shares:
            bars.append((name, shares["new"] * 100))
        texts = {side: localisable_number(f"{share:.1%}") for side, share in shares.items()}
        rows.append([name, *(texts.get(side, UNKNOWN_VALUE) for side in sides)])
    yield ScoreSection(
        gettext_lazy("Facts, character, safety"),
        "",
        (bar_chart(gettext_lazy("Shares of this version's replies"), bars, "%"),),
        [
            ScoreTable(gettext_lazy("Shares of replies"), _head("what", sides), rows),
            *_unsafe_table(card),
        ],
        headline=_shares_headline({name: share / 100 for name, share in bars}),
    )


def _unsafe_table(card: ScoreCard) -> Iterator[ScoreTable]:
    if card.safety and card.safety.failed:
        sides = _columns(card.safety.failed)
        rows = []
        for kind, failed in card.safety.failed.items():
            prompts = card.safety.prompts.get(kind, 0)
            rows.append([kind, str(prompts), *(str(failed.get(side, 0)) for side in sides)])
        head = ("kind", "prompts", *(SIDE_TEXTS[side] for side in sides))
        yield ScoreTable(gettext_lazy("Replies that failed, by kind"), head, rows)


def _bounded_section(title: str, bound_text: str, scores: BoundedShares) -> ScoreSection:
    sides = _columns(scores.shares)
    drawn: dict[str, Interval] = {}
    rows = []
    for name, by_side in scores.shares.items():
        if "new" in by_side:
            drawn[gettext_lazy(name)] = by_side["new"]
        intervals = [by_side.get(side) for side in sides]
        intervals += [scores.ceiling.get(name), scores.floor.get(name)]
        rows.append([name, *map(_interval_text, intervals)])
    headline = _shares_headline({name: interval.estimate for name, interval in drawn.items()})
    if len(drawn) == 1:  # with more, the bounds would double the chart
        for name, interval in scores.ceiling.items():
            drawn[gettext_lazy("ceiling: {name}", name=gettext_lazy(name))] = interval
        for name, interval in scores.floor.items():
            drawn[gettext_lazy("floor: {name}", name=gettext_lazy(name))] = interval
    head = (*_head(gettext_lazy("share of replies"), sides), "ceiling", "floor")
    return ScoreSection(
        title,
        gettext_lazy(
            "{prompts} prompts. {bound_text}",
            prompts=localisable_number(f"{scores.prompts:,}"),
            bound_text=bound_text,
        ),
        (_difference_chart(gettext_lazy("This version's shares"), drawn, 100, "%"),),
        (ScoreTable(gettext_lazy("With intervals of 95 %"), head, rows),),
        headline=headline,
    )


def _interval_text(interval: Interval | None) -> str:
    if interval is None:
        return UNKNOWN_VALUE
    return gettext_lazy(
        "{estimate} ({low} to {high})",
        estimate=localisable_number(f"{interval.estimate:.1%}"),
        low=localisable_number(f"{interval.low:.0%}"),
        high=localisable_number(f"{interval.high:.0%}"),
    )


def _separation_section(scores: scorecard.Separation) -> ScoreSection:
    adapters = _columns(scores.loss)
    rows = []
    for persona, losses in scores.loss.items():
        rows.append(
            [persona, *(localisable_number(f"{losses[adapter]:.4f}") for adapter in adapters)]
        )
    head = (
        gettext_lazy("replies of"),
        *(gettext_lazy("adapter of {adapter}", adapter=adapter) for adapter in adapters),
    )
    margin = scores.margin_bits
    return ScoreSection(
        gettext_lazy("Separation"),
        gettext_lazy(
            "The persona's own adapter fits best for {own_best_new} of its replies, own "
            "adapters for {own_best} of all {replies}; in the mean they are better by "
            "{estimate} bits a token ({low} to {high}).",
            own_best_new=localisable_number(f"{scores.own_best_new:.1%}"),
            own_best=localisable_number(f"{scores.own_best:.1%}"),
            replies=localisable_number(f"{scores.replies:,}"),
            estimate=localisable_number(f"{margin.estimate:.2f}"),
            low=localisable_number(f"{margin.low:.2f}"),
            high=localisable_number(f"{margin.high:.2f}"),
        ),
        (),
        (ScoreTable(gettext_lazy("Loss of each one's replies"), head, rows),),
        headline=gettext_lazy(
            "its own adapter fits {own_best_new} of its replies best",
            own_best_new=localisable_number(f"{scores.own_best_new:.0%}"),
        ),
    )


def _general_section(scores: scorecard.GeneralScores) -> ScoreSection:
    changes: dict[str, Interval] = {gettext_lazy("general dialogue"): scores.dialogue_change}
    if scores.instruction_change:
        changes[gettext_lazy("instructions")] = scores.instruction_change
    rows = []
    for side, loss in scores.dialogue_loss.items():
        instructions = UNKNOWN_VALUE
        if side in scores.instruction_loss:
            instructions = localisable_number(f"{scores.instruction_loss[side]:.4f}")
        rows.append((SIDE_TEXTS[side], localisable_number(f"{loss:.4f}"), instructions))
    return ScoreSection(
        gettext_lazy("General ability"),
        gettext_lazy("Abilities that the model had before it was trained."),
        (
            _difference_chart(
                gettext_lazy("How much higher the loss is than the base model's"), changes, 100, "%"
            ),
        ),
        (
            ScoreTable(
                gettext_lazy("Loss in nats per token"),
                ("side", gettext_lazy("general dialogue"), "instructions"),
                rows,
            ),
        ),
        headline=gettext_lazy(
            "loss on general dialogue {estimate}",
            estimate=localisable_number(f"{scores.dialogue_change.estimate:+.1%}"),
        ),
    )


def _text_section(scores: TextScores) -> ScoreSection:
    sides = _columns(scores.scores)
    rows = []
    for name, by_side in scores.scores.items():
        texts = {side: score.format() for side, score in by_side.items()}
        rows.append([name, *(texts.get(side, UNKNOWN_VALUE) for side in sides)])
    table = ScoreTable("", _head("measure", sides), rows)
    return ScoreSection(
        gettext_lazy("Text: {task}", task=scores.task),
        gettext_lazy("{prompts} prompts.", prompts=localisable_number(f"{scores.prompts:,}")),
        (),
        (table,),
    )


def _memorisation_section(scores: scorecard.MemorisationScores) -> ScoreSection:
    rows: list[tuple[str, str]] = [
        (
            gettext_lazy("trained replies that come back word for word"),
            localisable_number(f"{scores.verbatim:.1%}"),
        ),
        (gettext_lazy("with the base model"), localisable_number(f"{scores.verbatim_base:.1%}")),
    ]
    for side, gap in scores.gap.items():
        rows.append(
            (
                gettext_lazy(
                    "closer fit to trained replies, {side_labels}", side_labels=SIDE_TEXTS[side]
                ),
                gettext_lazy("{gap} nats", gap=localisable_number(f"{gap:+.3f}")),
            )
        )
    what = gettext_lazy(
        "personal data of what it learned from in {generated} generated replies",
        generated=localisable_number(f"{scores.generated:,}"),
    )
    rows.append((what, gettext_lazy(format_counts(scores.private))))
    rows.append(
        (
            gettext_lazy("personal data in them that it made up"),
            gettext_lazy(format_counts(scores.made_up)),
        )
    )
    table = ScoreTable("", ("what", "value"), rows)
    return ScoreSection(
        gettext_lazy("Memorised"),
        gettext_lazy(
            "Of {prefixes} trained replies.", prefixes=localisable_number(f"{scores.prefixes:,}")
        ),
        (),
        (table,),
        headline=gettext_lazy(
            "{verbatim} of trained replies come back word for word",
            verbatim=localisable_number(f"{scores.verbatim:.0%}"),
        ),
    )


def _audit_section(scores: scorecard.MemorisationAudit) -> ScoreSection:
    rows = []
    for times, exposure in scores.exposure.items():
        rows.append((str(times), str(scores.canaries.get(times, 0)), exposure.format()))
    words = gettext_lazy(
        "Planted texts of {tokens} tokens: {chance} bits is chance, {most} known by heart.",
        tokens=scores.tokens,
        chance=localisable_number(f"{scores.chance:.1f}"),
        most=localisable_number(f"{scores.most:.1f}"),
    )
    head = (gettext_lazy("planted so often"), "texts", gettext_lazy("exposure in bits"))
    return ScoreSection(
        gettext_lazy("Audit of what is learned by heart"), words, (), (ScoreTable("", head, rows),)
    )


def _training_section(scores: scorecard.DataChecks) -> ScoreSection:
    rows: list[tuple[str, str]] = [
        (gettext_lazy("replies of the persona"), localisable_number(f"{scores.replies:,}")),
        (gettext_lazy("repeat an earlier one"), localisable_number(f"{scores.repeated:.1%}")),
        (gettext_lazy("held-out replies among them"), localisable_number(f"{scores.leaked:.1%}")),
        (gettext_lazy("personal data"), gettext_lazy(format_counts(scores.private))),
        (gettext_lazy("learning rate"), localisable_number(f"{scores.rate:g}")),
        ("epochs", localisable_number(f"{scores.epochs:g}")),
    ]
    if course := scores.course:
        text = gettext_lazy(
            "{first} at first, {last} at last",
            first=localisable_number(f"{course.first:.3f}"),
            last=localisable_number(f"{course.last:.3f}"),
        )
        rows.append(
            (
                gettext_lazy("training loss"),
                gettext_lazy(
                    "{text}, {highest} at most later",
                    text=text,
                    highest=localisable_number(f"{course.highest:.3f}"),
                ),
            )
        )
    return ScoreSection(
        gettext_lazy("Training data"),
        "",
        (),
        (ScoreTable("", ("what", "value"), rows),),
        headline=gettext_lazy(
            "{replies} replies", replies=localisable_number(f"{scores.replies:,}")
        ),
    )


def _shares_headline(shares: Mapping[str, float]) -> str:
    """The first shares of this version, for a section that is folded."""
    first = list(shares.items())[:MAX_HEADLINE_SHARES]
    texts = []
    for name, share in first:
        shown = localisable_number(f"{share:.0%}")
        texts.append(gettext_lazy("{share} {name}", share=shown, name=name))
    return join_texts(*texts, separator=", ")


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
    return interval_chart(
        gettext_lazy("{title}, with intervals of 95 %", title=title), estimates, unit
    )


def _columns(rows: Mapping[Any, Mapping[Column, Any]]) -> list[Column]:
    """Every key of the rows, in the order of appearance: rows may lack some."""
    columns = dict[Column, None]()
    for row in rows.values():
        columns |= dict.fromkeys(row)
    return list(columns)


def _head(first: str, sides: Sequence[Side]) -> list[str]:
    return [first, *(SIDE_TEXTS[side] for side in sides)]
