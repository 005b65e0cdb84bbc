"""Chooses the precision that a base model is served in."""

from dataclasses import dataclass
from typing import Literal

from personas.engine.cpu_kernel.build import (
    NO_COMPILER_MESSAGE,
    KernelUnavailableError,
    find_compiler,
    load_compiled,
    require_supported_cpu,
)
from personas.errors import BaseModelError
from personas.models.loading import best_precision, load_torch
from personas.schemas.training import ServingPrecision

PrecisionSetting = Literal["auto", "bf16", "fp32", "int8", "nf4"]
PRECISION_BY_SETTING: dict[PrecisionSetting, ServingPrecision | None] = {
    "auto": None,
    "bf16": "bfloat16",
    "fp32": "float32",
    "int8": "int8",
    "nf4": "nf4",
}
"""Precisions by the values of `ENGINE_PRECISION`."""

INT8_MEASURED_MODELS: frozenset[str] = frozenset()
"""Base models whose held-out losses change by at most half a percent in int8 (docs/engine.md)."""


@dataclass(frozen=True)
class PrecisionChoice:
    """A precision, and the reason for it."""

    precision: ServingPrecision
    reason: str


def choose_precision(setting: PrecisionSetting, base: str) -> PrecisionChoice:
    """Choose the precision of a base model, by name. Raises `BaseModelError` for one that GPUs do
    not serve in.
    """
    required = PRECISION_BY_SETTING[setting]
    has_gpu = load_torch().cuda.is_available()
    if has_gpu and required in ("float32", "int8"):
        raise BaseModelError(
            f"ENGINE_PRECISION is {setting}, which is for CPUs, but replies are computed on a GPU.",
            "Set it to auto, bf16 or nf4.",
        )
    if required:
        return PrecisionChoice(required, "set by ENGINE_PRECISION")
    if has_gpu:
        return PrecisionChoice(
            best_precision(), "GPUs serve in 16 bits, or in 4 if the model does not fit otherwise"
        )
    if obstacle := int8_obstacle(base):
        return PrecisionChoice(
            best_precision(), f"the fastest on this CPU; int8 is not used because {obstacle}"
        )
    return PrecisionChoice(
        "int8", "a step reads half as many bytes as in bfloat16, and held-out losses hardly change"
    )


def int8_obstacle(base: str) -> str:
    """Return the reason not to serve a base model in int8 by default on a CPU, or an empty string.
    Loads no torch.
    """
    if base not in INT8_MEASURED_MODELS:
        return "the losses of this model were not measured in int8"
    try:
        require_supported_cpu()
    except KernelUnavailableError as error:
        return str(error)
    return "" if find_compiler() or load_compiled() else NO_COMPILER_MESSAGE
