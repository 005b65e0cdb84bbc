"""GGUF files, written tensor by tensor so that no second copy of the model is held, and read; cut ones are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType, dequantize, quantize

from trainer.exports.architectures import Array
from trainer.exports.errors import ExportError

Quantise = Literal["f16", "q8_0"]
TYPES = {"f16": GGMLQuantizationType.F16, "q8_0": GGMLQuantizationType.Q8_0, "f32": GGMLQuantizationType.F32}
FILE_TYPES = {"f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0, "f32": LlamaFileType.ALL_F32}
Q8_BLOCK = 32
MAX_F16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Entry:
    """A tensor to be written: its GGUF name, its shape, its type in the file, and where its float32 values are from."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    values: Callable[[], Array]


def kind_for(shape: Sequence[int], quantise: Quantise) -> GGMLQuantizationType:
    """How a tensor of this shape is stored: vectors stay float32, rows that are no whole blocks float16."""
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    if quantise == "q8_0" and shape[-1] % Q8_BLOCK:
        return GGMLQuantizationType.F16
    return TYPES[quantise]


def rounded(values: Array, kind: GGMLQuantizationType) -> Array:
    """Float32 values as a file of this type gives them back."""
    return np.ascontiguousarray(dequantize(encoded(values, kind, ""), kind), dtype=np.float32)


def encoded(values: Array, kind: GGMLQuantizationType, name: str) -> Array:
    """Float32 values in the form in which they are stored. Raises `ExportError` where float16 cannot hold them."""
    if kind == GGMLQuantizationType.F16 and float(np.abs(values).max(initial=0.0)) > MAX_F16:
        raise ExportError(f"{name} holds values beyond {MAX_F16:.0f}, which F16 cannot.", "Export --to merged.")
    return quantize(np.ascontiguousarray(values, dtype=np.float32), kind)


def write_gguf(path: Path, arch: str, describe: Callable[[GGUFWriter], None], entries: Sequence[Entry]) -> None:
    """A GGUF file of what `describe` says and the tensors, each computed when its turn comes. Raises `OSError`."""
    writer = GGUFWriter(path, arch)
    try:
        describe(writer)
        for entry in entries:
            writer.add_tensor_info(
                entry.name, entry.shape, np.dtype(np.float32), _stored_bytes(entry), raw_dtype=entry.kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        _write_tensors(writer, entries)
    finally:
        writer.close()


def _write_tensors(writer: GGUFWriter, entries: Sequence[Entry]) -> None:
    # `write_tensor_data` uses numpy's tofile, which hides why a write failed.
    file = writer.fout[0] if writer.fout else None
    if file is None:
        raise ValueError("the header comes first")
    writer.write_padding(file, file.tell())
    for entry in entries:
        data = encoded(entry.values(), entry.kind, entry.name)
        file.write(data.tobytes())
        writer.write_padding(file, data.nbytes)
    file.flush()


def _stored_bytes(entry: Entry) -> int:
    block, size = GGUF_SIZES[entry.kind]
    return int(np.prod(entry.shape)) // block * size


GGUF_SIZES = {
    GGMLQuantizationType.F32: (1, 4),
    GGMLQuantizationType.F16: (1, 2),
    GGMLQuantizationType.Q8_0: (Q8_BLOCK, 34),
}
"""Values in a block, and its bytes."""


def open_gguf(path: Path) -> GGUFReader:
    """The file, with all of its tensors there. Raises `ExportError` for one that is cut or no GGUF."""
    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise ExportError(f"{path.name} is damaged: {error}.", "Export it again.") from error
    for tensor in reader.tensors:
        if tensor.data_offset + tensor.n_bytes > path.stat().st_size:
            raise ExportError(f"{path.name} is cut short: {tensor.name} is not all there.", "Export it again.")
    return reader


def value_of(reader: GGUFReader, key: str) -> Any:
    """What the file says under a key; None where it does not."""
    found = reader.get_field(key)
    return None if found is None else found.contents()


def tensor_of(tensor: Any) -> Array:
    """A tensor's values, float32, in the shape that torch gives it."""
    return np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
