"""Compares the logits of an export with those of adapter and base model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from personas.errors import ExportError
from personas.prompt.renderer import Renderer, TokenizedSample
from personas.schemas.chat import LoreHit, Persona, Turn

COMPARED_POSITIONS = 24
"""Last positions of each sample to compare: the reply's, and the prompt's last ones."""
MAX_PROMPT_TOKENS = 1600
RELATIVE_NOISE = 2e-3
"""Effect of float32 arithmetic in another order, as a share of the logits' standard deviation."""
COMPARISON_DIALOGUES: tuple[tuple[tuple[str, bool], ...], ...] = (
    (("Good evening. Who are you?", False),),
    (
        ("hi", False),
        ("Hello. What brings you here?", True),
        ("I feel awful today, nothing worked.", False),
    ),
    (("What do you do all day, from 7:30 to 18:45?", False),),
    (("Chào bạn, hôm nay trời mưa 12345 giọt 🙂 — nói gì đi?", False),),
    (("Tell me  a story:\n\n1. the sea\n2. it's late", False), ("No.", True), ("Why not?!", False)),
)
COMPARISON_REPLY = "I will tell you, since you ask. It takes 20 minutes, and it isn't sad."


@dataclass(frozen=True)
class LogitDiff:
    """Largest difference of one logit, mean KL divergence in nats per token, share of equal
    choices.
    """

    max_abs: float
    kl: float
    same_choice: float

    def __str__(self) -> str:
        return (
            f"max |Δ logit| {self.max_abs:.2g}, KL {self.kl:.2g}, same choice "
            f"{self.same_choice:.1%}"
        )


def comparison_samples(
    renderer: Renderer, persona: Persona | None, context: int
) -> list[TokenizedSample]:
    """Return a handful of prompts with a reply each, rendered as when serving."""
    lore = (LoreHit("harbour.md", "The harbour", "The harbour has 3 cranes and one bell.", 1.0),)
    limit = min(MAX_PROMPT_TOKENS, context)
    samples = []
    for number, talk in enumerate(COMPARISON_DIALOGUES):
        turns = [Turn("Guest", text, by_persona) for text, by_persona in talk]
        hits = lore if number % 2 else ()
        sample = renderer.sample(persona, turns, COMPARISON_REPLY, lore=hits, max_tokens=limit)
        samples.append(sample)
    return samples


def compute_logits(model: Any, samples: Sequence[TokenizedSample]) -> Tensor:
    """Compute float32 logits [samples, positions, vocabulary] of the last `COMPARED_POSITIONS` of
    each sample.
    """
    rows = []
    with torch.inference_mode():
        for sample in samples:
            ids = torch.tensor([sample.ids])
            output = model(input_ids=ids, use_cache=False, logits_to_keep=COMPARED_POSITIONS)
            rows.append(output.logits[0])
    return torch.stack(rows).float()


def compare_logits(reference: Tensor, other: Tensor) -> LogitDiff:
    """Compare `other` with `reference`. Raises `ExportError` if they are not comparable or not
    finite.
    """
    if other.shape[-1] < reference.shape[-1] or not bool(torch.isfinite(other).all()):
        raise ExportError(
            "The export computes no sensible logits.", "This is a fault of the program; report it."
        )
    other = other[..., : reference.shape[-1]]  # padded vocabularies
    before = reference.log_softmax(-1)
    after = other.log_softmax(-1)
    kl = (before.exp() * (before - after)).sum(-1).mean()
    same = (reference.argmax(-1) == other.argmax(-1)).float().mean()
    return LogitDiff(float((reference - other).abs().max()), max(0.0, float(kl)), float(same))


def require_equal_logits(one: Tensor, other: Tensor, what: str) -> LogitDiff:
    """Require equality up to rounding noise. Raises `ExportError` naming `what`."""
    difference = compare_logits(one, other)
    spread = float(one.std())
    allowed = RELATIVE_NOISE * spread if math.isfinite(spread) else 0.0
    if not difference.max_abs <= allowed:  # so that NaN fails
        raise ExportError(
            f"{what}: {difference}; allowed are {allowed:.2g} per logit.",
            "Nothing was kept. Export --to adapter is exact; report this with the versions of your "
            "packages.",
        )
    return difference
