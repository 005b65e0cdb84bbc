"""Text metrics: ROUGE, BLEU, chrF, distinct-n, repetition and length ratio."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any

from personas.schemas.scripts import UNSEGMENTED_SCRIPTS
from trainer.evaluate.generation.reply_tasks import true_share

WORD = re.compile(rf"[{UNSEGMENTED_SCRIPTS}]|[^\W_{UNSEGMENTED_SCRIPTS}]+")
"""In scripts without spaces each character is a word; ROUGE's own tokenizer knows only a to z."""
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
REPETITION_WORDS = 4
SHARED_RUN_WORDS = 8

References = Sequence[str | Sequence[str]]


def split_words(text: str) -> list[str]:
    """Split a text into lower-case words."""
    return WORD.findall(text.casefold())


def score_texts(references: References, candidates: Sequence[str]) -> dict[str, float]:
    """Score candidates, each against its reference or the best of its references.

    `rouge1`, `rouge2` and `rougeL` are mean F1; `bleu` and `chrf` are corpus scores. `distinct1`
    and `distinct2` are the shares of distinct words and bigrams in the corpus, `repetition` the
    share of four-word runs that occurred earlier in the same text, `length_ratio` the number of
    candidate words per reference word. Raises `ValueError` for empty or unequal lists.
    """
    if not candidates or len(references) != len(candidates):
        raise ValueError(f"{len(candidates)} candidates for {len(references)} references")
    alternatives: list[list[str]] = []
    for reference in references:
        alternatives.append([reference] if isinstance(reference, str) else list(reference))
    words = [split_words(text) for text in candidates]
    return {
        **_rouge(alternatives, candidates),
        **_sacrebleu(alternatives, candidates),
        "distinct1": _distinct(words, 1),
        "distinct2": _distinct(words, 2),
        "repetition": _repetition(words),
        "length_ratio": _length_ratio(alternatives, words),
    }


def _rouge(alternatives: Sequence[Sequence[str]], candidates: Sequence[str]) -> dict[str, float]:
    scorer = _rouge_scorer()
    f1: dict[str, list[float]] = {name: [] for name in ROUGE_TYPES}
    for references, text in zip(alternatives, candidates, strict=True):
        for name, score in scorer.score_multi(references, text).items():
            f1[name].append(score.fmeasure)
    return {name: fmean(values) for name, values in f1.items()}


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any:
    # The import takes a second (it loads nltk), and only generated replies need it.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE_TYPES), tokenizer=_RougeTokenizer())


class _RougeTokenizer:
    """A tokenizer with the interface of rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return split_words(text)


def _sacrebleu(
    alternatives: Sequence[Sequence[str]], candidates: Sequence[str]
) -> dict[str, float]:
    from sacrebleu.metrics.bleu import BLEU  # as above
    from sacrebleu.metrics.chrf import CHRF

    # sacrebleu takes one stream per reference, as long as the corpus. Where a candidate has fewer
    # references than another, its first is repeated, which changes no score.
    most = max(map(len, alternatives))
    padded = []
    for references in alternatives:
        padded.append([*references, *[references[0]] * (most - len(references))])
    streams = [list(stream) for stream in zip(*padded, strict=True)]
    # Its default tokenizer finds no words where none are separated: n-grams are of characters then.
    tokenize = "char" if is_unsegmented(streams[0]) else "13a"
    bleu: Callable[..., Any] = BLEU(tokenize=tokenize, force=True).corpus_score
    return {
        "bleu": bleu(candidates, streams).score / 100,
        "chrf": CHRF().corpus_score(candidates, streams).score / 100,
    }


def is_unsegmented(texts: Iterable[str]) -> bool:
    """Report whether most letters belong to scripts without spaces between words."""
    letters = list(filter(str.isalpha, "".join(texts)))
    unsegmented = re.compile(f"[{UNSEGMENTED_SCRIPTS}]")
    return true_share(unsegmented.match(letter) is not None for letter in letters) > 0.5


def word_runs(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    """Return the runs of so many words."""
    return [tuple(words[at : at + length]) for at in range(len(words) - length + 1)]


def _distinct(texts: Iterable[Sequence[str]], length: int) -> float:
    ngrams: list[tuple[str, ...]] = []
    for words in texts:
        ngrams += word_runs(words, length)
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _repetition(texts: Iterable[Sequence[str]]) -> float:
    total = 0
    distinct = 0
    for words in texts:
        ngrams = word_runs(words, REPETITION_WORDS)
        total += len(ngrams)
        # Within each text: two texts may say the same.
        distinct += len(set(ngrams))
    return 1 - distinct / total if total else 0.0


def repeated_share(text: str, earlier: Iterable[str] = ()) -> float:
    """Return the share of a text's four-word runs that occurred before in it or in `earlier` texts.

    A shorter text is one run: "No, no, no." again is a repetition. Without words, it is 0.
    """
    seen: set[tuple[str, ...]] = set()
    for other in earlier:
        seen.update(_runs(other))
    runs = _runs(text)
    repeated = 0
    for run in runs:
        repeated += run in seen
        seen.add(run)
    return repeated / len(runs) if runs else 0.0


def _runs(text: str) -> list[tuple[str, ...]]:
    words = split_words(text)
    return word_runs(words, REPETITION_WORDS) or ([tuple(words)] if words else [])


def has_shared_run(reply: str, text: str, length: int = SHARED_RUN_WORDS) -> bool:
    """Report whether both texts share a run of `length` words; in scripts without spaces, twice as
    many characters.
    """
    # A word of such a script has about two characters, each of which counts as a word here.
    if is_unsegmented([text]):
        length *= 2
    words = split_words(reply)
    known = f" {' '.join(split_words(text))} "
    for start in range(len(words) - length + 1):
        run = " ".join(words[start : start + length])
        # Between spaces, so that no run ends within a word.
        if f" {run} " in known:
            return True
    return False


def _length_ratio(
    alternatives: Iterable[Sequence[str]], candidates: Iterable[Sequence[str]]
) -> float:
    """Divide the candidates' words by the references'; of several references, by their mean."""
    lengths = []
    for references in alternatives:
        lengths.append(fmean(len(split_words(text)) for text in references))
    expected = sum(lengths)
    written = sum(map(len, candidates))
    return written / expected if expected else 0.0
