"""A run that gives way: it waits as long as it may and no longer, and makes the same adapter as one
that did not.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from threading import Event, Timer

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trainer.cli.main
from personas.schemas.training_events import (
    Estimate,
    Evaluation,
    Heartbeat,
    PauseDemand,
    Phase,
    Progress,
)
from tests.trainer.job_folders import events, persona_job
from tests.trainer.test_run import start, wait_for_step
from trainer.process import run_control
from trainer.process.events import EventWriter
from trainer.process.run_control import (
    MAX_PAUSE_S,
    MAX_PAUSE_SHARE,
    MIN_PAUSE_SHARE,
    RESERVE_S,
    CancelToken,
    PauseControl,
    RunCancelled,
)
from trainer.run import run_job
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")


class World:
    """Seconds that pass when somebody works or waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def event(self) -> World:
        """One that is never set, of which waiting takes its time."""
        return self

    def clear(self) -> None:
        """As of an event."""

    set = clear

    def is_set(self) -> bool:
        return False

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def hold(self, patch: pytest.MonkeyPatch, demand: PauseDemand = "hold") -> PauseControl:
        """One that is asked for, for ever."""
        patch.setattr(run_control, "monotonic", lambda: self.now)
        patch.setattr(run_control, "Event", self.event)
        made = PauseControl()
        made.request(demand)
        return made

    def step(self, hold: PauseControl, batches: int, batch_s: float) -> float:
        """Make an optimiser step and give how long it took, waiting included."""
        began = self.now
        hold.begin_step()
        for number in range(1, batches + 1):
            self.now += batch_s
            if number < batches:
                hold.wait()
        hold.end_step()
        hold.wait()
        return self.now - began


@given(
    st.integers(1, 16), st.floats(0.01, 30), st.integers(1, 40), st.sampled_from(["hold", "yield"])
)
def test_held_for_ever_a_run_gets_on(batches, batch_s, steps, demand):
    with pytest.MonkeyPatch.context() as patch:
        world = World()
        hold = world.hold(patch, demand)
        took = [world.step(hold, batches, batch_s) for _ in range(steps)]
    worked = batches * batch_s * steps
    assert hold.waited_s <= MAX_PAUSE_S + worked * MAX_PAUSE_SHARE / (1 - MAX_PAUSE_SHARE) + 1e-6
    assert hold.waited_s >= min(MAX_PAUSE_S - RESERVE_S, worked * MIN_PAUSE_SHARE) - 1e-6, (
        "it does give way"
    )
    assert max(took) <= batches * (batch_s + MAX_PAUSE_S) + 1e-6
    if batches * batch_s <= 30:
        assert max(took[1:], default=0) <= 120 + 1e-6, "a step in two minutes"


def test_the_longest_wait_in_a_row(monkeypatch):
    world = World()
    hold = world.hold(monkeypatch)
    assert hold.wait() == pytest.approx(MAX_PAUSE_S)
    assert hold.wait() == 0
    world.now += 1
    assert hold.wait() == pytest.approx(MAX_PAUSE_SHARE / (1 - MAX_PAUSE_SHARE))
    world.now += 3600
    assert hold.wait() == pytest.approx(MAX_PAUSE_S), "what is not used is not saved up without end"


def test_replies_that_have_begun_leave_a_reserve_for_the_next_first_words(monkeypatch):
    world = World()
    hold = world.hold(monkeypatch, "yield")
    assert hold.wait() == pytest.approx(MAX_PAUSE_S - RESERVE_S)
    assert hold.wait() == 0
    hold.request("hold")
    assert hold.wait() == pytest.approx(RESERVE_S)


def test_a_demand_that_changes_while_it_waits_counts_at_once(monkeypatch):
    world = World()
    hold = world.hold(monkeypatch, "yield")
    passes = world.wait

    def wait(seconds: float) -> None:
        passes(seconds)
        if world.now > 1 and hold.demand == "yield":
            hold.request("hold")
        elif world.now > 9:
            hold.request("yield")

    monkeypatch.setattr(world, "wait", wait)
    assert hold.wait() == pytest.approx(9, abs=0.2), (
        "longer than the spare time, and not all of the reserve"
    )


def test_who_is_not_asked_waits_for_nothing_and_who_is_to_stop_waits_no_longer():
    stop = CancelToken()
    hold = PauseControl(stop)
    assert hold.wait() < 0.05
    hold.request("hold")
    stop.request("SIGTERM")
    assert hold.wait() < 0.05


def test_the_starters_words_are_used_and_its_end_too(monkeypatch):
    theirs, ours = os.pipe()
    monkeypatch.setattr(run_control, "STDIN_FD", theirs)
    stop = CancelToken()
    hold = PauseControl()
    run_control.listen_to_parent(stop, hold)
    told = (
        (b"hold\n", "hold"),
        (b"go\n", "go"),
        (b"yi", "go"),
        (b"eld\nnonsense\n\xff\n", "yield"),
        (b"go\n", "go"),
    )
    for words, demand in told:
        os.write(ours, words)
        time.sleep(0.05)
        assert hold.demand == demand, words
    os.close(ours)
    with pytest.raises(RunCancelled, match="is gone"):
        for _ in range(100):
            stop.check()
            time.sleep(0.02)


class Holding(PauseControl):
    """Waits a moment wherever it may."""

    def wait(self) -> float:
        time.sleep(0.005)
        self.waited_s += 0.005
        return 0.005


