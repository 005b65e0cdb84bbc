"""A check: one thing that was looked at, how it is, and the remedy where it is not well."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]
"""`warn`: runs work, but slower, or not all of them; `fail`: a run as the recipes ship does not work."""

GIB = 2**30
SHOWN_LETTERS = 300


@dataclass(frozen=True)
class Check:
    """`found` is what was found, for people; `remedy` what to do about it, empty where all is well."""

    name: str
    state: State
    found: str
    remedy: str = ""


def told_by_python(code: str, timeout_s: float, environment: Mapping[str, str] | None = None) -> tuple[bool, str]:
    """Whether a Python of its own ran the code to its end, and what it printed, or the last line of its complaint.

    What may crash its process, hang, or load libraries for good, is tried there.
    """
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment)
    except subprocess.TimeoutExpired:
        return False, f"it did not end within {timeout_s:.0f} s"
    if done.returncode == 0:
        return True, done.stdout.strip()
    said = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
    return False, said[-1][:SHOWN_LETTERS]
