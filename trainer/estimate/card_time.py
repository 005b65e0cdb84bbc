"""How long a run's score card may take, and is expected to."""

from personas.schemas.scorecard import EvaluationExtent
from trainer.process.time_left import first_card_room_s

FIRST_CARD_REPLIES = 48
"""Held-out replies, and replies of general dialogue, that a first card measures losses on."""
LEAST_FIRST_CARD_REPLIES = 16
"""Of both, measured even where the training has taken all of the recipe's time."""
QUICK_TIME_SHARE = 1 / 5
WRITING_S = 15.0
"""Time reserved for what follows a first card, the effect probe and writing the adapter: assumed,
not measured.
"""
SEALING_S = 2.5
"""Writing the adapter alone."""
LOADING_S = 4.0
"""What loads before a first card beside the weights, libraries and the engine."""
MIN_COMPLETE_CARD_S = 900.0
"""Time limit of a card that is completed afterwards, unless the training took longer."""
FIRST_CARD_S = 120.0
"""Time of a first card beside its losses, if there is enough: assumed, not measured."""


def card_limit_s(extent: EvaluationExtent, training_s: float) -> float:
    """Return the time limit in seconds of a card of this extent after such a training."""
    return training_s * (QUICK_TIME_SHARE if extent == "quick" else 1)


def first_card_limit_s(deadline_minutes: float, worked_s: float, *, slowness: float = 1.0) -> float:
    """Return the time limit in seconds of a first card that begins `worked_s` into its run.
    `slowness` is how many times its predicted time a phase takes.
    """
    return first_card_room_s(deadline_minutes * 60, worked_s, WRITING_S * max(1.0, slowness))


def least_card_s(losses_s: float) -> float:
    """Return the seconds of what a first card has in any case, where all its losses take
    `losses_s`.
    """
    return losses_s * LEAST_FIRST_CARD_REPLIES / FIRST_CARD_REPLIES


def expected_card_s(
    extent: EvaluationExtent,
    *,
    training_s: float,
    losses_s: float,
    deadline_minutes: float,
    worked_s: float,
    pace: float,
) -> float:
    """Return the seconds that a card is expected to take.

    `losses_s` is the time for its losses, which are measured whatever the limit, of a first card at
    least some. `worked_s` is the time of the run before it; `pace` the machine's, relative to the
    reference machine.
    """
    if extent == "losses":
        return losses_s
    if extent == "full" and deadline_minutes:
        limit_s = first_card_limit_s(deadline_minutes, worked_s)
        return max(least_card_s(losses_s), min(limit_s, losses_s + FIRST_CARD_S / pace))
    return max(losses_s, card_limit_s(extent, training_s))
