"""Reads lorebooks of other programs: SillyTavern's world info, character books, NovelAI, Agnai,
RisuAI and KoboldAI.

Formats: `character_book` of the card specifications V2 and V3, with the decorators and the lorebook
file of V3; SillyTavern's exported world info (`entries` by number); NovelAI's `.lorebook`
(`lorebookVersion`); Agnai's memory book (`kind: memory`); RisuAI's lorebook (`type: risu`);
KoboldAI's `worldinfo`. An entry becomes a section of markdown with a lore comment
(`personas.lore.entry_rules`), and the report says what of it has no effect here.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from personas.errors import LoreError
from personas.lore.entry_rules import (
    DEFAULT_ORDER,
    LOGICS,
    MAX_ALWAYS_WORDS,
    MAX_FILE_REGEXES,
    MAX_KEY_CHARS,
    MAX_KEYS,
    MAX_NUMBER,
    REGEX_KEY_PATTERN,
    EntryRules,
    SecondaryLogic,
    clean_key,
    compile_regex,
    format_rules,
    split_keys,
)
from personas.lore.passages import MAX_PASSAGE_WORDS, count_words
from personas.prompt.macros import normalise_macros, report_macros, settle_macros
from personas.schemas.import_report import ImportItem, ImportReport, as_is, not_taken, other_meaning

JsonObject = dict[str, Any]
MAX_LOREBOOK_BYTES = 16 * 2**20
MAX_ENTRIES = 3000
ST_LOGICS: tuple[SecondaryLogic, ...] = ("and any", "not all", "not any", "and all")
"""By SillyTavern's number (`selectiveLogic`)."""
LOREBOOK_SUFFIXES = (".json", ".lorebook")
NAMES = {
    "sillytavern": "SillyTavern's world info",
    "novelai": "a lorebook of NovelAI",
    "agnai": "a memory book of Agnai",
    "risu": "a lorebook of RisuAI",
    "kobold": "world info of KoboldAI",
    "v3": "a lorebook of the card specification V3",
    "book": "a character book",
    "card": "the character book of a card",
}
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
LORE_PLACE = "lore goes with the message that is answered"
IN_MESSAGE = "keys are looked for only in the message that is answered"
WHOLE_WORDS = "match whole words, in the plural too; `part of words: yes` matches parts of words"
ALSO_BY_MEANING = "also found by their words and meaning; those with secondary keys only by keys"
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
        return (
            f"entry {self.number + 1} “{self.topic[:MAX_LABEL_CHARS]}”"
            if self.topic
            else f"entry {self.number + 1}"
        )


@dataclass(frozen=True)
class Lorebook:
    """The entries of a lorebook in its order. `kind` is a key of `NAMES`; `notes` are about all
    entries.
    """

    kind: str
    title: str
    entries: tuple[LorebookEntry, ...]
    notes: tuple[ImportItem, ...] = ()

    @property
    def used(self) -> list[LorebookEntry]:
        return [entry for entry in self.entries if not entry.unused]

    def report(self) -> ImportReport:
        """Say what becomes of each entry, and of the settings."""
        return ImportReport.of(self._items())

    def _items(self) -> Iterator[ImportItem]:
        crowded = _without_room(self.used)
        for entry in self.entries:
            notes = list(entry.notes)
            if entry.number in crowded:
                notes.append(other_meaning(entry.label, "always given only as far as it has room"))
            if entry.unused:
                yield not_taken(entry.label, entry.unused)
            elif not notes:
                yield as_is(entry.label)
            else:
                yield from notes
        yield from self.notes


def _without_room(entries: Sequence[LorebookEntry]) -> set[int]:
    """Return the numbers of entries that are to be given always, but have no room beside the
    others.
    """
    always = [entry for entry in entries if entry.rules.always]
    always.sort(key=lambda entry: (-entry.rules.priority, -entry.rules.order))
    room = MAX_ALWAYS_WORDS
    crowded = set()
    for entry in always:
        words = count_words(entry.text)
        if words > room:
            crowded.add(entry.number)
        room -= min(words, room)
    return crowded


