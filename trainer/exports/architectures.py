"""Which models can be exported to GGUF, and what llama.cpp calls and stores differently.

Llama and Mistral: llama.cpp turns pairs of neighbouring rows where transformers turns the two halves of a head, so the
rows of q and k are permuted (`LlamaModel.permute` in llama.cpp's convert_hf_to_gguf.py). Qwen2 and Qwen3 are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, TensorNameMap, get_tensor_name_map
from numpy.typing import NDArray

from trainer.exports.errors import ExportError

Array = NDArray[Any]
ROPE_TYPES = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True)
class Architecture:
    """A known class of models. `gguf` is llama.cpp's name of it."""

    name: str
    arch: MODEL_ARCH
    permuted: bool

    @property
    def gguf(self) -> str:
        """What `general.architecture` says."""
        return MODEL_ARCH_NAMES[self.arch]

    def names(self, config: Any) -> TensorNameMap:
        """From transformers' names of tensors to GGUF's."""
        return get_tensor_name_map(self.arch, config.num_hidden_layers)

    def stored(self, tensor: Array, gguf_name: str, config: Any) -> Array:
        """A weight, bias or LoRA B [out, …] of transformers with its rows in the order in which GGUF stores them."""
        if not self.permuted:
            return tensor
        if ".attn_q." in gguf_name:
            return permuted(tensor, config.num_attention_heads)
        if ".attn_k." in gguf_name:
            return permuted(tensor, config.num_key_value_heads)
        return tensor


KNOWN = {
    known.name: known
    for known in (
        Architecture("LlamaForCausalLM", MODEL_ARCH.LLAMA, permuted=True),
        Architecture("MistralForCausalLM", MODEL_ARCH.LLAMA, permuted=True),
        Architecture("Qwen2ForCausalLM", MODEL_ARCH.QWEN2, permuted=False),
        Architecture("Qwen3ForCausalLM", MODEL_ARCH.QWEN3, permuted=False),
    )
}


def architecture_of(config: Any) -> Architecture:
    """The architecture of a transformers configuration. Raises `ExportError` for one that is not known here."""
    name = _name(config)
    known = KNOWN.get(name)
    if known is None:
        raise ExportError(
            f"GGUF of a {name} is not made here; known are {', '.join(KNOWN)}.",
            "Export --to merged, and convert that folder with llama.cpp's convert_hf_to_gguf.py.",
        )
    _require_plain(config, name)
    return known


def is_known(config: Any) -> bool:
    """Whether there is a GGUF of models of this kind."""
    return _name(config) in KNOWN


def permuted(rows: Array, heads: int) -> Array:
    """Rows [heads · 2 · half, …] regrouped from halves to neighbouring pairs within each head."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def head_size(config: Any) -> int:
    """How many dimensions a head has."""
    size: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return size


def rope_type(config: Any) -> str:
    """How the model's positions are scaled: one of `ROPE_TYPES`."""
    return str((config.rope_parameters or {}).get("rope_type", "default"))


def _name(config: Any) -> str:
    return str((config.architectures or [type(config).__name__])[0])


def _require_plain(config: Any, name: str) -> None:
    """Refuse what llama.cpp computes differently, or what is not written here."""
    advice = "Export --to merged: transformers knows it."
    if name in ("LlamaForCausalLM", "Qwen3ForCausalLM") and getattr(config, "attention_bias", False):
        raise ExportError(f"This {name} has biases in its attention, which are not written to GGUF here.", advice)
    if getattr(config, "mlp_bias", False):
        raise ExportError(f"This {name} has biases in its feed-forward layers, which llama.cpp has not.", advice)
    if config.hidden_act != "silu":
        raise ExportError(f"This {name} computes with {config.hidden_act}; llama.cpp takes silu.", advice)
    if rope_type(config) not in ROPE_TYPES:
        raise ExportError(
            f"RoPE scaling of type {rope_type(config)!r} is not written to GGUF here; known are "
            f"{', '.join(ROPE_TYPES)}.",
            advice,
        )
