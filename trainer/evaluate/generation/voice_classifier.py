"""Authorship classifier and embedding similarity, which measure how much replies sound like the persona."""

from __future__ import annotations

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
from trainer.data.dataset import Dataset
from trainer.data.dedup_split import hash_fraction
from trainer.evaluate.generation.reply_tasks import DATA_FOLDER, GeneratedReply, mean_std, select_replies, true_share
from trainer.schemas import PromptReply
from trainer.sources.conversation import Conversation
from trainer.sources.reader import read_usable
from trainer.sources.source_format import ReadOptions

"""Classes that are no persona's."""
HELDOUT_SHARE = 0.15
"""Share of others' replies that is not learned from, where nothing else says which."""
MAX_CLASS_TEXTS, MIN_CLASS_TEXTS = 300, 10
"""Texts of one class that are learned from, at most; with fewer it is left out."""
MAX_EMBEDDED_TEXTS, CROSS_VALIDATION_FOLDS = 80, 5


@dataclass(frozen=True)
class AuthorTexts:
    """Texts of a known author: those for training, and the held-out ones."""

    trained: tuple[str, ...]
    heldout: tuple[str, ...]


def collect_voices(data: Dataset, others: Mapping[str, Dataset]) -> dict[str, AuthorTexts]:
    """Return the persona's texts under its id first, then those of every other class with enough texts.

    Other personas are those given, or by default the shipped ones.
    """
    assert data.persona is not None  # nobody asks who speaks in general dialogue
    own = AuthorTexts(_replies(data.train_prompt_replies), _replies(data.heldout_prompt_replies))
    messages = [it.message for it in data.train_prompt_replies if it.by_persona]
    apart = [it.message for it in data.heldout_prompt_replies if it.by_persona]
    voices = {
        name: AuthorTexts(_replies(it.train_prompt_replies), _replies(it.heldout_prompt_replies))
        for name, it in others.items()
    }
    found = {
        **(voices or shipped_voices(data.persona)),
        GENERAL_VOICE: _split_texts([it.reply for it in data.general_prompt_replies]),
        MEMBERS_VOICE: AuthorTexts(tuple(messages), tuple(apart)),
    }  # fmt: skip
    enough = {name: known for name, known in found.items() if len(known.trained) >= MIN_CLASS_TEXTS and known.heldout}
    return {data.persona.id: own, **enough}


def shipped_voices(persona: Persona) -> dict[str, AuthorTexts]:
    """Return the replies of the shipped personas except this one."""
    cards = read_cards(SHIPPED_CARDS)
    logs = {name: DATA_FOLDER / "logs" / f"{name}.json" for name in cards if name != persona.id}
    return {name: _split_texts(_persona_texts(log, cards[name])) for name, log in logs.items() if log.is_file()}


class AuthorshipClassifier:
    """Attributes texts to the authors it was trained on."""

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        """`texts` are the training texts by author; some 300 of each are as good as all."""
        few = {
            name: sorted(said, key=lambda text: hash_fraction("voice", text))[:MAX_CLASS_TEXTS]
            for name, said in texts.items()
        }
        self._names = np.array([name for name, said in few.items() for _ in said])
        self._grams = _vectoriser()
        self._texts = self._grams.fit_transform([text for said in few.values() for text in said])
        self._model = _new_classifier().fit(self._texts, self._names)

    def of(self, texts: Sequence[str]) -> list[str]:
        """Return the most likely author of each text; the empty name for texts without letters."""
        found = self._model.predict(self._grams.transform(texts)) if texts else ()
        return [str(name) if any(map(str.isalpha, text)) else "" for name, text in zip(found, texts, strict=True)]

    def of_learned(self, author: str) -> list[str]:
        """Attribute the author's own training texts by five-fold cross-validation."""
        from sklearn.model_selection import StratifiedKFold, cross_val_predict

        parts = StratifiedKFold(CROSS_VALIDATION_FOLDS, shuffle=True, random_state=0)
        found = cross_val_predict(_new_classifier(), self._texts, self._names, cv=parts)
        return [str(name) for name, author_of in zip(found, self._names, strict=True) if author_of == author]


