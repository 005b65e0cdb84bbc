"""The gate's criteria: turns each section of a score card into measurements with an explanation."""

from __future__ import annotations

from collections.abc import Iterator

from personas.schemas.formatting import format_counts
from personas.schemas.scorecard import (
    GENERAL_VOICE,
    HELDOUT_TASK,
    MEMBERS_VOICE,
    FactScores,
    Interval,
    MeanStd,
    ScoreCard,
    Side,
    VoiceScores,
)
from trainer.gate.measurement import (
    UNIT_COUNT,
    UNIT_NATS,
    UNIT_SHARE,
    UNIT_SHARE_DO_NOT,
    UNIT_SHARE_FEWER,
    UNIT_SHARE_MORE,
    UNIT_TIMES,
    CriterionMeasurement,
    fisher_p_value,
    p_value_of_interval,
    reference_side,
)

NON_PATTERN_KINDS = ("PERSON", "HANDLE", "STREET_ADDRESS")
"""Kinds of personal data that are detected by judging names, not by a pattern. They never reject a version."""


def criterion_measurements(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    """Yield one measurement per criterion that applies to the card, in the order of `thresholds.toml`."""
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


# ---------------------------------------------------------------------------------------- knowledge and voice


def _heldout_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    losses, base, live = card.heldout.loss, card.heldout.against_base, card.heldout.against_live
    yield CriterionMeasurement(
        "better_than_base",
        "better than the base model",
        UNIT_NATS,
        base.estimate,
        f"The loss on {card.heldout.replies} held-out replies is {losses['new']:.3f}, the base model's "
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
            f"The loss on held-out replies is {losses['new']:.3f}, the live version's {losses['live']:.3f}: "
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
            f"Its own adapter predicts {found.own_best_new:.0%} of the persona's held-out replies best."
            if found
            else "No other persona's adapter was compared.",
            at_least=True,
        )
    yield from voice_criteria(card.voice, reference_side(card))
    yield from fact_criteria(card.facts, reference_side(card))


# ---------------------------------------------------------------------------------------- forgetting and memorising


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
        change = general.instruction_change
        yield CriterionMeasurement(
            "instructions",
            "instructions kept",
            UNIT_SHARE,
            change.estimate,
            f"The loss on instruction replies is {change.estimate:+.1%} against the base model's.",
            chance=p_value_of_interval(change),
        )


def _memorisation_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    found = card.memorised
    if found is None:
        yield CriterionMeasurement("verbatim", "not memorised", UNIT_SHARE, None, "Memorisation was not measured.")
        return
    yield CriterionMeasurement(
        "verbatim",
        "not memorised",
        UNIT_SHARE,
        found.verbatim - found.verbatim_base,
        f"It completes {found.verbatim:.1%} of {found.prefixes} trained replies word for word, the base model "
        f"{found.verbatim_base:.1%}.",
    )
    gap = found.gap["new"] - found.gap["base"]
    yield CriterionMeasurement(
        "fitting",
        "not overfitted",
        UNIT_NATS,
        gap,
        f"The loss on trained replies is {found.gap['new']:.2f} below that on held-out ones ({gap:+.2f} against the "
        "base model's).",
    )


def _safety_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    safety, rival = card.safety, reference_side(card)
    prompts = sum(safety.prompts.values()) if safety else 0
    if safety is None or not prompts:
        return
    sides: tuple[Side, Side] = ("new", rival)
    failed = {side: sum(by.get(side, 0) for by in safety.failed.values()) / prompts for side in sides}
    yield CriterionMeasurement(
        "safety",
        "no less safe",
        UNIT_SHARE_MORE,
        failed["new"] - failed[rival],
        f"It fails {failed['new']:.0%} of {prompts} safety prompts, {rival_name(rival)} {failed[rival]:.0%}.",
        chance=fisher_p_value(failed["new"], failed[rival], prompts),
        cases=prompts,
    )


# ---------------------------------------------------------------------------------------- training data


def _data_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    learned = card.learned
    if learned is None:
        for name, title in (
            ("enough", "enough training data"),
            ("repeated", "no duplicates"),
            ("unseen", "held-out replies unseen"),
        ):
            yield CriterionMeasurement(name, title, UNIT_SHARE, None, "The training data was not checked.")
        return
    yield CriterionMeasurement(
        "enough",
        "enough training data",
        "replies",
        learned.replies,
        f"It was trained on {learned.replies} replies of the persona.",
        at_least=True,
    )
    yield CriterionMeasurement(
        "repeated",
        "no duplicates",
        UNIT_SHARE,
        learned.repeated,
        f"{learned.repeated:.0%} of the longer trained replies repeat an earlier one.",
    )
    yield CriterionMeasurement(
        "unseen",
        "held-out replies unseen",
        UNIT_SHARE,
        learned.leaked,
        f"{learned.leaked:.0%} of the longer held-out replies are among the trained ones.",
    )
    yield from _speaker_criteria(card.voice, card.persona)
    course = learned.course
    if course:
        yield CriterionMeasurement(
            "steady",
            "steady training",
            UNIT_SHARE,
            course.highest / course.first - 1,
            f"The training loss started at {course.first:.2f}, rose to {course.highest:.2f} and ended at "
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
        "speakers labelled correctly",
        UNIT_SHARE,
        members,
        f"{members:.0%} of the trained replies read like the people who talk to the persona, not like the persona.",
    )
    known = {persona, MEMBERS_VOICE, GENERAL_VOICE, "nobody"}
    others = {name: share for name, share in voice.trained_as.items() if name not in known}
    most = max(others, key=lambda name: others[name], default="another persona")
    yield CriterionMeasurement(
        "one_voice",
        "one persona's words",
        UNIT_SHARE,
        sum(others.values()),
        f"{sum(others.values()):.0%} of the trained replies read like other personas, mostly like {most}."
        if others
        else "None of the trained replies reads like another persona.",
    )


def _pii_criterion(card: ScoreCard) -> CriterionMeasurement:
    """Measure personal data in the training data and in generated replies."""
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
        f"Personal data in its training data or replies: {format_counts(formed)}."
        if formed
        else "No personal data was found.",
    )


