"""Detects replies that break a persona's character."""

import re
from functools import lru_cache

from personas.prompt.renderer import example_turns, system_text
from personas.schemas.chat import Persona
from trainer.evaluate.generation.reply_tasks import OUT_OF_CHARACTER_FILE, read_toml

USER_NAMES = ("user", "human", "guest")
"""Names under which models continue as the user, beside the real one."""


@lru_cache(maxsize=1)
def out_of_character_patterns() -> tuple[re.Pattern[str], ...]:
    """Read the patterns of `data/evaluation/out_of_character.toml`, in all languages."""
    patterns: list[re.Pattern[str]] = []
    for group in read_toml(OUT_OF_CHARACTER_FILE)["breaks"]:
        patterns += [re.compile(pattern, re.IGNORECASE) for pattern in group["patterns"]]
    return tuple(patterns)


class CharacterBreakDetector:
    """Detects replies that break a persona's character, but for statements of its own card: some
    are machines.
    """

    def __init__(self, persona: Persona) -> None:
        examples = [turn.text for turn in example_turns(persona)]
        card = "\n".join([system_text(persona, ""), persona.first_mes, *examples])
        self._patterns: list[re.Pattern[str]] = []
        for pattern in out_of_character_patterns():
            if not pattern.search(card):
                self._patterns.append(pattern)

    def is_broken_by(self, reply: str, asker: str) -> bool:
        """Report whether a reply speaks as a program, or continues as `asker`."""
        names = "|".join(map(re.escape, filter(None, (asker, *USER_NAMES))))
        as_another = re.search(rf"^\s*(?:{names})\s*:", reply, re.IGNORECASE | re.MULTILINE)
        return as_another is not None or any(pattern.search(reply) for pattern in self._patterns)
