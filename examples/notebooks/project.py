"""What the four notebooks share: the project's commands, run as they are typed, in a home of their own."""

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
"""Where all that they make goes, the bot's home included; NOTEBOOKS_OUT names another folder."""


def run(*words: object) -> str:
    """`python -m WORDS` in the project's folder; gives what it prints. Raises `RuntimeError` with what went wrong."""
    done = subprocess.run(_command(words), cwd=ROOT, env=_environ(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"python -m {' '.join(map(str, words))}\n{done.stderr.strip()[-2000:]}")
    return done.stdout


def told(*words: object) -> dict[str, Any]:
    """The object that a command with `--json` prints."""
    found: dict[str, Any] = json.loads(run(*words, "--json"))
    return found


def events(*words: object) -> Iterator[dict[str, Any]]:
    """What a training tells while it runs, one event after another. Raises `RuntimeError` when it fails."""
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
