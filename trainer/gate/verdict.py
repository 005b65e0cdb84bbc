"""Judges a score card against thresholds: promote, hold or reject, with reasons and advice."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from personas.errors import RequestError
from personas.schemas.base import FrozenModel, explain_validation_error
from personas.schemas.formatting import format_value
from personas.schemas.scorecard import (
    GENERAL_VOICE,
    MEMBERS_VOICE,
    Criterion,
    GateVerdict,
    Outcome,
    ScoreCard,
)
from trainer.gate.criteria import criterion_measurements
from trainer.gate.measurement import CriterionMeasurement, holm_rejections, other_personas

MAX_REASONS, MAX_ADVICE = 3, 4  # limits of the summary; the list of criteria is complete

Consequence = Literal["promote", "hold", "reject"]
CONSEQUENCE_SEVERITY: dict[Consequence, int] = {"promote": 0, "hold": 1, "reject": 2}
SUPPORTING_CRITERIA = ("better_than_base", "no_worse_than_live", "voice", "general")
"""Criteria that are given as reasons for a promotion."""
ROOT_CAUSE_CRITERIA = (
    "private",
    "unseen",
    "base_is_base",
    "steady",
    "speakers",
    "one_voice",
    "repeated",
    "enough",
)
"""Criteria listed first among equally severe ones: faulty data or measurements cause the other
failures.
"""

THRESHOLDS_FILE = Path(__file__).parent / "thresholds.toml"
RECIPE_TABLE = "recipe"
SHARE_TESTS = (
    "voice_kept",
    "facts",
    "contradictions",
    "safety",
)  # tests of whether two shares differ at all


def judge(card: ScoreCard, recipe: str, thresholds: GateThresholds | None = None) -> GateVerdict:
    """Judge a version trained with this recipe. Raises `RequestError` if the thresholds are
    invalid.
    """
    limits = thresholds or thresholds_for(recipe)
    measurements = list(criterion_measurements(card))
    outcomes = _outcomes(measurements, limits)
    leads_to = {
        name: _consequence(outcome, limits.rules[name]) for name, outcome in outcomes.items()
    }
    verdict = max(leads_to.values(), key=lambda it: CONSEQUENCE_SEVERITY[it])
    weighty = sorted(
        measurements, key=lambda it: _severity(it, outcomes[it.name], leads_to[it.name])
    )
    return GateVerdict(
        verdict=verdict,
        reasons=tuple(_reasons(measurements, weighty, outcomes, limits)),
        advice=tuple(_advice(card, weighty, outcomes))[:MAX_ADVICE],
        criteria=tuple(
            _criterion(card, it, outcomes[it.name], limits.rules[it.name]) for it in measurements
        ),
        error_rate=limits.error_rate,
        thresholds=limits.name,
    )


def outcomes_of(card: ScoreCard, recipe: str) -> dict[str, Outcome]:
    """Return the outcome of each criterion by its name in `thresholds.toml`."""
    return _outcomes(list(criterion_measurements(card)), thresholds_for(recipe))


def _outcomes(
    measurements: Sequence[CriterionMeasurement], limits: GateThresholds
) -> dict[str, Outcome]:
    failed = _failed_tests(measurements, limits)
    return {
        it.name: _outcome(it, limits.rules[it.name], failed_test=it.name in failed)
        for it in measurements
    }


def _failed_tests(
    measurements: Sequence[CriterionMeasurement], limits: GateThresholds
) -> frozenset[str]:
    measured = [
        it
        for it in measurements
        if it.value is not None and not _has_too_few_cases(it, limits.rules[it.name])
    ]
    chances = {it.name: it.chance(limits.rules[it.name].fail) for it in measured if it.chance}
    return holm_rejections(chances, limits.error_rate)


def _outcome(
    measure: CriterionMeasurement, rule: CriterionThresholds, *, failed_test: bool
) -> Outcome:
    if measure.value is None or _has_too_few_cases(measure, rule):
        return "not measured"
    if failed_test or (not rule.test and _is_beyond(measure, measure.value, rule.fail)):
        return "fail"
    compared = measure.value if measure.shown is None else measure.shown
    return "warn" if _is_beyond(measure, compared, rule.warn) else "pass"


def _has_too_few_cases(measure: CriterionMeasurement, rule: CriterionThresholds) -> bool:
    return measure.cases is not None and measure.cases < rule.least


def _explanation(measure: CriterionMeasurement, rule: CriterionThresholds) -> str:
    if _has_too_few_cases(measure, rule):
        return (
            f"{measure.why} Measured on {measure.cases}, too few to judge: {rule.least} are needed."
        )
    return measure.why


def _is_beyond(measure: CriterionMeasurement, value: float, threshold: float) -> bool:
    """Report whether a value misses a threshold; NaN misses every threshold."""
    return not (value >= threshold if measure.info.at_least else value <= threshold)


def _consequence(outcome: Outcome, rule: CriterionThresholds) -> Consequence:
    by_outcome: dict[Outcome, Consequence] = {
        "pass": "promote",
        "warn": rule.on_warn,
        "fail": rule.on_fail,
        "not measured": rule.unmeasured,
    }
    return by_outcome[outcome]


def _severity(
    measure: CriterionMeasurement, outcome: Outcome, leads_to: Consequence
) -> tuple[bool, int, int, int]:
    """Return a sort key: criteria with a consequence first, then failures, root causes before their
    effects.
    """
    order: tuple[Outcome, ...] = ("fail", "warn", "not measured", "pass")
    place = (
        ROOT_CAUSE_CRITERIA.index(measure.name)
        if measure.name in ROOT_CAUSE_CRITERIA
        else len(ROOT_CAUSE_CRITERIA)
    )
    return (leads_to == "promote", order.index(outcome), place, -CONSEQUENCE_SEVERITY[leads_to])


def _reasons(
    measurements: Sequence[CriterionMeasurement],
    weighty: Sequence[CriterionMeasurement],
    outcomes: dict[str, Outcome],
    limits: GateThresholds,
) -> Iterator[str]:
    """Yield the reasons against the version or, if there are none, those in its favour."""
    against = [it for it in weighty if outcomes[it.name] != "pass"]
    for measure in (against or [it for it in measurements if it.name in SUPPORTING_CRITERIA])[
        :MAX_REASONS
    ]:
        yield _explanation(measure, limits.rules[measure.name])


def _advice(
    card: ScoreCard, weighty: Sequence[CriterionMeasurement], outcomes: dict[str, Outcome]
) -> Iterator[str]:
    advice = [advice_for(card, it.name) for it in weighty if outcomes[it.name] in ("fail", "warn")]
    yield from dict.fromkeys(filter(None, advice))


def _criterion(
    card: ScoreCard, measure: CriterionMeasurement, outcome: Outcome, rule: CriterionThresholds
) -> Criterion:
    return Criterion(
        name=measure.info.title,
        outcome=outcome,
        value=measure.value,
        unit=measure.info.unit,
        threshold=describe_threshold(measure, rule),
        why=_explanation(measure, rule),
        advice=advice_for(card, measure.name) if outcome in ("fail", "warn") else "",
    )


def describe_threshold(measure: CriterionMeasurement, rule: CriterionThresholds) -> str:
    """Describe a criterion's thresholds in words: `at most 15.0% fewer; fails above 20.0%`."""
    bound = "at least" if measure.info.at_least else "at most"
    prefix = "whole interval below" if measure.shown is not None else bound
    beyond = "below" if measure.info.at_least else "above"
    warn, fail = (format_value(value, measure.info.unit) for value in (rule.warn, rule.fail))
    return f"{prefix} {warn}; fails {'if significantly ' if rule.test else ''}{beyond} {fail.split()[0]}"


