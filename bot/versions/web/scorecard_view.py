"""View model of a score card, and of two compared: sections, charts and tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from markupsafe import Markup

from bot.platform.web_kit.charts import IntervalEstimate, bar_chart, interval_chart
from personas.schemas import scorecard
from personas.schemas.formatting import format_counts
from personas.schemas.scorecard import (
    BELONGS,
    IN_CHARACTER,
    LORE_RIGHT,
    MASKED_VOICE,
    SENSE_SECTIONS,
    TALK_TURNS,
    VOICE_AT_TURN,
    BoundedShares,
    Interval,
    ScoreCard,
    Side,
    SideBySide,
    TextScores,
    VoiceScores,
)

SIDE_LABELS: Mapping[Side, str] = {
    "base": "base model",
    "live": "live version",
    "new": "this version",
}
OUTCOME_LABELS = {"pass": ("good", "✓ pass"), "warn": ("warn", "! warn"), "fail": ("bad", "✗ fail")}
VERDICT_CLASSES = {"promote": "good", "hold": "warn", "reject": "bad"}
UNKNOWN_VALUE = "–"
BOUND_TEXTS = {
    "belongs": (
        "The ceiling is what the persona's real replies reach, the floor what they reach when "
        "shuffled."
    ),
    "lore": (
        "The ceiling is what the right answers reach, the floor what the right answers to other "
        "questions do."
    ),
}
"""Meaning of ceiling and floor, by section."""
VOICE_BOUND_TEXT = (
    "The ceiling is what the persona's real replies reach, the floor what others' replies do."
)
"""The same for the sections that judge by voice."""
LATE_VOICE = VOICE_AT_TURN.format(TALK_TURNS[-1])
Better = Literal["lower", "higher"]
ReadScore = Callable[[ScoreCard], float | None]


@dataclass(frozen=True)
class ScoreTable:
    """Rows of texts; the first of each row names it."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class ScoreSection:
    """A section of the page: a sentence, charts, tables."""

    title: str
    words: str = ""
    charts: Sequence[Markup] = ()
    tables: Sequence[ScoreTable] = field(default_factory=tuple)


def score_sections(card: ScoreCard) -> Iterator[ScoreSection]:
    yield _holdout_section(card.heldout)
    if card.voice:
        yield _voice_section(card.voice)
    yield from _share_sections(card)
    for name, title in SENSE_SECTIONS.items():
        if found := getattr(card, name):
            yield _bounded_section(title, BOUND_TEXTS.get(name, VOICE_BOUND_TEXT), found)
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


def _holdout_section(found: scorecard.HoldoutScores) -> ScoreSection:
    rows = [
        (SIDE_LABELS[it], f"{loss:.4f}", f"{found.loss_without_end[it]:.4f}")
        for it, loss in found.loss.items()
    ]
    against = {"against the base model": found.against_base}
    if found.against_live:
        against["against the live version"] = found.against_live
    return ScoreSection(
        "Held-out replies",
        f"{found.replies:,} replies of {found.conversations:,} conversations ({found.tokens:,} "
        "tokens) that nothing "
        "was trained on. Lower is better.",
        (
            bar_chart(
                "Loss in nats per reply token",
                [(SIDE_LABELS[it], loss) for it, loss in found.loss.items()],
            ),
            _difference_chart("How much higher this version's loss is, nats per token", against),
        ),
        (ScoreTable("Loss in nats per token", ("side", "loss", "without the end of turn"), rows),),
    )


def _voice_section(found: VoiceScores) -> ScoreSection:
    bounds = [
        ("real replies (ceiling)", found.ceiling * 100),
        ("others' replies (floor)", found.floor * 100),
    ]
    drawn = [(SIDE_LABELS[it], of.mean * 100) for it, of in found.right.items()]
    rows = [
        (SIDE_LABELS[it], of.format(), found.similarity[it].format())
        for it, of in found.right.items()
    ]
    rows.append(
        ("the persona's real replies", f"{found.ceiling:.3f}", f"{found.similarity_ceiling:.3f}")
    )
    rows.append(("others' replies", f"{found.floor:.3f}", f"{found.similarity_floor:.3f}"))
    head = ("replies by", "taken for the persona", "similarity")
    return ScoreSection(
        "Voice",
        f"By whom a classifier takes {found.replies:,} replies to be, and how near in meaning they "
        "are to real ones.",
        (bar_chart("Taken to be the persona's", drawn + bounds, "%"),),
        (
            ScoreTable("Mean ± standard deviation over the seeds", head, rows),
            *_recognition_table(found),
        ),
    )


