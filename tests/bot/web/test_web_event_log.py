"""What a run told, read from any place on; and its course, which a resume does not double."""

import csv
import json
import math

import pytest

from bot.training.web import run_history
from bot.training.web.run_history import (
    EventBatch,
    build_history,
    read_all_events,
    read_events,
    read_report_history,
    smooth,
)
from personas.schemas.training_events import Evaluation, Phase
from tests.bot.web.training_runs import epoch, step, tell, whole_run


def steps_of(read):
    return [logged.event.step for logged in read.events]


def test_whoever_goes_on_at_a_number_misses_nothing_and_gets_nothing_twice(tmp_path):
    path = tmp_path / "events.jsonl"
    tell(tmp_path, *[step(n) for n in range(1, 8)])
    all_at_once = read_all_events(path)
    assert steps_of(all_at_once) == list(range(1, 8)) and all_at_once.end == path.stat().st_size
    for logged in all_at_once.events:
        rest = read_events(path, logged.end)
        assert steps_of(rest) == list(range(logged.event.step + 1, 8)) and not rest.anew
    tell(tmp_path, step(8))
    assert steps_of(read_events(path, all_at_once.end)) == [8]


def test_a_line_that_has_not_ended_is_left_for_later(tmp_path):
    path = tmp_path / "events.jsonl"
    tell(tmp_path, step(1))
    line = step(2).model_dump_json()
    with path.open("a") as file:
        file.write(line[:40])
    read = read_events(path, 0)
    assert steps_of(read) == [1] and not read.more and read.unreadable == 0
    with path.open("a") as file:
        file.write(line[40:] + "\n")
    assert steps_of(read_events(path, read.end)) == [2]


def test_half_a_line_of_a_trainer_that_was_killed_costs_that_line_alone(tmp_path):
    path = tmp_path / "events.jsonl"
    tell(tmp_path, step(1))
    with path.open("a") as file:
        file.write(step(2).model_dump_json()[:33])
    tell(tmp_path, Phase(name="material", detail='says {"event": "phase"}'), step(2))
    with path.open("ab") as file:
        file.write(b'\xff\x00 not json\n{"event":"unheard-of"}\n')
    tell(tmp_path, step(3))
    read = read_all_events(path)
    assert [logged.event.event for logged in read.events] == [
        "progress",
        "phase",
        "progress",
        "progress",
    ]
    assert read.unreadable == 2 and read.end == path.stat().st_size


def test_another_file_in_its_place_is_read_from_its_beginning(tmp_path):
    path = tmp_path / "events.jsonl"
    tell(tmp_path, *[step(n) for n in range(1, 6)])
    end = read_all_events(path).end
    path.unlink()
    assert read_events(path, end) == EventBatch(anew=True)
    tell(tmp_path, step(1))
    shorter = read_events(path, end)
    assert shorter.anew and steps_of(shorter) == [1]
    tell(tmp_path, *[step(n, 1 / 3) for n in range(2, 9)])
    within_a_line = read_events(path, end)
    assert within_a_line.anew and steps_of(within_a_line) == list(range(1, 9))


def test_pages_of_events_hold_each_once(tmp_path):
    path = tmp_path / "events.jsonl"
    tell(tmp_path, *[step(n) for n in range(1, 8)])
    seen = []
    at = 0
    more = True
    while more:
        read = read_events(path, at, most=3)
        seen = seen + steps_of(read)
        at = read.end
        more = read.more
    assert seen == list(range(1, 8))


def test_a_long_file_is_read_in_blocks_and_a_line_without_end_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(run_history, "BLOCK_BYTES", 1000)
    path = tmp_path / "events.jsonl"
    tell(tmp_path, *[step(n) for n in range(1, 30)])
    with path.open("a") as file:
        file.write("x" * 5000 + "\n")
    tell(tmp_path, *[step(n) for n in range(30, 41)])
    read = read_all_events(path)
    assert steps_of(read) == list(range(1, 41)) and read.unreadable == 1
    with path.open("a") as file:
        file.write("y" * 5000)
    assert read_events(path, read.end) == EventBatch(end=read.end)


def test_a_run_that_went_on_from_a_checkpoint_has_each_step_once_as_it_was_reported_last():
    first = [step(n, 4.0) for n in range(1, 9)]
    course = build_history(
        [*first, epoch(1, 8), Phase(name="training"), *[step(n, 2.0) for n in range(6, 11)]]
    )
    assert [(it.step, it.loss) for it in course.steps] == [
        (n, 4.0 if n < 6 else 2.0) for n in range(1, 11)
    ]
    assert course.epochs == [], (
        "what was measured after a step that was made again is measured again"
    )
    course.add(epoch(1, 10, 2.0))
    course.add(epoch(1, 10, 1.9))
    assert [it.train_loss for it in course.epochs] == [1.9] and course.train_loss == 1.9


def test_what_was_held_out_comes_from_epochs_and_from_measurements_between_them():
    between = Evaluation(step=3, epoch=0.3, train_loss=3.5, eval_loss=3.6)
    course = build_history([step(3), between, *[step(n) for n in range(4, 11)], epoch(1, 10, 3.0)])
    assert course.heldout == [(3, 3.6), (10, pytest.approx(3.1))]
    assert course.peak_bytes == 2**30 + 10


def test_smoothing_is_tensorboards_with_its_debiasing():
    values = [4.0, 1.0, 3.5, 2.0]
    weight = 0.8
    last = []
    biased = 0.0
    for n, value in enumerate(values, start=1):
        biased = weight * biased + (1 - weight) * value
        last.append(biased / (1 - weight**n))
    assert smooth(values, weight) == pytest.approx(last)
    assert smooth(values, 0.0) == values and smooth([], 0.9) == []
    assert all(math.isclose(it, 2.0) for it in smooth([2.0] * 50, 0.99))


def test_a_course_comes_back_from_the_tables_of_its_report(tmp_path):
    result = whole_run()
    course = build_history(result)
    for name, events in (("steps.csv", course.steps), ("epochs.csv", course.epochs)):
        rows = [
            event.model_dump(exclude={"event", "of", "eta_s", "held_s", "trouble"})
            for event in events
        ]
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    (tmp_path / "evaluations.csv").write_text("step,epoch\nnothing,in,it\n")
    again = read_report_history(tmp_path)
    assert [(it.step, it.loss, it.lr) for it in again.steps] == [
        (it.step, it.loss, it.lr) for it in course.steps
    ]
    assert again.heldout == course.heldout and again.evaluations == []
    assert json.dumps(again.heldout)
    assert read_report_history(tmp_path / "none").steps == []
