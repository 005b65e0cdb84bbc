"""Held-out losses: how well a model, with or without an adapter, predicts replies it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from personas import serving
from personas.base_model import BaseModel, Precision
from personas.prompt import Sample
from trainer.loop.batches import collate, pack, reply_losses
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


def load_served(base: BaseModel, precision: Precision) -> Any:
    """The base model as the engine serves it."""
    model = serving.load_served(base, precision)
    use_grouped_attention(model)
    return model


def measure(
    model: Any, samples: Sequence[Sample], between: Callable[[], None] = lambda: None, packing: bool = False
) -> list[ReplyLoss]:
    """The loss of each sample's reply, in order; `between` is called after each batch.

    With `packing` the samples of a batch lie in one row, as in training with the kernels that want it so.
    """
    laid_out = pack if packing else collate
    losses: dict[int, ReplyLoss] = {}
    by_length = sorted(range(len(samples)), key=lambda place: len(samples[place].ids))
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


def _measure_batch(model: Any, samples: list[Sample], tensors: dict[str, Tensor]) -> list[ReplyLoss]:
    batch = {name: tensor.to(model.device) for name, tensor in tensors.items()}
    with torch.inference_mode():
        tokens = [sample.reply_tokens for sample in samples]
        parts = torch.split(reply_losses(model, batch).double(), tokens)
        return [ReplyLoss(float(part.sum()), count) for part, count in zip(parts, tokens, strict=True)]
