"""The size of a base model with its linear layers packed to NF4."""

from personas.home.lora_checks import LayerShapes, stored_linear_shapes
from personas.models.base_model import BaseModel
from personas.models.catalogue import NF4_BYTES, WEIGHT_BYTES


def packed_weight_bytes(base: BaseModel, layers: LayerShapes | None = None) -> int:
    """Return the bytes of the weights: `layers` (by default those of the model's files) in NF4,
    embeddings in 16 bits.
    """
    shapes = stored_linear_shapes(base) if layers is None else layers
    weights = sum(inputs * outputs for inputs, outputs in shapes.values())
    return base.weight_bytes - round(weights * (WEIGHT_BYTES - NF4_BYTES))
