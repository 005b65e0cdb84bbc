"""Advice for criteria that a version does not meet."""

from collections.abc import Callable, Mapping

from personas.schemas.scorecard import GENERAL_VOICE, MEMBERS_VOICE, ScoreCard
from trainer.gate.measurement import other_personas

FEW_REPLIES_BELOW = 200
LOSS_RISE_SHARE = 0.08
"""Training diverged if its highest loss exceeds the first one by this share."""
MAX_SMALL_DECREASE_SHARE = 0.05
"""More steps would help if the training loss fell by less than this share."""


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
    # With enough data, the training itself is at fault: too slow, or too long.
    curve = learned.course
    if curve and curve.last > curve.first * (1 - MAX_SMALL_DECREASE_SHARE):
        return f"The loss hardly fell: set learning_rate={learned.rate * 3:.1g}, or train for more epochs."
    # It fell, and the held-out loss did not follow.
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
    alternative = "a lower learning_rate"
    if card.learned:
        lower_rate = f"learning_rate={card.learned.rate / 2:.1g}"
        alternative = f"{lower_rate}, or fewer epochs than {card.learned.epochs:g}"
    return (
        f"Use the recipe mixed-80-20, which also trains on general dialogue, or set {alternative}."
    )


def _clearer_style(card: ScoreCard) -> str:
    attributed_to = card.voice.taken_as.get("new", {}) if card.voice else {}
    others = {name: share for name, share in attributed_to.items() if name != card.persona}
    most = max(others, key=others.__getitem__, default="")
    findings = {
        GENERAL_VOICE: "It sounds like a generic assistant",
        MEMBERS_VOICE: "It sounds like the people it talks to",
        "nobody": "Many of its replies are not readable text",
        "": "It does not sound like the persona",
    }
    finding = findings.get(most, f"It sounds like {most}")
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
    if card.learned is None or card.learned.course is None:
        return False
    curve = card.learned.course
    return curve.highest > curve.first * (1 + LOSS_RISE_SHARE)
