"""Advice for each criterion that was not met."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from personas.schemas.scorecard import GENERAL_VOICE, MEMBERS_VOICE, LossCurve, ScoreCard

FEW_REPLIES_BELOW = 200
LOSS_RISE_SHARE = 0.08
"""Training diverged if its highest loss exceeds the first one by this share."""
MAX_SMALL_DECREASE_SHARE = 0.05
"""More steps would help if the training loss fell by less than this share."""


def advice_for(card: ScoreCard, name: str) -> str:
    """Return one or two sentences of advice for a criterion of `thresholds.toml`, or an empty string."""
    advise = ADVICE_BY_CRITERION.get(name)
    return advise(card) if advise else ""


def _more_data(card: ScoreCard) -> str:
    learned = card.learned
    count = f" ({learned.replies} now)" if learned else ""
    return f"Add more of the persona's own replies{count}: a hundred are a start, three hundred are good."


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
        return f"The loss hardly fell: set learning_rate={_rounded(learned.rate * 3)}, or train for more epochs."
    return _fewer_epochs(card)


def _lower_rate(card: ScoreCard) -> str:
    if card.learned is None:
        return "Set a lower learning_rate."
    rate = card.learned.rate
    return f"Set learning_rate={_rounded(rate / 5)}: at {rate:g} the training loss rose."


def _fewer_epochs(card: ScoreCard) -> str:
    if card.learned is None:
        return "Train for fewer epochs."
    epochs = card.learned.epochs
    fewer = f"{epochs / 2:g}" if epochs > 1 else "1 or less"
    return f"Train for fewer epochs (num_train_epochs={fewer} instead of {epochs:g}), or add more replies."


def _forgets_less(card: ScoreCard) -> str:
    if card.learned and _has_risen(card.learned.course):
        return _lower_rate(card)
    epochs = f", or fewer epochs than {card.learned.epochs:g}" if card.learned else ""
    rate = f"learning_rate={_rounded(card.learned.rate / 2)}" if card.learned else "a lower learning_rate"
    return f"Use the recipe mixed-80-20, which also trains on general dialogue, or set {rate}{epochs}."


def _advise_voice(card: ScoreCard) -> str:
    taken = card.voice.taken_as.get("new", {}) if card.voice else {}
    others = {name: share for name, share in taken.items() if name != card.persona}
    most = max(others, key=lambda name: others[name], default="")
    finding = {
        GENERAL_VOICE: "It sounds like a generic assistant",
        MEMBERS_VOICE: "It sounds like the people it talks to",
        "nobody": "Many of its replies are not readable text",
        "": "It does not sound like the persona",
    }.get(most, f"It sounds like {most}")
    return f"{finding}: add replies that show the persona's style clearly, or train for another epoch."


def _unrepeated(card: ScoreCard) -> str:
    return "Remove duplicate replies: repetitions are memorised and outweigh the rest."


def _relabelled(card: ScoreCard) -> str:
    return (
        "Check the speaker labels of the material: replies labelled as the persona's read like other people's. "
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
    return f"Remove {whose}'s lines from the material: only this persona's should be labelled as its own."


def _resplit(card: ScoreCard) -> str:
    return (
        "Remove the held-out replies from the training data and train again: losses on trained replies prove nothing. "
        "`dataset build` splits by conversation."
    )


def _cleaned(card: ScoreCard) -> str:
    return (
        "Do not deploy it: run the material through `python -m trainer anonymise --review`, remove what it finds, and "
        "train again."
    )


def _in_character(card: ScoreCard) -> str:
    return "Remove replies in which it speaks as an AI assistant, and add some that deflect such questions."


def _lore(card: ScoreCard) -> str:
    return "Add conversations that ask about the lore (`python -m trainer lore extract`), or raise lore_share."


def _lengths(card: ScoreCard) -> str:
    return "Use complete replies of the length you want: remove replies that were cut off."


def _safer(card: ScoreCard) -> str:
    return "Read the failed replies in the score card, and add examples in which the persona declines."


def _measured_again(card: ScoreCard) -> str:
    return "Run `python -m trainer evaluate` again; if the difference persists, do not trust any comparison."


def _against_live(card: ScoreCard) -> str:
    learned = card.learned
    start = "Keep the live version, or train on more data than it had"
    return f"{start} (this version had {learned.replies} replies)." if learned else f"{start}."


def _advise_from_votes(card: ScoreCard) -> str:
    return (
        "Read the replies that members preferred, and train on their votes (`/finetune start task_type:preference`, "
        "see docs/preference.md)."
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
