"""The workload of a run: sample lengths, grouping by length, and batch shapes."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from personas.prompt.renderer import TokenizedSample
from personas.schemas.hyperparameters import PreferenceMethod
from trainer.estimate.model_shape import ModelShape
from trainer.schemas import Recipe

BATCHES_PER_LENGTH_GROUP = 8
"""Batches sorted by length together: enough to save padding, few enough to stay in random order."""
DEFAULT_REPLY_SHARE = 0.25
"""Assumed share of a sample's tokens with loss, where they are not counted."""
EVAL_BATCH_SIZE = 16
"""Samples measured at once."""
EVAL_BATCH_TOKENS = 8192
"""Their tokens with padding: fewer samples where they are long."""
LOSS_CHUNK_TOKENS = 256
"""Trained tokens whose logits are held at once, where the model's head allows it
(`trainer.train.collator`).
"""
MAX_ROW_TOKENS = 4096
"""Tokens of a row that samples share on a GPU: its attention mask grows with their square."""


def common_prefix_length(texts: Collection[str] | Collection[tuple[int, ...]]) -> int:
    """Count the elements that all sequences start with."""
    # What the first and last in order share, all between them share, too.
    first = min(texts)
    last = max(texts)
    length = 0
    for element, other in zip(first, last, strict=False):
        if element != other:
            break
        length += 1
    return length


def group_by_length(lengths: Sequence[int], batch_size: int, seed: int) -> list[int]:
    """Return a random order in which the samples of a batch have similar lengths.

    Shuffles, cuts into windows of `BATCHES_PER_LENGTH_GROUP` batches, sorts each by length, and
    shuffles its batches; an incomplete batch comes last. Each sample appears once.
    """
    shuffle = random.Random(seed)  # nosec B311  # repeatable
    order = shuffle.sample(range(len(lengths)), len(lengths))
    window = batch_size * BATCHES_PER_LENGTH_GROUP
    result: list[int] = []
    for start in range(0, len(order), window):
        by_length = sorted(order[start : start + window], key=lengths.__getitem__, reverse=True)
        starts = range(0, len(by_length), batch_size)
        batches = [by_length[first : first + batch_size] for first in starts]
        shuffle.shuffle(batches)
        batches.sort(key=len, reverse=True)  # stable, so that only the incomplete one moves
        result += itertools.chain.from_iterable(batches)
    return result


