"""Lore index: ranks passages for a message by shared words and semantic similarity."""

import asyncio
import logging
import math
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from threading import Lock

import numpy as np

from personas.lore.index_terms import EVERYDAY_TERMS, character_grams, extract_terms, query_terms, spellings
from personas.lore.minilm import Vectors, load_encoder
from personas.lore.passages import WORLD, Passage
from personas.lore.semantic import (
    MIN_SIMILARITY,
    SMALL_TALK_WEIGHT,
    embed_units,
    embedding_units,
    rarity,
    similarities,
    stack_vectors,
    unit_key,
)
from personas.schemas.chat import LoreHit

MAX_LORE_PASSAGES = 2  # maximum number of passages in a prompt, in serving and in training samples
MIN_SCORE = 1.0
MIN_SHARE_OF_BEST = 0.5  # a passage that scores less than this share of the best one is left out beside it
MIN_TERM_WEIGHT, MIN_TERM_WEIGHT_OF_HALF, MIN_SHARE_OF_TERMS = 0.7, 0.35, 0.5
"""Thresholds for matches by shared words alone, where no embeddings are available.

A word's weight is log(1 + passages / passages that have it), relative to that of a word in only one passage. The words
shared by message and passage must weigh MIN_TERM_WEIGHT together, or MIN_TERM_WEIGHT_OF_HALF if that is at least
MIN_SHARE_OF_TERMS of the weight of all the message's words in the lore.
"""

MIN_GRAM_SHARE, MIN_GRAMS = 0.4, 3
"""Share of a message's character n-grams at which a passage that no encoder reads matches, and the fewest n-grams."""

EVERYDAY_WEIGHT = 0.2  # factor for words of `EVERYDAY_TERMS`
WORD_SCORE_WEIGHT, MAX_WORD_SCORE = 0.6, 2.0
"""Weight and maximum of the score of shared words beside embeddings.

A word is then also weighted by its rarity in English: "bought" may occur in one passage of a hundred and still be
meaningless.
"""

MAX_QUERY_TERMS = 128
"""Number of a message's terms that are looked up."""
CACHE_LAYOUT = 2
"""Version of the cache's tables, its `user_version`. Layout 1 had 0, and one index of all owners' texts."""
CREATE_CACHE = "create table vectors (owner text, key text, vector blob, primary key (owner, key))"
FIRST_LAYOUT_TABLES = ("passages_fts", "passages", "stamp", "vectors")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PassageMatch:
    """Scores of a passage for a message.

    `words` are the shared words with their weights; `cosine` is None where the embedding model cannot read one of the
    two. `by_words` and `by_meaning` are on a scale where 1 is a match, and so is `score`, their sum. `by_meaning` is
    negative for distant meanings, so that a shared word alone is no match.
    """

    passage: Passage
    words: dict[str, float]
    cosine: float | None
    by_words: float
    by_meaning: float

    @property
    def score(self) -> float:
        return self.by_words + self.by_meaning

    @property
    def is_match(self) -> bool:
        return self.score >= MIN_SCORE


@dataclass(frozen=True)
class LoreRanking:
    """All lore of a persona, best match first; `small_talk` is the message's cosine with the nearest small talk."""

    terms: list[str]
    small_talk: float | None
    matches: list[PassageMatch]

    def selected(self, limit: int = MAX_LORE_PASSAGES) -> list[PassageMatch]:
        """Return the passages for a prompt: the best matches, without those far below the best one."""
        least = max(MIN_SCORE, MIN_SHARE_OF_BEST * self.matches[0].score) if self.matches else MIN_SCORE
        return [match for match in self.matches[:limit] if match.score >= least]


@dataclass(frozen=True)
class _IndexedPassage:
    """A passage with its vectors (of the whole, then of its sentences) by key, and what its words are compared by."""

    passage: Passage
    keys: tuple[str, ...]
    units: Vectors
    grams: frozenset[str]
    spellings: dict[str, set[str]]

    def terms(self) -> str:
        return " ".join(extract_terms(f"{self.passage.heading}\n{self.passage.text}"))


