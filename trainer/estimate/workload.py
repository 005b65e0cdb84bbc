"""The workload of a run: sample lengths, the order that groups them by length, and batch shapes."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from personas.prompt import TokenizedSample
from personas.schemas.hyperparameters import PreferenceMethod
from trainer.schemas import Recipe

BATCHES_PER_LENGTH_GROUP = 8


"""So many batches are sorted by length together: enough to save padding, few enough to stay in random order."""


def group_by_length(lengths: Sequence[int], batch_size: int, seed: int) -> list[int]:
    """A random order of the samples in which those that fall into one batch are about equally long.

    Shuffled, cut into windows of `BATCHES_PER_LENGTH_GROUP` batches, sorted by length inside each, and the window's batches
    shuffled again; a batch that is not full comes last. Each sample appears once.
    """
    shuffle = random.Random(seed)
    order = shuffle.sample(range(len(lengths)), len(lengths))
    window = batch_size * BATCHES_PER_LENGTH_GROUP
    result: list[int] = []
    for start in range(0, len(order), window):
        by_length = sorted(order[start : start + window], key=lambda place: lengths[place], reverse=True)
        batches = [by_length[first : first + batch_size] for first in range(0, len(by_length), batch_size)]
        shuffle.shuffle(batches)
        batches.sort(key=len, reverse=True)
        result += [place for batch in batches for place in batch]
    return result


DEFAULT_REPLY_SHARE = 0.25


"""Of a sample's tokens, where nobody has counted those that carry loss."""


EVAL_BATCH_SIZE = 16


"""Held-out samples (`trainer.train.losses.EVAL_MAX_SAMPLES`, which would load torch)."""


@dataclass(frozen=True)
class Workload:
    """Token counts of the samples that a run would train on, hold out, and measure forgetting with.

    All that are trained on begin with the same `shared` tokens. Of each, `reply_tokens` carry loss, on average; None
    where nobody has counted. `judged` is the method by which preferences are learned, where they are: then each sample
    is a reply that was liked or not.
    """

    train: Sequence[int]
    heldout: Sequence[int]
    general: Sequence[int] = ()
    shared: int = 0
    reply_tokens: float | None = None
    judged: PreferenceMethod | None = None

    @property
    def at_once(self) -> int:
        """How many replies make what a recipe counts as one: a pair has two."""
        return 2 if self.judged == "dpo" else 1

    def counted(self, recipe: Recipe) -> int:
        """How many samples, or pairs of them, an epoch goes over."""
        return math.ceil(len(self.fitting(recipe)) / self.at_once)

    def rows(self, recipe: Recipe) -> int:
        """How many samples a batch holds."""
        return recipe.per_device_train_batch_size * self.at_once

    def fitting(self, recipe: Recipe) -> list[int]:
        """Those to train on that the recipe has room for."""
        return [tokens for tokens in self.train if tokens <= recipe.max_length]

    def largest_trained(self, recipe: Recipe) -> BatchShape:
        """The largest batch that is trained on: its longest sample, and others padded to it."""
        lengths = self.seen(recipe)
        rows = min(self.rows(recipe), max(len(lengths), 1))
        return self.batch(rows, max(lengths, default=1))

    def seen(self, recipe: Recipe) -> list[int]:
        """Of those that fit, the ones that a run comes to before `max_steps` end it in its first epoch."""
        lengths, rows = self.fitting(recipe), recipe.per_device_train_batch_size
        samples = recipe.max_steps * recipe.gradient_accumulation_steps * rows or len(lengths)
        if self.judged or samples >= len(lengths):  # what is judged comes in another order
            return lengths
        return [lengths[place] for place in group_by_length(lengths, rows, recipe.seed)[:samples]]

    def largest_measured(self, recipe: Recipe) -> BatchShape:
        """The largest batch of held-out samples."""
        longest = min(max(self.heldout, default=1), recipe.max_length)
        return self.batch(min(EVAL_BATCH_SIZE, max(len(self.heldout), 1)), longest)

    def batch(self, rows: int, longest: int) -> BatchShape:
        """So many samples, padded to so many tokens. One alone shares its whole prompt with itself."""
        replies = longest * DEFAULT_REPLY_SHARE if self.reply_tokens is None else self.reply_tokens
        alone = longest - 1 - round(replies) if rows == 1 else 0
        shared = min(max(self.shared, alone), longest - 1)
        return BatchShape(rows, longest - shared, shared, round(rows * replies))


class WorkloadCounter:
    """Counts samples into a workload, one by one. `trained_tokens` are those that carry loss, in all of them."""

    def __init__(self) -> None:
        self._train, self._heldout = list[int](), list[int]()
        self._ends: tuple[tuple[int, ...], tuple[int, ...]] | None = None  # the first and the last in order
        self._shortest_prompt = self.trained_tokens = 0

    @property
    def trained(self) -> int:
        """Samples to train on."""
        return len(self._train)

    @property
    def held_out(self) -> int:
        """Samples to measure with."""
        return len(self._heldout)

    def train_on(self, sample: TokenizedSample) -> None:
        """One more to train on."""
        prompt, ids = sample.mask.index(True), sample.ids
        self._shortest_prompt = min(prompt, self._shortest_prompt) if self._train else prompt
        self._ends = (min(ids, self._ends[0]), max(ids, self._ends[1])) if self._ends else (ids, ids)
        self.trained_tokens += sample.reply_tokens
        self._train.append(len(ids))

    def hold_out(self, sample: TokenizedSample) -> None:
        """One more to measure with."""
        self._heldout.append(len(sample.ids))

    def work(self, general: Iterable[TokenizedSample] = (), judged: PreferenceMethod | None = None) -> Workload:
        """All that were counted; there is one to train on."""
        assert self._ends is not None
        # What the first and the last in order begin with, all between them begin with, too.
        alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*self._ends, strict=False))
        shared = min(sum(1 for _ in alike), self._shortest_prompt - 1)
        general_lengths = [len(sample.ids) for sample in general]
        replies = self.trained_tokens / len(self._train)
        return Workload(self._train, self._heldout, general_lengths, max(shared, 0), replies, judged)


def workload_of(
    train: Iterable[TokenizedSample],
    heldout: Iterable[TokenizedSample],
    general: Iterable[TokenizedSample] = (),
    judged: PreferenceMethod | None = None,
) -> Workload:
    """What samples amount to; there is one to train on."""
    count = WorkloadCounter()
    for sample in train:
        count.train_on(sample)
    for sample in heldout:
        count.hold_out(sample)
    return count.work(general, judged)


@dataclass(frozen=True)
class BatchShape:
    """Samples that are computed at once: `rows` of `own` tokens each, padded, after `shared` ones that are computed
    once for all; `trained` tokens in all rows carry loss.
    """

    rows: int
    own: int
    shared: int
    trained: int

    @property
    def whole(self) -> BatchShape:
        """The same with each row's own beginning."""
        return BatchShape(self.rows, self.own + self.shared, 0, self.trained)

    @property
    def parts(self) -> tuple[BatchShape, ...]:
        """What goes through the layers, one after another."""
        return (BatchShape(1, self.shared, 0, 0), self) if self.shared else (self,)

    @property
    def tokens(self) -> int:
        """That are computed."""
        return self.rows * self.own + self.shared
