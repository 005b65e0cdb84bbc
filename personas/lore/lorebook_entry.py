"""Reads one entry of a lorebook of any program, and notes settings without effect here."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from personas.errors import LoreError
from personas.lore.entry_rules import (
    DEFAULT_ORDER,
    LOGICS,
    MAX_KEY_CHARS,
    MAX_KEYS,
    MAX_NUMBER,
    EntryRules,
    SecondaryLogic,
    clean_key,
    split_keys,
)
from personas.lore.key_regex import MAX_FILE_REGEXES, REGEX_KEY_PATTERN, compile_regex
from personas.lore.lorebook_json import (
    JsonObject,
    list_or_empty,
    object_or_empty,
    objects_of,
    one_line,
    text_or_empty,
)
from personas.lore.passages import MAX_PASSAGE_WORDS, count_words
from personas.prompt.macros import normalise_macros, report_macros, settle_macros
from personas.schemas.import_report import ImportItem, not_taken, other_meaning

ST_LOGICS: tuple[SecondaryLogic, ...] = ("and any", "not all", "not any", "and all")
"""By SillyTavern's number (`selectiveLogic`)."""
DECORATOR_PATTERN = re.compile(
    r"\A\s*@@@?(?P<name>[a-z_]+)[ \t]*(?P<value>[^\n]*)(?:\n|\Z)", re.IGNORECASE
)
"""A line at the head of a V3 entry; `@@@` is a fallback for the one above it."""
BARE_WORD_PATTERN = re.compile(r"[\w\s.'’&,-]+")
"""A key that is no regular expression, although its entry says so: SillyTavern says so of every
entry.
"""
MAX_TITLE_CHARS = 120
MAX_LABEL_CHARS = 40
MAX_NAMED_KEYS = 3
MAX_REFUSED_REGEXES = 20
"""Expressions of a book that are found unusable, some at the price of a time limit, before the rest
is not tried.
"""
INVALID_REGEX = "is no valid regular expression"
# Settings that make two searches for one message differ, such as a cooldown, have no effect: a
# training sample has to get the lore that the reply got.
IN_MESSAGE = "keys are looked for only in the message that is answered"
UNUSED_FIELDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("sticky", "cooldown", "delay"), "sticky, cooldown and delay do not count: each message is looked at by itself"),
    (("group", "inclusion_group"), "its group does not count: each entry that matches may be given"),
    (("preventRecursion", "prevent_recursion", "excludeRecursion", "exclude_recursion"), f"no recursion: {IN_MESSAGE}"),
    (("delayUntilRecursion", "delay_until_recursion"), f"no recursion: {IN_MESSAGE}"),
    (("scanDepth", "scan_depth", "searchRange"), IN_MESSAGE),
    (("automationId", "automation_id", "triggers", "outletName", "outlet_name"), "automation and outlets do not exist"),
    (("matchPersonaDescription", "match_persona_description", "matchCharacterDescription",
      "match_character_description", "matchCharacterPersonality", "match_character_personality", "matchScenario",
      "match_scenario", "matchCreatorNotes", "match_creator_notes", "matchCharacterDepthPrompt",
      "match_character_depth_prompt"), IN_MESSAGE),
    (("ignoreBudget", "ignore_budget"), "a prompt has limited room"),
    (("subcontext", "keyRelative", "nonStoryActivatable"), "contexts of NovelAI do not exist"),
)  # fmt: skip
"""Settings without effect, if they are set, and why."""
NOVELAI_DEFAULT_RANGE = 1000
DECORATORS_IN_USE = ("activate", "dont_activate", "additional_keys", "exclude_keys")
BACKSLASH_SLASH = r"\/"


NO_RULES = EntryRules()


@dataclass(frozen=True)
class LorebookEntry:
    """One entry. `topic` is its name or its first key; `unused` is the reason why it is not used,
    if any.
    """

    number: int
    topic: str
    text: str
    unused: str = ""
    rules: EntryRules = NO_RULES
    notes: tuple[ImportItem, ...] = ()

    @property
    def label(self) -> str:
        """The entry's number, from 1, with its topic."""
        label = f"entry {self.number + 1}"
        if self.topic:
            label += f" “{self.topic[:MAX_LABEL_CHARS]}”"
        return label


