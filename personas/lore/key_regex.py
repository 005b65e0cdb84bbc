"""Keys of lore that are regular expressions, written in slashes as in JavaScript.

They come from strangers' books and run on every message. So each is compiled with what JavaScript
has and nothing more, limited in its repeats, and tried out on texts that slow expressions down.
"""

import math
import re
import time
from functools import lru_cache

import regex

from personas.errors import LoreError

REGEX_KEY_PATTERN = re.compile(r"/(?P<pattern>(?:\\.|[^/\\\n])+)/(?P<flags>[a-z]*)")
REGEX_FLAGS = {"i": regex.IGNORECASE, "m": regex.MULTILINE, "s": regex.DOTALL}
UNUSED_REGEX_FLAGS = "dguvy"
"""Flags of JavaScript that do not change whether an expression matches at all, or that are always
set here.
"""
MAX_FILE_REGEXES = 200
"""Regular expressions among the keys of one file: each is tried out whenever the file is read."""
PROBE_CHARS = 1000
MAX_PROBES = 24
MAX_PROBED_S = 0.05
ESCAPE_PATTERN = re.compile(r"\\[pPu]\{[^}]*\}|\\.", re.DOTALL)
POSSESSIVE_PATTERN = re.compile(r"[+*?}]\+")
CLASS_PATTERN = re.compile(r"\[[^\]]*\]")
COUNT_PATTERN = re.compile(r"(?<=[{,])[0-9]+(?=[,}])")
MAX_REPEATS = 5000
"""Most that all counts in braces make together: the library copies what is repeated."""
NOT_JAVASCRIPT_PATTERN = re.compile(r"\(\?(?![:=!]|<[=!]|<[A-Za-z_]\w*>)|\{[a-z]")
"""Groups and repeats of the library that JavaScript lacks, such as recursion and inexact
matching.
"""


@lru_cache(maxsize=1024)
def compile_regex(key: str) -> "regex.Pattern[str]":
    """Compile a key in slashes. As in JavaScript, only the flag i ignores case. Raises `LoreError`.

    Refuses an expression that takes too long on texts that are made to slow it down.
    """
    match = REGEX_KEY_PATTERN.fullmatch(key)
    if not match:
        raise LoreError(
            f"{shorten_key(key)} is no regular expression.", "Write it as /…/, with flags after it."
        )
    if unknown := set(match["flags"]) - {*REGEX_FLAGS, *UNUSED_REGEX_FLAGS}:
        raise LoreError(
            f"The key {shorten_key(key)} has an unknown flag, {min(unknown)}.", "Flags: i, m, s."
        )
    structure = CLASS_PATTERN.sub("x", ESCAPE_PATTERN.sub("", match["pattern"]))
    if POSSESSIVE_PATTERN.search(structure):
        raise LoreError(
            f"The key {shorten_key(key)} is no valid regular expression (nothing to repeat).",
            "Correct it.",
        )
    if NOT_JAVASCRIPT_PATTERN.search(structure):
        raise LoreError(
            f"The key {shorten_key(key)} has a group that JavaScript lacks.",
            "Use (?:…), (?=…) or (?!…).",
        )
    # Nested repeats multiply: ((a{999}){999}){999} would take all memory.
    repeats = math.prod(max(1, int(count)) for count in COUNT_PATTERN.findall(structure))
    if repeats > MAX_REPEATS:
        raise LoreError(
            f"The key {shorten_key(key)} repeats too often.", "Use * or + instead of counts."
        )
    flags = 0
    for flag in match["flags"]:
        flags |= REGEX_FLAGS.get(flag, 0)
    source = re.sub(r"\\u\{([0-9a-fA-F]{1,6})\}", _wide_escape, match["pattern"])
    try:
        pattern = regex.compile(source, flags)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        why = " ".join(str(error).split())[:120]
        raise LoreError(
            f"The key {shorten_key(key)} is no valid regular expression ({why}).", "Correct it."
        ) from None
    if is_slow(pattern, match["pattern"]):
        raise LoreError(
            f"The key {shorten_key(key)} takes too long on some texts.",
            "Avoid repeats within repeats.",
        )
    return pattern


def _wide_escape(match: "re.Match[str]") -> str:
    return f"\\U{int(match[1], 16):08x}"


def is_slow(pattern: "regex.Pattern[str]", source: str) -> bool:
    """Report whether an expression exceeds its time on repeats of its own characters that end
    differently.
    """
    letters = [letter for letter in source if letter.isalnum()]
    units = dict.fromkeys(["a", " ", "0", *letters, "a ", "ab"])
    begun = time.thread_time()
    for unit in list(units)[:MAX_PROBES]:
        # The last character matches nothing, so a search has to try all ways through the repeats.
        probe = (unit * PROBE_CHARS)[:PROBE_CHARS] + "\u2603"
        try:
            pattern.search(probe, timeout=MAX_PROBED_S)
        except TimeoutError:
            return True
        if time.thread_time() - begun > MAX_PROBED_S:
            return True
    return False


# -------------------------------------------------------------------------------------- the comment


def shorten_key(key: str) -> str:
    """Format a key for a message."""
    shown = key if len(key) <= 60 else f"{key[:57]}…"
    return f"`{shown}`"
