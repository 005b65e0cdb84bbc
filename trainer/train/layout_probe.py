"""Compares batches with the plain model, a sample alone, on a few tokens when a base model is
loaded.

What a model's batches may be is found once: a shared prefix computed for all rows, rows padded to
one length, or several samples in a row. Models that keep a state besides keys and values cannot
repeat it for several rows, or lose the gradient through it.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional

from personas.errors import TrainingError, is_out_of_memory
from personas.models.probe import differs, float32_layers, plain_logits, probe_tokens
from personas.prompt.renderer import TokenizedSample
from trainer.estimate.model_shape import sliding_window
from trainer.train.collator import Layout, causal_model, lay_out, reply_losses

PREFIX_TOKENS = 12
OWN_TOKENS = (7, 4)
"""Tokens of each of the probe's two samples after the prefix."""
REPLY_TOKENS = (3, 2)
"""How many of these are trained."""
PROBED_WINDOW_TOKENS = 6
GRADIENT_ALLOWANCE = 3.0
"""Gradients are rounded in the backward pass too."""

LORA_UP = ".lora_B."
PROBED_ADAPTER_SIZE = 0.02
log = logging.getLogger(__name__)
_obstacles: "WeakKeyDictionary[Any, str]" = WeakKeyDictionary()
_row_obstacles: "WeakKeyDictionary[Any, str]" = WeakKeyDictionary()


@dataclass(frozen=True)
class ProbeResult:
    """Losses of the trained tokens, and the gradient of their sum at the prefix's embeddings, if it
    was computed. `in_float32`: the losses were (`float32_layers`).
    """

    losses: Tensor
    in_float32: bool
    gradient: Tensor | None = None


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


def row_obstacle(model: Any) -> str:
    """Return why samples of this model cannot lie in one row after a shared prefix, as part of a
    sentence; empty if they can.

    A loaded model is probed once, gradients included. Raises `BaseModelError` if the model cannot
    be computed.
    """
    causal = causal_model(model)
    if causal not in _row_obstacles:
        samples = _probe_samples(causal)
        with _narrow_window(causal):
            expected = _plain_result(causal, samples, True)
            _row_obstacles[causal] = _difference(causal, samples, expected, layout="rows")
    return _row_obstacles[causal]


@contextmanager
def _narrow_window(model: Any) -> Iterator[None]:
    """For a `with` block, let layers with sliding attention see fewer tokens than the probe has."""
    config = model.config.get_text_config()
    window = sliding_window(vars(config))
    if window:
        config.sliding_window = min(window, PROBED_WINDOW_TOKENS)
    try:
        yield
    finally:
        if window:
            config.sliding_window = window


def _probe(model: Any, trains: bool) -> str:
    samples = _probe_samples(model)
    expected = _plain_result(model, samples, trains)
    obstacle = _difference(model, samples, expected)
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
    model: Any,
    samples: Sequence[TokenizedSample],
    expected: ProbeResult,
    *,
    layout: Layout = "padded",
    shares_prefix: bool = True,
) -> str:
    """Say how a batch differs from its samples alone; empty if it does not."""
    trains = expected.gradient is not None
    try:
        batch = lay_out(samples, layout, shares_prefix=shares_prefix)
        result = _compute(model, batch, trains)
    except Exception as error:  # models fail in many ways
        # Lack of memory says nothing about the model, and would be remembered as if it did.
        if is_out_of_memory(error):
            raise
        log.info("batches that do not work here", exc_info=True)
        if shares_prefix and layout == "padded":
            return "the cache cannot be shared by several samples"
        return f"the computation fails ({type(error).__name__})"
    in_float32 = result.in_float32 and expected.in_float32
    if result.losses.shape != expected.losses.shape or differs(
        model, result.losses, expected.losses, in_float32=in_float32
    ):
        return "the losses are not those of a sample alone"
    if trains and differs(model, result.gradient, expected.gradient, GRADIENT_ALLOWANCE):
        return "the gradients are not those of a sample alone"
    return ""


