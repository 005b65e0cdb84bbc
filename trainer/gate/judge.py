"""The verdict: from a score card to promote, hold or reject, with reasons and advice.

Each criterion's outcome leads to what `thresholds.toml` says; the worst of these is the verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from personas.scorecard import Criterion, FullScoreCard, Outcome, Verdict
from trainer.gate.advice import advice_for
from trainer.gate.chance import holm
from trainer.gate.measure import Measure
from trainer.gate.measures import measures
from trainer.gate.thresholds import Consequence, Rule, Thresholds, thresholds_for

REASONS, ADVICE = 3, 4
"""The most that are told; the criteria tell all."""
WORSE: dict[Consequence, int] = {"promote": 0, "hold": 1, "reject": 2}
BEST_TOLD = ("better_than_base", "no_worse_than_live", "voice", "general")
"""What speaks for a version, where nothing speaks against it."""
FIRST = ("private", "unseen", "base_is_base", "steady", "speakers", "one_voice", "repeated", "enough")
"""Of reasons that weigh alike these come first: what is wrong with data or measurement is the cause of the rest."""


def judge(card: FullScoreCard, recipe: str, thresholds: Thresholds | None = None) -> Verdict:
    """What the gate says of a version that was trained by this recipe.

    Raises `RequestError` where thresholds are wrong.
    """
    asked = thresholds or thresholds_for(recipe)
    found = list(measures(card))
    outcomes = _outcomes(found, asked)
    leads_to = {name: _leads_to(outcome, asked.rules[name]) for name, outcome in outcomes.items()}
    verdict = max(leads_to.values(), key=lambda it: WORSE[it])
    weighty = sorted(found, key=lambda it: _weight(it, outcomes[it.name], leads_to[it.name]))
    return Verdict(
        verdict=verdict,
        reasons=tuple(_reasons(found, weighty, outcomes, asked)),
        advice=tuple(_advice(card, weighty, outcomes))[:ADVICE],
        criteria=tuple(_criterion(card, it, outcomes[it.name], asked.rules[it.name]) for it in found),
        error_rate=asked.error_rate,
        thresholds=asked.name,
    )


def outcomes_of(card: FullScoreCard, recipe: str) -> dict[str, Outcome]:
    """Each criterion's outcome, by its name in `thresholds.toml`."""
    return _outcomes(list(measures(card)), thresholds_for(recipe))


def _outcomes(found: Sequence[Measure], asked: Thresholds) -> dict[str, Outcome]:
    shown = _shown_worse(found, asked)
    return {it.name: _outcome(it, asked.rules[it.name], it.name in shown) for it in found}


def _shown_worse(found: Sequence[Measure], asked: Thresholds) -> frozenset[str]:
    """The tests that fail."""
    told = [it for it in found if it.value is not None and not _are_too_few(it, asked.rules[it.name])]
    chances = {it.name: it.chance(asked.rules[it.name].fail) for it in told if it.chance}
    return holm(chances, asked.error_rate)


def _outcome(measure: Measure, rule: Rule, shown_worse: bool) -> Outcome:
    if measure.value is None or _are_too_few(measure, rule):
        return "not measured"
    if shown_worse or (not rule.test and _is_beyond(measure, measure.value, rule.fail)):
        return "fail"
    compared = measure.value if measure.shown is None else measure.shown
    return "warn" if _is_beyond(measure, compared, rule.warn) else "pass"


def _are_too_few(measure: Measure, rule: Rule) -> bool:
    return measure.cases is not None and measure.cases < rule.least


def _why(measure: Measure, rule: Rule) -> str:
    few = (
        f" That is of {measure.cases}, too few to tell: {rule.least} are asked." if _are_too_few(measure, rule) else ""
    )
    return measure.why + few


def _is_beyond(measure: Measure, value: float, threshold: float) -> bool:
    """A number that is none is beyond everything."""
    return not (value >= threshold if measure.at_least else value <= threshold)


def _leads_to(outcome: Outcome, rule: Rule) -> Consequence:
    by_outcome: dict[Outcome, Consequence] = {
        "pass": "promote",
        "warn": rule.on_warn,
        "fail": rule.on_fail,
        "not measured": rule.unmeasured,
    }
    return by_outcome[outcome]


def _weight(measure: Measure, outcome: Outcome, leads_to: Consequence) -> tuple[bool, int, int, int]:
    """What matters most comes first: what leads to anything, then failures; of these the causes before what follows."""
    order: tuple[Outcome, ...] = ("fail", "warn", "not measured", "pass")
    place = FIRST.index(measure.name) if measure.name in FIRST else len(FIRST)
    return (leads_to == "promote", order.index(outcome), place, -WORSE[leads_to])


def _reasons(
    found: Sequence[Measure], weighty: Sequence[Measure], outcomes: dict[str, Outcome], asked: Thresholds
) -> Iterator[str]:
    """What spoke against it or, where nothing did, what spoke for it."""
    against = [it for it in weighty if outcomes[it.name] != "pass"]
    for measure in (against or [it for it in found if it.name in BEST_TOLD])[:REASONS]:
        yield _why(measure, asked.rules[measure.name])


def _advice(card: FullScoreCard, weighty: Sequence[Measure], outcomes: dict[str, Outcome]) -> Iterator[str]:
    told = [advice_for(card, it.name) for it in weighty if outcomes[it.name] in ("fail", "warn")]
    yield from dict.fromkeys(filter(None, told))


def _criterion(card: FullScoreCard, measure: Measure, outcome: Outcome, rule: Rule) -> Criterion:
    return Criterion(
        name=measure.title,
        outcome=outcome,
        value=measure.value,
        unit=measure.unit,
        threshold=threshold_words(measure, rule),
        why=_why(measure, rule),
        advice=advice_for(card, measure.name) if outcome in ("fail", "warn") else "",
    )


def threshold_words(measure: Measure, rule: Rule) -> str:
    """What a criterion asks, in words."""
    bound = "at least" if measure.at_least else "at most"
    what = "whole interval below" if measure.shown is not None else bound
    beyond = "below" if measure.at_least else "above"
    fails = f"fails where shown to be {beyond} {rule.fail:g}" if rule.test else f"fails {beyond} {rule.fail:g}"
    return f"{what} {rule.warn:g}; {fails}"
