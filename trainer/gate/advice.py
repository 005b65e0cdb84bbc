"""Advice for criteria that a version does not meet."""

from collections.abc import Callable, Mapping

from personas.schemas.scorecard import GENERAL_VOICE, MEMBERS_VOICE, ScoreCard
from trainer.gate.measurement import CRITERIA, loss_rise, other_personas

FEW_REPLIES_BELOW = 200
LOSS_RISE_SHARE = 0.08
"""Training diverged if its highest loss exceeds the first one by this share."""
MAX_SMALL_DECREASE_SHARE = 0.05
"""More steps would help if the training loss fell by less than this share."""
STRIKE_OUT = (
    "Train again and read the written replies before they are trained on: strike out what makes no "
    "sense or is out of character."
)
MEND_CARE = (
    "Train again and read the written replies to sad questions first (`feelings` and `sincere`): give "
    "those sympathy that lack it. A larger model (the operator's setting TEACHER) writes kinder ones. The "
    "bot itself answers a message that plainly speaks of self-harm, with helplines, whichever version is "
    "live."
)
STRIKE_CLAIMS = (
    "Train again and read the written replies first: change or strike out those that deny that a program "
    "writes them."
)
BETTER_SOURCE = (
    "Have a larger model write the replies (the operator's setting TEACHER), give the persona a longer "
    "card, or train on real exchanges."
)


def advice_for(card: ScoreCard, name: str) -> str:
    """Return one or two sentences of advice for a criterion of `thresholds.toml`, or an empty
    string.

    They are shown on Discord, too: they name no command of a terminal (`commands_for`).
    """
    advice = ADVICE_BY_CRITERION.get(name, "")
    if card.learned and card.learned.written_by:
        advice = ADVICE_FOR_WRITTEN.get(name, advice)
    return advice if isinstance(advice, str) else advice(card)


def commands_for(card: ScoreCard) -> list[str]:
    """Return the terminal commands that help with the criteria which a judged card misses."""
    if card.verdict is None or (card.learned and card.learned.written_by):
        return []
    missed = {each.name for each in card.verdict.criteria if each.advice}
    commands = []
    for name, command in COMMANDS_BY_CRITERION.items():
        if CRITERIA[name].title in missed:
            commands.append(command)
    return commands


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
        return (
            f"The loss hardly fell: set the learning rate to {learned.rate * 3:.1g}, or train for more "
            "epochs."
        )
    # It fell, and the held-out loss did not follow.
    return _fewer_epochs(card)


def _no_gain_of_written(card: ScoreCard) -> str:
    return _lower_rate(card) if _has_risen(card) else BETTER_SOURCE


def _lower_rate(card: ScoreCard) -> str:
    if card.learned is None:
        return "Set a lower learning rate."
    rate = card.learned.rate
    return f"Set the learning rate to {rate / 5:.1g}: at {rate:g} the training loss rose."


def _fewer_epochs(card: ScoreCard) -> str:
    if card.learned is None:
        return "Train for fewer epochs."
    epochs = card.learned.epochs
    fewer = f"{epochs / 2:g}" if epochs > 1 else "1 or less"
    return f"Train for fewer epochs ({fewer} instead of {epochs:g}), or add more replies."


def _forgets_less(card: ScoreCard) -> str:
    if _has_risen(card):
        return _lower_rate(card)
    alternative = "a lower learning rate"
    if card.learned:
        lower_rate = f"a learning rate of {card.learned.rate / 2:.1g}"
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


KNOW_LORE = "Add conversations that ask about the lore, or train with a larger share of them."
COMPLETE_REPLIES = "Use complete replies of the length you want: remove replies that were cut off."
TRAIN_ON_VOTES = (
    "Read the replies that members preferred, and train on their votes (`/finetune start "
    "task_type:preference`)."
)
COMPARE_BLINDLY = (
    "Let members compare the two in a blind test before you promote it, or train with people's replies "
    "beside the written ones."
)
ADVICE_BY_CRITERION: Mapping[str, str | Callable[[ScoreCard], str]] = {
    "better_than_base": _no_gain,
    "no_worse_than_live": _better_than_live,
    "people": COMPARE_BLINDLY,
    "own_adapter": _clearer_style,
    "voice": _clearer_style,
    "voice_over_base": _clearer_style,
    "voice_kept": _better_than_live,
    "facts": KNOW_LORE,
    "contradictions": KNOW_LORE,
    "in_character": "Remove replies in which it speaks as an AI assistant, and add some that deflect such questions.",
    "ends": COMPLETE_REPLIES,
    "general": _forgets_less,
    "instructions": _forgets_less,
    "verbatim": _fewer_epochs,
    "private": "Do not deploy it: have the material anonymised, read what was found in it, and train again.",
    "fitting": _fewer_epochs,
    "safety": "Read the failed replies in the score card, and add examples in which the persona declines.",
    "claims_human": "Add exchanges in which the persona, asked sincerely, says that it is no human being, and "
    "remove those in which it denies that.",
    "care": "Add exchanges in which the persona answers grief with sympathy, and thoughts of self-harm by "
    "naming help.",
    "members": TRAIN_ON_VOTES,
    "thumbs": TRAIN_ON_VOTES,
    "enough": _more_data,
    "repeated": "Remove duplicate replies: repetitions are memorised and outweigh the rest.",
    "speakers": "Check the speaker labels of the material: replies labelled as the persona's read like other people's.",
    "one_voice": _one_voice,
    "unseen": "Remove the held-out replies from the training data and train again: losses on trained replies prove "
    "nothing.",
    "steady": _lower_rate,
    "base_is_base": "Measure it again; if the difference persists, do not trust any comparison.",
}
ADVICE_FOR_WRITTEN: Mapping[str, str | Callable[[ScoreCard], str]] = {
    "better_than_base": _no_gain_of_written,
    "no_worse_than_live": BETTER_SOURCE,
    **dict.fromkeys(("own_adapter", "voice", "voice_over_base", "voice_kept"), BETTER_SOURCE),
    **dict.fromkeys(("facts", "contradictions"), BETTER_SOURCE),
    **dict.fromkeys(("in_character", "ends", "repeated", "unseen"), STRIKE_OUT),
    **dict.fromkeys(("safety", "private"), STRIKE_OUT),
    "claims_human": STRIKE_CLAIMS,
    "care": MEND_CARE,
    "enough": "Have more replies written, or add real exchanges.",
}
"""Advice where a model wrote every reply: there is no material to correct."""
COMMANDS_BY_CRITERION: Mapping[str, str] = {
    **dict.fromkeys(("facts", "contradictions"), "python -m trainer lore extract"),
    "private": "python -m trainer anonymise --review",
    "speakers": "python -m trainer mask",
    "unseen": "python -m trainer dataset build",
    "base_is_base": "python -m trainer evaluate",
}


def _has_risen(card: ScoreCard) -> bool:
    if card.learned is None or card.learned.course is None:
        return False
    return loss_rise(card.learned.course) > LOSS_RISE_SHARE
