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

    def __init__(self, control: RunControl, name: PhaseName, detail: str, total: float) -> None:
        """Enter the phase, of which `total` is to be done, in a unit of the caller's."""
        self._control = control
        self._name: PhaseName = name
        self._detail = detail
        self._total = max(total, 1e-9)
        self._began_s = control.worked_s
        self._reported_at = time.monotonic()
        self._share = 0.0
        control.enter(Phase(name=name, detail=detail, share=0.0, eta_s=self._eta_s))

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
        if time.monotonic() - self._reported_at >= REPORT_INTERVAL_S:
            self._report()

    def between(self) -> None:
        """Stop or pause as `RunControl.between`, and take note of the time: `total` is in
        seconds.
        """
        self._control.between()
        self.update(self._control.worked_s - self._began_s)

    def _report(self) -> None:
        self._reported_at = time.monotonic()
        phase = Phase(
            name=self._name, detail=self._detail, share=round(self._share, 3), eta_s=self._eta_s
        )
        self._control.report(phase)

    @property
    def _eta_s(self) -> float | None:
        """The seconds left in the phase: by its pace, or before it has one by the estimate."""
        if not self._share:
            return self._control.timeline.expected_s(self._name)
        took_s = self._control.worked_s - self._began_s
        return round(took_s * (1 - self._share) / self._share, 1)


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
