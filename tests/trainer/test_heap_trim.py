"""What batches leave in the heap of a run is given back once it is more than a step needs."""

import json
import os
import subprocess
import sys

import pytest

from trainer.process.environment import ALLOCATOR_SETTINGS
from trainer.train.callbacks import HeapTrimCallback, can_trim_heap

STEPS = """
import json, sys
import psutil
from trainer.train.callbacks import HeapTrimCallback

MB = 2**20
held = lambda: psutil.Process().memory_info().rss / MB
trimmer = HeapTrimCallback(allowed_bytes=32 * MB)
trimmer.on_step_end(None, None, None)
large = [bytearray(b"x") * MB for _ in range(200)]
pinned = bytearray(b"x") * MB
full = held()
del large
left = held()
trimmer.on_substep_end(None, None, None)
print(json.dumps([full, left, held()]))
"""


@pytest.mark.skipif(not can_trim_heap(on_cpu=True), reason="the allocator is not glibc's")
@pytest.mark.slow
def test_what_the_allocator_keeps_is_given_back():
    environ = {**os.environ, **ALLOCATOR_SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", STEPS], capture_output=True, text=True, env=environ, check=True
    )
    full, left, trimmed = json.loads(done.stdout)
    assert left > full - 20, "as a run sets it up, the allocator keeps what is freed"
    assert trimmed < full - 180


def test_a_gpus_run_and_another_allocator_are_left_alone(monkeypatch):
    assert not can_trim_heap(on_cpu=False)
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert not can_trim_heap(on_cpu=True)


def test_what_a_step_needs_by_itself_is_not_trimmed(monkeypatch):
    held = iter((100, 300, 350, 500, 200, 340))
    trimmer = HeapTrimCallback(allowed_bytes=100)
    monkeypatch.setattr(
        trimmer,
        "_process",
        type("P", (), {"memory_info": lambda: type("M", (), {"rss": next(held)})}),
    )
    trimmed = []
    for _ in range(6):
        trimmer.on_step_end(None, None, None)
        trimmed.append(trimmer._is_trimmed)
    # 100 is the first need; 300 is beyond it and trimmed, so 350 is what a step needs by itself;
    # 500 is beyond that.
    assert trimmed == [False, True, False, True, False, False]