def _recognition_table(found: VoiceScores) -> Iterator[ScoreTable]:
    shares = {SIDE_LABELS[side]: by for side, by in found.taken_as.items()}
    if found.trained_as:
        shares["trained replies"] = found.trained_as
    authors = list(dict.fromkeys(author for by in shares.values() for author in by))
    if authors:
        rows = [
            (whose, *(f"{by.get(author, 0):.1%}" for author in authors))
            for whose, by in shares.items()
        ]
        yield ScoreTable("Who they are taken to be by", ("replies by", *authors), rows)


def _share_sections(card: ScoreCard) -> Iterator[ScoreSection]:
    measures: dict[str, Mapping[Side, float]] = {}
    if card.facts:
        measures["facts right, with lore"] = card.facts.right_with_lore
        measures["facts right, without lore"] = card.facts.right_without_lore
        measures["contradictions"] = card.facts.contradictions
        measures["out of character"] = card.facts.breaks_character
    safety = card.safety
    if safety and (asked := sum(safety.prompts.values())):
        sides = dict.fromkeys(side for by in safety.failed.values() for side in by)
        measures["unsafe replies"] = {
            side: sum(by.get(side, 0) for by in safety.failed.values()) / asked for side in sides
        }
    if not measures:
        return
    shown = list(dict.fromkeys(side for by in measures.values() for side in by))
    rows = [
        (name, *(f"{by[it]:.1%}" if it in by else UNKNOWN_VALUE for it in shown))
        for name, by in measures.items()
    ]
    drawn = [(name, by["new"] * 100) for name, by in measures.items() if "new" in by]
    tables = [
        ScoreTable("Shares of replies", ("what", *(SIDE_LABELS[it] for it in shown)), rows),
        *_unsafe_table(card),
    ]
    yield ScoreSection(
        "Facts, character, safety",
        "",
        (bar_chart("Shares of this version's replies", drawn, "%"),),
        tables,
    )


def _unsafe_table(card: ScoreCard) -> Iterator[ScoreTable]:
    if card.safety and card.safety.failed:
        sides = list(dict.fromkeys(side for by in card.safety.failed.values() for side in by))
        rows = [
            (kind, str(card.safety.prompts.get(kind, 0)), *(str(by.get(side, 0)) for side in sides))
            for kind, by in card.safety.failed.items()
        ]
        yield ScoreTable(
            "Replies that failed, by kind",
            ("kind", "prompts", *(SIDE_LABELS[side] for side in sides)),
            rows,
        )


def _bounded_section(title: str, bound_text: str, found: BoundedShares) -> ScoreSection:
    sides = list(dict.fromkeys(side for by_side in found.shares.values() for side in by_side))
    bounds = (found.ceiling, found.floor)
    rows = [
        (
            name,
            *(
                _interval_text(it)
                for it in (*map(by_side.get, sides), *(of.get(name) for of in bounds))
            ),
        )
        for name, by_side in found.shares.items()
    ]
    drawn = {name: by_side["new"] for name, by_side in found.shares.items() if "new" in by_side}
    if len(drawn) == 1:
        drawn |= {
            f"{which}: {name}": it
            for which, of in zip(("ceiling", "floor"), bounds, strict=True)
            for name, it in of.items()
        }
    head = ("share of replies", *(SIDE_LABELS[it] for it in sides), "ceiling", "floor")
    return ScoreSection(
        title,
        f"{found.prompts:,} prompts. {bound_text}",
        (_difference_chart("This version's shares in percent", drawn, 100),),
        (ScoreTable("With intervals of 95 %", head, rows),),
    )


def _interval_text(it: Interval | None) -> str:
    return f"{it.estimate:.1%} ({it.low:.0%} to {it.high:.0%})" if it else UNKNOWN_VALUE


def _separation_section(found: scorecard.Separation) -> ScoreSection:
    names = list(next(iter(found.loss.values()), {}))
    rows = [(persona, *(f"{by[name]:.4f}" for name in names)) for persona, by in found.loss.items()]
    margin = found.margin_bits
    by = f"{margin.estimate:.2f} bits a token ({margin.low:.2f} to {margin.high:.2f})"
    return ScoreSection(
        "Separation",
        f"The persona's own adapter fits best for {found.own_best_new:.1%} of its replies, own "
        "adapters for "
        f"{found.own_best:.1%} of all {found.replies:,}; in the mean they are better by {by}.",
        (),
        (
            ScoreTable(
                "Loss of each one's replies",
                ("replies of", *(f"adapter of {name}" for name in names)),
                rows,
            ),
        ),
    )


