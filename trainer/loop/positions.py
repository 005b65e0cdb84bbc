"""Whether a base model reads texts as long as the samples, and what would let it."""

from __future__ import annotations

import math

from personas.base_model import BaseModel, positions_of
from personas.errors import RequestError
from personas.rope_scaling import MOST

QUARTERS = 4
"""Factors are proposed in quarters: fine enough, and short to type."""


def require_positions(base: BaseModel, longest: int) -> None:
    """Raise `RequestError` when the longest sample, in tokens, is longer than what the model reads.

    It counts, not `max_length`, which only bounds it: a long bound over short talks does no harm.
    """
    if error := too_long(base, longest):
        raise error


def too_long(base: BaseModel, longest: int) -> RequestError | None:
    """What there is to say of samples that are too long for the model; None where they are not."""
    reads = positions_of(base)
    if reads is None or longest <= reads:
        return None
    own = reads / (base.scaling.factor if base.scaling else 1)
    factor = math.ceil(longest / own * QUARTERS) / QUARTERS
    scale = f"Set rope_scaling_factor={factor:g}, or max_length={reads}." if factor <= MOST else ""
    return RequestError(
        f"The longest sample has {longest} tokens; the base model {base.name} reads {reads}.",
        scale or f"Set max_length={reads}: more than {MOST:g} times its own length no scaling gives it.",
    )