# ------------------------------------------------------------------------------------------ the
# file


def find_lorebook_kind(document: object) -> str:
    """Return the kind of a lorebook, a key of `NAMES`; empty for anything else, such as a card."""
    if isinstance(document, list):
        return "risu" if _looks_like_entries(document) else ""
    if not isinstance(document, dict):
        return ""
    if document.get("type") == "risu" and isinstance(document.get("data"), list):
        return "risu"
    if document.get("spec") == "lorebook_v3" and isinstance(document.get("data"), dict):
        return "v3"
    if _looks_like_entries(document.get("worldinfo")):
        return "kobold"
    entries = document.get("entries")
    if "lorebookVersion" in document and isinstance(entries, list):
        return "novelai"
    if document.get("kind") == "memory" and isinstance(entries, list):
        return "agnai"
    if isinstance(entries, dict) and (not entries or _looks_like_entries([*entries.values()])):
        return "sillytavern"
    return "book" if _looks_like_entries(entries) else ""


def known_lorebooks() -> str:
    """List the kinds of lorebook files in words."""
    return ", ".join(name for kind, name in NAMES.items() if kind != "card")


def _looks_like_entries(entries: object) -> bool:
    if not (isinstance(entries, list) and entries and isinstance(entries[0], dict)):
        return False
    first = entries[0].keys()
    return bool(first & {"key", "keys", "keywords"}) and bool(first & {"content", "entry", "text"})


def parse_lorebook(data: bytes, name: str) -> object | None:
    """Return the JSON of a lorebook file; None if the file is not JSON at all. Raises `LoreError`.

    JSON that is no lorebook is refused: it is not markdown either.
    """
    is_named = name.lower().endswith(LOREBOOK_SUFFIXES)
    if not is_named and data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] not in (b"{", b"["):
        return None
    if len(data) > MAX_LOREBOOK_BYTES:
        raise LoreError(
            f"{name} has more than {MAX_LOREBOOK_BYTES // 2**20} MiB.", "Divide the lorebook."
        )
    try:
        document: object = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if not is_named:
            return None  # markdown may begin with a bracket
        why = " ".join(str(error).split())[:100]
        raise LoreError(
            f"{name} is not valid JSON ({why}).", "Export the lorebook again."
        ) from None
    if find_lorebook_kind(document):
        return document
    if isinstance(document, dict) and ("spec" in document or "first_mes" in document):
        raise LoreError(
            f"{name} is a character card, not a lorebook.",
            "Import the card: its character book is read.",
        )
    raise LoreError(
        f"{name} is JSON, but no lorebook.",
        f"Lore is markdown, or a lorebook: {known_lorebooks()}.",
    )


def read_lorebook(document: object, name: str, guest: str) -> Lorebook:
    """Read a lorebook of any known kind. `name` stands for `{{char}}`, `guest` for `{{user}}`.
    Raises `LoreError`.
    """
    kind = find_lorebook_kind(document)
    if not kind:
        raise LoreError("This is no lorebook.", f"Known: {known_lorebooks()}.")
    outer: JsonObject = document if isinstance(document, dict) else {}
    book: JsonObject = outer["data"] if kind == "v3" else outer
    found = {"risu": outer.get("data", document), "kobold": outer.get("worldinfo")}.get(
        kind, book.get("entries")
    )
    return read_book(found, book, kind, name, guest)


