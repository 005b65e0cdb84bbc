"""Text metrics: ROUGE, BLEU, chrF, distinct-n, repetition and length ratio."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any

from personas.lore.index_terms import UNSEGMENTED_SCRIPTS
from personas.schemas.scorecard import Side, TextScores
from trainer.evaluate.generation.reply_tasks import GeneratedReply, mean_std, select_replies, true_share

WORD = re.compile(rf"[{UNSEGMENTED_SCRIPTS}]|[^\W_{UNSEGMENTED_SCRIPTS}]+")
"""Words, or characters in scripts without spaces: ROUGE's own tokenizer knows only a to z."""
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
REPETITION_WORDS = 4  # words that are a repetition when they come again in one reply

References = Sequence[str | Sequence[str]]


def split_words(text: str) -> list[str]:
    """Split a text into lower-case words."""
    return WORD.findall(text.casefold())


def score_texts(references: References, candidates: Sequence[str]) -> dict[str, float]:
    """Score candidates, each against its reference or the best of its references.

    `rouge1`, `rouge2` and `rougeL` are mean F1; `bleu` and `chrf` are corpus scores. `distinct1` and `distinct2` are
    the shares of distinct words and bigrams in the corpus, `repetition` the share of four-word runs that occurred
    earlier in the same text, `length_ratio` the number of candidate words per reference word. Raises `ValueError` for
    empty or unequal lists.
    """
    if not candidates or len(references) != len(candidates):
        raise ValueError(f"{len(candidates)} candidates for {len(references)} references")
    several = [[known] if isinstance(known, str) else list(known) for known in references]
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
    """Score a set of tasks: each run separately, then the mean. None without replies.

    `references` are by prompt number. `ended` is the share of replies that ended by themselves.
    """
    runs: dict[Side, list[dict[str, float]]] = {}
    for side in sides:
        for seed in seeds:
            if found := select_replies(answers, task, side=side, seed=seed):
                scores = score_texts([references[it.asked.number] for it in found], [it.text for it in found])
                runs.setdefault(side, []).append(scores | {"ended": true_share(it.ended for it in found)})
    if not runs:
        return None
    names = next(iter(runs.values()))[0]
    scores_of = {name: {side: mean_std([run[name] for run in of]) for side, of in runs.items()} for name in names}
    return TextScores(task=task, prompts=len({it.asked.number for it in answers if it.asked.task == task}),
                      scores=scores_of)  # fmt: skip


def _rouge(references: Sequence[Sequence[str]], candidates: Sequence[str]) -> dict[str, float]:
    scorer = _rouge_scorer()
    found = [scorer.score_multi(known, text) for known, text in zip(references, candidates, strict=True)]
    return {name: fmean(scores[name].fmeasure for scores in found) for name in ROUGE_TYPES}


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE_TYPES), tokenizer=_RougeTokenizer())


class _RougeTokenizer:
    """A tokenizer with the interface of rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return split_words(text)


def _by_sacrebleu(references: Sequence[Sequence[str]], candidates: Sequence[str]) -> dict[str, float]:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    most = max(map(len, references))
    # As many of each are asked for; the first one a second time changes nothing.
    streams = [[known[at] if at < len(known) else known[0] for known in references] for at in range(most)]
    bleu: Callable[..., Any] = BLEU(tokenize="char" if _is_unsegmented(streams[0]) else "13a", force=True).corpus_score
    return {"bleu": bleu(candidates, streams).score / 100, "chrf": CHRF().corpus_score(candidates, streams).score / 100}


def _is_unsegmented(texts: Iterable[str]) -> bool:
    letters = [letter for text in texts for letter in text if letter.isalpha()]
    return true_share(re.match(f"[{UNSEGMENTED_SCRIPTS}]", letter) is not None for letter in letters) > 0.5


def _ngrams(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + length]) for at in range(len(words) - length + 1)]


def _distinct(texts: Iterable[Sequence[str]], length: int) -> float:
    runs = [run for words in texts for run in _ngrams(words, length)]
    return len(set(runs)) / len(runs) if runs else 0.0


def _repetition(texts: Iterable[Sequence[str]]) -> float:
    runs = [_ngrams(words, REPETITION_WORDS) for words in texts]
    count = sum(map(len, runs))
    return 1 - sum(len(set(of_one)) for of_one in runs) / count if count else 0.0


def _length_ratio(references: Iterable[Sequence[str]], candidates: Iterable[Sequence[str]]) -> float:
    known = sum(fmean(len(split_words(text)) for text in of_one) for of_one in references)
    return sum(map(len, candidates)) / known if known else 0.0
