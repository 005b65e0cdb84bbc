"""Lore index: ranks passages for a message by shared words and semantic similarity."""

import hashlib
import math
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlite_utils import Database

from personas.lore.index_terms import EVERYDAY_TERMS, character_grams, extract_terms, query_terms, spellings
from personas.lore.minilm import Vectors, load_encoder
from personas.lore.passages import WORLD, Passage
from personas.lore.semantic import (
    MIN_SIMILARITY,
    SMALL_TALK_WEIGHT,
    embed_units,
    embedding_scheme,
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


class LoreIndex:
    """Searchable passages of all personas. Use from one thread at a time; `prepare` may run in another."""

    def __init__(self, passages: Iterable[Passage], cache: Path | None = None, encoder: str = "") -> None:
        """Index the passages in memory, or in a cache file, which spares computing unchanged vectors again.

        `encoder` names a sentence-transformers model for all languages; empty: MiniLM for English, and character
        n-grams. Raises `LoreError` if it cannot be loaded.
        """
        self._vectors: dict[str, Vectors] = {}
        self._encoder, self._scheme = encoder, embedding_scheme(encoder)
        rows = list(passages)
        try:
            self._open(rows, cache)
        except (sqlite3.DatabaseError, OSError):  # damaged, or the disk is full: the cache is expendable
            if cache is None:
                raise
            with suppress(OSError):
                cache.unlink()
            self._open(rows, None)

    @property
    def passages(self) -> Sequence[Passage]:
        return self._passages

    def search(self, persona_id: str, message: str, limit: int = MAX_LORE_PASSAGES, guild_id: int = 0) -> list[LoreHit]:
        """Return the best passages of the persona, in this guild and in guild 0 (the operator's), and of the world."""
        matches = self.rank(persona_id, message, guild_id).selected(limit)
        return [LoreHit(m.passage.source, m.passage.heading, m.passage.text, m.score) for m in matches]

    def rank(self, persona_id: str, message: str, guild_id: int = 0) -> LoreRanking:
        owners = [*dict.fromkeys((persona_id, WORLD))]
        owners += [guild_owner(guild, owner) for guild in dict.fromkeys((0, guild_id)) for owner in tuple(owners)]
        positions = [position for owner in owners for position in self._places.get(owner, [])]
        terms = query_terms(message)
        shared, whole = self._shared(terms, spellings(message), positions)
        cosines, small_talk = self._cosines(message, positions)
        gram_shares = self._gram_shares(message, positions) if small_talk is None else {}
        english_terms = len(terms) if small_talk is not None else 0
        matches = []
        for position in positions:
            words, cosine = shared.get(position, {}), cosines.get(position)
            if cosine is None or small_talk is None:
                by_words = _word_score_only(words, whole, english_terms)
                by_meaning = max(0.0, gram_shares.get(position, 0.0) / MIN_GRAM_SHARE - by_words)
            else:
                by_words, by_meaning = _word_score(words), (cosine - SMALL_TALK_WEIGHT * small_talk) / MIN_SIMILARITY
            matches.append(PassageMatch(self._passages[position], words, cosine, by_words, by_meaning))
        return LoreRanking(terms, small_talk, sorted(matches, key=lambda match: -match.score))

    def prepare(self, passages: Sequence[Passage]) -> None:
        """Compute the vectors for `replace`, some 50 ms per passage. May run in another thread."""
        units = [unit for some in embedding_units(passages, self._encoder) for unit in some]
        missing = [unit for unit in units if unit_key(unit, self._encoder) not in self._vectors]
        self._vectors |= embed_units(missing, self._encoder)

    def replace(self, owner: str, passages: Iterable[Passage]) -> None:
        self._fill([passage for passage in self._passages if passage.owner != owner] + list(passages))

    def compact(self) -> None:
        """Remove deleted content from the cache file."""
        self._db.execute("vacuum").fetchall()

    def close(self) -> None:
        self._db.conn.close()

    def _shared(
        self, terms: list[str], spelt: dict[str, set[str]], positions: list[int]
    ) -> tuple[dict[int, dict[str, float]], float]:
        """Return the shared words with their weights per passage, and the weight of all of them together.

        A word of a message with diacritics (`spelt`) is not shared with passages that have it with other ones only.
        """
        visible, whole = set(positions), 0.0
        shared: dict[int, dict[str, float]] = {}
        for term in terms:
            rows = self._db.execute("select rowid from passages_fts where passages_fts match ?", [f'"{term}"'])
            matching = visible & {row[0] for row in rows}
            if term in spelt:
                matching = {p for p in matching if spelt[term] & self._spellings[p].get(term, spelt[term])}
            if not matching:
                continue
            weight = math.log1p(len(visible) / len(matching)) / math.log1p(len(visible))
            whole += weight
            for position in matching:
                shared.setdefault(position, {})[term] = weight
        return shared, whole

    def _gram_shares(self, message: str, positions: list[int]) -> dict[int, float]:
        """Return, per passage that the encoder cannot read, its share of the message's n-grams, weighted by rarity."""
        grams = character_grams(message)
        holding = {p: grams & self._grams[p] for p in positions if self._spans[p][0] == self._spans[p][1]}
        if len(grams) < MIN_GRAMS or not holding:
            return {}
        counts = Counter(gram for held in holding.values() for gram in held)
        weights = {gram: math.log1p(len(holding) / max(counts[gram], 1)) for gram in grams}
        whole = sum(weights.values())
        return {position: sum(weights[gram] for gram in held) / whole for position, held in holding.items()}

    def _cosines(self, message: str, positions: list[int]) -> tuple[dict[int, float], float | None]:
        """Return the similarity per passage: the mean of the whole passage and its nearest sentence."""
        if not (positions and load_encoder(self._encoder).can_read(message)):
            return {}, None
        spans = [(position, *self._spans[position]) for position in positions]
        spans = [span for span in spans if span[1] < span[2]]
        visible = stack_vectors([unit for _, start, end in spans for unit in self._units[start:end]], self._encoder)
        cosines_of_units, small_talk = similarities(message, visible, self._encoder)
        cosines, at = {}, 0
        for position, start, end in spans:
            of_passage = cosines_of_units[at : at + end - start]
            cosines[position] = float(of_passage[0] + of_passage.max()) / 2
            at += end - start
        return cosines, small_talk

    def _open(self, rows: list[Passage], cache: Path | None) -> None:
        if cache:
            cache.parent.mkdir(parents=True, exist_ok=True)
        # Created in one thread and used in another: the first time takes seconds.
        self._db = Database(sqlite3.connect(cache or ":memory:", check_same_thread=False))
        self._db.execute("pragma secure_delete = on").fetchall()  # overwrites deleted lore
        if self._db["vectors"].exists():
            stored = self._db.execute("select key, vector from vectors where scheme = ?", [self._scheme])
            self._vectors |= {key: np.frombuffer(vector, np.float32) for key, vector in stored}
        if self._db["stamp"].exists() and [row["value"] for row in self._db["stamp"].rows] == [self._stamp(rows)]:
            self._remember(rows)
        else:
            self._fill(rows)

    def _fill(self, rows: list[Passage]) -> None:
        """Rebuild the cache; only vectors of new texts are computed."""
        self.prepare(rows)
        used = self._remember(rows)
        db = self._db
        with db.conn:
            for table in ("passages_fts", "passages", "stamp", "vectors"):
                db[table].drop(ignore=True)
            db["passages"].create({"id": int, "owner": str, "source": str, "heading": str, "text": str}, pk="id")
            db["passages"].insert_all({"id": position, **vars(row)} for position, row in enumerate(rows))
            db.execute("create virtual table passages_fts using fts5(words, tokenize='porter unicode61')")
            words = [" ".join(extract_terms(f"{row.heading}\n{row.text}")) for row in rows]
            db.conn.executemany("insert into passages_fts(rowid, words) values (?, ?)", enumerate(words))
            db["vectors"].create({"key": str, "scheme": str, "vector": bytes}, pk="key")
            db["vectors"].insert_all(
                {"key": key, "scheme": self._scheme, "vector": self._vectors[key].tobytes()} for key in sorted(used)
            )
            db["stamp"].insert({"value": self._stamp(rows)})

    def _stamp(self, rows: list[Passage]) -> str:
        return hashlib.sha256(repr((self._scheme, rows)).encode()).hexdigest()

    def _remember(self, rows: list[Passage]) -> set[str]:
        """Lay out passages and vectors for searching; return the keys of the vectors in use."""
        keys = [[unit_key(unit, self._encoder) for unit in units] for units in embedding_units(rows, self._encoder)]
        flat = [key for some in keys for key in some]
        if missing := [key for key in flat if key not in self._vectors]:
            raise sqlite3.DatabaseError(f"{len(missing)} vectors are not in the cache")
        ends = np.cumsum([len(some) for some in keys], dtype=int)
        self._passages = rows
        self._spans = [(int(end) - len(some), int(end)) for some, end in zip(keys, ends, strict=True)]
        self._units = stack_vectors([self._vectors[key] for key in flat], self._encoder)
        self._grams = [
            character_grams(f"{row.heading}\n{row.text}") if start == end else frozenset()
            for row, (start, end) in zip(rows, self._spans, strict=True)
        ]
        self._spellings = [spellings(f"{row.heading}\n{row.text}") for row in rows]
        self._places: dict[str, list[int]] = {}
        for position, row in enumerate(rows):
            self._places.setdefault(row.owner, []).append(position)
        self._vectors = {key: self._vectors[key] for key in flat}
        return set(flat)


def guild_owner(guild_id: int, owner: str) -> str:
    """Return the owner of the lore that a guild has given to a persona."""
    return f"{guild_id}/{owner}"


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
