"""Runs the ways one after another, each in its own process, within a time limit."""

import json
import subprocess  # nosec B404  # this module itself
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.random_models import MODEL_BYTES, scratch_parent
from benchmarks.gpu.table import format_line, format_tables
from benchmarks.gpu.ways import PREPARE

RESULT_FILE = "gpu.json"
FIGURES_PREFIX = "figures: "
"""Begins a line of figures on a way's standard output, where libraries print, too."""
ERROR_LINES = 3
TIME_UP = "the time was up"
Figures = dict[str, Any]


@dataclass(frozen=True)
class RunSettings:
    """`out` receives the result and a log for each way; all of it may take `limit_s`."""

    inputs: Path
    out: Path
    shape: str
    ways: Sequence[str]
    limit_s: float
    tiny: bool


@dataclass
class Results:
    """The figures so far, in a file after each line: a rented machine may be gone before the last.

    `rows` are the figures of a way, or of a way with so many replies at once.
    """

    file: Path
    facts: Figures = field(default_factory=dict)
    rows: list[Figures] = field(default_factory=list)

    def add(self, way: str, figures: Figures) -> None:
        """Add figures to the row that they belong to, and write the file."""
        if way == PREPARE:
            self.facts |= figures
        else:
            self._row(way, figures.get("rows")).update(figures)
        self._write()

    def of_way(self, way: str) -> list[Figures]:
        """Return the rows of a way."""
        return [row for row in self.rows if row["way"] == way]

    def _row(self, way: str, rows: int | None) -> Figures:
        for row in self.of_way(way):
            if row.get("rows") == rows:
                return row
        self.rows.append({"way": way})
        return self.rows[-1]

    def _write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".part")
        partial.write_text(json.dumps({**self.facts, "ways": self.rows}, indent=2) + "\n")
        partial.replace(self.file)


def run_ways(settings: RunSettings, say: Callable[[str], None] = print) -> Results:
    """Run the ways until the time is up; an error or a way that was left out is a figure, too."""
    results = Results(settings.out / RESULT_FILE)
    deadline = time.monotonic() + settings.limit_s
    results.add(PREPARE, {"shape": "tiny" if settings.tiny else settings.shape})
    needed = 0 if settings.tiny else MODEL_BYTES
    with tempfile.TemporaryDirectory(
        prefix="understudy-gpu-", dir=scratch_parent(needed)
    ) as folder:
        for way in (PREPARE, *settings.ways):
            began = time.monotonic()
            error = _run_way(way, settings, Path(folder), deadline, results)
            figures: Figures = {"wall_s": time.monotonic() - began}
            if error:
                figures["error"] = error
            if way == PREPARE:
                results.add(PREPARE, {"prepare_s": figures.pop("wall_s"), **figures})
            else:
                results.add(way, figures)
            for row in results.of_way(way):
                if "step_s" in row or "error" in row:
                    say(format_line(row))
            if way == PREPARE and error:
                say(f"no model could be made: {error}")
                break
    say(format_tables(results.facts, results.rows))
    return results


def _run_way(
    way: str, settings: RunSettings, scratch: Path, deadline: float, results: Results
) -> str:
    """Run a way, and return why it did not end; empty if it did."""
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        return TIME_UP
    words = ["measure", way, "--inputs", str(settings.inputs), "--shape", settings.shape]
    words += ["--scratch", str(scratch), *(["--tiny"] if settings.tiny else [])]
    log = settings.out / f"gpu-{way}.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(  # nosec B603
            [sys.executable, "-m", "benchmarks.gpu", *words],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        timer = threading.Timer(left_s, process.kill)
        timer.start()
        try:
            assert process.stdout is not None  # it is a pipe
            for line in process.stdout:
                if line.startswith(FIGURES_PREFIX):
                    results.add(way, json.loads(line.removeprefix(FIGURES_PREFIX)))
            code = process.wait()
        finally:
            timer.cancel()
            process.kill()
    if not code:
        return ""
    if time.monotonic() >= deadline:
        return TIME_UP
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return " ".join(lines[-ERROR_LINES:]) or f"exit code {code}"
