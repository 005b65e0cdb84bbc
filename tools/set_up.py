"""Sets the environment up, step by step, each with its seconds (`make run`, `make setup`).

It imports the standard library alone, because nothing else is installed yet, and an older Python
can read it, to be refused.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess  # nosec B404  # the steps are commands
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INSTALLER = str(ROOT / "requirements" / "install.sh")
MIN_PYTHON = (3, 11)
TICK_S = 1.0
SHOWN_LINES = 12
"""Last lines of a failed command's output that are printed."""
AGAIN = "Then run the same command again; what was downloaded is kept."
CAUSES = (
    (
        r"hash mismatch|DO NOT MATCH THE HASHES",
        "A package that was downloaded is not the one that requirements/ names by its hash; it was "
        "not installed. A proxy or a mirror may have changed it: name another index with "
        f"PIP_INDEX_URL, or empty the cache with `uv cache clean`. {AGAIN}",
    ),
    (
        r"No space left on device|Disk quota exceeded",
        "The disk is full. Free 4 GB for the packages and their cache, and several more for torch "
        f"with CUDA's libraries, which its CPU build does without (docs/doctor.md). {AGAIN}",
    ),
    (
        r"dns error|name resolution|error sending request|Failed to establish a new connection"
        r"|Connection ?refused|Network is unreachable|timed out|NameResolutionError",
        "The package index cannot be reached. Check the network. Behind a proxy, set HTTPS_PROXY; "
        f"PIP_INDEX_URL names another index. {AGAIN}",
    ),
    (
        r"ensurepip is not available|No module named '?(ensurepip|venv)",
        "This Python has no module venv. On Debian and Ubuntu: apt install python3-venv. Or name "
        "another Python: make run PYTHON=python3.12.",
    ),
    (
        # All that pip says with `retries = 0`.
        r"from versions: none",
        "The package index cannot be reached, or it does not have a package that requirements/ names. "
        "Check the network. Behind a proxy, set HTTPS_PROXY; PIP_INDEX_URL names another index. "
        f"{AGAIN}",
    ),
    (
        r"no versions? of|not found in the package registry|No matching distribution",
        "The index does not have a package that requirements/ names for this Python and processor. "
        "Name another index with PIP_INDEX_URL, or another Python: make run PYTHON=python3.12.",
    ),
    (
        r"Permission denied",
        "A file cannot be written. Make the folder of the project your own, or remove .venv, which "
        "another user may have made.",
    ),
)
"""Patterns in the output of a failed step, and what each means and asks for."""
UNKNOWN_CAUSE = "The lines above are the last that it printed. Remove .venv to begin anew."


@dataclass(frozen=True)
class Step:
    """A command with its label. Where an optional one fails, its last line is shown, and the set-up
    goes on.
    """

    label: str
    command: tuple[str, ...]
    is_optional: bool = False


class StepFailedError(Exception):
    """A step ended with an error. The message has its output and what to do."""


class Report:
    """Prints each step with its seconds: as it ends, and on a terminal also while it runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: dict[str, float] = {}
        self._is_live = sys.stdout.isatty()

    @contextmanager
    def ticking(self) -> Iterator[None]:
        """Renew the line of the running steps once a second inside the block."""
        ended = threading.Event()

        def tick() -> None:
            while not ended.wait(TICK_S):
                with self._lock:
                    self._show_running()

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with self._lock:
                self._clear()

    @contextmanager
    def step(self, label: str) -> Iterator[list[str]]:
        """Time the block and print its seconds. What it adds to the list follows them."""
        notes: list[str] = []
        with self._lock:
            self._started[label] = time.monotonic()
            self._show_running()
        try:
            yield notes
        finally:
            with self._lock:
                seconds = time.monotonic() - self._started.pop(label)
                self._clear()
                print(f"  {label} … {seconds:.0f} s", *notes, sep="  ", flush=True)
                self._show_running()

    def _show_running(self) -> None:
        if self._is_live and self._started:
            now = time.monotonic()
            running = (f"{label} … {now - start:.0f} s" for label, start in self._started.items())
            print(f"\r\033[K  {'   '.join(running)}", end="", flush=True)

    def _clear(self) -> None:
        if self._is_live:
            print("\r\033[K", end="", flush=True)


def run(step: Step, report: Report) -> None:
    """Run a step in the project's folder. Raises `StepFailedError`, unless the step is optional."""
    with report.step(step.label) as notes:
        done = subprocess.run(
            step.command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )  # nosec B603
        lines = [line for line in re.split(r"[\r\n]+", done.stdout) if line.strip()]
        if done.returncode and step.is_optional:
            notes.append(f"left out: {lines[-1] if lines else 'no reason given'}")
        elif done.returncode:
            notes.append("failed")
    if done.returncode and not step.is_optional:
        shown = "\n".join(f"    {line}" for line in lines[-SHOWN_LINES:])
        raise StepFailedError(f"{shown}\n{explain(done.stdout)}")


def explain(output: str) -> str:
    """State what a failed step's output means, and what to do."""
    for pattern, meaning in CAUSES:
        if re.search(pattern, output, re.IGNORECASE):
            return meaning
    return UNKNOWN_CAUSE


def plan(python: str, *, development: bool) -> list[list[Step]]:
    """Return the steps in rounds; the lists of one round run beside each other.

    `python` is the environment's interpreter, which need not exist yet. `development` adds the
    packages of tests and benchmarks.
    """
    environment = str(Path(python).parents[1])
    lists = ("lock", "model", "dev") if development else ("lock", "model")
    return [
        [Step("Environment", (sys.executable, "-m", "venv", environment))],
        [Step("Packages", (INSTALLER, python, *lists))],
        [
            Step("Model", (python, "-m", "personas.models.bundled_model")),
            Step("Project", (INSTALLER, python, "--editable")),
            # Without a compiler, everything works, but more slowly.
            Step("Kernel", (python, "-m", "personas.engine.cpu_kernel"), is_optional=True),
        ],
    ]


def set_up(rounds: Sequence[Sequence[Step]], report: Report) -> None:
    """Run the rounds one after the other. Raises `StepFailedError` of the first that failed."""
    with report.ticking(), ThreadPoolExecutor() as pool:
        for steps in rounds:
            for running in [pool.submit(run, step, report) for step in steps]:
                running.result()


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("environment", type=Path, help="folder of the environment, such as .venv")
    parser.add_argument("--development", action="store_true", help="with what the tests need")
    arguments = parser.parse_args()
    if sys.version_info < MIN_PYTHON:
        print(
            "Understudy needs Python 3.11 or newer; name one: make run PYTHON=python3.12.",
            file=sys.stderr,
        )
        return 1
    # A symbolic link: resolving it would name the Python that the environment was made from.
    python = str(arguments.environment.absolute() / "bin" / "python")
    # Imported modules are stored as bytecode, because uv stores none.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.monotonic()
    print(f"Setting up {arguments.environment} (once) …", flush=True)
    try:
        set_up(plan(python, development=arguments.development), Report())
    except StepFailedError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return 130
    print(f"Set up in {time.monotonic() - started:.0f} s.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
