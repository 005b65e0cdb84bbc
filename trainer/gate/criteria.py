"""The gate's criteria: one measurement of the score card each, with an explanation."""

from __future__ import annotations

from collections.abc import Iterator

from personas.schemas.formatting import format_counts
from personas.schemas.scorecard import GENERAL_VOICE, MEMBERS_VOICE, Interval, ScoreCard, Side, VoiceScores
from trainer.gate.measurement import (
    UNIT_COUNT,
    UNIT_NATS,
    UNIT_SHARE,
    UNIT_SHARE_MORE,
    CriterionMeasurement,
    fisher_p_value,
    p_value_of_interval,
    reference_side,
)
from trainer.gate.reply_criteria import fact_criteria, member_criteria, text_criteria, voice_criteria

NON_PATTERN_KINDS = ("PERSON", "HANDLE", "STREET_ADDRESS")
"""Kinds of personal data that are a judgement of names: nothing is rejected by them. All others have a form."""


def criterion_measurements(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    """One for each criterion that applies to the card, in the order of `thresholds.toml`."""
    yield from _heldout_criteria(card)
    if card.persona is not None:
        yield from _persona_criteria(card)
        yield from text_criteria(card)
    yield from _loss_criteria(card)
    yield from _memorisation_criteria(card)
    if card.persona is not None:
        yield from _safety_criteria(card)
        yield from member_criteria(card)
        yield from _data_criteria(card)
    yield _pii_criterion(card)
    yield _base_unchanged_criterion(card)


# ---------------------------------------------------------------------------------------- what it knows


def _heldout_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    losses, base, live = card.heldout.loss, card.heldout.against_base, card.heldout.against_live
    yield CriterionMeasurement(
        "better_than_base",
        "better than the base model",
        UNIT_NATS,
        base.estimate,
        f"On {card.heldout.replies} held-out replies the loss is {losses['new']:.3f}, the base model's "
        f"{losses['base']:.3f}: {_interval(base)}.",
        shown=base.high,
        chance=p_value_of_interval(base),
    )
    if live:
        yield CriterionMeasurement(
            "no_worse_than_live",
            "no worse than the live version",
            UNIT_NATS,
            live.estimate,
            f"On held-out replies the loss is {losses['new']:.3f}, the live version's {losses['live']:.3f}: "
            f"{_interval(live)}.",
            chance=p_value_of_interval(live),
        )


def _persona_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    found = card.separation
    if found or "separation" not in card.left_out:
        yield CriterionMeasurement(
            "own_adapter",
            "its own adapter fits best",
            UNIT_SHARE,
            found.own_best_new if found else None,
            f"Of the persona's held-out replies {found.own_best_new:.0%} are predicted best by its own adapter."
            if found
            else "No other persona's adapter was compared.",
            at_least=True,
        )
    yield from voice_criteria(card.voice, reference_side(card))
    yield from fact_criteria(card.facts, reference_side(card))


# ---------------------------------------------------------------------------------------- what it lost


def _loss_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    general = card.general
    change = general.dialogue_change if general else None
    yield CriterionMeasurement(
        "general",
        "general dialogue kept",
        UNIT_SHARE,
        change.estimate if change else None,
        f"The loss on general dialogue is {change.estimate:+.1%} against the base model's."
        if change
        else "General dialogue was not measured.",
        chance=p_value_of_interval(change) if change else None,
    )
    if general and general.instruction_change:
        told = general.instruction_change
        yield CriterionMeasurement(
            "instructions",
            "instructions kept",
            UNIT_SHARE,
            told.estimate,
            f"The loss on instruction replies is {told.estimate:+.1%} against the base model's.",
            chance=p_value_of_interval(told),
        )


def _memorisation_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    found = card.memorised
    if found is None:
        yield CriterionMeasurement(
            "verbatim", "not learned by heart", UNIT_SHARE, None, "What comes back of it was not measured."
        )
        return
    yield CriterionMeasurement(
        "verbatim",
        "not learned by heart",
        UNIT_SHARE,
        found.verbatim - found.verbatim_base,
        f"{found.verbatim:.1%} of {found.prefixes} trained replies come back word for word, {found.verbatim_base:.1%} "
        "with the base model.",
    )
    gap = found.gap["new"] - found.gap["base"]
    yield CriterionMeasurement(
        "fitting",
        "no closer fit than it generalises",
        UNIT_NATS,
        gap,
        f"The loss on trained replies is {found.gap['new']:.2f} below that on held-out ones ({gap:+.2f} against the "
        "base model's).",
    )


def _safety_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    safety, rival = card.safety, reference_side(card)
    asked = sum(safety.prompts.values()) if safety else 0
    if safety is None or not asked:
        return
    sides: tuple[Side, Side] = ("new", rival)
    failed = {side: sum(by.get(side, 0) for by in safety.failed.values()) / asked for side in sides}
    whose = "the live version" if rival == "live" else "the base model"
    yield CriterionMeasurement(
        "safety",
        "no less safe",
        UNIT_SHARE_MORE,
        failed["new"] - failed[rival],
        f"It falls for {failed['new']:.0%} of {asked} prompts that ask for harm, {whose} for {failed[rival]:.0%}.",
        chance=fisher_p_value(failed["new"], failed[rival], asked),
        cases=asked,
    )


# ---------------------------------------------------------------------------------------- what it learned from


def _data_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    learned = card.learned
    if learned is None:
        for name, title in (
            ("enough", "enough to learn from"),
            ("repeated", "says things once"),
            ("unseen", "held-out replies unseen"),
        ):
            yield CriterionMeasurement(name, title, UNIT_SHARE, None, "What was learned from was not looked at.")
        return
    yield CriterionMeasurement(
        "enough",
        "enough to learn from",
        "replies",
        learned.replies,
        f"It learned from {learned.replies} replies of the persona.",
        at_least=True,
    )
    yield CriterionMeasurement(
        "repeated",
        "says things once",
        UNIT_SHARE,
        learned.repeated,
        f"{learned.repeated:.0%} of the longer replies that it learned from are said by another one already.",
    )
    yield CriterionMeasurement(
        "unseen",
        "held-out replies unseen",
        UNIT_SHARE,
        learned.leaked,
        f"{learned.leaked:.0%} of the longer held-out replies stand among those that it learned from.",
    )
    yield from _speaker_criteria(card.voice, card.persona)
    course = learned.course
    if course:
        yield CriterionMeasurement(
            "steady",
            "steady training",
            UNIT_SHARE,
            course.highest / course.first - 1,
            f"The training loss began at {course.first:.2f}, rose to {course.highest:.2f} later and ended at "
            f"{course.last:.2f}."
            if course.highest > course.first
            else f"The training loss fell from {course.first:.2f} to {course.last:.2f}.",
        )


def _speaker_criteria(voice: VoiceScores | None, persona: str | None) -> Iterator[CriterionMeasurement]:
    if voice is None or not voice.trained_as:
        return
    members = voice.trained_as.get(MEMBERS_VOICE, 0.0)
    yield CriterionMeasurement(
        "speakers",
        "speakers labelled rightly",
        UNIT_SHARE,
        members,
        f"{members:.0%} of the trained replies read like those who talk to the persona, not like the persona.",
    )
    known = {persona, MEMBERS_VOICE, GENERAL_VOICE, "nobody"}
    others = {name: share for name, share in voice.trained_as.items() if name not in known}
    most = max(others, key=lambda name: others[name], default="another persona")
    yield CriterionMeasurement(
        "one_voice",
        "one persona's words",
        UNIT_SHARE,
        sum(others.values()),
        f"{sum(others.values()):.0%} of the trained replies read like other personas', most like {most}'s."
        if others
        else "None of the trained replies reads like another persona's.",
    )


def _pii_criterion(card: ScoreCard) -> CriterionMeasurement:
    """Personal data, where there may be some."""
    found: dict[str, int] = {}
    for kinds in (card.learned.private if card.learned else {}, card.memorised.private if card.memorised else {}):
        for kind, count in kinds.items():
            found[kind] = found.get(kind, 0) + count
    formed = {kind: count for kind, count in found.items() if kind not in NON_PATTERN_KINDS}
    was_measured = card.learned is not None or card.memorised is not None
    return CriterionMeasurement(
        "private",
        "nothing private",
        UNIT_COUNT,
        sum(formed.values()) if was_measured else None,
        f"Personal data in what it learned from or says: {format_counts(formed)}."
        if formed
        else "No personal data was found.",
    )


def _base_unchanged_criterion(card: ScoreCard) -> CriterionMeasurement:
    differs = card.base_is_base
    return CriterionMeasurement(
        "base_is_base",
        "compared with the base model",
        "in logits",
        differs,
        "What was compared with is the base model."
        if not differs
        else f"The base model's logits differ by {differs:g} with adapters loaded.",
    )


def _interval(it: Interval) -> str:
    return f"{it.estimate:+.3f} ({it.low:+.3f} to {it.high:+.3f})"
