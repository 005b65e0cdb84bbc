"""When a section of lore is given: its keys, as lorebooks have them, in a comment below the
section's heading.

    ## The lamp

    <!-- lore
    keys: lamp, lantern, /lenses?/i
    and any: storm, fog
    -->

    It is trimmed at six.

The comment is YAML. Names: `keys`; one of `and any`, `and all`, `not any`, `not all` with secondary
keys; `always`; `order` and `priority`, whole numbers; `match case`; `part of words`. Keys are
separated by commas, or in a YAML list. A key in slashes is a regular expression as in JavaScript,
with flags.
"""

import json
import logging
import math
import re
import textwrap
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import regex
import yaml

from personas.errors import LoreError
from personas.lore.index_terms import UNSEGMENTED_SCRIPTS
from personas.schemas.chat import to_nfc

log = logging.getLogger(__name__)
SecondaryLogic = Literal["and any", "and all", "not any", "not all"]
LOGICS: tuple[SecondaryLogic, ...] = get_args(SecondaryLogic)
COMMENT_PATTERN = re.compile(
    r"\A\s*<!--\s*lore\b(?=[ \t]*\n|\s+[a-z ]+:)(.*?)-->", re.DOTALL | re.IGNORECASE
)
KEY_LIST_PATTERN = re.compile(r"\s*(/(?:\\.|[^/\\\n])+/[a-z]*(?=\s*(?:,|$))|[^,]+)")
REGEX_KEY_PATTERN = re.compile(r"/(?P<pattern>(?:\\.|[^/\\\n])+)/(?P<flags>[a-z]*)")
PLAIN_KEY_PATTERN = re.compile(r"[^\W_](?:[\w .'’-]*\w)?")
"""Keys that YAML needs no quotes for, within a list."""
REGEX_FLAGS = {"i": regex.IGNORECASE, "m": regex.MULTILINE, "s": regex.DOTALL}
UNUSED_REGEX_FLAGS = "dguvy"
"""Flags of JavaScript that do not change whether an expression matches at all, or that are always
set here.
"""
MAX_KEYS, MAX_KEY_CHARS = 100, 200
"""Keys of one section, primary and secondary ones each, and the length of a key."""
MAX_ALWAYS_WORDS = 180
"""Room in a prompt for passages that are given with every message, besides those that match."""
MAX_SEARCHED_CHARS = 4000
"""Characters of a message in which keys are looked for."""
MAX_REGEX_S, MAX_REGEXES_S = 0.02, 0.1
"""Processor time of one regular expression, and of all of them, for one message."""
PROBE_CHARS = 1000
MAX_PROBES = 24
MAX_PROBED_S = 0.05
MAX_FILE_REGEXES = 200
"""Regular expressions among the keys of one file: each is tried out whenever the file is read."""
ESCAPE_PATTERN = re.compile(r"\\[pPu]\{[^}]*\}|\\.", re.DOTALL)
POSSESSIVE_PATTERN = re.compile(r"[+*?}]\+")
CLASS_PATTERN = re.compile(r"\[[^\]]*\]")
COUNT_PATTERN, MAX_REPEATS = re.compile(r"(?<=[{,])[0-9]+(?=[,}])"), 5000
"""Counts in braces, and the most that all of them make together: the library copies what is
repeated.
"""
NOT_JAVASCRIPT_PATTERN = re.compile(r"\(\?(?![:=!]|<[=!]|<[A-Za-z_]\w*>)|\{[a-z]")
"""Groups and repeats of the library that JavaScript lacks, such as recursion and inexact
matching.
"""
PLURAL = r"(?:e?s|'s)?"
LETTER = rf"[^\W{UNSEGMENTED_SCRIPTS}]"
YES = ("yes", "true", "on", "1")
NO = ("no", "false", "off", "0", "")
DEFAULT_ORDER = 100
MAX_NUMBER = 10**6


