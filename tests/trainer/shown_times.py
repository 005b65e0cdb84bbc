"""Compares the times left that a run has shown with what it then took."""

from collections.abc import Sequence

MAX_OFF = 0.5
FIRST_MINUTE_S = 60.0
ROUNDING_S = 5.0
"""No time is shown finer than by ten seconds."""


def most_off(shown: Sequence[tuple[float, float, float]], ended_s: float) -> float:
    """The largest distance of a shown time from what the run then took, as a share of that, after
    the first minute. Shown is from when on, the least and the most; it stands until the next one.
    """
    worst = 0.0
    ends = [at_s for at_s, _, _ in shown[1:]] + [ended_s]
    for (begins_s, low_s, high_s), ends_s in zip(shown, ends, strict=True):
        for at_s in (begins_s, ends_s - 0.1):
            took_s = ended_s - at_s
            if at_s < FIRST_MINUTE_S or took_s <= 0:
                continue
            off_s = max(0.0, low_s - took_s, took_s - high_s) - ROUNDING_S
            worst = max(worst, off_s / took_s)
    return worst