@dataclass
class _OwnerLore:
    """The passages of one owner. `first_row` is the first one's row in the table of words, once they were searched."""

    passages: list[_IndexedPassage]
    first_row: int | None = None

    @property
    def rows(self) -> range:
        first = self.first_row or 0
        return range(first, first + len(self.passages))

    def vectors(self) -> dict[str, Vectors]:
        return {key: unit for it in self.passages for key, unit in zip(it.keys, it.units, strict=True)}


class LoreIndex:
    """Searchable passages of all personas. An edit costs what its owner's passages cost, however many owners there are.

    May be used from any thread.
    """

    def __init__(self, passages: Iterable[Passage], cache: Path | None = None, encoder: str = "") -> None:
        """Index the passages in memory; a cache file spares computing unchanged vectors again.

        `encoder` names a sentence-transformers model for all languages; empty: MiniLM for English, and character
        n-grams. Raises `LoreError` if it cannot be loaded.
        """
        self._encoder = encoder
        self._editing, self._searching = Lock(), Lock()  # of passages and cache; of the table of words
        self._searcher = ThreadPoolExecutor(1, thread_name_prefix="lore")  # one: searches end in their order
        self._words = sqlite3.connect(":memory:", check_same_thread=False)
        self._words.execute("create virtual table words using fts5(owner, terms, tokenize='porter unicode61')")
        self._next_row = 1
        self._cache = _VectorCache.open(cache) if cache else None
        known = self._cache.take(load_encoder(encoder).dimensions) if self._cache else {}
        by_owner: dict[str, list[Passage]] = {}
        for passage in passages:
            by_owner.setdefault(passage.owner, []).append(passage)
        self._lore = {owner: self._lay_out(rows, known) for owner, rows in by_owner.items()}
        if self._cache:
            self._cache.store_all({owner: lore.vectors() for owner, lore in self._lore.items()})

    @property
    def passages(self) -> list[Passage]:
        """The passages of all owners."""
        return self.passages_of(*self.owners)

    @property
    def owners(self) -> list[str]:
        """The owners of all passages."""
        return list(self._lore)

    def passages_of(self, *owners: str) -> list[Passage]:
        """Return the passages of these owners."""
        return [it.passage for owner in owners if (lore := self._lore.get(owner)) for it in lore.passages]

    # ---------------------------------------------------------------------------------------- edits

    def prepare(self, passages: Sequence[Passage]) -> None:
        """Compute the vectors for `replace` ahead, some 50 ms per passage; the latest ones stay in memory."""
        for owner, rows in groupby(passages, key=lambda passage: passage.owner):
            lore = self._lore.get(owner)
            known = lore.vectors() if lore else {}
            units = (unit for some in embedding_units(list(rows), self._encoder) for unit in some)
            embed_units([unit for unit in units if unit_key(unit, self._encoder) not in known], self._encoder)

    def replace(self, owner: str, passages: Iterable[Passage] | Callable[[], Iterable[Passage]]) -> None:
        """Index these passages instead of the owner's. A function is called when no other edit runs: the last wins."""
        with self._editing:
            rows = list(passages() if callable(passages) else passages)
            before = self._lore.get(owner)
            lore = self._lay_out(rows, before.vectors() if before else {})
            terms = [it.terms() for it in lore.passages]
            with self._searching:
                self._delete_words(before)
                if rows:
                    self._insert_words(lore, terms)
                    self._lore[owner] = lore
                else:
                    self._lore.pop(owner, None)
            if self._cache:
                self._cache.store(owner, lore.vectors())

    def compact(self) -> None:
        """Remove deleted content from the cache file."""
        with self._editing:
            if self._cache:
                self._cache.compact()

    def close(self) -> None:
        self._searcher.shutdown()
        self._words.close()
        if self._cache:
            self._cache.close()

    def _lay_out(self, rows: Sequence[Passage], known: Mapping[str, Vectors]) -> _OwnerLore:
        """Lay out one owner's passages for searching; only vectors of new texts are computed."""
        units = embedding_units(rows, self._encoder)
        keys = [tuple(unit_key(unit, self._encoder) for unit in some) for some in units]
        pairs = [pair for some in zip(keys, units, strict=True) for pair in zip(*some, strict=True)]
        new = embed_units([unit for key, unit in pairs if key not in known], self._encoder)
        vectors = {key: known[key] if key in known else new[key] for key, _ in pairs}
        return _OwnerLore([self._index_passage(row, some, vectors) for row, some in zip(rows, keys, strict=True)])

    def _index_passage(self, row: Passage, keys: tuple[str, ...], vectors: Mapping[str, Vectors]) -> _IndexedPassage:
        text, units = f"{row.heading}\n{row.text}", stack_vectors([vectors[key] for key in keys], self._encoder)
        return _IndexedPassage(row, keys, units, frozenset() if keys else character_grams(text), spellings(text))

    # ---------------------------------------------------------------------------------------- search

    async def find(self, persona_id: str, message: str, guild_id: int = 0) -> list[LoreHit]:
        """Search in a thread; searches end in the order in which they began."""
        if not self._owners_for(persona_id, guild_id):
            return []
        search = partial(self.search, persona_id, message, guild_id=guild_id)
        return await asyncio.get_running_loop().run_in_executor(self._searcher, search)

    def search(self, persona_id: str, message: str, limit: int = MAX_LORE_PASSAGES, guild_id: int = 0) -> list[LoreHit]:
        """Return the best passages of the persona, in this guild and in guild 0 (the operator's), and of the world."""
        matches = self.rank(persona_id, message, guild_id).selected(limit)
        return [LoreHit(m.passage.source, m.passage.heading, m.passage.text, m.score) for m in matches]

    def rank(self, persona_id: str, message: str, guild_id: int = 0) -> LoreRanking:
        terms = query_terms(message)[:MAX_QUERY_TERMS]
        visible, rows_by_term = self._look_up(self._owners_for(persona_id, guild_id), terms)
        shared, whole = _shared_words(rows_by_term, spellings(message), visible)
        cosines, small_talk = self._cosines(message, visible)
        gram_shares = _gram_shares(message, visible) if small_talk is None else {}
        english_terms = len(terms) if small_talk is not None else 0
        matches = []
        for row, indexed in visible.items():
            words, cosine = shared.get(row, {}), cosines.get(row)
            if cosine is None or small_talk is None:
                by_words = _word_score_only(words, whole, english_terms)
                by_meaning = max(0.0, gram_shares.get(row, 0.0) / MIN_GRAM_SHARE - by_words)
            else:
                by_words, by_meaning = _word_score(words), (cosine - SMALL_TALK_WEIGHT * small_talk) / MIN_SIMILARITY
            matches.append(PassageMatch(indexed.passage, words, cosine, by_words, by_meaning))
        return LoreRanking(terms, small_talk, sorted(matches, key=lambda match: -match.score))

    def _owners_for(self, persona_id: str, guild_id: int) -> list[str]:
        """Return the owners of lore that a persona may use in a guild."""
        owners = [*dict.fromkeys((persona_id, WORLD))]
        owners += [guild_owner(guild, owner) for guild in dict.fromkeys((0, guild_id)) for owner in tuple(owners)]
        return [owner for owner in owners if owner in self._lore]

    def _look_up(
        self, owners: Sequence[str], terms: Sequence[str]
    ) -> tuple[dict[int, _IndexedPassage], dict[str, set[int]]]:
        """Return the owners' passages by row, and the rows that have each term."""
        first = [lore for owner in owners if (lore := self._lore.get(owner)) and lore.first_row is None]
        extracted = [(lore, [it.terms() for it in lore.passages]) for lore in first]
        with self._searching:
            for lore, words in extracted:
                if lore.first_row is None:
                    self._insert_words(lore, words)
            found = [lore for owner in owners if (lore := self._lore.get(owner)) and lore.first_row]
            visible = {row: it for lore in found for row, it in zip(lore.rows, lore.passages, strict=True)}
            tokens = " OR ".join(f'"{lore.first_row}"' for lore in found)
            return visible, {term: self._rows_with(term, tokens) for term in terms} if found else {}

    def _rows_with(self, term: str, owner_tokens: str) -> set[int]:
        query = f'owner : ({owner_tokens}) AND terms : "{term}"'
        return {row for (row,) in self._words.execute("select rowid from words where words match ?", [query])}

    def _insert_words(self, lore: _OwnerLore, terms: Sequence[str]) -> None:
        lore.first_row = self._next_row
        self._next_row += len(terms)
        rows = [(row, str(lore.first_row), some) for row, some in zip(lore.rows, terms, strict=True)]
        with self._words:
            self._words.executemany("insert into words (rowid, owner, terms) values (?, ?, ?)", rows)

    def _delete_words(self, lore: _OwnerLore | None) -> None:
        if lore and lore.first_row:
            with self._words:
                self._words.executemany("delete from words where rowid = ?", [(row,) for row in lore.rows])

    def _cosines(self, message: str, visible: Mapping[int, _IndexedPassage]) -> tuple[dict[int, float], float | None]:
        """Return the similarity per passage: the mean of the whole passage and its nearest sentence."""
        if not (visible and load_encoder(self._encoder).can_read(message)):
            return {}, None
        compared = {row: it.units for row, it in visible.items() if len(it.units)}
        units = np.concatenate([*compared.values()]) if compared else stack_vectors([], self._encoder)
        cosines_of_units, small_talk = similarities(message, units, self._encoder)
        cosines, at = {}, 0
        for row, own in compared.items():
            of_passage = cosines_of_units[at : at + len(own)]
            cosines[row] = float(of_passage[0] + of_passage.max()) / 2
            at += len(own)
        return cosines, small_talk


