"""RoPE scaling: lets a base model read longer sequences than it was trained on."""

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from personas.errors import BaseModelError
from personas.schemas.hyperparameters import MAX_ROPE_FACTOR

RopeType = Literal["linear", "dynamic", "yarn"]
DEFAULT_ROPE_TYPE: RopeType = "yarn"
"""The method of a factor for which none is named."""
LONG_ROPE = "longrope"
"""The type with two sets of angles (arXiv 2402.13753), of which transformers takes one for all texts
of a batch, by the longest. The angles of its other types change beyond a model's window alone.
"""
SCALING_PATTERN = re.compile(r"(?P<type>[a-z]+):(?P<factor>[0-9]+(\.[0-9]+)?)")


@dataclass(frozen=True)
class RopeScaling:
    """A scaling method and its factor.

    `linear` (arXiv 2306.15595) divides all angles by `factor`; `dynamic` (NTK-aware) raises their
    base, so that only the slow ones are divided; `yarn` (arXiv 2309.00071) does that by wavelength
    and sharpens attention.
    """

    type: RopeType
    factor: float

    def __str__(self) -> str:
        return f"{self.type}:{self.factor:g}"


def parse_scaling(text: str) -> RopeScaling:
    """Parse the scaling in a base model's name (`yarn:2`). Raises `BaseModelError`."""
    match = SCALING_PATTERN.fullmatch(text)
    if not (
        match
        and match["type"] in get_args(RopeType)
        and 1 < float(match["factor"]) <= MAX_ROPE_FACTOR
    ):
        raise BaseModelError(
            f"{text!r} is not a RoPE scaling, nor a chat template.",
            f"Write NAME#TYPE:FACTOR with one of {', '.join(get_args(RopeType))} and a factor "
            "above 1, up to "
            f"{MAX_ROPE_FACTOR:g}: embedded#yarn:2; or NAME#chatml or NAME#plain.",
        )
    return RopeScaling(match["type"], float(match["factor"]))  # type: ignore[arg-type]  # checked above


def apply_scaling(config: Any, scaling: RopeScaling, name: str) -> None:
    """Scale the positions in a transformers configuration, in place.

    `dynamic` is fixed at the angles for the longest sequence. transformers changes them as a text
    grows: then a sample's loss would depend on the other samples of its batch, and cached keys
    would have outdated angles.

    Raises `BaseModelError` for a model without rotary positions, and for one whose positions are
    scaled already.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    kind = rope.get("rope_type")
    if kind != "default":
        why = f"are scaled already ({kind})" if kind else "are not plain rotary ones"
        raise BaseModelError(
            f"The positions of {name} {why}, so they cannot be scaled.",
            "Leave the scaling out: rope_scaling_factor=1, and no #TYPE:FACTOR in the name.",
        )
    own = text.max_position_embeddings
    text.max_position_embeddings = round(own * scaling.factor)
    if scaling.type == "dynamic":
        text.rope_parameters = {**rope, "rope_theta": _dynamic_ntk_base(text, rope, scaling.factor)}
    else:
        original = {"original_max_position_embeddings": own} if scaling.type == "yarn" else {}
        text.rope_parameters = {
            **rope,
            "rope_type": scaling.type,
            "factor": scaling.factor,
            **original,
        }


def has_angles_by_length(config: Any) -> bool:
    """Tell whether a model's rotary angles change with the length of a text within its window: one
    that is computed in parts, or beside a longer one, would get those of another length.
    """
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    # One for all layers, or one for each type of layer.
    parts = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    return any(part.get("rope_type") == LONG_ROPE for part in parts)


def _dynamic_ntk_base(text: Any, rope: dict[str, Any], factor: float) -> float:
    """Compute the RoPE base of dynamic scaling for `factor` times the model's own length."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    rotated = int(head * rope.get("partial_rotary_factor", 1.0))
    grown: float = rope["rope_theta"] * (factor * factor - (factor - 1)) ** (
        rotated / (rotated - 2)
    )
    return grown