class CriterionThresholds(FrozenModel):
    """Thresholds of one criterion; `thresholds.toml` documents the values."""

    warn: float
    fail: float
    on_warn: Consequence
    on_fail: Consequence
    unmeasured: Consequence
    test: bool = False
    least: int = Field(default=0, ge=0)


class GateThresholds(FrozenModel):
    """Thresholds by criterion. `error_rate` applies to all tests together; `name` describes the
    set.
    """

    name: str
    error_rate: float = Field(gt=0, lt=1)
    rules: dict[str, CriterionThresholds]


@lru_cache(maxsize=1)
def read_default_table() -> dict[str, Any]:
    """Read the shipped thresholds file. Raises `OSError`."""
    return tomllib.loads(THRESHOLDS_FILE.read_text(encoding="utf-8"))


def thresholds_for(recipe: str, table: dict[str, Any] | None = None) -> GateThresholds:
    """Return a recipe's thresholds of the shipped or another table. Raises `RequestError` for an
    invalid entry.
    """
    whole = dict(read_default_table() if table is None else table)
    own: dict[str, dict[str, Any]] = whole.pop(RECIPE_TABLE, {}).get(recipe, {})
    error_rate = whole.pop("error_rate", None)
    if unknown := sorted((own.keys() | whole.keys()) - ADVICE_BY_CRITERION.keys()):
        raise RequestError(
            f"The gate has no criterion {unknown[0]!r}.",
            f"Known: {', '.join(ADVICE_BY_CRITERION)}.",
        )
    if missing := sorted(ADVICE_BY_CRITERION.keys() - whole.keys()):
        raise RequestError(f"The thresholds have no table for {missing[0]!r}.", "Add one.")
    rules = {name: {**values, **own.get(name, {})} for name, values in whole.items()}
    name = f"default, with the changes for {recipe}" if own else "default"
    try:
        thresholds = GateThresholds.model_validate(
            {"name": name, "error_rate": error_rate, "rules": rules}
        )
    except ValidationError as error:
        raise explain_validation_error(error) from None
    if wrong := [
        it for it in SHARE_TESTS if thresholds.rules[it].fail or not thresholds.rules[it].test
    ]:
        raise RequestError(
            f"{wrong[0]} tests whether two shares differ: its threshold must be 0.",
            "Set fail to 0.",
        )
    return thresholds


