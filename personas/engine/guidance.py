"""Classifier-free guidance: a reply is pushed away from what the model says without the persona.

The model computes each token twice, after the persona's prompt and after the negative prompt, which
is the talk alone. With a scale above 1, tokens become likelier by `scale - 1` times the difference of
their log-probabilities (Sanchez et al., Stay on Topic with Classifier-Free Guidance, arXiv
2306.17806). Tokens that are unlikely with the persona stay out, however much less likely they are
without it (the plausibility constraint of Li et al., Contrastive Decoding, arXiv 2210.15097).
"""

import math
from collections import abc
from typing import Any

import torch

from personas.engine.device_copy import copy_to_device
from personas.engine.model_runner import ScheduledTokens

GUIDED_MIN_P = 0.1
"""Share of the likeliest token's probability that a token needs with the persona."""


def with_negatives(scheduled: abc.Sequence[ScheduledTokens]) -> list[ScheduledTokens]:
    """Return the items, and after them the negatives of those that have one."""
    return [*scheduled, *(item.negative for item in scheduled if item.negative)]


def apply_guidance(logits: Any, scheduled: abc.Sequence[ScheduledTokens]) -> Any:
    """Return the logits of the items alone, `[all of them, vocabulary]`, with the last row guided
    where an item has a negative. `logits` are those of `with_negatives`.
    """
    guided_rows = []
    scales = []
    rows = 0
    for item in scheduled:
        rows += item.logits
        if item.negative:
            guided_rows.append(rows - 1)
            scales.append(item.guidance_scale)
    if not guided_rows:
        return logits
    index = copy_to_device(torch.tensor(guided_rows), logits.device)
    scale = copy_to_device(torch.tensor(scales)[:, None], logits.device)
    own = logits.index_select(0, index)
    difference = own.log_softmax(-1) - logits[rows:].log_softmax(-1)
    # Added to the logits, so that their zero stays, around which repetition is penalised.
    guided = own + (scale - 1) * difference
    least = own.amax(-1, keepdim=True) + math.log(GUIDED_MIN_P)
    guided = guided.masked_fill(own < least, -torch.inf)
    return logits[:rows].index_copy(0, index, guided)
