"""Lore index: searches the passages of all personas for a message."""

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np

from personas.lore.index_terms import is_statement, query_terms, spellings
from personas.lore.minilm import Vectors, load_encoder
from personas.lore.passages import WORLD, Passage, is_lore_set
from personas.lore.ranking import (
    KEY_SCORE,
    MAX_LORE_PASSAGES,
    MIN_GRAM_SHARE,
    NO_KEYS,
    NO_RULES,
    STATEMENT_WEIGHT,
    IndexedPassage,
    LoreRanking,
    PassageMatch,
    always_given,
    gram_shares,
    index_passage,
    match_keys,
    shared_words,
    word_score,
    word_score_without_embeddings,
)
from personas.lore.semantic import (
    MIN_SIMILARITY,
    SMALL_TALK_WEIGHT,
    embed_units,
    embedding_units,
    message_vector,
    similarities,
    stack_vectors,
    unit_key,
)
from personas.lore.vector_cache import VectorCache
from personas.schemas.chat import LoreHit

ADDED_OWNER = ""
"""The owner of passages that take part in one search only."""
MAX_QUERY_TERMS = 128
"""Number of a message's terms that are looked up."""
MAX_VECTOR_BYTES = 128 * 2**20
"""Vectors of owners in memory, some 8 MB of text; others are read from the cache file when they are
searched.
"""
T = TypeVar("T")


@dataclass
class _OwnerLore:
    """The passages of one owner, and each one's vectors; None while those are only in the cache
    file.

    `first_row` is the first passage's row in the table of words, once they were searched.
    """

    passages: list[IndexedPassage]
    units: list[Vectors] | None
    first_row: int | None = None

    @property
    def vector_bytes(self) -> int:
        return sum(units.nbytes for units in self.units or ())

    @property
    def rows(self) -> range:
        first = self.first_row or 0
        return range(first, first + len(self.passages))

    def vectors(self) -> dict[str, Vectors]:
        if self.units is None:
            return {}
        vectors: dict[str, Vectors] = {}
        for indexed, units in zip(self.passages, self.units, strict=True):
            vectors.update(zip(indexed.keys, units, strict=True))
        return vectors


