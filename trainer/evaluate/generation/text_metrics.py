"""Text metrics: ROUGE, BLEU, chrF, distinct-n, repetition and length ratio."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any

from personas.lore.index_terms import UNSEGMENTED_SCRIPTS
from personas.schemas.scorecard import Side, TextScores
from trainer.evaluate.generation.reply_tasks import (
    GeneratedReply,
    mean_std,
    select_replies,
    true_share,
)

WORD = re.compile(rf"[{UNSEGMENTED_SCRIPTS}]|[^\W_{UNSEGMENTED_SCRIPTS}]+")
"""In scripts without spaces each character is a word; ROUGE's own tokenizer knows only a to z."""
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
REPETITION_WORDS = 4

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
    several = [
        [reference] if isinstance(reference, str) else list(reference) for reference in references
    ]
    words = [split_words(text) for text in candidates]
    return {
        **_rouge(several, candidates),
        **_by_sacrebleu(several, candidates),
        "distinct1": _distinct(words, 1),
        "distinct2": _distinct(words, 2),
        "repetition": _repetition(words),
        "length_ratio": _length_ratio(several, words),
    }


def text_scores(
    task: str,
    answers: Sequence[GeneratedReply],
    sides: Iterable[Side],
    seeds: Sequence[int],
    references: Mapping[int, Any],
) -> TextScores | None:
    """Score a task's replies against `references` by prompt number, as means over the runs; None
    without replies.
    """
    runs: dict[Side, list[dict[str, float]]] = {}
    for side in sides:
        for seed in seeds:
            if replies := select_replies(answers, task, side=side, seed=seed):
                scores = score_texts(
                    [references[it.prompt.number] for it in replies], [it.text for it in replies]
                )
                runs.setdefault(side, []).append(
                    scores | {"ended": true_share(it.ended for it in replies)}
                )
    if not runs:
        return None
    names = next(iter(runs.values()))[0]
    scores_of = {
        name: {side: mean_std([run[name] for run in of]) for side, of in runs.items()}
        for name in names
    }
    prompts = len({it.prompt.number for it in answers if it.prompt.task == task})
    return TextScores(task=task, prompts=prompts, scores=scores_of)


def _rouge(references: Sequence[Sequence[str]], candidates: Sequence[str]) -> dict[str, float]:
    scorer = _rouge_scorer()
    scores = [scorer.score_multi(of, text) for of, text in zip(references, candidates, strict=True)]
    return {name: fmean(of[name].fmeasure for of in scores) for name in ROUGE_TYPES}


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any:
    # It takes a second, and only generated replies need it.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE_TYPES), tokenizer=_RougeTokenizer())


class _RougeTokenizer:
    """A tokenizer with the interface of rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return split_words(text)


def _by_sacrebleu(
    references: Sequence[Sequence[str]], candidates: Sequence[str]
) -> dict[str, float]:
    from sacrebleu.metrics.bleu import BLEU  # as above
    from sacrebleu.metrics.chrf import CHRF

    most = max(map(len, references))
    # Each candidate needs as many references; repeating the first one changes nothing.
    streams = [[of[at] if at < len(of) else of[0] for of in references] for at in range(most)]
    bleu: Callable[..., Any] = BLEU(
        tokenize="char" if is_unsegmented(streams[0]) else "13a", force=True
    ).corpus_score
    return {
        "bleu": bleu(candidates, streams).score / 100,
        "chrf": CHRF().corpus_score(candidates, streams).score / 100,
    }


def is_unsegmented(texts: Iterable[str]) -> bool:
    """Report whether most letters belong to scripts without spaces between words."""
    letters = [letter for text in texts for letter in text if letter.isalpha()]
    return (
        true_share(re.match(f"[{UNSEGMENTED_SCRIPTS}]", letter) is not None for letter in letters)
        > 0.5
    )


def _ngrams(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + length]) for at in range(len(words) - length + 1)]


def _distinct(texts: Iterable[Sequence[str]], length: int) -> float:
    ngrams = [ngram for words in texts for ngram in _ngrams(words, length)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _repetition(texts: Iterable[Sequence[str]]) -> float:
    ngrams = [_ngrams(words, REPETITION_WORDS) for words in texts]
    count = sum(map(len, ngrams))
    return 1 - sum(len(set(of_one)) for of_one in ngrams) / count if count else 0.0


def repeated_share(text: str, earlier: Iterable[str] = ()) -> float:
    """Return the share of a text's four-word runs that occurred before in it or in `earlier` texts;
    0 without runs.
    """
    seen = {run for other in earlier for run in _ngrams(split_words(other), REPETITION_WORDS)}
    runs = _ngrams(split_words(text), REPETITION_WORDS)
    repeated = 0
    for run in runs:
        repeated += run in seen
        seen.add(run)
    return repeated / len(runs) if runs else 0.0


def _length_ratio(
    references: Iterable[Sequence[str]], candidates: Iterable[Sequence[str]]
) -> float:
    length = sum(fmean(len(split_words(text)) for text in of_one) for of_one in references)
    return sum(map(len, candidates)) / length if length else 0.0
