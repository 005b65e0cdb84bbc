"""Runs the project's commands for the notebooks, in a separate home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OUT = Path(os.environ.get("NOTEBOOKS_OUT", ROOT / "build" / "notebooks"))
"""The folder of all outputs and of the home; NOTEBOOKS_OUT selects another one."""


def run(*words: object) -> str:
    """Runs `python -m WORDS` and returns its output. Raises `RuntimeError` with the error
    message.
    """
    done = subprocess.run(_command(words), cwd=ROOT, env=_environ(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"python -m {' '.join(map(str, words))}\n{done.stderr.strip()[-2000:]}")
    return done.stdout


def run_json(*words: object) -> dict[str, Any]:
    """Runs a command with `--json` and returns the printed object."""
    found: dict[str, Any] = json.loads(run(*words, "--json"))
    return found


def events(*words: object) -> Iterator[dict[str, Any]]:
    """Yields the events of a training run as they happen. Raises `RuntimeError` if it fails."""
    with subprocess.Popen(
        _command([*words, "--json"]), cwd=ROOT, env=_environ(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "failed":
                raise RuntimeError(f"{event['cause']} {event['advice']}")
            yield event


def _command(words: Any) -> list[str]:
    return [sys.executable, "-m", *map(str, words)]


def _environ() -> dict[str, str]:
    return {**os.environ, "UNDERSTUDY_HOME": str(OUT / "home")}