def _general_section(found: scorecard.GeneralScores) -> ScoreSection:
    changes = {"general dialogue": found.dialogue_change}
    if found.instruction_change:
        changes["instructions"] = found.instruction_change
    rows = [
        (
            SIDE_LABELS[it],
            f"{loss:.4f}",
            f"{found.instruction_loss[it]:.4f}" if it in found.instruction_loss else UNKNOWN_VALUE,
        )
        for it, loss in found.dialogue_loss.items()
    ]
    return ScoreSection(
        "General ability",
        "What else the model could do before it was trained.",
        (
            _difference_chart(
                "How much higher the loss is than the base model's, in percent", changes, 100
            ),
        ),
        (ScoreTable("Loss in nats per token", ("side", "general dialogue", "instructions"), rows),),
    )


def _text_section(scores: TextScores) -> ScoreSection:
    sides = list(dict.fromkeys(side for by in scores.scores.values() for side in by))
    rows = [
        (name, *(by[it].format() if it in by else UNKNOWN_VALUE for it in sides))
        for name, by in scores.scores.items()
    ]
    head = ("measure", *(SIDE_LABELS[side] for side in sides))
    return ScoreSection(
        f"Text: {scores.task}", f"{scores.prompts:,} prompts.", (), (ScoreTable("", head, rows),)
    )


def _memorisation_section(found: scorecard.MemorisationScores) -> ScoreSection:
    rows = [
        ("trained replies that come back word for word", f"{found.verbatim:.1%}"),
        ("with the base model", f"{found.verbatim_base:.1%}"),
        *(
            (f"closer fit to trained replies, {SIDE_LABELS[it]}", f"{gap:+.3f} nats")
            for it, gap in found.gap.items()
        ),
        (
            f"personal data of what it learned from in {found.generated:,} generated replies",
            format_counts(found.private),
        ),
        ("personal data in them that it made up", format_counts(found.made_up)),
    ]
    return ScoreSection(
        "Memorised",
        f"Of {found.prefixes:,} trained replies.",
        (),
        (ScoreTable("", ("what", "value"), rows),),
    )


def _audit_section(found: scorecard.MemorisationAudit) -> ScoreSection:
    rows = [
        (str(times), str(found.canaries.get(times, 0)), it.format())
        for times, it in found.exposure.items()
    ]
    words = (
        f"Planted texts of {found.tokens} tokens: {found.chance:.1f} bits is chance, "
        f"{found.most:.1f} known by heart."
    )
    head = ("planted so often", "texts", "exposure in bits")
    return ScoreSection(
        "Audit of what is learned by heart", words, (), (ScoreTable("", head, rows),)
    )


def _training_section(found: scorecard.DataChecks) -> ScoreSection:
    rows = [
        ("replies of the persona", f"{found.replies:,}"),
        ("repeat an earlier one", f"{found.repeated:.1%}"),
        ("held-out replies among them", f"{found.leaked:.1%}"),
        ("personal data", format_counts(found.private)),
        ("learning rate", f"{found.rate:g}"),
        ("epochs", f"{found.epochs:g}"),
    ]
    if it := found.course:
        rows.append(
            (
                "training loss",
                f"{it.first:.3f} at first, {it.last:.3f} at last, {it.highest:.3f} at most later",
            )
        )
    return ScoreSection("Training data", "", (), (ScoreTable("", ("what", "value"), rows),))


def _difference_chart(title: str, rows: Mapping[str, Interval], factor: float = 1) -> Markup:
    shown = [
        IntervalEstimate(name, it.estimate * factor, it.low * factor, it.high * factor)
        for name, it in rows.items()
    ]
    return interval_chart(f"{title}, with intervals of 95 %", shown)


@dataclass(frozen=True)
class ScoreMetric:
    """A number of a card, with its format; `read` returns None if it was not measured."""

    name: str
    better: Better
    shown: str
    read: ReadScore


@dataclass(frozen=True)
class MetricComparison:
    """A metric of two cards as text; `better` is "a", "b" or "" (equal or unknown)."""

    name: str
    a: str
    b: str
    difference: str
    better: str


@dataclass(frozen=True)
class OutcomeComparison:
    """A criterion of two cards: CSS class and label of each outcome."""

    name: str
    a: tuple[str, str]
    b: tuple[str, str]


def _score(path: str) -> ReadScore:
    """Read a score such as "voice.right.new.mean"; None if a part of the path was not measured."""

    def read(card: ScoreCard) -> float | None:
        value: Any = card
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else getattr(value, name)
            if value is None:
                return None
        return float(value)

    return read


def _unsafe_share(card: ScoreCard) -> float | None:
    if card.safety is None or not (asked := sum(card.safety.prompts.values())):
        return None
    return sum(by.get("new", 0) for by in card.safety.failed.values()) / asked


def _bounded_score(section: str, measure: str) -> ReadScore:
    def read(card: ScoreCard) -> float | None:
        found: BoundedShares | None = getattr(card, section)
        return found.new(measure) if found else None

    return read


