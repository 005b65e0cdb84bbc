"""The criterion by which a reply's beginning is chosen among candidates. Imports no model library."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from personas.schemas.chat import Turn

T = TypeVar("T")

CANDIDATE_TOKENS = 12
"""Length of the beginning that is chosen; whole sentences cost more and choose little better."""
CARD_WEIGHT = 0.7
"""λ of the score."""
MIN_ECHO_WORDS = 6
"""Fewer words of a message may begin an answer to it: "Nobody came to your birthday, …"."""


def beginning_score(talk_logprob: float, card_logprob: float, tokens: int) -> float:
    """Return log p(text | talk) − λ log p(text | card alone) per token of the text.

    A text that would fit any talk loses against a text that fits this one (arXiv 1510.03055,
    anti-language model).
    """
    return (talk_logprob - CARD_WEIGHT * card_logprob) / tokens


def comparable(candidates: Sequence[T], text_of: Callable[[T], str], message: Turn) -> Sequence[T]:
    """Return the candidates that can be compared: if there are any, those that do not repeat the
    message.
    """
    worded = [candidate for candidate in candidates if can_be_compared(text_of(candidate))]
    return [each for each in worded if not repeats(text_of(each), message)] or worded


def repeats(text: str, message: Turn) -> bool:
    """Return whether a beginning speaks as the message's author, or repeats what they say: nothing
    fits a message better than the message itself, so the score would prefer it.
    """
    if message.name and text.lstrip().startswith(f"{message.name}:"):
        return True
    words = re.findall(r"\w+", text.casefold())
    said = re.findall(r"\w+", message.text.casefold())
    count = len(words) - 1  # the last word may be cut
    if count < MIN_ECHO_WORDS:
        return False
    starts = range(len(said) - count + 1)
    return any(said[at : at + count] == words[:count] for at in starts)


def can_be_compared(text: str) -> bool:
    """Return whether a beginning has a letter or digit.

    One that ends at once is one token, whose likelihood may be anything.
    """
    return any(map(str.isalnum, text))
