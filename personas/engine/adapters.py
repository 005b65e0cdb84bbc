"""Adapter weights in one stack per linear layer, so that rows with different adapters share a batch.

What peft would compute, `y + B(A(x)) · scale`, is computed here for all rows at once; adapters that do more than that
(DoRA, trained embeddings, biases) are left to peft.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load_file

from personas.adapters import CONFIG, WEIGHTS
from personas.contracts import AdapterRef
from personas.engine.pages import large_zeros_together
from personas.engine.weights import verify_for
from personas.errors import AdapterError

PLAIN_SETTINGS = frozenset(
    "alpha_pattern auto_mapping base_model_name_or_path bias corda_config ensure_weight_tying eva_config "
    "exclude_modules inference_mode init_lora_weights layers_pattern layers_to_transform loftq_config lora_alpha "
    "lora_dropout lora_ga_config megatron_core peft_type peft_version qalora_group_size r rank_pattern revision "
    "runtime_config target_modules task_type use_rslora".split()
)
"""Settings of peft that a plain product of two matrices does justice to; any other that is set is left to peft."""
PLAIN_STARTS = (True, False, "gaussian", None)
"""Ways of beginning a training that leave the base model's weights as they are."""
PREFIX = "base_model.model."
MOST_RANK = 64
"""Each slot of a stack is as large as the largest adapter needs, and each row computes as much: beyond, peft does."""


@dataclass(frozen=True)
class AdapterWeights:
    """A verified adapter. `pairs` holds by linear layer A `[rank, in]` and scale · Bᵀ `[rank, out]`.

    `pairs` is None where the adapter is more than that, or its rank beyond `MOST_RANK`: peft computes it.
    """

    ref: AdapterRef
    pairs: Mapping[str, tuple[Any, Any]] | None


def read_adapter(ref: AdapterRef, base_hash: str, linears: Mapping[str, Any]) -> AdapterWeights:
    """Verify and read an adapter. `linears` are the base model's linear layers. Raises `AdapterError`."""
    verify_for(ref, base_hash)
    return read_unverified(ref, linears)


def read_unverified(ref: AdapterRef, linears: Mapping[str, Any]) -> AdapterWeights:
    """The same for a folder that nobody has sealed. Raises `AdapterError`."""
    try:
        config = json.loads((ref.folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(ref.folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise AdapterError(f"The adapter in {ref.folder} cannot be read: {error}", "Train it again.") from error
    try:
        pairs = _pairs(config, tensors, linears) if _is_plain(config) else None
        is_large = pairs and max(a.shape[0] for a, _ in pairs.values()) > MOST_RANK
        return AdapterWeights(ref, None if is_large else pairs)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"{CONFIG} in {ref.folder} is no LoRA adapter's, or does not fit its weights: {error!r}"
        raise AdapterError(what, "Make it anew where it came from, or train it again.") from error


def _is_plain(config: Mapping[str, Any]) -> bool:
    more = [name for name, value in config.items() if value and name not in PLAIN_SETTINGS]
    kind = config.get("peft_type"), config.get("bias", "none"), config.get("init_lora_weights")
    return not more and kind[:2] == ("LORA", "none") and kind[2] in PLAIN_STARTS


def _pairs(
    config: Mapping[str, Any], tensors: Mapping[str, Any], linears: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]] | None:
    pairs = {}
    for name in {key.rpartition(".lora_")[0] for key in tensors}:
        layer = name.removeprefix(PREFIX)
        a, b = (tensors.get(f"{name}.lora_{side}.weight") for side in "AB")
        if a is None or b is None or layer not in linears:
            return None
        if (b.shape[0], a.shape[1]) != (linears[layer].out_features, linears[layer].in_features):
            return None  # peft says in its words what does not fit
        pairs[layer] = a.float(), (b.float() * _scale(config, layer, a.shape[0])).T.contiguous()
    return pairs if 2 * len(pairs) == len(tensors) else None


def _scale(config: Mapping[str, Any], layer: str, rank: int) -> float:
    """What the product is multiplied with: α / r, or α / √r with rsLoRA (arXiv 2312.03732)."""
    patterns = config.get("alpha_pattern") or {}
    usual = config.get("lora_alpha", LoraConfig.lora_alpha)
    alpha = float(patterns.get(get_pattern_key(list(patterns), layer), usual))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


class AdapterStack:
    """Per linear layer A `[slots, rank, in]` and scale · Bᵀ `[slots, rank, out]`; slot 0 is the base model: zeros.

    Smaller ranks are filled up with zeros. The stack grows with the slots that are filled and the ranks that come.
    """

    def __init__(self, linears: Mapping[str, Any], dtype: Any, device: Any, slots: int) -> None:
        """`slots` is how many are expected, the base model's not counted: the stack is not made larger for fewer."""
        self._linears, self._options, self._slots = linears, {"dtype": dtype, "device": device}, slots
        self.pairs: dict[str, tuple[Any, Any]] = {}
        self.version = 0
        """Changes with the stack."""

    def put(self, slot: int, weights: AdapterWeights) -> None:
        """Fill a slot."""
        assert weights.pairs is not None  # else peft computes it
        ranks = {layer: a.shape[0] for layer, (a, _) in weights.pairs.items()}
        self._make_room(slot, {layer: ranks.get(layer, 1) for layer in sorted(self.pairs.keys() | ranks.keys())})
        for layer, (a, b) in weights.pairs.items():
            for stack, part in zip(self.pairs[layer], (a, b), strict=True):
                stack[slot, : a.shape[0]] = part
                stack[slot, a.shape[0] :] = 0
        for layer in self.pairs.keys() - weights.pairs.keys():
            for stack in self.pairs[layer]:
                stack[slot] = 0
        self.version += 1

    def _make_room(self, slot: int, ranks: Mapping[str, int]) -> None:
        """Have room for these ranks in a slot; what has to grow is made anew, side by side."""
        sizes = {layer: self._size(layer, slot, rank) for layer, rank in ranks.items()}
        grown = [layer for layer, size in sizes.items() if layer not in self.pairs or size != self._size_of(layer)]
        widths = {layer: (self._linears[layer].in_features, self._linears[layer].out_features) for layer in grown}
        shapes = [(*sizes[layer], width) for layer in grown for width in widths[layer]]
        room = large_zeros_together(shapes, **self._options)
        for layer, pair in zip(grown, zip(room[::2], room[1::2], strict=True), strict=True):
            for new, before in zip(pair, self.pairs.get(layer, ()), strict=False):
                new[: before.shape[0], : before.shape[1]] = before
            self.pairs[layer] = pair

    def _size(self, layer: str, slot: int, rank: int) -> tuple[int, int]:
        """How many slots and ranks a layer needs, those it has at least; slots double until all expected have room."""
        slots, ranks = self._size_of(layer) if layer in self.pairs else (0, 0)
        if slot >= slots:
            slots = min(2 * slot + 1, max(slot, self._slots) + 1)
        return slots, max(ranks, -(-rank // 4) * 4)

    def _size_of(self, layer: str) -> tuple[int, int]:
        slots, ranks, _ = self.pairs[layer][0].shape
        return slots, ranks
