"""Which precision a base model serves in on this machine, and why: what the operator asks for, or what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from personas.base_model import Precision, best_precision, load_torch
from personas.engine.kernel.build import NO_COMPILER, NoKernelError, compiled_before, compiler_here, require_possible
from personas.errors import BaseModelError

Wanted = Literal["auto", "bf16", "fp32", "int8", "nf4"]
WANTED: dict[Wanted, Precision | None] = {
    "auto": None,
    "bf16": "bfloat16",
    "fp32": "float32",
    "int8": "int8",
    "nf4": "nf4",
}
"""What may be asked for, by its name in the settings."""

MEASURED_IN_INT8: frozenset[str] = frozenset()
"""Base models whose held-out losses were measured in int8 and change by half a percent at most (docs/engine.md)."""


@dataclass(frozen=True)
class Chosen:
    """A precision, and why it."""

    precision: Precision
    why: str


def choose(wanted: Wanted, base: str) -> Chosen:
    """The precision to serve a base model in, by its name. Raises `BaseModelError` for one that is not for a GPU."""
    asked = WANTED[wanted]
    on_gpu = load_torch().cuda.is_available()
    if asked and on_gpu and asked in ("float32", "int8"):
        raise BaseModelError(
            f"ENGINE_PRECISION is {wanted}, which is for processors; here a graphics card makes the replies.",
            "Set it to auto, bf16 or nf4.",
        )
    if asked:
        return Chosen(asked, "ENGINE_PRECISION asks for it")
    if on_gpu:
        return Chosen(best_precision(), "a graphics card computes, in 16 bits, or in 4 where those leave no room")
    if why_not := no_int8(base):
        return Chosen(best_precision(), f"this machine multiplies fastest in it; not in int8, as {why_not}")
    return Chosen("int8", "a step reads half as many bytes as in bfloat16, and held-out losses hardly change")


def no_int8(base: str) -> str:
    """Why a processor here does not serve a base model in int8 unless asked; empty where it does. Loads no torch."""
    if base not in MEASURED_IN_INT8:
        return "the losses of this model were not measured in it"
    try:
        require_possible()
    except NoKernelError as error:
        return str(error)
    return "" if compiler_here() or compiled_before() else NO_COMPILER