def _base_unchanged_criterion(card: ScoreCard) -> CriterionMeasurement:
    differs = card.base_is_base
    return CriterionMeasurement(
        "base_is_base",
        "base model unchanged",
        "in logits",
        differs,
        "Loading adapters left the base model's logits unchanged."
        if not differs
        else f"The base model's logits differ by {differs:g} with adapters loaded.",
    )


def _interval(it: Interval) -> str:
    return f"{it.estimate:+.3f} ({it.low:+.3f} to {it.high:+.3f})"


def rival_name(rival: Side) -> str:
    """Name the side that the new version is compared with."""
    return "the live version" if rival == "live" else "the base model"


def voice_criteria(voice: VoiceScores | None, rival: Side) -> Iterator[CriterionMeasurement]:
    """Yield the measurements of the voice classifier's section."""
    if voice is None:
        yield CriterionMeasurement(
            "voice", "speaks in the persona's voice", UNIT_SHARE, None, "The voice was not measured.", at_least=True
        )
        return
    new, base = voice.right["new"].mean, voice.right["base"].mean
    replies = voice.replies // len(voice.right)
    yield CriterionMeasurement(
        "voice",
        "speaks in the persona's voice",
        "of the ceiling",
        new / voice.ceiling if voice.ceiling else None,
        f"The classifier attributes {new:.0%} of its replies to the persona ({voice.ceiling:.0%} of the persona's real "
        f"ones, {base:.0%} of the base model's).",
        at_least=True,
        cases=replies,
    )
    yield CriterionMeasurement(
        "voice_over_base",
        "closer to the voice than the base model",
        UNIT_SHARE,
        new - base,
        f"The classifier attributes {new:.0%} of its replies to the persona, the base model's {base:.0%}.",
        at_least=True,
        cases=replies,
    )
    if rival == "live" and "live" in voice.right:
        live = voice.right["live"]
        prompts = voice.replies // max(1, sum(it.runs for it in voice.right.values()))
        yield CriterionMeasurement(
            "voice_kept",
            "voice no worse than the live version's",
            UNIT_SHARE_FEWER,
            live.mean - new,
            f"The classifier attributes {new:.0%} of its replies to the persona, the live version's {live.mean:.0%}.",
            chance=fisher_p_value(1 - new, 1 - live.mean, prompts),
            cases=replies,
        )


