"""A LoRA adapter merged into its base model's GGUF file, for servers that take no adapters.

Metadata and all other tensors stay as they are. Adapted matrices of fewer than 8 bits are stored in
8: rounded to 4 bits again, they would lose much of what the adapter changes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, LlamaFileType

from personas.errors import ExportError
from personas.models.gguf_format import (
    Q8_BLOCK_SIZE,
    Array,
    encode_values,
    open_gguf,
    read_tensor,
)
from personas.models.gguf_lora import GgufBase, read_tensors, require_fits_base

FILE_TYPE_KEY = "general.file_type"
KEPT_TYPES = frozenset(
    (
        GGMLQuantizationType.F32,
        GGMLQuantizationType.F16,
        GGMLQuantizationType.BF16,
        GGMLQuantizationType.Q8_0,
    )
)


@dataclass(frozen=True)
class _Target:
    """A tensor of the base model, and the type that it is stored in."""

    tensor: Any
    kind: GGMLQuantizationType

    @property
    def stored_bytes(self) -> int:
        block, size = GGML_QUANT_SIZES[self.kind]
        return int(np.prod(self.tensor.shape)) // block * size


def merge_lora(base: Path, lora: Path, target: Path) -> None:
    """Write the base model's file with a LoRA file's matrices added to its own.

    Raises `ExportError` for an adapter of another base model, and `OSError`.
    """
    require_fits_base(lora, GgufBase.read(base))
    alpha, matrices = read_tensors(lora)
    reader = open_gguf(base)
    adapted = {name.rpartition(".")[0] for name in matrices}
    alignment = int(reader.alignment)
    targets = [_target(tensor, tensor.name in adapted) for tensor in reader.tensors]
    with target.open("wb") as file:
        file.write(_metadata(reader))
        for info in _infos(targets, alignment):
            file.write(info)
        _pad(file, alignment)
        for each in targets:
            file.write(_values(each, matrices, alpha))
            _pad(file, alignment)


def merged_bytes(base: Path) -> int:
    """Return the size of a merged file if an adapter changes every matrix of the blocks."""
    reader = open_gguf(base)
    stored = sum(
        _target(tensor, is_adapted=_is_in_block(tensor)).stored_bytes for tensor in reader.tensors
    )
    return int(reader.data_offset) + stored


def _is_in_block(tensor: Any) -> bool:
    return tensor.name.startswith("blk.") and len(tensor.shape) > 1


def _target(tensor: Any, is_adapted: bool) -> _Target:
    kind = GGMLQuantizationType(tensor.tensor_type)
    if not is_adapted or kind in KEPT_TYPES:
        return _Target(tensor, kind)
    has_whole_blocks = int(tensor.shape[0]) % Q8_BLOCK_SIZE == 0
    return _Target(
        tensor, GGMLQuantizationType.Q8_0 if has_whole_blocks else GGMLQuantizationType.F16
    )


def _metadata(reader: GGUFReader) -> bytes:
    """Return the header and the metadata as they are, but for the type of the file, which programs
    show to people.
    """
    if not reader.tensors:
        raise ExportError("The base model's file has no tensors.", "Fetch it again.")
    data = bytearray(reader.data[: reader.tensors[0].field.offset].tobytes())
    stated = reader.fields.get(FILE_TYPE_KEY)
    if stated is not None:
        data[-4 + _end_of(stated) : _end_of(stated)] = struct.pack("<I", LlamaFileType.MOSTLY_Q8_0)
    return bytes(data)


def _end_of(field: Any) -> int:
    return int(field.offset) + sum(int(part.nbytes) for part in field.parts)


def _infos(targets: list[_Target], alignment: int) -> Iterator[bytes]:
    """Yield each tensor's description: name, dimensions, type, and its place after the header."""
    offset = 0
    for target in targets:
        name = target.tensor.name.encode()
        shape = [int(size) for size in target.tensor.shape]
        yield struct.pack("<Q", len(name)) + name
        yield struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, int(target.kind), offset)
        offset += -(-target.stored_bytes // alignment) * alignment


def _values(target: _Target, matrices: dict[str, Array], alpha: float) -> bytes:
    tensor = target.tensor
    a = matrices.get(f"{tensor.name}.lora_a")
    if a is None:
        return bytes(tensor.data.tobytes())
    b = matrices[f"{tensor.name}.lora_b"]
    values = read_tensor(tensor).reshape(b.shape[0], a.shape[1])
    values += (alpha / a.shape[0]) * (b @ a)
    return bytes(encode_values(values, target.kind, tensor.name).tobytes())


def _pad(file: BinaryIO, alignment: int) -> None:
    file.write(b"\0" * (-file.tell() % alignment))
