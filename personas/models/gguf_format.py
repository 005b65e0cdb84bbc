"""GGUF architectures and files: tensor names, row permutation, quantisation, reading and
writing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gguf import (
    GGML_QUANT_SIZES,
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFReader,
    GGUFWriter,
    LlamaFileType,
    TensorNameMap,
    dequantize,
    get_tensor_name_map,
    quantize,
)
from numpy.typing import NDArray

from personas.errors import ExportError

Array = NDArray[Any]
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
Quantise = Literal["f16", "q8_0"]
TENSOR_TYPES = {"f16": GGMLQuantizationType.F16, "q8_0": GGMLQuantizationType.Q8_0}
FILE_TYPES = {"f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}
Q8_BLOCK_SIZE, _ = GGML_QUANT_SIZES[GGMLQuantizationType.Q8_0]
MAX_F16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class GgufArchitecture:
    """A supported model architecture; `gguf` is llama.cpp's name."""

    arch: MODEL_ARCH
    permuted: bool

    @property
    def gguf(self) -> str:
        """The value of `general.architecture`."""
        return MODEL_ARCH_NAMES[self.arch]

    def names(self, config: Any) -> TensorNameMap:
        """Map transformers' tensor names to GGUF's."""
        return get_tensor_name_map(self.arch, config.num_hidden_layers)

    def stored(self, tensor: Array, gguf_name: str, config: Any) -> Array:
        """Return a transformers weight, bias or LoRA B [out, …] with its rows in GGUF's order."""
        if not self.permuted:
            return tensor
        if ".attn_q." in gguf_name:
            return permute_rows(tensor, config.num_attention_heads)
        if ".attn_k." in gguf_name:
            return permute_rows(tensor, config.num_key_value_heads)
        return tensor


ARCHITECTURES = {
    "LlamaForCausalLM": GgufArchitecture(MODEL_ARCH.LLAMA, permuted=True),
    "MistralForCausalLM": GgufArchitecture(MODEL_ARCH.LLAMA, permuted=True),
    "Qwen2ForCausalLM": GgufArchitecture(MODEL_ARCH.QWEN2, permuted=False),
    "Qwen3ForCausalLM": GgufArchitecture(MODEL_ARCH.QWEN3, permuted=False),
}


LORA_ARCHITECTURES = ARCHITECTURES | {
    "SmolLM3ForCausalLM": GgufArchitecture(MODEL_ARCH.SMOLLM3, permuted=True),
    "GraniteForCausalLM": GgufArchitecture(MODEL_ARCH.GRANITE, permuted=True),
    "GemmaForCausalLM": GgufArchitecture(MODEL_ARCH.GEMMA, permuted=False),
    "Gemma2ForCausalLM": GgufArchitecture(MODEL_ARCH.GEMMA2, permuted=False),
    "Gemma3ForCausalLM": GgufArchitecture(MODEL_ARCH.GEMMA3, permuted=False),
    "Phi3ForCausalLM": GgufArchitecture(MODEL_ARCH.PHI3, permuted=False),
}
"""Architectures whose linear layers have one tensor each in GGUF, with rows as they are or permuted
like Llama's (llama.cpp's `conversion`, `undo_permute`). The base model itself may have more than
the writer of whole models knows.
"""
NO_LORA = dict.fromkeys(
    ("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration", "Qwen3NextForCausalLM"),
    "llama.cpp reorders the value heads of its linear attention, and its own converter of adapters "
    "fails there (ggml-org/llama.cpp issues 21125 and 24627)",
)


def architecture_of(config: Any) -> GgufArchitecture:
    """Return the architecture of a transformers configuration. Raises `ExportError` for an
    unsupported one.
    """
    name = _name(config)
    architecture = ARCHITECTURES.get(name)
    if architecture is None:
        raise ExportError(
            f"GGUF of a {name} is not made here; known are {', '.join(ARCHITECTURES)}.",
            "Export --to merged, and convert that folder with llama.cpp's convert_hf_to_gguf.py.",
        )
    _require_supported(config, name)
    return architecture


def lora_architecture_of(config: Any) -> GgufArchitecture:
    """Return the architecture of a model whose LoRA adapters can be written as GGUF, for a GGUF file
    of the base model. Raises `ExportError` for another one, with the reason.
    """
    name = _name(config)
    architecture = LORA_ARCHITECTURES.get(name)
    if architecture is None:
        reason = NO_LORA.get(name, "its names and rows in GGUF are not known here")
        raise ExportError(
            f"LoRA adapters of a {name} cannot be written as GGUF: {reason}.",
            f"Known are {', '.join(LORA_ARCHITECTURES)}.",
        )
    return architecture


def is_supported(config: Any) -> bool:
    """Report whether models of this architecture can be written as GGUF."""
    return _name(config) in ARCHITECTURES


