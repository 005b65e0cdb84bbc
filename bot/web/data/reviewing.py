"""What was anonymised in a data set, for a person to check: finds, and what was found wrong with them.

`builds/NAME/review.jsonl` (`dataset build --review`) names everybody whom the data set hides; it is deleted by the time
that it states. `builds/NAME/corrections.txt` holds what the reviewer says: `keep NAME`, `also NAME`; the next build of
the data set takes it.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from bot.web.problems import Problem
from personas.durable import put_private

REVIEW, CORRECTIONS = "review.jsonl", "corrections.txt"
MOST_LINES = 300_000
LONGEST_NAME = 80
NAMES = ("PERSON", "HANDLE", "STREET_ADDRESS")
"""Kinds of which a find that is a mere word can be kept; what has a form (a card's number) is replaced in any case."""
Verdict = Literal["keep", "also"]
_writing = threading.Lock()


@dataclass(frozen=True)
class Find:
    """A text that was replaced, so many times; first in that talk of that source, between these words."""

    kind: str
    original: str
    replacement: str
    count: int
    source: str
    row: str
    context: str

    @property
    def can_stay(self) -> bool:
        """Whether a reviewer can have it kept."""
        return self.kind in NAMES


@dataclass(frozen=True)
class Finds:
    """A page of finds, the most frequent first. `by_kind` counts all places; `is_whole` unless there are too many."""

    found: tuple[Find, ...] = ()
    count: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    delete_on: str = ""
    is_there: bool = False
    is_whole: bool = True


def finds_in(build: Path, *, kind: str = "", query: str = "", first: int = 0, limit: int = 50) -> Finds:
    """The finds of a build, from the place `first` on. Reads the whole file, so best in a thread."""
    file = build / REVIEW
    if not file.exists():
        return Finds()
    places: Counter[tuple[str, str, str]] = Counter()
    seen: dict[tuple[str, str, str], dict[str, Any]] = {}
    by_kind: Counter[str] = Counter()
    head: dict[str, Any] = {}
    is_whole, wanted = True, query.strip().casefold()
    for number, line in enumerate(_lines(file)):
        if number == 0:
            head = line
            continue
        if number > MOST_LINES:
            is_whole = False
            break
        by_kind[str(line.get("kind"))] += 1
        of = (str(line.get("kind")), str(line.get("original")), str(line.get("replacement")))
        if (kind and of[0] != kind) or (wanted and not any(wanted in text.casefold() for text in of[1:])):
            continue
        places[of] += 1
        seen.setdefault(of, line)
    shown = places.most_common()[first : first + limit]
    found = tuple(_find(of, count, seen[of]) for of, count in shown)
    return Finds(found, len(places), dict(by_kind.most_common()), str(head.get("delete_on", "")), True, is_whole)


def corrections_in(build: Path) -> list[tuple[str, str]]:
    """What reviewers have said: verdict and name, in order."""
    pairs = [line.partition(" ") for line in _text(build / CORRECTIONS).splitlines()]
    return [(verdict, name.strip()) for verdict, _, name in pairs if name.strip()]


def correct(build: Path, verdict: str, name: str) -> None:
    """Note that a name is to stay (`keep`) or was missed (`also`); a name has one verdict. Raises `Problem`."""
    name = " ".join(name.split())
    if verdict not in ("keep", "also"):
        raise Problem("invalid-request", f"There is no verdict {verdict!r}.", "It is keep or also.")
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise Problem("invalid-request", "That is no name.", f"Give 1 to {LONGEST_NAME} characters in one line.")
    with _writing:
        _write(build, [*(pair for pair in corrections_in(build) if pair[1] != name), (verdict, name)])


def take_back(build: Path, name: str) -> None:
    """Forget what was said of a name."""
    with _writing:
        _write(build, [pair for pair in corrections_in(build) if pair[1] != name])


def _write(build: Path, pairs: list[tuple[str, str]]) -> None:
    build.mkdir(mode=0o700, parents=True, exist_ok=True)
    put_private(build / CORRECTIONS, "".join(f"{verdict} {name}\n" for verdict, name in pairs).encode())


def _text(file: Path) -> str:
    with suppress(FileNotFoundError, UnicodeDecodeError):
        return file.read_text(encoding="utf-8")
    return ""


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("rb") as stream:
        for raw in stream:
            with suppress(ValueError):  # a surrogate that JSON may escape, or a line that was cut
                line = orjson.loads(raw) if b"\\ud" not in raw else json.loads(raw)
                if isinstance(line, dict):
                    yield line


def _find(of: tuple[str, str, str], count: int, line: dict[str, Any]) -> Find:
    return Find(*of, count, str(line.get("source", "")), str(line.get("row", "")), str(line.get("context", "")))
