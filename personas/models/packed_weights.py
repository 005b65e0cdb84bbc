"""Unpacks the weights of linear layers that GPTQ and AWQ store in integers, exactly as their kernels read them.

A layer has `qweight`, `qzeros` and `scales`, and in GPTQ `g_idx`, the group of each input. Layouts: AutoGPTQ's
`qlinear_cuda_old.py`, and AutoAWQ's `utils/packing_utils.py` (GEMM).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from personas.errors import BaseModelError
from personas.models.stored_quantisation import (
    AWQ,
    PACKED_LAYER_SUFFIXES,
    PACKED_WEIGHT_SUFFIX,
    WORD_BITS,
    StoredQuantisation,
)

AWQ_REVERSE_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Places of eight neighbouring outputs in a word of AWQ's."""


def unpacked_state(folder: Path, stored: StoredQuantisation, dtype: Any) -> dict[str, Any]:
    """Return a model folder's weights by name, the packed ones unpacked to `dtype`. Raises
    `BaseModelError` for a damaged file.
    """
    from safetensors import SafetensorError

    try:
        return dict(_iter_weights(folder, stored, dtype))
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise BaseModelError(
            f"The {stored.name} weights in {folder} cannot be read: {error}.",
            "Fetch the model again.",
        ) from error


def _iter_weights(
    folder: Path, stored: StoredQuantisation, dtype: Any
) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    # The parts of a layer may lie in two files.
    files = dict[str, Path]()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as weights:
            files |= dict.fromkeys(weights.keys(), path)

    def read(name: str) -> Any:
        with safe_open(files[name], "pt") as weights:
            return weights.get_tensor(name)

    packed = {
        name.removesuffix(PACKED_WEIGHT_SUFFIX)
        for name in files
        if name.endswith(PACKED_WEIGHT_SUFFIX)
    }
    for name in files:
        layer, _, part = name.rpartition(".")
        if layer not in packed or f".{part}" not in PACKED_LAYER_SUFFIXES:
            yield name, _as_floating(read(name), dtype)
        elif name.endswith(PACKED_WEIGHT_SUFFIX):
            groups = read(f"{layer}.g_idx") if f"{layer}.g_idx" in files else None
            yield (
                f"{layer}.weight",
                unpack_layer(
                    read(name),
                    read(f"{layer}.qzeros"),
                    read(f"{layer}.scales"),
                    stored=stored,
                    groups=groups,
                ).to(dtype),
            )


def _as_floating(tensor: Any, dtype: Any) -> Any:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def unpack_layer(
    weight: Any, zeros: Any, scales: Any, *, stored: StoredQuantisation, groups: Any = None
) -> Any:
    """Return a layer's weight `[outputs, inputs]` in float32, from `scales` `[groups, outputs]`.

    `weight` has words along the inputs in GPTQ and along the outputs in AWQ; `zeros` along the outputs
    in both. `groups` has the group of each input; without it groups are of equal size.
    """
    import torch  # takes a second

    outputs = scales.shape[1]
    if stored.method == AWQ:
        values = _reorder(_unpack_columns(weight, stored.bits), outputs)
        offsets = _reorder(_unpack_columns(zeros, stored.bits), outputs)
    else:
        values = _unpack_columns(weight.T.contiguous(), stored.bits).T
        offsets = _unpack_columns(zeros, stored.bits) + stored.zero_offset
    inputs = values.shape[0]
    if groups is None:
        size = -(-inputs // scales.shape[0])
        groups = torch.arange(inputs) // size
    groups = groups.long()
    shifted = values.float() - offsets[:, :outputs].float()[groups]
    return (scales.float()[groups] * shifted).T.contiguous()


def _unpack_columns(words: Any, bits: int) -> Any:
    """Unpack words `[rows, columns]` of 32 bits to values `[rows, columns · 32 / bits]`, lowest bits
    first.
    """
    import torch

    shifts = torch.arange(0, WORD_BITS, bits, dtype=torch.int32)
    values = (words[:, :, None] >> shifts) & (2**bits - 1)
    return values.reshape(words.shape[0], -1)


def _reorder(values: Any, outputs: int) -> Any:
    """Put AWQ's outputs into their order."""
    import torch

    order = torch.arange(values.shape[1]).view(-1, len(AWQ_REVERSE_ORDER))
    return values[:, order[:, list(AWQ_REVERSE_ORDER)].reshape(-1)][:, :outputs]
