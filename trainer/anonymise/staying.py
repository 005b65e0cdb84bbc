"""Names that belong to a persona's world and stay: its own, and those in its card and lore."""

from __future__ import annotations

import re
from collections.abc import Iterable

from personas.contracts import Persona
from personas.lore import LoreIndex
from trainer.anonymise.bounds import LATIN
from trainer.anonymise.tagger.vocabulary import vocabulary
from trainer.anonymise.words import ENGLISH

UPPER = "A-Z\u00c0-\u00d6\u00d8-\u00de\u0102\u0110\u01a0\u01af\u1e00-\u1eff"
WORD = rf"[{UPPER}][{LATIN}]+"
NAME = re.compile(rf"{WORD}(?:[ -](?:of |the |van |de )?(?:{WORD}|[0-9]+)){{0,4}}")
SMALL = re.compile(rf"(?<![{LATIN}'’])[a-z\u00df-\u00f6\u00f8-\u00ff][{LATIN}]+")


def own_names(persona: Persona | None) -> tuple[str, ...]:
    """What a persona is called."""
    return tuple(dict.fromkeys(filter(None, (persona.name, persona.nickname)))) if persona else ()


def world_names(persona: Persona | None, lore: LoreIndex | None) -> frozenset[str]:
    """The proper names in a persona's card and lore."""
    texts = [passage.text for passage in lore.passages] if lore else []
    texts += [passage.heading for passage in lore.passages] if lore else []
    if persona:
        texts += [persona.description, persona.personality, persona.scenario, persona.first_mes, persona.mes_example]
    return proper_names(texts)


def proper_names(texts: Iterable[str]) -> frozenset[str]:
    """Words with a capital, alone and as they stand together, but for those that a text writes without one, too."""
    texts = list(texts)
    small = {word for text in texts for word in SMALL.findall(text)}
    found = {name for text in texts for name in NAME.findall(text) if name[0].isupper()}
    words = {word for name in found for word in name.split() if word[0].isupper()}
    own = {word for word in words if len(word) > 2 and word.lower() not in small and not _is_common(word)}
    return frozenset(own | {name for name in found if " " in name})


def _is_common(word: str) -> bool:
    signs = vocabulary().of(word)
    return word.lower() in ENGLISH or ("c" in signs and "g" not in signs)
