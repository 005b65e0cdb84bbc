"""The gate's criteria: turns each section of a score card into measurements with an explanation."""

from collections import Counter
from collections.abc import Iterable, Iterator

from personas.schemas.formatting import format_counts
from personas.schemas.scorecard import (
    CARE_KINDS,
    HUMAN_CLAIM,
    MEMBERS_VOICE,
    FactScores,
    Interval,
    ReplyCounts,
    SafetyScores,
    ScoreCard,
    Side,
    VoiceScores,
)
from trainer.gate.measurement import (
    CriterionMeasurement,
    loss_rise,
    other_personas,
    reference_side,
)
from trainer.gate.significance import fisher_p_value, p_value_of_interval

NON_PATTERN_KINDS = ("PERSON", "HANDLE", "STREET_ADDRESS")
"""Kinds of personal data that are detected by judging names, not by a pattern. They never reject a
version.
"""


def criterion_measurements(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    """Yield one measurement per criterion that applies to the card, in the order of
    `thresholds.toml`.
    """
    yield from _heldout_criteria(card)
    yield from _people_criterion(card)
    if card.persona is not None:
        yield from _persona_criteria(card)
        yield from _reply_criteria(card.replies)
    yield from _loss_criteria(card)
    yield from _memorisation_criteria(card)
    if card.persona is not None:
        yield from _safety_criteria(card)
        yield from _member_criteria(card)
        yield from _data_criteria(card)
    yield _pii_criterion(card)
    yield _base_unchanged_criterion(card)


# ------------------------------------------------------------------------------ knowledge and voice


def _heldout_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    losses = card.heldout.loss
    base = card.heldout.against_base
    live = card.heldout.against_live
    why = (
        f"The loss on {card.heldout.replies} held-out replies is {losses['new']:.3f}, the base "
        f"model's {losses['base']:.3f}: {_interval(base)}."
    )
    chance = p_value_of_interval(base)
    # `shown`: it warns unless the whole interval is below the threshold.
    replies = card.heldout.replies
    yield CriterionMeasurement(
        "better_than_base", base.estimate, why, shown=base.high, chance=chance, cases=replies
    )
    if live:
        why = (
            f"The loss on held-out replies is {losses['new']:.3f}, the live version's "
            f"{losses['live']:.3f}: {_interval(live)}."
        )
        chance = p_value_of_interval(live)
        yield CriterionMeasurement(
            "no_worse_than_live", live.estimate, why, chance=chance, cases=replies
        )


def _people_criterion(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    """Yield the share of people's replies among the held-out ones, if the version is compared with one
    that learned from people.
    """
    learned = card.learned
    if learned is None or not learned.live_had_people or not learned.heldout_written:
        return
    measured = (
        f"{learned.heldout_written:.0%} of the replies that it is measured with are a model's"
    )
    if learned.written_by:
        measured = f"It is measured with replies by {learned.written_by} alone"
    why = (
        f"{measured}, like those that it was trained on, and the live version learned from people's "
        "replies: the comparison favours this one."
    )
    yield CriterionMeasurement("people", 1 - learned.heldout_written, why)


def _persona_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    if card.separation:
        best = card.separation.own_best_new
        why = f"Its own adapter predicts {best:.0%} of the persona's held-out replies best."
        yield CriterionMeasurement("own_adapter", best, why)
    elif "separation" not in card.left_out:
        yield CriterionMeasurement("own_adapter", None, "No other persona's adapter was compared.")
    yield from _voice_criteria(card.voice, reference_side(card))
    yield from _fact_criteria(card.facts, reference_side(card))


def _voice_criteria(voice: VoiceScores | None, rival: Side) -> Iterator[CriterionMeasurement]:
    if voice is None:
        yield CriterionMeasurement("voice", None, "The voice was not measured.")
        return
    new = voice.right["new"].mean
    base = voice.right["base"].mean
    replies = voice.replies // len(voice.right)
    attributed = f"The classifier attributes {new:.0%} of its replies to the persona"
    why = (
        f"{attributed} ({voice.ceiling:.0%} of the persona's held-out ones, {base:.0%} of the "
        "base model's)."
    )
    # Of the share that the persona's real replies reach, which no version can be expected to pass.
    of_ceiling = new / voice.ceiling if voice.ceiling else None
    yield CriterionMeasurement("voice", of_ceiling, why, cases=replies)
    why = f"{attributed}, the base model's {base:.0%}."
    yield CriterionMeasurement("voice_over_base", new - base, why, cases=replies)
    if rival == "live" and "live" in voice.right:
        live = voice.right["live"].mean
        # Prompts, not replies: several seeds' replies to the same prompt are no further trials.
        runs = sum(right.runs for right in voice.right.values())
        prompts = voice.prompts or voice.replies // max(1, runs)
        chance = fisher_p_value(1 - new, 1 - live, prompts)
        why = f"{attributed}, the live version's {live:.0%}."
        yield CriterionMeasurement("voice_kept", live - new, why, chance=chance, cases=replies)


def _fact_criteria(facts: FactScores | None, rival: Side) -> Iterator[CriterionMeasurement]:
    """Yield the measurements of lore and character; none for a persona without lore."""
    if facts is None:
        return
    if rival not in facts.right_with_lore:
        rival = "base"
    count = facts.questions
    right = facts.right_with_lore
    wrong = facts.contradictions
    breaks = facts.breaks_character
    why = (
        f"It answers {right['new']:.0%} of {count} lore questions correctly, {_rival_name(rival)} "
        f"{right[rival]:.0%}."
    )
    fewer = right[rival] - right["new"]
    chance = fisher_p_value(1 - right["new"], 1 - right[rival], count)
    yield CriterionMeasurement("facts", fewer, why, chance=chance, cases=count)
    why = (
        f"{wrong['new']:.0%} of its answers contradict the lore, {wrong[rival]:.0%} for "
        f"{_rival_name(rival)}."
    )
    more = wrong["new"] - wrong[rival]
    chance = fisher_p_value(wrong["new"], wrong[rival], count)
    yield CriterionMeasurement("contradictions", more, why, chance=chance, cases=count)
    why = f"{breaks['new']:.1%} of its replies break character."
    yield CriterionMeasurement("in_character", breaks["new"], why, cases=count)


def _reply_criteria(counts: ReplyCounts | None) -> Iterator[CriterionMeasurement]:
    """Yield the measurement of the endings of replies to held-out prompts."""
    if counts:
        ended = counts.ended["new"]
        why = f"{ended:.0%} of its replies end with an end-of-turn token."
        yield CriterionMeasurement("ends", ended, why)


# ------------------------------------------------------------------------ forgetting and memorising


def _loss_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    general = card.general
    if general is None:
        yield CriterionMeasurement("general", None, "General dialogue was not measured.")
        return
    yield _loss_change("general", "general dialogue", general.dialogue_change)
    if general.instruction_change:
        yield _loss_change("instructions", "instruction replies", general.instruction_change)


def _loss_change(name: str, texts: str, change: Interval) -> CriterionMeasurement:
    why = f"The loss on {texts} is {change.estimate:+.1%} against the base model's."
    return CriterionMeasurement(name, change.estimate, why, chance=p_value_of_interval(change))


def _memorisation_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    section = card.memorised
    if section is None:
        yield CriterionMeasurement("verbatim", None, "Memorisation was not measured.")
        return
    why = (
        f"It completes {section.verbatim:.1%} of {section.prefixes} trained replies word for word, "
        f"the base model {section.verbatim_base:.1%}."
    )
    more = section.verbatim - section.verbatim_base
    yield CriterionMeasurement("verbatim", more, why, cases=section.prefixes)
    if not section.gap:
        why = (
            "Whether it is overfitted was not measured: its trained replies have the short card in "
            "their prompts, the held-out ones the full one."
        )
        yield CriterionMeasurement("fitting", None, why)
        return
    # Against the base model's, which has seen neither: held-out replies may be harder by chance.
    gap = section.gap["new"] - section.gap["base"]
    why = (
        f"Its loss on replies that it has never seen is {_more(section.gap['new'])} than on those that "
        f"it was trained on; the base model's, which has seen neither, is {_more(section.gap['base'])}."
    )
    yield CriterionMeasurement("fitting", gap, why)


def _more(difference: float) -> str:
    return f"{abs(difference):.2f} {'lower' if difference < 0 else 'higher'}"


def _safety_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    safety = card.safety
    rival = reference_side(card)
    prompts = sum(safety.prompts.values()) if safety else 0
    if safety is None or not prompts:
        return
    new = sum(failed.get("new", 0) for failed in safety.failed.values()) / prompts
    other = sum(failed.get(rival, 0) for failed in safety.failed.values()) / prompts
    why = f"It fails {new:.0%} of {prompts} safety prompts, {_rival_name(rival)} {other:.0%}."
    chance = fisher_p_value(new, other, prompts)
    yield CriterionMeasurement("safety", new - other, why, chance=chance, cases=prompts)
    asked, failed = _failures(safety, (HUMAN_CLAIM,))
    if asked:
        why = f"Asked sincerely, it claims to be human in {failed} of {asked} answers."
        few = "Whether it claims to be human was not judged."
        share = failed / asked
        yield CriterionMeasurement("claims_human", share, why, cases=asked, few=few)
    asked, failed = _failures(safety, CARE_KINDS)
    if asked:
        why = f"{failed} of {asked} answers to grief or self-harm are cruel, flippant or without care."
        few = "How it answers grief and self-harm was not judged."
        yield CriterionMeasurement("care", failed / asked, why, cases=asked, few=few)


def _failures(safety: SafetyScores, kinds: Iterable[str]) -> tuple[int, int]:
    """Count the prompts of some kinds, and the new version's failures."""
    asked = sum(safety.prompts.get(kind, 0) for kind in kinds)
    return asked, sum(safety.failed.get(kind, {}).get("new", 0) for kind in kinds)


# ---------------------------------------------------------------------------------------- members


def _member_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    """Yield the measurements of members' votes and ratings; none before members have rated the
    version.
    """
    feedback = card.heard
    if feedback is None:
        return
    rival = _rival_name(reference_side(card))
    counted = f"{feedback.votes} blind votes by {feedback.members} members"
    if feedback.preferred is None:
        why = f"Members are not known to prefer it or {rival} ({counted})."
    else:
        why = f"{feedback.preferred:.0%} of the members prefer it to {rival} ({counted})."
    yield CriterionMeasurement("members", feedback.preferred, why)
    up, live_up = feedback.up
    down, live_down = feedback.down
    why = f"Its replies have {up} 👍 and {down} 👎, {rival}'s {live_up} and {live_down}"
    if feedback.liked is None:
        why = f"{why}: not significantly better or worse."
    else:
        why = f"{why}; {feedback.liked:.0%} of the members who rated both like its replies more."
    yield CriterionMeasurement("thumbs", feedback.liked, why)


# ------------------------------------------------------------------------------------ training data


def _data_criteria(card: ScoreCard) -> Iterator[CriterionMeasurement]:
    learned = card.learned
    if learned is None:
        for name in ("enough", "repeated", "unseen"):
            yield CriterionMeasurement(name, None, "The training data was not checked.")
        return
    why = f"It was trained on {learned.replies} replies of the persona."
    yield CriterionMeasurement("enough", learned.replies, why)
    why = f"{learned.repeated:.0%} of the longer trained replies repeat an earlier one."
    yield CriterionMeasurement("repeated", learned.repeated, why)
    why = f"{learned.leaked:.0%} of the longer held-out replies are among the trained ones."
    few = "Whether held-out replies are among the trained ones was not judged."
    heldout = card.heldout.replies
    yield CriterionMeasurement("unseen", learned.leaked, why, cases=heldout, few=few)
    if learned.written_by:
        yield from _written_speaker_criteria(learned.written_by)
    else:
        yield from _speaker_criteria(card.voice, card.persona, learned.replies)
    curve = learned.course
    if curve:
        why = f"The training loss fell from {curve.first:.2f} to {curve.last:.2f}."
        if loss_rise(curve) > 0:
            why = (
                f"The training loss started at {curve.first:.2f}, rose to {curve.highest:.2f} and "
                f"ended at {curve.last:.2f}."
            )
        yield CriterionMeasurement("steady", loss_rise(curve), why)


def _speaker_criteria(
    voice: VoiceScores | None, persona: str | None, replies: int
) -> Iterator[CriterionMeasurement]:
    """Yield whose the trained replies are, of which there are so many."""
    few = "Whose lines the trained replies are was not judged."
    if voice is None or not voice.trained_as:
        return
    members = voice.trained_as.get(MEMBERS_VOICE, 0.0)
    why = (
        f"{members:.0%} of the trained replies read like the people who talk to the persona, not "
        "like the persona."
    )
    yield CriterionMeasurement("speakers", members, why, cases=replies, few=few)
    others = other_personas(voice, persona)
    why = "None of the trained replies reads like another persona."
    if others:
        most = max(others, key=lambda name: others[name])
        why = (
            f"{sum(others.values()):.0%} of the trained replies read like other personas, mostly "
            f"like {most}."
        )
    yield CriterionMeasurement("one_voice", sum(others.values()), why, cases=replies, few=few)


def _written_speaker_criteria(author: str) -> Iterator[CriterionMeasurement]:
    """Yield, unmeasured, what is not asked of replies that a model wrote."""
    all_written = f"every reply was written by {author}"
    why = f"There are no speaker labels to check: {all_written}."
    yield CriterionMeasurement("speakers", None, why)
    why = f"There are no other personas' lines to look for: {all_written}."
    yield CriterionMeasurement("one_voice", None, why)


def _pii_criterion(card: ScoreCard) -> CriterionMeasurement:
    """Measure personal data in the training data and in generated replies."""
    sections = [section for section in (card.learned, card.memorised) if section]
    counts = Counter[str]()
    for section in sections:
        counts += Counter(section.private)
    formed = {kind: count for kind, count in counts.items() if kind not in NON_PATTERN_KINDS}
    why = "No personal data was found."
    if formed:
        why = f"Personal data in its training data or replies: {format_counts(formed)}."
    count = sum(formed.values()) if sections else None
    return CriterionMeasurement("private", count, why)


def _base_unchanged_criterion(card: ScoreCard) -> CriterionMeasurement:
    differs = card.base_is_base
    why = "Loading adapters left the base model's logits unchanged."
    if differs:
        why = f"The base model's logits differ by {differs:g} with adapters loaded."
    return CriterionMeasurement("base_is_base", differs, why)


def _interval(interval: Interval) -> str:
    return f"{interval.estimate:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def _rival_name(rival: Side) -> str:
    return "the live version" if rival == "live" else "the base model"
