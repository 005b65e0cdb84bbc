"""How far a run is, said while it goes on: the share of the whole, and the time until its end."""

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
from trainer.process.timeline import MAX_OPEN_DONE, RunTimeline
from trainer.run import run_job
from trainer.train import phase_progress
from trainer.train.phase_progress import CardProgress, PhaseProgress
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


def locate(timeline, event, now_s=0.0):
    return timeline.locate(event, now_s)


def test_an_event_says_how_long_its_phase_and_the_later_ones_take():
    timeline = RunTimeline(ESTIMATE)
    loading = locate(timeline, Phase(name="base model"))
    assert loading.eta_s == 1 and loading.left_s < 151 < loading.most_left_s, "nothing is known yet"
    timeline.left.begin("training", 0.0, total=10)
    timeline.left.update(10, 20, 40.0)
    at = locate(timeline, step(10, 0.0), 40.0)
    assert (at.left_s, at.most_left_s) == (40 + 50 * 0.8, None), "20 steps would take 80 of 100 s"
    assert locate(timeline, Phase(name="measuring the adapter"), 90.0).left_s == 40
    assert locate(timeline, Phase(name="measuring the adapter"), 100.0).left_s == 30
    assert locate(RunTimeline(), Phase(name="training")).left_s is None, "no estimate"


def test_a_phase_that_goes_on_says_nothing_of_its_pace_by_what_was_done_before(monkeypatch):
    clock, events = clocked(monkeypatch)
    control = RunControl(events.append, timeline=RunTimeline({"writing replies": 100.0}))
    progress = PhaseProgress(control, "writing replies", "100 replies", 100, is_counted=True)
    assert [(events[0].count, events[0].of), events[0].eta_s] == [(0, 100), 100]
    clock.now_s = 1.0
    progress.resume_at(60)
    assert (events[-1].count, events[-1].eta_s) == (60, 40), "by the estimate"
    clock.now_s = 11.0
    progress.update(70)
    assert (events[-1].count, events[-1].eta_s) == (70, 30), "ten in ten seconds"


def test_a_score_card_that_takes_longer_than_it_said_is_not_near_its_end_all_the_time(monkeypatch):
    clock, events = clocked(monkeypatch)
    control = RunControl(events.append, timeline=RunTimeline(ESTIMATE))
    progress = CardProgress(control, "measuring the adapter", "loading", 0.0)
    progress.expect(60.0)
    clock.now_s = 30.0
    progress.between()
    assert (events[-1].share, events[-1].eta_s, events[-1].most_left_s) == (0.5, 30, None)
    clock.now_s = 180.0
    progress.describe("4 of 92 replies")
    assert (events[-1].left_s, events[-1].most_left_s) == (0, 120), "it may go on for as long"
    progress.expect(200.0)
    clock.now_s = 190.0
    progress.describe("6 of 92 replies")
    assert (events[-1].left_s, events[-1].share) == (190, 0.5), "it never goes back"


def clocked(monkeypatch):
    """A clock for the seconds that runs have worked, and a list for their events."""
    clock = SteppedClock()
    monkeypatch.setattr(phase_progress, "REPORT_INTERVAL_S", 0.0)
    monkeypatch.setattr(RunControl, "worked_s", property(lambda control: clock.now_s))
    return clock, []


def test_one_percentage_goes_over_all_phases_by_their_predicted_time():
    timeline = RunTimeline(ESTIMATE)
    assert locate(timeline, Phase(name="material")).done == 0
    assert locate(timeline, step(5, 50.0)).done == round(51 / 151, 4)
    measuring = Phase(name="measuring the adapter", share=0.0)
    assert locate(timeline, measuring).done == round(101 / 151, 4), "not 0 again"
    half = measuring.model_copy(update={"share": 0.5})
    assert locate(timeline, half).done == round(126 / 151, 4)
    assert locate(timeline, Phase(name="writing")).done == MAX_OPEN_DONE, "it has not ended"


def test_the_percentage_stays_where_a_phase_or_an_estimate_would_set_it_back():
    timeline = RunTimeline({"writing replies": 100.0, **ESTIMATE})
    written = locate(timeline, Phase(name="writing replies", share=1.0)).done
    assert written == round(100 / 251, 4)
    assert locate(timeline, Phase(name="material")).done == written, "the data are read again"
    timeline.expect({name: 2 * seconds for name, seconds in ESTIMATE.items()})
    assert locate(timeline, Phase(name="base model")).done == written
    assert locate(timeline, step(10, 0.0)).done == round(302 / 402, 4), "what was written counts"


def test_what_need_not_be_measured_again_takes_no_time():
    timeline = RunTimeline({"measuring the base": 40.0, "training": 100.0})
    timeline.leave_out("measuring the base", 0.75)
    assert locate(timeline, Phase(name="measuring the base")).eta_s == 10
    RunTimeline().leave_out("measuring the base", 1.0)


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path):
    events = tmp_path / "events.jsonl"
    assert locate(RunTimeline.read(events), Phase(name="material")).done == 0
    last = locate(RunTimeline(ESTIMATE), step(6, 40.0))
    lines = [Estimate(seconds=151, phases=ESTIMATE), last, Heartbeat()]
    text = "".join(event.model_dump_json() + "\n" for event in lines)
    events.write_text(text + '{"event": "progress", "step": ')
    resumed = RunTimeline.read(events)
    loading = locate(resumed, Phase(name="base model"))
    assert loading.done == last.done
    assert loading.left_s < 1 + 90 < loading.most_left_s < 151, "what is trained is not repeated"
    assert locate(resumed, step(5, 50.0)).done == last.done, "from the checkpoint before"
    assert locate(resumed, step(7, 30.0)).done == round(71 / 151, 4)


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
    assert done == sorted(done) and done[0] == 0 and 0.7 < done[-1] < 1
    steps = [event for event in positions if isinstance(event, Progress)]
    assert steps and all(event.left_s is not None for event in steps)
    assert all(event.most_left_s is not None for event in steps[:-1]), "of ten steps, not yet"


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
    between = {"done": 0.31, "left_s": 260, "most_left_s": 430}
    assert "  about 4–7 min left  " in format_step(step(4, 50.0).model_copy(update=between))


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


@pytest.mark.parametrize(
    ("least_s", "most_s", "text"),
    [
        (230, 430, "4–7 min"),
        (31, 52, "30–50 s"),
        (50, 130, "50 s – 2 min"),
        (230, 250, "4 min"),
        (7200, 14400, "2 h 0 min – 4 h 0 min"),
    ],
)
def test_a_range_has_its_unit_once(least_s, most_s, text):
    assert format_time_left(least_s, most_s) == text


def test_moderators_read_what_is_measured_and_events_keep_their_names():
    phase = Phase(name="measuring the adapter")
    assert phase.label == "measuring the new version" and phase_label("training") == "training"
    assert (
        '"measuring the adapter"' in phase.model_dump_json()
        and "new" not in phase.model_dump_json()
    )
    assert set(PHASE_LABELS) <= set(get_args(PhaseName))
    assert model_label("embedded") == "the bundled model" and model_label("big") == "big"
