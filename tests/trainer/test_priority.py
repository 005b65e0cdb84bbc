"""A training beside a bot: it makes way for whoever wants the cores."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux alone has this class")
BUSY = """
import os, sys
from trainer.process.environment import lower_priority
os.sched_setaffinity(0, {int(sys.argv[2])})
lower_priority(int(sys.argv[1]))
print(os.sched_getscheduler(0), os.nice(0), flush=True)
while True:
    pass
"""


def start(niceness: int) -> subprocess.Popen[str]:
    """A process that computes for ever, on the same core as all others of this test."""
    core = str(min(os.sched_getaffinity(0)))
    return subprocess.Popen([sys.executable, "-c", BUSY, str(niceness), core], stdout=subprocess.PIPE, text=True)


def test_with_20_a_run_computes_only_while_nothing_else_wants_the_cores() -> None:
    idle, busy = start(20), start(0)
    try:
        assert idle.stdout and idle.stdout.readline().split() == [str(os.SCHED_IDLE), "19"]
        assert busy.stdout and busy.stdout.readline().split() == [str(os.SCHED_OTHER), "0"]
        before = used(idle), used(busy)
        while used(busy) - before[1] < 0.5:
            time.sleep(0.05)
        assert used(idle) - before[0] < 0.1 * (used(busy) - before[1])
    finally:
        for process in (idle, busy):
            process.kill()
            process.communicate()


def test_below_20_a_run_is_merely_nice() -> None:
    nice = start(19)
    try:
        assert nice.stdout and nice.stdout.readline().split() == [str(os.SCHED_OTHER), "19"]
    finally:
        nice.kill()
        nice.communicate()


def test_where_the_class_is_forbidden_a_run_is_as_nice_as_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.process import environment

    def forbid(*_: object) -> None:
        raise PermissionError

    by: list[int] = []
    monkeypatch.setattr(environment.os, "nice", by.append)
    monkeypatch.setattr(environment.os, "sched_setscheduler", forbid)
    environment.lower_priority(20)
    assert by == [20]


def used(process: subprocess.Popen[str]) -> float:
    """Return the processor time in seconds."""
    return psutil.Process(process.pid).cpu_times().user
