"""Authorship classifier and embedding similarity, which measure how much replies sound like the
persona.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from personas.card.toml_card import SHIPPED_CARDS, read_cards
from personas.home.data_subjects import NO_CONSENT
from personas.home.rights import decide_right, read_statement
from personas.lore.index_terms import is_mostly_ascii
from personas.lore.minilm import Vectors, load_minilm
from personas.schemas.chat import Persona
from personas.schemas.scorecard import GENERAL_VOICE, HELDOUT_TASK, MEMBERS_VOICE, Side, VoiceScores
from trainer.dataset.dataset import Dataset
from trainer.dataset.dedup_split import hash_fraction
from trainer.evaluate.generation.reply_tasks import (
    DATA_FOLDER,
    GeneratedReply,
    mean_std,
    select_replies,
    true_share,
)
from trainer.evaluate.generation.text_metrics import WORD, split_words
from trainer.schemas import PromptReply
from trainer.sources.conversation import Conversation
from trainer.sources.reader import read_usable
from trainer.sources.source_format import ReadOptions

HELDOUT_SHARE = 0.15  # share held out of texts that have no held-out set of their own
MAX_CLASS_TEXTS, MIN_CLASS_TEXTS = (
    300,
    10,
)  # training texts of a class; a class with fewer than the minimum is left out
MAX_EMBEDDED_TEXTS = 80
CROSS_VALIDATION_FOLDS = 5
FUNCTION_WORDS = 150
MASK_SIGN = "■"


@dataclass(frozen=True)
class AuthorTexts:
    """Texts of a known author: those for training, and the held-out ones."""

    trained: tuple[str, ...]
    heldout: tuple[str, ...]


def collect_voices(data: Dataset, others: Mapping[str, Dataset]) -> dict[str, AuthorTexts]:
    """Return the texts of the persona, then of other classes with enough texts; `others` default to
    shipped ones.
    """
    assert data.persona is not None  # general dialogue has no voice to measure
    messages, heldout_messages = (
        tuple(pair.message for pair in pairs if pair.by_persona)
        for pairs in (data.train_prompt_replies, data.heldout_prompt_replies)
    )
    voices = {name: _own_texts(other) for name, other in others.items()} or shipped_voices(
        data.persona
    )
    voices[GENERAL_VOICE] = _split_texts([it.reply for it in data.general_prompt_replies])
    voices[MEMBERS_VOICE] = AuthorTexts(messages, heldout_messages)
    enough = {
        name: of for name, of in voices.items() if len(of.trained) >= MIN_CLASS_TEXTS and of.heldout
    }
    return {data.persona.id: _own_texts(data), **enough}


def usable_voices(data: Dataset, others: Mapping[str, Dataset]) -> dict[str, AuthorTexts]:
    """Return `collect_voices`; empty if they are too few to tell the persona from anybody else."""
    if data.persona is None:
        return {}
    voices = collect_voices(data, others)
    own = voices[data.persona.id]
    is_enough = (
        len(own.trained) >= MIN_CLASS_TEXTS
        and own.heldout
        and voices.keys() - {data.persona.id, MEMBERS_VOICE}
    )
    return voices if is_enough else {}


def shipped_voices(persona: Persona) -> dict[str, AuthorTexts]:
    """Return the replies of the shipped personas except this one."""
    cards = read_cards(SHIPPED_CARDS)
    logs = {name: DATA_FOLDER / "logs" / f"{name}.json" for name in cards if name != persona.id}
    return {
        name: _split_texts(_persona_texts(log, cards[name]))
        for name, log in logs.items()
        if log.is_file()
    }


class AuthorshipClassifier:
    """Attributes texts to the authors it was trained on."""

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        """`texts` are the training texts by author; some 300 of each are as good as all."""

        def few(of: Sequence[str]) -> list[str]:
            return sorted(of, key=lambda text: hash_fraction("voice", text))[:MAX_CLASS_TEXTS]

        labelled = [(name, text) for name, of in texts.items() for text in few(of)]
        self._names = np.array([name for name, _ in labelled])
        self._grams = _new_vectoriser()
        self._texts = self._grams.fit_transform([text for _, text in labelled])
        self._model = _new_classifier().fit(self._texts, self._names)

    def of(self, texts: Sequence[str]) -> list[str]:
        """Return the most likely author of each text; the empty name for texts without letters or
        masked words.
        """
        names = self._model.predict(self._grams.transform(texts)) if texts else ()
        has_words = [MASK_SIGN in text or any(map(str.isalpha, text)) for text in texts]
        return [
            str(name) if is_text else "" for name, is_text in zip(names, has_words, strict=True)
        ]

    def of_learned(self, author: str) -> list[str]:
        """Attribute the author's own training texts by five-fold cross-validation."""
        from sklearn.model_selection import (
            StratifiedKFold,
            cross_val_predict,
        )  # scikit-learn takes a second to load

        folds = StratifiedKFold(CROSS_VALIDATION_FOLDS, shuffle=True, random_state=0)
        names = cross_val_predict(_new_classifier(), self._texts, self._names, cv=folds)
        return [
            str(name)
            for name, author_of in zip(names, self._names, strict=True)
            if author_of == author
        ]