def _text_score(name: str) -> ReadScore:
    def read(card: ScoreCard) -> float | None:
        found = next((it for it in card.text if it.task == "heldout"), None)
        by_side = found.scores.get(name, {}) if found else {}
        return by_side["new"].mean if "new" in by_side else None

    return read


SCORE_METRICS = (
    ScoreMetric("held-out loss, nats per token", "lower", "{:.4f}", _score("heldout.loss.new")),
    ScoreMetric(
        "… more than the base model's", "lower", "{:+.4f}", _score("heldout.against_base.estimate")
    ),
    ScoreMetric("taken for the persona", "higher", "{:.1%}", _score("voice.right.new.mean")),
    ScoreMetric("similarity", "higher", "{:.3f}", _score("voice.similarity.new.mean")),
    ScoreMetric("facts right, with lore", "higher", "{:.1%}", _score("facts.right_with_lore.new")),
    ScoreMetric("contradictions", "lower", "{:.1%}", _score("facts.contradictions.new")),
    ScoreMetric("out of character", "lower", "{:.1%}", _score("facts.breaks_character.new")),
    ScoreMetric("unsafe replies", "lower", "{:.1%}", _unsafe_share),
    ScoreMetric(BELONGS, "higher", "{:.1%}", _bounded_score("belongs", BELONGS)),
    ScoreMetric(LORE_RIGHT, "higher", "{:.1%}", _bounded_score("lore", LORE_RIGHT)),
    ScoreMetric(MASKED_VOICE, "higher", "{:.1%}", _bounded_score("style", MASKED_VOICE)),
    ScoreMetric(LATE_VOICE, "higher", "{:.1%}", _bounded_score("talks", LATE_VOICE)),
    ScoreMetric(
        f"{IN_CHARACTER} under pressure",
        "higher",
        "{:.1%}",
        _bounded_score("pressure", IN_CHARACTER),
    ),
    ScoreMetric("own adapter best", "higher", "{:.1%}", _score("separation.own_best_new")),
    ScoreMetric(
        "general dialogue, loss more than the base's",
        "lower",
        "{:+.1%}",
        _score("general.dialogue_change.estimate"),
    ),
    ScoreMetric(
        "instructions, loss more than the base's",
        "lower",
        "{:+.1%}",
        _score("general.instruction_change.estimate"),
    ),
    ScoreMetric("comes back word for word", "lower", "{:.1%}", _score("memorised.verbatim")),
    ScoreMetric(
        "closer fit to what was trained on, nats", "lower", "{:+.3f}", _score("memorised.gap.new")
    ),
    ScoreMetric("replies that end by themselves", "higher", "{:.1%}", _text_score("ended")),
    ScoreMetric("repetition", "lower", "{:.1%}", _text_score("repetition")),
    ScoreMetric("ROUGE-L", "higher", "{:.3f}", _text_score("rougeL")),
)


def compare_metrics(a: ScoreCard, b: ScoreCard) -> Iterator[MetricComparison]:
    """Compare each metric that at least one card has."""
    for measure in SCORE_METRICS:
        one = measure.read(a)
        other = measure.read(b)
        if one is not None or other is not None:
            yield _compare_metric(measure, one, other)


def compare_outcomes(a: ScoreCard, b: ScoreCard) -> list[OutcomeComparison]:
    by_name = [
        {it.name: it.outcome for it in card.verdict.criteria} if card.verdict else {}
        for card in (a, b)
    ]
    names = dict.fromkeys(name for found in by_name for name in found)

    def shown(found: dict[str, str], name: str) -> tuple[str, str]:
        return OUTCOME_LABELS.get(found.get(name, ""), ("", f"{UNKNOWN_VALUE} not measured"))

    return [
        OutcomeComparison(name, shown(dict(by_name[0]), name), shown(dict(by_name[1]), name))
        for name in names
    ]


def shared_prompts(a: ScoreCard, b: ScoreCard) -> list[tuple[SideBySide, SideBySide]]:
    others = {it.prompt: it for it in b.side_by_side}
    return [(it, others[it.prompt]) for it in a.side_by_side if it.prompt in others]


def _compare_metric(measure: ScoreMetric, a: float | None, b: float | None) -> MetricComparison:
    def shown(value: float | None) -> str:
        return UNKNOWN_VALUE if value is None else measure.shown.format(value)

    if a is None or b is None:
        return MetricComparison(measure.name, shown(a), shown(b), UNKNOWN_VALUE, "")
    if shown(a) == shown(b):
        return MetricComparison(measure.name, shown(a), shown(b), "alike", "")
    signed = measure.shown.replace("{:", "{:+").replace("++", "+")
    better = "a" if (a < b) == (measure.better == "lower") else "b"
    return MetricComparison(measure.name, shown(a), shown(b), signed.format(a - b), better)
