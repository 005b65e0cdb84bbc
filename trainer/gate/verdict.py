"""The gate's verdict on a score card: promote, hold or reject, with reasons and advice."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from personas.errors import RequestError
from personas.schemas.base import FrozenModel, explain_validation_error
from personas.schemas.scorecard import Criterion, GateVerdict, Outcome, ScoreCard
from trainer.gate.advice import ADVICE_BY_CRITERION, advice_for
from trainer.gate.criteria import criterion_measurements
from trainer.gate.measurement import CriterionMeasurement, holm_rejections

MAX_REASONS, MAX_ADVICE = 3, 4
"""The most that are told; the criteria tell all."""
CONSEQUENCE_SEVERITY: dict[Consequence, int] = {"promote": 0, "hold": 1, "reject": 2}
SUPPORTING_CRITERIA = ("better_than_base", "no_worse_than_live", "voice", "general")
"""What speaks for a version, where nothing speaks against it."""
ROOT_CAUSE_CRITERIA = ("private", "unseen", "base_is_base", "steady", "speakers", "one_voice", "repeated", "enough")
"""Of reasons that weigh alike these come first: what is wrong with data or measurement is the cause of the rest."""


def judge(card: ScoreCard, recipe: str, thresholds: GateThresholds | None = None) -> GateVerdict:
    """What the gate says of a version that was trained by this recipe.

    Raises `RequestError` where thresholds are wrong.
    """
    asked = thresholds or thresholds_for(recipe)
    found = list(criterion_measurements(card))
    outcomes = _outcomes(found, asked)
    leads_to = {name: _consequence(outcome, asked.rules[name]) for name, outcome in outcomes.items()}
    verdict = max(leads_to.values(), key=lambda it: CONSEQUENCE_SEVERITY[it])
    weighty = sorted(found, key=lambda it: _severity(it, outcomes[it.name], leads_to[it.name]))
    return GateVerdict(
        verdict=verdict,
        reasons=tuple(_reasons(found, weighty, outcomes, asked)),
        advice=tuple(_advice(card, weighty, outcomes))[:MAX_ADVICE],
        criteria=tuple(_criterion(card, it, outcomes[it.name], asked.rules[it.name]) for it in found),
        error_rate=asked.error_rate,
        thresholds=asked.name,
    )


def outcomes_of(card: ScoreCard, recipe: str) -> dict[str, Outcome]:
    """Each criterion's outcome, by its name in `thresholds.toml`."""
    return _outcomes(list(criterion_measurements(card)), thresholds_for(recipe))


def _outcomes(found: Sequence[CriterionMeasurement], asked: GateThresholds) -> dict[str, Outcome]:
    shown = _failed_tests(found, asked)
    return {it.name: _outcome(it, asked.rules[it.name], it.name in shown) for it in found}


def _failed_tests(found: Sequence[CriterionMeasurement], asked: GateThresholds) -> frozenset[str]:
    """The tests that fail."""
    told = [it for it in found if it.value is not None and not _has_too_few_cases(it, asked.rules[it.name])]
    chances = {it.name: it.chance(asked.rules[it.name].fail) for it in told if it.chance}
    return holm_rejections(chances, asked.error_rate)


def _outcome(measure: CriterionMeasurement, rule: CriterionThresholds, shown_worse: bool) -> Outcome:
    if measure.value is None or _has_too_few_cases(measure, rule):
        return "not measured"
    if shown_worse or (not rule.test and _is_beyond(measure, measure.value, rule.fail)):
        return "fail"
    compared = measure.value if measure.shown is None else measure.shown
    return "warn" if _is_beyond(measure, compared, rule.warn) else "pass"


def _has_too_few_cases(measure: CriterionMeasurement, rule: CriterionThresholds) -> bool:
    return measure.cases is not None and measure.cases < rule.least


def _explanation(measure: CriterionMeasurement, rule: CriterionThresholds) -> str:
    few = (
        f" That is of {measure.cases}, too few to tell: {rule.least} are asked."
        if _has_too_few_cases(measure, rule)
        else ""
    )
    return measure.why + few


def _is_beyond(measure: CriterionMeasurement, value: float, threshold: float) -> bool:
    """A number that is none is beyond everything."""
    return not (value >= threshold if measure.at_least else value <= threshold)


def _consequence(outcome: Outcome, rule: CriterionThresholds) -> Consequence:
    by_outcome: dict[Outcome, Consequence] = {
        "pass": "promote",
        "warn": rule.on_warn,
        "fail": rule.on_fail,
        "not measured": rule.unmeasured,
    }
    return by_outcome[outcome]


