"""Explains which passages of a persona's lore a message matches, and which of them a prompt gets."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bot.personas.base_model_compat import token_counter_or_estimate
from bot.personas.web.lookup import OwnedPersona
from personas.lore.entry_rules import MAX_ALWAYS_WORDS
from personas.lore.ranking import (
    MAX_LORE_PASSAGES,
    MIN_SCORE,
    MIN_SHARE_OF_BEST,
    LoreRanking,
    PassageMatch,
)

MatchOutcome = Literal["given", "left over", "not found"]
MAX_QUESTION_CHARS = 4000


@dataclass(frozen=True)
class MatchExplanation:
    """A passage compared with a message: the outcome, the reason, and the passage's tokens."""

    match: PassageMatch
    outcome: MatchOutcome
    why: str
    tokens: int

    @property
    def words(self) -> list[tuple[str, float]]:
        """Shared words with their weights, heaviest first."""
        return sorted(self.match.words.items(), key=lambda word: -word[1])


def explain_matches(ranking: LoreRanking, count: Callable[[str], int]) -> list[MatchExplanation]:
    """Explain every passage of a ranking, best first."""
    given = {id(match) for match in ranking.selected()}
    explanations = []
    for rank, match in enumerate(ranking.matches):
        explanations.append(_explain_match(match, rank, id(match) in given, count))
    return explanations


def _explain_match(
    match: PassageMatch, rank: int, is_given: bool, count: Callable[[str], int]
) -> MatchExplanation:
    tokens = count(f"[{match.passage.heading}] {match.passage.text}")
    if is_given and match.by_keys:
        return MatchExplanation(match, "given", _key_reason(match), tokens)
    if is_given:
        why = (
            f"A score of {MIN_SCORE:g} or more is found, and it is among the best "
            f"{MAX_LORE_PASSAGES}."
        )
        return MatchExplanation(match, "given", why, tokens)
    if match.is_match:
        why = _crowded_reason(match) if match.by_keys else _left_over_reason(rank)
        return MatchExplanation(match, "left over", why, tokens)
    return MatchExplanation(match, "not found", _not_found_reason(match), tokens)


def _key_reason(match: PassageMatch) -> str:
    if match.is_always:
        return (
            "It is given with every message, as all such passages are that have room in "
            f"{MAX_ALWAYS_WORDS} words."
        )
    return f"The message has its keys: {', '.join(match.keys)}."


def _crowded_reason(match: PassageMatch) -> str:
    return (
        f"{_key_reason(match)} Others have precedence by their keys: a prompt has room for "
        f"{MAX_LORE_PASSAGES}."
    )


def _left_over_reason(rank: int) -> str:
    if rank >= MAX_LORE_PASSAGES:
        return (
            f"Found, but a prompt has room for {MAX_LORE_PASSAGES} passages, and others "
            "match better."
        )
    return (
        f"Found, but it scores less than {MIN_SHARE_OF_BEST:.0%} of the best: it says "
        "little beside that."
    )


def _not_found_reason(match: PassageMatch) -> str:
    if match.is_ruled_out:
        return "It has secondary keys, so only its keys give it, and they do not match."
    shared = "they share no meaningful word"
    if match.words:
        shared = f"the shared words weigh {match.by_words:.2f}"
    return f"It takes {MIN_SCORE:g}: {shared}, and {_meaning_text(match)}."


def _meaning_text(match: PassageMatch) -> str:
    if match.cosine is None:
        return "its meaning was not compared, as one of the two is not English"
    distance = "no nearer"
    if match.by_meaning < 0:
        distance = "far off"
    elif match.by_meaning > 0:
        distance = "near, but not near enough"
    return f"in meaning it is {distance} ({match.by_meaning:+.2f})"


async def match_lore(
    owned: OwnedPersona, message: str, guild_id: int
) -> tuple[LoreRanking, list[MatchExplanation]]:
    """Match a message against all lore of the persona in a server, best first."""
    ranking = await asyncio.to_thread(owned.services.lore.rank, owned.id, message, guild_id)
    count = await asyncio.to_thread(token_counter_or_estimate, owned.services.base_model)
    return ranking, await asyncio.to_thread(explain_matches, ranking, count)
