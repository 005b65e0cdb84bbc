"""Who a classifier takes replies to be by, and how near their meaning is to what the persona says.

Character 3- to 5-grams weighed by TF-IDF and a linear support vector machine: the usual baseline of authorship
attribution, which needs no model and no language. It learns from real replies that are not held out: the persona's,
those of other personas, general dialogue, and what members say in the same talk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from personas.card import SHIPPED_CARDS, read_cards
from personas.consent import NOBODY
from personas.contracts import Persona
from personas.lore.minilm import Vectors, minilm
from personas.lore.words import reads_as_english
from personas.rights import decide, statement_beside
from personas.scorecard import Side, Voice
from trainer.building.split import drawn
from trainer.conversation import Conversation
from trainer.dataset import Dataset
from trainer.exchange import Exchange
from trainer.scorecard.spoken.answers import HELDOUT, Answer, answers_of, share, spread
from trainer.scorecard.spoken.material import SHIPPED
from trainer.sources import ReadOptions, usable

GENERAL, MEMBERS = "general", "members"
"""Classes that are no persona's."""
APART = 0.15
"""Share of others' replies that is not learned from, where nothing else says which."""
MOST, FEWEST = 300, 10
"""Texts of one class that are learned from, at most; with fewer it is left out."""
EMBEDDED, FOLDS = 80, 5


@dataclass(frozen=True)
class Known:
    """Texts of which it is known who wrote them: those to learn from, and those that were kept from that."""

    trained: tuple[str, ...]
    heldout: tuple[str, ...]


def voices_of(data: Dataset, others: Mapping[str, Dataset]) -> dict[str, Known]:
    """The persona's texts first, by its id, then those of every other class there is enough of.

    The other personas are those given or, without any, those that ship.
    """
    assert data.persona is not None  # nobody asks who speaks in general dialogue
    own = Known(_replies(data.said_train), _replies(data.said_heldout))
    messages = [it.message for it in data.said_train if it.by_persona]
    apart = [it.message for it in data.said_heldout if it.by_persona]
    found = {
        **({name: Known(_replies(it.said_train), _replies(it.said_heldout)) for name, it in others.items()}
           or shipped_voices(data.persona)),
        GENERAL: _parted([it.reply for it in data.said_general]),
        MEMBERS: Known(tuple(messages), tuple(apart)),
    }  # fmt: skip
    enough = {name: known for name, known in found.items() if len(known.trained) >= FEWEST and known.heldout}
    return {data.persona.id: own, **enough}


def shipped_voices(persona: Persona) -> dict[str, Known]:
    """The replies of the personas that ship, without this one."""
    cards = read_cards(SHIPPED_CARDS)
    logs = {name: SHIPPED / "logs" / f"{name}.json" for name in cards if name != persona.id}
    return {name: _parted(_said_in(log, cards[name])) for name, log in logs.items() if log.is_file()}


class Authors:
    """Tells by whom a text is, among those whose texts it has learned from."""

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        """`texts` are those of each author; some 300 of each are as good as all."""
        few = {name: sorted(said, key=lambda text: drawn("voice", text))[:MOST] for name, said in texts.items()}
        self._names = np.array([name for name, said in few.items() for _ in said])
        self._grams = _grams()
        self._texts = self._grams.fit_transform([text for said in few.values() for text in said])
        self._model = _untrained().fit(self._texts, self._names)

    def of(self, texts: Sequence[str]) -> list[str]:
        """By whom each text is, most likely. One without letters is by nobody: an empty name."""
        found = self._model.predict(self._grams.transform(texts)) if texts else ()
        return [str(name) if any(map(str.isalpha, text)) else "" for name, text in zip(found, texts, strict=True)]

    def of_learned(self, author: str) -> list[str]:
        """By whom each of the author's own texts would be, had it not been learned: in five parts, each by the rest."""
        from sklearn.model_selection import StratifiedKFold, cross_val_predict

        parts = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        found = cross_val_predict(_untrained(), self._texts, self._names, cv=parts)
        return [str(name) for name, author_of in zip(found, self._names, strict=True) if author_of == author]


def measure_voice(
    persona: Persona,
    voices: Mapping[str, Known],
    answers: Sequence[Answer],
    sides: Sequence[Side],
    seeds: Sequence[int],
) -> Voice:
    """Who is heard in the replies to held-out prompts. `voices` are two at least, the persona's among them."""
    own, authors = voices[persona.id], Authors({name: known.trained for name, known in voices.items()})
    others = [text for name, known in voices.items() if name not in (persona.id, MEMBERS) for text in known.heldout]
    runs = {side: [answers_of(answers, HELDOUT, side=side, seed=seed) for seed in seeds] for side in sides}
    taken = {side: [authors.of([it.text for it in run]) for run in of] for side, of in runs.items()}
    near = _Nearness(own.trained)

    def right(names: Sequence[str]) -> float:
        return share(name == persona.id for name in names)

    return Voice(
        replies=sum(len(run) for of in runs.values() for run in of),
        classes=tuple(voices),
        right={side: spread([right(names) for names in of if names]) for side, of in taken.items()},
        ceiling=right(authors.of(own.heldout)),
        floor=right(authors.of(others)),
        similarity={side: spread([near.mean([it.text for it in run]) for run in of if run])
                    for side, of in runs.items()},
        similarity_ceiling=near.mean(own.heldout),
        similarity_floor=near.mean(others),
        taken_as={side: _shares([name for names in of for name in names]) for side, of in taken.items()},
        trained_as=_shares(authors.of_learned(persona.id)),
        reads_english=share(map(reads_as_english, own.trained)),
    )  # fmt: skip


class _Nearness:
    """The mean cosine of texts with the persona's own, by the embedding model."""

    def __init__(self, own: Sequence[str]) -> None:
        self._centre: Vectors = minilm().embed(_few(own)).mean(axis=0)

    def mean(self, texts: Sequence[str]) -> float:
        spoken = _few([text for text in texts if text.strip()])
        return float((minilm().embed(spoken) @ self._centre).mean()) if spoken else 0.0


def _few(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=lambda text: drawn("nearness", text))[:EMBEDDED]


def _grams() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer="char", ngram_range=(3, 5), lowercase=False, sublinear_tf=True, min_df=2)


def _untrained() -> Any:
    from sklearn.svm import LinearSVC

    return LinearSVC(class_weight="balanced", random_state=0)


def _shares(names: Sequence[str]) -> dict[str, float]:
    return {name or "nobody": count / len(names) for name, count in Counter(names).most_common()}


def _replies(said: Iterable[Exchange]) -> tuple[str, ...]:
    return tuple(it.reply for it in said if it.by_persona)


def _parted(texts: Iterable[str]) -> Known:
    apart: dict[bool, list[str]] = {True: [], False: []}
    for text in dict.fromkeys(texts):
        apart[drawn("voice apart", text) < APART].append(text)
    return Known(tuple(apart[False]), tuple(apart[True]))


def _said_in(log: Path, persona: Persona) -> list[str]:
    """What a persona says in a log, if that may be learned from."""
    statement = statement_beside(log)
    decide(log.name, signed=statement.right if statement else "", consent=NOBODY).require()
    talks = [it for it in usable(log, ReadOptions(persona=persona)) if isinstance(it, Conversation)]
    return [message.text for talk in talks for message in talk.messages if message.speaker.is_persona]
