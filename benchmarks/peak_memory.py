"""Runs a measurement in a subprocess and reports the peak memory of its process tree."""

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
    """Run a command and return the JSON on its last output line and the peak memory of its process
    tree in bytes.

    Ends the benchmark (`SystemExit`) if the command fails.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        peak = _Peak(child.pid)
        out, _ = child.communicate()
        most = peak.stop()
    if child.returncode:
        raise SystemExit(
            f"The benchmark broke off: {' '.join(command)} ended with exit code {child.returncode}."
        )
    figures: dict[str, Any] = json.loads(out.splitlines()[-1])
    return figures, most


class _Peak:
    """Thread that samples the memory of a process and its children."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        try:
            child = psutil.Process(self._pid)
            while not self._over.wait(POLL_INTERVAL_S):
                self._most = max(
                    self._most, sum(map(_held_bytes, [child, *child.children(recursive=True)]))
                )
        except psutil.NoSuchProcess:  # it has just ended
            return

    def stop(self) -> int:
        """Stop and return the peak."""
        self._over.set()
        self._thread.join()
        return self._most


def _held_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it has just ended
        return 0
