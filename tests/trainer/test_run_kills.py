"""kill -9 at random moments and at writes: a run that is resumed makes the same adapter as an
undisturbed one.
"""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest

from tests.trainer.job_folders import persona_job
from tests.trainer.test_run import run, start

STEPS = 24
LONG = {"hyperparameters": {"num_train_epochs": 6, "gradient_accumulation_steps": 1}}
WITH_FAILPOINTS = """
import sys
from pathlib import Path
from tests.chaos import failpoints
from trainer.__main__ import main
failpoints.install(sys.argv.pop(1), Path(sys.argv.pop(1)))
sys.exit(main())
"""
WRITES_OF_A_LIFE = 260
"""Hits of failpoints at files in a run that nobody disturbs, about; one that goes on has fewer, and
may end.
"""
OPTIONS = ("--threads", "1", "--checkpoint-every", "1")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_base) -> bytes:
    folder = persona_job(tmp_path_factory.mktemp("undisturbed"), tiny_base.source, **LONG)
    code, received, log = run(folder, *OPTIONS)
    assert code == 0, log
    assert sum(event["event"] == "progress" for event in received) == STEPS
    return weights(folder)


def weights(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def killed(folder: Path, after_steps: int, wait_s: float) -> None:
    """Start the run, and kill it some time after so many steps; it may have ended before."""
    process = start(folder, *OPTIONS)
    steps = 0
    while steps < after_steps and (line := process.stdout.readline()):
        steps += json.loads(line)["event"] == "progress"
    time.sleep(wait_s)
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_killed_three_times_in_a_row_the_adapter_is_the_same(tmp_path, tiny_base, undisturbed):
    folder = persona_job(tmp_path, tiny_base.source, **LONG)
    draw = random.Random(7)
    for after in (5, 7, 4):
        killed(folder, after, draw.uniform(0, 0.1))
        assert not (folder / "adapter").exists()
    code, received, log = run(folder, *OPTIONS)
    assert code == 0, log
    first = next(event["step"] for event in received if event["event"] == "progress")
    before = [
        event["detail"]
        for event in received
        if event["event"] == "phase" and event["name"] == "measuring the base"
    ]
    assert before[0].endswith(f", then on from step {first - 1}"), (
        "said before it goes on: nothing is lost"
    )
    assert first > 5, "it began anew"
    assert weights(folder) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_writes_again_and_again_the_adapter_is_the_same(
    tmp_path, tiny_base, undisturbed, seed
):
    draw = random.Random(seed)
    points = set()
    folder = persona_job(tmp_path / "job", tiny_base.source, **LONG)
    for life in range(3):
        trace = tmp_path / f"trace{life}"
        program = (
            "-c",
            WITH_FAILPOINTS,
            f"kill@{draw.randint(1, WRITES_OF_A_LIFE)}:file.*",
            str(trace),
        )
        process = start(folder, *OPTIONS, program=program)
        _, log = process.communicate(timeout=120)
        assert process.returncode in (-signal.SIGKILL, 0), log
        if process.returncode:
            points.add(trace.read_text().split()[-1])
    assert points, "never killed"
    code, _, log = run(folder, *OPTIONS)
    assert code == 0, log
    assert weights(folder) == undisturbed


@pytest.mark.slow
def test_threads_are_those_that_the_run_began_with(tmp_path, tiny_base, undisturbed):
    folder = persona_job(tmp_path, tiny_base.source, **LONG)
    killed(folder, 6, 0)
    code, _, log = run(folder, "--threads", "2")
    assert code == 0, log
    assert json.loads((folder / "adapter" / "manifest.json").read_text())["threads"] == 1
    assert weights(folder) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_a_random_moment_the_adapter_is_the_same(tmp_path, tiny_base, undisturbed, seed):
    draw = random.Random(seed)
    folder = persona_job(tmp_path, tiny_base.source, **LONG)
    killed(folder, draw.randrange(0, STEPS), draw.uniform(0, 1.5))
    code, _, log = run(folder, *OPTIONS)
    assert code == 0, log
    assert weights(folder) == undisturbed
