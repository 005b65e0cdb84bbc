"""Lore index: ranks passages for a message by shared words and semantic similarity."""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlite_utils import Database

from personas.lore.index_terms import extract_terms, is_mostly_ascii, query_terms
from personas.lore.minilm import Vectors
from personas.lore.passages import WORLD, Passage
from personas.lore.semantic import (
    EMBEDDING_SCHEME,
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

MAX_LORE_PASSAGES = 2
"""How many passages a prompt gets at most, when serving and in training samples alike."""

MIN_SCORE = 1.0
MIN_SHARE_OF_BEST = 0.5
"""A passage that scores less than this share of the best says little beside it."""

MIN_TERM_WEIGHT, MIN_TERM_WEIGHT_OF_HALF, MIN_SHARE_OF_TERMS = 0.7, 0.35, 0.5
"""When shared words alone find a passage, where nothing is known of meaning. A word's weight is log(1 + passages /
passages that have it), relative to that of a word which only one passage has. The words that message and passage share
must weigh RARE_ENOUGH together; RARE_HALF does if they are HALF the weight of all the message's words in lore."""

WORD_SCORE_WEIGHT, MAX_WORD_SCORE = 0.6, 2.0
"""What the weight of shared words counts where the meaning is known too, and the most it can come to. There a word also
weighs by its rarity in English: of a hundred passages only one may have "bought", which says nothing all the same."""


@dataclass(frozen=True)
class PassageMatch:
    """How a passage fares with a message.

    `words` are those they share, each with its weight; `cosine` is None where the embedding model cannot read one of
    the two. `by_words` and `by_meaning` are on the scale where 1 is found, and so is `score`, their sum. Meaning that
    is far off counts below zero: a shared word is then no more than that.
    """

    passage: Passage
    words: dict[str, float]
    cosine: float | None
    by_words: float
    by_meaning: float

    @property
    def score(self) -> float:
        """What ranks the passages."""
        return self.by_words + self.by_meaning

    @property
    def found(self) -> bool:
        """Whether this is enough."""
        return self.score >= MIN_SCORE


@dataclass(frozen=True)
class LoreRanking:
    """A message against all the lore a persona has, best first. `small_talk` is its cosine with the nearest of it."""

    terms: list[str]
    small_talk: float | None
    matches: list[PassageMatch]

    def given(self, limit: int = MAX_LORE_PASSAGES) -> list[PassageMatch]:
        """What a prompt gets: the best that are found, without those that match far less than the best of all."""
        least = max(MIN_SCORE, MIN_SHARE_OF_BEST * self.matches[0].score) if self.matches else MIN_SCORE
        return [match for match in self.matches[:limit] if match.score >= least]


class LoreIndex:
    """The passages of all personas, searchable. Use from one thread at a time; `prepare` may run beside it."""

    def __init__(self, passages: Iterable[Passage], cache: Path | None = None) -> None:
        """Index the passages, in memory or in a cache file from which nothing unchanged is computed again."""
        self._vectors: dict[str, Vectors] = {}
        rows = list(passages)
        try:
            self._open(rows, cache)
        except (sqlite3.DatabaseError, OSError):  # damaged, or no room for it: a cache is no loss
            if cache is None:
                raise
            with suppress(OSError):
                cache.unlink()
            self._open(rows, None)

    @property
    def passages(self) -> Sequence[Passage]:
        """All passages of it, whosever they are."""
        return self._passages

    def search(self, persona_id: str, message: str, limit: int = MAX_LORE_PASSAGES, guild_id: int = 0) -> list[LoreHit]:
        """The passages of this persona (in this guild, too) or of the world that match best, best first; often none.

        What guild 0, the operator, has added is found in all guilds.
        """
        given = self.weigh(persona_id, message, guild_id).given(limit)
        return [LoreHit(m.passage.source, m.passage.heading, m.passage.text, m.score) for m in given]

    def weigh(self, persona_id: str, message: str, guild_id: int = 0) -> LoreRanking:
        """Every passage this persona has, and how it fares with the message."""
        owners = [*dict.fromkeys((persona_id, WORLD))]
        owners += [guild_owner(guild, owner) for guild in dict.fromkeys((0, guild_id)) for owner in tuple(owners)]
        places = [place for owner in owners for place in self._places.get(owner, [])]
        terms = query_terms(message)
        shared, whole = self._shared(terms, places)
        cosines, small_talk = self._cosines(message, places)
        lone = len(terms) if small_talk is not None else 0
        matches = []
        for place in places:
            words, cosine = shared.get(place, {}), cosines.get(place)
            if cosine is None or small_talk is None:
                by_words, by_meaning = _word_score_only(words, whole, lone), 0.0
            else:
                by_words, by_meaning = _word_score(words), (cosine - SMALL_TALK_WEIGHT * small_talk) / MIN_SIMILARITY
            matches.append(PassageMatch(self._passages[place], words, cosine, by_words, by_meaning))
        return LoreRanking(terms, small_talk, sorted(matches, key=lambda match: -match.score))

    def prepare(self, passages: Sequence[Passage]) -> None:
        """Compute what `replace` will need, some 50 ms a passage. May run in another thread."""
        units = [unit for some in embedding_units(passages) for unit in some]
        self._vectors |= embed_units(unit for unit in units if unit_key(unit) not in self._vectors)

    def replace(self, owner: str, passages: Iterable[Passage]) -> None:
        """From now on these are the passages of this owner."""
        self._fill([passage for passage in self._passages if passage.owner != owner] + list(passages))

    def compact(self) -> None:
        """Leave nothing in the cache file of what is not there any more."""
        self._db.execute("vacuum").fetchall()

    def close(self) -> None:
        """Close the database."""
        self._db.conn.close()

    def _shared(self, terms: list[str], places: list[int]) -> tuple[dict[int, dict[str, float]], float]:
        """Per place the words it shares with the message, with their weights; and the weight of all of these words."""
        visible, whole = set(places), 0.0
        shared: dict[int, dict[str, float]] = {}
        for term in terms:
            rows = self._db.execute("select rowid from passages_fts where passages_fts match ?", [f'"{term}"'])
            having = visible & {row[0] for row in rows}
            if not having:
                continue
            weight = math.log1p(len(visible) / len(having)) / math.log1p(len(visible))
            whole += weight
            for place in having:
                shared.setdefault(place, {})[term] = weight
        return shared, whole

    def _cosines(self, message: str, places: list[int]) -> tuple[dict[int, float], float | None]:
        """Per place how near the message is: the mean of the whole passage and of its nearest sentence."""
        if not (places and is_mostly_ascii(message)):
            return {}, None
        spans = [(place, *self._spans[place]) for place in places if self._spans[place][0] < self._spans[place][1]]
        visible = stack_vectors([unit for _, start, end in spans for unit in self._units[start:end]])
        near, small_talk = similarities(message, visible)
        cosines, at = {}, 0
        for place, start, end in spans:
            of_place = near[at : at + end - start]
            cosines[place] = float(of_place[0] + of_place.max()) / 2
            at += end - start
        return cosines, small_talk

    # ------------------------------------------------------------------------------------------ the cache file

    def _open(self, rows: list[Passage], cache: Path | None) -> None:
        if cache:
            cache.parent.mkdir(parents=True, exist_ok=True)
        # Made in one thread, used in another: the first time takes seconds.
        self._db = Database(sqlite3.connect(cache or ":memory:", check_same_thread=False))
        self._db.execute("pragma secure_delete = on").fetchall()  # lore that is taken back is overwritten, too
        if self._db["vectors"].exists():
            stored = self._db.execute("select key, vector from vectors where scheme = ?", [EMBEDDING_SCHEME])
            self._vectors |= {key: np.frombuffer(vector, np.float32) for key, vector in stored}
        if self._db["stamp"].exists() and [row["value"] for row in self._db["stamp"].rows] == [_cache_stamp(rows)]:
            self._remember(rows)
        else:
            self._fill(rows)

    def _fill(self, rows: list[Passage]) -> None:
        """Write everything anew but the vectors, which are computed only where the text is new."""
        self.prepare(rows)
        used = self._remember(rows)
        db = self._db
        with db.conn:
            for table in ("passages_fts", "passages", "stamp", "vectors"):
                db[table].drop(ignore=True)
            db["passages"].create({"id": int, "owner": str, "source": str, "heading": str, "text": str}, pk="id")
            db["passages"].insert_all({"id": place, **vars(row)} for place, row in enumerate(rows))
            db.execute("create virtual table passages_fts using fts5(words, tokenize='porter unicode61')")
            folded = ((place, " ".join(extract_terms(f"{row.heading}\n{row.text}"))) for place, row in enumerate(rows))
            db.conn.executemany("insert into passages_fts(rowid, words) values (?, ?)", folded)
            db["vectors"].create({"key": str, "scheme": str, "vector": bytes}, pk="key")
            db["vectors"].insert_all(
                {"key": key, "scheme": EMBEDDING_SCHEME, "vector": self._vectors[key].tobytes()} for key in sorted(used)
            )
            db["stamp"].insert({"value": _cache_stamp(rows)})

    def _remember(self, rows: list[Passage]) -> set[str]:
        """Lay out passages and vectors for searching; returns the keys of the vectors in use."""
        keys = [[unit_key(unit) for unit in units] for units in embedding_units(rows)]
        flat = [key for some in keys for key in some]
        if missing := [key for key in flat if key not in self._vectors]:
            raise sqlite3.DatabaseError(f"{len(missing)} vectors are not in the cache")
        ends = np.cumsum([len(some) for some in keys], dtype=int)
        self._passages = rows
        self._spans = [(int(end) - len(some), int(end)) for some, end in zip(keys, ends, strict=True)]
        self._units = stack_vectors([self._vectors[key] for key in flat])
        self._places: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            self._places.setdefault(row.owner, []).append(place)
        self._vectors = {key: self._vectors[key] for key in flat}
        return set(flat)


def guild_owner(guild_id: int, owner: str) -> str:
    """The owner of the lore that one guild has given a persona."""
    return f"{guild_id}/{owner}"


def _word_score(words: dict[str, float]) -> float:
    return min(MAX_WORD_SCORE, WORD_SCORE_WEIGHT * sum(weight * rarity(word) for word, weight in words.items()))


def _word_score_only(words: dict[str, float], whole: float, terms_in_english: int) -> float:
    """`whole` is the weight of all the message's words that lore has. A message that may be English takes two shared
    words, and half of its own, to find what is written in another language: a name alone is no reason for it."""
    weight = sum(words.values())
    if terms_in_english and (len(words) < 2 or 2 * len(words) < terms_in_english):
        return 0.0
    if weight >= MIN_TERM_WEIGHT_OF_HALF and weight >= MIN_SHARE_OF_TERMS * whole:
        return max(weight / MIN_TERM_WEIGHT, MIN_SCORE)
    return weight / MIN_TERM_WEIGHT


def _cache_stamp(rows: list[Passage]) -> str:
    return hashlib.sha256(repr((EMBEDDING_SCHEME, rows)).encode()).hexdigest()
