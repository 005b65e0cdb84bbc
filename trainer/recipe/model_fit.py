"""Fits a recipe to its base model: the linear layers to adapt, and the context length."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas.errors import RequestError, TrainingError
from personas.models.base_model import BaseModel, max_positions, read_config, unreadable_file_error
from personas.models.stored_quantisation import require_unpackable
from personas.schemas.hyperparameters import MAX_ROPE_FACTOR
from trainer.schemas import Recipe

FUSED_QKV_MODULES = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "wqkv", "W_pack")
"""A fused layer for queries, keys and values: Phi-3; Falcon, GPT-NeoX; GPT-2; MPT; InternLM2;
Baichuan.
"""
LATENT_KV_MODULES = ("kv_a_proj_with_mqa", "kv_b_proj")
"""Low-rank projections of keys and values: DeepSeek-V2 and V3."""
MODULE_ALIASES: dict[str, tuple[str, ...]] = {
    "q_proj": (*FUSED_QKV_MODULES, "q_a_proj", "q_b_proj"),
    "k_proj": (*FUSED_QKV_MODULES, *LATENT_KV_MODULES),
    "v_proj": (*FUSED_QKV_MODULES, *LATENT_KV_MODULES),
    "o_proj": ("dense", "out_proj", "wo", "c_proj"),
    "gate_proj": ("gate_up_proj", "w1"),
    "up_proj": ("gate_up_proj", "w3", "fc1", "c_fc", "dense_h_to_4h"),
    "down_proj": ("w2", "fc2", "c_proj", "dense_4h_to_h"),
}
OTHER_TOWERS = frozenset(
    "vision_tower vision_model visual vision_encoder vision_embedder audio_tower audio_encoder "
    "audio_model "
    "speech_encoder multi_modal_projector embed_vision embed_audio".split()
)
"""Parts of multimodal models that read no text, by their names in transformers: no adapter is
trained there.
"""
STATE_MODULES = ("in_proj", "receptance", "key", "value")
"""Linear layers of models without attention, in place of all that a recipe names: Mamba's; RWKV's.
Mamba's fused CUDA kernels read the other matrices past their layers, so that an adapter there would
change nothing.
"""
ATTENTION_MODULES = ("q_proj", *FUSED_QKV_MODULES, "q_a_proj")
PEFT_REFUSED_MODULES = ("out_proj", "conv1d")
PEFT_REFUSING_KINDS = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""Modules that peft adapts in no model of these kinds, for the same reason
(`_check_lora_target_modules_mamba`).
"""
SAFETENSORS_SIZE_BYTES = 8
"""Size of the field that holds the header's length."""
EXPERTS_MODULE = "experts"
FEED_FORWARD_MODULES = ("gate_proj", "up_proj", "down_proj")
"""In a mixture of experts, peft would adapt the stacked weights of all experts under these names,
which allows neither dropout nor several adapters on one model.
"""
ROPE_FACTOR_QUARTERS = 4
"""Proposed factors are multiples of a quarter."""


@dataclass(frozen=True)
class TargetModules:
    """Linear layers to adapt, by `names`; `notes` say which stand in for requested ones, and which
    were left out.
    """

    names: tuple[str, ...]
    notes: tuple[str, ...]


def find_target_modules(base: BaseModel, wanted: Sequence[str]) -> TargetModules:
    """Find the names of the model's linear layers to adapt.

    Raises `TrainingError` when it has none of them, `BaseModelError` when its weights cannot be
    unpacked.
    """
    require_unpackable(base.name, base.quantisation)
    paths = [path for path in linear_layers(base) if OTHER_TOWERS.isdisjoint(path)]
    present = {path[-1] for path in paths}
    if read_config(base).get("model_type") in PEFT_REFUSING_KINDS:
        present.difference_update(PEFT_REFUSED_MODULES)
    has_experts = any(EXPERTS_MODULE in path for path in paths)
    names = list[str]()
    missing = list[str]()
    notes = list[str]()
    for name in wanted:
        if has_experts and name in FEED_FORWARD_MODULES:
            continue
        if name in present:
            names.append(name)
            continue
        aliases = [alias for alias in MODULE_ALIASES.get(name, ()) if alias in present]
        names += aliases
        missing.append(f"{name}: {' and '.join(aliases) or 'left out'}")
    if not names and not present.intersection(ATTENTION_MODULES):
        names = [name for name in STATE_MODULES if name in present]
        missing = [f"It has no attention, so that these are adapted: {', '.join(names)}"]
    if not names:
        raise TrainingError(
            f"The base model has none of the modules that the recipe adapts: {', '.join(wanted)}.",
            "Set target_modules to linear layers that it has: "
            f"{', '.join(sorted(present)) or 'none were found'}.",
        )
    if missing:
        notes.append(
            f"The base model has other linear layers than the recipe names. {'; '.join(missing)}."
        )
    if has_experts:
        notes.append(
            "The base model is a mixture of experts: its attention is adapted, its experts stay as "
            "they are."
        )
    return TargetModules(tuple(dict.fromkeys(names)), tuple(notes))


def match_target_modules(recipe: Recipe, base: BaseModel) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe with the model's layers, RoPE scaling, template and stored form, and notes
    on what differs.
    """
    targets = find_target_modules(base, recipe.target_modules)
    changes: dict[str, object] = {"target_modules": targets.names}
    if base.scaling:
        changes |= {
            "rope_scaling_factor": base.scaling.factor,
            "rope_scaling_type": base.scaling.type,
        }
    if base.template:
        changes["chat_template"] = base.template
    if base.quantisation and recipe.quant_type != "none":
        stored = base.quantisation
        changes |= {"quant_type": stored.quant_type or "none", "double_quant": stored.double_quant}
    return recipe.model_copy(update=changes), targets.notes


def linear_layers(base: BaseModel) -> list[tuple[str, ...]]:
    """Return the paths of the matrices in the model's layers, such as `("model", "layers", "0",
    "mlp", "up_proj")`.

    Only the headers of the weight files are read: github.com/huggingface/safetensors, "Format".
    Raises `BaseModelError` for a file that is damaged or cut short.
    """
    paths = []
    for file in sorted(base.folder.glob("*.safetensors")):
        for name, about in _safetensors_header(base, file).items():
            *path, kind = name.split(".")
            if (
                kind == "weight"
                and len(about["shape"]) == 2
                and any(part.isdigit() for part in path)
            ):
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


def context_length_error(base: BaseModel, longest: int) -> RequestError | None:
    """Return an error about samples that exceed the model's context length; None if none do."""
    reads = max_positions(base)
    if reads is None or longest <= reads:
        return None
    own = reads / (base.scaling.factor if base.scaling else 1)
    factor = math.ceil(longest / own * ROPE_FACTOR_QUARTERS) / ROPE_FACTOR_QUARTERS
    if factor <= MAX_ROPE_FACTOR:
        advice = f"Set rope_scaling_factor={factor:g}, or max_length={reads}."
    else:
        advice = f"Set max_length={reads}: rope_scaling_factor is at most {MAX_ROPE_FACTOR:g}."
    return RequestError(
        f"The longest sample has {longest} tokens; the base model {base.name} reads {reads}.",
        advice,
    )
