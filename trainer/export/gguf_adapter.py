"""Writes a LoRA adapter as GGUF and reads it back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFType, GGUFWriter, Keys
from peft.tuners.lora import Linear, LoraLayer
from torch import Tensor
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

from personas.errors import ExportError
from trainer.export.gguf_format import (
    Array,
    GgufArchitecture,
    GgufTensor,
    architecture_of,
    open_gguf,
    read_tensor,
    read_value,
    write_gguf,
)

MAX_DELTA_ERROR = 1e-5
"""Allowed difference of a delta after reading, as a share of its largest value."""


@dataclass(frozen=True)
class LoraModule:
    """An adapted layer: the base model's name for it, A [r, in], B [out, r], and peft's scale."""

    name: str
    a: Array
    b: Array
    scale: float

    @property
    def alpha(self) -> float:
        """The alpha that llama.cpp needs for this module."""
        return self.scale * float(self.a.shape[0])


def list_lora_modules(adapted: Any) -> list[LoraModule]:
    """Return the adapter's modules as peft applies them. Raises `ExportError` if GGUF cannot
    express one.
    """
    config = adapted.peft_config[adapted.active_adapter]
    active = adapted.active_adapter
    _require_plain(config)
    modules = []
    for name, layer in adapted.get_base_model().named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        if not isinstance(layer, Linear) or active not in layer.lora_A:
            raise ExportError(
                f"{name} is adapted in a way that a GGUF adapter has no place for.",
                "Export --to gguf.",
            )
        if name == "lm_head" and adapted.get_base_model().config.tie_word_embeddings:
            raise ExportError(
                "lm_head is adapted and tied to the embedding.", "Export --to adapter."
            )
        a = layer.lora_A[active].weight.detach().float().cpu().numpy()
        b = layer.lora_B[active].weight.detach().float().cpu().numpy()
        modules.append(LoraModule(name, a, b, float(layer.scaling[active])))
    return modules


def write_adapter(path: Path, modules: list[LoraModule], config: Any, name: str) -> None:
    """Write the adapter file in float32, as trained. Raises `ExportError`, `OSError`."""
    architecture = architecture_of(config)
    # A file has one alpha; where a module's is another, the rest is multiplied into its B.
    alpha = Counter(module.alpha for module in modules).most_common(1)[0][0]

    def describe(writer: GGUFWriter) -> None:
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string(Keys.Adapter.TYPE, "lora")
        writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
        writer.add_name(name)

    entries = list(_entries(modules, architecture, config, alpha))
    write_gguf(path, architecture.gguf, describe, entries)


def read_adapter(path: Path, config: Any) -> dict[str, Array]:
    """Return each weight's delta by module name: (alpha / r)·B·A, [out, in]. Raises `ExportError`
    for damaged files.
    """
    reader = open_gguf(path)
    is_adapter = read_value(reader, "general.type") == GGUFType.ADAPTER
    if not is_adapter or read_value(reader, Keys.Adapter.TYPE) != "lora":
        raise ExportError(f"{path.name} is no LoRA adapter.", "Export it again.")
    alpha = float(read_value(reader, Keys.Adapter.LORA_ALPHA))
    tensors = {tensor.name: read_tensor(tensor) for tensor in reader.tensors}
    architecture = architecture_of(config)
    deltas = {}
    for name, gguf_name in _gguf_names(architecture, config).items():
        a = tensors.pop(f"{gguf_name}.weight.lora_a", None)
        b = tensors.pop(f"{gguf_name}.weight.lora_b", None)
        if a is not None and b is not None:
            rows = _unpermute_rows(b @ a, gguf_name, architecture, config)
            deltas[name] = rows * (alpha / a.shape[0])
    if tensors:
        raise ExportError(
            f"{path.name} holds tensors of no module: {', '.join(sorted(tensors)[:3])}.",
            "Export again.",
        )
    return deltas


def require_same_deltas(adapted: Any, deltas: dict[str, Array]) -> None:
    """Require that the deltas are peft's. Raises `ExportError`."""
    names = {module.name for module in list_lora_modules(adapted)}
    if names != set(deltas):
        raise ExportError(
            f"The file lacks {', '.join(sorted(names ^ set(deltas))[:3])}.", "Report this fault."
        )
    for name, delta in deltas.items():
        layer = adapted.get_base_model().get_submodule(name)
        theirs = layer.get_delta_weight(adapted.active_adapter).detach().float().cpu().numpy()
        largest = float(np.abs(theirs).max()) or 1.0
        error = float(np.abs(theirs - delta).max()) / largest
        if not error <= MAX_DELTA_ERROR:  # so that NaN fails
            fault = f"Read back, {name} changes by {error:.2g} of its largest value too much."
            raise ExportError(fault, "Nothing was kept.")


def add_deltas(model: Any, deltas: dict[str, Array]) -> Any:
    """Add the file's deltas to the float32 weights of a base model; return the model."""
    with torch.no_grad():
        for name, delta in deltas.items():
            weight: Tensor = model.get_submodule(name).weight
            weight += torch.from_numpy(delta)
    return model


def _entries(
    modules: list[LoraModule], architecture: GgufArchitecture, config: Any, alpha: float
) -> Iterator[GgufTensor]:
    names = _gguf_names(architecture, config)
    for module in modules:
        if module.name not in names:
            raise ExportError(f"{module.name} has no name in GGUF.", "Export --to adapter.")
        gguf_name = f"{names[module.name]}.weight"
        rest = module.alpha / alpha
        b = module.b if rest == 1.0 else module.b * np.float32(rest)
        # llama.cpp orders the rows of some layers otherwise: these are B's, and A stays as it is.
        stored_b = architecture.stored(b, gguf_name, config)
        for part, values in (("a", module.a), ("b", stored_b)):
            read = partial(np.asarray, values)
            part_name = f"{gguf_name}.lora_{part}"
            yield GgufTensor(part_name, tuple(values.shape), GGMLQuantizationType.F32, read)


def _gguf_names(architecture: GgufArchitecture, config: Any) -> dict[str, str]:
    """Return GGUF's names of the linear layers."""
    modules = [f"self_attn.{part}_proj" for part in "qkvo"]
    modules += [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
    layers: list[str] = []
    for layer in range(config.num_hidden_layers):
        layers += [f"model.layers.{layer}.{module}" for module in modules]
    names = architecture.names(config)
    return {name: str(names.get_name(name)) for name in [*layers, "lm_head"]}


def _unpermute_rows(
    rows: Array, gguf_name: str, architecture: GgufArchitecture, config: Any
) -> Array:
    """Return rows in transformers' order."""
    heads = {
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
    }
    reader = TENSOR_PROCESSORS.get(architecture.gguf, TensorProcessor)(config=heads)
    weights: Array = reader.process(rows, f"{gguf_name}.weight").weights
    return weights


def _require_plain(config: Any) -> None:
    """Refuse anything beyond A and B on linear layers."""
    beyond = {
        "DoRA": config.use_dora,
        "biases": config.bias != "none" or config.lora_bias,
        f"whole modules ({config.modules_to_save})": config.modules_to_save,
        "trained tokens": config.trainable_token_indices,
        "parameters": config.target_parameters,
        "repeated layers": config.layer_replication,
    }
    unsupported = [name for name, is_used in beyond.items() if is_used]
    if unsupported:
        raise ExportError(
            f"This adapter holds {' and '.join(unsupported)}, for which a GGUF adapter has no "
            "place.",
            "Export --to gguf, with the adapter merged into the model.",
        )
