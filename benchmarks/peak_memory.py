"""Runs a measurement in a subprocess and reports the peak memory of its process tree."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

POLL_INTERVAL_S = 0.02


def measure_in_subprocess(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], int]:
    """What a command prints on its last line, as JSON, and the peak memory in bytes of it and of this process.

    Ends the benchmark (`SystemExit`) when the command fails.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        peak = _Peak(child.pid)
        out, _ = child.communicate()
        most = peak.stop()
    if child.returncode:
        raise SystemExit(f"The benchmark broke off: {' '.join(command)} ended with exit code {child.returncode}.")
    figures: dict[str, Any] = json.loads(out.splitlines()[-1])
    return figures, most


class _Peak:
    """Watches, from a thread, how much memory a process and those below it hold together."""

    def __init__(self, pid: int) -> None:
        self._pid, self._most, self._over = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        try:
            child = psutil.Process(self._pid)
            while not self._over.wait(POLL_INTERVAL_S):
                self._most = max(self._most, sum(map(_held_bytes, [child, *child.children(recursive=True)])))
        except psutil.NoSuchProcess:  # it has just ended
            return

    def stop(self) -> int:
        """The most that was seen."""
        self._over.set()
        self._thread.join()
        return self._most


def _held_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it has just ended
        return 0
