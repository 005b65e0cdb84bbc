"""The most memory that a run will hold, in parts that can be named and explained.

A run is three models, one after another: the base model is measured, the adapter trained, the adapter measured. What
each of them holds at its highest is reckoned, and the greatest counts. Everything follows from the model's shape and
the samples, but for what the libraries take, which was measured. `python -m trainer predictions` measures it all again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from personas.serving import takes_4_bits
from trainer.machine import Machine
from trainer.predict.activations import Batch, backward_bytes, kept_bytes, loss_bytes, measuring_bytes, stranded_bytes
from trainer.predict.shape import Shape
from trainer.predict.work import MEASURED_AT_ONCE, Workload
from trainer.recipe import Recipe

LIBRARIES_BYTES, CONTEXT_BYTES = 780 * 2**20, 500 * 2**20
"""Torch, transformers, peft, trl, datasets, and the samples; on a GPU what CUDA's context may take: not measured."""

WASTED_ON_GPU = 0.1
"""Of what comes and goes at each step, by CUDA's allocator."""

WEIGHT, GRADIENT, STATE, STATE_8BIT = 4, 4, 8, 2
"""Bytes of a float32 adapter weight, its gradient, and AdamW's two means of it."""

PACKED, PACKED_TWICE = 0.5625, 0.516
"""Bytes of a 4-bit weight with its constants: a float32 for 64 weights, or a byte and a float32 for 256 of these."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak, by what holds them: `libraries`, `base model`, `adapter`, `gradients`, `optimiser`,
    `activations` (kept for the way back), `loss` (logits, and gradients on their way), `measuring` (what measuring
    takes beyond training), `allocator` (what is neither used nor given back), `checkpoint` (the best one's file, as
    it is read back).
    """

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


def predicted_memory(recipe: Recipe, shape: Shape, longest_tokens: int, machine: Machine) -> Memory:
    """What a run over samples of at most so many tokens would hold on a machine at its peak: nothing shared, a quarter
    of each sample its reply.
    """
    work = Workload([longest_tokens] * recipe.per_device_train_batch_size, [longest_tokens] * MEASURED_AT_ONCE)
    longest = recipe.model_copy(update={"max_length": longest_tokens})
    return memory_of(recipe, shape, work.largest_trained(longest), work.largest_measured(longest), machine)


def memory_of(recipe: Recipe, shape: Shape, trained: Batch, measured: Batch, machine: Machine) -> Memory:
    """The same where the greatest batches are known: the one that is trained on, and the one that is measured."""
    value, served = value_bytes_of(recipe, machine), 2 if machine.has_cuda or machine.best == "bf16" else 4
    base, weights = _base(recipe, shape, value, machine), adapter_weights(recipe, shape)
    trained = trained.whole if machine.has_cuda else trained  # nothing is shared on a GPU
    # Autocast keeps a 16-bit copy of the adapter, too.
    adapter, state = weights * (WEIGHT + (value if value < WEIGHT else 0)), weights * _state(recipe, machine)
    training = {
        "adapter": adapter,
        "gradients": weights * GRADIENT,
        "optimiser": state,
        "activations": kept_bytes(shape, recipe, trained, value, has_scores=not machine.has_cuda),
        "loss": max(loss_bytes(shape, trained), backward_bytes(shape, recipe, trained, value)),
    }
    wasted = (
        round(WASTED_ON_GPU * (training["activations"] + training["loss"]))
        if machine.has_cuda
        else stranded_bytes(shape, recipe, trained, value, base)
    )
    training_at_most = base + sum(training.values()) + wasted
    between = measuring_bytes(shape, measured, value) + base + adapter + state
    after = measuring_bytes(shape, measured, served) + _served(shape, served, machine) + weights * served
    return Memory(
        {
            "libraries": CONTEXT_BYTES if machine.has_cuda else LIBRARIES_BYTES,
            "base model": base,
            **training,
            "allocator": wasted,
            "checkpoint": 0 if machine.has_cuda or recipe.eval_strategy == "no" else weights * WEIGHT + state,
            "measuring": max(0, between - training_at_most, after - training_at_most),
        }
    )


def adapter_weights(recipe: Recipe, shape: Shape) -> int:
    """Weights of the recipe's adapter over the modules that the model has: r · (inputs + outputs) for each matrix, and
    with DoRA a magnitude for each output.
    """
    sizes = [shape.adaptable[name] for name in recipe.target_modules if name in shape.adaptable]
    each = [recipe.lora_r * (inputs + outputs) + (outputs if recipe.use_dora else 0) for inputs, outputs in sizes]
    return shape.layers * sum(each)


def value_bytes_of(recipe: Recipe, machine: Machine) -> int:
    """Of a value in the precision that the recipe computes in on this machine (`trainer.fitted`)."""
    wanted = machine.best if recipe.precision == "auto" else recipe.precision
    computed = wanted if machine.has_cuda or wanted == "fp32" else machine.best
    return 4 if computed == "fp32" else 2


def _state(recipe: Recipe, machine: Machine) -> int:
    """Bytes of optimiser state for each adapter weight. Paged state leaves a GPU that is full."""
    if machine.has_cuda and recipe.optim.startswith("paged_"):
        return 0
    return STATE_8BIT if recipe.optim.endswith("8bit") else STATE


def _base(recipe: Recipe, shape: Shape, value: int, machine: Machine) -> int:
    """Bytes of the base model while it is trained on."""
    if recipe.quant_type == "none":
        return shape.weights * value if machine.has_cuda else _copied(shape, value)
    if machine.has_cuda:
        return _packed(shape, value, PACKED_TWICE if recipe.double_quant else PACKED)
    rest = shape.weights - shape.linear_weights
    # Unpacked; what is not quantised stays where the file is mapped, and all of the file with it, or is copied.
    return shape.linear_weights * value + (shape.weight_bytes if value == shape.stored else rest * value)


def _served(shape: Shape, value: int, machine: Machine) -> int:
    """Bytes of the base model while what was trained is measured over it (`personas.serving`)."""
    if not machine.has_cuda:
        return _copied(shape, value)
    if machine.memory_bytes and takes_4_bits(shape.weight_bytes, machine.memory_bytes):
        return _packed(shape, value, PACKED_TWICE)
    return shape.weights * value


def _packed(shape: Shape, value: int, packed: float) -> int:
    """Bytes of the whole model with its linear layers in 4 bits."""
    return round(shape.linear_weights * packed) + (shape.weights - shape.linear_weights) * value


def _copied(shape: Shape, value: int) -> int:
    """Bytes of the whole model on a CPU: the file as it is mapped, or a copy in another precision."""
    return shape.weight_bytes if value == shape.stored else shape.weights * value
