"""Leak probe: a prompt cache must not give the keys and values of one adapter to another.

The engine is asked for the tokens after one text by an adapter, by another, and by the first again,
each time through its prompt cache, and once by each without it. All answers of an adapter have to
be the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from personas.schemas.effect_probe import CacheFigures

NextTokens = Mapping[int, float]
"""The likeliest next tokens with their log-probabilities."""
LEAK_SHARE = 0.25
"""Difference of an adapter's answers, as a share of the difference between the two adapters, from
which on keys and values are another adapter's. With those of all tokens but the last, it is about
1; in 16 bits, with its own that were computed in other batches, some 0.05.
"""
MIN_SEPARATION = 0.2  # nats; two adapters that differ by less cannot be told apart


@dataclass(frozen=True)
class CacheAnswers:
    """Answers of two adapters to one text: without the cache, and through it in this order."""

    first_alone: NextTokens
    second_alone: NextTokens
    first: NextTokens
    second: NextTokens
    first_again: NextTokens

    def figures(self) -> CacheFigures:
        """Return the largest difference of an adapter's answers, and that between the adapters, in
        nats.
        """
        gaps = (
            largest_difference(self.first, self.first_alone),
            largest_difference(self.first_again, self.first_alone),
            largest_difference(self.second, self.second_alone),
        )
        separation = largest_difference(self.first_alone, self.second_alone)
        leaks = separation >= MIN_SEPARATION and max(gaps) > LEAK_SHARE * separation
        return CacheFigures(gap=max(gaps), separation=separation, leaks=leaks)


def largest_difference(one: NextTokens, other: NextTokens) -> float:
    """Return the largest difference of two answers' log-probabilities, in nats, over the tokens of
    both.

    A token that an answer leaves out is at most as likely there as its last one.
    """
    if not one or not other:
        return 0.0
    lowest = (min(one.values()), min(other.values()))
    differences = []
    for token in one.keys() | other.keys():
        differences.append(abs(one.get(token, lowest[0]) - other.get(token, lowest[1])))
    return max(differences)
