"""Semantic similarity of messages and lore passages."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from personas.lore.minilm import MODEL, Encoder, Vectors, load_encoder, load_minilm
from personas.lore.passages import WORLD, Passage, count_words, split_sentences
from personas.lore.shipped_vectors import shipped_vectors

SCHEME_VERSION = 1  # of the way units are formed: cached vectors of others are computed again
# MiniLM's cosines of lore and small talk: mean and deviation. Cosines of other encoders are put on
# this scale: they may lie at 0.7 for the same texts.
UNRELATED_MEAN = 0.081
UNRELATED_SD = 0.064

MIN_UNIT_WORDS = 12  # shorter sentences are embedded together with the next
# Share of a message's similarity to small talk that is subtracted from its similarity to lore.
SMALL_TALK_WEIGHT = 0.4
MIN_SIMILARITY = 0.12  # similarity at which a passage matches by meaning alone (see `similarities`)
# The same for two messages of a member: weight of the similarity of either to small talk.
CHAT_SMALL_TALK_WEIGHT = 0.25
MIN_CHAT_SIMILARITY = 0.265
"""Similarity from which a message takes up an earlier one.

Of 90 messages that do, in other words, 76 have it among the nearest two of 200 earlier ones, and
above this. So do 30 % of ordinary messages of the shipped logs, which take up a topic, and 11 % of
small talk.
"""
# MiniLM's cosines of members' messages and small talk: mean and deviation.
CHAT_MEAN = 0.119
CHAT_SD = 0.084
# Ranks in the model's vocabulary, which is ordered by frequency in English. Up to the first rank a
# word has the minimum rarity, from the second on it has rarity 1.
COMMON_RANK = 1500
RARE_RANK = 20000
MIN_RARITY = 0.1

PRONOUNS = {
    "he": {"he": "you", "him": "you", "his": "your"},
    "she": {"she": "you", "her": "your", "hers": "yours"},
}

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
    |hom nay toi buon qua|cam on ban nhieu|toi di ngu day|ban dang lam gi the""".replace(
        "\n    ", ""
    ).split("|")
)

MAX_CACHED_VECTORS = 5000
_VECTOR_CACHE: dict[str, Vectors] = {}
"""Recent vectors of this process (at most 8 MB), shared by several indexes over the same lore."""


@lru_cache(maxsize=4)
def _small_talk_vectors(encoder: str) -> Vectors:
    keys = [unit_key(text, encoder) for text in SMALL_TALK]
    vectors = embed_units(SMALL_TALK, encoder)
    return stack_vectors([vectors[key] for key in keys], encoder)


def embedding_scheme(encoder: str) -> str:
    """Return the name of the model and the way units are formed, for cached vectors."""
    return f"{encoder or MODEL}/{SCHEME_VERSION}"


def similarities(vector: Vectors, units: Vectors, encoder: str = "") -> tuple[Vectors, float]:
    """Return the cosines of a message's vector with each unit, shape (units,), and with the nearest
    small talk.

    Those of a named encoder are shifted and scaled so that lore and small talk are as similar as
    for MiniLM.
    """
    small_talk = _small_talk_vectors(encoder)
    cosines = units @ vector
    to_small_talk = small_talk @ vector
    if encoder and len(units):
        rescale = _minilm_scale(units @ small_talk.T, UNRELATED_MEAN, UNRELATED_SD)
        cosines = rescale(cosines)
        to_small_talk = rescale(to_small_talk)
    return cosines, float(to_small_talk.max())


def chat_cosines(vector: Vectors, messages: Vectors, encoder: str = "") -> Vectors:
    """Return the cosines of a message's vector with those of other messages, shape (messages,);
    those of a named encoder on MiniLM's scale.
    """
    cosines: Vectors = messages @ vector
    if encoder and len(messages):
        unrelated = messages @ _small_talk_vectors(encoder).T
        return _minilm_scale(unrelated, CHAT_MEAN, CHAT_SD)(cosines)
    return cosines


