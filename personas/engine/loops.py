"""Noticing that a reply goes round in circles, which small models do once they have said a sentence twice.

Making repetition dearer (a repetition penalty, DRY) was tried instead: it bends words out of shape where nothing but
the repeated token fits, and it punishes a persona's own sayings. Ending the reply costs nothing worth reading; what was
repeated is taken back, because a model that is shown a circle in the history goes round again.
"""

from __future__ import annotations

from collections.abc import Sequence

RUN_TOKENS = 8
"""So many tokens in a row that the reply has had before are a circle; a name that comes again is shorter."""
SENTENCE_ENDS = (".", "!", "?", "…", "*", '"', "”", "。", "！", "？", "\n")


def before_the_circle(text: str) -> str:
    """What is worth keeping of a text that broke off where it began to repeat itself: its whole sentences."""
    end = max(text.rfind(mark) + len(mark) for mark in SENTENCE_ENDS if mark in text) if _has_end(text) else 0
    return (text[:end] or text).strip()


def _has_end(text: str) -> bool:
    return any(mark in text for mark in SENTENCE_ENDS)


def goes_round(reply: Sequence[int]) -> bool:
    """Whether the last `RUN_TOKENS` tokens stand earlier in the reply too; the two places may overlap."""
    run = list(reply[-RUN_TOKENS:])
    if len(run) < RUN_TOKENS:
        return False
    return any(list(reply[at : at + RUN_TOKENS]) == run for at in range(len(reply) - RUN_TOKENS))