def weights(folder):
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_that_is_held_again_and_again_makes_the_same_adapter_and_counts_the_time_apart(
    tmp_path, tiny_base
):
    """Held in training and in measuring alike."""
    settings = {
        "hyperparameters": {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 2}
    }
    received = []
    free = []
    free_hold = PauseControl(beat=lambda: free.append(Heartbeat()))
    for name, hold, result in (("free", free_hold, free), ("held", Holding(), received)):
        folder = persona_job(tmp_path / name, tiny_base.source, **settings)
        run_job(folder, RunControl(result.append, pause=hold))
    assert weights(tmp_path / "free") == weights(tmp_path / "held")
    last = [
        [event for event in result if isinstance(event, Progress)][-1]
        for result in (free, received)
    ]
    assert last[0].held_s < 0.01
    micro_batches = 2 * last[1].step
    assert last[1].held_s >= 0.005 * 4 * micro_batches > 0, "between layers, too"
    assert last[1].seconds > last[1].held_s
    assert not [event for event in received if isinstance(event, Evaluation)]
    phases = [event.name for event in free if isinstance(event, Phase)]
    beats = {
        name
        for name, event in zip(_phases_of(free), free, strict=True)
        if isinstance(event, Heartbeat)
    }
    assert beats == {*phases} - {"base model", "writing"}, "all that takes long with much data"
    (estimate,) = [event for event in free if isinstance(event, Estimate)]
    assert 0 < estimate.seconds < 600 and 2**20 < estimate.memory_bytes < 2**34


def _phases_of(events):
    """The name of the phase to which each event belongs."""
    name = ""
    for event in events:
        name = event.name if isinstance(event, Phase) else name
        yield name


def test_heartbeats_are_written_only_where_nothing_else_was(monkeypatch):
    now = [0.0]
    out = io.StringIO()
    monkeypatch.setattr("trainer.process.events.time.monotonic", lambda: now[0])
    writer = EventWriter(out)
    for at, event in (
        (20, None),
        (29, Phase(name="training")),
        (58, None),
        (59, None),
        (60, None),
        (100, None),
    ):
        now[0] = at
        writer.emit(event) if event else writer.beat()
    assert [event["event"] for event in events(out.getvalue())] == [
        "phase",
        "heartbeat",
        "heartbeat",
    ]


class Parent(io.StringIO):
    """The parent process: pauses the run at its first step, and lets it go on 0.3 s after it began
    to wait.
    """

    def __init__(self, to_run: int) -> None:
        super().__init__()
        self._to_run = to_run
        self._has_paused = False
        self._has_released = False

    def write(self, line: str) -> int:
        if '"progress"' in line and not self._has_paused:
            self._has_paused = True
            os.write(self._to_run, b"hold\n")
            time.sleep(0.2)  # the run reads it in a thread of its own
        return super().write(line)

    def release(self) -> None:
        if not self._has_released:
            self._has_released = True
            Timer(0.3, os.write, (self._to_run, b"go\n")).start()


def test_a_run_pauses_when_its_parent_process_says_so(tmp_path, tiny_base, monkeypatch):
    to_read, to_write = os.pipe()
    parent = Parent(to_write)

    class ReleasingEvent(Event):
        def wait(self, timeout: float | None = None) -> bool:
            parent.release()
            return super().wait(timeout)

    monkeypatch.setattr(run_control, "STDIN_FD", to_read)
    monkeypatch.setattr(run_control, "Event", ReleasingEvent)
    monkeypatch.setattr(trainer.cli.main, "cancel_on_signals", lambda stop: None)
    folder = persona_job(tmp_path, tiny_base.source)
    options = {
        "stop_on_eof": True,
        "checkpoint_every": 45,
        "home": None,
        "ignore_memory": False,
        "attempt": 0,
        "defer_card": False,
        "only_write": False,
    }
    options["card"] = "losses"
    assert trainer.cli.main._run(argparse.Namespace(folder=folder, **options), parent) == 0
    os.close(to_write)
    steps = [event for event in events(parent.getvalue()) if event["event"] == "progress"]
    assert 0.2 < steps[-1]["held_s"] < 10 and steps[-1]["step"] == steps[-1]["of"]


@pytest.mark.slow  # the same as a process of its own
def test_a_real_run_that_is_held_stands_still_goes_on_and_ends(tmp_path, tiny_base):
    folder = persona_job(tmp_path, tiny_base.source, hyperparameters={"num_train_epochs": 40})
    process = start(folder, "--stop-on-eof", "--threads", "1")
    wait_for_step(process)
    process.stdin.write("hold\n")
    process.stdin.flush()
    time.sleep(0.5)  # what it was at ends
    received = (folder / "events.jsonl").read_text().count("\n")
    time.sleep(1.0)
    assert (folder / "events.jsonl").read_text().count("\n") == received, "it stands still"
    process.stdin.write("go\n")
    process.stdin.flush()
    out = process.stdout.read()
    log = process.stderr.read()
    assert process.wait() == 0, log
    result = [json.loads(line) for line in out.splitlines()]
    steps = [event for event in result if event["event"] == "progress"]
    assert steps[-1]["held_s"] > 1.0 and steps[-1]["step"] == steps[-1]["of"]
    process.stdin.close()
    process.stdout.close()
    process.stderr.close()


@pytest.mark.slow
def test_a_run_by_hand_reads_nothing_from_its_standard_input(tmp_path, tiny_base):
    folder = persona_job(tmp_path, tiny_base.source)
    process = start(folder, "--threads", "1")
    out, log = process.communicate("hold\n" * 10, timeout=120)
    assert process.returncode == 0, log
    steps = [event for event in map(json.loads, out.splitlines()) if event["event"] == "progress"]
    assert steps[-1]["held_s"] < 0.01
