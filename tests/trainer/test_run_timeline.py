"""How far a run is, said while it goes on: the share of the whole, and the time until its end."""

import time
from typing import get_args

import pytest

from personas.schemas.formatting import format_time_left, model_label
from personas.schemas.training_events import (
    PHASE_LABELS,
    Estimate,
    Heartbeat,
    Phase,
    PhaseName,
    Progress,
    phase_label,
)
from tests.trainer.job_folders import persona_job
from trainer.cli.progress_view import format_phase, format_step
from trainer.process.timeline import (
    MAX_EXCESS_S,
    MAX_OPEN_DONE,
    MAX_PACE,
    MIN_COMPARED_SHARE,
    RunTimeline,
)
from trainer.run import run_job
from trainer.train import phase_progress
from trainer.train.phase_progress import PhaseProgress
from trainer.train.training_run import RunControl

ESTIMATE = {"base model": 1.0, "training": 100.0, "measuring the adapter": 50.0}


class SteppedClock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def step(number, eta_s):
    return Progress(
        step=number, of=10, epoch=0.1, loss=1.0, lr=1e-3, tokens_per_s=9.0, eta_s=eta_s,
        memory_bytes=0,
    )  # fmt: skip


def left_s(timeline, event):
    """The time left, once it has had an hour to be corrected."""
    timeline.clock.now_s += 3600
    return timeline.locate(event).left_s


def timeline_of(seconds):
    return RunTimeline(seconds, clock=SteppedClock())


def test_the_time_left_is_that_of_the_phase_and_the_later_ones():
    timeline = timeline_of(ESTIMATE)
    assert left_s(timeline, Phase(name="base model")) == 151
    assert left_s(timeline, Phase(name="base model", eta_s=0.5)) == 150.5
    assert left_s(timeline, step(5, 50.0)) == 100, "as fast as was estimated"
    assert left_s(timeline, Phase(name="writing")) == 0
    assert RunTimeline().locate(Phase(name="training")).left_s is None, "no estimate"


def test_a_slow_training_makes_what_follows_take_longer():
    timeline = timeline_of(ESTIMATE)
    assert left_s(timeline, step(5, 100.0)) == 200, "twice as slow: 50 become 100"
    assert left_s(timeline, Phase(name="measuring the adapter")) == 100
    # A pause of an hour says nothing of the later phases.
    assert timeline_of(ESTIMATE).locate(step(5, 5000.0)).left_s == 5000 + MAX_PACE * 50


def test_a_slow_writing_makes_what_follows_take_longer():
    timeline = timeline_of({"writing replies": 100.0, **ESTIMATE})
    half = Phase(name="writing replies", share=0.5, eta_s=100.0)
    assert left_s(timeline, half) == 251
    timeline.compare("writing replies", MIN_COMPARED_SHARE / 2, took_s=90.0)
    assert left_s(timeline, half) == 251, "its beginning says nothing"
    timeline.compare("writing replies", 0.5, took_s=100.0)
    assert left_s(timeline, half) == 100 + 2 * 151, "twice as slow"


def test_a_writing_whose_time_nobody_knows_says_nothing_of_what_follows():
    timeline = timeline_of(ESTIMATE)
    begun = timeline.locate(Phase(name="writing replies", share=0.0))
    assert (begun.done, begun.eta_s, begun.left_s) == (0, None, None), "not only what follows"
    timeline.compare("writing replies", 0.5, took_s=9999.0)
    half = timeline.locate(Phase(name="writing replies", share=0.5, eta_s=600.0))
    assert half.left_s == 600 + 151
    assert left_s(timeline, Phase(name="base model")) == 151, "as fast as was estimated"


def test_a_phase_that_goes_on_says_nothing_of_its_pace_by_what_was_done_before(monkeypatch):
    monkeypatch.setattr(phase_progress, "REPORT_INTERVAL_S", 0.0)
    worked_s = iter([0.0, 1.0, 1.0, 11.0, 11.0])
    monkeypatch.setattr(RunControl, "worked_s", property(lambda control: next(worked_s)))
    events = []
    control = RunControl(events.append, timeline=timeline_of({"writing replies": 100.0}))
    progress = PhaseProgress(control, "writing replies", "100 replies", 100, is_counted=True)
    assert [(events[0].count, events[0].of), events[0].eta_s] == [(0, 100), 100]
    progress.resume_at(60)
    assert (events[-1].count, events[-1].eta_s) == (60, 40), "by the estimate"
    progress.update(70)
    assert (events[-1].count, events[-1].eta_s) == (70, 30), "ten in ten seconds"


def test_what_takes_longer_than_its_limit_is_not_near_its_end_all_the_time(monkeypatch):
    clock = SteppedClock()
    monkeypatch.setattr(RunControl, "worked_s", property(lambda control: clock.now_s))
    events = []
    progress = PhaseProgress(RunControl(events.append), "measuring the adapter", "loading", 60.0)
    clock.now_s = 180.0
    progress.between()
    progress.describe("4 of 92 replies")
    assert (events[-1].share, events[-1].eta_s) == (0.95, 9.5), "by the limit alone"
    progress.expect(200.0)
    clock.now_s = 190.0
    progress.describe("6 of 92 replies")
    assert events[-1].eta_s == 190
    progress.expect(0.0)
    progress.describe("92 replies are measured")
    assert events[-1].eta_s == 10


