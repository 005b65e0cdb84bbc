"""Collates samples into tensors (padded, packed, or in rows after a shared prefix), and computes
logits and losses of replies.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from personas.prompt.renderer import TokenizedSample
from trainer.estimate.model_shape import sliding_window
from trainer.estimate.workload import LOSS_CHUNK_TOKENS, MAX_ROW_TOKENS, common_prefix_length

IGNORE_INDEX = -100  # label of a token that is not trained on, as in transformers
PADDING_SAMPLE = TokenizedSample((0, 0), (False, False))
"""Fills the last batches of several processes up to the same size; carries no loss."""
ROW_MULTIPLE_TOKENS = 16
"""Rows are filled up to a multiple: torch would align each layer's attention mask by a copy."""
FULL_ATTENTION = "full_attention"
SLIDING_ATTENTION = "sliding_attention"
"""Kinds of layers in transformers' configurations."""
Layout = Literal["padded", "packed", "rows"]
"""How a batch's samples lie in tensors: as by `collate`, `pack` or `collate_rows`."""


def lay_out(
    samples: Sequence[TokenizedSample], layout: Layout, *, shares_prefix: bool = True
) -> dict[str, Tensor]:
    """Collate samples in a layout; `pack` shares no prefix, and `collate_rows` always does."""
    if layout == "packed":
        return pack(samples)
    if layout == "rows":
        return collate_rows(samples)
    return collate(samples, shares_prefix=shares_prefix)


def collate(samples: Sequence[TokenizedSample], *, shares_prefix: bool = True) -> dict[str, Tensor]:
    """Collate samples: `prefix_ids` [1, p], and what follows as `input_ids` and `labels` [samples,
    longest − p].

    A label is at its token's position, not before it; `targets` and `predictors` are as in
    `with_targets`. `lengths` [samples] counts each sample's own tokens. Without `shares_prefix`,
    which not every model allows (`trainer.train.layout_probe`), p is 0.
    """
    prefix = shared_prefix_length(samples) if shares_prefix else 0
    longest = max(len(sample.ids) for sample in samples) - prefix
    input_ids = torch.zeros(len(samples), longest, dtype=torch.long)
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    for row, sample in enumerate(samples):
        ids = torch.tensor(sample.ids[prefix:])
        input_ids[row, : len(ids)] = ids
        labels[row, : len(ids)] = ids.masked_fill(~torch.tensor(sample.mask[prefix:]), IGNORE_INDEX)
    return {
        "prefix_ids": torch.tensor([samples[0].ids[:prefix]], dtype=torch.long),
        "input_ids": input_ids,
        **with_targets(labels),
        "lengths": torch.tensor([len(sample.ids) for sample in samples]),
    }


def collate_rows(samples: Sequence[TokenizedSample]) -> dict[str, Tensor]:
    """Lay samples one after another in as few rows as possible, behind the prefix that they share.

    `input_ids`, `position_ids`, `documents`, `labels` [rows, longest row]; empty `prefix_ids`
    [1, 0]. `documents` numbers each token's sample from 1; the prefix, which all samples of its row
    see, is 0. A row has at most `MAX_ROW_TOKENS`, unless a single sample has more. Where no row has
    a second sample and one is that long, there are no `documents`: causal attention is enough.
    `lengths` is as in `collate`.
    """
    prefix = shared_prefix_length(samples)
    rows = _fill_rows(samples, prefix)
    longest = max(prefix + sum(len(ids) for ids, _ in row) for row in rows)
    longest += -longest % ROW_MULTIPLE_TOKENS
    input_ids = torch.zeros(len(rows), longest, dtype=torch.long)
    position_ids = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    # What fills up a row is one more sample, which sees itself alone.
    documents = torch.full_like(input_ids, len(samples) + 1)
    number = 0
    for row, together in enumerate(rows):
        input_ids[row, :prefix] = torch.tensor(samples[0].ids[:prefix], dtype=torch.long)
        position_ids[row, :prefix] = torch.arange(prefix)
        documents[row, :prefix] = 0
        start = prefix
        for ids, labelled in together:
            number += 1
            own = slice(start, start + len(ids))
            input_ids[row, own] = ids
            position_ids[row, own] = torch.arange(prefix, prefix + len(ids))
            documents[row, own] = number
            labels[row, own] = labelled
            start = own.stop
    batch = {
        "prefix_ids": input_ids[:1, :0],
        "input_ids": input_ids,
        **with_targets(labels),
        "lengths": torch.tensor([len(sample.ids) for sample in samples]),
    }
    if longest <= MAX_ROW_TOKENS or len(rows) < len(samples):
        batch |= {"position_ids": position_ids, "documents": documents}
    return batch


