"""Held-out losses: how well a model, with or without an adapter, predicts replies it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from personas import serving
from personas.base_model import BaseModel, Precision
from personas.prompt import Sample
from trainer.loop.batches import collate, pack, reply_logits
from trainer.loop.cpu_kernels import use_grouped_attention

BATCH_SIZE, LOGIT_BYTES = 16, 2**29
"""Samples measured at once, and what their logits may take. Nothing is kept for gradients, so that it can be more than
in training; logits are large where vocabularies are."""

BYTES_A_LOGIT = 10
"""In the model's precision, in float32, and as the loss needs them."""


@dataclass(frozen=True)
class ReplyLoss:
    """Of one reply, end of turn included: the sum of its tokens' negative log-likelihoods (nats), and their number."""

    nll: float
    tokens: int


@dataclass(frozen=True, eq=False)
class TokenLosses:
    """Of one reply's tokens, end of turn included: each one's negative log-likelihood in nats, [tokens] float64, and
    whether it was the likeliest, so that greedy decoding would have gone on with it, [tokens]."""

    nll: NDArray[np.float64]
    likeliest: NDArray[np.bool_]

    @property
    def whole(self) -> ReplyLoss:
        """Of the reply."""
        return ReplyLoss(float(self.nll.sum()), len(self.nll))

    def without(self, last: int) -> ReplyLoss:
        """Of the reply without so many last tokens, such as those of the end of turn."""
        return ReplyLoss(float(self.nll[: len(self.nll) - last].sum()), len(self.nll) - last)


def load_served(base: BaseModel, precision: Precision) -> Any:
    """The base model as the engine serves it."""
    model = serving.load_served(base, precision)
    use_grouped_attention(model)
    return model


def measure(
    model: Any, samples: Sequence[Sample], between: Callable[[], None] = lambda: None, packing: bool = False
) -> list[ReplyLoss]:
    """The loss of each sample's reply, in order, as `measure_tokens`."""
    return [losses.whole for losses in measure_tokens(model, samples, between, packing)]


def measure_tokens(
    model: Any, samples: Sequence[Sample], between: Callable[[], None] = lambda: None, packing: bool = False
) -> list[TokenLosses]:
    """The losses of each sample's tokens, in order; `between` is called after each batch.

    The longest samples come first: what a batch leaves in the heap is then large enough for the next.

    With `packing` the samples of a batch lie in one row, as in training with the kernels that want it so.
    """
    laid_out = pack if packing else collate
    losses: dict[int, TokenLosses] = {}
    by_length = sorted(range(len(samples)), key=lambda place: -len(samples[place].ids))
    was_training = model.training
    model.eval()
    for places in _batches(by_length, samples, model.config.get_text_config().vocab_size):
        chosen = [samples[place] for place in places]
        losses |= zip(places, _measure_batch(model, chosen, laid_out(chosen)), strict=True)
        between()
    model.train(was_training)
    return [losses[place] for place in range(len(samples))]


def _batches(order: Sequence[int], samples: Sequence[Sample], vocabulary: int) -> Iterator[list[int]]:
    """The places in order, as many together as may be; one at least."""
    most_tokens = LOGIT_BYTES // (BYTES_A_LOGIT * vocabulary)
    batch: list[int] = []
    tokens = 0
    for place in order:
        if batch and (len(batch) == BATCH_SIZE or tokens + samples[place].reply_tokens > most_tokens):
            yield batch
            batch, tokens = [], 0
        batch.append(place)
        tokens += samples[place].reply_tokens
    if batch:
        yield batch


def mean_loss(losses: Sequence[ReplyLoss]) -> float:
    """Nats per reply token. Raises `ValueError` without any loss."""
    if not losses:
        raise ValueError("no losses to average")
    return math.fsum(loss.nll for loss in losses) / sum(loss.tokens for loss in losses)


def _measure_batch(model: Any, samples: list[Sample], tensors: dict[str, Tensor]) -> list[TokenLosses]:
    batch = {name: tensor.to(model.device) for name, tensor in tensors.items()}
    ends = np.cumsum([sample.reply_tokens for sample in samples])[:-1]
    with torch.inference_mode():
        logits, targets = reply_logits(model, batch)
        losses = functional.cross_entropy(logits.float(), targets, reduction="none").double().cpu().numpy()
        likeliest = (logits.argmax(-1) == targets).cpu().numpy()
    return [TokenLosses(*parts) for parts in zip(np.split(losses, ends), np.split(likeliest, ends), strict=True)]
