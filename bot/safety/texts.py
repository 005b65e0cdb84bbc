"""The texts that answer messages which speak of self-harm: the shipped ones, or the operator's."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from bot.safety.rules import LANGUAGES, SafetyRules
from personas.errors import UnderstudyError

MAX_TEXT_CHARS = 1800
"""Discord allows 2,000 in a message."""
MIN_TEXT_CHARS = 40
HELP_LINE_PATTERN = re.compile(r"\d{3}|\w\.(?:com|org|net|info|gov|[a-z]{2})\b", re.IGNORECASE)
"""A telephone number, or a web address."""


def shipped_texts() -> dict[str, str]:
    """Return the shipped texts by language."""
    rules = SafetyRules.shipped()
    return {language: rules.text(language) for language in LANGUAGES}


def read_texts(path: Path | None) -> dict[str, str]:
    """Return the texts by language: the operator's where the file has one, else the shipped ones.

    Raises `UnderstudyError` that names the file, the language and the remedy.
    """
    texts = shipped_texts()
    if path is None:
        return texts
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnderstudyError(
            f"{path} cannot be read: {error}.", 'Write TOML, such as en = """…""".'
        ) from error
    return texts | {language: _checked(path, language, given) for language in given}


def _checked(path: Path, language: str, given: Mapping[str, object]) -> str:
    if language not in LANGUAGES:
        raise UnderstudyError(
            f"{path} has a text in {language!r}, for which there are no rules.",
            f"Write texts for {', '.join(LANGUAGES)} alone.",
        )
    text = given[language]
    if not isinstance(text, str):
        raise UnderstudyError(
            f"{path}: {language} is no text.", f'Write {language} = """…""", with the helplines.'
        )
    text = text.strip()
    if not MIN_TEXT_CHARS <= len(text) <= MAX_TEXT_CHARS:
        raise UnderstudyError(
            f"{path}: the text in {language} has {len(text)} characters.",
            f"Write {MIN_TEXT_CHARS} to {MAX_TEXT_CHARS}: it is one message on Discord.",
        )
    if not HELP_LINE_PATTERN.search(text):
        raise UnderstudyError(
            f"{path}: the text in {language} names no help line.",
            "Add a telephone number or a web address where people get help.",
        )
    return text
