"""The time left in a run: by its own steps and the load that they show."""

import pytest

from tests.trainer.shown_times import MAX_OFF, most_off
from trainer.evaluate.card_outlook import (
    FIRST_REPLIES_SAMPLES,
    PROBE_SAMPLES,
    REPLY_SAMPLES,
    SCORING_SAMPLES,
    CardOutlook,
)
from trainer.evaluate.generation.reply_pace import ReplyPace
from trainer.evaluate.time_budget import TimeBudget
from trainer.process.time_left import (
    KNOWN_LOAD_FACTOR,
    SETTLING_STEPS,
    UNKNOWN_LOAD_FACTOR,
    CardLimit,
    TimeLeft,
    first_card_room_s,
)

PREDICTED = {
    "material": 7.0,
    "base model": 1.0,
    "measuring the base": 20.0,
    "training": 240.0,
    "measuring the adapter": 130.0,
}
LOSSES = 48
LOSS_S = 10.0 / LOSSES
REPLIES = 66
AT_ONCE = 8
MEAN_TOKENS = 60
MAX_TOKENS = 120
SHOWN_EVERY_S = 2.0


class VirtualRun:
    """A run of 40 steps on an invented machine: `load` says how many times as long everything takes at
    a second, `losses` how many times as long as predicted losses take, and `replies` how many times
    as long a reply of the score card takes as losses foretell, at `MEAN_TOKENS`; it has `tokens`.
    """

    def __init__(
        self, load=lambda s: 1.0, *, losses=1.0, replies=1.0, tokens=MEAN_TOKENS, deadline_s=0.0
    ):
        self.now_s = 0.0
        self.load = load
        self.left = TimeLeft(PREDICTED)
        if deadline_s:
            self.left.limit = CardLimit(deadline_s, whole_s=130.0, least_s=8.0, after_s=15.0)
        self.shown = []
        self.loss_s = losses * LOSS_S
        self.tokens = tokens
        self.reply_s = replies * REPLY_SAMPLES * self.loss_s

    def work(self, seconds, *, is_shown=False):
        """Work as long as it takes; the time is shown on the way where the phase reports by time."""
        while seconds > 0:
            part_s = min(1.0, seconds)
            self.now_s += part_s * self.load(self.now_s)
            seconds -= part_s
            if is_shown and self.now_s - self.shown[-1][0] >= SHOWN_EVERY_S:
                self.show()

    def show(self):
        self.shown.append((self.now_s, self.left.of_run(self.now_s)))

    def enter(self, phase, **counted):
        self.left.begin(phase, self.now_s, **counted)
        self.show()

    def run(self):
        self.enter("material")
        self.work(7.0)
        self.enter("base model")
        self.work(3.0)
        self.enter("measuring the base", total=LOSSES)
        self.items(LOSSES // 8, of=LOSSES, each_s=16 * self.loss_s, count=8)
        self.enter("training")
        self.work(4.0)
        self.left.begin("training", self.now_s, total=40)
        self.items(40, of=40, each_s=236.0 / 40)
        self.enter("measuring the adapter")
        self.measure_card()
        self.enter("writing")
        self.work(3.0)
        return self

    def items(self, number, *, of, each_s, count=1):
        for done in range(1, number + 1):
            self.work(each_s)
            self.left.update(done * count, of, self.now_s)
            self.show()

    def measure_card(self):
        """As `trainer.evaluate` does: losses, then replies, then the effect probe."""
        limit = self.left.limit
        budget_s = 1e9
        if limit:
            after_s = limit.after_s * max(1.0, self.left.card_slowness)
            budget_s = first_card_room_s(limit.deadline_s, self.now_s, after_s)
        budget = TimeBudget(budget_s, lambda: self.now_s)
        outlook = CardOutlook(budget, lambda left_s: self.left.state(left_s, self.now_s))
        began_s = self.now_s
        measured = self.losses(budget)
        outlook.learn(measured, self.now_s - began_s)
        outlook.tell_samples(LOSSES + REPLIES * REPLY_SAMPLES + SCORING_SAMPLES)
        self.losses(budget)
        if outlook.has_time_for(FIRST_REPLIES_SAMPLES):
            outlook.tell_samples(REPLIES * REPLY_SAMPLES + SCORING_SAMPLES)
            self.replies(budget, outlook)
        outlook.tell(0.0)
        self.work(PROBE_SAMPLES * self.loss_s, is_shown=True)

    def losses(self, budget):
        share = budget.part(0.25)
        for measured in range(0, LOSSES, 16):
            if measured and share.is_spent:
                return measured
            self.work(16 * self.loss_s, is_shown=True)
        return LOSSES

    def replies(self, budget, outlook):
        """Eight at once, token by token; each as long as the last one, and the first rather longer."""
        steps = self.tokens
        pace = ReplyPace(lambda: self.now_s, at_once=AT_ONCE, max_tokens=MAX_TOKENS)
        token_s = AT_ONCE * self.reply_s / MEAN_TOKENS
        done = 0
        slots = [steps * (AT_ONCE + place) // (2 * AT_ONCE) for place in range(AT_ONCE)]
        waiting = REPLIES - AT_ONCE
        while slots:
            self.work(token_s, is_shown=True)
            slots = [left - 1 for left in slots]
            finished = slots.count(0)
            done += finished
            slots = [left for left in slots if left]
            if budget.left > steps * token_s:
                begun = min(finished, waiting)
                waiting -= begun
                slots += [steps] * begun
            else:
                waiting = 0
            pace.step(done, done + len(slots) + waiting)
            left_s = pace.left_s(budget.left)
            if left_s is not None:
                outlook.tell(left_s + SCORING_SAMPLES * outlook.sample_s)
        self.work(SCORING_SAMPLES * self.loss_s, is_shown=True)

    def worst(self):
        shown = [(at_s, left.low_s, left.high_s) for at_s, left in self.shown]
        return most_off(shown, self.now_s)


@pytest.mark.parametrize(
    "run",
    [
        VirtualRun(),
        VirtualRun(lambda s: 3.0),
        VirtualRun(lambda s: 0.3),
        VirtualRun(lambda s: 1.8 if s > 150 else 1.0),
        VirtualRun(lambda s: 1.5 if s < 250 else 1.0),
        VirtualRun(replies=1.7),
        VirtualRun(lambda s: 2.0, replies=1.7),
        VirtualRun(lambda s: 2.0, losses=2.0, deadline_s=330.0),
        VirtualRun(lambda s: 1.3, tokens=MAX_TOKENS, deadline_s=500.0),
        VirtualRun(lambda s: 2.5, deadline_s=330.0),
        VirtualRun(lambda s: 1.2, deadline_s=330.0),
    ],
    ids=[
        "as predicted",
        "a slow machine",
        "a fast machine",
        "load begins in the middle",
        "load ends in the middle",
        "a slow score card",
        "a slow score card under load",
        "losses slower than steps",
        "first replies beyond the deadline",
        "a deadline that has passed",
        "a deadline near",
    ],
)
def test_no_time_is_off_by_more_than_half_after_the_first_minute(run):
    run.run()
    assert run.worst() <= MAX_OFF, [(round(s), t, round(run.now_s - s)) for s, t in run.shown]


def test_it_would_be_off_by_more_without_what_the_run_shows():
    """The simulation can fail: the same run, told nothing of its own."""
    run = VirtualRun(lambda s: 3.0)
    run.left.update = lambda *arguments, **named: None
    assert run.run().worst() > MAX_OFF


def begun(expected_s=PREDICTED):
    left = TimeLeft(expected_s)
    left.begin("training", 0.0, total=40)
    return left


def test_it_is_a_range_until_ten_steps_are_done_and_then_one_value():
    left = begun()
    unknown = left.of_run(0.0)
    assert unknown.high_s / unknown.low_s == pytest.approx(UNKNOWN_LOAD_FACTOR**2)
    for step in range(1, SETTLING_STEPS):
        left.update(step, 40, 6.0 * step)
        shown = left.of_run(6.0 * step)
        assert shown.high_s / shown.low_s == pytest.approx(KNOWN_LOAD_FACTOR**2)
        assert shown.low_s < 6.0 * (40 - step) + 130 < shown.high_s
    left.update(SETTLING_STEPS, 40, 60.0)
    settled = left.of_run(60.0)
    assert settled.low_s == settled.high_s == pytest.approx(6.0 * 30 + 130)


def test_the_first_steps_count_beside_the_load_that_was_measured_before():
    left = TimeLeft(PREDICTED)
    left.begin("measuring the base", 0.0, total=10)
    left.update(5, 10, 20.0)
    assert left.slowness == 2, "20 of 20 seconds, for a half"
    left.begin("training", 40.0, total=40)
    assert left.of_phase(40.0) == 480
    left.update(1, 40, 40.0 + 6.0)
    assert left.of_phase(46.0) == pytest.approx((12 + 6) / 2 * 39), "one step is half the evidence"


def test_a_long_training_is_judged_by_its_last_tenth():
    left = begun({"training": 4000.0})
    for step in range(1, 501):
        left.update(step, 1000, 4.0 * step)
    for step in range(501, 521):
        left.update(step, 1000, 2000.0 + 8.0 * (step - 500))
    assert 4.0 < left.item_s < 8.0, "a load of minutes does not count as if it stayed"
    for step in range(521, 561):
        left.update(step, 1000, 2000.0 + 8.0 * (step - 500))
    assert left.item_s == pytest.approx(8.0)


def test_what_is_done_before_says_nothing_of_the_pace():
    left = TimeLeft(PREDICTED)
    left.begin("training", 100.0, done=30, total=40)
    assert left.of_phase(100.0) == 60, "a quarter of the prediction"
    left.update(31, 40, 112.0)
    assert left.of_phase(112.0) == 12 * 9


def test_evaluations_beside_the_steps_are_added():
    left = begun()
    left.update(20, 40, 100.0, beside_s=40.0)
    assert left.of_phase(100.0) == 5 * 20 + 40


def test_what_takes_longer_than_was_said_does_not_stand_at_nothing():
    left = TimeLeft(PREDICTED)
    left.begin("measuring the adapter", 0.0)
    left.state(10.0, 0.0)
    assert left.of_run(4.0).high_s == 6
    late = left.of_run(130.0)
    assert (late.low_s, late.high_s) == (0, 120), "it may go on for as long again"


def test_nobody_knows_without_a_prediction():
    left = TimeLeft()
    left.begin("material", 0.0)
    assert left.of_run(1.0) is None
    left = TimeLeft(PREDICTED)
    left.begin("writing replies", 0.0, total=100)
    assert left.of_phase(5.0) is None and left.of_run(5.0) is None
    left.compare("writing replies", 0.5, took_s=999.0)
    left.update(10, 100, 20.0)
    assert left.of_phase(20.0) == 180 and left.slowness == 1, "nor does it say what follows"


def test_a_first_card_has_what_is_left_of_the_deadline():
    left = begun()
    left.limit = CardLimit(deadline_s=330.0, whole_s=130.0, least_s=8.0, after_s=15.0)
    for step in range(1, 21):
        left.update(step, 40, 6.0 * step)
    assert left.of_run(120.0).low_s == pytest.approx(330 - 120), "until the deadline"
    for step in range(21, 31):
        left.update(step, 40, 120.0 + 12.0 * (step - 20))
    assert left.of_run(240.0).low_s == pytest.approx(12 * 10 + 360 / 4 + 2 * 15), "the least"
