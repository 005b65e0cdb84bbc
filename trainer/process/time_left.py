"""The time left in a run, by what its own steps take and by the load that they show."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from personas.schemas.training_events import PhaseName

PHASES: tuple[PhaseName, ...] = get_args(PhaseName)
CARD: PhaseName = "measuring the adapter"
COMPARED_PHASES: tuple[PhaseName, ...] = ("measuring the base", "training")
"""The phases whose own items say how slow this machine is now; others load files, or ask servers."""
MIN_COMPARED_SHARE = 0.1
"""Share of a phase after which its time says so; of a training, a step does."""
SETTLING_STEPS = 10
"""Steps of the training after which the time left is one value."""
WINDOW_SHARE = 0.1
"""The pace is that of the last `SETTLING_STEPS` items, or of this share of the phase so far where
that is longer: a load that comes or goes is followed, and in a long run not each moment of it.
"""
LATE_CARD_SHARE = 1 / 4
"""A first card takes this share of the time before it, even where that leaves less of the deadline:
after a long training, it should have some generated replies.
"""
UNKNOWN_LOAD_FACTOR = 1.6
KNOWN_LOAD_FACTOR = 1.35
"""A range goes from the estimate divided by this factor to the estimate times it: before anything
was computed, and once a phase has shown the load.
"""


def first_card_room_s(deadline_s: float, begins_s: float, after_s: float) -> float:
    """Return the seconds of a first card that begins `begins_s` into its run, where `after_s` are
    reserved for what follows it.
    """
    return max(deadline_s - begins_s - after_s, begins_s * LATE_CARD_SHARE)


@dataclass(frozen=True)
class TimeRange:
    """Seconds left, from `low_s` to `high_s`: the same where one value is known."""

    low_s: float
    high_s: float


@dataclass(frozen=True)
class CardLimit:
    """A first score card has what the run leaves of `deadline_s`: all of it takes `whole_s`, and what
    is measured whatever the time `least_s`, as predicted. `after_s` are kept for what follows.
    """

    deadline_s: float
    whole_s: float
    least_s: float
    after_s: float


@dataclass(frozen=True)
class _Point:
    at_s: float
    done: float


class TimeLeft:
    """Tells how long a run still takes. It is told how much of a phase is done, and when, by a clock
    of the caller's that leaves out pauses.

    What is not measured yet takes its predicted time, times the slowness that the last phase has
    shown: its time, as a share of what was predicted for it.
    """

    def __init__(self, expected_s: Mapping[PhaseName, float] | None = None) -> None:
        self.expected_s: dict[PhaseName, float] = dict(expected_s or {})
        self.limit: CardLimit | None = None
        self.phase: PhaseName | None = None
        self._measured_slowness: float | None = None
        self._losses_slowness: float | None = None
        self._losses_factor = 1.0
        self._slowness_before: float | None = None
        self._began_s = 0.0
        self._total = 0.0
        self._points: deque[_Point] = deque()
        self._done_before = 0.0
        self._beside_s = 0.0
        self._ends_s: float | None = None
        self._is_settled = False

    @property
    def slowness(self) -> float:
        """How many times its predicted time a phase takes on this machine now."""
        return self._measured_slowness or 1.0

    @property
    def card_slowness(self) -> float:
        """The slowness of a score card, which measures losses: between what the base model's losses and
        the first steps showed, and as the steps since.
        """
        return self.slowness * self._losses_factor

    def begin(
        self, phase: PhaseName, now_s: float, *, done: float = 0.0, total: float = 0.0
    ) -> None:
        """Begin a phase, or its next part. `done` of `total` items are done before; 0: not
        counted.
        """
        self.phase = phase
        self._began_s = now_s
        self._total = total
        self._points = deque([_Point(now_s, done)])
        self._done_before = done
        self._beside_s = 0.0
        self._ends_s = None
        self._slowness_before = self._measured_slowness

    def update(self, done: float, total: float, now_s: float, *, beside_s: float = 0.0) -> None:
        """Take note that so many items of the phase are done now. Beside the others, the phase takes
        `beside_s`.
        """
        self._total = total
        self._beside_s = beside_s
        points = self._points
        if done > points[-1].done:
            points.append(_Point(now_s, done))
        window_s = WINDOW_SHARE * (now_s - self._began_s)
        while len(points) > SETTLING_STEPS + 1 and now_s - points[1].at_s >= window_s:
            points.popleft()
        item_s = self.item_s
        predicted_s = self.expected_s.get(self.phase, 0.0) if self.phase else 0.0
        if self.phase not in COMPARED_PHASES or not predicted_s or item_s is None:
            return
        own_items = done - self._done_before
        if self.phase != "training" and own_items < MIN_COMPARED_SHARE * total:
            return
        self._measured_slowness = item_s * total / predicted_s
        if self.phase != "training":
            self._losses_slowness = self._measured_slowness
        elif own_items >= SETTLING_STEPS and not self._is_settled:
            self._is_settled = True
            if self._losses_slowness:
                self._losses_factor = math.sqrt(self._losses_slowness / self._measured_slowness)

    def compare(self, phase: PhaseName, share: float, took_s: float) -> None:
        """Compare the time that a share of a phase took with its prediction."""
        predicted_s = self.expected_s.get(phase, 0.0) * share
        if predicted_s and share >= MIN_COMPARED_SHARE:
            self._measured_slowness = took_s / predicted_s

    def state(self, left_s: float, now_s: float) -> None:
        """Take note of the seconds that the phase itself says it still takes."""
        self._ends_s = now_s + left_s

    def of_phase(self, now_s: float) -> float | None:
        """Return the seconds left in the phase; None while nobody knows."""
        if self._ends_s is not None:
            return max(0.0, self._ends_s - now_s)
        if self.item_s is not None:
            left = max(0.0, self._total - self._points[-1].done)
            return self.item_s * left + self._beside_s
        expected_s = self._expected_of_phase(now_s)
        if expected_s is None:
            return None
        return max(0.0, expected_s - (now_s - self._began_s))

    def of_run(self, now_s: float) -> TimeRange | None:
        """Return the seconds left in the whole run; None while nobody knows."""
        phase_s = self.of_phase(now_s)
        if not self.expected_s or self.phase is None or phase_s is None:
            return None
        place = PHASES.index(self.phase)
        left_s = phase_s
        for later in PHASES[place + 1 :]:
            slow = self.card_slowness if later == CARD else self.slowness
            later_s = self.expected_s.get(later, 0.0) * slow
            if later == CARD and self.limit:
                later_s = self._limited_card_s(self.limit, now_s + left_s)
            left_s += later_s
        excess_s = self._excess_s(now_s)
        if self._is_settled or place > PHASES.index("training"):
            return TimeRange(left_s, left_s + excess_s)
        factor = KNOWN_LOAD_FACTOR if self._measured_slowness else UNKNOWN_LOAD_FACTOR
        return TimeRange(left_s / factor, left_s * factor + excess_s)

    @property
    def item_s(self) -> float | None:
        """The seconds of an item by the recent pace; None before the first one.

        The first steps of a training count beside the one that the load of earlier phases predicts.
        """
        if not self._points or self._points[-1].done <= self._points[0].done:
            return None
        items = self._points[-1].done - self._points[0].done
        took_s = self._points[-1].at_s - self._points[0].at_s
        predicted_s = self.expected_s.get("training", 0.0)
        is_early = self.phase == "training" and items < SETTLING_STEPS
        if is_early and self._slowness_before and predicted_s:
            took_s += predicted_s * self._slowness_before / self._total
            items += 1
        return took_s / items

    def _expected_of_phase(self, now_s: float) -> float | None:
        """Return the seconds that the whole of the phase is expected to take, without what was done
        of it before.
        """
        if self.phase == CARD and self.limit:
            return self._limited_card_s(self.limit, self._began_s)
        if self.phase is None or not self.expected_s:
            return None
        # Of all phases that the prediction may leave out, only this one takes long.
        if self.phase == "writing replies" and self.phase not in self.expected_s:
            return None
        predicted_s = self.expected_s.get(self.phase, 0.0)
        share_before = self._done_before / self._total if self._total else 0.0
        slow = self.card_slowness if self.phase == CARD else self.slowness
        return predicted_s * slow * (1 - share_before)

    def _limited_card_s(self, limit: CardLimit, begins_s: float) -> float:
        slow = self.card_slowness
        after_s = limit.after_s * max(1.0, slow)
        room_s = first_card_room_s(limit.deadline_s, begins_s, after_s)
        return max(limit.least_s * slow, min(limit.whole_s * slow, room_s)) + after_s

    def _excess_s(self, now_s: float) -> float:
        """Return by how much the phase has taken longer than was expected. It may go on for as
        long.
        """
        if self._ends_s is not None:
            return max(0.0, now_s - self._ends_s)
        expected_s = self._expected_of_phase(now_s)
        if self.item_s is not None or expected_s is None:
            return 0.0
        return max(0.0, now_s - self._began_s - expected_s)