def _severity(measure: CriterionMeasurement, outcome: Outcome, leads_to: Consequence) -> tuple[bool, int, int, int]:
    """What matters most comes first: what leads to anything, then failures; of these the causes before what follows."""
    order: tuple[Outcome, ...] = ("fail", "warn", "not measured", "pass")
    place = ROOT_CAUSE_CRITERIA.index(measure.name) if measure.name in ROOT_CAUSE_CRITERIA else len(ROOT_CAUSE_CRITERIA)
    return (leads_to == "promote", order.index(outcome), place, -CONSEQUENCE_SEVERITY[leads_to])


def _reasons(
    found: Sequence[CriterionMeasurement],
    weighty: Sequence[CriterionMeasurement],
    outcomes: dict[str, Outcome],
    asked: GateThresholds,
) -> Iterator[str]:
    """What spoke against it or, where nothing did, what spoke for it."""
    against = [it for it in weighty if outcomes[it.name] != "pass"]
    for measure in (against or [it for it in found if it.name in SUPPORTING_CRITERIA])[:MAX_REASONS]:
        yield _explanation(measure, asked.rules[measure.name])


def _advice(card: ScoreCard, weighty: Sequence[CriterionMeasurement], outcomes: dict[str, Outcome]) -> Iterator[str]:
    told = [advice_for(card, it.name) for it in weighty if outcomes[it.name] in ("fail", "warn")]
    yield from dict.fromkeys(filter(None, told))


def _criterion(
    card: ScoreCard, measure: CriterionMeasurement, outcome: Outcome, rule: CriterionThresholds
) -> Criterion:
    return Criterion(
        name=measure.title,
        outcome=outcome,
        value=measure.value,
        unit=measure.unit,
        threshold=describe_threshold(measure, rule),
        why=_explanation(measure, rule),
        advice=advice_for(card, measure.name) if outcome in ("fail", "warn") else "",
    )


def describe_threshold(measure: CriterionMeasurement, rule: CriterionThresholds) -> str:
    """What a criterion asks, in words."""
    bound = "at least" if measure.at_least else "at most"
    what = "whole interval below" if measure.shown is not None else bound
    beyond = "below" if measure.at_least else "above"
    fails = f"fails where shown to be {beyond} {rule.fail:g}" if rule.test else f"fails {beyond} {rule.fail:g}"
    return f"{what} {rule.warn:g}; {fails}"


THRESHOLDS_FILE = Path(__file__).parent / "thresholds.toml"
RECIPE_TABLE = "recipe"
SHARE_TESTS = ("voice_kept", "facts", "contradictions", "safety")
"""Tests that ask whether two shares differ at all."""

Consequence = Literal["promote", "hold", "reject"]


class CriterionThresholds(FrozenModel):
    """What one criterion asks. `thresholds.toml` says what the values mean."""

    warn: float
    fail: float
    on_warn: Consequence
    on_fail: Consequence
    unmeasured: Consequence
    test: bool = False
    least: int = Field(default=0, ge=0)


class GateThresholds(FrozenModel):
    """The rules by criterion. `error_rate` is that of all tests together; `name` says which rules these are."""

    name: str
    error_rate: float = Field(gt=0, lt=1)
    rules: dict[str, CriterionThresholds]


@lru_cache(maxsize=1)
def read_default_table() -> dict[str, Any]:
    """The file as it ships. Raises `OSError`."""
    return tomllib.loads(THRESHOLDS_FILE.read_text(encoding="utf-8"))


def thresholds_for(recipe: str, table: dict[str, Any] | None = None) -> GateThresholds:
    """The rules for runs of a recipe; of the shipped file unless another table is given.

    Raises `RequestError` that names what is unknown or wrong in it.
    """
    whole = dict(read_default_table() if table is None else table)
    own: dict[str, dict[str, Any]] = whole.pop(RECIPE_TABLE, {}).get(recipe, {})
    error_rate = whole.pop("error_rate", None)
    if unknown := sorted((own.keys() | whole.keys()) - ADVICE_BY_CRITERION.keys()):
        raise RequestError(f"The gate has no criterion {unknown[0]!r}.", f"Known: {', '.join(ADVICE_BY_CRITERION)}.")
    if missing := sorted(ADVICE_BY_CRITERION.keys() - whole.keys()):
        raise RequestError(f"The thresholds say nothing of {missing[0]!r}.", "Give it a table of its own.")
    rules = {name: {**values, **own.get(name, {})} for name, values in whole.items()}
    name = f"default, with the changes for {recipe}" if own else "default"
    try:
        found = GateThresholds.model_validate({"name": name, "error_rate": error_rate, "rules": rules})
    except ValidationError as error:
        raise explain_validation_error(error) from None
    if wrong := [it for it in SHARE_TESTS if found.rules[it].fail or not found.rules[it].test]:
        raise RequestError(f"{wrong[0]} is a test of two shares: it asks whether they differ.", "Leave fail at 0.")
    return found
