"""How long the replies of a score card still take."""

from collections.abc import Callable

from trainer.process.time_left import TimeLeft

MIN_REPLIES = 4
"""After so many replies, their pace tells how long the others take."""


class ReplyPace:
    """Foresees the end of the replies, of which `at_once` are generated at once: by the tokens of the
    first ones, then by the pace of those that are finished.
    """

    def __init__(self, clock: Callable[[], float], *, at_once: int, max_tokens: int) -> None:
        self._clock = clock
        self._at_once = at_once
        self._max_tokens = max_tokens
        self._began_s = clock()
        self._steps = 0
        self._finished = 0
        self._left = 0
        self._pace = TimeLeft()

    def step(self, done: int, of: int) -> None:
        """Take note of another token of all that are generated at once, and of `done` replies."""
        self._steps += 1
        self._left = of - done
        if self._steps == 1:
            # Some may be known from before. Those that are begun are half done, on the average.
            begun = done - self._at_once / 2
            self._pace.begin("measuring the adapter", self._clock(), done=begun, total=of)
            self._finished = done + MIN_REPLIES - 1
        elif done > self._finished:
            self._finished = done
            self._pace.update(done, of, self._clock())

    @property
    def reply_s(self) -> float | None:
        """The seconds of a reply by the recent pace; None until some are finished."""
        return self._pace.item_s

    def left_s(self, limit_s: float) -> float | None:
        """Return the seconds until the last reply, of which none begins once `limit_s` have passed;
        None while nobody knows.
        """
        if self.reply_s is not None:
            begun_s = min(self._left, self._at_once) / 2 * self.reply_s
            return max(begun_s, min(self._left * self.reply_s, limit_s))
        # On the average, the first replies have half of the tokens left that they may have.
        step_s = (self._clock() - self._began_s) / max(1, self._steps)
        first_s = step_s * max(0, self._max_tokens - self._steps) / 2
        return first_s if first_s > limit_s else None
