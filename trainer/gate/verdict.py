"""Judges a score card against thresholds: promote, hold or reject, with reasons and advice."""

from collections.abc import Sequence
from dataclasses import dataclass

from personas.schemas.formatting import format_value
from personas.schemas.scorecard import Criterion, GateVerdict, Outcome, ScoreCard
from trainer.gate.advice import advice_for
from trainer.gate.criteria import criterion_measurements
from trainer.gate.measurement import CriterionMeasurement
from trainer.gate.significance import holm_rejections
from trainer.gate.thresholds import Consequence, CriterionThresholds, GateThresholds, thresholds_for

MAX_REASONS = 3  # of the summary; the list of criteria is complete
MAX_ADVICE = 4  # as above
CONSEQUENCE_SEVERITY: dict[Consequence, int] = {"promote": 0, "hold": 1, "reject": 2}
OUTCOMES_BY_SEVERITY: tuple[Outcome, ...] = ("fail", "warn", "not measured", "pass")
SUPPORTING_CRITERIA = ("better_than_base", "no_worse_than_live", "voice", "general")
"""Criteria that are given as reasons for a promotion."""
FIRST_CRITERIA = (
    "private",
    "care",
    "claims_human",
    "unseen",
    "people",
    "base_is_base",
    "steady",
    "speakers",
    "one_voice",
    "repeated",
    "enough",
)
"""Criteria listed first among equally severe ones: what may hurt people, then faulty data or
measurements, which cause the other failures.
"""


@dataclass(frozen=True)
class _Finding:
    """A criterion's measurement, its thresholds, and the outcome."""

    measure: CriterionMeasurement
    rule: CriterionThresholds
    outcome: Outcome

    @property
    def consequence(self) -> Consequence:
        match self.outcome:
            case "pass":
                return "promote"
            case "warn":
                return self.rule.on_warn
            case "fail":
                return self.rule.on_fail
            case "not measured":
                return self.rule.unmeasured

    @property
    def is_reason(self) -> bool:
        """True unless it passes, or nothing follows from its not being measured."""
        if self.outcome == "not measured":
            return self.consequence != "promote"
        return self.outcome != "pass"

    @property
    def explanation(self) -> str:
        if not _has_too_few_cases(self.measure, self.rule):
            return self.measure.why
        why = self.measure.few or self.measure.why
        return f"{why} Measured on {self.measure.cases}, too few to judge: {self.rule.least} are needed."

    @property
    def rank(self) -> tuple[bool, int, int, int]:
        """A sort key: criteria with a consequence first, then failures, and `FIRST_CRITERIA` before
        others.
        """
        cause = len(FIRST_CRITERIA)
        if self.measure.name in FIRST_CRITERIA:
            cause = FIRST_CRITERIA.index(self.measure.name)
        return (
            self.consequence == "promote",
            OUTCOMES_BY_SEVERITY.index(self.outcome),
            cause,
            -CONSEQUENCE_SEVERITY[self.consequence],
        )

    def advice(self, card: ScoreCard) -> str:
        if self.outcome not in ("fail", "warn"):
            return ""
        return advice_for(card, self.measure.name)


def judge(card: ScoreCard, recipe: str, thresholds: GateThresholds | None = None) -> GateVerdict:
    """Judge a version trained with this recipe. Raises `RequestError` if the thresholds are
    invalid.
    """
    limits = thresholds or thresholds_for(recipe)
    findings = _findings(card, limits)
    ranked = sorted(findings, key=lambda finding: finding.rank)
    consequences = [finding.consequence for finding in findings]

    reasons = [finding for finding in ranked if finding.is_reason]
    if not reasons:
        reasons = [each for each in findings if each.measure.name in SUPPORTING_CRITERIA]
    # Several criteria have the same advice: each is given once, for the gravest first.
    advice = dict.fromkeys(finding.advice(card) for finding in ranked)
    advice.pop("", None)
    return GateVerdict(
        verdict=max(consequences, key=CONSEQUENCE_SEVERITY.__getitem__),
        reasons=tuple(finding.explanation for finding in reasons[:MAX_REASONS]),
        advice=tuple(advice)[:MAX_ADVICE],
        criteria=tuple(_criterion(card, finding) for finding in findings),
        error_rate=limits.error_rate,
        thresholds=limits.name,
    )


def outcomes_of(card: ScoreCard, recipe: str) -> dict[str, Outcome]:
    """Return the outcome of each criterion by its name in `thresholds.toml`."""
    findings = _findings(card, thresholds_for(recipe))
    return {finding.measure.name: finding.outcome for finding in findings}


def _findings(card: ScoreCard, limits: GateThresholds) -> list[_Finding]:
    measurements = list(criterion_measurements(card))
    failed = _failed_tests(measurements, limits)
    findings = []
    for measure in measurements:
        rule = limits.rules[measure.name]
        outcome = _outcome(measure, rule, failed_test=measure.name in failed)
        findings.append(_Finding(measure, rule, outcome))
    return findings


def _failed_tests(
    measurements: Sequence[CriterionMeasurement], limits: GateThresholds
) -> frozenset[str]:
    """Return the criteria that fail a test; all tests together have one error rate."""
    chances = {}
    for measure in measurements:
        rule = limits.rules[measure.name]
        # A test that was not made is none of Holm's: it would cost the others their power.
        if measure.value is None or _has_too_few_cases(measure, rule) or not measure.chance:
            continue
        chances[measure.name] = measure.chance(rule.fail)
    return holm_rejections(chances, limits.error_rate)


def _outcome(
    measure: CriterionMeasurement, rule: CriterionThresholds, *, failed_test: bool
) -> Outcome:
    if measure.value is None or _has_too_few_cases(measure, rule):
        return "not measured"
    if failed_test or (not rule.test and _is_beyond(measure, measure.value, rule.fail)):
        return "fail"
    compared = measure.value if measure.shown is None else measure.shown
    if _is_beyond(measure, compared, rule.warn):
        return "warn"
    return "pass"


def _has_too_few_cases(measure: CriterionMeasurement, rule: CriterionThresholds) -> bool:
    return measure.cases is not None and measure.cases < rule.least


def _is_beyond(measure: CriterionMeasurement, value: float, threshold: float) -> bool:
    """Report whether a value misses a threshold; NaN misses every threshold."""
    if measure.info.at_least:
        return not value >= threshold
    return not value <= threshold


def _criterion(card: ScoreCard, finding: _Finding) -> Criterion:
    measure = finding.measure
    return Criterion(
        name=measure.info.title,
        outcome=finding.outcome,
        value=measure.value,
        unit=measure.info.unit,
        threshold=_describe_threshold(measure, finding.rule),
        why=finding.explanation,
        advice=finding.advice(card),
    )


def _describe_threshold(measure: CriterionMeasurement, rule: CriterionThresholds) -> str:
    """Describe a criterion's thresholds in words: `at most 15.0% fewer; fails above 20.0%`."""
    bound = "at most"
    beyond = "above"
    if measure.info.at_least:
        bound = "at least"
        beyond = "below"
    if measure.shown is not None:
        bound = "whole interval below"
    if rule.test:
        beyond = f"if significantly {beyond}"
    warn = format_value(rule.warn, measure.info.unit)
    fail = format_value(rule.fail, measure.info.unit).split()[0]
    return f"{bound} {warn}; fails {beyond} {fail}"
