"""Allowlist: names of the persona and its lore, and a reviewer's corrections."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from personas.errors import RequestError
from personas.lore.index import LoreIndex
from personas.schemas.chat import Persona
from trainer.anonymise.crf_ner.gazetteer import load_gazetteer
from trainer.anonymise.language_data import ENGLISH_WORDS, LATIN, UPPER

WORD = rf"[{UPPER}][{LATIN}]+"
NAME = re.compile(rf"{WORD}(?:[ -](?:of |the |van |de )?(?:{WORD}|[0-9]+)){{0,4}}")
LOWERCASE_WORD = re.compile(rf"(?<![{LATIN}'’])[a-z\u00df-\u00f6\u00f8-\u00ff][{LATIN}]+")


def own_names(persona: Persona | None) -> tuple[str, ...]:
    """Return the persona's own names."""
    if persona is None:
        return ()
    return tuple(dict.fromkeys(filter(None, (persona.name, persona.nickname))))


def world_names(persona: Persona | None, lore: LoreIndex | None) -> frozenset[str]:
    """Return the proper names in a persona's card and lore."""
    texts: list[str] = []
    if lore:
        for passage in lore.passages:
            texts += [passage.text, passage.heading]
    if persona:
        texts += [
            persona.description,
            persona.personality,
            persona.scenario,
            persona.first_mes,
            persona.mes_example,
        ]
    return proper_names(texts)


def proper_names(texts: Iterable[str]) -> frozenset[str]:
    """Return capitalised words and sequences of them, except words that also occur in lower
    case.
    """
    lowercase: set[str] = set()
    names: set[str] = set()
    for text in texts:
        lowercase.update(LOWERCASE_WORD.findall(text))
        names.update(name for name in NAME.findall(text) if name[0].isupper())
    proper = {name for name in names if " " in name}
    for word in " ".join(names).split():
        is_name = word[0].isupper() and len(word) > 2
        if is_name and word.lower() not in lowercase and not _is_common(word):
            proper.add(word)
    return frozenset(proper)


def _is_common(word: str) -> bool:
    signs = load_gazetteer().of(word)
    return word.lower() in ENGLISH_WORDS or ("c" in signs and "g" not in signs)


@dataclass(frozen=True)
class NameCorrections:
    """Names to `keep`, and names to replace wherever they occur (`also`)."""

    keep: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


def read_corrections(file: Path) -> NameCorrections:
    """Read a file with one correction per line, `keep NAME` or `also NAME`, optionally as a list
    item.

    Raises `RequestError` with the first other line, and `OSError`.
    """
    corrections: dict[str, list[str]] = {"keep": [], "also": []}
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        action, _, name = line.strip().lstrip("-").strip().partition(" ")
        if not line.strip():
            continue
        if action not in corrections or not name.strip():
            message = f"{file}, line {number}: {line.strip()[:60]!r} is not a correction."
            raise RequestError(message, "Write `keep NAME` or `also NAME`.")
        corrections[action].append(name.strip())
    return NameCorrections(tuple(corrections["keep"]), tuple(corrections["also"]))
