"""Loads a base model for serving: device, precision and quantisation."""

import gc
import logging
from typing import Any, Literal

import psutil

from personas.models.base_model import BaseModel
from personas.models.loading import TrainingPrecision, best_precision, load_model, load_torch
from personas.models.probe import Float16OverflowError, require_finite_activations
from personas.schemas.training import ServingPrecision

log = logging.getLogger(__name__)
Device = Literal["cpu", "cuda"]
GPU_OVERHEAD_BYTES = 3 * 2**29  # GPU memory for adapters, KV cache and logits: 1.5 GiB


def requires_4_bit(weight_bytes: int, gpu_bytes: int) -> bool:
    """Return True if a GPU of this size holds a model of this size only in 4 bits (NF4)."""
    return weight_bytes + GPU_OVERHEAD_BYTES > gpu_bytes


def free_gpu_bytes() -> int:
    """Return the free memory of the GPU; 0 without one."""
    torch = load_torch()
    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else 0


def free_device_bytes(device: str) -> int:
    """Return the free memory of a device, `cpu` or `cuda`."""
    return free_gpu_bytes() if device == "cuda" else psutil.virtual_memory().available


def has_gpu() -> bool:
    """Return True if models are computed on a GPU."""
    return bool(load_torch().cuda.is_available())


def release_memory() -> None:
    """Release unused memory to the operating system and the GPU."""
    gc.collect()
    torch = load_torch()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def load_serving_model(
    base: BaseModel, precision: ServingPrecision, device: Device | None = None
) -> Any:
    """Load the model on the GPU if there is one, in 16 bits or, if these do not fit, in 4; else on
    the CPU.

    `device` overrides that choice. `precision` applies to the CPU; on a GPU only `nf4` has an
    effect. GPUs without bfloat16 compute in float16, or in emulated bfloat16 or float32 if the
    model overflows. Raises `BaseModelError`.
    """
    torch = load_torch()
    if device == "cpu" or not torch.cuda.is_available():
        return _load_on_cpu(base, precision)
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    packs = precision == "nf4" or requires_4_bit(base.weight_bytes, torch.cuda.mem_get_info()[1])
    if native:
        return _load_on_gpu(base, "bfloat16", packs)
    model = _load_on_gpu(base, "float16", packs)
    try:
        require_finite_activations(model)
        return model
    except Float16OverflowError as error:
        wider: TrainingPrecision = (
            "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=True) else "float32"
        )
        log.warning("%s It is served in %s, which is slower on this GPU.", error.message, wider)
    del model  # frees its memory for the same weights in the other precision
    release_memory()
    return _load_on_gpu(base, wider, packs)


def _load_on_gpu(base: BaseModel, precision: TrainingPrecision, packs: bool) -> Any:
    options: dict[str, Any] = {"device_map": {"": "cuda"}}
    if packs:
        options["quantization_config"] = _nf4_config(getattr(load_torch(), precision))
    return load_model(base, precision, **options)


def precision_of(model: Any) -> str:
    """Return the precision of a loaded model: `nf4`, `int8`, `bfloat16`, `float16` or `float32`."""
    from personas.models.int8_linear import is_int8_model  # imports torch, which takes a second

    if getattr(model, "is_loaded_in_4bit", False):
        return "nf4"
    return "int8" if is_int8_model(model) else str(model.dtype).removeprefix("torch.")


def _load_on_cpu(base: BaseModel, precision: ServingPrecision) -> Any:
    if precision == "int8":
        from personas.models.int8_linear import (
            quantise_model,
        )  # imports torch, which takes a second

        return quantise_model(load_model(base, best_precision()))
    if precision == "nf4":
        computing = best_precision()
        quantised = _nf4_config(getattr(load_torch(), computing))
        return load_model(base, computing, quantization_config=quantised, device_map={"": "cpu"})
    return load_model(base, precision)


def _nf4_config(computing: Any) -> Any:
    from transformers import BitsAndBytesConfig  # takes seconds

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computing,
    )
