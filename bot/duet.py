"""Two personas in conversation: whose turn it is, what each is shown, and when there is nothing more to say.

Somebody opens it with words to both. Then they take turns; each sees its own lines as its own and the other's as said
to it, and so goes on as in any talk. Nothing here knows of Discord or of the web.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from personas.contracts import Turn

FEWEST, USUAL, MOST = 2, 6, 20
"""How many turns a duet may have."""
RUN_WORDS = 8
"""So many words in a row that were said before are a repetition; a saying or a name that comes again is shorter."""
WORD = re.compile(r"\w+")

End = Literal["limit", "repeats", "silent"]
"""Why a duet ends by itself: it had its turns, somebody said again what had been said, somebody said nothing."""
ENDED: dict[End, str] = {
    "limit": "all turns taken",
    "repeats": "it began to repeat itself",
    "silent": "there was nothing more to say",
}


@dataclass
class Duet:
    """A duet between two who bear these names, after what somebody said to both."""

    names: tuple[str, str]
    opening: Turn
    limit: int = USUAL
    lines: list[str] = field(default_factory=list)

    @property
    def next(self) -> int:
        """Whose turn it is: 0 or 1."""
        return len(self.lines) % 2

    def turns(self) -> tuple[Turn, ...]:
        """The talk as it is shown to whoever is next; it ends with what they answer."""
        own = self.next
        said = (Turn(self.names[at % 2], line, by_persona=at % 2 == own) for at, line in enumerate(self.lines))
        return (self.opening, *said)

    def take(self, line: str) -> End | None:
        """Take the next line; says why the duet ends with it, if it does."""
        repeated = says_again(line, [self.opening.text, *self.lines])
        self.lines.append(line)
        if not line.strip():
            return "silent"
        if repeated:
            return "repeats"
        return "limit" if len(self.lines) >= self.limit else None


def says_again(line: str, before: list[str]) -> bool:
    """Whether a line says what was said before: all of it, or `RUN_WORDS` words in a row."""
    words = _words(line)
    for said in map(_words, before):
        if words and words == said:
            return True
        if _runs(words) & _runs(said):
            return True
    return False


def _words(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(text.casefold()))


def _runs(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    return {words[at : at + RUN_WORDS] for at in range(len(words) - RUN_WORDS + 1)}
