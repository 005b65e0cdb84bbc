"""Earlier exchanges of a member with the persona, as hits beside the lore of a prompt."""

from collections.abc import Iterable, Sequence

from personas.lore.passages import count_words
from personas.lore.ranking import MAX_LORE_PASSAGES
from personas.schemas.chat import EARLIER_SOURCE, LoreHit

# Size of an earlier exchange in a prompt; longer ones are left out as a whole. A link, however
# long, is one word.
MAX_EXCHANGE_WORDS = 120
MAX_EXCHANGE_CHARS = 1000
# Number of the nearest exchanges among which those that fit are chosen.
MAX_EARLIER_LOOKED_AT = 8


def earlier_hits(
    exchanges: Iterable[tuple[str, str, float]], name: str, lore: Sequence[LoreHit]
) -> list[LoreHit]:
    """Return the exchanges of `name` with the persona that a prompt shows before its lore, oldest
    first.

    Each is a question, its reply, and its score by `match_earlier`. There is room for two, or for
    one beside full lore. Of exchanges with the same question, the latest is shown.
    """
    latest: dict[str, LoreHit] = {}
    for question, reply, score in exchanges:
        asked = " ".join(question.split())
        answered = " ".join(reply.split())
        words = count_words(f"{asked} {answered}")
        chars = len(asked) + len(answered)
        if words > MAX_EXCHANGE_WORDS or chars >= MAX_EXCHANGE_CHARS:
            continue
        latest.pop(asked.casefold(), None)
        latest[asked.casefold()] = LoreHit(
            source=EARLIER_SOURCE,
            heading=f"{name} said earlier, and you answered",
            text=f"“{asked}” – “{answered}”",
            score=score,
        )
    places = 2 if len(lore) < MAX_LORE_PASSAGES else 1
    nearest = sorted(latest.values(), key=lambda hit: -hit.score)[:places]
    return [hit for hit in latest.values() if hit in nearest]
