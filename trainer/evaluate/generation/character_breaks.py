"""Detects replies that break a persona's character."""

import re
from functools import lru_cache

from personas.prompt.renderer import example_turns, system_text
from personas.schemas.chat import Persona
from trainer.evaluate.generation.reply_tasks import OUT_OF_CHARACTER_FILE, read_toml
from trainer.evaluate.generation.text_metrics import has_shared_run

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

    Such replies speak as a program, continue as the member, take the member's name as the
    persona's, or say an example of the card word for word.
    """

    def __init__(self, persona: Persona) -> None:
        turns = example_turns(persona)
        self._name = persona.name
        self._examples = [turn.text for turn in turns if turn.by_persona]
        examples = [turn.text for turn in turns]
        card = "\n".join([system_text(persona, ""), persona.first_mes, *examples])
        self._patterns: list[re.Pattern[str]] = []
        for pattern in out_of_character_patterns():
            if not pattern.search(card):
                self._patterns.append(pattern)

    def is_broken_by(self, reply: str, asker: str) -> bool:
        """Report whether a reply to `asker` breaks the character."""
        names = "|".join(map(re.escape, filter(None, (asker, *USER_NAMES))))
        as_another = re.search(rf"^\s*(?:{names})\s*:", reply, re.IGNORECASE | re.MULTILINE)
        if as_another or self._takes_name(reply, asker):
            return True
        if any(has_shared_run(reply, example) for example in self._examples):
            return True
        return any(pattern.search(reply) for pattern in self._patterns)

    def _takes_name(self, reply: str, asker: str) -> bool:
        """Report whether a reply claims the name of `asker`; names in lower case may be words."""
        if not asker[:1].isupper() or asker in self._name:
            return False
        claimed = rf"\b(?:I(?:['’]m| am)|[Mm]y name(?: is|['’]s)) {re.escape(asker)}\b"
        return re.search(claimed, reply) is not None