def measure_voice(
    persona: Persona,
    voices: Mapping[str, AuthorTexts],
    answers: Sequence[GeneratedReply],
    sides: Sequence[Side],
    seeds: Sequence[int],
) -> VoiceScores:
    """Measure the attribution of replies to held-out prompts. `voices` are at least two, including the persona's."""
    own, authors = voices[persona.id], AuthorshipClassifier({name: known.trained for name, known in voices.items()})
    others = [
        text for name, known in voices.items() if name not in (persona.id, MEMBERS_VOICE) for text in known.heldout
    ]
    runs = {side: [select_replies(answers, HELDOUT_TASK, side=side, seed=seed) for seed in seeds] for side in sides}
    taken = {side: [authors.of([it.text for it in run]) for run in of] for side, of in runs.items()}
    near = _EmbeddingSimilarity(own.trained)

    def right(names: Sequence[str]) -> float:
        return true_share(name == persona.id for name in names)

    return VoiceScores(
        replies=sum(len(run) for of in runs.values() for run in of),
        classes=tuple(voices),
        right={side: mean_std([right(names) for names in of if names]) for side, of in taken.items()},
        ceiling=right(authors.of(own.heldout)),
        floor=right(authors.of(others)),
        similarity={side: mean_std([near.mean([it.text for it in run]) for run in of if run])
                    for side, of in runs.items()},
        similarity_ceiling=near.mean(own.heldout),
        similarity_floor=near.mean(others),
        taken_as={side: _shares([name for names in of for name in names]) for side, of in taken.items()},
        trained_as=_shares(authors.of_learned(persona.id)),
        reads_english=true_share(map(is_mostly_ascii, own.trained)),
    )  # fmt: skip


class _EmbeddingSimilarity:
    """Mean cosine similarity to the persona's own texts, by the embedding model."""

    def __init__(self, own: Sequence[str]) -> None:
        self._centre: Vectors = load_minilm().embed(_subsample(own)).mean(axis=0)

    def mean(self, texts: Sequence[str]) -> float:
        spoken = _subsample([text for text in texts if text.strip()])
        return float((load_minilm().embed(spoken) @ self._centre).mean()) if spoken else 0.0


def _subsample(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=lambda text: hash_fraction("nearness", text))[:MAX_EMBEDDED_TEXTS]


def _vectoriser() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer="char", ngram_range=(3, 5), lowercase=False, sublinear_tf=True, min_df=2)


def _new_classifier() -> Any:
    from sklearn.svm import LinearSVC

    return LinearSVC(class_weight="balanced", random_state=0)


def _shares(names: Sequence[str]) -> dict[str, float]:
    return {name or "nobody": count / len(names) for name, count in Counter(names).most_common()}


def _replies(said: Iterable[PromptReply]) -> tuple[str, ...]:
    return tuple(it.reply for it in said if it.by_persona)


def _split_texts(texts: Iterable[str]) -> AuthorTexts:
    apart: dict[bool, list[str]] = {True: [], False: []}
    for text in dict.fromkeys(texts):
        apart[hash_fraction("voice apart", text) < HELDOUT_SHARE].append(text)
    return AuthorTexts(tuple(apart[False]), tuple(apart[True]))


def _persona_texts(log: Path, persona: Persona) -> list[str]:
    """Return a persona's replies in a log if training on it is permitted."""
    statement = read_statement(log)
    decide_right(log.name, stated=statement.right if statement else "", consent=NO_CONSENT).require()
    talks = [it for it in read_usable(log, ReadOptions(persona=persona)) if isinstance(it, Conversation)]
    return [message.text for talk in talks for message in talk.messages if message.speaker.is_persona]
