"""How far a whole run is: the share of its predicted time that is done, and the time left."""

import math
from collections.abc import Mapping
from pathlib import Path

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
from trainer.process.time_left import PHASES, CardLimit, TimeLeft

MAX_OPEN_DONE = 0.99
"""The share of a run that has not ended."""


class RunTimeline:
    """The predicted seconds of a run's phases, the share that is `done` (0 to 1), which never
    decreases, and the time `left`.
    """

    def __init__(self, seconds: Mapping[PhaseName, float] | None = None) -> None:
        self.left = TimeLeft(seconds)
        self.done = 0.0

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
        return timeline

    def expect(self, seconds: Mapping[PhaseName, float], limit: CardLimit | None = None) -> None:
        """Take another estimate. A phase that it leaves out, as it was done before, keeps its own:
        its share of the run stays done. `limit` is that of a first score card.
        """
        self.left.expected_s |= seconds
        self.left.limit = limit

    def leave_out(self, name: PhaseName, share: float) -> None:
        """Take note that a share of a phase's work, 0 to 1, is not needed."""
        if name in self.left.expected_s:
            self.left.expected_s[name] *= 1 - share

    def locate(self, event: TrainerEvent, now_s: float) -> TrainerEvent:
        """Return an event of a phase or step with the share of the run that is done, and the time
        left until the version is ready. `now_s` are the seconds that the run has worked.
        """
        if isinstance(event, Progress):
            share = event.step / event.of if event.of else 0.0
            return event.model_copy(update=self._place("training", share, now_s))
        if isinstance(event, Phase):
            if event.name != self.left.phase:
                self.left.begin(event.name, now_s)
            eta_s = self.left.of_phase(now_s)
            changes = self._place(event.name, event.share or 0.0, now_s)
            changes["eta_s"] = None if eta_s is None else round(eta_s, 1)
            return event.model_copy(update=changes)
        return event

    def _place(self, name: PhaseName, share: float, now_s: float) -> dict[str, float | None]:
        """Return `done` within a phase of which `share` is done, and the time left."""
        seconds = self.left.expected_s
        total_s = sum(seconds.values())
        if not total_s:
            return {"done": self.done, "left_s": None, "most_left_s": None}
        done_s = share * seconds.get(name, 0.0)
        done_s += sum(seconds.get(phase, 0.0) for phase in PHASES[: PHASES.index(name)])
        done_before = self.done
        self.done = round(max(self.done, min(MAX_OPEN_DONE, done_s / total_s)), 4)
        left = self.left.of_run(now_s)
        if left is None:
            return {"done": self.done, "left_s": None, "most_left_s": None}
        low_s = left.low_s
        high_s = left.high_s
        phase_s = self.left.of_phase(now_s)
        if done_s / total_s < done_before and phase_s is not None:
            # It was further before it was killed, and goes on there once this phase is over.
            rest_s = phase_s + (1 - done_before) * total_s * self.left.slowness
            factor = min(1.0, rest_s / max(math.sqrt(low_s * high_s), 1e-9))
            low_s *= factor
            high_s *= factor
        is_range = high_s > low_s
        return {
            "done": self.done,
            "left_s": round(low_s, 1),
            "most_left_s": round(high_s, 1) if is_range else None,
        }
