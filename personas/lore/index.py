"""Lore index: ranks passages for a message by shared words and semantic similarity."""

import asyncio
import logging
import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np

from personas.lore.entry_rules import MAX_ALWAYS_WORDS, EntryRules, KeyMatch, KeySearch
from personas.lore.index_terms import (
    EVERYDAY_TERMS,
    character_grams,
    extract_terms,
    is_statement,
    query_terms,
    spellings,
)
from personas.lore.minilm import Vectors, load_encoder
from personas.lore.passages import WORLD, Passage, count_words
from personas.lore.semantic import (
    MIN_SIMILARITY,
    SMALL_TALK_WEIGHT,
    VectorCache,
    embed_units,
    embedding_units,
    message_vector,
    rarity,
    similarities,
    stack_vectors,
    unit_key,
)
from personas.schemas.chat import EARLIER_SOURCE, LoreHit

MAX_LORE_PASSAGES = 2  # maximum number of passages in a prompt, in serving and in training samples
KEY_SCORE = 20.0
"""Score of a passage's keys: above that of any words and meaning."""
NO_RULES = EntryRules()
NO_KEYS = KeyMatch()
MAX_EXCHANGE_WORDS, MAX_EXCHANGE_CHARS = 120, 1000
"""Size of an earlier exchange in a prompt; longer ones are left out as a whole. A link, however
long, is one word.
"""
MAX_EARLIER_LOOKED_AT = 8
"""Number of the nearest exchanges among which those that fit are chosen."""
MIN_SCORE = 1.0
MIN_SHARE_OF_BEST = (
    0.5  # a passage that scores less than this share of the best one is left out beside it
)
MIN_TERM_WEIGHT, MIN_TERM_WEIGHT_OF_HALF, MIN_SHARE_OF_TERMS = 0.7, 0.35, 0.5
"""Thresholds for matches by shared words alone, where no embeddings are available.

A word's weight is log(1 + passages / passages that have it), relative to that of a word in only one
passage. The words shared by message and passage must weigh MIN_TERM_WEIGHT together, or
MIN_TERM_WEIGHT_OF_HALF if that is at least MIN_SHARE_OF_TERMS of the weight of all the message's
words in the lore.
"""

MIN_GRAM_SHARE, MIN_GRAMS = 0.4, 3
"""Share of a message's character n-grams at which a passage that no encoder reads matches, and the
fewest n-grams.
"""

EVERYDAY_WEIGHT = 0.2  # factor for words of `EVERYDAY_TERMS`
WORD_SCORE_WEIGHT, MAX_WORD_SCORE = 0.6, 2.0
"""Weight and maximum of the score of shared words beside embeddings.

A word is then also weighted by its rarity in English: "bought" may occur in one passage of a
hundred and still be meaningless.
"""

STATEMENT_WEIGHT = 0.5
"""Factor for the scores of a message that asks nothing. Most of these resemble some passage, and
few are about it.
"""

ADDED_OWNER = ""
"""The owner of passages that take part in one search only."""
MAX_QUERY_TERMS = 128
"""Number of a message's terms that are looked up."""
MAX_VECTOR_BYTES = 128 * 2**20
"""Vectors of owners in memory, some 8 MB of text; others are read from the cache file when they are
searched.
"""
log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class PassageMatch:
    """Scores of a passage for a message.

    `words` are the shared words with their weights; `cosine` is None where the embedding model
    cannot read one of the two. `by_words` and `by_meaning` are on a scale where 1 is a match, and
    so is `score`, their sum. `by_meaning` is negative for distant meanings, so that a shared word
    alone is no match.

    `keys` are those of its lore comment that the message has; `is_always`: it is given with every
    message and has room. Either counts as `by_keys`. `is_ruled_out`: its keys forbid it. `place` is
    its number among the persona's passages.
    """

    passage: Passage
    words: dict[str, float]
    cosine: float | None
    by_words: float
    by_meaning: float
    keys: tuple[str, ...] = ()
    is_always: bool = False
    is_ruled_out: bool = False
    place: int = 0

    @property
    def rules(self) -> EntryRules:
        return self.passage.rules or NO_RULES

    @property
    def by_keys(self) -> float:
        return KEY_SCORE if self.keys or self.is_always else 0.0

    @property
    def score(self) -> float:
        return self.by_words + self.by_meaning + self.by_keys

    @property
    def is_match(self) -> bool:
        return bool(self.by_keys) or (self.score >= MIN_SCORE and not self.is_ruled_out)

    @property
    def rank(self) -> tuple[bool, bool, int, int, float]:
        """Sorts matches: those that are always given, those by keys with their precedence, the
        others by score.
        """
        if self.by_keys:
            return not self.is_always, False, -self.rules.priority, -self.rules.order, -self.score
        return True, True, 0, 0, -self.score


