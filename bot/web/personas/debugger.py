"""Why a message finds this lore and not that: every passage with its score, and what decided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from personas.lore import FOUND, LORE_PASSAGES, Match, Weighed
from personas.lore.index import BESIDE

Outcome = Literal["given", "left over", "not found"]


@dataclass(frozen=True)
class Explained:
    """A passage beside a message: what became of it, why in a sentence, and how many tokens it takes or would take."""

    match: Match
    outcome: Outcome
    why: str
    tokens: int

    @property
    def words(self) -> list[tuple[str, float]]:
        """The words that both have with their weights, the heaviest first."""
        return sorted(self.match.words.items(), key=lambda word: -word[1])


def explained(weighed: Weighed, count: Callable[[str], int]) -> list[Explained]:
    """Every passage, best first."""
    given = {id(match) for match in weighed.given()}
    return [_one(match, place, weighed, id(match) in given, count) for place, match in enumerate(weighed.matches)]


def explained_json(one: Explained) -> dict[str, Any]:
    """The published object."""
    match = one.match
    return {
        "outcome": one.outcome,
        "why": one.why,
        "score": match.score,
        "by_words": match.by_words,
        "by_meaning": match.by_meaning,
        "cosine": match.cosine,
        "words": match.words,
        "tokens": one.tokens,
        "source": match.passage.source,
        "heading": match.passage.heading,
        "text": match.passage.text,
    }


def _one(match: Match, place: int, weighed: Weighed, is_given: bool, count: Callable[[str], int]) -> Explained:
    tokens = count(f"[{match.passage.heading}] {match.passage.text}")
    if is_given:
        why = f"A score of {FOUND:g} or more is found, and it is among the best {LORE_PASSAGES}."
        return Explained(match, "given", why, tokens)
    if match.found:
        return Explained(match, "left over", _left_over(place), tokens)
    return Explained(match, "not found", _not_found(match), tokens)


def _left_over(place: int) -> str:
    if place >= LORE_PASSAGES:
        return f"Found, but a prompt has room for {LORE_PASSAGES} passages, and others match better."
    return f"Found, but it scores less than {BESIDE:.0%} of the best: it says little beside that."


def _not_found(match: Match) -> str:
    meaning = "its meaning was not compared, as one of the two is not English"
    if match.cosine is not None:
        far = "far off" if match.by_meaning < 0 else "near, but not near enough" if match.by_meaning else "no nearer"
        meaning = f"in meaning it is {far} ({match.by_meaning:+.2f})"
    shared = f"the shared words weigh {match.by_words:.2f}" if match.words else "they share no word that tells anything"
    return f"It takes {FOUND:g}: {shared}, and {meaning}."
