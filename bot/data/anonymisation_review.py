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

from bot.data.errors import InvalidFieldsError
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

    texts: tuple[ReplacedText, ...] = ()
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
    counts: Counter[tuple[str, str, str]] = Counter()
    first_lines: dict[tuple[str, str, str], dict[str, Any]] = {}
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
        key = (str(line.get("kind")), str(line.get("original")), str(line.get("replacement")))
        if kind and key[0] != kind:
            continue
        if wanted and wanted not in key[1].casefold() and wanted not in key[2].casefold():
            continue
        counts[key] += 1
        first_lines.setdefault(key, line)
    shown = counts.most_common()[first : first + limit]
    return ReplacedTextPage(
        texts=tuple(_replaced_text(first_lines[key], count) for key, count in shown),
        count=len(counts),
        by_kind=dict(by_kind.most_common()),
        delete_on=str(head.get("delete_on", "")),
        is_there=True,
        is_whole=is_whole,
    )


def read_corrections(build: Path) -> list[tuple[str, str]]:
    """Reviewers' corrections in order: verdict and name."""
    pairs = [line.partition(" ") for line in _read_text(build / CORRECTIONS_FILE).splitlines()]
    return [(verdict, name.strip()) for verdict, _, name in pairs if name.strip()]


def add_correction(build: Path, verdict: str, name: str) -> None:
    """Keep a name (`keep`) or replace one that was missed (`also`). Raises `InvalidFieldsError`."""
    name = " ".join(name.split())
    if verdict not in ("keep", "also"):
        raise InvalidFieldsError(
            f"There is no verdict {verdict!r}.",
            "It is keep or also.",
        )
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise InvalidFieldsError(
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


def _replaced_text(line: dict[str, Any], count: int) -> ReplacedText:
    return ReplacedText(
        kind=str(line.get("kind")),
        original=str(line.get("original")),
        replacement=str(line.get("replacement")),
        count=count,
        source=str(line.get("source", "")),
        row=str(line.get("row", "")),
        context=str(line.get("context", "")),
    )
