"""How far a phase of a run is, reported while it goes on."""

import time
from collections.abc import Callable

from personas.schemas.training_events import Phase, PhaseName
from trainer.train.training_run import RunControl

REPORT_INTERVAL_S = 2.0
MAX_OPEN_SHARE = 0.95
"""The share of a phase that goes on."""


class PhaseProgress:
    """Reports how much of a phase is done, at most every `REPORT_INTERVAL_S` seconds."""

    def __init__(
        self,
        control: RunControl,
        name: PhaseName,
        detail: str,
        total: float,
        *,
        is_counted: bool = False,
    ) -> None:
        """Enter the phase, of which `total` is to be done, in a unit of the caller's. `is_counted`:
        the reports say how many of so many are done.
        """
        self._control = control
        self._name: PhaseName = name
        self._detail = detail
        self._total = max(total, 1e-9)
        self._began_s = control.worked_s
        self._reported_at = time.monotonic()
        self._share = 0.0
        self._count = 0 if is_counted else None
        self._of = round(total) if is_counted else None
        control.timeline.left.begin(name, self._began_s, total=self._total)
        control.enter(self._phase)

    def resume_at(self, done: float) -> None:
        """Take note of what an earlier process has done, which says nothing of this one's pace."""
        if done:
            self._note(done)
            self._began_s = self._control.worked_s
            self._control.timeline.left.begin(
                self._name, self._began_s, done=done, total=self._total
            )
            self._report()

    @property
    def took_s(self) -> float:
        """Seconds that this process has worked on the phase."""
        return self._control.worked_s - self._began_s

    def describe(self, detail: str) -> None:
        """Name what is being done now, which is reported at once."""
        self._control.check()
        self._detail = detail
        self._report()

    def update(self, done: float) -> None:
        """Take note that so much of the total is done; the share never decreases."""
        self._note(done)
        self._control.timeline.left.update(done, self._total, self._control.worked_s)
        if time.monotonic() - self._reported_at >= REPORT_INTERVAL_S:
            self._report()

    def _note(self, done: float) -> None:
        # More than was foreseen: what is left is not known, and likely little.
        self._total = max(self._total, done / MAX_OPEN_SHARE)
        self._share = min(MAX_OPEN_SHARE, max(self._share, done / self._total))
        if self._count is not None:
            self._count = round(done)

    def _report(self) -> None:
        self._reported_at = time.monotonic()
        self._control.report(self._phase)

    @property
    def _phase(self) -> Phase:
        return Phase(
            name=self._name,
            detail=self._detail,
            share=round(self._share, 3),
            count=self._count,
            of=self._of,
        )


class CardProgress(PhaseProgress):
    """Reports how far a score card is, which says itself how long it goes on."""

    def between(self) -> None:
        """Stop or pause as `RunControl.between`, and report from time to time."""
        self._control.between()
        self._note_time()
        if time.monotonic() - self._reported_at >= REPORT_INTERVAL_S:
            self._report()

    def expect(self, left_s: float) -> None:
        """Take note that the score card goes on for so many seconds."""
        self._control.timeline.left.state(left_s, self._control.worked_s)
        self._note_time()

    def _note_time(self) -> None:
        left_s = self._control.timeline.left.of_phase(self._control.worked_s) or 0.0
        took_s = self.took_s
        if took_s + left_s:
            self._share = min(MAX_OPEN_SHARE, max(self._share, took_s / (took_s + left_s)))


def count_material(control: RunControl) -> Callable[[], None]:
    """Return `control.between` that also reports how much material has been read. What is still to
    come is not known before its end.
    """
    count = 0
    reported_at = time.monotonic()

    def between() -> None:
        nonlocal count, reported_at
        control.between()
        count += 1
        if time.monotonic() - reported_at >= REPORT_INTERVAL_S:
            reported_at = time.monotonic()
            detail = f"{count:,} conversations and samples so far"
            control.report(Phase(name="material", detail=detail))

    return between