@dataclass
class BookState:
    """What the entries of a book share while they are read: NovelAI's categories, and the number of
    expressions.
    """

    disabled_categories: set[str]
    regexes: int = 0
    refused: int = 0

    def key_fault(self, key: str) -> str:
        """Return why a key cannot be used; empty for a good one."""
        if not REGEX_KEY_PATTERN.fullmatch(key):
            return _key_fault(key)
        self.regexes += 1
        if self.regexes > MAX_FILE_REGEXES or self.refused >= MAX_REFUSED_REGEXES:
            return (
                f"too many regular expressions: {MAX_FILE_REGEXES} are tried, or until "
                f"{MAX_REFUSED_REGEXES} fail"
            )
        why = _key_fault(key)
        self.refused += bool(why)
        return why


class EntryReader:
    """One entry while it is read."""

    def __init__(self, number: int, entry: JsonObject, kind: str, book: "BookState") -> None:
        self._number = number
        self._entry = entry
        self._kind = kind
        self._book = book
        self._extensions = {
            **object_or_empty(entry.get("extentions")),  # RisuAI's spelling
            **object_or_empty(entry.get("extensions")),
        }
        self._name = ""
        self._decorators: dict[str, str] = {}
        self._notes: list[tuple[str, str]] = []  # parts that are not taken, and why

    def read(self, name: str, guest: str) -> LorebookEntry:
        self._name = name
        raw = self._take_decorators(text_or_empty(self._first("content", "text", "entry")))
        text = _fill_names(raw, name, guest)
        rules = self._rules()
        topic = one_line(_fill_names(self._written_topic(rules), name, guest))
        entry = LorebookEntry(
            self._number,
            topic[:MAX_TITLE_CHARS],
            text,
            unused=self._unused(text),
            rules=rules,
        )
        if entry.unused:
            return entry
        return replace(entry, notes=tuple(self._all_notes(entry, raw, rules)))

    def _written_topic(self, rules: EntryRules) -> str:
        """Return the entry's name, else its first key that is no expression; empty if there is
        none.
        """
        for setting in ("name", "displayName", "comment"):
            topic = self._first(setting)
            if isinstance(topic, str) and topic.strip():
                return topic
        for key in rules.keys:
            if key.strip() and not REGEX_KEY_PATTERN.fullmatch(key):
                return key
        return ""

    def _first(self, *names: str) -> Any:
        """Return the first of these settings that the entry or its extensions have; None if there
        is none.
        """
        for holder in (self._entry, self._extensions):
            for name in names:
                if holder.get(name) is not None:
                    return holder[name]
        return None

    def _take_decorators(self, text: str) -> str:
        while match := DECORATOR_PATTERN.match(text):
            name = match["name"].lower()
            self._decorators.setdefault(name, match["value"].strip())
            if name not in DECORATORS_IN_USE:
                self._note(f"@@{name[:MAX_LABEL_CHARS]}", "this decorator has no effect here")
            text = text[match.end() :]
        return text.strip()

    def _note(self, part: str, why: str) -> None:
        self._notes.append((part, why))

    def _unused(self, text: str) -> str:
        if not self._entry:
            return "it is no entry"
        if self._first("mode") == "folder":
            return "a folder"
        if self._first("enabled") is False or self._first("disable", "disabled") is True:
            return "disabled in the card" if self._kind == "card" else "disabled in the file"
        if str(self._entry.get("category") or "") in self._book.disabled_categories:
            return "its category is disabled in the file"
        if "dont_activate" in self._decorators:
            return "@@dont_activate: never given"
        if self._probability() == 0:
            return "its probability is 0"
        return "" if text else "no text"

    def _probability(self) -> float:
        """Return the probability in percent; 100 if it is not used."""
        if self._first("useProbability") is False:
            return 100.0
        return _bounded(self._first("probability", "activationPercent"), 100.0)

    def _rules(self) -> EntryRules:
        match_case = self._first("case_sensitive", "caseSensitive", "risu_case_sensitive") is True
        listed = self._first("keys", "key", "keywords")
        secondary, logic = self._secondary(match_case)
        parts = []
        if self._kind == "novelai" and len(list_or_empty(listed)) == 1:
            parts = _several_words(listed[0])
        if len(parts) > 1 and not secondary:  # a key alone that asks for several words
            listed = parts[:1]
            secondary = self._keys(parts[1:], match_case)
            logic = "and all"
        keys = self._keys(listed, match_case)
        if not keys:  # secondary keys only limit the others
            secondary = ()
        if not secondary:
            logic = "and any"
        order = self._first("insertion_order", "order", "insertorder", "weight")
        return EntryRules(
            keys=keys,
            secondary=secondary,
            logic=logic,
            always=self._is_always(),
            order=int(_bounded(order, DEFAULT_ORDER)),
            priority=int(_bounded(self._priority(), 0)),
            match_case=match_case,
            part_of_words=self._first("matchWholeWords", "match_whole_words") is False,
        )

    def _is_always(self) -> bool:
        is_stated = self._first("constant", "alwaysActive", "forceActivation") is True
        return is_stated or "activate" in self._decorators

    def _priority(self) -> Any:
        return object_or_empty(self._entry.get("contextConfig")).get(
            "budgetPriority", self._first("priority")
        )

    def _secondary(self, match_case: bool) -> tuple[tuple[str, ...], SecondaryLogic]:
        keys = self._keys(self._first("secondary_keys", "keysecondary", "secondkey"), match_case)
        excluded = self._keys(
            self._decorators.get("exclude_keys") or self._first("keyanti"), match_case
        )
        added = self._keys(self._decorators.get("additional_keys"), match_case)
        if keys and self._first("selective") is False:
            self._note("secondary keys of", "the entry is not selective")
            keys = ()
        keys = keys or added
        if keys and excluded:
            self._note("excluding keys of", "an entry has one kind of secondary keys here")
        if excluded and not keys:
            return excluded, "not any"
        number = self._first("selectiveLogic")
        if isinstance(number, int) and 0 <= number < len(LOGICS):
            return keys, ST_LOGICS[number]
        return keys, "and any"

    def _keys(self, value: Any, match_case: bool) -> tuple[str, ...]:
        """Return the usable keys of a list, or of a text with commas; notes those that are not."""
        if isinstance(value, str):
            texts = split_keys(value)
        else:
            texts = [text for text in list_or_empty(value) if isinstance(text, str)]
        keys: list[str] = []
        faults: dict[str, list[str]] = {}
        for text in texts[:MAX_KEYS]:
            if not (key := clean_key(text)):
                continue
            usable, why = self._usable_key(key, match_case)
            if why:
                faults.setdefault(why, []).append(key[:MAX_LABEL_CHARS])
            else:
                keys.append(usable)
        for why, named in faults.items():
            shown = ", ".join(named[:MAX_NAMED_KEYS])
            if len(named) > MAX_NAMED_KEYS:
                shown += f" and {len(named) - MAX_NAMED_KEYS} more"
            self._note(f"key {shown} of", why)
        if len(texts) > MAX_KEYS:
            self._note(f"{len(texts) - MAX_KEYS} keys of", f"an entry may have {MAX_KEYS}")
        return tuple(dict.fromkeys(keys))

    def _usable_key(self, key: str, match_case: bool) -> tuple[str, str]:
        """Return a key as it is looked for, and why it cannot be used; empty for a good one."""
        if self._first("use_regex", "useRegex") is not True:
            key = self._plain_key(key)
            return key, self._book.key_fault(key)
        written = _as_regex(key, match_case)
        why = self._book.key_fault(written)
        if why.startswith(INVALID_REGEX) and written != key:  # a word with signs, such as C++
            return key, ""
        return written, why

    def _plain_key(self, key: str) -> str:
        """Return a key with names filled in; one of NovelAI's that asks for several words, as an
        expression.
        """
        if REGEX_KEY_PATTERN.fullmatch(key):
            return key
        key = normalise_macros(key).replace("{{char}}", self._name)
        parts = _several_words(key)
        if self._kind != "novelai" or len(parts) < 2:
            return key
        pattern = ""
        for part in parts:
            escaped = re.escape(part).replace("/", BACKSLASH_SLASH)
            pattern += rf"(?=[\s\S]*(?<!\w){escaped}(?!\w))"
        return f"/^{pattern}/i"

    def _all_notes(self, entry: LorebookEntry, raw: str, rules: EntryRules) -> Iterator[ImportItem]:
        for part, why in self._notes:
            joined = part if part.endswith(" of") else f"{part} in"
            yield not_taken(f"{joined} {entry.label}", why)
        if not rules.keys and not rules.always:
            yield other_meaning(entry.label, "it has no keys: found by its words and meaning")
        if self._probability() < 100:
            yield other_meaning(
                entry.label, "its probability does not count: given whenever its keys match"
            )
        for names, why in UNUSED_FIELDS:
            if any(self._is_set(name) for name in names):
                yield not_taken(f"a setting of {entry.label}", why)
        character_filter = object_or_empty(self._first("characterFilter", "character_filter"))
        if character_filter.get("names") or character_filter.get("tags"):
            yield not_taken(
                f"the character filter of {entry.label}", "lore belongs to a persona here"
            )
        if self._kind == "novelai":
            yield from self._novelai_notes(entry.label)
        if count_words(entry.text) > MAX_PASSAGE_WORDS:
            yield other_meaning(
                entry.label,
                f"divided into passages of {MAX_PASSAGE_WORDS} words; a prompt gets the two that "
                "match best",
            )
        if "{{user}}" in settle_macros(raw, "").text:
            yield other_meaning(f"{{{{user}}}} in {entry.label}", "the same word for all members")
        yield from report_macros(entry.label, raw)

    def _is_set(self, name: str) -> bool:
        value = self._first(name)
        if name in ("scanDepth", "scan_depth"):
            return value not in (None, 0, 1)
        if name == "searchRange":
            return value not in (None, NOVELAI_DEFAULT_RANGE)
        return value not in (None, False, 0, "", [], {})

    def _novelai_notes(self, label: str) -> Iterator[ImportItem]:
        config = object_or_empty(self._entry.get("contextConfig"))
        if config.get("prefix") or config.get("suffix") not in (None, "", "\n"):
            yield not_taken(
                f"prefix and suffix of {label}", "lore stands in brackets of its heading"
            )
        groups = objects_of(self._entry.get("loreBiasGroups"))
        if any(group.get("phrases") for group in groups):
            yield not_taken(f"phrase bias of {label}", "the model's words are not weighted")