@dataclass(frozen=True)
class LoreRanking:
    """All lore of a persona, best match first.

    `small_talk` is the message's cosine with the nearest small talk. `weight` is below 1 if the
    message asks nothing: the factor of all scores of lore that embeddings take part in.
    """

    terms: list[str]
    small_talk: float | None
    matches: list[PassageMatch]
    weight: float = 1.0

    @property
    def note(self) -> str:
        """A remark for whoever reads the scores; empty for most messages."""
        return (
            "the message asks nothing, so its scores count half"
            if self.weight == STATEMENT_WEIGHT
            else ""
        )

    def selected(self, limit: int = MAX_LORE_PASSAGES) -> list[PassageMatch]:
        """Return the passages for a prompt: those always given, then the best matches, those by
        their keys first.

        Matches by words and meaning that are far below the best such one are left out. What rules
        give is in their order, the rest by score.
        """
        always = [match for match in self.matches if match.is_always]
        by_keys = [match for match in self.matches if match.keys and not match.is_always][:limit]
        found = [match for match in self.matches if match.is_match and not match.by_keys]
        least = max(MIN_SCORE, MIN_SHARE_OF_BEST * found[0].score) if found else MIN_SCORE
        found = [match for match in found[: limit - len(by_keys)] if match.score >= least]
        return [*_in_order(always), *_in_order(by_keys), *found]


@dataclass(frozen=True)
class _IndexedPassage:
    """A passage with the keys of its vectors (of the whole, then of its sentences), and what words
    are compared by.
    """

    passage: Passage
    keys: tuple[str, ...]
    grams: frozenset[str]
    spellings: dict[str, set[str]]

    def terms(self) -> str:
        return " ".join(extract_terms(f"{self.passage.heading}\n{self.passage.text}"))


