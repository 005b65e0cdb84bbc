"""Tokens per second of base models as replies came here, kept in the home."""

import json
import logging
import statistics
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from personas.engine import RequestMetrics
from personas.home.atomic_files import write_private_file

log = logging.getLogger(__name__)
FILE_NAME = "measured-speeds.json"
MIN_REPLY_TOKENS = 16
"""Shorter replies say little about the speed."""
MAX_REPLIES = 50
"""Latest replies, whose median is the speed."""
MIN_NEW_REPLIES = 3
SpeedKey = tuple[str, str]
"""Base model without its revision, and engine."""


def base_model_key(name: str) -> str:
    """Return a base model's name without scaling, template and revision."""
    path = name.partition("#")[0]
    repository, _, rest = path.partition("@")
    return repository + (f":{rest.partition(':')[2]}" if ":" in rest else "")


def read_speeds(home: Path) -> dict[SpeedKey, float]:
    """Return tokens per second by base model and engine; empty if none were measured."""
    speeds = {}
    for row in _read_rows(home):
        try:
            speeds[str(row["base_model"]), str(row["engine"])] = float(row["tokens_per_s"])
        except (LookupError, TypeError, ValueError):
            continue
    return speeds


class SpeedRecorder:
    """Takes the metrics of replies, on any thread, and keeps the median speed of a chat."""

    def __init__(self, home: Path, base_model: str, engine: str) -> None:
        self._home = home
        self._key = (base_model_key(base_model), engine)
        self._lock = threading.Lock()
        self._speeds: deque[float] = deque(maxlen=MAX_REPLIES)
        self._unstored = 0

    def note(self, reply: RequestMetrics) -> None:
        """Take a reply that has ended. Does not block."""
        if reply.first_s is None or reply.new_tokens < MIN_REPLY_TOKENS:
            return
        seconds = reply.whole_s - reply.first_s
        if seconds <= 0:
            return
        with self._lock:
            self._speeds.append((reply.new_tokens - 1) / seconds)
            self._unstored += 1

    def store(self) -> None:
        """Write the median into the home if there are new replies. Blocks for the disk."""
        with self._lock:
            if self._unstored < MIN_NEW_REPLIES:
                return
            self._unstored = 0
            speed = statistics.median(self._speeds)
            replies = len(self._speeds)
        base_model, engine = self._key
        row = {
            "base_model": base_model,
            "engine": engine,
            "tokens_per_s": round(speed, 2),
            "replies": replies,
        }
        others = [each for each in _read_rows(self._home) if not _is_same(each, row)]
        file = self._home / "cache" / FILE_NAME
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_private_file(file, json.dumps([*others, row], indent=1).encode())
        except OSError as error:
            log.warning("the measured speed cannot be stored: %s", error)


def _is_same(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(row.get(name) == other[name] for name in ("base_model", "engine"))


def _read_rows(home: Path) -> list[dict[str, Any]]:
    try:
        rows: Any = json.loads((home / "cache" / FILE_NAME).read_bytes())
    except (OSError, ValueError):
        return []
    if not isinstance(rows, list):
        return []
    return [row for row in rows if isinstance(row, dict)]
