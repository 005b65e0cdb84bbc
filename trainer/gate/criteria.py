"""The gate's criteria: one measurement of the score card each, with an explanation."""

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


def voice_criteria(voice: VoiceScores | None, rival: Side) -> Iterator[CriterionMeasurement]:
    if voice is None:
        yield CriterionMeasurement(
            "voice", "speaks in the persona's voice", UNIT_SHARE, None, "No voice was measured.", at_least=True
        )
        return
    new, base = voice.right["new"].mean, voice.right["base"].mean
    said = voice.replies // len(voice.right)
    yield CriterionMeasurement(
        "voice",
        "speaks in the persona's voice",
        "of the ceiling",
        new / voice.ceiling if voice.ceiling else None,
        f"{new:.0%} of its replies are taken to be the persona's ({voice.ceiling:.0%} of the persona's real ones, "
        f"{base:.0%} of the base model's).",
        at_least=True,
        cases=said,
    )
    yield CriterionMeasurement(
        "voice_over_base",
        "nearer to the voice than the base model",
        UNIT_SHARE,
        new - base,
        f"{new:.0%} of its replies are taken to be the persona's, of the base model's {base:.0%}.",
        at_least=True,
        cases=said,
    )
    if rival == "live" and "live" in voice.right:
        live = voice.right["live"]
        asked = voice.replies // max(1, sum(it.runs for it in voice.right.values()))
        yield CriterionMeasurement(
            "voice_kept",
            "voice no worse than the live version's",
            UNIT_SHARE_FEWER,
            live.mean - new,
            f"{new:.0%} of its replies are taken to be the persona's, of the live version's {live.mean:.0%}.",
            chance=fisher_p_value(1 - new, 1 - live.mean, asked),
            cases=said,
        )


def fact_criteria(facts: FactScores | None, rival: Side) -> Iterator[CriterionMeasurement]:
    if facts is None:
        return  # a persona without lore has none to know
    rival = rival if rival in facts.right_with_lore else "base"
    asked, right, wrong = facts.questions, facts.right_with_lore, facts.contradictions
    whose = "the live version" if rival == "live" else "the base model"
    yield CriterionMeasurement(
        "facts",
        "knows the lore",
        UNIT_SHARE_FEWER,
        right[rival] - right["new"],
        f"It answers {right['new']:.0%} of {asked} questions from the lore rightly, {whose} {right[rival]:.0%}.",
        chance=fisher_p_value(1 - right["new"], 1 - right[rival], asked),
        cases=asked,
    )
    yield CriterionMeasurement(
        "contradictions",
        "does not contradict the lore",
        UNIT_SHARE_MORE,
        wrong["new"] - wrong[rival],
        f"{wrong['new']:.0%} of its answers contradict the lore, {wrong[rival]:.0%} of those of {whose}.",
        chance=fisher_p_value(wrong["new"], wrong[rival], asked),
        cases=asked,
    )
    yield CriterionMeasurement(
        "in_character",
        "stays in character",
        UNIT_SHARE_DO_NOT,
        facts.breaks_character["new"],
        f"{facts.breaks_character['new']:.1%} of its replies break character.",
        cases=asked,
    )


def text_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
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
            f"Its replies have {ratio:.2f} words for each word of the real ones.",
        )
    if again is not None:
        yield CriterionMeasurement(
            "repetition",
            "does not repeat itself",
            UNIT_SHARE,
            again,
            f"{again:.1%} of its runs of four words stood in the same reply before.",
        )
    if ended is not None:
        yield CriterionMeasurement(
            "ends",
            "ends its replies",
            UNIT_SHARE,
            ended,
            f"{ended:.0%} of its replies end by themselves.",
            at_least=True,
        )


def member_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    """Nothing for a version that nobody has heard yet."""
    heard = card.heard
    if heard is None:
        return
    whose = "the live version" if reference_side(card) == "live" else "the base model"
    counted = f"{heard.votes} blind votes, {heard.members} members counted"
    yield CriterionMeasurement(
        "members",
        "members do not like the other better",
        UNIT_SHARE,
        heard.most,
        f"Too few members have compared it with {whose} to be certain of anything ({counted})."
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
        f"Its replies have {up} 👍 and {down} 👎, those of {whose} {live_up} and {live_down}; the evidence that it is "
        f"disliked more is {heard.evidence:.1f}."
        if heard.evidence is not None
        else f"Its replies have {up} 👍 and {down} 👎; nobody could compare them with those of {whose}.",
    )
