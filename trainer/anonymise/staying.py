"""Names that belong to a persona's world and stay: its own, and those in its card and lore."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from personas.contracts import Persona
from personas.lore import LoreIndex
from trainer.anonymise.bounds import LATIN
from trainer.anonymise.words import ENGLISH

UPPER = "A-Z\u00c0-\u00d6\u00d8-\u00de\u0102\u0110\u01a0\u01af\u1e00-\u1eff"
WORD = rf"[{UPPER}][{LATIN}]+"
NAME = re.compile(rf"{WORD}(?:[ -](?:of |the |van |de )?(?:{WORD}|[0-9]+)){{0,4}}")
BEGINS = re.compile(r"(?:^|[.!?…:;\n*_#>|])[\s\"'“”‘’*_()-]*$")


def own_names(persona: Persona | None) -> tuple[str, ...]:
    """What a persona is called."""
    return tuple(dict.fromkeys(filter(None, (persona.name, persona.nickname)))) if persona else ()


def world_names(persona: Persona | None, lore: LoreIndex | None) -> frozenset[str]:
    """The proper names in a persona's card and lore."""
    texts = [passage.text for passage in lore.passages] if lore else []
    headings = [passage.heading for passage in lore.passages] if lore else []
    if persona:
        texts += [persona.description, persona.personality, persona.scenario, persona.first_mes, persona.mes_example]
    return proper_names(texts) | {name for heading in headings for name in NAME.findall(heading)}


def proper_names(texts: Iterable[str]) -> frozenset[str]:
    """Words with a capital where no sentence begins, alone and as they stand together; each word of them, too."""
    return frozenset(name for text in texts for name in _proper_names(text))


def _proper_names(text: str) -> Iterator[str]:
    for match in NAME.finditer(text):
        words = match[0].split()
        if BEGINS.search(text[max(0, match.start() - 12) : match.start()]) and (
            len(words) == 1 or words[0].lower() in ENGLISH
        ):
            continue
        yield match[0]
        yield from (word for word in words if len(word) > 3 and word.lower() not in ENGLISH and word[0].isupper())