class _VectorCache:
    """A SQLite file with the vectors of each owner. It is expendable: nothing fails without it."""

    def __init__(self, path: Path) -> None:
        """Open or create the file, and read it. Raises `sqlite3.DatabaseError` and `OSError`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._db.execute("pragma secure_delete = on").fetchall()  # overwrites what is deleted
            (layout,) = self._db.execute("pragma user_version").fetchone()
            if layout not in (0, CACHE_LAYOUT):
                raise sqlite3.DatabaseError(f"the cache has layout {layout}")
            if not self._db.execute("select count(*) from sqlite_master").fetchone()[0]:
                self._create()
            self._read: list[tuple[str, bytes]] = self._db.execute("select key, vector from vectors").fetchall()
        except BaseException:
            self._db.close()
            raise

    @classmethod
    def open(cls, path: Path) -> "_VectorCache | None":
        """Open the file; a damaged or foreign one is deleted. None where it cannot be written."""
        for _ in range(2):
            with suppress(sqlite3.DatabaseError, OSError):
                return cls(path)
            with suppress(OSError):
                path.unlink()
        log.warning("The vectors of lore cannot be kept in %s: they are computed again at each start.", path)
        return None

    def take(self, dimensions: int) -> dict[str, Vectors]:
        """Return all vectors by key, whoever's; to be called once."""
        rows, self._read = self._read, []
        return {key: np.frombuffer(vector, np.float32) for key, vector in rows if len(vector) == 4 * dimensions}

    def store_all(self, wanted: Mapping[str, Mapping[str, Vectors]]) -> None:
        """Store exactly these owners' vectors, in a file of either layout."""
        with self._errors(), self._transaction():
            if self._db.execute("pragma user_version").fetchone() == (0,):
                for table in FIRST_LAYOUT_TABLES:
                    self._db.execute(f"drop table if exists {table}")
                self._create()
            stored = {owner for (owner,) in self._db.execute("select distinct owner from vectors")}
            for owner in sorted(stored | wanted.keys()):
                self._change(owner, wanted.get(owner, {}))

    def store(self, owner: str, wanted: Mapping[str, Vectors]) -> None:
        """Store exactly these vectors of an owner."""
        with self._errors(), self._transaction():
            self._change(owner, wanted)

    def compact(self) -> None:
        with self._errors():
            self._db.execute("vacuum")

    def close(self) -> None:
        self._db.close()

    def _create(self) -> None:
        self._db.execute(CREATE_CACHE)
        self._db.execute(f"pragma user_version = {CACHE_LAYOUT}")

    def _change(self, owner: str, wanted: Mapping[str, Vectors]) -> None:
        stored = dict(self._db.execute("select key, length(vector) from vectors where owner = ?", [owner]))
        gone = [(owner, key) for key in stored.keys() - wanted.keys()]
        new = [(owner, key, wanted[key].tobytes()) for key in sorted(wanted) if stored.get(key) != wanted[key].nbytes]
        self._db.executemany("delete from vectors where owner = ? and key = ?", gone)
        self._db.executemany("insert or replace into vectors values (?, ?, ?)", new)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("begin")
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled it back already
                self._db.execute("rollback")
            raise
        self._db.execute("commit")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            log.warning("The vectors of lore in %s could not be updated: %s.", self._path, error)


