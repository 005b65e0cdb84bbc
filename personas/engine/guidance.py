"""Classifier-free guidance: a reply is drawn further from what the model says without the card.

The model computes each token twice, after the persona's prompt and after the bare talk. With a scale
above 1, the log-probabilities are `bare + scale * (own - bare)` (Sanchez et al., Stay on Topic with
Classifier-Free Guidance, arXiv 2306.17806). Tokens that are unlikely with the card stay out, however
much less likely they are without it (Li et al., Contrastive Decoding, arXiv 2210.15097).
"""

import math
from collections import abc
from typing import Any

import torch

from personas.engine.device_copy import copy_to_device
from personas.engine.model_runner import ScheduledTokens

MIN_LIKELIHOOD = 0.1
"""Share of the likeliest token's probability that a token needs with the card."""


def with_contrasts(scheduled: abc.Sequence[ScheduledTokens]) -> list[ScheduledTokens]:
    """Return the items, and after them the contrasts of those that have one."""
    return [*scheduled, *(item.contrast for item in scheduled if item.contrast)]


def guide(logits: Any, scheduled: abc.Sequence[ScheduledTokens]) -> Any:
    """Return the logits of the items alone, `[all of them, vocabulary]`: where an item has a
    contrast, guided log-probabilities in place of its last row. `logits` are those of
    `with_contrasts`.
    """
    places = []
    scales = []
    rows = 0
    for item in scheduled:
        rows += item.logits
        if item.contrast:
            places.append(rows - 1)
            scales.append(item.guidance_scale)
    if not places:
        return logits
    place = copy_to_device(torch.tensor(places), logits.device)
    scale = copy_to_device(torch.tensor(scales)[:, None], logits.device)
    own = logits.index_select(0, place).log_softmax(-1)
    bare = logits[rows:].log_softmax(-1)
    guided = bare + scale * (own - bare)
    least = own.amax(-1, keepdim=True) + math.log(MIN_LIKELIHOOD)
    guided = guided.masked_fill(own < least, -torch.inf)
    return logits[:rows].index_copy(0, place, guided)
