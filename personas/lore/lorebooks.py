"""Reads lorebooks of other programs: SillyTavern's world info, character books, NovelAI, Agnai,
RisuAI and KoboldAI.

Formats: `character_book` of the card specifications V2 and V3, with the decorators and the lorebook
file of V3; SillyTavern's exported world info (`entries` by number); NovelAI's `.lorebook`
(`lorebookVersion`); Agnai's memory book (`kind: memory`); RisuAI's lorebook (`type: risu`);
KoboldAI's `worldinfo`. An entry becomes a section of markdown with a lore comment
(`personas.lore.entry_rules`), and the report names settings without effect here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from personas.errors import LoreError
from personas.gettext_marker import gettext_noop
from personas.lore.entry_rules import MAX_ALWAYS_WORDS
from personas.lore.lorebook_entry import IN_MESSAGE, BookState, EntryReader, LorebookEntry
from personas.lore.lorebook_json import (
    JsonObject,
    list_or_empty,
    object_or_empty,
    objects_of,
    one_line,
)
from personas.lore.passages import count_words
from personas.schemas.import_report import ImportItem, ImportReport, as_is, not_taken, other_meaning

MAX_LOREBOOK_BYTES = 16 * 2**20
MAX_ENTRIES = 3000
LOREBOOK_SUFFIXES = (".json", ".lorebook")
NAMES = {
    "sillytavern": gettext_noop("SillyTavern's world info"),
    "novelai": gettext_noop("a lorebook of NovelAI"),
    "agnai": gettext_noop("a memory book of Agnai"),
    "risu": gettext_noop("a lorebook of RisuAI"),
    "kobold": gettext_noop("world info of KoboldAI"),
    "v3": gettext_noop("a lorebook of the card specification V3"),
    "book": gettext_noop("a character book"),
    "card": gettext_noop("the character book of a card"),
}
LORE_PLACE = "lore goes with the message that is answered"
WHOLE_WORDS = "match whole words, in the plural too; “part of words: yes” matches parts of words"
ALSO_BY_MEANING = "also found by their words and meaning; those with secondary keys only by keys"


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
        """Report the outcome of each entry, and of the settings."""
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


# ----------------------------------------------------------------------------------------- the file


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
    entries = book.get("entries")
    if kind == "risu":
        entries = outer.get("data", document)
    elif kind == "kobold":
        entries = outer.get("worldinfo")
    return read_book(entries, book, kind, name=name, guest=guest)


def read_book(
    raw_entries: object, book: Mapping[str, Any], kind: str, *, name: str, guest: str
) -> Lorebook:
    """Read the entries of a lorebook, a list or an object by number; `book` has the settings of all
    of them.
    """
    if isinstance(raw_entries, dict):
        raw_entries = list(raw_entries.values())
    listed = list_or_empty(raw_entries)
    state = BookState(disabled_categories=set())
    for category in objects_of(book.get("categories")):
        if category.get("enabled") is False:
            state.disabled_categories.add(str(category.get("id")))
    entries = []
    for number, raw in enumerate(listed[:MAX_ENTRIES]):
        reader = EntryReader(number, object_or_empty(raw), kind, state)
        entries.append(reader.read(name, guest))
    notes = list(_book_notes(entries, objects_of(listed), book))
    if len(listed) > MAX_ENTRIES:
        notes.append(not_taken(f"entries after the first {MAX_ENTRIES}", "there are too many"))
    title = one_line(str(book.get("name") or ""))
    return Lorebook(kind, title, entries=tuple(entries), notes=tuple(notes))


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
    extensions = object_or_empty(entry.get("extensions"))
    for place in (entry, extensions):
        if place.get("position") not in (None, 0, "", "before_char") or place.get("role"):
            return True
    return False
