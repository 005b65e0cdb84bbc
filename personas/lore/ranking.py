"""Scores of passages for a message: shared words, meaning, and keys of lore comments."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from personas.lore.entry_rules import MAX_ALWAYS_WORDS, EntryRules
from personas.lore.index_terms import EVERYDAY_TERMS, character_grams, extract_terms, spellings
from personas.lore.key_search import KeyMatch, KeySearch
from personas.lore.passages import Passage, count_words
from personas.lore.semantic import rarity

MAX_LORE_PASSAGES = 2  # maximum number of passages in a prompt, in serving and in training samples
KEY_SCORE = 20.0
"""Score of a passage's keys: above that of any words and meaning."""
NO_RULES = EntryRules()
NO_KEYS = KeyMatch()
MIN_SCORE = 1.0
MIN_SHARE_OF_BEST = 0.5  # a passage below this share of the best score is left out beside it
MIN_TERM_WEIGHT = 0.7
MIN_TERM_WEIGHT_OF_HALF = 0.35
MIN_SHARE_OF_TERMS = 0.5
"""Thresholds for matches by shared words alone, where no embeddings are available.

A word's weight is log(1 + passages / passages that have it), relative to that of a word in only one
passage. The words shared by message and passage must weigh MIN_TERM_WEIGHT together, or
MIN_TERM_WEIGHT_OF_HALF if that is at least MIN_SHARE_OF_TERMS of the weight of all the message's
words in the lore.
"""

# Of 34 questions in Vietnamese, Chinese and Japanese, 29 find their passage among two, and of 21
# lines of small talk none finds lore, where words alone found some 15 times.
MIN_GRAM_SHARE = 0.4
"""Share of a message's character n-grams at which a passage that no encoder reads matches."""
MIN_GRAMS = 3
"""Fewest n-grams of a message for such a match."""

EVERYDAY_WEIGHT = 0.2  # factor for words of `EVERYDAY_TERMS`
MAX_WORD_SCORE = 2.0
"""Maximum of the score of shared words beside embeddings."""
WORD_SCORE_WEIGHT = 0.6
"""Weight of that score.

A word is then also weighted by its rarity in English: "bought" may occur in one passage of a
hundred and still be meaningless.
"""

# With it, 33 instead of 59 % of 111 messages of talks and under pressure find lore, and of 166
# questions about the lore as many as without.
STATEMENT_WEIGHT = 0.5
"""Factor for the scores of a message that asks nothing. Most of these resemble some passage, and
few are about it.
"""


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
        # A sum on one scale: rank fusion would not say whether anything matches at all, and a
        # threshold for BM25 would depend on the amount of lore.
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
        """A remark for readers of the scores; empty for most messages."""
        if self.weight == STATEMENT_WEIGHT:
            return "the message asks nothing, so its scores count half"
        return ""

    def selected(self, limit: int = MAX_LORE_PASSAGES) -> list[PassageMatch]:
        """Return the passages for a prompt: those always given, then the best matches, those by
        their keys first.

        Matches by words and meaning that are far below the best such match are left out. Matches by
        rules are in the order of the rules, the rest by score.
        """
        always = [match for match in self.matches if match.is_always]
        by_keys = [match for match in self.matches if match.keys and not match.is_always][:limit]
        # Keys come first: an author who names keys knows the use of a passage.
        by_score = [match for match in self.matches if match.is_match and not match.by_keys]
        if by_score:
            min_score = max(MIN_SCORE, MIN_SHARE_OF_BEST * by_score[0].score)
            room = limit - len(by_keys)
            by_score = [match for match in by_score[:room] if match.score >= min_score]
        return [*_in_order(always), *_in_order(by_keys), *by_score]


def _in_order(matches: Iterable[PassageMatch]) -> list[PassageMatch]:
    """Sort passages by the order of their rules; equal ones as they were written."""
    return sorted(matches, key=lambda match: (match.rules.order, match.place))


