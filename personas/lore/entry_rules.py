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
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import yaml

from personas.errors import LoreError
from personas.lore.key_regex import REGEX_KEY_PATTERN, compile_regex, shorten_key
from personas.schemas.chat import to_nfc

SecondaryLogic = Literal["and any", "and all", "not any", "not all"]
LOGICS: tuple[SecondaryLogic, ...] = get_args(SecondaryLogic)
COMMENT_PATTERN = re.compile(
    r"\A\s*<!--\s*lore\b(?=[ \t]*+\n|\s++[a-z][a-z ]*:)(.*?)-->", re.DOTALL | re.IGNORECASE
)
KEY_LIST_PATTERN = re.compile(r"\s*(/(?:\\.|[^/\\\n])+/[a-z]*(?=\s*(?:,|$))|[^,]+)")
PLAIN_KEY_PATTERN = re.compile(r"[^\W_](?:[\w .'’-]*\w)?")
"""Keys that YAML needs no quotes for, within a list."""
MAX_KEYS = 100
"""Keys of one section, primary and secondary ones each."""
MAX_KEY_CHARS = 200
MAX_ALWAYS_WORDS = 180
"""Room in a prompt for passages that are given with every message, besides those that match."""
YES = ("yes", "true", "on", "1")
NO = ("no", "false", "off", "0", "")
DEFAULT_ORDER = 100
MAX_NUMBER = 10**6
MAX_YAML_DEPTH = 20
"""Lists and mappings within one another."""


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


def parse_rules(comment: str, heading: str) -> EntryRules:
    """Parse the YAML of a lore comment; `heading` names its section in errors. Raises
    `LoreError`.
    """
    where = "The lore comment before the first heading"
    if heading:
        where = f"The lore comment under “{heading}”"
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
    fields = {}
    for name, value in stated.items():
        words = str(name).replace("_", " ").lower().split()
        fields[" ".join(words)] = value
    known = ("keys", *LOGICS, "always", "order", "priority", "match case", "part of words")
    if unknown := [name for name in fields if name not in known]:
        raise LoreError(
            f"{where} has an unknown name, {shorten_key(unknown[0])}.",
            f"Known: {', '.join(known)}.",
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
    if not lines:
        return ""
    return "\n".join(["<!-- lore", *lines, "-->"])


def clean_key(key: str) -> str:
    """Return a key as one line, without characters that YAML cannot represent."""
    letters = []
    for letter in to_nfc(key):
        match unicodedata.category(letter):
            case "Cs" | "Cn":  # surrogates, and code points without a character
                continue
            case "Cc":  # control characters, such as line feeds
                letters.append(" ")
            case _:
                letters.append(letter)
    return " ".join("".join(letters).split())


def split_keys(text: str) -> list[str]:
    """Split keys at commas, but not within a regular expression."""
    return [key for key in map(clean_key, KEY_LIST_PATTERN.findall(text)) if key]


def require_plain_yaml(text: str) -> None:
    """Raise `ValueError` for YAML that a few bytes could make endless: aliases, and lists in lists in
    lists.
    """
    depth = 0
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for event in yaml.parse(text, loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_YAML_DEPTH or isinstance(event, yaml.AliasEvent):
            raise ValueError("it has an alias, or is nested too deeply")


def _format_key(key: str) -> str:
    if PLAIN_KEY_PATTERN.fullmatch(key):
        return key
    quoted = json.dumps(key, ensure_ascii=False)
    return quoted.replace(">", "\\u003e")  # "-->" would end the comment


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
    for key in known:
        if len(key) > MAX_KEY_CHARS:
            raise LoreError(
                f"{where} has a key of {len(key)} characters.", f"{MAX_KEY_CHARS} is the most."
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
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,7}", value):
        number = int(value)
        if abs(number) <= MAX_NUMBER:
            return number
    raise LoreError(f"{where}: {name} must be a whole number.", f"Write {name}: {default}")


def iter_comments(html: str) -> Iterator[str]:
    """Yield the YAML of the lore comments in a block of HTML that begins with one."""
    while match := COMMENT_PATTERN.match(html):
        comment = match[1]
        begins_on_own_line = comment.lstrip(" \t").startswith("\n")
        yield textwrap.dedent(comment) if begins_on_own_line else comment.strip()
        html = html[match.end() :]


def count_regexes(rules: EntryRules) -> int:
    """Count the regular expressions among the keys."""
    return sum(bool(REGEX_KEY_PATTERN.fullmatch(key)) for key in (*rules.keys, *rules.secondary))