def _fill_rows(
    samples: Sequence[TokenizedSample], prefix: int
) -> list[list[tuple[Tensor, Tensor]]]:
    """Split samples, in their order, into rows; return token ids and labels of each after the
    prefix.
    """
    rows: list[list[tuple[Tensor, Tensor]]] = []
    room = 0
    for sample in samples:
        ids = torch.tensor(sample.ids[prefix:])
        trained = torch.tensor(sample.mask[prefix:])
        if not prefix:
            trained[0] = False  # the token before it is another sample's
        if len(ids) > room:
            rows.append([])
            room = MAX_ROW_TOKENS - prefix
        rows[-1].append((ids, ids.masked_fill(~trained, IGNORE_INDEX)))
        room -= len(ids)
    return rows


def with_targets(labels: Tensor) -> dict[str, Tensor]:
    """Return the labels [rows, length], the trained tokens as `targets` [n], and as `predictors`
    [n] the places of the tokens before them in all rows, one row after another.

    On the host: a card would have to stop to tell how many there are.
    """
    # A row's first token is predicted by none.
    rows, places = (labels[:, 1:] != IGNORE_INDEX).nonzero(as_tuple=True)
    predictors = rows * labels.shape[1] + places
    return {"labels": labels, "targets": labels[rows, places + 1], "predictors": predictors}


def pack(samples: Sequence[TokenizedSample]) -> dict[str, Tensor]:
    """Pack samples into one row: `input_ids`, `position_ids`, `labels` [1, all tokens]; empty
    `prefix_ids` [1, 0].

    A sample's first token has no label: the token before it is another sample's. The rest is as in
    `collate`.
    """
    row = pack_ids([sample.ids for sample in samples])
    ids = row["input_ids"]
    trained = torch.tensor([list(chain.from_iterable(sample.mask for sample in samples))])
    return {
        **row,
        "prefix_ids": ids[:, :0],
        **with_targets(ids.masked_fill(~trained | (row["position_ids"] == 0), IGNORE_INDEX)),
        "lengths": torch.tensor([len(sample.ids) for sample in samples]),
    }