def permute_rows(rows: Array, heads: int) -> Array:
    """Regroup rows [heads · 2 · half, …] from halves to neighbouring pairs within each head."""
    # Rotary positions turn two dimensions against each other: in transformers those at the same
    # place of both halves of a head, in llama.cpp's Llama two neighbours.
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def head_size(config: Any) -> int:
    """Return the dimensions of a head."""
    stated: int | None = getattr(config, "head_dim", None)
    return stated or int(config.hidden_size // config.num_attention_heads)


def rope_type(config: Any) -> str:
    """Return the model's position scaling: one of `ROPE_TYPES`."""
    return str((config.rope_parameters or {}).get("rope_type", "default"))


def _name(config: Any) -> str:
    return str((config.architectures or [type(config).__name__])[0])


def _require_supported(config: Any, name: str) -> None:
    """Refuse features that llama.cpp computes differently, or that this writer lacks."""
    advice = "Export --to merged: transformers knows it."
    has_attention_bias = getattr(config, "attention_bias", False)
    if name in ("LlamaForCausalLM", "Qwen3ForCausalLM") and has_attention_bias:
        raise ExportError(
            f"This {name} has biases in its attention, which are not written to GGUF here.", advice
        )
    if getattr(config, "mlp_bias", False):
        raise ExportError(
            f"This {name} has biases in its feed-forward layers, which llama.cpp has not.", advice
        )
    if config.hidden_act != "silu":
        raise ExportError(
            f"This {name} computes with {config.hidden_act}; llama.cpp takes silu.", advice
        )
    kind = rope_type(config)
    if kind not in ROPE_TYPES:
        supported = f"known are {', '.join(ROPE_TYPES)}."
        raise ExportError(
            f"RoPE scaling of type {kind!r} is not written to GGUF here; {supported}", advice
        )


@dataclass(frozen=True)
class GgufTensor:
    """A tensor to write: GGUF name, shape, file type, and the source of its float32 values."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    values: Callable[[], Array]


def tensor_type(shape: Sequence[int], quantise: Quantise) -> GGMLQuantizationType:
    """Choose a tensor's file type: float32 for vectors, float16 for rows that are not whole
    blocks.
    """
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    if quantise == "q8_0" and shape[-1] % Q8_BLOCK_SIZE:
        return GGMLQuantizationType.F16
    return TENSOR_TYPES[quantise]


def round_values(values: Array, kind: GGMLQuantizationType) -> Array:
    """Round float32 values through this file type."""
    return np.ascontiguousarray(dequantize(encode_values(values, kind, ""), kind), dtype=np.float32)


def encode_values(values: Array, kind: GGMLQuantizationType, name: str) -> Array:
    """Encode float32 values in their file type. Raises `ExportError` if float16 overflows."""
    if kind == GGMLQuantizationType.F16 and float(np.abs(values).max(initial=0.0)) > MAX_F16:
        raise ExportError(
            f"{name} holds values beyond {MAX_F16:.0f}, which F16 cannot.", "Export --to merged."
        )
    return quantize(np.ascontiguousarray(values, dtype=np.float32), kind)


def write_gguf(
    path: Path, arch: str, describe: Callable[[GGUFWriter], None], entries: Sequence[GgufTensor]
) -> None:
    """Write a GGUF file of the metadata of `describe` and lazily computed tensors. Raises
    `OSError`.
    """
    writer = GGUFWriter(path, arch)
    try:
        describe(writer)
        # The header has the place of every tensor, so that their sizes come before their values.
        for entry in entries:
            writer.add_tensor_info(
                entry.name,
                entry.shape,
                np.dtype(np.float32),
                _stored_bytes(entry),
                raw_dtype=entry.kind,
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        _write_tensors(writer, entries)
    finally:
        writer.close()


def _write_tensors(writer: GGUFWriter, entries: Sequence[GgufTensor]) -> None:
    # `write_tensor_data` uses numpy's tofile, which hides why a write failed.
    file = writer.fout[0] if writer.fout else None
    if file is None:
        raise ValueError("the header comes first")
    writer.write_padding(file, file.tell())
    for entry in entries:
        data = encode_values(entry.values(), entry.kind, entry.name)
        file.write(data.tobytes())
        writer.write_padding(file, data.nbytes)
    file.flush()


def _stored_bytes(entry: GgufTensor) -> int:
    block, size = GGML_QUANT_SIZES[entry.kind]
    return int(np.prod(entry.shape)) // block * size


def open_gguf(path: Path) -> GGUFReader:
    """Open a file with all its tensors. Raises `ExportError` for a truncated file or another
    format.
    """
    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise ExportError(f"{path.name} is damaged: {error}.", "Export it again.") from error
    for tensor in reader.tensors:
        if tensor.data_offset + tensor.n_bytes > path.stat().st_size:
            raise ExportError(
                f"{path.name} is cut short: {tensor.name} is not all there.", "Export it again."
            )
    return reader


def read_tensor(tensor: Any) -> Array:
    """Return a tensor's float32 values in torch's shape."""
    return np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
