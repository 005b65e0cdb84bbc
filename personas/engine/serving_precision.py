"""Chooses the precision a base model is served in."""

from __future__ import annotations

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
from personas.models.base_model import best_precision, load_torch
from personas.schemas.training import ServingPrecision

PrecisionSetting = Literal["auto", "bf16", "fp32", "int8", "nf4"]
PRECISION_BY_SETTING: dict[PrecisionSetting, ServingPrecision | None] = {
    "auto": None,
    "bf16": "bfloat16",
    "fp32": "float32",
    "int8": "int8",
    "nf4": "nf4",
}
"""What may be asked for, by its name in the settings."""

INT8_MEASURED_MODELS: frozenset[str] = frozenset()
"""Base models whose held-out losses were measured in int8 and change by half a percent at most (docs/engine.md)."""


@dataclass(frozen=True)
class PrecisionChoice:
    """A precision, and why it."""

    precision: ServingPrecision
    why: str


def choose_precision(wanted: PrecisionSetting, base: str) -> PrecisionChoice:
    """The precision to serve a base model in, by its name. Raises `BaseModelError` for one that is not for a GPU."""
    asked = PRECISION_BY_SETTING[wanted]
    on_gpu = load_torch().cuda.is_available()
    if asked and on_gpu and asked in ("float32", "int8"):
        raise BaseModelError(
            f"ENGINE_PRECISION is {wanted}, which is for processors; here a graphics card makes the replies.",
            "Set it to auto, bf16 or nf4.",
        )
    if asked:
        return PrecisionChoice(asked, "ENGINE_PRECISION asks for it")
    if on_gpu:
        return PrecisionChoice(
            best_precision(), "a graphics card computes, in 16 bits, or in 4 where those leave no room"
        )
    if why_not := int8_obstacle(base):
        return PrecisionChoice(best_precision(), f"this machine multiplies fastest in it; not in int8, as {why_not}")
    return PrecisionChoice("int8", "a step reads half as many bytes as in bfloat16, and held-out losses hardly change")


def int8_obstacle(base: str) -> str:
    """Why a processor here does not serve a base model in int8 unless asked; empty where it does. Loads no torch."""
    if base not in INT8_MEASURED_MODELS:
        return "the losses of this model were not measured in it"
    try:
        require_supported_cpu()
    except KernelUnavailableError as error:
        return str(error)
    return "" if find_compiler() or load_compiled() else NO_COMPILER_MESSAGE
