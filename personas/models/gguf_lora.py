"""LoRA adapters as GGUF files, llama.cpp's `--lora`: written from peft's matrices, read and checked.

The format is that of llama.cpp's `convert_lora_to_gguf.py`: `adapter.lora.alpha`, and for each
adapted weight `NAME.lora_a` [r, in] and `NAME.lora_b` [out, r].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFType, GGUFWriter, Keys

from personas.errors import ExportError
from personas.models.gguf_format import (
    Array,
    GgufArchitecture,
    GgufTensor,
    open_gguf,
    read_tensor,
    write_gguf,
)
from personas.models.gguf_header import read_value

SIDES = ("lora_a", "lora_b")
MAX_LISTED = 3
OTHER_BASE_ADVICE = "Name the GGUF file of the base model that the adapter was trained over."


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


@dataclass(frozen=True)
class GgufBase:
    """A base model's file as far as adapters depend on it: its architecture, and the shapes of its
    matrices [out, in] by their names in GGUF.
    """

    architecture: str
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def read(cls, file: Path) -> GgufBase:
        """Read a file's header. Raises `ExportError` for a damaged one."""
        reader = open_gguf(file)
        shapes = {}
        for tensor in reader.tensors:
            # GGUF stores the shape with the fastest dimension first.
            shapes[tensor.name] = tuple(int(size) for size in reversed(tensor.shape))
        return cls(str(read_value(reader, "general.architecture")), shapes)


def write_gguf_lora(
    path: Path,
    modules: Sequence[LoraModule],
    architecture: GgufArchitecture,
    config: Any,
    *,
    name: str,
) -> None:
    """Write an adapter in float32, as trained. `config` is the base model's transformers
    configuration. Raises `ExportError` for a layer that has no name in GGUF, and `OSError`.
    """
    # A file has one alpha; where a module's is another, the rest is multiplied into its B.
    alpha = Counter(module.alpha for module in modules).most_common(1)[0][0]

    def describe(writer: GGUFWriter) -> None:
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string(Keys.Adapter.TYPE, "lora")
        writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
        writer.add_name(name)

    entries = list(_entries(modules, architecture, config, alpha))
    write_gguf(path, architecture.gguf, describe, entries)


def read_gguf_lora(
    path: Path, architecture: GgufArchitecture, config: Any, names: Iterable[str]
) -> dict[str, LoraModule]:
    """Return a file's modules by the base model's names for them, of which `names` are looked for.

    Their rows are in transformers' order. Raises `ExportError` for damaged files, and for tensors
    that belong to no module.
    """
    alpha, tensors = read_tensors(path)
    modules = {}
    for name, gguf_name in gguf_names(architecture, config, names).items():
        a = tensors.pop(f"{gguf_name}.lora_a", None)
        b = tensors.pop(f"{gguf_name}.lora_b", None)
        if a is not None and b is not None:
            rows = _unpermute_rows(b, gguf_name, architecture, config)
            modules[name] = LoraModule(name, a, rows, alpha / a.shape[0])
    if tensors:
        raise ExportError(
            f"{path.name} holds tensors of no module: {_listed(tensors)}.", "Export again."
        )
    return modules


def read_tensors(path: Path) -> tuple[float, dict[str, Array]]:
    """Return a file's alpha and its matrices by their names in GGUF. Raises `ExportError`."""
    reader = open_gguf(path)
    alpha = _read_alpha(reader, path)
    return alpha, {tensor.name: read_tensor(tensor) for tensor in reader.tensors}


def require_fits_base(path: Path, base: GgufBase) -> None:
    """Require that a base model has every adapted weight in the adapter's shape, as llama.cpp does
    when it loads the adapter. Raises `ExportError`.
    """
    reader = open_gguf(path)
    _read_alpha(reader, path)
    architecture = str(read_value(reader, "general.architecture"))
    if architecture != base.architecture:
        raise ExportError(
            f"The adapter is for a model of the architecture {architecture}, and the base model's "
            f"file is of {base.architecture}.",
            OTHER_BASE_ADVICE,
        )
    sides = _sides(reader)
    missing = sorted(name for name in sides if name not in base.shapes)
    if missing:
        raise ExportError(
            f"The base model's file has no {_listed(missing)}, which the adapter changes.",
            OTHER_BASE_ADVICE,
        )
    for name, shapes in sides.items():
        if set(shapes) != set(SIDES):
            raise ExportError(f"{path.name} lacks a matrix of {name}.", "Export again.")
        (rank, inputs), (outputs, columns) = (shapes[side] for side in SIDES)
        if (outputs, inputs) != base.shapes[name] or rank != columns:
            raise ExportError(
                f"The adapter changes {name} as a matrix of {outputs} × {inputs}, which the base "
                f"model's file has as {' × '.join(map(str, base.shapes[name]))}.",
                OTHER_BASE_ADVICE,
            )


def gguf_names(architecture: GgufArchitecture, config: Any, names: Iterable[str]) -> dict[str, str]:
    """Return the names of weights in GGUF by the names of their layers in transformers. Raises
    `ExportError` for a layer without one.
    """
    known = architecture.names(config)
    found = {}
    for name in names:
        gguf_name = known.get_name(name)
        if gguf_name is None:
            raise ExportError(f"{name} has no name in GGUF.", "Export --to adapter.")
        found[name] = f"{gguf_name}.weight"
    return found


def _entries(
    modules: Sequence[LoraModule], architecture: GgufArchitecture, config: Any, alpha: float
) -> Iterator[GgufTensor]:
    names = gguf_names(architecture, config, [module.name for module in modules])
    for module in modules:
        gguf_name = names[module.name]
        rest = module.alpha / alpha
        b = module.b if rest == 1.0 else module.b * np.float32(rest)
        # llama.cpp orders the rows of some layers otherwise: these are B's, and A stays as it is.
        stored_b = architecture.stored(b, gguf_name, config)
        for side, values in zip(SIDES, (module.a, stored_b), strict=True):
            read = partial(np.asarray, values)
            shape = tuple(values.shape)
            yield GgufTensor(f"{gguf_name}.{side}", shape, GGMLQuantizationType.F32, read)


def _read_alpha(reader: GGUFReader, path: Path) -> float:
    is_adapter = read_value(reader, "general.type") == GGUFType.ADAPTER
    if not is_adapter or read_value(reader, Keys.Adapter.TYPE) != "lora":
        raise ExportError(f"{path.name} is no LoRA adapter.", "Export it again.")
    return float(read_value(reader, Keys.Adapter.LORA_ALPHA))


def _sides(reader: GGUFReader) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shapes of A and B by weight."""
    sides: dict[str, dict[str, tuple[int, ...]]] = {}
    for tensor in reader.tensors:
        name, _, side = tensor.name.rpartition(".")
        shape = tuple(int(size) for size in reversed(tensor.shape))
        sides.setdefault(name, {})[side] = shape
    return sides


def _unpermute_rows(
    rows: Array, gguf_name: str, architecture: GgufArchitecture, config: Any
) -> Array:
    """Return rows in transformers' order, by its own reader."""
    from transformers.modeling_gguf_pytorch_utils import (  # takes seconds
        TENSOR_PROCESSORS,
        TensorProcessor,
    )

    heads = {
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
    }
    reader = TENSOR_PROCESSORS.get(architecture.gguf, TensorProcessor)(config=heads)
    weights: Array = reader.process(rows, gguf_name).weights
    return weights


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:MAX_LISTED])
