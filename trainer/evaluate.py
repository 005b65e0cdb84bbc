"""Held-out losses: how well a model, with or without an adapter, predicts replies it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from personas.base_model import BaseModel, Precision, load_model
from personas.prompt import Sample
from trainer.batches import collate, pack, reply_losses
from trainer.cpu_kernels import use_grouped_attention

BATCH_SIZE = 16
"""Samples measured at once. Nothing is kept for gradients, so it can be more than in training."""


@dataclass(frozen=True)
class ReplyLoss:
    """Of one reply, end of turn included: the sum of its tokens' negative log-likelihoods (nats), and their number."""

    nll: float
    tokens: int


def load_served(base: BaseModel, precision: Precision) -> Any:
    """The base model as the engine serves it: not in 4 bits."""
    model = load_model(base, precision)
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
    for start in range(0, len(samples), BATCH_SIZE):
        places = by_length[start : start + BATCH_SIZE]
        chosen = [samples[place] for place in places]
        losses |= zip(places, _measure_batch(model, chosen, laid_out(chosen)), strict=True)
        between()
    model.train(was_training)
    return [losses[place] for place in range(len(samples))]


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