def read_book(found: object, book: Mapping[str, Any], kind: str, name: str, guest: str) -> Lorebook:
    """Read the entries of a lorebook, a list or an object by number; `book` has the settings of all
    of them.
    """
    listed = (
        list(found.values())
        if isinstance(found, dict)
        else found
        if isinstance(found, list)
        else []
    )
    state = _BookState(
        {
            str(one.get("id"))
            for one in _objects(book.get("categories"))
            if one.get("enabled") is False
        }
    )
    entries = [
        _Entry(number, entry if isinstance(entry, dict) else {}, kind, state).read(name, guest)
        for number, entry in enumerate(listed[:MAX_ENTRIES])
    ]
    notes = list(_book_notes(entries, _objects(listed), book))
    if len(listed) > MAX_ENTRIES:
        notes.append(not_taken(f"entries after the first {MAX_ENTRIES}", "there are too many"))
    return Lorebook(kind, _line(str(book.get("name") or "")), tuple(entries), tuple(notes))


def _book_notes(
    entries: Sequence[LorebookEntry], raw: Sequence[JsonObject], book: Mapping[str, Any]
) -> Iterator[ImportItem]:
    used = [entry for entry in entries if not entry.unused]
    keyed = [entry.rules for entry in used if entry.rules.keys]
    if any(not rules.part_of_words for rules in keyed):
        yield other_meaning("keys", WHOLE_WORDS)
    if keyed:
        yield other_meaning("entries with keys", ALSO_BY_MEANING)
    if any(_is_placed(entry) for entry in raw):
        yield not_taken("position, depth and role", LORE_PLACE)
    if book.get("recursive_scanning"):
        yield not_taken("recursive scanning", IN_MESSAGE)
    if book.get("scan_depth") not in (None, 0, 1):
        yield not_taken("scan depth", IN_MESSAGE)
    if book.get("token_budget"):
        yield not_taken(
            "token budget",
            f"a prompt has room for two passages and {MAX_ALWAYS_WORDS} words that are always "
            "given",
        )
    if any(entry.rules.always for entry in used):
        yield other_meaning(
            "entries that are always given",
            f"as many as fit {MAX_ALWAYS_WORDS} words, besides the others",
        )


def _is_placed(entry: Mapping[str, Any]) -> bool:
    """Report whether an entry states another place than the usual one."""
    extensions = _object(entry.get("extensions"))
    positions = (entry.get("position"), extensions.get("position"))
    return any(position not in (None, 0, "", "before_char") for position in positions) or bool(
        entry.get("role") or extensions.get("role")
    )


# ------------------------------------------------------------------------------------------ an
# entry


@dataclass
class _BookState:
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


