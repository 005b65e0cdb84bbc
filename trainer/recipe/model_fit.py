"""Fits a recipe to the base model: LoRA target modules and context length."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas.errors import RequestError, TrainingError
from personas.models.base_model import BaseModel, max_positions, unreadable_file_error
from personas.schemas.hyperparameters import MAX_ROPE_FACTOR
from trainer.schemas import Recipe

FUSED_QKV_MODULES = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "wqkv", "W_pack")
"""One layer for queries, keys and values: Phi-3; Falcon, GPT-NeoX; GPT-2; MPT; InternLM2; Baichuan."""
LATENT_KV_MODULES = ("kv_a_proj_with_mqa", "kv_b_proj")  # keys and values through a narrow layer: DeepSeek-V2 and V3
MODULE_ALIASES: dict[str, tuple[str, ...]] = {
    "q_proj": (*FUSED_QKV_MODULES, "q_a_proj", "q_b_proj"),
    "k_proj": (*FUSED_QKV_MODULES, *LATENT_KV_MODULES),
    "v_proj": (*FUSED_QKV_MODULES, *LATENT_KV_MODULES),
    "o_proj": ("dense", "out_proj", "wo", "c_proj"),
    "gate_proj": ("gate_up_proj", "w1"),
    "up_proj": ("gate_up_proj", "w3", "fc1", "c_fc", "dense_h_to_4h"),
    "down_proj": ("w2", "fc2", "c_proj", "dense_4h_to_h"),
}
SAFETENSORS_SIZE_BYTES = 8  # leading bytes of a weight file that state the length of its header
EXPERTS_MODULE = "experts"
FEED_FORWARD_MODULES = ("gate_proj", "up_proj", "down_proj")
"""Feed-forward modules. In a mixture of experts peft adapts the stacked weights of all experts under these names, which
allows neither dropout nor several adapters over one model."""
ROPE_FACTOR_QUARTERS = 4  # factors are proposed in quarters: fine enough, and short to type


@dataclass(frozen=True)
class TargetModules:
    """`names` are layers of the model; `notes` say which of them stand for what was asked, and what was left out."""

    names: tuple[str, ...]
    notes: tuple[str, ...]


def find_target_modules(base: BaseModel, wanted: Sequence[str]) -> TargetModules:
    """Finds the names of the model's linear layers to adapt. Raises `TrainingError` when it has none of them."""
    paths = linear_layers(base)
    present = {path[-1] for path in paths}
    has_experts = any(EXPERTS_MODULE in path for path in paths)
    names, notes = list[str](), list[str]()
    for name in wanted:
        if has_experts and name in FEED_FORWARD_MODULES:
            continue
        found = [name] if name in present else [other for other in MODULE_ALIASES.get(name, ()) if other in present]
        names += found
        if found != [name]:
            notes.append(f"{name}: {' and '.join(found) or 'left out'}")
    require_target_modules(names, wanted, present)
    said = []
    if notes:
        said.append(f"The base model has other linear layers than the recipe names. {'; '.join(notes)}.")
    if has_experts:
        said.append("The base model is a mixture of experts: its attention is adapted, its experts stay as they are.")
    return TargetModules(tuple(dict.fromkeys(names)), tuple(said))


def match_target_modules(recipe: Recipe, base: BaseModel) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with the layers and the scaling that the model has, and what of that was not as asked."""
    targets = find_target_modules(base, recipe.target_modules)
    changes: dict[str, object] = {"target_modules": targets.names}
    if base.scaling:
        changes |= {"rope_scaling_factor": base.scaling.factor, "rope_scaling_type": base.scaling.type}
    return recipe.model_copy(update=changes), targets.notes


def require_target_modules(names: Collection[str], wanted: Sequence[str], present: Collection[str]) -> None:
    """Raise `TrainingError` when there is nothing to adapt."""
    if not names:
        raise TrainingError(
            f"The base model has none of the modules that the recipe adapts: {', '.join(wanted)}.",
            f"Set target_modules to linear layers that it has: {', '.join(sorted(present)) or 'none were found'}.",
        )


def linear_layers(base: BaseModel) -> list[tuple[str, ...]]:
    """The matrices of the model's layers, as the path of each: `("model", "layers", "0", "mlp", "up_proj")`.

    Read from the headers of the weight files, without their weights: github.com/huggingface/safetensors, "Format".
    Raises `BaseModelError` for a file that is damaged or cut short.
    """
    paths = []
    for file in sorted(base.folder.glob("*.safetensors")):
        for name, about in _safetensors_header(base, file).items():
            *path, kind = name.split(".")
            if kind == "weight" and len(about["shape"]) == 2 and any(part.isdigit() for part in path):
                paths.append(tuple(path))
    return paths


def _safetensors_header(base: BaseModel, file: Path) -> dict[str, Any]:
    whole = file.stat().st_size
    with file.open("rb") as weights:
        size = int.from_bytes(weights.read(SAFETENSORS_SIZE_BYTES), "little")
        if size > whole:
            raise unreadable_file_error(base, file.name, "it is cut short, or holds no weights")
        try:
            header: dict[str, Any] = json.loads(weights.read(size))
        except ValueError as error:
            raise unreadable_file_error(base, file.name, error) from error
    header.pop("__metadata__", None)
    ends = max((about["data_offsets"][1] for about in header.values()), default=0)
    if SAFETENSORS_SIZE_BYTES + size + ends > whole:
        raise unreadable_file_error(base, file.name, f"it is cut short at {whole:,} bytes")
    return header


def require_context_length(base: BaseModel, longest: int) -> None:
    """Raise `RequestError` when the longest sample, in tokens, is longer than what the model reads.

    It counts, not `max_length`, which only bounds it: a long bound over short talks does no harm.
    """
    if error := context_length_error(base, longest):
        raise error


def context_length_error(base: BaseModel, longest: int) -> RequestError | None:
    """Returns an error about samples that exceed the model's context length; None if none do."""
    reads = max_positions(base)
    if reads is None or longest <= reads:
        return None
    own = reads / (base.scaling.factor if base.scaling else 1)
    factor = math.ceil(longest / own * ROPE_FACTOR_QUARTERS) / ROPE_FACTOR_QUARTERS
    scale = f"Set rope_scaling_factor={factor:g}, or max_length={reads}." if factor <= MAX_ROPE_FACTOR else ""
    return RequestError(
        f"The longest sample has {longest} tokens; the base model {base.name} reads {reads}.",
        scale or f"Set max_length={reads}: more than {MAX_ROPE_FACTOR:g} times its own length no scaling gives it.",
    )
