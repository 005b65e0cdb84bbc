"""How far a whole run is: the share of its predicted time that is done, and the time left."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from personas.schemas.training_events import (
    TRAINER_EVENT,
    Estimate,
    Phase,
    PhaseName,
    Progress,
    RunPosition,
    TrainerEvent,
)

PHASES: tuple[PhaseName, ...] = get_args(PhaseName)
MAX_PACE = 4.0
"""Later phases are expected to be so many times slower at most than was estimated, as the training
was.
"""
MIN_COMPARED_SHARE = 0.1
"""Share of a phase after which its time says how fast this machine is now."""
MAX_OPEN_DONE = 0.99
"""The share of a run that has not ended."""
MIN_SMOOTHING_S = 10.0
SMOOTHING_SHARE = 0.2
"""A time left that was found to be another is corrected over this share of it, but over
`MIN_SMOOTHING_S` at least.
"""
MAX_EXCESS_S = 5.0
"""Nor may the smoothed time left exceed twice the computed one by more: the end comes near."""


@dataclass
class RunTimeline:
    """The estimated seconds of a run's phases, corrected while it trains, and the share that is
    `done` (0 to 1), which never decreases.
    """

    seconds: Mapping[PhaseName, float] = field(default_factory=dict)
    done: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _pace: float = 1.0
    _left_s: float | None = None
    _left_at: float = 0.0

    @classmethod
    def read(cls, events: Path) -> "RunTimeline":
        """Go on from the events of a run's earlier process; from nothing where there are none."""
        timeline = cls()
        try:
            lines = events.read_bytes().splitlines()
        except FileNotFoundError:
            return timeline
        for line in lines:
            try:
                event = TRAINER_EVENT.validate_json(line)
            except ValidationError:  # cut off by a kill, or of another version
                continue
            if isinstance(event, Estimate):
                timeline.expect(event.phases)
            elif isinstance(event, RunPosition) and event.done is not None:
                timeline.done = max(timeline.done, event.done)
                timeline._left_s = event.left_s
        timeline._left_at = timeline.clock()
        return timeline

    def expect(self, seconds: Mapping[PhaseName, float]) -> None:
        """Take another estimate. A phase that it leaves out, as it was done before, keeps its own:
        its share of the run stays done.
        """
        self.seconds = {**self.seconds, **seconds}

    def locate(self, event: TrainerEvent) -> TrainerEvent:
        """Return an event of a phase or step with the share of the run that is done, and the time
        left until the version is ready.
        """
        if isinstance(event, Progress):
            self._correct(event)
            share = event.step / event.of if event.of else 0.0
            return event.model_copy(update=self._place("training", share, event.eta_s))
        if isinstance(event, Phase):
            eta_s = event.eta_s
            if eta_s is None:
                eta_s = self.expected_s(event.name)
            # Of all phases that the estimate may leave out, only this one takes long.
            is_open = event.name == "writing replies" and eta_s is None
            left_s = None if is_open else eta_s or 0.0
            changes = self._place(event.name, event.share or 0.0, left_s)
            return event.model_copy(update={"eta_s": eta_s, **changes})
        return event

    def _correct(self, event: Progress) -> None:
        """Compare the training with its estimate: another load slows the later phases, too."""
        expected_s = self.seconds.get("training", 0.0)
        if expected_s and event.of:
            remaining_share = max(1 - event.step / event.of, 1 / event.of)
            self._take_pace(event.eta_s / (expected_s * remaining_share))

    def compare(self, name: PhaseName, share: float, took_s: float) -> None:
        """Compare the time that a share of a phase took with its estimate: the phases after it are
        as much slower or faster.
        """
        expected_s = self.seconds.get(name, 0.0) * share
        if expected_s and share >= MIN_COMPARED_SHARE:
            self._take_pace(took_s / expected_s)

    def _take_pace(self, pace: float) -> None:
        self._pace = min(MAX_PACE, max(1 / MAX_PACE, pace or self._pace))

    def expected_s(self, name: PhaseName) -> float | None:
        """Return the seconds that a phase is expected to take; None without an estimate."""
        seconds = self.seconds.get(name)
        return None if seconds is None else round(seconds * self._pace, 1)

    def _place(self, name: PhaseName, share: float, eta_s: float | None) -> dict[str, float | None]:
        """Return `done` and `left_s` within a phase of which `share` is done, and which takes
        `eta_s` more; None where that is not known.
        """
        total_s = sum(self.seconds.values())
        if not total_s:
            return {"done": self.done, "left_s": None}
        place = PHASES.index(name)
        done_s = share * self.seconds.get(name, 0.0)
        done_s += sum(self.seconds.get(phase, 0.0) for phase in PHASES[:place])
        done_before = self.done
        self.done = round(max(self.done, min(MAX_OPEN_DONE, done_s / total_s)), 4)
        if eta_s is None:
            return {"done": self.done, "left_s": None}
        left_s = eta_s + sum(self.expected_s(phase) or 0.0 for phase in PHASES[place + 1 :])
        if done_s / total_s < done_before:
            # It was further before it was killed, and goes on there once this phase is over.
            left_s = min(left_s, eta_s + (1 - done_before) * total_s * self._pace)
        return {"done": self.done, "left_s": round(self._smooth(left_s), 1)}

    def _smooth(self, left_s: float) -> float:
        """Let the time left go on from the last one, and approach the computed one."""
        now = self.clock()
        if self._left_s is not None:
            passed_s = now - self._left_at
            continued_s = max(0.0, self._left_s - passed_s)
            weight = 1 - math.exp(-passed_s / max(MIN_SMOOTHING_S, SMOOTHING_SHARE * left_s))
            smoothed_s = continued_s + weight * (left_s - continued_s)
            left_s = min(smoothed_s, 2 * left_s + MAX_EXCESS_S)
        self._left_s = left_s
        self._left_at = now
        return left_s
