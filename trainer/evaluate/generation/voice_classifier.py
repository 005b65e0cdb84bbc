"""Authorship classifier, which measures how much replies sound like the persona."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from personas.schemas.chat import Persona
from personas.schemas.scorecard import HELDOUT_TASK, MeanStd, Side, VoiceScores
from trainer.dataset.dedup_split import hash_fraction
from trainer.evaluate.generation.author_texts import AuthorTexts, other_voices
from trainer.evaluate.generation.reply_tasks import (
    GeneratedReply,
    select_replies,
    true_share,
)
from trainer.evaluate.generation.text_metrics import WORD, split_words

MAX_CLASS_TEXTS = 300  # training texts of a class
CROSS_VALIDATION_FOLDS = 5
FUNCTION_WORDS = 150
MASK_SIGN = "■"


class AuthorshipClassifier:
    """Attributes texts to the authors it was trained on."""

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        """`texts` are the training texts by author; some 300 of each are as good as all."""
        names: list[str] = []
        chosen: list[str] = []
        for name, written in texts.items():
            shuffled = sorted(written, key=lambda text: hash_fraction("voice", text))
            some = shuffled[:MAX_CLASS_TEXTS]
            chosen += some
            names += [name] * len(some)
        self._names = np.array(names)
        self._grams = _new_vectoriser()
        self._texts = self._grams.fit_transform(chosen)
        self._model = _new_classifier().fit(self._texts, self._names)

    def of(self, texts: Sequence[str]) -> list[str]:
        """Return the most likely author of each text; the empty name for texts without letters or
        masked words.
        """
        if not texts:
            return []
        names = self._model.predict(self._grams.transform(texts))
        authors = []
        for text, name in zip(texts, names, strict=True):
            # A text whose words are all masked still has signs and lengths of sentences.
            has_words = MASK_SIGN in text or any(map(str.isalpha, text))
            authors.append(str(name) if has_words else "")
        return authors

    def of_learned(self, author: str) -> list[str]:
        """Attribute the author's own training texts by five-fold cross-validation."""
        # scikit-learn takes a second to load
        from sklearn.model_selection import StratifiedKFold, cross_val_predict

        folds = StratifiedKFold(CROSS_VALIDATION_FOLDS, shuffle=True, random_state=0)
        names = cross_val_predict(_new_classifier(), self._texts, self._names, cv=folds)
        return [str(name) for name in names[self._names == author]]


class ContentMask:
    """Masks the content words of texts: each word but the `FUNCTION_WORDS` commonest becomes one
    sign.

    Follows the text distortion of Stamatatos (EACL 2017), which leaves the words that say little on
    the topic. Common are words that all authors use: their rank is by the share of texts that have
    them, of the author who uses them least. A character's own words are therefore masked, too.
    """

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        """`texts` are the training texts of each author, at least one each."""
        shares: list[dict[str, float]] = []
        for written in texts:
            counts = Counter[str]()
            for text in written:
                counts.update(set(split_words(text)))
            shares.append({word: count / len(written) for word, count in counts.items()})

        def order_key(word: str) -> tuple[float, str]:
            return -min(share[word] for share in shares), word

        common = set.intersection(*map(set, shares))
        self._kept = frozenset(sorted(common, key=order_key)[:FUNCTION_WORDS])

    def __call__(self, text: str) -> str:
        def replacement(word: re.Match[str]) -> str:
            return word[0] if word[0].casefold() in self._kept else MASK_SIGN

        return WORD.sub(replacement, text)


def measure_voice(
    persona: Persona,
    voices: Mapping[str, AuthorTexts],
    answers: Sequence[GeneratedReply],
    sides: Sequence[Side],
    seeds: Sequence[int],
    *,
    is_copy: Callable[[str], bool] = lambda text: False,
) -> VoiceScores:
    """Measure the attribution of replies to held-out prompts. `voices` are at least two, including
    the persona's; no copy is the persona's.
    """
    own = voices[persona.id]
    authors = AuthorshipClassifier({name: known.trained for name, known in voices.items()})
    others: list[str] = []
    for voice in other_voices(persona, voices):
        others += voice.heldout

    def right(texts: Sequence[str], names: Sequence[str]) -> float:
        hits = zip(texts, names, strict=True)
        return true_share(name == persona.id and not is_copy(text) for text, name in hits)

    replies = 0
    right_by_side: dict[Side, MeanStd] = {}
    taken_as: dict[Side, dict[str, float]] = {}
    for side in sides:
        runs = []
        for seed in seeds:
            run = select_replies(answers, HELDOUT_TASK, side=side, seed=seed)
            if run:
                runs.append([reply.text for reply in run])
        names = [authors.of(texts) for texts in runs]
        replies += sum(map(len, runs))
        right_by_side[side] = MeanStd.of(list(map(right, runs, names)))
        taken_as[side] = _shares(list(chain.from_iterable(names)))
    prompts = [answer.prompt for answer in answers if answer.prompt.task == HELDOUT_TASK]
    return VoiceScores(
        replies=replies,
        # Seeds may share prompts: the gate counts these as its trials, not the replies.
        prompts=len({prompt.number for prompt in prompts}),
        classes=tuple(voices),
        right=right_by_side,
        ceiling=right(own.heldout, authors.of(own.heldout)),
        floor=right(others, authors.of(others)),
        taken_as=taken_as,
        trained_as=_shares(authors.of_learned(persona.id)),
    )


def _new_vectoriser() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer  # as above

    # One to three characters: on the shipped personas' real texts, three to five took more of one
    # persona's for another's (docs/quality.md has the figures). Case and signs are style, too.
    return TfidfVectorizer(
        analyzer="char", ngram_range=(1, 3), lowercase=False, sublinear_tf=True, min_df=2
    )


def _new_classifier() -> Any:
    from sklearn.svm import LinearSVC  # as above

    # Balanced, because authors may have ten texts or three hundred.
    return LinearSVC(class_weight="balanced", random_state=0)


def _shares(names: Sequence[str]) -> dict[str, float]:
    shares = {}
    for name, count in Counter(names).most_common():
        shares[name or "nobody"] = count / len(names)
    return shares
