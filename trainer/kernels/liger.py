"""Liger's Triton kernels in the place of a model's own RMSNorm, rotary embedding and gated products, where installed.

Its losses are left alone: ours makes logits of trained tokens only. Liger patches the modelling module and the model's
layers; both are put back.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from trainer.machine import Machine

PATCHED = ("forward", "extra_repr", "_get_name")
"""What Liger binds to single layers."""


def why_no_liger(model: Any, machine: Machine) -> str:
    """Why Liger cannot be used, empty where it can."""
    if not machine.has_cuda:
        return "needs CUDA"
    if importlib.util.find_spec("liger_kernel") is None:
        return "not installed"
    kind = model.config.model_type
    return "" if kind in _patches().MODEL_TYPE_TO_APPLY_LIGER_FN else f"does not know models of the kind {kind}"


@contextmanager
def liger(model: Any) -> Iterator[None]:
    """Inside, the model (with or without an adapter around it) computes with Liger's kernels."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    modelling = sys.modules[type(causal).__module__]
    functions, layers = dict(vars(modelling)), [(layer, _bound(layer)) for layer in causal.modules()]
    _patches()._apply_liger_kernel_to_instance(model=causal, cross_entropy=False, fused_linear_cross_entropy=False)
    try:
        yield
    finally:
        vars(modelling).update(functions)
        for layer, before in layers:
            for name in PATCHED:
                vars(layer).pop(name, None)
            vars(layer).update(before)


def _bound(layer: Any) -> dict[str, Any]:
    return {name: vars(layer)[name] for name in PATCHED if name in vars(layer)}


def _patches() -> ModuleType:
    return importlib.import_module("liger_kernel.transformers.monkey_patch")
