"""What each criterion looks at: one number of the score card, and why it is what it is, in a sentence.

A criterion that does not apply to a card, such as a voice where there is no persona, gives nothing; one that applies
and was not measured gives a measure without a value.
"""

from __future__ import annotations

from collections.abc import Iterator

from personas.amounts import counts
from personas.scorecard import FullScoreCard, Interval, Side, Voice
from trainer.gate.chance import of_interval, of_shares
from trainer.gate.heard import of_members
from trainer.gate.measure import COUNT, MORE, NATS, SHARE, Measure, rival_of
from trainer.gate.spoken import of_facts, of_texts, of_voice
from trainer.scorecard.spoken.voice import GENERAL, MEMBERS

GUESSED = ("PERSON", "HANDLE", "STREET_ADDRESS")
"""Kinds of personal data that are a judgement of names: nothing is rejected by them. All others have a form."""


def measures(card: FullScoreCard) -> Iterator[Measure]:
    """One for each criterion that applies to the card, in the order of `thresholds.toml`."""
    yield from _of_heldout(card)
    if card.persona is not None:
        yield from _of_persona(card)
        yield from of_texts(card)
    yield from _of_losses(card)
    yield from _of_memory(card)
    if card.persona is not None:
        yield from _of_safety(card)
        yield from of_members(card)
        yield from _of_material(card)
    yield _unlearned(card)
    yield _untouched(card)


# ---------------------------------------------------------------------------------------- what it knows


def _of_heldout(card: FullScoreCard) -> Iterator[Measure]:
    losses, base, live = card.heldout.loss, card.heldout.against_base, card.heldout.against_live
    yield Measure(
        "better_than_base",
        "better than the base model",
        NATS,
        base.estimate,
        f"On {card.heldout.replies} held-out replies the loss is {losses['new']:.3f}, the base model's "
        f"{losses['base']:.3f}: {_interval(base)}.",
        shown=base.high,
        chance=of_interval(base),
    )
    if live:
        yield Measure(
            "no_worse_than_live",
            "no worse than the live version",
            NATS,
            live.estimate,
            f"On held-out replies the loss is {losses['new']:.3f}, the live version's {losses['live']:.3f}: "
            f"{_interval(live)}.",
            chance=of_interval(live),
        )


def _of_persona(card: FullScoreCard) -> Iterator[Measure]:
    found = card.separation
    if found or "separation" not in card.left_out:
        yield Measure(
            "own_adapter",
            "its own adapter fits best",
            SHARE,
            found.own_best_new if found else None,
            f"Of the persona's held-out replies {found.own_best_new:.0%} are predicted best by its own adapter."
            if found
            else "No other persona's adapter was compared.",
            at_least=True,
        )
    yield from of_voice(card.voice, rival_of(card))
    yield from of_facts(card.facts, rival_of(card))


# ---------------------------------------------------------------------------------------- what it lost


def _of_losses(card: FullScoreCard) -> Iterator[Measure]:
    general = card.general
    change = general.dialogue_change if general else None
    yield Measure(
        "general",
        "general dialogue kept",
        SHARE,
        change.estimate if change else None,
        f"The loss on general dialogue is {change.estimate:+.1%} against the base model's."
        if change
        else "General dialogue was not measured.",
        chance=of_interval(change) if change else None,
    )
    if general and general.instruction_change:
        told = general.instruction_change
        yield Measure(
            "instructions",
            "instructions kept",
            SHARE,
            told.estimate,
            f"The loss on instruction replies is {told.estimate:+.1%} against the base model's.",
            chance=of_interval(told),
        )


def _of_memory(card: FullScoreCard) -> Iterator[Measure]:
    found = card.memorised
    if found is None:
        yield Measure("verbatim", "not learned by heart", SHARE, None, "What comes back of it was not measured.")
        return
    yield Measure(
        "verbatim",
        "not learned by heart",
        SHARE,
        found.verbatim - found.verbatim_base,
        f"{found.verbatim:.1%} of {found.prefixes} trained replies come back word for word, {found.verbatim_base:.1%} "
        "with the base model.",
    )
    gap = found.gap["new"] - found.gap["base"]
    yield Measure(
        "fitting",
        "no closer fit than it generalises",
        NATS,
        gap,
        f"The loss on trained replies is {found.gap['new']:.2f} below that on held-out ones ({gap:+.2f} against the "
        "base model's).",
    )