@dataclass
class _OwnerLore:
    """The passages of one owner, and each one's vectors; None while those are only in the cache
    file.

    `first_row` is the first passage's row in the table of words, once they were searched.
    """

    passages: list[_IndexedPassage]
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
        pairs = zip(self.passages, self.units, strict=True)
        return {key: unit for it, own in pairs for key, unit in zip(it.keys, own, strict=True)}


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
        self.edits: defaultdict[int, asyncio.Lock] = defaultdict(
            asyncio.Lock
        )  # by guild: a long one delays its own
        self._encoder = encoder
        self._editing, self._searching = (
            Lock(),
            Lock(),
        )  # of passages and cache; of the table of words
        self._searcher = ThreadPoolExecutor(
            1, thread_name_prefix="lore"
        )  # one: searches end in their order
        self._words = sqlite3.connect(":memory:", check_same_thread=False)
        self._words.execute(
            "create virtual table words using fts5(terms, tokenize='porter unicode61')"
        )
        self._next_row = 1
        self._loading = Lock()
        self._loaded: dict[
            str, _OwnerLore
        ] = {}  # whose vectors are in memory, least recently used first
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
        if self._cache:
            self._cache.forget_first_layout()

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
        return [
            it.passage
            for owner in owners
            if (lore := self._lore.get(owner))
            for it in lore.passages
        ]

    # ---------------------------------------------------------------------------------------- edits

    def prepare(self, passages: Sequence[Passage]) -> None:
        """Compute the vectors for `replace` ahead, some 50 ms per passage; the latest ones stay in
        memory.
        """
        for owner, rows in groupby(passages, key=lambda passage: passage.owner):
            lore = self._lore.get(owner)
            known = {key for it in lore.passages for key in it.keys} if lore else set()
            units = (unit for some in embedding_units(list(rows), self._encoder) for unit in some)
            embed_units(
                [unit for unit in units if unit_key(unit, self._encoder) not in known],
                self._encoder,
            )

    def replace(
        self, owner: str, passages: Iterable[Passage] | Callable[[], Iterable[Passage]]
    ) -> None:
        """Index these passages instead of the owner's. A function is called when no other edit
        runs: the last wins.
        """
        with self._editing:
            rows = list(passages() if callable(passages) else passages)
            before = self._lore.get(owner)
            lore = self._lay_out(
                rows, before.vectors() if before and before.units else self._stored(owner)
            )
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
        units = embedding_units(rows, self._encoder)
        keys = [tuple(unit_key(unit, self._encoder) for unit in some) for some in units]
        pairs = [pair for some in zip(keys, units, strict=True) for pair in zip(*some, strict=True)]
        new = embed_units([unit for key, unit in pairs if key not in known], self._encoder)
        vectors = {key: known[key] if key in known else new[key] for key, _ in pairs}
        passages = [_index_passage(row, some) for row, some in zip(rows, keys, strict=True)]
        return _OwnerLore(
            passages,
            [stack_vectors([vectors[key] for key in some], self._encoder) for some in keys],
        )

    def _stored(self, owner: str) -> dict[str, Vectors]:
        return (
            self._cache.vectors(owner, load_encoder(self._encoder).dimensions)
            if self._cache
            else {}
        )

    def _units(self, owner: str, lore: _OwnerLore) -> list[Vectors]:
        """Return the vectors of each of an owner's passages, from the cache file if they are not in
        memory.
        """
        if owner == ADDED_OWNER:
            return lore.units or []
        with self._loading:
            units = lore.units
            if units is None:
                units = (
                    self._lay_out([it.passage for it in lore.passages], self._stored(owner)).units
                    or []
                )
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
            self._loaded[owner], self._loaded_bytes[owner] = lore, lore.vector_bytes
        size = sum(self._loaded_bytes.values())
        for other in [*self._loaded][:-1] if self._cache else ():
            if size <= MAX_VECTOR_BYTES:
                return
            self._loaded.pop(other).units = None
            size -= self._loaded_bytes.pop(other)

    # ----------------------------------------------------------------------------------------
    # search

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
        and of the world.

        Passages that are not in the index (`more`) compete with them.
        """
        matches = self.rank(persona_id, message, guild_id, more).selected(limit)
        return [
            LoreHit(m.passage.source, m.passage.heading, m.passage.text, m.score) for m in matches
        ]

    def always_given(self, persona_id: str, guild_id: int = 0) -> list[LoreHit]:
        """Return the passages that a persona is given with every message, without a search, in
        their order.
        """
        passages = dict(enumerate(self.passages_of(*self._owners_for(persona_id, guild_id))))
        rows = sorted(
            _always_given(passages), key=lambda row: ((passages[row].rules or NO_RULES).order, row)
        )
        return [
            LoreHit(it.source, it.heading, it.text, KEY_SCORE)
            for it in map(passages.__getitem__, rows)
        ]

    def rank(
        self, persona_id: str, message: str, guild_id: int = 0, more: Sequence[Passage] = ()
    ) -> LoreRanking:
        """Rank the lore of a persona in a guild together with `more` passages, which leave no trace
        in the index.
        """
        terms = query_terms(message)[:MAX_QUERY_TERMS]
        added = self._lay_out(more, {}) if more else None
        found, rows_by_term = self._look_up(self._owners_for(persona_id, guild_id), terms, added)
        visible = {
            row: it
            for lore in found.values()
            for row, it in zip(lore.rows, lore.passages, strict=True)
        }
        shared, whole = _shared_words(rows_by_term, spellings(message), visible)
        cosines, small_talk = self._cosines(message, found)
        gram_shares = _gram_shares(message, visible) if small_talk is None else {}
        english_terms = len(terms) if small_talk is not None else 0
        is_weighed = small_talk is not None and not self._encoder and is_statement(message)
        weight = STATEMENT_WEIGHT if is_weighed else 1.0
        keys = _match_keys(message, visible)
        always = _always_given({row: it.passage for row, it in visible.items()})
        matches = []
        for place, (row, indexed) in enumerate(visible.items()):
            words = shared.get(row, {})
            cosine = cosines.get(row)
            if cosine is None or small_talk is None:
                by_words = _word_score_only(words, whole, english_terms)
                by_meaning = max(0.0, gram_shares.get(row, 0.0) / MIN_GRAM_SHARE - by_words)
            else:
                of_row = (
                    1.0 if added and row in added.rows else weight
                )  # members' memories answer statements, too
                by_words = of_row * _word_score(words)
                by_meaning = of_row * (cosine - SMALL_TALK_WEIGHT * small_talk) / MIN_SIMILARITY
            match = PassageMatch(
                indexed.passage,
                words,
                cosine,
                by_words,
                by_meaning,
                keys=keys.get(row, NO_KEYS).keys,
                is_always=row in always,
                is_ruled_out=keys.get(row, NO_KEYS).is_ruled_out,
                place=place,
            )
            matches.append(match)
        return LoreRanking(terms, small_talk, sorted(matches, key=lambda match: match.rank), weight)

    def _owners_for(self, persona_id: str, guild_id: int) -> list[str]:
        """Return the owners of lore that a persona may use in a guild."""
        owners = [*dict.fromkeys((persona_id, WORLD))]
        owners += [
            guild_owner(guild, owner)
            for guild in dict.fromkeys((0, guild_id))
            for owner in tuple(owners)
        ]
        return [owner for owner in owners if owner in self._lore]

    def _look_up(
        self, owners: Sequence[str], terms: Sequence[str], added: _OwnerLore | None = None
    ) -> tuple[dict[str, _OwnerLore], dict[str, set[int]]]:
        """Return the lore of each owner, with what is `added` to it, and the rows that have each
        term.
        """
        first = [
            lore for owner in owners if (lore := self._lore.get(owner)) and lore.first_row is None
        ]
        extracted = [(lore, [it.terms() for it in lore.passages]) for lore in first]
        with self._searching:
            for lore, words in extracted:
                if lore.first_row is None:
                    self._insert_words(lore, words)
            found = {
                owner: lore
                for owner in owners
                if (lore := self._lore.get(owner)) and lore.first_row
            }
            if added:
                self._insert_words(added, [it.terms() for it in added.passages])
                found[ADDED_OWNER] = added
            rows = {term: self._rows_with(term, found.values()) for term in terms} if found else {}
            self._delete_words(added)
            return found, rows

    def _rows_with(self, term: str, lore: Iterable[_OwnerLore]) -> set[int]:
        """Return the rows of these owners with a term. SQLite seeks each owner's range of rows in
        the term's list.
        """
        sql = "select rowid from words where words match ? and rowid between ? and ?"
        ranges = [it.rows for it in lore]
        found = (
            self._words.execute(sql, [f'"{term}"', rows[0], rows[-1]]) for rows in ranges if rows
        )
        return {row for cursor in found for (row,) in cursor}

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
        self, message: str, found: Mapping[str, _OwnerLore]
    ) -> tuple[dict[int, float], float | None]:
        """Return the similarity per passage: the mean of the whole passage and its nearest
        sentence.
        """
        if not (found and load_encoder(self._encoder).can_read(message)):
            return {}, None
        rows = (
            pair
            for owner, lore in found.items()
            for pair in zip(lore.rows, self._units(owner, lore), strict=True)
        )
        compared = {row: units for row, units in rows if len(units)}
        units = (
            np.concatenate([*compared.values()]) if compared else stack_vectors([], self._encoder)
        )
        vector = message_vector(message, self._encoder)
        cosines_of_units, small_talk = similarities(vector, units, self._encoder)
        cosines = {}
        at = 0
        for row, own in compared.items():
            of_passage = cosines_of_units[at : at + len(own)]
            cosines[row] = float(of_passage[0] + of_passage.max()) / 2
            at += len(own)
        return cosines, small_talk


def _index_passage(row: Passage, keys: tuple[str, ...]) -> _IndexedPassage:
    text = f"{row.heading}\n{row.text}"
    return _IndexedPassage(
        row, keys, frozenset() if keys else character_grams(text), spellings(text)
    )


def guild_owner(guild_id: int, owner: str) -> str:
    """Return the owner of the lore that a guild has given to a persona."""
    return f"{guild_id}/{owner}"


def _in_order(matches: Iterable[PassageMatch]) -> list[PassageMatch]:
    """Sort passages by the order of their rules; equal ones as they were written."""
    return sorted(matches, key=lambda match: (match.rules.order, match.place))


def _match_keys(message: str, visible: Mapping[int, _IndexedPassage]) -> dict[int, KeyMatch]:
    """Look for the keys of passages with rules in a message. Pieces of one section share theirs."""
    search = KeySearch(message)
    matches: dict[EntryRules, KeyMatch] = {}
    rows: dict[int, KeyMatch] = {}
    for row, indexed in visible.items():
        if rules := indexed.passage.rules:
            if rules not in matches:
                matches[rules] = search.match(rules)
            rows[row] = matches[rules]
    return rows


def _always_given(passages: Mapping[int, Passage]) -> set[int]:
    """Return the passages that are always given, as many as have room, by priority, then by the
    higher order.
    """
    wanted = [
        (row, passage)
        for row, passage in passages.items()
        if passage.rules and passage.rules.always
    ]
    wanted.sort(
        key=lambda pair: (-(pair[1].rules or NO_RULES).priority, -(pair[1].rules or NO_RULES).order)
    )
    room = MAX_ALWAYS_WORDS
    rows = set()
    for row, passage in wanted:
        words = count_words(passage.text)
        if words <= room:
            room -= words
            rows.add(row)
    return rows


def _shared_words(
    rows_by_term: Mapping[str, set[int]],
    spelt: Mapping[str, set[str]],
    visible: Mapping[int, _IndexedPassage],
) -> tuple[dict[int, dict[str, float]], float]:
    """Return the shared words with their weights per passage, and the weight of all of them
    together.

    A word of a message with diacritics (`spelt`) is not shared with passages that have it with
    other ones only.
    """
    whole = 0.0
    shared: dict[int, dict[str, float]] = {}
    for term, rows in rows_by_term.items():
        matching = rows & visible.keys()
        if term in spelt:
            matching = {
                row
                for row in matching
                if spelt[term] & visible[row].spellings.get(term, spelt[term])
            }
        if not matching:
            continue
        weight = math.log1p(len(visible) / len(matching)) / math.log1p(len(visible))
        whole += weight
        for row in matching:
            shared.setdefault(row, {})[term] = weight
    return shared, whole


def _gram_shares(message: str, visible: Mapping[int, _IndexedPassage]) -> dict[int, float]:
    """Return, per passage that the encoder cannot read, its share of the message's n-grams,
    weighted by rarity.
    """
    grams = character_grams(message)
    holding = {row: grams & it.grams for row, it in visible.items() if not it.keys}
    if len(grams) < MIN_GRAMS or not holding:
        return {}
    counts = Counter(gram for held in holding.values() for gram in held)
    weights = {gram: math.log1p(len(holding) / max(counts[gram], 1)) for gram in grams}
    whole = sum(weights.values())
    return {row: sum(weights[gram] for gram in held) / whole for row, held in holding.items()}


def _word_score(words: dict[str, float]) -> float:
    return min(
        MAX_WORD_SCORE,
        WORD_SCORE_WEIGHT * sum(weight * rarity(word) for word, weight in words.items()),
    )


def _word_score_only(words: dict[str, float], whole: float, terms_in_english: int) -> float:
    """Score shared words without embeddings. `whole` is the weight of all the message's words in
    the lore.

    A message that may be English needs two shared words, and half of its own, to match lore in
    another language: a name alone is not enough.
    """
    weight = sum(
        EVERYDAY_WEIGHT * weight if word in EVERYDAY_TERMS else weight
        for word, weight in words.items()
    )
    if terms_in_english and (len(words) < 2 or 2 * len(words) < terms_in_english):
        return 0.0
    if (
        weight >= MIN_TERM_WEIGHT_OF_HALF
        and not EVERYDAY_TERMS.issuperset(words)
        and weight >= MIN_SHARE_OF_TERMS * whole
    ):
        return max(weight / MIN_TERM_WEIGHT, MIN_SCORE)
    return weight / MIN_TERM_WEIGHT


def earlier_hits(
    exchanges: Iterable[tuple[str, str, float]], name: str, lore: Sequence[LoreHit]
) -> list[LoreHit]:
    """Return what a prompt shows, before its lore, of exchanges of `name` with the persona, oldest
    first.

    Each is a question, its reply, and its score by `match_earlier`. There is room for two, beside
    full lore for one. Of exchanges with the same question, the latest is shown.
    """
    latest: dict[str, LoreHit] = {}
    for question, reply, score in exchanges:
        asked = " ".join(question.split())
        answered = " ".join(reply.split())
        if (
            count_words(f"{asked} {answered}") <= MAX_EXCHANGE_WORDS
            and len(asked) + len(answered) < MAX_EXCHANGE_CHARS
        ):
            latest.pop(asked.casefold(), None)
            heading = f"{name} said earlier, and you answered"
            latest[asked.casefold()] = LoreHit(
                EARLIER_SOURCE, heading, f"“{asked}” – “{answered}”", score
            )
    places = 2 if len(lore) < MAX_LORE_PASSAGES else 1
    nearest = sorted(latest.values(), key=lambda hit: -hit.score)[:places]
    return [hit for hit in latest.values() if hit in nearest]
