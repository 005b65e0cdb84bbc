"""Finds the keys of lore in a message."""

import logging
import time
from dataclasses import dataclass
from functools import lru_cache

import regex

from personas.errors import LoreError
from personas.lore.entry_rules import EntryRules
from personas.lore.key_regex import REGEX_KEY_PATTERN, compile_regex
from personas.schemas.chat import to_nfc
from personas.schemas.scripts import UNSEGMENTED_SCRIPTS, WORD_SIGNS

log = logging.getLogger(__name__)
MAX_SEARCHED_CHARS = 4000
"""Characters of a message in which keys are looked for."""
MAX_REGEX_S = 0.02
MAX_REGEXES_S = 0.1
"""Processor time of one regular expression, and of all of them, for one message."""
PLURAL = r"(?:e?s|'s)?"
LETTER = rf"[[{WORD_SIGNS}_]--[{UNSEGMENTED_SCRIPTS}]]"
LETTER_PATTERN = regex.compile(LETTER, regex.V1)
MARK = r"\p{M}"


@dataclass(frozen=True)
class KeyMatch:
    """Keys of a passage that a message has. `is_ruled_out`: its secondary keys forbid it, or its
    keys are missing.
    """

    keys: tuple[str, ...] = ()
    is_ruled_out: bool = False


class KeySearch:
    """The keys of lore in one message. A key that takes too long is skipped, with a warning in the
    log.
    """

    def __init__(self, message: str) -> None:
        self._text = to_nfc(message)[:MAX_SEARCHED_CHARS]
        self._line = _plain_line(self._text)
        self._folded = self._line.casefold()
        self._left_s = MAX_REGEXES_S

    def match(self, rules: EntryRules) -> KeyMatch:
        """Find an entry's keys. Lore with secondary keys is given by its keys only."""
        found = tuple(key for key in rules.keys if self._has(key, rules))
        if not rules.secondary:
            return KeyMatch(found)
        if not found or not self._allows(rules):
            return KeyMatch((), is_ruled_out=True)
        return KeyMatch(found)

    def _allows(self, rules: EntryRules) -> bool:
        found = [self._has(key, rules) for key in rules.secondary]
        match rules.logic:
            case "and any":
                return any(found)
            case "and all":
                return all(found)
            case "not any":
                return not any(found)
            case "not all":
                return not all(found)

    def _has(self, key: str, rules: EntryRules) -> bool:
        if REGEX_KEY_PATTERN.fullmatch(key):
            return self._has_regex(key)
        if rules.match_case:
            text = self._line
            plain = _plain_line(key)
        else:
            text = self._folded
            plain = _plain_line(key.casefold())
        if plain not in text or rules.part_of_words:
            return plain in text
        return _word_pattern(plain).search(text) is not None

    def _has_regex(self, key: str) -> bool:
        if self._left_s <= 0:
            return False
        begun = time.thread_time()
        limit_s = min(MAX_REGEX_S, self._left_s)
        try:
            pattern = compile_regex(key)
            # Without the interpreter's lock, so that the event loop goes on meanwhile.
            return pattern.search(self._text, timeout=limit_s, concurrent=True) is not None
        except TimeoutError:
            log.warning(
                "the key %s of a lore entry takes too long on a message: it is skipped there", key
            )
            return False
        except LoreError:  # checked when the file is added; a file on disk may have changed
            return False
        finally:
            self._left_s -= time.thread_time() - begun


@lru_cache(maxsize=4096)
def _word_pattern(key: str) -> regex.Pattern[str]:
    """Return the pattern of a plain key: whole words, also with a plural or possessive ending."""
    before = rf"(?<!{LETTER})" if LETTER_PATTERN.match(key) else ""
    after = ""
    if LETTER_PATTERN.match(key[-1:]):
        after = rf"{PLURAL}(?!{LETTER}|{MARK})"
    elif regex.match(f"[{WORD_SIGNS}]", key[-1:]):
        after = f"(?!{MARK})"
    return regex.compile(before + regex.escape(key, literal_spaces=True) + after, regex.V1)


def _plain_line(text: str) -> str:
    return " ".join(text.replace("’", "'").split())
