"""A SQLite index of a data set's samples, searched by words, split, source, conversation and drop
reason.
"""

import asyncio
import re
import shutil
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bot.data.built_datasets import SPLIT_FILES
from bot.platform.localisation import LocalisableText, gettext_lazy
from personas.errors import MaterialError
from personas.home.atomic_files import fsync_path, replace_durably
from personas.home.built_dataset import REBUILD_ADVICE
from personas.home.data_subjects import PEOPLE_FILE

FORMAT_VERSION = 1
INDEX_FILE = "index.sqlite"
INDEXED_FILES = (*SPLIT_FILES, ("dropped", "dropped.jsonl"))
SPLITS = tuple(side for side, _ in INDEXED_FILES)
READY_TIMEOUT_S = 1.0
"""How long a page waits for an index that is being built; most are done by then."""
INSERT_BATCH_ROWS = 500
MAX_REASONS = 12
EXAMPLES_PER_REASON = 2
MAX_EXAMPLE_CHARS = 140
TOKEN_PATTERN = re.compile(r"[^\W_]+")
SCHEMA = """
create table about (signature text, train integer, eval integer, dropped integer);
create table sample (
  n integer primary key, side text, source text, talk text, reason text, begins integer, long integer
);
create virtual table words using fts5 (text, content='', detail=none, tokenize='unicode61 remove_diacritics 2');
"""
INDEXES = """
create index by_side on sample (side, n);
create index by_talk on sample (talk, n);
create index by_reason on sample (reason, n) where reason != '';
"""
SampleJson = dict[str, Any]


@dataclass(frozen=True)
class SampleQuery:
    """A search: samples with all these words (the last may be a prefix), of a split, a source, a
    conversation, a drop reason; each is empty for any. `after` is the number of the last sample
    already shown.
    """

    query: str = ""
    side: str = ""
    source: str = ""
    talk: str = ""
    reason: str = ""
    after: int = -1
    limit: int = 20


@dataclass(frozen=True)
class SampleHit:
    """A sample: its number, its split, and its line in the file of that split."""

    n: int
    side: str
    line: SampleJson


@dataclass(frozen=True)
class SampleHits:
    """A page of matching samples in order, the number of all matches, and whether more follow."""

    found: tuple[SampleHit, ...]
    count: int
    has_more: bool


class SampleIndexes:
    """Indexes of all data sets, rebuilt when a data set changes."""

    def __init__(self) -> None:
        self._making: dict[Path, asyncio.Task[None]] = {}

    async def ready(self, folder: Path, place: Path, wait_s: float = READY_TIMEOUT_S) -> bool:
        """True if a data set's index is current; otherwise it is built in the background.

        Raises `MaterialError` when it cannot be made.
        """
        if await asyncio.to_thread(is_index_current, folder, place):
            return True
        task = self._making.get(place)
        if task is None:
            task = self._making[place] = asyncio.create_task(
                asyncio.to_thread(build_index, folder, place)
            )
        done, _ = await asyncio.wait({task}, timeout=wait_s)
        if done:
            self._making.pop(place, None)
            task.result()
        return bool(done)


def prune_indexes(cache: Path, places: Sequence[Path]) -> None:
    """Delete all indexes except those in `places`."""
    for folder in cache.glob("samples-*"):
        if folder not in places:
            shutil.rmtree(folder, ignore_errors=True)


def is_index_current(folder: Path, place: Path) -> bool:
    file = place / INDEX_FILE
    if not file.exists():
        return False
    try:
        with closing(_open_index(file)) as index:
            row = index.execute("select signature from about").fetchone()
            return bool(row) and row[0] == dataset_signature(folder)
    except sqlite3.DatabaseError:
        return False


def build_index(folder: Path, place: Path) -> None:
    """Build the index of a data set completely or not at all. Raises `MaterialError` for a damaged
    data set.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700, parents=True)
    aside = place / f"{INDEX_FILE}.part"
    now = dataset_signature(folder)
    try:
        # First: an erasure finds the index by the people whose words it has.
        shutil.copyfile(folder / PEOPLE_FILE, place / PEOPLE_FILE)
        with closing(sqlite3.connect(aside)) as index:
            index.executescript(f"pragma journal_mode = off; pragma synchronous = off;{SCHEMA}")
            counts = _insert_samples(index, folder)
            index.executescript(INDEXES)
            index.execute(
                "insert into about values (?, ?, ?, ?)", (now, *(counts[side] for side in SPLITS))
            )
            index.commit()
        fsync_path(aside)
        replace_durably(aside, place / INDEX_FILE)
    except (OSError, sqlite3.Error) as error:
        shutil.rmtree(place, ignore_errors=True)
        raise MaterialError(
            gettext_lazy(
                "The samples of {name} cannot be indexed: {reason}.",
                name=folder.name,
                reason=str(error),
            ),
            LocalisableText(REBUILD_ADVICE),
        ) from error


def dataset_signature(folder: Path) -> str:
    """Sizes and modification times of a data set's files."""
    parts = [str(FORMAT_VERSION)]
    for _, name in INDEXED_FILES:
        file = folder / name
        if file.exists():
            status = file.stat()
            parts.append(f"{status.st_size}:{status.st_mtime_ns}")
    return " ".join(parts)


