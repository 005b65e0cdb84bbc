"""Compares batches with the plain model, a sample alone, on a few tokens when a base model is
loaded.

What a model's batches may be is found once: a shared prefix computed for all rows, or rows padded
to one length. Models that keep a state besides keys and values cannot repeat it for several rows,
or lose the gradient through it.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional

from personas.errors import TrainingError, is_out_of_memory
from personas.models.probe import differs, plain_logits, probe_tokens
from personas.prompt.renderer import TokenizedSample
from trainer.train.collator import causal_model, collate, reply_losses

PREFIX_TOKENS = 12
OWN_TOKENS = (7, 4)
"""Tokens of each of the probe's two samples after the prefix."""
REPLY_TOKENS = (3, 2)
"""How many of these are trained."""
GRADIENT_ALLOWANCE = 3.0
"""Gradients are rounded in the backward pass too."""

LORA_UP = ".lora_B."
PROBED_ADAPTER_SIZE = 0.02
log = logging.getLogger(__name__)
_obstacles: "WeakKeyDictionary[Any, str]" = WeakKeyDictionary()
Result = tuple[Tensor, Tensor | None]
"""Losses of the trained tokens, and the gradient of their sum at the prefix's embeddings, if it was
computed.
"""


def prefix_obstacle(model: Any, *, trains: bool = False) -> str:
    """Return why batches of this model cannot share their prefix, as part of a sentence; empty if
    they can.

    A loaded model is probed once, for gradients as well if it `trains`. Raises `TrainingError` if
    losses in a batch differ from those of a sample alone whatever is done, `BaseModelError` if the
    model cannot be computed.
    """
    causal = causal_model(model)
    if causal not in _obstacles:
        _obstacles[causal] = _probe(causal, trains)
    return _obstacles[causal]


def _probe(model: Any, trains: bool) -> str:
    samples = _probe_samples(model)
    expected = _plain_result(model, samples, trains)
    obstacle = _difference(model, samples, expected, shares_prefix=True)
    if not obstacle:
        return ""
    difference = _difference(model, samples, expected, shares_prefix=False)
    if difference:
        raise TrainingError(
            f"Models of the kind {model.config.model_type} cannot be trained or measured here: in "
            f"a batch, {difference}.",
            "Choose another base model; docs/models.md names the families that are tested.",
        )
    return obstacle


def _difference(
    model: Any, samples: Sequence[TokenizedSample], expected: Result, *, shares_prefix: bool
) -> str:
    """Say how a batch differs from its samples alone; empty if it does not."""
    trains = expected[1] is not None
    try:
        losses, gradient = _compute(model, samples, trains, shares_prefix=shares_prefix)
    except Exception as error:  # models fail in many ways
        # Lack of memory says nothing about the model, and would be remembered as if it did.
        if is_out_of_memory(error):
            raise
        log.info("batches that do not work here", exc_info=True)
        if shares_prefix:
            return "the cache cannot be shared by several samples"
        return f"the computation fails ({type(error).__name__})"
    if losses.shape != expected[0].shape or differs(model, losses, expected[0]):
        return "the losses are not those of a sample alone"
    if trains and differs(model, gradient, expected[1], GRADIENT_ALLOWANCE):
        return "the gradients are not those of a sample alone"
    return ""


def _plain_result(model: Any, samples: Sequence[TokenizedSample], trains: bool) -> Result:
    if not trains:
        with torch.no_grad():
            return plain_losses(model, samples), None
    with torch.enable_grad(), _embeddings(model) as embedded:
        losses = plain_losses(model, samples)
        gradients = _gradients(losses, embedded)
    # Each sample has a prefix of its own here: a shared one gets the sum of their gradients.
    of_prefixes = [gradient[0, :PREFIX_TOKENS].float() for gradient in gradients]
    return losses.detach(), torch.stack(of_prefixes).sum(0)


def _compute(
    model: Any, samples: Sequence[TokenizedSample], trains: bool, *, shares_prefix: bool
) -> Result:
    batch = collate(samples, shares_prefix=shares_prefix)
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    if not trains:
        with torch.no_grad():
            return reply_losses(model, batch), None
    with torch.enable_grad(), _embeddings(model) as embedded:
        losses = reply_losses(model, batch)
        gradients = _gradients(losses, embedded)
    # A shared prefix is embedded first, alone; otherwise it begins each row.
    return losses.detach(), gradients[0][:, :PREFIX_TOKENS].float().sum(0)


