"""Advice for each criterion that was not met."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from personas.schemas.scorecard import GENERAL_VOICE, MEMBERS_VOICE, LossCurve, ScoreCard

FEW_REPLIES_BELOW = 200
LOSS_RISE_SHARE = 0.08
"""Share by which the training loss is higher at its highest than at the beginning where it lost its way."""
MAX_SMALL_DECREASE_SHARE = 0.05
"""Share by which the last training loss is below the first where so few steps were made that more would help."""


def advice_for(card: ScoreCard, name: str) -> str:
    """One sentence or two for a criterion by its name in `thresholds.toml`; empty where nothing follows from it."""
    advise = ADVICE_BY_CRITERION.get(name)
    return advise(card) if advise else ""


def _more_data(card: ScoreCard) -> str:
    learned = card.learned
    count = f" ({learned.replies} now)" if learned else ""
    return f"Give more of the persona's own replies{count}: a hundred are a start, three hundred are good."


def _no_gain(card: ScoreCard) -> str:
    learned = card.learned
    if learned is None:
        return _more_data(card)
    course = learned.course
    if _has_risen(course):
        return _lower_rate(card)
    if learned.replies < FEW_REPLIES_BELOW:
        return _more_data(card)
    if course and course.last > course.first * (1 - MAX_SMALL_DECREASE_SHARE):
        return f"Little was learned: set learning_rate={_rounded(learned.rate * 3)}, or train for more epochs."
    return _fewer_epochs(card)


def _lower_rate(card: ScoreCard) -> str:
    if card.learned is None:
        return "Set a lower learning_rate."
    rate = card.learned.rate
    return f"Set learning_rate={_rounded(rate / 5)}: it was {rate:g}, and the training lost more than it learned."


def _fewer_epochs(card: ScoreCard) -> str:
    if card.learned is None:
        return "Train for fewer epochs."
    epochs = card.learned.epochs
    fewer = f"{epochs / 2:g}" if epochs > 1 else "1 or less"
    return f"Train for fewer epochs (num_train_epochs={fewer} instead of {epochs:g}), or give more replies."


def _forgets_less(card: ScoreCard) -> str:
    if card.learned and _has_risen(card.learned.course):
        return _lower_rate(card)
    epochs = f", or fewer epochs than {card.learned.epochs:g}" if card.learned else ""
    rate = f"learning_rate={_rounded(card.learned.rate / 2)}" if card.learned else "a lower learning_rate"
    return f"Take the recipe mixed-80-20, which trains on general dialogue too, or set {rate}{epochs}."


def _advise_voice(card: ScoreCard) -> str:
    taken = card.voice.taken_as.get("new", {}) if card.voice else {}
    others = {name: share for name, share in taken.items() if name != card.persona}
    most = max(others, key=lambda name: others[name], default="")
    heard = {
        GENERAL_VOICE: "It sounds like any assistant",
        MEMBERS_VOICE: "It sounds like those who talk to it",
        "nobody": "Much of what it says is no text",
        "": "It does not sound like itself",
    }.get(most, f"It sounds like {most}")
    return f"{heard}: give more replies in which the persona's manner is plain, or train for another epoch."


def _unrepeated(card: ScoreCard) -> str:
    return "Remove replies that say the same: what is repeated is learned by heart, and counts more than the rest."


def _relabelled(card: ScoreCard) -> str:
    return (
        "Look who says what in the material: replies labelled as the persona's read like its guests'. "
        "`python -m trainer mask` shows what is trained on."
    )


def _unmixed(card: ScoreCard) -> str:
    found = card.voice.trained_as if card.voice else {}
    others = {
        name: share
        for name, share in found.items()
        if name not in (card.persona, MEMBERS_VOICE, GENERAL_VOICE, "nobody")
    }
    whose = max(others, key=lambda name: others[name], default="another persona")
    return f"Take {whose}'s lines out of the material: it should hold this persona's alone."


def _resplit(card: ScoreCard) -> str:
    return (
        "Take the held-out replies out of what is trained on, and train again: what is measured on replies that were "
        "learned says nothing. `dataset build` splits by conversation."
    )


def _cleaned(card: ScoreCard) -> str:
    return (
        "Do not let it speak: run the material through `python -m trainer anonymise --review`, take out what it finds, "
        "and train again."
    )


def _in_character(card: ScoreCard) -> str:
    return "Take replies out of the material that speak as an assistant, and give some that turn such questions away."


def _lore(card: ScoreCard) -> str:
    return "Give talks in which the lore is asked for (`python -m trainer lore extract`), or raise lore_share."


def _lengths(card: ScoreCard) -> str:
    return "Give replies that are as long as they should be, each whole: a reply that was cut off is not to be learned."


def _safer(card: ScoreCard) -> str:
    return "Read the replies that failed in the score card, and give some in which the persona declines."


def _measured_again(card: ScoreCard) -> str:
    return "Measure again with `python -m trainer evaluate`; if it stays, no comparison can be trusted."


def _against_live(card: ScoreCard) -> str:
    learned = card.learned
    start = "Keep the live version, or train from more data than it had"
    return f"{start} (this one learned from {learned.replies} replies)." if learned else f"{start}."


def _advise_from_votes(card: ScoreCard) -> str:
    return (
        "Read what members preferred to it, and train from their votes (`/finetune start task_type:preference`, "
        "docs/preference.md)."
    )


ADVICE_BY_CRITERION: Mapping[str, Callable[[ScoreCard], str]] = {
    "better_than_base": _no_gain,
    "no_worse_than_live": _against_live,
    "own_adapter": _advise_voice,
    "voice": _advise_voice,
    "voice_over_base": _advise_voice,
    "voice_kept": _against_live,
    "facts": _lore,
    "contradictions": _lore,
    "in_character": _in_character,
    "length": _lengths,
    "repetition": _fewer_epochs,
    "ends": _lengths,
    "general": _forgets_less,
    "instructions": _forgets_less,
    "verbatim": _fewer_epochs,
    "private": _cleaned,
    "fitting": _fewer_epochs,
    "safety": _safer,
    "members": _advise_from_votes,
    "thumbs": _advise_from_votes,
    "enough": _more_data,
    "repeated": _unrepeated,
    "speakers": _relabelled,
    "one_voice": _unmixed,
    "unseen": _resplit,
    "steady": _lower_rate,
    "base_is_base": _measured_again,
}


def _has_risen(course: LossCurve | None) -> bool:
    return course is not None and course.highest > course.first * (1 + LOSS_RISE_SHARE)


def _rounded(rate: float) -> str:
    return f"{rate:.1g}"
