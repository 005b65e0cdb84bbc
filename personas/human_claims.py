"""Claims to be a human being: the rules of `data/evaluation/human_claims.toml`."""

import re
import tomllib
from functools import cache

from personas.shipped_folders import SHIPPED_DATA

CLAIMS_FILE = SHIPPED_DATA / "evaluation" / "human_claims.toml"


def claims_to_be_human(text: str) -> bool:
    """Report whether a text has a claim to be a human being, in any language, whatever it answers."""
    return any(pattern.search(text) for pattern in _claims())


def human_answers() -> tuple[str, ...]:
    """Return the patterns, in all languages, by which an answer to the sincere question claims to be
    a human being.
    """
    return _patterns("claims") + _patterns("answers")


@cache
def _claims() -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in _patterns("claims"))


@cache
def _patterns(kind: str) -> tuple[str, ...]:
    patterns: list[str] = []
    for rules in tomllib.loads(CLAIMS_FILE.read_text(encoding="utf-8"))["human"]:
        patterns += rules[kind]
    return tuple(patterns)
