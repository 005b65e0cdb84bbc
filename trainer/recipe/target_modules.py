"""Which linear layers of a base model get an adapter, and which share of its blocks they are.

Only the headers of the weight files are read, so that a plan needs neither torch nor the weights:
github.com/huggingface/safetensors, "Format". `trainer.train.lora_layers` finds the same layers in
the loaded model.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas.errors import TrainingError
from personas.models.base_model import BaseModel, unreadable_file_error
from personas.models.stored_quantisation import (
    COMPRESSED_WEIGHT_SUFFIX,
    PACKED_WEIGHT_SUFFIX,
    USUAL_BITS,
    WORD_BITS,
    require_unpackable,
)
from trainer.schemas import ALL_LINEAR

LLAMA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a Llama block, in the order in which people list them."""
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
    {
        "vision_tower",
        "vision_model",
        "visual",
        "vision_encoder",
        "vision_embedder",
        "audio_tower",
        "audio_encoder",
        "audio_model",
        "speech_encoder",
        "multi_modal_projector",
        "embed_vision",
        "embed_audio",
        # Predicts a second token ahead (Qwen3.5); transformers does not load it.
        "mtp",
    }
)
"""Parts of a model that the decoder's text does not pass, by their names in transformers."""
ROUTERS = frozenset({"router", "gate", "router_gate", "shared_expert_gate", "expert_gate"})
"""Layers that choose a token's experts. Adapting them would send tokens to other experts than those
that learned to read them.
"""
EXPERTS = "experts"
"""The stacked weights of a mixture's experts. peft adapts them as parameters, which allows neither
dropout nor several adapters on one model.
"""
EXPERT_MODULES = frozenset({"gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
"""Names that peft takes for a mixture's stacked experts, even in whole paths to dense layers
(`peft.utils.transformers_weight_conversion`).
"""
STATE_MIXERS = frozenset({"mamba", "mixer"})
BYPASSED_MODULES = frozenset({"x_proj", "dt_proj", "out_proj"})
"""In a Mamba layer, the fused CUDA kernels read these matrices past their layers, so that an adapter
there would change nothing on a card (peft refuses them: `_check_lora_target_modules_mamba`).
"""
CONVOLUTIONS = frozenset({"conv", "conv1d"})
WEIGHT_SUFFIXES = (".weight", PACKED_WEIGHT_SUFFIX, COMPRESSED_WEIGHT_SUFFIX)
FULL_COVERAGE = 0.99
"""Share of the blocks' parameters below which a plan names the layers without an adapter."""
MAX_NAMED = 6
SAFETENSORS_SIZE_BYTES = 8
"""Size of the field that holds the header's length."""

LayerPath = tuple[str, ...]


@dataclass(frozen=True)
class TargetModules:
    """Linear layers to adapt, by `names`.

    `coverage` is their share of the parameters in the blocks' matrices, routers aside, and
    `left_out` the shares of the other layers by name. `notes` say which layers stand in for
    requested ones, and which have no adapter.
    """

    names: tuple[str, ...]
    notes: tuple[str, ...]
    coverage: float
    left_out: Mapping[str, float]


@dataclass(frozen=True)
class BlockMatrix:
    """A matrix in a decoder's block: its number of parameters, and whether it can have an
    adapter.
    """

    parameters: int
    is_adaptable: bool


def is_adaptable(path: LayerPath, *, is_mixture: bool) -> bool:
    """Report whether a linear layer can have an adapter, by its path in the model:
    `("model", "layers", "0", "mlp", "up_proj")`. `is_mixture`: the model has experts.
    """
    if EXPERTS in path or is_aside(path) or (is_mixture and path[-1] in EXPERT_MODULES):
        return False
    return path[-1] not in BYPASSED_MODULES or STATE_MIXERS.isdisjoint(path)


def is_aside(path: LayerPath) -> bool:
    """Report whether a matrix is none of a decoder block's, or one that is never adapted."""
    in_block = any(part.isdigit() for part in path)
    return (
        not in_block
        or not OTHER_TOWERS.isdisjoint(path)
        or not ROUTERS.isdisjoint(path)
        or path[-1] in CONVOLUTIONS
    )


def find_target_modules(base: BaseModel, wanted: Sequence[str]) -> TargetModules:
    """Find the names of the model's linear layers to adapt: all of them, or those in `wanted` and
    the model's own for them.

    Raises `TrainingError` when it has none of them, `BaseModelError` when its weights cannot be
    unpacked or a file is damaged.
    """
    require_unpackable(base.name, base.quantisation)
    matrices = block_matrices(base)
    present = {path[-1] for path, matrix in matrices.items() if matrix.is_adaptable}
    notes = list[str]()
    if ALL_LINEAR in wanted:
        names = order_modules(present, LLAMA_MODULES)
    else:
        names, missing = _match_names(wanted, present)
        if missing and names:
            notes.append(
                "The base model has other linear layers than the recipe names. "
                f"{'; '.join(missing)}."
            )
    if not names:
        raise TrainingError(
            f"The base model has none of the modules that the recipe adapts: {', '.join(wanted)}.",
            f"Set target_modules={ALL_LINEAR}, or to linear layers that it has: "
            f"{', '.join(sorted(present)) or 'none were found'}.",
        )
    left_out = _shares_left_out(matrices, names)
    coverage = 1.0 - sum(left_out.values())
    if coverage < FULL_COVERAGE:
        notes.append(_coverage_note(coverage, left_out, everything=ALL_LINEAR in wanted))
    return TargetModules(names=names, notes=tuple(notes), coverage=coverage, left_out=left_out)


def order_modules(names: Iterable[str], first: Sequence[str]) -> tuple[str, ...]:
    """Order the names of layers: those of `first` in its order, then the others by name."""
    distinct = set(names)
    known = [name for name in first if name in distinct]
    return (*known, *sorted(distinct.difference(first)))


def _match_names(
    wanted: Sequence[str], present: set[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the model's names of the wanted layers, and a remark on each that it has not."""
    names = dict[str, None]()
    missing = list[str]()
    for name in wanted:
        if name in present:
            names[name] = None
            continue
        aliases = [alias for alias in MODULE_ALIASES.get(name, ()) if alias in present]
        names.update(dict.fromkeys(aliases))
        missing.append(f"{name}: {' and '.join(aliases) or 'left out'}")
    return tuple(names), tuple(missing)


def _shares_left_out(
    matrices: Mapping[LayerPath, BlockMatrix], names: Sequence[str]
) -> dict[str, float]:
    """Return the share of the parameters of each layer without an adapter, largest first."""
    left_out = Counter[str]()
    for path, matrix in matrices.items():
        if matrix.is_adaptable and path[-1] in names:
            continue
        left_out[EXPERTS if EXPERTS in path else path[-1]] += matrix.parameters
    total = sum(matrix.parameters for matrix in matrices.values())
    return {name: parameters / total for name, parameters in left_out.most_common()}


def _coverage_note(coverage: float, left_out: Mapping[str, float], *, everything: bool) -> str:
    named = [f"{name} ({share:.1%})" for name, share in left_out.items()]
    if len(named) > MAX_NAMED:
        named = [*named[:MAX_NAMED], f"and {len(named) - MAX_NAMED} more"]
    note = (
        f"The adapter covers {coverage:.1%} of the parameters in the base model's blocks. "
        f"No adapter: {', '.join(named)}."
    )
    if EXPERTS in left_out:
        note += " The experts of a mixture stay as they are."
    if not everything:
        note += f" target_modules={ALL_LINEAR} covers all that can be adapted."
    return note


def block_matrices(base: BaseModel) -> dict[LayerPath, BlockMatrix]:
    """Return the matrices in the decoder's blocks by their paths.

    Routers, convolutions and towers that read no text are aside; stacked experts count. Raises
    `BaseModelError` for a file that is damaged or cut short.
    """
    tensors = dict[str, Any]()
    for file in sorted(base.folder.glob("*.safetensors")):
        tensors |= read_safetensors_header(base, file)
    is_mixture = any(EXPERTS in name.split(".") for name in tensors)

    matrices = dict[LayerPath, BlockMatrix]()
    for name, about in tensors.items():
        suffix = next((each for each in WEIGHT_SUFFIXES if name.endswith(each)), "")
        path = tuple(name.removesuffix(suffix).split("."))
        shape = about["shape"]
        # transformers 5 stores a mixture's experts as parameters, without `.weight`.
        is_experts = path[-2:-1] == (EXPERTS,) and "bias" not in path[-1]
        if len(shape) < 2 or is_aside(path) or not (suffix or is_experts):
            continue
        values_per_element = _values_per_element(base, about["dtype"])
        matrices[path] = BlockMatrix(
            parameters=values_per_element * math.prod(shape),
            is_adaptable=len(shape) == 2 and is_adaptable(path, is_mixture=is_mixture),
        )
    return matrices


def _values_per_element(base: BaseModel, dtype: str) -> int:
    if dtype == "I32":  # GPTQ's, AWQ's and compressed-tensors' words
        bits = base.quantisation.bits if base.quantisation else 0
        return WORD_BITS // (bits or USUAL_BITS)
    # bitsandbytes packs two 4-bit values in a byte.
    return 2 if dtype == "U8" else 1


def read_safetensors_header(base: BaseModel, file: Path) -> dict[str, Any]:
    """Return the `dtype`, `shape` and `data_offsets` of each tensor of a weight file.

    Raises `BaseModelError` for a file that is damaged or cut short.
    """
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