@contextmanager
def _embeddings(model: Any) -> Iterator[list[Tensor]]:
    """For a `with` block, yield a list that gets the embeddings of each pass, as leaves that have a
    gradient.
    """
    embedded: list[Tensor] = []

    def record(_layer: Any, _inputs: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    hook = model.get_input_embeddings().register_forward_hook(record)
    try:
        yield embedded
    finally:
        hook.remove()


def _probe_samples(model: Any) -> list[TokenizedSample]:
    """Make two samples of different lengths with a common prefix."""
    prefix = probe_tokens(model, PREFIX_TOKENS)
    samples: list[TokenizedSample] = []
    first = PREFIX_TOKENS
    for own, reply in zip(OWN_TOKENS, REPLY_TOKENS, strict=True):
        ids = (*prefix, *probe_tokens(model, own, first))
        mask = (False,) * (len(ids) - reply) + (True,) * reply
        samples.append(TokenizedSample(ids, mask))
        first += own
    return samples


def losses_differ(model: Any, changed: AbstractContextManager[Any]) -> bool:
    """Report whether the plain losses of a model fail, or are others, inside a context than outside
    of it.

    Raises `BaseModelError` if the model cannot be computed outside of it either.
    """
    samples = _probe_samples(model)
    with torch.no_grad():  # what a model stores in inference mode could not be trained with later
        expected = plain_losses(model, samples)
        try:
            with changed:
                return differs(model, plain_losses(model, samples), expected)
        except Exception as error:
            # Kernels fail in many ways, and each has another one to take its place.
            if is_out_of_memory(error):
                raise
            log.info("a computation that does not work here", exc_info=True)
            return True


def adapter_gradients_differ(peft_model: Any, changed: AbstractContextManager[Any]) -> bool:
    """Report whether the losses or the adapter's gradients fail, or are others, inside a context
    than outside of it.

    The adapter's B is random meanwhile: while it is zero, A has no gradient.
    """
    samples = _probe_samples(peft_model)
    draw = torch.Generator().manual_seed(0)
    adapter: list[Tensor] = []
    ups: list[Tensor] = []
    for name, weight in peft_model.named_parameters():
        if weight.requires_grad:
            adapter.append(weight)
            if LORA_UP in name:
                ups.append(weight)
    before = [weight.detach().clone() for weight in ups]
    was_training = peft_model.training
    peft_model.eval()  # dropout draws anew each time
    for weight in ups:
        weight.data.copy_(torch.randn(weight.shape, generator=draw) * PROBED_ADAPTER_SIZE)
    try:
        expected = _adapter_gradients(peft_model, samples, adapter)
        with changed:
            changed_gradients = _adapter_gradients(peft_model, samples, adapter)
        for gradient, plain in zip(changed_gradients, expected, strict=True):
            if differs(peft_model, gradient, plain, GRADIENT_ALLOWANCE):
                return True
        return False
    except Exception as error:  # as above
        if is_out_of_memory(error):
            raise
        log.info("adapters that do not work here", exc_info=True)
        return True
    finally:
        peft_model.train(was_training)
        for weight, original in zip(ups, before, strict=True):
            weight.data.copy_(original)


def _adapter_gradients(
    model: Any, samples: Sequence[TokenizedSample], adapter: Sequence[Tensor]
) -> list[Tensor]:
    with torch.enable_grad():
        losses = plain_losses(model, samples)
        return [losses.detach(), *_gradients(losses, adapter)]


def _gradients(losses: Tensor, values: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of the losses' sum, zero at values that they do not depend on."""
    gradients = []
    computed = torch.autograd.grad(losses.sum(), values, allow_unused=True)
    for value, gradient in zip(values, computed, strict=True):
        gradients.append(torch.zeros_like(value) if gradient is None else gradient)
    return gradients


def plain_losses(model: Any, samples: Sequence[TokenizedSample]) -> Tensor:
    """Return the losses of the trained tokens, in nats, of each sample in a pass of its own."""
    losses = []
    for sample in samples:
        logits = plain_logits(model, list(sample.ids))[:-1]
        targets = torch.tensor(sample.ids[1:], device=logits.device)
        trained = torch.tensor(sample.mask[1:], device=logits.device)
        losses.append(functional.cross_entropy(logits, targets, reduction="none")[trained])
    return torch.cat(losses)
