"""Review of a data set's anonymisation: what was replaced, and reviewers' corrections for the next
build.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bot.platform.web_kit.problems import Problem
from personas.home.atomic_files import write_private_file

REVIEW_FILE = "review.jsonl"
CORRECTIONS_FILE = "corrections.txt"
MAX_REVIEW_LINES = 300_000
MAX_NAME_CHARS = 80
NAME_KINDS = ("PERSON", "HANDLE", "STREET_ADDRESS")
"""Kinds that may be exempted as mere words; what has a form, such as a card number, is always
replaced.
"""
_corrections_lock = threading.Lock()


@dataclass(frozen=True)
class ReplacedText:
    """A replaced text, how often it was replaced, and its first occurrence."""

    kind: str
    original: str
    replacement: str
    count: int
    source: str
    row: str
    context: str

    @property
    def can_stay(self) -> bool:
        return self.kind in NAME_KINDS


@dataclass(frozen=True)
class ReplacedTextPage:
    """A page of replaced texts, most frequent first. `by_kind` counts all; `is_whole` unless there
    are too many.
    """

    found: tuple[ReplacedText, ...] = ()
    count: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    delete_on: str = ""
    is_there: bool = False
    is_whole: bool = True


def read_review(
    build: Path, *, kind: str = "", query: str = "", first: int = 0, limit: int = 50
) -> ReplacedTextPage:
    """The replaced texts of a build from position `first` on. Reads the whole file; to be called in
    a thread.
    """
    file = build / REVIEW_FILE
    if not file.exists():
        return ReplacedTextPage()
    places: Counter[tuple[str, str, str]] = Counter()
    seen: dict[tuple[str, str, str], dict[str, Any]] = {}
    by_kind: Counter[str] = Counter()
    head: dict[str, Any] = {}
    is_whole = True
    wanted = query.strip().casefold()
    for number, line in enumerate(_review_lines(file)):
        if number == 0:
            head = line
            continue
        if number > MAX_REVIEW_LINES:
            is_whole = False
            break
        by_kind[str(line.get("kind"))] += 1
        of = (str(line.get("kind")), str(line.get("original")), str(line.get("replacement")))
        if (kind and of[0] != kind) or (
            wanted and not any(wanted in text.casefold() for text in of[1:])
        ):
            continue
        places[of] += 1
        seen.setdefault(of, line)
    shown = places.most_common()[first : first + limit]
    found = tuple(_replaced_text(of, count, seen[of]) for of, count in shown)
    return ReplacedTextPage(
        found,
        len(places),
        dict(by_kind.most_common()),
        str(head.get("delete_on", "")),
        True,
        is_whole,
    )


def read_corrections(build: Path) -> list[tuple[str, str]]:
    """Reviewers' corrections in order: verdict and name."""
    pairs = [line.partition(" ") for line in _read_text(build / CORRECTIONS_FILE).splitlines()]
    return [(verdict, name.strip()) for verdict, _, name in pairs if name.strip()]


def add_correction(build: Path, verdict: str, name: str) -> None:
    """Keep a name (`keep`) or replace one that was missed (`also`). Raises `Problem`."""
    name = " ".join(name.split())
    if verdict not in ("keep", "also"):
        raise Problem("invalid-request", f"There is no verdict {verdict!r}.", "It is keep or also.")
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise Problem(
            "invalid-request",
            "That is not a valid name.",
            f"Give 1 to {MAX_NAME_CHARS} characters in one line.",
        )
    with _corrections_lock:
        _write_corrections(
            build, [*(pair for pair in read_corrections(build) if pair[1] != name), (verdict, name)]
        )


def remove_correction(build: Path, name: str) -> None:
    with _corrections_lock:
        _write_corrections(build, [pair for pair in read_corrections(build) if pair[1] != name])


def _write_corrections(build: Path, pairs: list[tuple[str, str]]) -> None:
    build.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private_file(
        build / CORRECTIONS_FILE, "".join(f"{verdict} {name}\n" for verdict, name in pairs).encode()
    )


def _read_text(file: Path) -> str:
    with suppress(FileNotFoundError, UnicodeDecodeError):
        return file.read_text(encoding="utf-8")
    return ""


def _review_lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("rb") as stream:
        for raw in stream:
            with suppress(ValueError):  # a surrogate that JSON may escape, or a line that was cut
                line = orjson.loads(raw) if b"\\ud" not in raw else json.loads(raw)
                if isinstance(line, dict):
                    yield line


def _replaced_text(of: tuple[str, str, str], count: int, line: dict[str, Any]) -> ReplacedText:
    return ReplacedText(
        *of,
        count,
        str(line.get("source", "")),
        str(line.get("row", "")),
        str(line.get("context", "")),
    )