def _plain_result(model: Any, samples: Sequence[TokenizedSample], trains: bool) -> ProbeResult:
    with torch.no_grad(), float32_layers(model) as in_float32:
        losses = plain_losses(model, samples)
    if not trains:
        return ProbeResult(losses, in_float32)
    with torch.enable_grad(), _embeddings(model) as embedded:
        gradients = _gradients(plain_losses(model, samples), embedded)
    # Each sample has a prefix of its own here: a shared one gets the sum of their gradients.
    of_prefixes = [gradient[0, :PREFIX_TOKENS].float() for gradient in gradients]
    return ProbeResult(losses, in_float32, gradient=torch.stack(of_prefixes).sum(0))


def _compute(model: Any, batch: dict[str, Tensor], trains: bool) -> ProbeResult:
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    # A row's mask is in the precision of the weights, which those layers leave.
    context = nullcontext(False) if "documents" in batch else float32_layers(model)
    with torch.no_grad(), context as in_float32:
        losses = reply_losses(model, batch)
    if not trains:
        return ProbeResult(losses, in_float32)
    with torch.enable_grad(), _embeddings(model) as embedded:
        gradients = _gradients(reply_losses(model, batch), embedded)
    # A shared prefix is embedded first, alone or in its row; otherwise it begins each row.
    gradient = gradients[0][:, :PREFIX_TOKENS].float().sum(0)
    return ProbeResult(losses, in_float32, gradient=gradient)


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
    # What a model stores in inference mode could not be trained with later.
    with torch.no_grad(), float32_layers(model) as in_float32:
        expected = plain_losses(model, samples)
        try:
            with changed:
                losses = plain_losses(model, samples)
        except Exception as error:
            # Kernels fail in many ways, and each has another one to take its place.
            if is_out_of_memory(error):
                raise
            log.info("a computation that does not work here", exc_info=True)
            return True
    return differs(model, losses, expected, in_float32=in_float32)


def adapter_gradients_differ(peft_model: Any, changed: AbstractContextManager[Any]) -> bool:
    """Report whether the losses or the adapter's gradients fail, or are others, inside a context
    than outside of it.

    The adapter's B is random meanwhile: while it is zero, A has no gradient. Gradients are compared
    by the kind of layer, such as all q_proj: in 16 bits, a single layer's of a deep model differ by
    a fifth from rounding alone, the gradients of a kind by a tenth.
    """
    samples = _probe_samples(peft_model)
    draw = torch.Generator().manual_seed(0)
    adapter: list[Tensor] = []
    kinds: list[str] = []
    ups: list[Tensor] = []
    for name, weight in peft_model.named_parameters():
        if weight.requires_grad:
            adapter.append(weight)
            kinds.append(_layer_kind(name))
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
        return _differ_by_kind(peft_model, ["losses", *kinds], changed_gradients, expected=expected)
    except Exception as error:  # as above
        if is_out_of_memory(error):
            raise
        log.info("adapters that do not work here", exc_info=True)
        return True
    finally:
        peft_model.train(was_training)
        for weight, original in zip(ups, before, strict=True):
            weight.data.copy_(original)


def _layer_kind(name: str) -> str:
    """Return a layer's name and its matrix, such as `q_proj.lora_A`, of an adapter's parameter."""
    layer, _, matrix = name.rpartition(".lora_")
    return f"{layer.rpartition('.')[2]}.lora_{matrix}"


def _differ_by_kind(
    model: Any, kinds: Sequence[str], found: Sequence[Tensor], *, expected: Sequence[Tensor]
) -> bool:
    """Report whether the values of a kind, taken together, differ."""
    for kind in dict.fromkeys(kinds):
        places = [place for place, other in enumerate(kinds) if other == kind]
        values = torch.cat([found[place].flatten() for place in places])
        plain = torch.cat([expected[place].flatten() for place in places])
        if differs(model, values, plain, GRADIENT_ALLOWANCE):
            return True
    return False


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