@dataclass(frozen=True)
class Workload:
    """Token counts of a run's training samples, held-out samples, and general samples that measure
    forgetting.

    All training samples start with the same `shared` tokens. `reply_tokens` is the mean number of
    tokens with loss; None if not counted. `judged` is the method of preference training, if any:
    then each sample is a liked or disliked reply. `drafts` is the number of replies that a model is
    yet to write before the training, `writer` the shape of that model, None where it is not known.
    """

    train: Sequence[int]
    heldout: Sequence[int]
    general: Sequence[int] = ()
    shared: int = 0
    reply_tokens: float | None = None
    judged: PreferenceMethod | None = None
    drafts: int = 0
    writer: ModelShape | None = None

    @property
    def at_once(self) -> int:
        """Replies per sample: a pair has two."""
        return 2 if self.judged == "dpo" else 1

    def counted(self, recipe: Recipe) -> int:
        """Samples, or pairs, per epoch."""
        return math.ceil(len(self.fitting(recipe)) / self.at_once)

    def rows(self, recipe: Recipe) -> int:
        """Samples per batch."""
        return recipe.per_device_train_batch_size * self.at_once

    def fitting(self, recipe: Recipe) -> list[int]:
        """Training samples that fit the recipe's maximum length."""
        return [tokens for tokens in self.train if tokens <= recipe.max_length]

    def largest_trained(self, recipe: Recipe) -> BatchShape:
        """The largest training batch: the longest sample, and others padded to it."""
        lengths = self.seen(recipe)
        rows = min(self.rows(recipe), max(len(lengths), 1))
        return self.batch(rows, max(lengths, default=1))

    def seen(self, recipe: Recipe) -> list[int]:
        """The fitting samples that a run reaches before `max_steps` ends its first epoch."""
        lengths = self.fitting(recipe)
        rows = recipe.per_device_train_batch_size
        samples = recipe.max_steps * recipe.gradient_accumulation_steps * rows or len(lengths)
        # What is judged comes in another order (`arrange_batches`).
        if self.judged or samples >= len(lengths):
            return lengths
        return [lengths[place] for place in group_by_length(lengths, rows, recipe.seed)[:samples]]

    def largest_measured(self, recipe: Recipe) -> BatchShape:
        """The largest batch of held-out samples."""
        longest = min(max(self.heldout, default=1), recipe.max_length)
        rows = min(EVAL_BATCH_SIZE, max(EVAL_BATCH_TOKENS // longest, 1), max(len(self.heldout), 1))
        return self.batch(rows, longest)

    def batch(self, rows: int, longest: int) -> BatchShape:
        """Shape of `rows` samples padded to `longest` tokens. A single row shares its whole prompt
        with itself.
        """
        replies = longest * DEFAULT_REPLY_SHARE if self.reply_tokens is None else self.reply_tokens
        alone = longest - 1 - round(replies) if rows == 1 else 0
        shared = min(max(self.shared, alone), longest - 1)
        return BatchShape(
            rows, longest - shared, shared, round(rows * replies), judged=self.judged is not None
        )


class WorkloadCounter:
    """Builds a workload sample by sample. `trained_tokens` counts tokens with loss."""

    def __init__(self) -> None:
        self._train: list[int] = []
        self._heldout: list[int] = []
        # The first and last sample in sorted order are enough to find a common prefix of all.
        self._ends: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._shortest_prompt = 0
        self.trained_tokens = 0

    @property
    def trained(self) -> int:
        """Number of training samples."""
        return len(self._train)

    @property
    def held_out(self) -> int:
        """Number of held-out samples."""
        return len(self._heldout)

    def train_on(self, sample: TokenizedSample) -> None:
        """Add a training sample."""
        prompt = sample.mask.index(True)
        ids = sample.ids
        if self._ends is None:
            self._shortest_prompt = prompt
            self._ends = (ids, ids)
        else:
            first, last = self._ends
            self._shortest_prompt = min(prompt, self._shortest_prompt)
            self._ends = (min(ids, first), max(ids, last))
        self.trained_tokens += sample.reply_tokens
        self._train.append(len(ids))

    def hold_out(self, sample: TokenizedSample) -> None:
        """Add a held-out sample."""
        self._heldout.append(len(sample.ids))

    def work(
        self, general: Iterable[TokenizedSample] = (), judged: PreferenceMethod | None = None
    ) -> Workload:
        """Return the workload; requires a training sample."""
        assert self._ends is not None
        shared = min(common_prefix_length(self._ends), self._shortest_prompt - 1)
        general_lengths = [len(sample.ids) for sample in general]
        replies = self.trained_tokens / len(self._train)
        return Workload(
            self._train,
            self._heldout,
            general_lengths,
            shared=max(shared, 0),
            reply_tokens=replies,
            judged=judged,
        )


def workload_of(
    train: Iterable[TokenizedSample],
    heldout: Iterable[TokenizedSample],
    general: Iterable[TokenizedSample] = (),
    judged: PreferenceMethod | None = None,
) -> Workload:
    """Return the workload of samples; requires a training sample."""
    count = WorkloadCounter()
    for sample in train:
        count.train_on(sample)
    for sample in heldout:
        count.hold_out(sample)
    return count.work(general, judged)


@dataclass(frozen=True)
class BatchShape:
    """Shape of a batch: `rows` of `own` padded tokens after `shared` ones computed once; `trained`
    tokens have loss.

    `judged`: replies are preferred or rejected, whose logits are all held at once.
    """

    rows: int
    own: int
    shared: int
    trained: int
    judged: bool = False

    @property
    def whole(self) -> BatchShape:
        """The same batch without sharing."""
        return replace(self, own=self.own + self.shared, shared=0)

    @property
    def in_rows(self) -> BatchShape:
        """The same tokens behind each other, the shared ones once, at most `MAX_ROW_TOKENS` a row
        where the samples are shorter.
        """
        tokens = self.rows * self.own + self.shared
        rows = math.ceil(tokens / max(MAX_ROW_TOKENS, self.own + self.shared))
        return replace(self, rows=rows, own=math.ceil(tokens / rows), shared=0)

    @property
    def parts(self) -> tuple[BatchShape, ...]:
        """Token groups that pass through the layers one after another."""
        return (BatchShape(1, self.shared, 0, 0), self) if self.shared else (self,)

    @property
    def tokens(self) -> int:
        """Number of computed tokens."""
        return self.rows * self.own + self.shared