class LoreIndex:
    """Searchable passages of all personas. An edit costs what its owner's passages cost, however
    many owners there are.

    May be used from any thread.
    """

    def __init__(
        self, passages: Iterable[Passage], cache: Path | None = None, encoder: str = ""
    ) -> None:
        """Index the passages in memory; a cache file spares computing unchanged vectors again.

        `encoder` names a sentence-transformers model for all languages; empty: MiniLM for English,
        and character n-grams. Raises `LoreError` if it cannot be loaded.
        """
        self.sets_of: Callable[[str, int], Sequence[str]] = self._all_sets
        """The sets of lore that a persona takes in a guild; all that are here, unless another
        function is put here.
        """
        # By guild: a long edit delays only the edits of its guild.
        self.edits: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._encoder = encoder
        self._editing = Lock()  # of the passages and the cache file
        self._searching = Lock()  # of the table of words
        # One thread, so that searches end in the order in which they began.
        self._searcher = ThreadPoolExecutor(1, thread_name_prefix="lore")
        self._words = sqlite3.connect(":memory:", check_same_thread=False)
        self._words.execute(
            "create virtual table words using fts5(terms, tokenize='porter unicode61')"
        )
        self._next_row = 1
        self._loading = Lock()
        # Owners whose vectors are in memory, least recently used first.
        self._loaded: dict[str, _OwnerLore] = {}
        self._loaded_bytes: dict[str, int] = {}
        self._cache = VectorCache.open(cache) if cache else None
        by_owner: dict[str, list[Passage]] = {}
        for passage in passages:
            by_owner.setdefault(passage.owner, []).append(passage)
        if self._cache:
            self._cache.keep_owners(by_owner)
        self._lore: dict[str, _OwnerLore] = {}
        for owner, rows in by_owner.items():
            lore = self._lore[owner] = self._lay_out(rows, self._stored(owner))
            if self._cache:
                self._cache.store(owner, lore.vectors())
            self._note_use(owner, lore)

    @property
    def encoder(self) -> str:
        """The name of the embedding model, empty for MiniLM."""
        return self._encoder

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
        passages = []
        for owner in owners:
            if lore := self._lore.get(owner):
                passages += [indexed.passage for indexed in lore.passages]
        return passages

    # ---------------------------------------------------------------------------------------- edits

    def prepare(self, passages: Sequence[Passage]) -> None:
        """Compute the vectors for `replace` ahead, some 50 ms per passage; the latest ones stay in
        memory.
        """
        for owner, rows in groupby(passages, key=lambda passage: passage.owner):
            known: set[str] = set()
            if lore := self._lore.get(owner):
                known.update(*(indexed.keys for indexed in lore.passages))
            new = []
            for units in embedding_units(list(rows), self._encoder):
                new += [unit for unit in units if unit_key(unit, self._encoder) not in known]
            embed_units(new, self._encoder)

    def replace(
        self, owner: str, passages: Iterable[Passage] | Callable[[], Iterable[Passage]]
    ) -> None:
        """Index these passages instead of the owner's. A function is called when no other edit
        runs: the last wins.
        """
        with self._editing:
            rows = list(passages()) if callable(passages) else list(passages)
            before = self._lore.get(owner)
            known = before.vectors() if before and before.units else self._stored(owner)
            lore = self._lay_out(rows, known)
            terms = [indexed.terms() for indexed in lore.passages]
            with self._searching:
                self._delete_words(before)
                if rows:
                    self._insert_words(lore, terms)
                    self._lore[owner] = lore
                else:
                    self._lore.pop(owner, None)
            if self._cache:
                self._cache.store(owner, lore.vectors())
            with self._loading:
                self._note_use(owner, lore)

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
        passages = []
        new_units = []
        for row, units in zip(rows, embedding_units(rows, self._encoder), strict=True):
            keys = tuple(unit_key(unit, self._encoder) for unit in units)
            passages.append(index_passage(row, keys))
            new_units += [unit for key, unit in zip(keys, units, strict=True) if key not in known]
        new = embed_units(new_units, self._encoder)
        vectors = []
        for indexed in passages:
            passage_vectors = [known[key] if key in known else new[key] for key in indexed.keys]
            vectors.append(stack_vectors(passage_vectors, self._encoder))
        return _OwnerLore(passages, vectors)

    def _stored(self, owner: str) -> dict[str, Vectors]:
        if not self._cache:
            return {}
        return self._cache.vectors(owner, load_encoder(self._encoder).dimensions)

    def _units(self, owner: str, lore: _OwnerLore) -> list[Vectors]:
        """Return the vectors of each of an owner's passages, from the cache file if they are not in
        memory.
        """
        if owner == ADDED_OWNER:
            return lore.units or []
        with self._loading:
            units = lore.units
            if units is None:
                passages = [indexed.passage for indexed in lore.passages]
                units = self._lay_out(passages, self._stored(owner)).units or []
                lore.units = units
            self._note_use(owner, lore)
            return units

    def _note_use(self, owner: str, lore: _OwnerLore) -> None:
        """Note that vectors were used; those that were not for longest leave memory, if they are in
        the cache file.
        """
        self._loaded.pop(owner, None)
        self._loaded_bytes.pop(owner, None)
        if lore.passages:
            self._loaded[owner] = lore
            self._loaded_bytes[owner] = lore.vector_bytes
        size = sum(self._loaded_bytes.values())
        if not self._cache:
            return
        for other in [*self._loaded][:-1]:
            if size <= MAX_VECTOR_BYTES:
                return
            self._loaded.pop(other).units = None
            size -= self._loaded_bytes.pop(other)

    # --------------------------------------------------------------------------------------- search

    async def find(
        self, persona_id: str, message: str, guild_id: int = 0, more: Sequence[Passage] = ()
    ) -> list[LoreHit]:
        """Search in a thread; searches end in the order in which they began."""
        if not (more or self._owners_for(persona_id, guild_id)):
            return []
        return await self.in_order(
            partial(self.search, persona_id, message, guild_id=guild_id, more=more)
        )

    async def in_order(self, search: Callable[[], T]) -> T:
        """Run a search in the thread of all searches."""
        return await asyncio.get_running_loop().run_in_executor(self._searcher, search)

    def search(
        self,
        persona_id: str,
        message: str,
        limit: int = MAX_LORE_PASSAGES,
        guild_id: int = 0,
        more: Sequence[Passage] = (),
    ) -> list[LoreHit]:
        """Return the best passages of the persona, in this guild and in guild 0 (the operator's),
        and of the sets that it takes.

        Passages that are not in the index (`more`) compete with them.
        """
        matches = self.rank(persona_id, message, guild_id, more).selected(limit)
        return [_hit(match.passage, match.score) for match in matches]

    def always_given(self, persona_id: str, guild_id: int = 0) -> list[LoreHit]:
        """Return the passages that a persona is given with every message, without a search, in
        their order.
        """
        passages = dict(enumerate(self.passages_of(*self._owners_for(persona_id, guild_id))))

        def order(row: int) -> tuple[int, int]:
            return (passages[row].rules or NO_RULES).order, row

        return [_hit(passages[row], KEY_SCORE) for row in sorted(always_given(passages), key=order)]

    def rank(
        self, persona_id: str, message: str, guild_id: int = 0, more: Sequence[Passage] = ()
    ) -> LoreRanking:
        """Rank the lore of a persona in a guild together with `more` passages, which leave no trace
        in the index.
        """
        terms = query_terms(message)[:MAX_QUERY_TERMS]
        # A member's memories take part in this search only: forgotten ones are gone at once.
        added = self._lay_out(more, {}) if more else None
        lore_by_owner, rows_by_term = self._look_up(
            self._owners_for(persona_id, guild_id), terms, added
        )
        visible: dict[int, IndexedPassage] = {}
        for lore in lore_by_owner.values():
            visible.update(zip(lore.rows, lore.passages, strict=True))
        words_by_row, words_weight = shared_words(rows_by_term, spellings(message), visible)
        cosines, small_talk = self._cosines(message, lore_by_owner)
        grams = gram_shares(message, visible) if small_talk is None else {}
        english_terms = len(terms) if small_talk is not None else 0
        # A message that asks nothing resembles some passage all the same, and a small model would
        # then speak of the passage. The rules for questions are English.
        weight = 1.0
        if small_talk is not None and not self._encoder and is_statement(message):
            weight = STATEMENT_WEIGHT
        keys = match_keys(message, visible)
        always = always_given({row: indexed.passage for row, indexed in visible.items()})
        matches = []
        for place, (row, indexed) in enumerate(visible.items()):
            words = words_by_row.get(row, {})
            cosine = cosines.get(row)
            if cosine is None or small_talk is None:
                by_words = word_score_without_embeddings(words, words_weight, english_terms)
                by_meaning = max(0.0, grams.get(row, 0.0) / MIN_GRAM_SHARE - by_words)
            else:
                # Members' memories answer statements, too.
                row_weight = 1.0 if added and row in added.rows else weight
                by_words = row_weight * word_score(words)
                distance = cosine - SMALL_TALK_WEIGHT * small_talk
                by_meaning = row_weight * distance / MIN_SIMILARITY
            key_match = keys.get(row, NO_KEYS)
            matches.append(
                PassageMatch(
                    indexed.passage,
                    words=words,
                    cosine=cosine,
                    by_words=by_words,
                    by_meaning=by_meaning,
                    keys=key_match.keys,
                    is_always=row in always,
                    is_ruled_out=key_match.is_ruled_out,
                    place=place,
                )
            )
        matches.sort(key=lambda match: match.rank)
        return LoreRanking(terms, small_talk, matches, weight)

    def _owners_for(self, persona_id: str, guild_id: int) -> list[str]:
        """Return the owners of lore that a persona may use in a guild."""
        shared = [*dict.fromkeys((persona_id, *self.sets_of(persona_id, guild_id)))]
        owners = [*shared, *(guild_owner(0, owner) for owner in shared)]
        if guild_id:  # a guild's own lore of its world is for all its personas
            owners += [guild_owner(guild_id, owner) for owner in dict.fromkeys((*shared, WORLD))]
        return [owner for owner in owners if owner in self._lore]

    def _all_sets(self, persona_id: str, guild_id: int) -> list[str]:
        names = (owner.rpartition("/")[2] for owner in self._lore)
        return [*dict.fromkeys(filter(is_lore_set, names))]

    def _look_up(
        self, owners: Sequence[str], terms: Sequence[str], added: _OwnerLore | None = None
    ) -> tuple[dict[str, _OwnerLore], dict[str, set[int]]]:
        """Return the lore of each owner, with what is `added` to it, and the rows that have each
        term.
        """
        # Terms are extracted before the lock is taken: it takes long for lore searched first.
        extracted = []
        for owner in owners:
            lore = self._lore.get(owner)
            if lore and lore.first_row is None:
                extracted.append((lore, [indexed.terms() for indexed in lore.passages]))
        with self._searching:
            for lore, words in extracted:
                if lore.first_row is None:
                    self._insert_words(lore, words)
            lore_by_owner = {}
            for owner in owners:
                lore = self._lore.get(owner)
                if lore and lore.first_row:
                    lore_by_owner[owner] = lore
            if added:
                self._insert_words(added, [indexed.terms() for indexed in added.passages])
                lore_by_owner[ADDED_OWNER] = added
            rows_by_term = {}
            if lore_by_owner:
                for term in terms:
                    rows_by_term[term] = self._rows_with(term, lore_by_owner.values())
            self._delete_words(added)
            return lore_by_owner, rows_by_term

    def _rows_with(self, term: str, lore: Iterable[_OwnerLore]) -> set[int]:
        """Return the rows of these owners with a term. SQLite seeks each owner's range of rows in
        the term's list.
        """
        sql = "select rowid from words where words match ? and rowid between ? and ?"
        matching: set[int] = set()
        for owner_lore in lore:
            if rows := owner_lore.rows:
                cursor = self._words.execute(sql, [f'"{term}"', rows[0], rows[-1]])
                matching.update(row for (row,) in cursor)
        return matching

    def _insert_words(self, lore: _OwnerLore, terms: Sequence[str]) -> None:
        lore.first_row = self._next_row
        self._next_row += len(terms)
        with self._words:
            rows = zip(lore.rows, terms, strict=True)
            self._words.executemany("insert into words (rowid, terms) values (?, ?)", rows)

    def _delete_words(self, lore: _OwnerLore | None) -> None:
        if lore and lore.first_row:
            with self._words:
                self._words.executemany(
                    "delete from words where rowid = ?", [(row,) for row in lore.rows]
                )

    def _cosines(
        self, message: str, lore_by_owner: Mapping[str, _OwnerLore]
    ) -> tuple[dict[int, float], float | None]:
        """Return the similarity per passage: the mean of the whole passage and its nearest
        sentence.
        """
        if not (lore_by_owner and load_encoder(self._encoder).can_read(message)):
            return {}, None
        compared: dict[int, Vectors] = {}
        for owner, lore in lore_by_owner.items():
            for row, units in zip(lore.rows, self._units(owner, lore), strict=True):
                if len(units):
                    compared[row] = units
        all_units = stack_vectors([], self._encoder)
        if compared:
            all_units = np.concatenate([*compared.values()])
        vector = message_vector(message, self._encoder)
        unit_cosines, small_talk = similarities(vector, all_units, self._encoder)
        cosines = {}
        start = 0
        for row, units in compared.items():
            passage_cosines = unit_cosines[start : start + len(units)]
            cosines[row] = float(passage_cosines[0] + passage_cosines.max()) / 2
            start += len(units)
        return cosines, small_talk


def _hit(passage: Passage, score: float) -> LoreHit:
    return LoreHit(source=passage.source, heading=passage.heading, text=passage.text, score=score)


def guild_owner(guild_id: int, owner: str) -> str:
    """Return the owner of the lore that a guild has given to a persona."""
    return f"{guild_id}/{owner}"