@dataclass(frozen=True)
class IndexedPassage:
    """A passage with the keys of its vectors (of the whole, then of its sentences), and what words
    are compared by.
    """

    passage: Passage
    keys: tuple[str, ...]
    grams: frozenset[str]
    spellings: dict[str, set[str]]

    def terms(self) -> str:
        return " ".join(extract_terms(f"{self.passage.heading}\n{self.passage.text}"))


def index_passage(row: Passage, keys: tuple[str, ...]) -> IndexedPassage:
    text = f"{row.heading}\n{row.text}"
    grams = frozenset[str]() if keys else character_grams(text)  # only without an encoder
    return IndexedPassage(row, keys, grams=grams, spellings=spellings(text))


def match_keys(message: str, visible: Mapping[int, IndexedPassage]) -> dict[int, KeyMatch]:
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


def always_given(passages: Mapping[int, Passage]) -> set[int]:
    """Return the passages that are always given, as many as have room, by priority, then by the
    higher order.
    """
    wanted = []
    for row, passage in passages.items():
        if passage.rules and passage.rules.always:
            wanted.append((-passage.rules.priority, -passage.rules.order, row))
    room = MAX_ALWAYS_WORDS
    rows = set()
    for _, _, row in sorted(wanted, key=lambda item: item[:2]):
        words = count_words(passages[row].text)
        if words <= room:
            room -= words
            rows.add(row)
    return rows


def shared_words(
    rows_by_term: Mapping[str, set[int]],
    spelt: Mapping[str, set[str]],
    visible: Mapping[int, IndexedPassage],
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
        if written := spelt.get(term):
            matching = {
                row for row in matching if written & visible[row].spellings.get(term, written)
            }
        if not matching:
            continue
        weight = math.log1p(len(visible) / len(matching)) / math.log1p(len(visible))
        whole += weight
        for row in matching:
            shared.setdefault(row, {})[term] = weight
    return shared, whole


def gram_shares(message: str, visible: Mapping[int, IndexedPassage]) -> dict[int, float]:
    """Return, per passage that the encoder cannot read, its share of the message's n-grams,
    weighted by rarity.
    """
    grams = character_grams(message)
    shared = {}
    counts = Counter[str]()
    for row, indexed in visible.items():
        if not indexed.keys:
            shared[row] = grams & indexed.grams
            counts.update(shared[row])
    if len(grams) < MIN_GRAMS or not shared:
        return {}
    weights = {gram: math.log1p(len(shared) / max(counts[gram], 1)) for gram in grams}
    whole = sum(weights.values())
    shares = {}
    for row, row_grams in shared.items():
        shares[row] = sum(weights[gram] for gram in row_grams) / whole
    return shares


def word_score(words: dict[str, float]) -> float:
    score = sum(weight * rarity(word) for word, weight in words.items())
    return min(MAX_WORD_SCORE, WORD_SCORE_WEIGHT * score)


def word_score_without_embeddings(
    words: dict[str, float], whole: float, terms_in_english: int
) -> float:
    """Score shared words without embeddings. `whole` is the weight of all the message's words in
    the lore.

    A message that may be English needs two shared words, and half of its own, to match lore in
    another language: a name alone is not enough.
    """
    if terms_in_english and (len(words) < 2 or 2 * len(words) < terms_in_english):
        return 0.0
    weights = []
    for word, word_weight in words.items():
        factor = EVERYDAY_WEIGHT if word in EVERYDAY_TERMS else 1.0
        weights.append(factor * word_weight)
    weight = sum(weights)
    score = weight / MIN_TERM_WEIGHT
    has_half = weight >= MIN_TERM_WEIGHT_OF_HALF and weight >= MIN_SHARE_OF_TERMS * whole
    if has_half and not EVERYDAY_TERMS.issuperset(words):
        return max(score, MIN_SCORE)
    return score
