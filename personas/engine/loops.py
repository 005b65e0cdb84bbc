"""Noticing that a reply goes round in circles, which small models do once they have said a sentence twice.

Making repetition dearer (a repetition penalty, DRY) was tried instead: it bends words out of shape where nothing but
the repeated token fits, and it punishes a persona's own sayings. Ending the reply costs nothing worth reading.
"""

from __future__ import annotations

from collections.abc import Sequence

RUN_TOKENS = 8
"""So many tokens in a row that the reply has had before are a circle; a name that comes again is shorter."""
PATIENCE_TOKENS = 24
"""How long the end of the sentence is waited for."""
SENTENCE_ENDS = (".", "!", "?", "…", "*", '"', "”", "。", "！", "？", "\n")


def goes_round(reply: Sequence[int]) -> bool:
    """Whether the last `RUN_TOKENS` tokens stand earlier in the reply too; the two places may overlap."""
    run = list(reply[-RUN_TOKENS:])
    if len(run) < RUN_TOKENS:
        return False
    return any(list(reply[at : at + RUN_TOKENS]) == run for at in range(len(reply) - RUN_TOKENS))
