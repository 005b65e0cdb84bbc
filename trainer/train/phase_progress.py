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
        self._share_before = 0.0
        self._ends_at_s = 0.0
        self._count = 0 if is_counted else None
        self._of = round(total) if is_counted else None
        control.enter(self._phase)

    def resume_at(self, done: float) -> None:
        """Take note of what an earlier process has done, which says nothing of this one's pace."""
        if done:
            self.update(done)
            self._share_before = self._share
            self._began_s = self._control.worked_s
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
        # More than was foreseen: what is left is not known, and likely little.
        self._total = max(self._total, done / MAX_OPEN_SHARE)
        self._share = min(MAX_OPEN_SHARE, max(self._share, done / self._total))
        if self._count is not None:
            self._count = round(done)
        if time.monotonic() - self._reported_at >= REPORT_INTERVAL_S:
            self._report()

    def between(self) -> None:
        """Stop or pause as `RunControl.between`, and take note of the time: `total` is in
        seconds.
        """
        self._control.between()
        self.update(self.took_s)

    def expect(self, left_s: float) -> None:
        """Take note that the phase goes on for so many seconds at least; `total` is in seconds."""
        self._ends_at_s = self.took_s + left_s
        self._total = max(self._total, self._ends_at_s)

    def _report(self) -> None:
        self._reported_at = time.monotonic()
        self._control.report(self._phase)

    @property
    def _phase(self) -> Phase:
        return Phase(
            name=self._name,
            detail=self._detail,
            share=round(self._share, 3),
            eta_s=self._eta_s,
            count=self._count,
            of=self._of,
        )

    @property
    def _eta_s(self) -> float | None:
        """The seconds left in the phase: by its pace, or before it has one by the estimate, and no fewer
        than are expected.
        """
        done = self._share - self._share_before
        if done <= 0:
            expected_s = self._control.timeline.expected_s(self._name)
            return None if expected_s is None else round(expected_s * (1 - self._share), 1)
        took_s = self.took_s
        return round(max(took_s * (1 - self._share) / done, self._ends_at_s - took_s), 1)


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