@dataclass(frozen=True)
class EntryRules:
    """Rules by which a passage is given, besides its words and meaning.

    `keys`, any of which gives it if the message has it and `logic` holds for the `secondary` keys.
    With `always` it is given with every message. Where several compete for room, those of higher
    `priority`, then of higher `order` win; in the prompt the order ascends.
    """

    keys: tuple[str, ...] = ()
    secondary: tuple[str, ...] = ()
    logic: SecondaryLogic = "and any"
    always: bool = False
    order: int = DEFAULT_ORDER
    priority: int = 0
    match_case: bool = False
    part_of_words: bool = False


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
        return {
            "and any": any(found),
            "and all": all(found),
            "not any": not any(found),
            "not all": not all(found),
        }[rules.logic]

    def _has(self, key: str, rules: EntryRules) -> bool:
        if REGEX_KEY_PATTERN.fullmatch(key):
            return self._has_regex(key)
        text = self._line if rules.match_case else self._folded
        plain = _plain_line(key if rules.match_case else key.casefold())
        if plain not in text or rules.part_of_words:
            return plain in text
        return _word_pattern(plain).search(text) is not None

    def _has_regex(self, key: str) -> bool:
        if self._left_s <= 0:
            return False
        begun = time.thread_time()
        try:
            pattern = compile_regex(key)
            return (
                pattern.search(self._text, timeout=min(MAX_REGEX_S, self._left_s), concurrent=True)
                is not None
            )
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
def _word_pattern(key: str) -> re.Pattern[str]:
    """Return the pattern of a plain key: whole words, also with a plural or possessive ending."""
    before = rf"(?<!{LETTER})" if re.match(LETTER, key) else ""
    after = rf"{PLURAL}(?!{LETTER})" if re.match(LETTER, key[-1:]) else ""
    return re.compile(before + re.escape(key) + after)


def _plain_line(text: str) -> str:
    return " ".join(text.replace("’", "'").split())


@lru_cache(maxsize=1024)
def compile_regex(key: str) -> "regex.Pattern[str]":
    """Compile a key in slashes. As in JavaScript, only the flag i ignores case. Raises `LoreError`.

    Refuses an expression that takes too long on texts that are made to slow it down.
    """
    match = REGEX_KEY_PATTERN.fullmatch(key)
    if not match:
        raise LoreError(
            f"{_shown(key)} is no regular expression.", "Write it as /…/, with flags after it."
        )
    if unknown := set(match["flags"]) - {*REGEX_FLAGS, *UNUSED_REGEX_FLAGS}:
        raise LoreError(
            f"The key {_shown(key)} has an unknown flag, {min(unknown)}.", "Flags: i, m, s."
        )
    structure = CLASS_PATTERN.sub("x", ESCAPE_PATTERN.sub("", match["pattern"]))
    if POSSESSIVE_PATTERN.search(structure):
        raise LoreError(
            f"The key {_shown(key)} is no valid regular expression (nothing to repeat).",
            "Correct it.",
        )
    if NOT_JAVASCRIPT_PATTERN.search(structure):
        raise LoreError(
            f"The key {_shown(key)} has a group that JavaScript lacks.",
            "Use (?:…), (?=…) or (?!…).",
        )
    if math.prod(max(1, int(count)) for count in COUNT_PATTERN.findall(structure)) > MAX_REPEATS:
        raise LoreError(
            f"The key {_shown(key)} repeats too often.", "Use * or + instead of counts."
        )
    flags = 0
    for flag in match["flags"]:
        flags |= REGEX_FLAGS.get(flag, 0)
    try:
        pattern = regex.compile(
            re.sub(r"\\u\{([0-9a-fA-F]{1,6})\}", _wide_escape, match["pattern"]), flags
        )
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        why = " ".join(str(error).split())[:120]
        raise LoreError(
            f"The key {_shown(key)} is no valid regular expression ({why}).", "Correct it."
        ) from None
    if is_slow(pattern, match["pattern"]):
        raise LoreError(
            f"The key {_shown(key)} takes too long on some texts.", "Avoid repeats within repeats."
        )
    return pattern


