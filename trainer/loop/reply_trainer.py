"""TRL's SFTTrainer for replies: our batches and loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from trl import SFTTrainer

from trainer.loop.batches import reply_losses
from trainer.loop.course import CourseTrainer
from trainer.loop.length_sorted import length_sorted


class ReplyTrainer(CourseTrainer, SFTTrainer):  # type: ignore[misc]  # TRL is untyped here
    """Batches of like length, logits for the trained tokens only, held-out replies measured by themselves."""

    loss_is_scaled_for_ga = True

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        course = self._course
        absent = [len(course.train)] * self._absent()
        if course.order:
            return [*course.order, *absent]
        lengths = [len(sample.ids) for sample in course.train]
        return LengthSortedSampler(lengths, course.sorted_in or self.args.train_batch_size, self.args.seed, absent)

    def _absent(self) -> int:
        """How many samples are missing for as many full batches in each of several processes."""
        processes = self._course.processes
        return -len(self._course.train) % (self.args.train_batch_size * processes.count) if processes.are_many else 0

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean over the trained tokens of the whole optimiser step."""
        losses = reply_losses(model, inputs)
        self.tokens_done += int(inputs["lengths"].sum())
        if num_items_in_batch is None:
            return losses.mean()
        return losses.sum() / num_items_in_batch * self._course.processes.count  # whose gradients are averaged


class LengthSortedSampler(torch.utils.data.Sampler[int]):
    """Another `length_sorted` order in each epoch; the places `at_the_end` follow."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, at_the_end: Sequence[int] = ()) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = lengths, batch_size, seed, 0
        self._at_the_end = at_the_end

    def __len__(self) -> int:
        return len(self._lengths) + len(self._at_the_end)

    def __iter__(self) -> Iterator[int]:
        yield from length_sorted(self._lengths, self._batch_size, self._seed + self._epoch)
        yield from self._at_the_end

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer when an epoch begins."""
        self._epoch = epoch
