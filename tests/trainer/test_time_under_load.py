"""A real training beside two busy loops: the times left that it shows, and its deadline."""

import subprocess
import sys
import time
from itertools import pairwise

import pytest

from personas.models.base_model import EMBEDDED
from personas.schemas.formatting import format_time_left
from personas.schemas.training_events import Phase, Progress
from tests.trainer.job_folders import export, persona_job, talks
from tests.trainer.shown_times import MAX_OFF, most_off
from trainer.process.time_left import SETTLING_STEPS
from trainer.run import run_job
from trainer.train.training_run import RunControl

DEADLINE_S = 900.0
MAX_STANDING_S = 60.0
LEAST_SHOWN_S = 10.0
REPLY = (
    "I mended clock {} myself, with oil and a small brush. The bell rings again, and the keeper of "
    "the tower nodded when he heard it from the bridge this morning."
)


@pytest.fixture
def two_busy_loops():
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


@pytest.mark.slow
def test_beside_two_busy_loops_no_time_is_off_by_more_than_half_and_the_deadline_holds(
    tmp_path, two_busy_loops
):
    settings = {"max_steps": 12, "max_length": 256, "card_deadline_minutes": DEADLINE_S / 60}
    log = export(talks(150, REPLY))
    folder = persona_job(tmp_path / "job", EMBEDDED, log, recipe="quick", hyperparameters=settings)
    said = []
    began_s = time.monotonic()

    def emit(event):
        said.append((time.monotonic() - began_s, event))

    run_job(folder, RunControl(emit, card="full", home=tmp_path / "home", defers_card=True))
    ended_s = time.monotonic() - began_s
    positions = [
        (at, it) for at, it in said if isinstance(it, Phase | Progress) and it.left_s is not None
    ]
    shown = [
        (at, max(LEAST_SHOWN_S, it.left_s), max(LEAST_SHOWN_S, it.most_left_s or it.left_s))
        for at, it in positions
    ]
    texts = [(at, format_time_left(it.left_s, it.most_left_s)) for at, it in positions]
    told = [f"{at:.0f} s, {ended_s - at:.0f} more: {text}" for at, text in texts]
    assert most_off(shown, ended_s) <= MAX_OFF, told
    for _, event in positions:
        if isinstance(event, Progress):
            assert (event.most_left_s is not None) == (event.step < SETTLING_STEPS), told
    begins_s = 0.0
    for (_, before), (at, text) in pairwise([*texts, (ended_s, "")]):
        if text != before:
            begins_s = at
        assert text != "10 s" or at - begins_s < MAX_STANDING_S, told
    assert ended_s <= DEADLINE_S * 1.1, told