class ContentMask:
    """Masks the content words of texts: each word but the `FUNCTION_WORDS` commonest becomes one
    sign.

    Follows the text distortion of Stamatatos (EACL 2017), which leaves the words that say little on
    the topic. Common are words that all authors use: their rank is by the share of texts that have
    them, of the author who uses them least. A character's own words are therefore masked, too.
    """

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        """`texts` are the training texts of each author, at least one each."""
        shares = [
            {
                word: count / len(of)
                for word, count in Counter(w for text in of for w in set(split_words(text))).items()
            }
            for of in texts
        ]
        common = set.intersection(*map(set, shares))
        ranked = sorted(common, key=lambda word: (-min(share[word] for share in shares), word))
        self._kept = frozenset(ranked[:FUNCTION_WORDS])

    def __call__(self, text: str) -> str:
        return WORD.sub(
            lambda word: word[0] if word[0].casefold() in self._kept else MASK_SIGN, text
        )


def measure_voice(
    persona: Persona,
    voices: Mapping[str, AuthorTexts],
    answers: Sequence[GeneratedReply],
    sides: Sequence[Side],
    seeds: Sequence[int],
) -> VoiceScores:
    """Measure the attribution of replies to held-out prompts. `voices` are at least two, including
    the persona's.
    """
    own = voices[persona.id]
    authors = AuthorshipClassifier({name: known.trained for name, known in voices.items()})
    other_texts = [
        of.heldout for name, of in voices.items() if name not in (persona.id, MEMBERS_VOICE)
    ]
    others = [text for texts in other_texts for text in texts]
    runs = {
        side: [select_replies(answers, HELDOUT_TASK, side=side, seed=seed) for seed in seeds]
        for side in sides
    }
    taken = {side: [authors.of([it.text for it in run]) for run in of] for side, of in runs.items()}
    near = _EmbeddingSimilarity(own.trained)

    def right(names: Sequence[str]) -> float:
        return true_share(name == persona.id for name in names)

    return VoiceScores(
        replies=sum(len(run) for of in runs.values() for run in of),
        prompts=len({it.prompt.number for it in answers if it.prompt.task == HELDOUT_TASK}),
        classes=tuple(voices),
        right={
            side: mean_std([right(names) for names in of if names]) for side, of in taken.items()
        },
        ceiling=right(authors.of(own.heldout)),
        floor=right(authors.of(others)),
        similarity={
            side: mean_std([near.mean([it.text for it in run]) for run in of if run])
            for side, of in runs.items()
        },
        similarity_ceiling=near.mean(own.heldout),
        similarity_floor=near.mean(others),
        taken_as={
            side: _shares([name for names in of for name in names]) for side, of in taken.items()
        },
        trained_as=_shares(authors.of_learned(persona.id)),
        reads_english=true_share(map(is_mostly_ascii, own.trained)),
    )


class _EmbeddingSimilarity:
    """Mean cosine similarity to the persona's own texts, by the embedding model."""

    def __init__(self, own: Sequence[str]) -> None:
        self._centre: Vectors = load_minilm().embed(_subsample(own)).mean(axis=0)

    def mean(self, texts: Sequence[str]) -> float:
        few = _subsample([text for text in texts if text.strip()])
        return float((load_minilm().embed(few) @ self._centre).mean()) if few else 0.0


def _subsample(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=lambda text: hash_fraction("nearness", text))[:MAX_EMBEDDED_TEXTS]


def _new_vectoriser() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer  # as above

    return TfidfVectorizer(
        analyzer="char", ngram_range=(1, 3), lowercase=False, sublinear_tf=True, min_df=2
    )


def _new_classifier() -> Any:
    from sklearn.svm import LinearSVC  # as above

    return LinearSVC(class_weight="balanced", random_state=0)


def _shares(names: Sequence[str]) -> dict[str, float]:
    return {name or "nobody": count / len(names) for name, count in Counter(names).most_common()}


def _own_texts(data: Dataset) -> AuthorTexts:
    """Return the replies of a data set's persona."""

    def replies(pairs: Iterable[PromptReply]) -> tuple[str, ...]:
        return tuple(pair.reply for pair in pairs if pair.by_persona)

    return AuthorTexts(replies(data.train_prompt_replies), replies(data.heldout_prompt_replies))


def _split_texts(texts: Iterable[str]) -> AuthorTexts:
    is_held_out = {text: hash_fraction("voice apart", text) < HELDOUT_SHARE for text in texts}
    trained, heldout = (
        tuple(text for text, held in is_held_out.items() if held is side) for side in (False, True)
    )
    return AuthorTexts(trained, heldout)


def _persona_texts(log: Path, persona: Persona) -> list[str]:
    """Return a persona's replies in a log if training on it is permitted."""
    statement = read_statement(log)
    decide_right(
        log.name, stated=statement.right if statement else "", consent=NO_CONSENT
    ).require()
    talks = [
        it for it in read_usable(log, ReadOptions(persona=persona)) if isinstance(it, Conversation)
    ]
    return [
        message.text for talk in talks for message in talk.messages if message.speaker.is_persona
    ]
