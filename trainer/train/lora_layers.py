"""The linear layers of a loaded model that get an adapter, and the share that has one."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from personas.errors import TrainingError
from trainer.recipe.target_modules import (
    EXPERTS,
    LLAMA_MODULES,
    is_adaptable,
    is_aside,
    order_modules,
)
from trainer.schemas import ALL_LINEAR


def lora_targets(model: Any, wanted: Sequence[str]) -> list[str]:
    """Return peft's `target_modules` for a model: names of layers, as whole paths where other
    modules have the same name.

    Those others are routers, stacked experts, and vision towers, which read no text: an adapter
    there would stay untrained. `wanted` are names, or `ALL_LINEAR`. Raises `TrainingError` for a
    name that no linear layer of the decoder's blocks has.
    """
    paths = dict[str, list[str]]()
    for path in _adaptable_layers(model):
        paths.setdefault(path.rpartition(".")[2], []).append(path)
    names = order_modules(paths, LLAMA_MODULES) if ALL_LINEAR in wanted else tuple(wanted)
    missing = [name for name in names if name not in paths]
    if missing or not names:
        raise TrainingError(
            f"The base model has no linear layers {', '.join(missing or wanted)} to adapt.",
            f"Set target_modules={ALL_LINEAR}, or to some of {', '.join(paths) or 'none'}.",
        )
    targets = list[str]()
    for name in names:
        alike = [path for path, _ in model.named_modules() if path.rpartition(".")[2] == name]
        targets += [name] if len(alike) == len(paths[name]) else paths[name]
    return targets


def adapter_coverage(model: Any) -> float:
    """Return the share of the parameters in the blocks' matrices whose layer has an adapter, of a
    peft model: routers and convolutions aside, 4-bit weights by their number of values.
    """
    total = 0
    covered = 0
    adapted = {
        path.removesuffix(".lora_A.default")
        for path, _ in model.named_modules()
        if path.endswith(".lora_A.default")
    }
    decoder = set(model.get_base_model().get_decoder().modules())
    for path, module in model.named_modules():
        if module not in decoder:
            continue
        for name, weight in module.named_parameters(recurse=False):
            layer = path.removesuffix(".base_layer")
            parts = tuple(f"{layer}.{name}".removesuffix(".weight").split("."))
            shape = getattr(getattr(weight, "quant_state", None), "shape", weight.shape)
            is_matrix = name == "weight" or (parts[-2] == EXPERTS and "bias" not in name)
            if not is_matrix or len(shape) < 2 or is_aside(parts) or "lora_" in path:
                continue
            total += shape.numel()
            if layer in adapted:
                covered += shape.numel()
    return covered / total if total else 0.0


def _adaptable_layers(model: Any) -> Iterator[str]:
    decoder = set(model.get_decoder().modules())
    layers = {tuple(path.split(".")): module for path, module in model.named_modules()}
    is_mixture = any(EXPERTS in path for path in layers)
    for path, module in layers.items():
        is_linear = isinstance(module, torch.nn.Linear | Conv1D)
        if is_linear and module in decoder and is_adaptable(path, is_mixture=is_mixture):
            yield ".".join(path)
