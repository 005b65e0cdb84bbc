"""Which kernels a run computes with: the best that are here, that suit the model and that keep its samples apart."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import is_flash_attn_2_available, is_torch_flex_attn_available

from trainer.kernels.liger import liger, why_no_liger
from trainer.loop.batches import pack_ids
from trainer.machine import Machine
from trainer.recipe import Recipe

FLASH, FLEX = "flash_attention_2", "flex_attention"
ALIKE = 1e-2
"""What a sample's logits may differ by, as a share of their size: rounding to 16 bits, far less than a look costs."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kernels:
    """What was chosen. `packing`: samples lie in one row without padding. `notes` say all of it in words."""

    packing: bool
    liger: bool
    notes: tuple[str, ...]

    @contextmanager
    def in_use(self, model: Any) -> Iterator[None]:
        """Inside, what patches the model does; afterwards it is as it was."""
        if not self.liger:
            yield
            return
        with liger(model):
            yield


def choose_kernels(model: Any, recipe: Recipe, machine: Machine) -> Kernels:
    """Choose for a base model that is loaded and has no adapter yet, and let it attend in the way that was chosen."""
    notes: list[str] = []
    packing = _attention(model, recipe, machine, notes)
    how = "samples packed without padding" if packing else "what the prompts of a batch share computed once"
    if not packing and recipe.gradient_checkpointing:
        how = "samples padded"
    no_liger = why_no_liger(model, machine)
    notes = [
        f"Attention: {model.config._attn_implementation}, {how}.",
        *notes,
        "Logits: of trained tokens only.",
        f"Optimiser: {recipe.optim}.",
        f"Liger: {no_liger or 'its RMSNorm, rotary embedding and gated products'}.",
    ]
    return Kernels(packing, not no_liger, tuple(notes))


def _attention(model: Any, recipe: Recipe, machine: Machine, notes: list[str]) -> bool:
    """Let the model attend in the best way; whether samples are packed. What was tried in vain goes into `notes`."""
    if recipe.packing == "off":
        return False
    before = model.config._attn_implementation
    for way in _packing_ways(machine):
        if why_not := _why_not_packed(model, way):
            notes.append(f"{way} was not used: {why_not}.")
        else:
            return True
    model.set_attn_implementation(before)
    if recipe.packing == "auto":
        return False
    if why_not := _why_not_packed(model, before):
        notes.append(f"Samples are not packed: {why_not}.")
        return False
    return True


def _packing_ways(machine: Machine) -> Sequence[str]:
    """Kinds of attention that pass over what lies between two samples, the best first; on a CPU there is none."""
    if not machine.has_cuda:
        return ()
    installed = {FLASH: is_flash_attn_2_available(), FLEX: is_torch_flex_attn_available()}
    return [way for way, is_here in installed.items() if is_here]


def _why_not_packed(model: Any, way: str) -> str:
    """Let the model attend so and try it on two samples in one row: why it cannot be, empty where it can.

    The second one's logits have to stay what they are when the first is another.
    """
    try:
        model.set_attn_implementation(way)
        first, second = (_second_of_two(model, token) for token in (3, 7))
    except Exception as error:  # kernels fail in many ways, and each has another one to take its place
        log.info("kernels that do not work here", exc_info=True)
        return f"it does not work here ({type(error).__name__})"
    if (first - second).abs().max() > ALIKE * first.abs().max():
        return "the model lets samples in one row see each other"
    return ""


def _second_of_two(model: Any, token: int) -> torch.Tensor:
    """The logits of the second of two samples in one row; the first repeats a token."""
    batch = pack_ids([[token] * 16, list(range(3, 19))])
    with torch.inference_mode():
        row = {name: tensor.to(model.device) for name, tensor in batch.items()}
        logits: torch.Tensor = model(**row, use_cache=False).logits
    return logits[0, 16:].float()
