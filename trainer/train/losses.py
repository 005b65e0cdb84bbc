"""Computes the losses of replies."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from personas.models import serving_model
from personas.models.base_model import BaseModel
from personas.prompt.renderer import TokenizedSample
from personas.schemas.training import ServingPrecision
from trainer.estimate.workload import EVAL_BATCH_SIZE, EVAL_BATCH_TOKENS, LOSS_CHUNK_TOKENS
from trainer.train.collator import (
    Layout,
    has_plain_head,
    lay_out,
    output_head,
    reply_logits,
    reply_states,
)
from trainer.train.kernels import use_grouped_attention
from trainer.train.layout_probe import prefix_obstacle

log = logging.getLogger(__name__)
EVAL_MAX_LOGIT_BYTES = 2**29
"""What the logits of samples measured at once may take. Nothing is kept for gradients, so that it
can be more than in training; logits are large where vocabularies are.
"""
BYTES_PER_LOGIT = 10  # bytes per logit: in the model's precision, in float32, and for the loss


@dataclass(frozen=True)
class ReplyLoss:
    """Loss of a reply with its end of turn: the sum of its tokens' negative log-likelihoods (nats),
    their number.
    """

    nll: float
    tokens: int


@dataclass(frozen=True, eq=False)
class TokenLosses:
    """Losses of a reply's tokens, end of turn included: negative log-likelihoods in nats, [tokens]
    float64, and whether each token was the likeliest, as greedy decoding would choose it, [tokens].
    """

    nll: NDArray[np.float64]
    likeliest: NDArray[np.bool_]

    @property
    def whole(self) -> ReplyLoss:
        """The loss of the whole reply."""
        return ReplyLoss(float(self.nll.sum()), len(self.nll))

    def without(self, last: int) -> ReplyLoss:
        """Return the loss without so many last tokens, such as those of the end of turn."""
        return ReplyLoss(float(self.nll[: len(self.nll) - last].sum()), len(self.nll) - last)


def load_serving_model(base: BaseModel, precision: ServingPrecision) -> Any:
    """Load the base model as the engine serves it. Raises `BaseModelError` or `TrainingError`."""
    model = serving_model.load_serving_model(base, precision)
    use_grouped_attention(model)
    obstacle = prefix_obstacle(model)
    if obstacle:
        log.warning(
            "%s models: samples are measured padded, because with a shared prefix %s",
            model.config.model_type,
            obstacle,
        )
    return model


def measure_reply_losses(
    model: Any,
    samples: Sequence[TokenizedSample],
    between: Callable[[], None] = lambda: None,
    layout: Layout = "padded",
) -> list[ReplyLoss]:
    """Measure the loss of each sample's reply, in order, as `measure_token_losses`."""
    return [losses.whole for losses in measure_token_losses(model, samples, between, layout)]


def measure_token_losses(
    model: Any,
    samples: Sequence[TokenizedSample],
    between: Callable[[], None] = lambda: None,
    layout: Layout = "padded",
    report: Callable[[int], None] = lambda tokens: None,
) -> list[TokenLosses]:
    """Measure the losses of each sample's reply tokens, in order; `between` is called after each
    batch, and `report` with the tokens of the batch, prompts included.

    The longest samples come first, so that later batches fit into the memory that earlier ones
    freed. `layout` is that of training, as its kernels need it.
    """
    shares_prefix = layout != "padded" or not prefix_obstacle(model)
    losses: dict[int, TokenLosses] = {}
    by_length = sorted(range(len(samples)), key=lambda place: -len(samples[place].ids))
    was_training = model.training
    model.eval()
    in_chunks = has_plain_head(model)
    for places in _batches(by_length, samples, model.config.get_text_config().vocab_size):
        chosen = [samples[place] for place in places]
        batch = lay_out(chosen, layout, shares_prefix=shares_prefix)
        measured = _measure_batch(model, chosen, batch, in_chunks)
        losses.update(zip(places, measured, strict=True))
        report(sum(len(sample.ids) for sample in chosen))
        between()
    model.train(was_training)
    return [losses[place] for place in range(len(samples))]


def _batches(
    order: Sequence[int], samples: Sequence[TokenizedSample], vocabulary: int
) -> Iterator[list[int]]:
    """Yield the indices, those of the longest samples first, in batches as large as allowed, at
    least one each.
    """
    most_trained = EVAL_MAX_LOGIT_BYTES // (BYTES_PER_LOGIT * vocabulary)
    batch: list[int] = []
    trained = 0
    for place in order:
        sample = samples[place]
        if batch:
            rows = len(batch) + 1
            padded_tokens = rows * len(samples[batch[0]].ids)  # the first sample is the longest
            is_full = rows > EVAL_BATCH_SIZE or padded_tokens > EVAL_BATCH_TOKENS
            if is_full or trained + sample.reply_tokens > most_trained:
                yield batch
                batch = []
                trained = 0
        batch.append(place)
        trained += sample.reply_tokens
    if batch:
        yield batch


def mean_loss(losses: Sequence[ReplyLoss]) -> float:
    """Return the mean loss in nats per reply token. Raises `ValueError` without any loss."""
    if not losses:
        raise ValueError("no losses to average")
    return math.fsum(loss.nll for loss in losses) / sum(loss.tokens for loss in losses)


def _measure_batch(
    model: Any, samples: list[TokenizedSample], tensors: dict[str, Tensor], in_chunks: bool
) -> list[TokenLosses]:
    batch = {name: tensor.to(model.device) for name, tensor in tensors.items()}
    chunks: list[tuple[NDArray[np.float64], NDArray[np.bool_]]] = []
    with torch.inference_mode():
        # The logits of sixteen replies at once took half a GiB beside the model.
        if in_chunks:
            states, targets = reply_states(model, batch)
            state_chunks = torch.split(states, LOSS_CHUNK_TOKENS)
            target_chunks = torch.split(targets, LOSS_CHUNK_TOKENS)
            for state_chunk, target_chunk in zip(state_chunks, target_chunks, strict=True):
                chunks.append(_token_losses(output_head(model)(state_chunk), target_chunk))
        else:
            chunks.append(_token_losses(*reply_logits(model, batch)))
    nll = np.concatenate([of_chunk for of_chunk, _ in chunks])
    likeliest = np.concatenate([of_chunk for _, of_chunk in chunks])
    losses = []
    begin = 0
    for sample in samples:
        tokens = slice(begin, begin + sample.reply_tokens)
        losses.append(TokenLosses(nll=nll[tokens], likeliest=likeliest[tokens]))
        begin += sample.reply_tokens
    return losses


def _token_losses(logits: Tensor, targets: Tensor) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    nll = functional.cross_entropy(logits.float(), targets, reduction="none")
    return nll.double().cpu().numpy(), (logits.argmax(-1) == targets).cpu().numpy()