def guild_owner(guild_id: int, owner: str) -> str:
    """Return the owner of the lore that a guild has given to a persona."""
    return f"{guild_id}/{owner}"


def _shared_words(
    rows_by_term: Mapping[str, set[int]], spelt: Mapping[str, set[str]], visible: Mapping[int, _IndexedPassage]
) -> tuple[dict[int, dict[str, float]], float]:
    """Return the shared words with their weights per passage, and the weight of all of them together.

    A word of a message with diacritics (`spelt`) is not shared with passages that have it with other ones only.
    """
    whole = 0.0
    shared: dict[int, dict[str, float]] = {}
    for term, rows in rows_by_term.items():
        matching = rows & visible.keys()
        if term in spelt:
            matching = {row for row in matching if spelt[term] & visible[row].spellings.get(term, spelt[term])}
        if not matching:
            continue
        weight = math.log1p(len(visible) / len(matching)) / math.log1p(len(visible))
        whole += weight
        for row in matching:
            shared.setdefault(row, {})[term] = weight
    return shared, whole


def _gram_shares(message: str, visible: Mapping[int, _IndexedPassage]) -> dict[int, float]:
    """Return, per passage that the encoder cannot read, its share of the message's n-grams, weighted by rarity."""
    grams = character_grams(message)
    holding = {row: grams & it.grams for row, it in visible.items() if not it.keys}
    if len(grams) < MIN_GRAMS or not holding:
        return {}
    counts = Counter(gram for held in holding.values() for gram in held)
    weights = {gram: math.log1p(len(holding) / max(counts[gram], 1)) for gram in grams}
    whole = sum(weights.values())
    return {row: sum(weights[gram] for gram in held) / whole for row, held in holding.items()}


def _word_score(words: dict[str, float]) -> float:
    return min(MAX_WORD_SCORE, WORD_SCORE_WEIGHT * sum(weight * rarity(word) for word, weight in words.items()))


def _word_score_only(words: dict[str, float], whole: float, terms_in_english: int) -> float:
    """Score shared words without embeddings. `whole` is the weight of all the message's words in the lore.

    A message that may be English needs two shared words, and half of its own, to match lore in another language: a name
    alone is not enough.
    """
    weight = sum(EVERYDAY_WEIGHT * weight if word in EVERYDAY_TERMS else weight for word, weight in words.items())
    if terms_in_english and (len(words) < 2 or 2 * len(words) < terms_in_english):
        return 0.0
    if (
        weight >= MIN_TERM_WEIGHT_OF_HALF
        and not EVERYDAY_TERMS.issuperset(words)
        and weight >= MIN_SHARE_OF_TERMS * whole
    ):
        return max(weight / MIN_TERM_WEIGHT, MIN_SCORE)
    return weight / MIN_TERM_WEIGHT
