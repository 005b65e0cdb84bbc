"""Markdown lore: split at headings, indexed in SQLite FTS5, found again with its source.

The index is a cache: one file that can be deleted at any time and is rebuilt from the markdown.
Ranking is SQLite's bm25 over heading and text, with Porter stemming and diacritics removed.
"""

from __future__ import annotations

import hashlib
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlite_utils import Database

from personas.contracts import LoreHit
from personas.errors import LoreError

WORLD = "_world"
"""The folder of lore that every persona shares."""

LORE_PASSAGES = 2
"""How many passages a prompt gets at most, when serving and in training samples alike."""

MAX_PASSAGE_WORDS = 90
RARE_ENOUGH, RARE_HALF, HALF = 0.7, 0.35, 0.5
"""When a passage counts as found. A word's weight is log(1 + passages / passages that have it), relative to that of a
word which only one passage has. The words that message and passage share must weigh RARE_ENOUGH together; RARE_HALF
does if they are HALF the weight of all the message's words that occur in lore."""

STOP_WORDS = frozenset(
    """a about after all also always am an and another any are around as ask at back bad be because been before
    being best better big bit but by can could day days did do does doing done down each else enough even
    ever every everyone everything feel feels few find first for from gave get give go goes going gone good
    got great had happen happened happens has have he hello help her here hey hi him his how i if in into is
    it its just keep knew know known last late let life like little long look looking lot made make man many
    maybe me mean might more morning most much must my name need never new next night no not nothing now of
    off old on once one only or other our out over own part people place please put rather really right said
    same saw say see seem she should so some someone something still stop such sure take talk tell than
    thank thanks that the their them then there these they thing things think this those though time to
    today told tomorrow tonight too took try two until up us used very want wants was way we week well went
    were what when where whether which while who whole why will with work would wrong year years yes
    yesterday yet you your""".split()
)


@dataclass(frozen=True)
class Passage:
    """A piece of one lore file. `owner` is a persona id or `_world`; `source` the file's path below the lore folder."""

    owner: str
    source: str
    heading: str
    text: str


def read_lore(folder: Path, owners: Iterable[str]) -> list[Passage]:
    """All passages of the named owners below a lore folder. Raises `LoreError` naming the file."""
    passages = []
    for owner in owners:
        for path in sorted((folder / owner).rglob("*.md")):
            source = path.relative_to(folder).as_posix()
            passages += [Passage(owner, source, heading, text) for heading, text in split_markdown(_read(path))]
    return passages


def split_markdown(text: str) -> Iterator[tuple[str, str]]:
    """Pairs of heading ("Title: Section") and text, at most `MAX_PASSAGE_WORDS` words each."""
    title = section = ""
    words: list[str] = []
    for line in [*text.splitlines(), "# "]:
        heading = re.match(r"(#{1,6})\s*(.*)", line)
        if not heading:
            words += line.split()
            continue
        name = ": ".join(part for part in (title, section) if part)
        for start in range(0, len(words), MAX_PASSAGE_WORDS):
            yield name, " ".join(words[start : start + MAX_PASSAGE_WORDS])
        words = []
        if len(heading[1]) == 1:
            title, section = heading[2].strip(), ""
        else:
            section = heading[2].strip()


class LoreIndex:
    """The passages of all personas, searchable. Use from one thread."""

    def __init__(self, passages: Iterable[Passage], cache: Path | None = None) -> None:
        """Index the passages, in memory or in a cache file that is reused when nothing has changed."""
        rows = list(passages)
        stamp = hashlib.sha256(repr(rows).encode()).hexdigest()
        try:
            self._db = self._open(rows, stamp, cache)
        except (sqlite3.DatabaseError, OSError):  # damaged, or no room for it: a cache is no loss
            if cache is None:
                raise
            with suppress(OSError):
                cache.unlink()
            self._db = self._open(rows, stamp, None)

    def search(self, persona_id: str, message: str, limit: int = LORE_PASSAGES) -> list[LoreHit]:
        """The passages of this persona or of the world that match best, best first; often none."""
        terms = query_terms(message)
        telling = self._telling(terms)
        if not telling:
            return []
        found = self._db.query(
            """select p.rowid, p.source, p.heading, p.text, -bm25(passages_fts, 2.0, 1.0) as score
            from passages_fts join passages p on p.rowid = passages_fts.rowid
            where passages_fts match :terms and p.owner in (:persona, :world)
            order by score desc""",
            {"terms": " OR ".join(map(_quoted, terms)), "persona": persona_id, "world": WORLD},
        )
        hits = [
            LoreHit(row["source"], row["heading"], row["text"], row["score"])
            for row in found
            if row["rowid"] in telling
        ]
        return hits[:limit]

    def close(self) -> None:
        """Close the database."""
        self._db.conn.close()

    def _telling(self, terms: list[str]) -> set[int]:
        """Row ids of the passages that share more with the message than common words."""
        count, whole = self._db["passages"].count, 0.0
        shared: dict[int, float] = {}
        for term in terms:
            rows = list(self._db.query("select rowid from passages_fts where passages_fts match ?", [_quoted(term)]))
            weight = math.log1p(count / len(rows)) / math.log1p(count) if rows else 0.0
            whole += weight
            for row in rows:
                shared[row["rowid"]] = shared.get(row["rowid"], 0.0) + weight
        return {
            rowid
            for rowid, weight in shared.items()
            if weight >= RARE_ENOUGH or (weight >= RARE_HALF and weight >= HALF * whole)
        }

    def _open(self, rows: list[Passage], stamp: str, cache: Path | None) -> Database:
        if cache:
            cache.parent.mkdir(parents=True, exist_ok=True)
        db = Database(cache) if cache else Database(memory=True)
        if db["stamp"].exists() and [row["value"] for row in db["stamp"].rows] == [stamp]:
            return db
        with db.conn:
            for table in ("passages_fts", "passages", "stamp"):
                db[table].drop(ignore=True)
        db["passages"].create({"owner": str, "source": str, "heading": str, "text": str})
        db["passages"].insert_all(vars(row) for row in rows)
        db["passages"].enable_fts(
            ["heading", "text"], fts_version="FTS5", tokenize="porter unicode61 remove_diacritics 2"
        )
        db["stamp"].insert({"value": stamp})
        return db


def query_terms(message: str) -> list[str]:
    """The words of a message that carry meaning, lower case, each once."""
    words = re.findall(r"\w+", message.casefold())
    return list(dict.fromkeys(word for word in words if word not in STOP_WORDS and len(word) > 1))


def _quoted(term: str) -> str:
    return f'"{term}"'


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LoreError(f"The lore file {path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from None
    except OSError as error:
        raise LoreError(f"The lore file {path} cannot be read: {error.strerror}.", "Check its rights.") from None