class _Entry:
    """One entry while it is read."""

    def __init__(self, number: int, entry: JsonObject, kind: str, book: "_BookState") -> None:
        self._number = number
        self._entry = entry
        self._kind = kind
        self._book = book
        self._extensions = {
            **_object(entry.get("extentions")),
            **_object(entry.get("extensions")),
        }  # RisuAI's spelling
        self._name = ""
        self._decorators: dict[str, str] = {}
        self._notes: list[tuple[str, str, str]] = []  # outcome, what ("" for the entry), why

    def read(self, name: str, guest: str) -> LorebookEntry:
        self._name = name
        raw = self._take_decorators(_text(self._first("content", "text", "entry")))
        text = _fill_names(raw, name, guest)
        rules = self._rules()
        topics = [
            self._first("name"),
            self._first("displayName"),
            self._first("comment"),
            *_plain_keys(rules),
        ]
        topic = next(
            (
                _line(_fill_names(it, name, guest))
                for it in topics
                if isinstance(it, str) and it.strip()
            ),
            "",
        )
        topic = topic[:MAX_TITLE_CHARS]
        entry = LorebookEntry(self._number, topic, text, self._unused(text), rules)
        notes = [] if entry.unused else list(self._all_notes(entry, raw, rules))
        return LorebookEntry(self._number, topic, text, entry.unused, rules, tuple(notes))

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
                self._notes.append(
                    (
                        "not_taken",
                        f"@@{name[:MAX_LABEL_CHARS]}",
                        "this decorator has no effect here",
                    )
                )
            text = text[match.end() :]
        return text.strip()

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
        value = self._first("probability", "activationPercent")
        return 100.0 if self._first("useProbability") is False else _bounded(value, 100.0)

    def _rules(self) -> EntryRules:
        match_case = self._first("case_sensitive", "caseSensitive", "risu_case_sensitive") is True
        listed = self._first("keys", "key", "keywords")
        secondary, logic = self._secondary(match_case)
        parts = (
            _several_words(listed[0])
            if self._kind == "novelai" and _list(listed) and len(listed) == 1
            else []
        )
        if len(parts) > 1 and not secondary:  # a key alone that asks for several words
            listed = parts[:1]
            secondary = self._keys(parts[1:], match_case)
            logic = "and all"
        keys = self._keys(listed, match_case)
        return EntryRules(
            keys=keys,
            secondary=secondary if keys else (),
            logic=logic if keys and secondary else "and any",
            always=self._is_always(),
            order=_whole_number(
                self._first("insertion_order", "order", "insertorder", "weight"), DEFAULT_ORDER
            ),
            priority=_whole_number(self._priority(), 0),
            match_case=match_case,
            part_of_words=self._first("matchWholeWords", "match_whole_words") is False,
        )

    def _is_always(self) -> bool:
        is_stated = self._first("constant", "alwaysActive", "forceActivation") is True
        return is_stated or "activate" in self._decorators

    def _priority(self) -> Any:
        return _object(self._entry.get("contextConfig")).get(
            "budgetPriority", self._first("priority")
        )

    def _secondary(self, match_case: bool) -> tuple[tuple[str, ...], SecondaryLogic]:
        keys = self._keys(self._first("secondary_keys", "keysecondary", "secondkey"), match_case)
        excluded = self._keys(
            self._decorators.get("exclude_keys") or self._first("keyanti"), match_case
        )
        added = self._keys(self._decorators.get("additional_keys"), match_case)
        if keys and self._first("selective") is False:
            self._notes.append(("not_taken", "secondary keys of", "the entry is not selective"))
            keys = ()
        keys = keys or added
        if keys and excluded:
            self._notes.append(
                ("not_taken", "excluding keys of", "an entry has one kind of secondary keys here")
            )
        if excluded and not keys:
            return excluded, "not any"
        number = self._first("selectiveLogic")
        known = isinstance(number, int) and 0 <= number < len(LOGICS)
        return keys, ST_LOGICS[number] if known else "and any"

    def _keys(self, value: Any, match_case: bool) -> tuple[str, ...]:
        """Return the usable keys of a list, or of a text with commas; notes those that are not."""
        texts = (
            split_keys(value)
            if isinstance(value, str)
            else [it for it in _list(value) if isinstance(it, str)]
        )
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
            more = f" and {len(named) - MAX_NAMED_KEYS} more" if len(named) > MAX_NAMED_KEYS else ""
            self._notes.append(
                ("not_taken", f"key {', '.join(named[:MAX_NAMED_KEYS])}{more} of", why)
            )
        if len(texts) > MAX_KEYS:
            self._notes.append(
                ("not_taken", f"{len(texts) - MAX_KEYS} keys of", f"an entry may have {MAX_KEYS}")
            )
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
        words = (
            rf"(?=[\s\S]*(?<!\w){re.escape(part).replace('/', BACKSLASH_SLASH)}(?!\w))"
            for part in parts
        )
        return f"/^{''.join(words)}/i"

    def _all_notes(self, entry: LorebookEntry, raw: str, rules: EntryRules) -> Iterator[ImportItem]:
        for outcome, what, why in self._notes:
            label = f"{what} {entry.label}" if what.endswith(" of") else f"{what} in {entry.label}"
            yield not_taken(label, why) if outcome == "not_taken" else other_meaning(label, why)
        if not rules.keys and not rules.always:
            yield other_meaning(entry.label, "it has no keys: found by its words and meaning")
        if self._probability() < 100:
            yield other_meaning(
                entry.label, "its probability does not count: given whenever its keys match"
            )
        for names, why in UNUSED_FIELDS:
            if any(self._is_set(name) for name in names):
                yield not_taken(f"a setting of {entry.label}", why)
        character_filter = _object(self._first("characterFilter", "character_filter"))
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
        config = _object(self._entry.get("contextConfig"))
        if config.get("prefix") or config.get("suffix") not in (None, "", "\n"):
            yield not_taken(
                f"prefix and suffix of {label}", "lore stands in brackets of its heading"
            )
        biases = [
            bias for bias in _objects(self._entry.get("loreBiasGroups")) if bias.get("phrases")
        ]
        if biases:
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
    return f"/{escaped}/" if match_case else f"/{escaped}/i"


