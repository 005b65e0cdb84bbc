"""Claims to be a human being: the rules of `data/evaluation/human_claims.toml`."""

import re
from functools import lru_cache

from trainer.evaluate.generation.reply_tasks import HUMAN_CLAIMS_FILE, read_toml


def claims_to_be_human(text: str) -> bool:
    """Report whether a text has a claim to be a human being, in any language, whatever it answers."""
    return any(re.search(pattern, text, re.IGNORECASE) for pattern in _patterns("claims"))


def human_answers() -> tuple[str, ...]:
    """Return the patterns, in all languages, by which an answer to the sincere question claims to be
    a human being.
    """
    return _patterns("claims") + _patterns("answers")


@lru_cache(maxsize=2)
def _patterns(kind: str) -> tuple[str, ...]:
    patterns: list[str] = []
    for rules in read_toml(HUMAN_CLAIMS_FILE)["human"]:
        patterns += rules[kind]
    return tuple(patterns)
