"""The heap of a run does not grow with every length that comes along."""

import json
import os
import subprocess
import sys

import pytest

from trainer.loop.trimming import HeapTrimmer, trims_here
from trainer.process.environment import ALLOCATOR

STEPS = """
import json, random, sys
import torch
from trainer.loop.trimming import HeapTrimmer

MB = 2**20
trimmer = HeapTrimmer(allowed_bytes=64 * MB)
watch = HeapTrimmer()._process  # the same process, looked at as the trimmer does
lengths, most, alone, small = random.Random(7), 0, 0, []
torch.set_num_threads(1)


def step(length):
    kept = []
    for layer in range(30):
        passing = [torch.zeros(length * 900 * share, dtype=torch.uint8) for share in (5, 3)]
        kept.append(torch.zeros(length * 900, dtype=torch.uint8))
        small.append(torch.zeros(64))  # what stays between the large ones
        del passing
    return watch.memory_info().rss


for number in range(24):
    length = 600 if number == 0 else lengths.randrange(60, 600)
    held = step(length)
    alone, most = (held, held) if number == 0 else (alone, max(most, held))
    if sys.argv[1] == "trimmed":
        trimmer.on_step_end(None, None, None)
print(json.dumps([alone / MB, most / MB]))
"""


@pytest.mark.skipif(not trims_here(on_cpu=True), reason="the allocator is not glibc's")
def test_batches_of_many_lengths_hold_little_more_than_the_longest_alone():
    def run(how: str) -> list[float]:
        environ = {**os.environ, **ALLOCATOR}
        done = subprocess.run(
            [sys.executable, "-c", STEPS, how], capture_output=True, text=True, env=environ, check=True
        )
        return json.loads(done.stdout)

    alone, most = run("trimmed")
    _, untrimmed = run("left")
    assert most <= alone + 64 + 32
    assert untrimmed > most, "nothing was there to trim"


def test_a_gpus_run_and_another_allocator_are_left_alone(monkeypatch):
    assert not trims_here(on_cpu=False)
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert not trims_here(on_cpu=True)


def test_what_a_step_needs_by_itself_is_not_trimmed(monkeypatch):
    held = iter((100, 300, 350, 500, 200, 340))
    trimmer = HeapTrimmer(allowed_bytes=100)
    monkeypatch.setattr(trimmer, "_process", type("P", (), {"memory_info": lambda: type("M", (), {"rss": next(held)})}))
    trimmed = []
    for _ in range(6):
        trimmer.on_step_end(None, None, None)
        trimmed.append(trimmer._is_trimmed)
    # 100 is the first need; 300 is beyond it and trimmed, so 350 is what a step needs by itself; 500 is beyond that.
    assert trimmed == [False, True, False, True, False, False]