def count_samples(place: Path) -> dict[str, int]:
    """Number of samples in each split, dropped ones included."""
    with closing(_open_index(place / INDEX_FILE)) as index:
        row = index.execute("select train, eval, dropped from about").fetchone()
    return dict(zip(SPLITS, row, strict=True))


def search_samples(folder: Path, place: Path, wanted: SampleQuery) -> SampleHits:
    """The matching samples. Raises `MaterialError` if the data set's files are unreadable."""
    where, values = _where_clause(wanted)
    tables = "sample"
    if wanted.query.strip():
        tables = "sample join words on words.rowid = sample.n"
    with closing(_open_index(place / INDEX_FILE)) as index:
        (count,) = index.execute(f"select count(*) from {tables} where {where}", values).fetchone()
        rows = index.execute(
            f"select n, side, begins, long from {tables} where {where} and n > ? order by n limit ?",
            (*values, wanted.after, wanted.limit + 1),
        ).fetchall()
    hits = []
    for n, side, begins, length in rows[: wanted.limit]:
        hits.append(SampleHit(n, side, _read_line(folder, side, begins, length)))
    return SampleHits(tuple(hits), count, has_more=len(rows) > wanted.limit)


def dropped_examples(folder: Path, place: Path, reasons: Sequence[str]) -> dict[str, list[str]]:
    """Beginnings of the first samples dropped for each reason, as far as their texts are stored."""
    examples = {}
    for reason in reasons[:MAX_REASONS]:
        hits = search_samples(
            folder, place, SampleQuery(side="dropped", reason=reason, limit=EXAMPLES_PER_REASON)
        )
        texts = [" ".join(str(hit.line.get("text") or "").split()) for hit in hits.found]
        examples[reason] = [text[:MAX_EXAMPLE_CHARS] for text in texts if text]
    return examples


def _where_clause(wanted: SampleQuery) -> tuple[str, list[str | int]]:
    named = {
        "side": wanted.side,
        "source": wanted.source,
        "talk": wanted.talk,
        "reason": wanted.reason,
    }
    parts = [f"{column} = ?" for column, value in named.items() if value]
    values: list[str | int] = [value for value in named.values() if value]
    if wanted.query.strip():
        words = TOKEN_PATTERN.findall(unicodedata.normalize("NFC", wanted.query))
        parts.append("words match ?" if words else "0")
        values += [" ".join(f'"{word}"' for word in words) + "*"] if words else []
    return " and ".join(parts) or "1", values


def _insert_samples(index: sqlite3.Connection, folder: Path) -> dict[str, int]:
    """Insert every line; returns the count by split."""
    n = 0
    counts = dict.fromkeys(SPLITS, 0)
    for side, name in INDEXED_FILES:
        batch: list[tuple[Any, ...]] = []
        for begins, raw in _lines(folder / name):
            batch.append((n, side, begins, raw))
            n += 1
            counts[side] += 1
            if len(batch) == INSERT_BATCH_ROWS:
                _insert_batch(index, batch)
                batch = []
        _insert_batch(index, batch)
    return counts


def _insert_batch(index: sqlite3.Connection, batch: Sequence[tuple[Any, ...]]) -> None:
    rows = []
    words = []
    for n, side, begins, raw in batch:
        line = _parse_line(raw)
        source = str(line.get("source") or "")
        talk = str(line.get("talk") or line.get("row") or "")
        reason = str(line.get("reason") or "")
        rows.append((n, side, source, talk, reason, begins, len(raw)))
        words.append((n, unicodedata.normalize("NFC", _searchable_text(line))))
    index.executemany("insert into sample values (?, ?, ?, ?, ?, ?, ?)", rows)
    index.executemany("insert into words (rowid, text) values (?, ?)", words)


def _searchable_text(line: SampleJson) -> str:
    """The messages without the system prompt."""
    texts = []
    for message in line.get("messages") or ():
        if message.get("role") != "system":
            texts.append(str(message.get("content")))
    return "\n".join([*texts, str(line.get("text") or "")])


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    begins = 0
    if file.exists():
        with file.open("rb") as stream:
            for raw in stream:
                yield begins, raw
                begins += len(raw)


def _parse_line(raw: bytes) -> SampleJson:
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        line = None
    return line if isinstance(line, dict) else {}


def _read_line(folder: Path, side: str, begins: int, long: int) -> SampleJson:
    try:
        with (folder / dict(INDEXED_FILES)[side]).open("rb") as stream:
            stream.seek(begins)
            return _parse_line(stream.read(long))
    except OSError as error:
        raise MaterialError(
            gettext_lazy(
                "The samples of {name} cannot be read: {reason}.",
                name=folder.name,
                reason=error.strerror,
            ),
            LocalisableText(REBUILD_ADVICE),
        ) from error


def _open_index(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