def _wide_escape(match: "re.Match[str]") -> str:
    return f"\\U{int(match[1], 16):08x}"


def is_slow(pattern: "regex.Pattern[str]", source: str) -> bool:
    """Report whether an expression exceeds its time on repeats of its own characters that end
    differently.
    """
    letters = dict.fromkeys(
        [*"a 0", *(letter for letter in source if letter.isalnum()), "a ", "ab"]
    )
    begun = time.thread_time()
    for unit in list(letters)[:MAX_PROBES]:
        probe = (unit * PROBE_CHARS)[:PROBE_CHARS] + "\u2603"
        try:
            pattern.search(probe, timeout=MAX_PROBED_S)
        except TimeoutError:
            return True
        if time.thread_time() - begun > MAX_PROBED_S:
            return True
    return False


# -------------------------------------------------------------------------------------- the comment


def parse_rules(comment: str, heading: str) -> EntryRules:
    """Parse the YAML of a lore comment; `heading` names its section in errors. Raises
    `LoreError`.
    """
    where = (
        f"The lore comment under “{heading}”"
        if heading
        else "The lore comment before the first heading"
    )
    try:
        require_plain_yaml(comment)
        stated = yaml.load(comment, yaml.BaseLoader)  # nosec B506  # texts only: it makes no objects
    except (yaml.YAMLError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise LoreError(
            f"{where} is not YAML: {why}.", "Write lines such as `keys: lamp, lantern`."
        ) from None
    if not isinstance(stated, dict):
        raise LoreError(f"{where} has no names.", "Write lines such as `keys: lamp, lantern`.")
    fields = {
        " ".join(str(name).replace("_", " ").lower().split()): value
        for name, value in stated.items()
    }
    known = ("keys", *LOGICS, "always", "order", "priority", "match case", "part of words")
    if unknown := [name for name in fields if name not in known]:
        raise LoreError(
            f"{where} has an unknown name, {_shown(unknown[0])}.", f"Known: {', '.join(known)}."
        )
    logics = [logic for logic in LOGICS if logic in fields]
    if len(logics) > 1:
        raise LoreError(f"{where} has both `{logics[0]}` and `{logics[1]}`.", "Keep one of them.")
    rules = EntryRules(
        keys=_parse_keys(fields, "keys", where),
        secondary=_parse_keys(fields, logics[0], where) if logics else (),
        logic=logics[0] if logics else "and any",
        always=_parse_yes(fields, "always", where),
        order=_parse_number(fields, "order", where, default=DEFAULT_ORDER),
        priority=_parse_number(fields, "priority", where, default=0),
        match_case=_parse_yes(fields, "match case", where),
        part_of_words=_parse_yes(fields, "part of words", where),
    )
    if rules.secondary and not rules.keys:
        raise LoreError(
            f"{where} has `{rules.logic}` without `keys`.",
            "Name keys, of which one has to match first.",
        )
    for key in (*rules.keys, *rules.secondary):
        if REGEX_KEY_PATTERN.fullmatch(key):
            compile_regex(key)
    return rules


def format_rules(rules: EntryRules) -> str:
    """Format rules as the comment below a heading; empty for rules that say nothing."""
    lines: list[str] = []
    if rules.keys:
        lines.append(f"keys: [{', '.join(map(_format_key, rules.keys))}]")
    if rules.secondary:
        lines.append(f"{rules.logic}: [{', '.join(map(_format_key, rules.secondary))}]")
    for name, is_set in (
        ("always", rules.always),
        ("match case", rules.match_case),
        ("part of words", rules.part_of_words),
    ):
        if is_set:
            lines.append(f"{name}: yes")
    if rules.order != DEFAULT_ORDER:
        lines.append(f"order: {rules.order}")
    if rules.priority:
        lines.append(f"priority: {rules.priority}")
    return "\n".join(["<!-- lore", *lines, "-->"]) if lines else ""


def clean_key(key: str) -> str:
    """Return a key as one line, without characters that YAML cannot represent."""
    kept = (letter for letter in to_nfc(key) if unicodedata.category(letter) not in ("Cs", "Cn"))
    return " ".join("".join(" " if unicodedata.category(it) == "Cc" else it for it in kept).split())


def split_keys(text: str) -> list[str]:
    """Split keys at commas, but not within a regular expression."""
    return [key for key in map(clean_key, KEY_LIST_PATTERN.findall(text)) if key]


def require_plain_yaml(text: str, max_depth: int = 20) -> None:
    """Raise `ValueError` for YAML that a few bytes could make endless: aliases, and lists in lists in
    lists.
    """
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
            event, yaml.CollectionEndEvent
        )
        if depth > max_depth or isinstance(event, yaml.AliasEvent):
            raise ValueError("it has an alias, or is nested too deeply")