def test_one_percentage_goes_over_all_phases_by_their_predicted_time():
    timeline = timeline_of(ESTIMATE)
    assert timeline.locate(Phase(name="material")).done == 0
    assert timeline.locate(step(5, 50.0)).done == round(51 / 151, 4)
    measuring = Phase(name="measuring the adapter", share=0.0)
    assert timeline.locate(measuring).done == round(101 / 151, 4), "not 0 again"
    assert timeline.locate(measuring.model_copy(update={"share": 0.5})).done == round(126 / 151, 4)
    assert timeline.locate(Phase(name="writing")).done == MAX_OPEN_DONE, "it has not ended"


def test_the_percentage_stays_where_a_phase_or_an_estimate_would_set_it_back():
    timeline = timeline_of({"writing replies": 100.0, **ESTIMATE})
    written = timeline.locate(Phase(name="writing replies", share=1.0)).done
    assert written == round(100 / 251, 4)
    assert timeline.locate(Phase(name="material")).done == written, "the data are read again"
    timeline.expect({name: 2 * seconds for name, seconds in ESTIMATE.items()})
    assert timeline.locate(Phase(name="base model")).done == written
    assert timeline.locate(step(10, 0.0)).done == round(302 / 402, 4), "what was written counts"


def test_a_moment_of_load_does_not_move_the_time_left_by_much():
    timeline = timeline_of(ESTIMATE)
    first = timeline.locate(step(1, 90.0)).left_s
    timeline.clock.now_s += 2
    loaded = timeline.locate(step(2, 320.0)).left_s
    assert first - 2 < loaded < first + 15, "by the step alone, 320 s and 200 for what follows"
    timeline.clock.now_s += 2
    assert abs(timeline.locate(step(3, 70.0)).left_s - (loaded - 2)) < 6
    timeline.clock.now_s += 2
    assert timeline.locate(Phase(name="writing")).left_s <= MAX_EXCESS_S, "the end is near"


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path):
    events = tmp_path / "events.jsonl"
    assert RunTimeline.read(events).locate(Phase(name="material")).done == 0
    before = timeline_of(ESTIMATE)
    last = before.locate(step(6, 40.0))
    lines = [Estimate(seconds=151, phases=ESTIMATE), last, Heartbeat()]
    text = "".join(event.model_dump_json() + "\n" for event in lines)
    events.write_text(text + '{"event": "progress", "step": ')
    resumed = RunTimeline.read(events)
    first = resumed.locate(Phase(name="material"))
    assert first.done == last.done and first.left_s == pytest.approx(last.left_s, abs=1)
    resumed.expect(ESTIMATE)
    resumed.clock = SteppedClock()
    resumed.clock.now_s = time.monotonic() + 3600
    loading = resumed.locate(Phase(name="base model"))
    assert loading.left_s == pytest.approx(1 + 90, abs=1), "what is trained is not trained again"
    assert resumed.locate(step(5, 50.0)).done == last.done, "from the checkpoint before"
    assert resumed.locate(step(7, 30.0)).done == round(71 / 151, 4)


def test_every_phase_that_takes_long_has_a_percentage_and_the_time_left(
    tmp_path, tiny_base, monkeypatch
):
    monkeypatch.setattr(phase_progress, "REPORT_INTERVAL_S", 0.0)
    events = []
    run_job(persona_job(tmp_path / "job", tiny_base.source), RunControl(events.append))
    for name in ("measuring the base", "measuring the adapter"):
        shown = [event for event in events if isinstance(event, Phase) and event.name == name]
        shares = [event.share for event in shown]
        assert shares[0] == 0 and shares == sorted(shares) and shares[-1] > 0.3, name
        assert all(event.eta_s is not None for event in shown[1:]) and shown[-1].left_s is not None
    positions = [event for event in events if isinstance(event, Phase | Progress)]
    done = [event.done for event in positions]
    assert done == sorted(done) and done[0] == 0 and 0.9 < done[-1] < 1
    steps = [event for event in positions if isinstance(event, Progress)]
    assert steps and all(event.left_s is not None for event in steps)


@pytest.mark.parametrize(
    ("phase", "text"),
    [
        (
            Phase(name="measuring the base", done=0.5, left_s=312, detail="9 replies"),
            " 50%  measuring the base model  about 5 min left  9 replies",
        ),
        (Phase(name="material"), "reading the material"),
    ],
)
def test_a_terminal_shows_it_on_one_line(phase, text):
    assert format_phase(phase) == text


def test_a_terminal_shows_the_same_of_a_step():
    shown = format_step(step(4, 50.0).model_copy(update={"done": 0.31, "left_s": 40}))
    assert shown.startswith(" 31%  training  about 40 s left  step 4/10")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "10 s"),
        (44, "40 s"),
        (94, "90 s"),
        (96, "2 min"),
        (3569, "59 min"),
        (7900, "2 h 10 min"),
    ],
)
def test_a_time_left_is_no_finer_than_it_is_known(seconds, text):
    assert format_time_left(seconds) == text


def test_moderators_read_what_is_measured_and_events_keep_their_names():
    phase = Phase(name="measuring the adapter")
    assert phase.label == "measuring the new version" and phase_label("training") == "training"
    assert (
        '"measuring the adapter"' in phase.model_dump_json()
        and "new" not in phase.model_dump_json()
    )
    assert set(PHASE_LABELS) <= set(get_args(PhaseName))
    assert model_label("embedded") == "the bundled model" and model_label("big") == "big"