def _several_words(key: object) -> list[str]:
    """Return the words that a key of NovelAI asks for together: `mill & flood`."""
    if not isinstance(key, str) or REGEX_KEY_PATTERN.fullmatch(key):
        return []
    return [part.strip() for part in key.split("&") if part.strip()]


def _plain_keys(rules: EntryRules) -> list[str]:
    return [key for key in rules.keys if not REGEX_KEY_PATTERN.fullmatch(key)]


def _fill_names(text: str, name: str, guest: str) -> str:
    settled = settle_macros(_without_surrogates(text), name).text
    return (
        settled.replace("{{original}}", "")
        .replace("{{char}}", name)
        .replace("{{user}}", guest)
        .strip()
    )


def _without_surrogates(text: str) -> str:
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _whole_number(value: Any, default: int) -> int:
    return int(_bounded(value, default))


def _bounded(value: Any, default: float) -> float:
    """Return a number within limits; the default for anything else, such as NaN, which Python's
    JSON allows.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return default
    return float(max(-MAX_NUMBER, min(MAX_NUMBER, value)))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[JsonObject]:
    return [one for one in _list(value) if isinstance(one, dict)]


def _line(text: str) -> str:
    return " ".join(text.split())


# ------------------------------------------------------------------------------------------
# markdown


def lorebook_as_markdown(
    entries: Iterable[LorebookEntry], title: str, max_bytes: int = 2**30
) -> list[str]:
    """Convert usable entries to markdown files of at most `max_bytes`, a section each; longer
    entries are cut.
    """
    first = f"# {_line(title)}\n"
    files: list[str] = []
    for entry in (entry for entry in entries if not entry.unused):
        comment = format_rules(entry.rules)
        head = f"\n## {entry.topic or _line(title)}\n\n"
        head += f"{comment}\n\n" if comment else ""
        section = (
            head + _section_text(entry.text, max_bytes - len(f"{first}{head}\n".encode())) + "\n"
        )
        if files and len((files[-1] + section).encode()) <= max_bytes:
            files[-1] += section
        else:
            files.append(first + section)
    return files


def _section_text(text: str, max_bytes: int) -> str:
    """Return an entry's text without what would divide the markdown: headings and comments; cut to
    a size.
    """
    plain = re.sub(r"^#{1,6}\s*", "", text, flags=re.MULTILINE).replace("<!--", "<! --")
    return plain.encode()[: max(0, max_bytes)].decode(errors="ignore")


def describe_uses(entries: Iterable[LorebookEntry]) -> str:
    """Say in words how many entries are given by their keys, always, or only by their words and
    meaning.
    """
    used = [entry for entry in entries if not entry.unused]
    counts = Counter(
        "always" if it.rules.always else "keys" if it.rules.keys else "meaning" for it in used
    )
    phrases = {"keys": "by keys and meaning", "always": "always given", "meaning": "by meaning"}
    entries_of = {kind: "entry" if number == 1 else "entries" for kind, number in counts.items()}
    return ", ".join(
        f"{counts[kind]} {entries_of[kind]} {text}"
        for kind, text in phrases.items()
        if counts[kind]
    )