def _format_key(key: str) -> str:
    if PLAIN_KEY_PATTERN.fullmatch(key):
        return key
    return json.dumps(key, ensure_ascii=False).replace(
        ">", "\\u003e"
    )  # "-->" would end the comment


def _parse_keys(fields: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = fields.get(name, "")
    if isinstance(value, str):
        keys = split_keys(value)
    elif isinstance(value, list) and all(isinstance(key, str) for key in value):
        keys = [key for key in map(clean_key, value) if key]
    else:
        raise LoreError(f"{where}: {name} must be keys.", f"Write {name}: lamp, lantern")
    require_key_limits(keys, f"{where}: {name}")
    return tuple(dict.fromkeys(keys))


def require_key_limits(keys: Iterable[str], where: str) -> None:
    """Raise `LoreError` for too many keys of one section, or a key that is too long."""
    known = list(keys)
    if len(known) > MAX_KEYS:
        raise LoreError(
            f"{where} has {len(known)} keys; {MAX_KEYS} is the most.", "Keep those that matter."
        )
    if too_long := next((key for key in known if len(key) > MAX_KEY_CHARS), None):
        raise LoreError(
            f"{where} has a key of {len(too_long)} characters.", f"{MAX_KEY_CHARS} is the most."
        )


def _parse_yes(fields: Mapping[str, Any], name: str, where: str) -> bool:
    value = fields.get(name, "")
    if not isinstance(value, str) or value.lower() not in (*YES, *NO):
        raise LoreError(
            f"{where}: {name} must be yes or no.", f"Write {name}: yes, or leave the line out."
        )
    return value.lower() in YES


def _parse_number(fields: Mapping[str, Any], name: str, where: str, *, default: int) -> int:
    value = fields.get(name, str(default))
    if (
        not isinstance(value, str)
        or not re.fullmatch(r"[+-]?[0-9]{1,7}", value)
        or abs(int(value)) > MAX_NUMBER
    ):
        raise LoreError(f"{where}: {name} must be a whole number.", f"Write {name}: {default}")
    return int(value)


def iter_comments(html: str) -> Iterator[str]:
    """Yield the YAML of the lore comments in a block of HTML that begins with one."""
    if match := COMMENT_PATTERN.match(html):
        yield (
            textwrap.dedent(match[1])
            if match[1].lstrip(" \t").startswith("\n")
            else match[1].strip()
        )
        yield from iter_comments(html[match.end() :])


def count_regexes(rules: EntryRules) -> int:
    """Count the regular expressions among the keys."""
    return sum(bool(REGEX_KEY_PATTERN.fullmatch(key)) for key in (*rules.keys, *rules.secondary))


def _shown(key: str) -> str:
    return f"`{key if len(key) <= 60 else f'{key[:57]}…'}`"
