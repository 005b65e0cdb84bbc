"""Replies that break character: that speak as a program, or for the member who asked."""

from __future__ import annotations

import re
from functools import lru_cache

from personas.contracts import Persona
from personas.prompt import example_turns, system_text
from trainer.scorecard.spoken.material import BREAKS_FILE, tables_of

SPEAKERS = ("user", "human", "guest")
"""Whom models take for the one who asks, beside whoever does."""


@lru_cache(maxsize=1)
def patterns() -> tuple[re.Pattern[str], ...]:
    """What `data/evaluation/out_of_character.toml` lists, in all languages."""
    listed = tables_of(BREAKS_FILE)["breaks"]
    return tuple(re.compile(pattern, re.IGNORECASE) for of in listed for pattern in of["patterns"])


class Character:
    """What breaks one persona's character. What its own card says of it breaks nothing: some are machines."""

    def __init__(self, persona: Persona) -> None:
        told = [system_text(persona, ""), persona.first_mes, *(turn.text for turn in example_turns(persona))]
        card = "\n".join(told)
        self._patterns = [pattern for pattern in patterns() if not pattern.search(card)]

    def is_broken_by(self, reply: str, asker: str) -> bool:
        """Whether a reply speaks as a program, or goes on as `asker`."""
        names = "|".join(map(re.escape, filter(None, (asker, *SPEAKERS))))
        as_another = re.search(rf"^\s*(?:{names})\s*:", reply, re.IGNORECASE | re.MULTILINE)
        return as_another is not None or any(pattern.search(reply) for pattern in self._patterns)
