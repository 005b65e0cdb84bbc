"""Giving way: a run waits between two batches while whoever started it needs the machine, and still gets on.

Asked to hold for ever, a run waits at most `LONGEST_S` in a row and three quarters of the time. Steps that take long to
compute are given more of it, so that one is made every minute as long as computing it takes no more than half of that.
"""

from __future__ import annotations

from threading import Event
from time import monotonic

from trainer.process.stopping import Stop

LONGEST_S = 15.0
MOST, LEAST = 3 / 4, 1 / 4
"""Which share of the time a run waits at most, where its steps are short and where they are long."""
STEP_EVERY_S = 45.0
"""With a wait of `LONGEST_S` that was saved up before, a step is made every minute."""
LOOK_S = 0.1


class Hold:
    """Asked for and let go from any thread; waited for in the thread that trains.

    `waited_s` is how long it has been waited for in all.
    """

    def __init__(self, stop: Stop | None = None) -> None:
        """A run that is to stop waits no longer."""
        self._stop, self._free = stop or Stop(), Event()
        self._free.set()
        self._share, self._saved_s = MOST, LONGEST_S
        self._worked_from = self._step_began = monotonic()
        self._waited_before_step_s = 0.0
        self.waited_s = 0.0

    def ask(self) -> None:
        """Others need the machine."""
        self._free.clear()

    def let_go(self) -> None:
        """They do no longer."""
        self._free.set()

    @property
    def is_asked(self) -> bool:
        """Whether somebody needs the machine now."""
        return not self._free.is_set()

    def step_begins(self) -> None:
        """An optimiser step begins."""
        self._step_began, self._waited_before_step_s = monotonic(), self.waited_s

    def step_ends(self) -> None:
        """It has been computed: by how long that took it is decided how much may be waited from now on."""
        took_s = monotonic() - self._step_began - (self.waited_s - self._waited_before_step_s)
        self._share = min(MOST, max(LEAST, 1 - took_s / STEP_EVERY_S))

    def wait(self) -> float:
        """Wait while asked to, as long as is allowed now. Gives how many seconds that took."""
        began = monotonic()
        earned_s = (began - self._worked_from) * self._share / (1 - self._share)
        self._saved_s = min(LONGEST_S, self._saved_s + earned_s)
        self._wait_until(began + self._saved_s)
        self._worked_from = monotonic()
        waited_s = self._worked_from - began
        self._saved_s = max(0.0, self._saved_s - waited_s)
        self.waited_s += waited_s
        return waited_s

    def _wait_until(self, end: float) -> None:
        while self.is_asked and not self._stop.asked and (left_s := end - monotonic()) > 0:
            self._free.wait(min(left_s, LOOK_S))
