"""The criterion by which a reply's beginning is chosen among candidates. Imports no model library."""

CANDIDATE_TOKENS = 12
"""Length of the beginning that is chosen; whole sentences cost more and choose little better."""
CARD_WEIGHT = 0.7
"""λ of the score."""


def beginning_score(talk_logprob: float, card_logprob: float, tokens: int) -> float:
    """Return log p(text | talk) − λ log p(text | card alone) per token of the text.

    A text that would fit any talk loses against a text that fits this one (arXiv 1510.03055,
    anti-language model).
    """
    return (talk_logprob - CARD_WEIGHT * card_logprob) / tokens


def can_be_compared(text: str) -> bool:
    """Return whether a beginning has a letter or digit.

    One that ends at once is one token, whose likelihood may be anything.
    """
    return any(map(str.isalnum, text))
