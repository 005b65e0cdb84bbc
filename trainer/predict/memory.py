"""The most memory that a run will hold, in parts that can be named and explained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainer.fitted import fitted
from trainer.machine import Machine
from trainer.predict.shape import Shape
from trainer.recipe import Recipe

LIBRARIES_BYTES = 800 * 2**20
BYTES_PER_ACTIVATION, ADAPTER_COPIES = 80, 16


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak, by what holds them."""

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


def predicted_memory(recipe: Recipe, shape: Shape, longest_tokens: int, machine: Machine) -> Memory:
    """What a run over samples of at most so many tokens would hold on a machine at its peak."""
    recipe = fitted(recipe, machine).recipe
    tokens = recipe.per_device_train_batch_size * longest_tokens
    return Memory(
        {
            "libraries": LIBRARIES_BYTES,
            "base": shape.weight_bytes,
            "adapter": adapter_weights(recipe, shape) * ADAPTER_COPIES,
            "activations": tokens * shape.layers * shape.width * BYTES_PER_ACTIVATION,
        }
    )


def adapter_weights(recipe: Recipe, shape: Shape) -> int:
    """Weights of the recipe's adapter over the modules that the model has: r · (inputs + outputs) for each matrix."""
    sizes = [shape.projections[name] for name in recipe.target_modules if name in shape.projections]
    return shape.layers * recipe.lora_r * sum(inputs + outputs for inputs, outputs in sizes)