def _minilm_scale(unrelated: Vectors, mean: float, sd: float) -> Callable[[Vectors], Vectors]:
    """Return the function that shifts and scales cosines, so that the unrelated ones have this mean
    and deviation.
    """
    middle = float(unrelated.mean())
    factor = sd / max(float(unrelated.std()), 0.01)
    return lambda cosines: (cosines - middle) * np.float32(factor) + np.float32(mean)


@lru_cache(maxsize=16)
def message_vector(text: str, encoder: str = "") -> Vectors:
    """Return the vector of a message, for which lore and earlier talk are searched one after the
    other.
    """
    # Cached: with 400 earlier turns, a prompt takes 16 to 18 ms, and 31 to 32 ms where each search
    # embeds the message for itself (two busy cores).
    vector: Vectors = load_encoder(encoder).embed([text])[0]
    return vector


def clear_vectors() -> None:
    """Drop the vectors of messages, memories and lore that this process keeps to save time."""
    message_vector.cache_clear()
    _VECTOR_CACHE.clear()


def pack_vectors(texts: Sequence[str], encoder: str = "") -> list[bytes]:
    """Return the vectors of messages as float16; empty for one that the encoder cannot read."""
    model = load_encoder(encoder)
    packed = []
    for text in texts:
        vector = b""
        if model.can_read(text):
            vector = message_vector(text, encoder).astype(np.float16).tobytes()
        packed.append(vector)
    return packed


def match_earlier(
    message: bytes, earlier: Mapping[int, bytes], encoder: str = ""
) -> dict[int, float]:
    """Return the earlier messages that a message takes up, the nearest first, with scores from 1
    on.

    All are packed vectors; those of other dimensions are no match.
    """
    size = 2 * load_encoder(encoder).dimensions
    keys = [key for key, vector in earlier.items() if len(vector) == size]
    if len(message) != size or not keys:
        return {}
    packed = np.frombuffer(b"".join(earlier[key] for key in keys), np.float16)
    units = packed.reshape(len(keys), -1).astype(np.float32)
    vector = np.frombuffer(message, np.float16).astype(np.float32)
    small_talk = _small_talk_vectors(encoder)
    cosines = units @ vector
    to_small_talk = small_talk @ vector
    unrelated = units @ small_talk.T
    if encoder:
        rescale = _minilm_scale(unrelated, CHAT_MEAN, CHAT_SD)
        cosines = rescale(cosines)
        to_small_talk = rescale(to_small_talk)
        unrelated = rescale(unrelated)
    small = CHAT_SMALL_TALK_WEIGHT * (unrelated.max(axis=1) + to_small_talk.max())
    scores = (cosines - small) / MIN_CHAT_SIMILARITY
    return {keys[at]: float(scores[at]) for at in np.argsort(-scores) if scores[at] >= 1}


@lru_cache(maxsize=4096)
def rarity(word: str) -> float:
    """Return the rarity of a word in English, from MIN_RARITY to 1. Words of several pieces are
    rare.
    """
    ranks = load_minilm().ranks(word)
    if len(ranks) != 1:
        return 1.0
    share = math.log(max(ranks[0], 1) / COMMON_RANK) / math.log(RARE_RANK / COMMON_RANK)
    return min(1.0, max(MIN_RARITY, share))


def embedding_units(passages: Sequence[Passage], encoder: str = "") -> list[list[str]]:
    """Return the texts to embed per passage: the whole, then its sentences; none if the encoder
    cannot read it.

    Members address a persona as "you", while its lore has "he" or a name. Texts about the owner are
    therefore turned into the second person: "your jib is sixty-four feet long". Of 56 questions
    this finds six more than the lore as written.
    """
    owners = {passage.owner for passage in passages}
    rewriters = {owner: _second_person(owner, passages) for owner in owners}
    model = load_encoder(encoder)
    return [_passage_units(passage, rewriters[passage.owner], model) for passage in passages]


def unit_key(unit: str, encoder: str = "") -> str:
    return hashlib.sha256(f"{embedding_scheme(encoder)}\n{unit}".encode()).hexdigest()[:32]


