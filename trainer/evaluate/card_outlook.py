"""How long a score card still takes, by what it has measured so far."""

from collections.abc import Callable

from trainer.evaluate.time_budget import TimeBudget

REPLY_SAMPLES = 8
"""A generated reply takes as long as the losses of so many replies: of a first card on two cores, a
reply took 8.9 s and losses 1.1 s.
"""
FIRST_REPLIES_SAMPLES = 70
"""Until the first replies are there, which are generated at once, there is time for so many."""
SCORING_SAMPLES = 10
PROBE_SAMPLES = 40
"""Measuring the replies, and the effect probe, on the same card."""


class CardOutlook:
    """Foresees a score card's end by the seconds that the losses of one reply take, `sample_s`; 0 until
    some are measured.
    """

    def __init__(self, budget: TimeBudget, expect: Callable[[float], None]) -> None:
        self._budget = budget
        self._expect = expect
        self.sample_s = 0.0

    def learn(self, samples: int, took_s: float) -> None:
        """Take note of the time that so many losses took."""
        if samples:
            self.sample_s = took_s / samples

    def has_time_for(self, samples: float) -> bool:
        """Report whether there is time for so many losses, or what takes as long."""
        return self._budget.left >= samples * self.sample_s

    def tell_samples(self, samples: float) -> None:
        """Tell that the rest takes as long as so many losses, or ends with the budget."""
        if self.sample_s:
            self.tell(min(samples * self.sample_s, self._budget.left))

    def tell(self, left_s: float) -> None:
        """Tell the seconds after which the effect probe follows."""
        self._expect(left_s + PROBE_SAMPLES * self.sample_s)