def _key_fault(key: str) -> str:
    """Return why a key cannot be used; empty for a good one."""
    if "{{user}}" in key:
        return "keys name no members"
    if len(key) > MAX_KEY_CHARS:
        return f"it has more than {MAX_KEY_CHARS} characters"
    if not REGEX_KEY_PATTERN.fullmatch(key):
        return ""
    try:
        compile_regex(key)
    except LoreError as error:
        return error.message.partition("` ")[2].rstrip(".")
    return ""


def _as_regex(key: str, match_case: bool) -> str:
    """Return a key of an entry of regular expressions in slashes; a plain word stays one."""
    if REGEX_KEY_PATTERN.fullmatch(key) or BARE_WORD_PATTERN.fullmatch(key):
        return key
    escaped = re.sub(r"(?<!\\)/", r"\/", key)
    flags = "" if match_case else "i"
    return f"/{escaped}/{flags}"


def _several_words(key: object) -> list[str]:
    """Return the words that a key of NovelAI asks for together: `mill & flood`."""
    if not isinstance(key, str) or REGEX_KEY_PATTERN.fullmatch(key):
        return []
    return [part.strip() for part in key.split("&") if part.strip()]


def _fill_names(text: str, name: str, guest: str) -> str:
    # JSON may have lone surrogates, which UTF-8 cannot represent.
    text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    settled = settle_macros(text, name, keeps_times=True).text
    settled = settled.replace("{{original}}", "")
    return settled.replace("{{char}}", name).replace("{{user}}", guest).strip()


def _bounded(value: Any, default: float) -> float:
    """Return a number within limits; the default for anything else, such as NaN, which Python's
    JSON allows.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return default
    return float(max(-MAX_NUMBER, min(MAX_NUMBER, value)))