def embed_units(units: Iterable[str], encoder: str = "") -> dict[str, Vectors]:
    """Return the vectors of units by key, about 10 ms each. Thread-safe."""
    texts = {unit_key(unit, encoder): unit for unit in units}
    known = shipped_vectors()
    vectors: dict[str, Vectors] = {}
    missing = []
    for key in texts:
        vector = _VECTOR_CACHE.get(key, known.get(key))
        if vector is None:
            missing.append(key)
        else:
            vectors[key] = vector
    if missing:
        computed = load_encoder(encoder).embed([texts[key] for key in missing])
        vectors.update(zip(missing, computed, strict=True))
    _VECTOR_CACHE.update(vectors)
    for key in list(_VECTOR_CACHE)[:-MAX_CACHED_VECTORS]:
        _VECTOR_CACHE.pop(key, None)
    return vectors


def pack_units(
    passages: Sequence[Passage], packed: Sequence[bytes | None], encoder: str = ""
) -> list[bytes]:
    """Return the vectors of each passage's units as float32; those `packed` before are not
    computed, and are cached.
    """
    result = []
    dimensions = load_encoder(encoder).dimensions
    for units, before in zip(embedding_units(passages, encoder), packed, strict=True):
        keys = [unit_key(unit, encoder) for unit in units]
        if before is None or len(before) != 4 * dimensions * len(units):
            by_key = embed_units(units, encoder)
            vectors = stack_vectors([by_key[key] for key in keys], encoder)
            before = vectors.astype(np.float32).tobytes()
        else:
            stored = np.frombuffer(before, np.float32).reshape(-1, dimensions)
            _VECTOR_CACHE.update(zip(keys, stored, strict=True))
        result.append(before)
    return result


def stack_vectors(vectors: Sequence[Vectors], encoder: str = "") -> Vectors:
    """Stack vectors; shape (vectors, dimensions)."""
    if not vectors:
        return np.empty((0, load_encoder(encoder).dimensions), np.float32)
    return np.stack(vectors)


def _passage_units(passage: Passage, rewrite: Callable[[str], str], encoder: Encoder) -> list[str]:
    if not encoder.can_read(passage.text):
        return []
    section = passage.heading.rpartition(": ")[2]
    rewritten = rewrite(passage.text)
    sentences = _merge_short_sentences(split_sentences(rewritten))
    units = dict.fromkeys((rewritten, *sentences))
    return [f"{section}. {text}" if section else text for text in units]


def _merge_short_sentences(pieces: Iterable[str]) -> list[str]:
    joined: list[str] = []
    for piece in pieces:
        if joined and count_words(joined[-1]) < MIN_UNIT_WORDS // 2:
            joined[-1] += " " + piece
        else:
            joined.append(piece)
    return joined


def _second_person(owner: str, passages: Sequence[Passage]) -> Callable[[str], str]:
    """Return a function that rewrites the owner's id (as a name) and commonest pronoun to the
    second person.
    """
    if owner == WORLD:
        return lambda text: text
    parts = [re.escape(part) for part in re.split("[-_]", owner.rpartition("/")[2]) if part]
    name = "(?!)"
    if parts:  # the whole name, or its first part
        name = f"{r'[-_ ]'.join(parts)}|{parts[0]}"
    text = " ".join(passage.text for passage in passages if passage.owner == owner)
    words = _own_pronouns(text)
    pronouns = "|".join(words) or "(?!)"
    pattern = re.compile(
        rf"\b(?:(?P<name>{name})(?P<s>['’]s)?|(?P<pronoun>{pronouns}))\b", re.IGNORECASE
    )

    def substitute(match: re.Match[str]) -> str:
        if match["name"]:
            return "your" if match["s"] else "you"
        return words[match["pronoun"].casefold()]

    return lambda text: pattern.sub(substitute, text)


def _own_pronouns(text: str) -> Mapping[str, str]:
    """Return the second person for the commonest pronoun in lore; none if two are about as common,
    since it is not clear then whose they are.
    """
    counts = Counter(word for word in re.findall(r"\w+", text.casefold()) if word in PRONOUNS)
    common = counts.most_common(2)
    if not common:
        return {}
    if len(common) == 2 and common[0][1] < 1.5 * common[1][1]:
        return {}
    return PRONOUNS[common[0][0]]
