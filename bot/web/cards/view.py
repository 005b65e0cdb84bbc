"""A score card as a page shows it: sections of plots and tables, out of the card alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from bot.web.charts import Whisker, bars, whiskers
from personas.amounts import counts
from personas.scorecard import FullScoreCard, Interval, Side, Spread, TextScores, Voice

SIDES: Mapping[Side, str] = {"base": "base model", "live": "live version", "new": "this version"}
OUTCOMES = {"pass": ("good", "✓ pass"), "warn": ("warn", "! warn"), "fail": ("bad", "✗ fail")}
VERDICTS = {"promote": "good", "hold": "warn", "reject": "bad"}
UNKNOWN = "–"


@dataclass(frozen=True)
class Table:
    """Cells of texts; the first of each row names it."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A part of the card: what it says in a sentence, drawings, tables."""

    title: str
    words: str = ""
    charts: Sequence[Markup] = ()
    tables: Sequence[Table] = field(default_factory=tuple)


def sections(card: FullScoreCard) -> Iterator[Section]:
    """All that was measured, in the order in which it is read."""
    yield _heldout(card)
    yield from _voice(card)
    yield from _shares(card)
    yield from _separation(card)
    yield from _general(card)
    yield from (_text(scores) for scores in card.text)
    yield from _memorised(card)
    yield from _audit(card)
    yield from _learned(card)


def _heldout(card: FullScoreCard) -> Section:
    found = card.heldout
    rows = [(SIDES[it], f"{loss:.4f}", f"{found.loss_without_end[it]:.4f}") for it, loss in found.loss.items()]
    against = {"against the base model": found.against_base}
    if found.against_live:
        against["against the live version"] = found.against_live
    return Section(
        "Held-out replies",
        f"{found.replies:,} replies of {found.conversations:,} conversations ({found.tokens:,} tokens) that nothing "
        "was trained on. Lower is better.",
        (
            bars("Loss in nats per reply token", [(SIDES[it], loss) for it, loss in found.loss.items()]),
            _differences("How much higher this version's loss is, nats per token", against),
        ),
        (Table("Loss in nats per token", ("side", "loss", "without the end of turn"), rows),),
    )


def _voice(card: FullScoreCard) -> Iterator[Section]:
    found = card.voice
    if found is None:
        return
    bounds = [("real replies (ceiling)", found.ceiling * 100), ("others' replies (floor)", found.floor * 100)]
    drawn = [(SIDES[it], of.mean * 100) for it, of in found.right.items()]
    rows = [(SIDES[it], _spread(of), _spread(found.similarity[it])) for it, of in found.right.items()]
    rows.append(("the persona's real replies", f"{found.ceiling:.3f}", f"{found.similarity_ceiling:.3f}"))
    rows.append(("others' replies", f"{found.floor:.3f}", f"{found.similarity_floor:.3f}"))
    head = ("replies by", "taken for the persona", "similarity")
    yield Section(
        "Voice",
        f"By whom a classifier takes {found.replies:,} replies to be, and how near in meaning they are to real ones.",
        (bars("Taken to be the persona's", drawn + bounds, "%"),),
        (Table("Mean ± standard deviation over the seeds", head, rows), *_taken_as(found)),
    )


def _taken_as(found: Voice) -> Iterator[Table]:
    shares = {SIDES[side]: by for side, by in found.taken_as.items()}
    if found.trained_as:
        shares["trained replies"] = found.trained_as
    authors = list(dict.fromkeys(author for by in shares.values() for author in by))
    if authors:
        rows = [(whose, *(f"{by.get(author, 0):.1%}" for author in authors)) for whose, by in shares.items()]
        yield Table("Who they are taken to be by", ("replies by", *authors), rows)


def _shares(card: FullScoreCard) -> Iterator[Section]:
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
    rows = [(name, *(f"{by[it]:.1%}" if it in by else UNKNOWN for it in shown)) for name, by in measures.items()]
    drawn = [(name, by["new"] * 100) for name, by in measures.items() if "new" in by]
    tables = [Table("Shares of replies", ("what", *(SIDES[it] for it in shown)), rows), *_unsafe(card)]
    yield Section("Facts, character, safety", "", (bars("Shares of this version's replies", drawn, "%"),), tables)


def _unsafe(card: FullScoreCard) -> Iterator[Table]:
    if card.safety and card.safety.failed:
        sides = list(dict.fromkeys(side for by in card.safety.failed.values() for side in by))
        rows = [
            (kind, str(card.safety.prompts.get(kind, 0)), *(str(by.get(side, 0)) for side in sides))
            for kind, by in card.safety.failed.items()
        ]
        yield Table("Replies that failed, by kind", ("kind", "prompts", *(SIDES[side] for side in sides)), rows)