FEW_REPLIES_BELOW = 200
LOSS_RISE_SHARE = 0.08  # training diverged if its highest loss exceeds the first one by this share
MAX_SMALL_DECREASE_SHARE = (
    0.05  # more steps would help if the training loss fell by less than this share
)


def advice_for(card: ScoreCard, name: str) -> str:
    """Return one or two sentences of advice for a criterion of `thresholds.toml`, or an empty
    string.
    """
    advice = ADVICE_BY_CRITERION.get(name, "")
    return advice if isinstance(advice, str) else advice(card)


def _more_data(card: ScoreCard) -> str:
    count = f" ({card.learned.replies} now)" if card.learned else ""
    return f"Add more of the persona's own replies{count}: a hundred are a start, three hundred are good."


def _no_gain(card: ScoreCard) -> str:
    learned = card.learned
    if _has_risen(card):
        return _lower_rate(card)
    if learned is None or learned.replies < FEW_REPLIES_BELOW:
        return _more_data(card)
    if learned.course and learned.course.last > learned.course.first * (
        1 - MAX_SMALL_DECREASE_SHARE
    ):
        return f"The loss hardly fell: set learning_rate={learned.rate * 3:.1g}, or train for more epochs."
    return _fewer_epochs(card)


def _lower_rate(card: ScoreCard) -> str:
    if card.learned is None:
        return "Set a lower learning_rate."
    rate = card.learned.rate
    return f"Set learning_rate={rate / 5:.1g}: at {rate:g} the training loss rose."


def _fewer_epochs(card: ScoreCard) -> str:
    if card.learned is None:
        return "Train for fewer epochs."
    epochs = card.learned.epochs
    fewer = f"{epochs / 2:g}" if epochs > 1 else "1 or less"
    return f"Train for fewer epochs (num_train_epochs={fewer} instead of {epochs:g}), or add more replies."


