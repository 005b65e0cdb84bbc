"""Criteria on replies: voice, facts and style of generated ones, and members' votes and thumbs."""

from __future__ import annotations

from collections.abc import Iterator

from personas.schemas.scorecard import HELDOUT_TASK, FactScores, MeanStd, ScoreCard, Side, VoiceScores
from trainer.gate.measurement import (
    UNIT_SHARE,
    UNIT_SHARE_DO_NOT,
    UNIT_SHARE_FEWER,
    UNIT_SHARE_MORE,
    UNIT_TIMES,
    CriterionMeasurement,
    fisher_p_value,
    reference_side,
)


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