def _separation(card: FullScoreCard) -> Iterator[Section]:
    found = card.separation
    if found is None:
        return
    names = list(next(iter(found.loss.values()), {}))
    rows = [(persona, *(f"{by[name]:.4f}" for name in names)) for persona, by in found.loss.items()]
    margin = found.margin_bits
    by = f"{margin.estimate:.2f} bits a token ({margin.low:.2f} to {margin.high:.2f})"
    yield Section(
        "Separation",
        f"The persona's own adapter fits best for {found.own_best_new:.1%} of its replies, own adapters for "
        f"{found.own_best:.1%} of all {found.replies:,}; in the mean they are better by {by}.",
        (),
        (Table("Loss of each one's replies", ("replies of", *(f"adapter of {name}" for name in names)), rows),),
    )


def _general(card: FullScoreCard) -> Iterator[Section]:
    found = card.general
    if found is None:
        return
    changes = {"general dialogue": found.dialogue_change}
    if found.instruction_change:
        changes["instructions"] = found.instruction_change
    rows = [
        (SIDES[it], f"{loss:.4f}", f"{found.instruction_loss[it]:.4f}" if it in found.instruction_loss else UNKNOWN)
        for it, loss in found.dialogue_loss.items()
    ]
    yield Section(
        "General ability",
        "What else the model could do before it was trained.",
        (_differences("How much higher the loss is than the base model's, in percent", changes, 100),),
        (Table("Loss in nats per token", ("side", "general dialogue", "instructions"), rows),),
    )


def _text(scores: TextScores) -> Section:
    sides = list(dict.fromkeys(side for by in scores.scores.values() for side in by))
    rows = [(name, *(_spread(by[it]) if it in by else UNKNOWN for it in sides)) for name, by in scores.scores.items()]
    head = ("measure", *(SIDES[side] for side in sides))
    return Section(f"Text: {scores.task}", f"{scores.prompts:,} prompts.", (), (Table("", head, rows),))


def _memorised(card: FullScoreCard) -> Iterator[Section]:
    found = card.memorised
    if found is None:
        return
    rows = [
        ("trained replies that come back word for word", f"{found.verbatim:.1%}"),
        ("with the base model", f"{found.verbatim_base:.1%}"),
        *((f"closer fit to trained replies, {SIDES[it]}", f"{gap:+.3f} nats") for it, gap in found.gap.items()),
        (f"personal data of what it learned from in {found.generated:,} generated replies", counts(found.private)),
        ("personal data in them that it made up", counts(found.made_up)),
    ]
    yield Section("Memorised", f"Of {found.prefixes:,} trained replies.", (), (Table("", ("what", "value"), rows),))


def _audit(card: FullScoreCard) -> Iterator[Section]:
    found = card.audit
    if found is None:
        return
    rows = [(str(times), str(found.canaries.get(times, 0)), _spread(it)) for times, it in found.exposure.items()]
    words = (
        f"Planted texts of {found.tokens} tokens: {found.chance:.1f} bits is chance, {found.most:.1f} known by heart."
    )
    head = ("planted so often", "texts", "exposure in bits")
    yield Section("Audit of what is learned by heart", words, (), (Table("", head, rows),))


def _learned(card: FullScoreCard) -> Iterator[Section]:
    found = card.learned
    if found is None:
        return
    rows = [
        ("replies of the persona", f"{found.replies:,}"),
        ("repeat an earlier one", f"{found.repeated:.1%}"),
        ("held-out replies among them", f"{found.leaked:.1%}"),
        ("personal data", counts(found.private)),
        ("learning rate", f"{found.rate:g}"),
        ("epochs", f"{found.epochs:g}"),
    ]
    if it := found.course:
        rows.append(
            ("training loss", f"{it.first:.3f} at first, {it.last:.3f} at last, {it.highest:.3f} at most later")
        )
    yield Section("What it learned from", "", (), (Table("", ("what", "value"), rows),))


def _differences(title: str, rows: Mapping[str, Interval], factor: float = 1) -> Markup:
    shown = [Whisker(name, it.estimate * factor, it.low * factor, it.high * factor) for name, it in rows.items()]
    return whiskers(f"{title}, with intervals of 95 %", shown)


def _spread(it: Spread) -> str:
    return f"{it.mean:.3f} ± {it.sd:.3f}"