def _forgets_less(card: ScoreCard) -> str:
    if _has_risen(card):
        return _lower_rate(card)
    epochs = f", or fewer epochs than {card.learned.epochs:g}" if card.learned else ""
    rate = f"learning_rate={card.learned.rate / 2:.1g}" if card.learned else "a lower learning_rate"
    return (
        f"Use the recipe mixed-80-20, which also trains on general dialogue, or set {rate}{epochs}."
    )


def _clearer_style(card: ScoreCard) -> str:
    attributed_to = card.voice.taken_as.get("new", {}) if card.voice else {}
    others = {name: share for name, share in attributed_to.items() if name != card.persona}
    most = max(others, key=lambda name: others[name], default="")
    finding = {
        GENERAL_VOICE: "It sounds like a generic assistant",
        MEMBERS_VOICE: "It sounds like the people it talks to",
        "nobody": "Many of its replies are not readable text",
        "": "It does not sound like the persona",
    }.get(most, f"It sounds like {most}")
    return (
        f"{finding}: add replies that show the persona's style clearly, or train for another epoch."
    )


def _one_voice(card: ScoreCard) -> str:
    others = other_personas(card.voice, card.persona) if card.voice else {}
    most = max(others, key=lambda name: others[name], default="another persona")
    return f"Remove {most}'s lines from the material: only this persona's should be labelled as its own."


def _better_than_live(card: ScoreCard) -> str:
    count = f" (this version had {card.learned.replies} replies)" if card.learned else ""
    return f"Keep the live version, or train on more data than it had{count}."


KNOW_LORE = "Add conversations that ask about the lore (`python -m trainer lore extract`), or raise lore_share."
COMPLETE_REPLIES = "Use complete replies of the length you want: remove replies that were cut off."
TRAIN_ON_VOTES = (
    "Read the replies that members preferred, and train on their votes (`/finetune start task_type:preference`, see "
    "docs/preference.md)."
)
ADVICE_BY_CRITERION: Mapping[str, str | Callable[[ScoreCard], str]] = {
    "better_than_base": _no_gain,
    "no_worse_than_live": _better_than_live,
    "own_adapter": _clearer_style,
    "voice": _clearer_style,
    "voice_over_base": _clearer_style,
    "voice_kept": _better_than_live,
    "facts": KNOW_LORE,
    "contradictions": KNOW_LORE,
    "in_character": "Remove replies in which it speaks as an AI assistant, and add some that deflect such questions.",
    "length": COMPLETE_REPLIES,
    "repetition": _fewer_epochs,
    "ends": COMPLETE_REPLIES,
    "general": _forgets_less,
    "instructions": _forgets_less,
    "verbatim": _fewer_epochs,
    "private": "Do not deploy it: run the material through `python -m trainer anonymise --review`, remove what it "
    "finds, and train again.",
    "fitting": _fewer_epochs,
    "safety": "Read the failed replies in the score card, and add examples in which the persona declines.",
    "members": TRAIN_ON_VOTES,
    "thumbs": TRAIN_ON_VOTES,
    "enough": _more_data,
    "repeated": "Remove duplicate replies: repetitions are memorised and outweigh the rest.",
    "speakers": "Check the speaker labels of the material: replies labelled as the persona's read like other people's. "
    "`python -m trainer mask` shows what is trained on.",
    "one_voice": _one_voice,
    "unseen": "Remove the held-out replies from the training data and train again: losses on trained replies prove "
    "nothing. `dataset build` splits by conversation.",
    "steady": _lower_rate,
    "base_is_base": "Run `python -m trainer evaluate` again; if the difference persists, do not trust any comparison.",
}


def _has_risen(card: ScoreCard) -> bool:
    curve = card.learned.course if card.learned else None
    return curve is not None and curve.highest > curve.first * (1 + LOSS_RISE_SHARE)