def pack_ids(texts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Pack token ids into one row: `input_ids` and `position_ids` [1, all tokens]; each text begins
    at position 0.
    """
    ids = list(chain.from_iterable(texts))
    positions = list(chain.from_iterable(range(len(text)) for text in texts))
    return {"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([positions])}


def drop_padding_samples(samples: Sequence[TokenizedSample]) -> Sequence[TokenizedSample]:
    """Return the samples without `PADDING_SAMPLE`, or one of these if there is nothing else to
    compute.
    """
    return [sample for sample in samples if any(sample.mask)] or samples[:1]


def shared_prefix_length(samples: Sequence[TokenizedSample]) -> int:
    """Count the tokens that all prompts share at the start, without a prompt's last, which predicts
    the reply.
    """
    prompt_lengths = []
    for sample in samples:
        if any(sample.mask):
            prompt_lengths.append(sample.mask.index(True))
        else:  # a padding sample has no reply
            prompt_lengths.append(len(sample.ids))
    common = common_prefix_length([sample.ids for sample in samples])
    return max(0, min(common, min(prompt_lengths) - 1))


def reply_losses(model: Any, batch: dict[str, Tensor], in_chunks: bool = False) -> Tensor:
    """Return the negative log-likelihood of each trained token, in nats, [trained tokens], row
    after row.

    `in_chunks`: a few logits at a time. For models with a `has_plain_head`.
    """
    if in_chunks:
        states, targets = reply_states(model, batch)
        head = output_head(model).weight
        losses: Tensor = _ChunkedCrossEntropy.apply(states, head, targets)  # type: ignore[no-untyped-call]
        return losses
    logits, targets = reply_logits(model, batch)
    return functional.cross_entropy(logits.float(), targets, reduction="none")


def reply_logits(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the logits at each trained token, [trained tokens, vocabulary], and the target
    tokens.
    """
    inputs, predictors = _model_inputs(model, batch)
    with _hidden_states_at(model, predictors) as states:
        logits = model(**inputs).logits
    if states:
        return logits[0], batch["targets"]
    return logits.flatten(0, 1).index_select(0, predictors), batch["targets"]


def reply_states(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the hidden states from which each trained token is predicted, [trained tokens, width],
    and the tokens.

    For models with a `has_plain_head`.
    """
    inputs, predictors = _model_inputs(model, batch)
    # The model calls its head in any case: for one position, that costs next to nothing.
    with _hidden_states_at(model, predictors, to_head=1) as states:
        model(**inputs)
    return states[0], batch["targets"]


def _model_inputs(model: Any, batch: dict[str, Tensor]) -> tuple[dict[str, Any], Tensor]:
    """Return the model's inputs, and the places in all their rows from which targets are predicted,
    [n].
    """
    prefix = batch["prefix_ids"]
    ids = batch["input_ids"]
    predictors = batch["predictors"]
    shares = prefix.shape[1] > 0
    if shares and _recomputes_layers(model):
        rows = predictors.div(ids.shape[1], rounding_mode="floor")
        predictors = predictors + prefix.shape[1] * (rows + 1)
        ids = torch.cat([prefix.expand(len(ids), -1), ids], dim=1)
        shares = False
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": shares}
    if "position_ids" in batch:
        inputs["position_ids"] = batch["position_ids"]
    if "documents" in batch:
        inputs["attention_mask"] = _row_masks(model, batch)
    if shares:
        inputs["past_key_values"] = _prefix_cache(model, prefix, len(ids))
    return inputs, predictors


def _row_masks(model: Any, batch: dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
    """Return the mask of rows for all layers, or one for each kind of layer, as models of
    transformers take them.
    """
    config = causal_model(model).config.get_text_config()
    window = sliding_window(vars(config))
    kinds = set(getattr(config, "layer_types", None) or ())
    dtype = _compute_dtype(model)
    if window and kinds == {FULL_ATTENTION, SLIDING_ATTENTION}:
        return {
            FULL_ATTENTION: _row_mask(batch, dtype),
            SLIDING_ATTENTION: _row_mask(batch, dtype, window),
        }
    return _row_mask(batch, dtype, window if kinds <= {SLIDING_ATTENTION} else 0)


def _row_mask(batch: dict[str, Tensor], dtype: torch.dtype, window: int = 0) -> Tensor:
    """Return what is added to attention scores, [rows, 1, length, length]: −∞ where a token does
    not see another, which is later, of another sample, or `window` tokens or more before it.

    It is made on the device, once for all layers: as a truth value torch would convert it in each.
    """
    documents = batch["documents"]
    places = torch.arange(documents.shape[1], device=documents.device)
    sees = (documents[:, :, None] == documents[:, None]) | (documents[:, None] == 0)
    sees &= places[:, None] >= places
    if window:
        positions = batch["position_ids"]
        sees &= positions[:, :, None] - positions[:, None] < window
    mask = torch.zeros(sees.shape, dtype=dtype, device=documents.device)
    return mask.masked_fill_(~sees, float("-inf"))[:, None]


def _compute_dtype(model: Any) -> torch.dtype:
    """Return the precision of the model's activations."""
    weight: Tensor = causal_model(model).get_input_embeddings().weight
    if torch.is_autocast_enabled(weight.device.type):
        return torch.get_autocast_dtype(weight.device.type)
    return weight.dtype


def has_plain_head(model: Any) -> bool:
    """Report whether logits are the product of hidden states and the head's weights, without
    scaling or capping.
    """
    head = output_head(model)
    if type(head) is not nn.Linear or getattr(head, "bias", None) is not None:
        return False
    ids = torch.arange(3, 7, device=head.weight.device)[None]  # any four tokens
    with torch.no_grad():
        with _hidden_states_at(model, torch.arange(4, device=ids.device)) as states:
            logits = model(input_ids=ids, use_cache=False).logits[0]
        return bool(states) and torch.equal(logits, head(states[0]).to(logits.dtype))


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes losses [n] of hidden states [n, width] and their gradients together, without keeping
    any logits.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        # The gradient is computed with the losses: autograd would hold the logits of all trained
        # tokens until the backward pass, four times over.
        losses = torch.empty(len(targets), device=states.device)
        gradients = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        for start in range(0, len(targets), LOSS_CHUNK_TOKENS):
            chunk = slice(start, start + LOSS_CHUNK_TOKENS)
            token = targets[chunk, None]
            log_probabilities = torch.log_softmax(states[chunk] @ head.T, -1, dtype=torch.float32)
            losses[chunk] = -log_probabilities.gather(1, token)[:, 0]
            if gradients is not None:
                # The derivative of the cross-entropy: the probabilities, less 1 at the target.
                minus_one = torch.full_like(losses[chunk, None], -1)
                differences = log_probabilities.exp_().scatter_add_(1, token, minus_one)
                gradients[chunk] = differences.to(head.dtype) @ head
        ctx.save_for_backward(gradients)
        return losses

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (gradients,) = ctx.saved_tensors
        return (gradients * upstream[0][:, None]).to(gradients.dtype), None, None


def _prefix_cache(model: Any, prefix: Tensor, rows: int) -> Any:
    """Compute the keys and values of the shared prefix, repeated for each row."""
    # No place: nothing is predicted from the prefix.
    with _hidden_states_at(model, prefix.new_zeros(0)):
        cache = model(input_ids=prefix, use_cache=True).past_key_values
    cache.batch_repeat_interleave(rows)
    return cache


def _recomputes_layers(model: Any) -> bool:
    """Report whether the model keeps no KV cache during training because it recomputes its
    layers.
    """
    if not model.training:
        return False
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


@contextmanager
def _hidden_states_at(
    model: Any, positions: Tensor, to_head: int | None = None
) -> Iterator[list[Tensor]]:
    """For a `with` block, let `model` compute logits [1, n, vocabulary] at n `positions` only, places
    in all rows.

    The head is the costliest layer of a small model, and most tokens are prompt. Positions are
    picked where the head is called, so that everything before and after it (scaling, soft capping)
    is unchanged. Yields a list that gets the hidden states [n, width]; the head gets the first
    `to_head` of them. It stays empty, and all logits are computed, if the model does not call its
    head as a layer.
    """
    states: list[Tensor] = []

    def pick(_head: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states.append(inputs[0].flatten(0, 1).index_select(0, positions))
        return (states[0][:to_head].unsqueeze(0),)

    head = output_head(model)
    if not isinstance(head, nn.Module):
        yield states
        return
    hook = head.register_forward_pre_hook(pick)
    try:
        yield states
    finally:
        hook.remove()


def output_head(model: Any) -> Any:
    """Return the layer that computes logits from hidden states."""
    return causal_model(model).get_output_embeddings()


def causal_model(model: Any) -> Any:
    """Return the causal model inside wrappers."""
    if isinstance(model, DistributedDataParallel):
        model = model.module
    if hasattr(model, "get_base_model"):
        return model.get_base_model()
    return model