def fact_criteria(facts: FactScores | None, rival: Side) -> Iterator[CriterionMeasurement]:
    """Yield the measurements of lore and character; none for a persona without lore."""
    if facts is None:
        return
    rival = rival if rival in facts.right_with_lore else "base"
    questions, right, wrong, whose = facts.questions, facts.right_with_lore, facts.contradictions, rival_name(rival)
    yield CriterionMeasurement(
        "facts",
        "knows the lore",
        UNIT_SHARE_FEWER,
        right[rival] - right["new"],
        f"It answers {right['new']:.0%} of {questions} lore questions correctly, {whose} {right[rival]:.0%}.",
        chance=fisher_p_value(1 - right["new"], 1 - right[rival], questions),
        cases=questions,
    )
    yield CriterionMeasurement(
        "contradictions",
        "does not contradict the lore",
        UNIT_SHARE_MORE,
        wrong["new"] - wrong[rival],
        f"{wrong['new']:.0%} of its answers contradict the lore, {wrong[rival]:.0%} for {whose}.",
        chance=fisher_p_value(wrong["new"], wrong[rival], questions),
        cases=questions,
    )
    yield CriterionMeasurement(
        "in_character",
        "stays in character",
        UNIT_SHARE_DO_NOT,
        facts.breaks_character["new"],
        f"{facts.breaks_character['new']:.1%} of its replies break character.",
        cases=questions,
    )


def text_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    """Yield the measurements of length, repetition and endings of replies to held-out prompts."""
    scores = next((it.scores for it in card.text if it.task == HELDOUT_TASK), {})

    def new(name: str) -> float | None:
        by_side: dict[Side, MeanStd] = scores.get(name, {})
        return by_side["new"].mean if "new" in by_side else None

    ratio, again, ended = new("length_ratio"), new("repetition"), new("ended")
    if ratio is not None:
        times = max(ratio, 1 / ratio) if ratio else float("inf")
        yield CriterionMeasurement(
            "length",
            "as long as real replies",
            UNIT_TIMES,
            times,
            f"Its replies are {ratio:.2f} times as long as the real ones, in words.",
        )
    if again is not None:
        yield CriterionMeasurement(
            "repetition",
            "does not repeat itself",
            UNIT_SHARE,
            again,
            f"{again:.1%} of its four-word sequences repeat an earlier one in the same reply.",
        )
    if ended is not None:
        yield CriterionMeasurement(
            "ends",
            "ends its replies",
            UNIT_SHARE,
            ended,
            f"{ended:.0%} of its replies end with an end-of-turn token.",
            at_least=True,
        )


def member_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    """Yield the measurements of members' votes and ratings; none before members have rated the version."""
    heard = card.heard
    if heard is None:
        return
    whose = rival_name(reference_side(card))
    counted = f"{heard.votes} blind votes by {heard.members} members"
    yield CriterionMeasurement(
        "members",
        "members do not prefer the other",
        UNIT_SHARE,
        heard.most,
        f"Too few members have compared it with {whose} for a conclusion ({counted})."
        if heard.least is None or heard.most is None
        else f"Members prefer it to {whose} in {heard.least:.0%} to {heard.most:.0%} of comparisons ({counted}).",
        at_least=True,
    )
    (up, live_up), (down, live_down) = heard.up, heard.down
    yield CriterionMeasurement(
        "thumbs",
        "members do not dislike it more",
        UNIT_TIMES,
        heard.evidence,
        f"Its replies have {up} 👍 and {down} 👎, {whose}'s {live_up} and {live_down}; the evidence that members "
        f"dislike it more is {heard.evidence:.1f}."
        if heard.evidence is not None
        else f"Its replies have {up} 👍 and {down} 👎; there is no rating of {whose} to compare with.",
    )
