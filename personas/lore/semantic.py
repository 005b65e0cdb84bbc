"""Semantic similarity of messages and lore passages."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np

from personas.lore.minilm import MODEL, Encoder, Vectors, load_encoder, load_minilm
from personas.lore.passages import WORLD, Passage, count_words, split_sentences

SCHEME_VERSION = 1  # of the way units are formed: cached vectors of others are computed again
UNRELATED_MEAN, UNRELATED_SD = 0.081, 0.064
"""MiniLM's cosines of lore and small talk. Other encoders' are put on this scale: theirs of the same may lie at 0.7."""

MIN_UNIT_WORDS = 12  # shorter sentences are embedded together with the next
SMALL_TALK_WEIGHT = 0.4  # share of a message's similarity to small talk that is subtracted from its similarity to lore
MIN_SIMILARITY = 0.12  # similarity at which a passage matches by meaning alone (see `similarities`)
COMMON_RANK, RARE_RANK, MIN_RARITY = 1500, 20000, 0.1
"""Range of ranks in the model's vocabulary, which is ordered by frequency in English.

Up to the first rank a word has the minimum rarity.
"""

PRONOUNS = {"he": {"he": "you", "him": "you", "his": "your"}, "she": {"she": "you", "her": "your", "hers": "yours"}}

SMALL_TALK = tuple(
    """hello|hi, how are you?|good morning|good night|see you later|bye|thank you very much|you're welcome|lol|haha
    |that is funny|I am tired|I am sad today|I had a bad day|I feel great|I love you|you are cute|I hate you|shut up
    |are you a bot?|are you real?|what is your name?|who are you?|how old are you?|what are you doing?
    |where are you from?|tell me a joke|tell me a story|sing a song|let's play a game|can you help me?
    |can you do my homework?|what do you think?|I agree|I don't know|no way|wow|cool|sorry|never mind
    |I have to go to school|my job is stressful|I failed my test|my boss yelled at me|my girlfriend broke up with me
    |my dog is ill|I am hungry|what should I eat?|I bought something|what is the weather like?|what time is it?
    |what day is today?|recommend me a movie|I like music|what is one plus one?|write some code|I am bored
    |happy birthday|congratulations|good luck|I am going to bed|I just woke up|chao ban, ban khoe khong
    |hom nay toi buon qua|cam on ban nhieu|toi di ngu day|ban dang lam gi the""".replace("\n    ", "").split("|")
)

MAX_CACHED_VECTORS = 5000
_VECTOR_CACHE: dict[str, Vectors] = {}
"""Recent vectors of this process (at most 8 MB), shared by several indexes over the same lore."""


@lru_cache(maxsize=4)
def _small_talk_vectors(encoder: str) -> Vectors:
    return load_encoder(encoder).embed(SMALL_TALK)


def embedding_scheme(encoder: str) -> str:
    """Return the name of the model and the way units are formed, for cached vectors."""
    return f"{encoder or MODEL}/{SCHEME_VERSION}"


def similarities(message: str, units: Vectors, encoder: str = "") -> tuple[Vectors, float]:
    """Return the cosines of a message with each unit, shape (units,), and with the nearest small talk.

    Those of a named encoder are shifted and scaled so that lore and small talk are as similar as for MiniLM.
    """
    vector, small_talk = load_encoder(encoder).embed([message])[0], _small_talk_vectors(encoder)
    cosines, nearest = units @ vector, float((small_talk @ vector).max())
    if not encoder or not len(units):
        return cosines, nearest
    unrelated = units @ small_talk.T
    factor = UNRELATED_SD / max(float(unrelated.std()), 0.01)
    mean = float(unrelated.mean())
    return (cosines - mean) * factor + UNRELATED_MEAN, (nearest - mean) * factor + UNRELATED_MEAN


@lru_cache(maxsize=4096)
def rarity(word: str) -> float:
    """Return the rarity of a word in English, from MIN_RARITY to 1. Words of several pieces are rare."""
    ranks = load_minilm().ranks(word)
    if len(ranks) != 1:
        return 1.0
    share = math.log(max(ranks[0], 1) / COMMON_RANK) / math.log(RARE_RANK / COMMON_RANK)
    return min(1.0, max(MIN_RARITY, share))


def embedding_units(passages: Sequence[Passage], encoder: str = "") -> list[list[str]]:
    """Return the texts to embed per passage: the whole, then its sentences; none if the encoder cannot read it.

    Members address a persona as "you", while its lore has "he" or a name. Texts about the owner are therefore turned
    into the second person: "your jib is sixty-four feet long". Of 56 questions this finds six more than the lore as
    written.
    """
    rewriters = {owner: _second_person(owner, passages) for owner in {passage.owner for passage in passages}}
    model = load_encoder(encoder)
    return [_passage_units(passage, rewriters[passage.owner], model) for passage in passages]


def unit_key(unit: str, encoder: str = "") -> str:
    return hashlib.sha256(f"{embedding_scheme(encoder)}\n{unit}".encode()).hexdigest()[:32]


def embed_units(units: Iterable[str], encoder: str = "") -> dict[str, Vectors]:
    """Return the vectors of units by key, about 10 ms each. Thread-safe."""
    texts = {unit_key(unit, encoder): unit for unit in units}
    vectors = {key: vector for key in texts if (vector := _VECTOR_CACHE.get(key)) is not None}
    if todo := [key for key in texts if key not in vectors]:
        vectors |= zip(todo, load_encoder(encoder).embed([texts[key] for key in todo]), strict=True)
    _VECTOR_CACHE.update(vectors)
    for key in list(_VECTOR_CACHE)[:-MAX_CACHED_VECTORS]:
        _VECTOR_CACHE.pop(key, None)
    return vectors


def stack_vectors(vectors: Sequence[Vectors], encoder: str = "") -> Vectors:
    """Stack vectors; shape (vectors, dimensions)."""
    return np.stack(vectors) if vectors else np.empty((0, load_encoder(encoder).dimensions), np.float32)


def _passage_units(passage: Passage, rewrite: Callable[[str], str], encoder: Encoder) -> list[str]:
    if not encoder.can_read(passage.text):
        return []
    section = passage.heading.rpartition(": ")[2]
    rewritten = rewrite(passage.text)
    sentences = _merge_short_sentences(split_sentences(rewritten))
    return [f"{section}. {text}" for text in dict.fromkeys((rewritten, *sentences))]


def _merge_short_sentences(pieces: Iterable[str]) -> list[str]:
    joined: list[str] = []
    for piece in pieces:
        if joined and count_words(joined[-1]) < MIN_UNIT_WORDS // 2:
            joined[-1] += " " + piece
        else:
            joined.append(piece)
    return joined


def _second_person(owner: str, passages: Sequence[Passage]) -> Callable[[str], str]:
    """Return a function that rewrites the owner's id (as a name) and commonest pronoun to the second person."""
    if owner == WORLD:
        return lambda text: text
    parts = [re.escape(part) for part in re.split("[-_]", owner.rpartition("/")[2]) if part]
    name = "|".join((r"[-_ ]".join(parts), parts[0])) if parts else "(?!)"
    text = " ".join(passage.text for passage in passages if passage.owner == owner)
    counts = Counter(word for word in re.findall(r"\w+", text.casefold()) if word in PRONOUNS)
    common = counts.most_common(2)
    clear = common and (len(common) == 1 or common[0][1] >= 1.5 * common[1][1])
    words = PRONOUNS[common[0][0]] if clear else {}
    pattern = re.compile(rf"\b(?:(?P<name>{name})(?P<s>['’]s)?|(?P<pronoun>{'|'.join(words) or '(?!)'}))\b", re.I)

    def substitute(match: re.Match[str]) -> str:
        if match["name"]:
            return "your" if match["s"] else "you"
        return words[match["pronoun"].casefold()]

    return lambda text: pattern.sub(substitute, text)