def _of_safety(card: FullScoreCard) -> Iterator[Measure]:
    safety, rival = card.safety, rival_of(card)
    asked = sum(safety.prompts.values()) if safety else 0
    if safety is None or not asked:
        return
    sides: tuple[Side, Side] = ("new", rival)
    failed = {side: sum(by.get(side, 0) for by in safety.failed.values()) / asked for side in sides}
    whose = "the live version" if rival == "live" else "the base model"
    yield Measure(
        "safety",
        "no less safe",
        MORE,
        failed["new"] - failed[rival],
        f"It falls for {failed['new']:.0%} of {asked} prompts that ask for harm, {whose} for {failed[rival]:.0%}.",
        chance=of_shares(failed["new"], failed[rival], asked),
        cases=asked,
    )


# ---------------------------------------------------------------------------------------- what it learned from


def _of_material(card: FullScoreCard) -> Iterator[Measure]:
    learned = card.learned
    if learned is None:
        for name, title in (
            ("enough", "enough to learn from"),
            ("repeated", "says things once"),
            ("unseen", "held-out replies unseen"),
        ):
            yield Measure(name, title, SHARE, None, "What was learned from was not looked at.")
        return
    yield Measure(
        "enough",
        "enough to learn from",
        "replies",
        learned.replies,
        f"It learned from {learned.replies} replies of the persona.",
        at_least=True,
    )
    yield Measure(
        "repeated",
        "says things once",
        SHARE,
        learned.repeated,
        f"{learned.repeated:.0%} of the longer replies that it learned from are said by another one already.",
    )
    yield Measure(
        "unseen",
        "held-out replies unseen",
        SHARE,
        learned.leaked,
        f"{learned.leaked:.0%} of the longer held-out replies stand among those that it learned from.",
    )
    yield from _of_speakers(card.voice, card.persona)
    course = learned.course
    if course:
        yield Measure(
            "steady",
            "steady training",
            SHARE,
            course.highest / course.first - 1,
            f"The training loss began at {course.first:.2f}, rose to {course.highest:.2f} later and ended at "
            f"{course.last:.2f}."
            if course.highest > course.first
            else f"The training loss fell from {course.first:.2f} to {course.last:.2f}.",
        )


def _of_speakers(voice: Voice | None, persona: str | None) -> Iterator[Measure]:
    if voice is None or not voice.trained_as:
        return
    members = voice.trained_as.get(MEMBERS, 0.0)
    yield Measure(
        "speakers",
        "speakers labelled rightly",
        SHARE,
        members,
        f"{members:.0%} of the trained replies read like those who talk to the persona, not like the persona.",
    )
    known = {persona, MEMBERS, GENERAL, "nobody"}
    others = {name: share for name, share in voice.trained_as.items() if name not in known}
    most = max(others, key=lambda name: others[name], default="another persona")
    yield Measure(
        "one_voice",
        "one persona's words",
        SHARE,
        sum(others.values()),
        f"{sum(others.values()):.0%} of the trained replies read like other personas', most like {most}'s."
        if others
        else "None of the trained replies reads like another persona's.",
    )


def _unlearned(card: FullScoreCard) -> Measure:
    """Personal data, where there may be some."""
    found: dict[str, int] = {}
    for kinds in (card.learned.private if card.learned else {}, card.memorised.private if card.memorised else {}):
        for kind, count in kinds.items():
            found[kind] = found.get(kind, 0) + count
    formed = {kind: count for kind, count in found.items() if kind not in GUESSED}
    was_measured = card.learned is not None or card.memorised is not None
    return Measure(
        "private",
        "nothing private",
        COUNT,
        sum(formed.values()) if was_measured else None,
        f"Personal data in what it learned from or says: {counts(formed)}."
        if formed
        else "No personal data was found.",
    )


def _untouched(card: FullScoreCard) -> Measure:
    differs = card.base_is_base
    return Measure(
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
