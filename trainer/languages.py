"""Identifies the language of texts."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

UNDECIDED = "und"
NO_LANGUAGE = "zxx"
CHINESE = ("zh", "yue", "wuu")
MAX_LANGUAGE_CHARACTERS = 2000
MIN_LANGUAGE_LETTERS = 200
MIN_LANGUAGE_SHARE = 0.05
"""Probability of a language below which a text is in another. It finds every opener in Vietnamese,
Chinese, German and Spanish among English ones, and takes 3 % of the English ones for others.
"""


def detect_language(text: str) -> str:
    """Return a text's ISO 639-1 language code, or `UNDECIDED` below even odds."""
    return str(_identifier().classify(text[:MAX_LANGUAGE_CHARACTERS])[0])


def detect_main_language(texts: Iterable[str]) -> str:
    """Return the language code of texts taken together: `zh` for all Chinese, `en` where nothing
    can be decided.

    Little text in plain letters counts as English.
    """
    text = "\n".join(texts)
    if text.isascii() and len(text) < MIN_LANGUAGE_LETTERS:
        return "en"
    code = detect_language(text)
    if code in CHINESE or (code == UNDECIDED and re.search("[\u4e00-\u9fff]", text)):
        return "zh"
    return "en" if code in (UNDECIDED, NO_LANGUAGE) else code


def may_be_in_language(text: str, language: str) -> bool:
    """Report whether a text may be in a language. One without letters may be in any."""
    if not any(map(str.isalpha, text)):
        return True
    codes = CHINESE if language == "zh" else (language,)
    ranks = dict(_identifier().rank(text[:MAX_LANGUAGE_CHARACTERS]))
    return sum(float(ranks.get(code, 0)) for code in codes) >= MIN_LANGUAGE_SHARE


def find_language_file(file: Path, language: str) -> Path | None:
    """Return the file of a language, such as `safety.vi.jsonl` beside the English `safety.jsonl`;
    None if missing.
    """
    found = file if language == "en" else file.with_suffix(f".{language}{file.suffix}")
    return found if found.is_file() else None


def list_languages() -> frozenset[str]:
    """Return the detectable languages' codes."""
    return frozenset(code for code in _identifier().nb_classes if code != NO_LANGUAGE)


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # takes 0.1 s

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=0.5)
