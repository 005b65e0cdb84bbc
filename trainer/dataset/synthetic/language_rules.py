"""Rules for lore in languages other than English, read from data/languages."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from personas.shipped_folders import SHIPPED_DATA

LANGUAGES_FOLDER = SHIPPED_DATA / "languages"


@dataclass(frozen=True)
class LanguageRules:
    """Rules of a language other than English. A language without a file has empty ones: nothing is
    rewritten.
    """

    code: str
    name: str
    self: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    you: str = ""
    # `(?!)` matches nothing, so that patterns need no check.
    person: str = "(?P<name>(?!))"
    animate: str = "(?!)"
    style: str = "(?!)"
    relation: str = "(?!)"
    trait: str = "(?!)"
    taste: str = "(?P<thing>(?!))"
    refusal: str = "(?!)"
    about: str = "{topic}?"
    who: str = "{name}?"
    who_to_you: str = "{name}?"
    likes: str = "{thing}?"
    follow_ups: tuple[str, ...] = ("…?",)
    openers: tuple[str, ...] = ("{}",)
    feelings: tuple[str, ...] = ()
    object_marker: str = "(?!)"
    pronouns: Mapping[str, str] = field(default_factory=dict)


@lru_cache
def read_language_rules(code: str) -> LanguageRules | None:
    """Read the rules of a language: None for English, empty ones for a language without a file."""
    if code == "en":
        return None
    file = LANGUAGES_FOLDER / f"{code}.toml"
    if not file.is_file():
        return LanguageRules(code, language_name(code))
    rules: dict[str, Any] = {}
    for name, value in tomllib.loads(file.read_text(encoding="utf-8")).items():
        rules[name] = tuple(value) if isinstance(value, list) else value
    return LanguageRules(code, **rules)


def language_name(code: str) -> str:
    """Return the English name of a language, or its code if it is not listed."""
    names = tomllib.loads((LANGUAGES_FOLDER / "names.toml").read_text(encoding="utf-8"))
    return str(names.get(code, code))
