"""Loads a base model for serving: device, precision and quantisation."""

from __future__ import annotations

import gc
from typing import Any, Literal

from personas.models.base_model import BaseModel, best_precision, load_model, load_torch
from personas.schemas.training import ServingPrecision

Device = Literal["cpu", "cuda"]

GPU_OVERHEAD_BYTES = 3 * 2**29
"""Bytes of a GPU for adapters, keys and values, and logits: 1.5 GiB."""


def requires_4_bit(weight_bytes: int, gpu_bytes: int) -> bool:
    """Whether a GPU of so many bytes holds a model of so many bytes only in 4 bits (NF4)."""
    return weight_bytes + GPU_OVERHEAD_BYTES > gpu_bytes


def free_gpu_bytes() -> int:
    """What of the GPU's memory is free now; 0 without one."""
    torch = load_torch()
    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else 0


def release_memory() -> None:
    """Give back to the system what nobody uses any more."""
    gc.collect()
    torch = load_torch()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def load_serving_model(base: BaseModel, precision: ServingPrecision, device: Device | None = None) -> Any:
    """The model on the GPU, where there is one, in 16 bits or, where those leave no room, in 4; on the CPU otherwise.

    `device` says which of them, whatever there is. `precision` is the CPU's; of a GPU only `nf4` is asked. One without
    bfloat16 computes in float16. Raises `BaseModelError`.
    """
    torch = load_torch()
    if device == "cpu" or not torch.cuda.is_available():
        return _load_on_cpu(base, precision)
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    there: dict[str, Any] = {"device_map": {"": "cuda"}}
    if precision == "nf4" or requires_4_bit(base.weight_bytes, torch.cuda.mem_get_info()[1]):
        there["quantization_config"] = _nf4_config(torch.bfloat16 if native else torch.float16)
    return load_model(base, "bfloat16" if native else "float16", **there)


def precision_of(model: Any) -> str:
    """What a model serves in: `nf4`, `int8`, `bfloat16`, `float16` or `float32`."""
    from personas.models.int8_linear import is_int8_model

    if getattr(model, "is_loaded_in_4bit", False):
        return "nf4"
    return "int8" if is_int8_model(model) else str(model.dtype).removeprefix("torch.")


def _load_on_cpu(base: BaseModel, precision: ServingPrecision) -> Any:
    if precision == "int8":
        from personas.models.int8_linear import quantise_model

        return quantise_model(load_model(base, best_precision()))
    if precision == "nf4":
        computing = best_precision()
        quantised = _nf4_config(getattr(load_torch(), computing))
        return load_model(base, computing, quantization_config=quantised, device_map={"": "cpu"})
    return load_model(base, precision)


def _nf4_config(computing: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computing,
    )
