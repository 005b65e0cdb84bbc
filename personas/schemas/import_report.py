"""The list with which an import ends: what was taken as is, what with another meaning, and what was
not, and why.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

ImportOutcome = Literal["as_is", "other_meaning", "not_taken"]
OUTCOMES: tuple[ImportOutcome, ...] = get_args(ImportOutcome)
OUTCOME_LABELS: dict[ImportOutcome, str] = {
    "as_is": "Taken as is",
    "other_meaning": "Taken with another meaning",
    "not_taken": "Not taken",
}
MAX_ITEM_CHARS = 120
MAX_NAMED_ITEMS = 6
"""Items that a line on Discord names; the others are counted."""
ALL_ITEMS = 10**9
"""Pages, the terminal and JSON name all items."""


@dataclass(frozen=True)
class ImportItem:
    """One part of what was imported. `why` says what it means now, or why it was not taken; empty
    for `as_is`.
    """

    outcome: ImportOutcome
    what: str
    why: str = ""


@dataclass(frozen=True)
class ImportReport:
    """What became of each part of an import, in the order of the file."""

    items: tuple[ImportItem, ...] = ()

    @classmethod
    def of(cls, items: Iterable[ImportItem]) -> "ImportReport":
        """Build a report without repeated items."""
        return cls(tuple(dict.fromkeys(items)))

    @classmethod
    def from_json(cls, stated: Mapping[str, Iterable[Mapping[str, str]]]) -> "ImportReport":
        """Build a report of what `as_json` returns."""
        items = []
        for outcome in OUTCOMES:
            for item in stated.get(outcome, ()):
                items.append(ImportItem(outcome, item["what"], item["why"]))
        return cls.of(items)

    def __add__(self, other: "ImportReport") -> "ImportReport":
        return ImportReport.of((*self.items, *other.items))

    def with_outcome(self, outcome: ImportOutcome) -> tuple[ImportItem, ...]:
        return tuple(item for item in self.items if item.outcome == outcome)

    def as_json(self) -> dict[str, list[dict[str, str]]]:
        """Return the list as JSON: `as_is`, `other_meaning` and `not_taken`, each a list of `what`
        and `why`.
        """
        listed: dict[str, list[dict[str, str]]] = {outcome: [] for outcome in OUTCOMES}
        for item in self.items:
            listed[item.outcome].append({"what": item.what, "why": item.why})
        return listed

    def lines(self, most: int = MAX_NAMED_ITEMS) -> list[str]:
        """Return a line for people per outcome and reason; parts with the same reason share one,
        which names `most`.
        """
        lines = []
        for outcome, why, names in self._groups():
            line = f"{OUTCOME_LABELS[outcome]}: {_list_names(names, most)}"
            if why:
                line += f" – {why}"
            lines.append(line)
        return lines

    @property
    def has_unnamed(self) -> bool:
        """True if the lines count parts that they do not name, beside those taken as they are."""
        groups = self._groups()
        return any(
            outcome != "as_is" and len(names) > MAX_NAMED_ITEMS for outcome, _, names in groups
        )

    def _groups(self) -> Iterator[tuple[ImportOutcome, str, list[str]]]:
        for outcome in OUTCOMES:
            by_reason: dict[str, list[str]] = {}
            for item in self.with_outcome(outcome):
                by_reason.setdefault(item.why, []).append(item.what)
            for why, names in by_reason.items():
                yield outcome, why, names


def as_is(what: str) -> ImportItem:
    """Build the item of a part that means here what it meant there."""
    return ImportItem("as_is", _visible(what))


def other_meaning(what: str, why: str) -> ImportItem:
    """Build the item of a part that means something else here."""
    return ImportItem("other_meaning", _visible(what), why)


def not_taken(what: str, why: str) -> ImportItem:
    """Build the item of a part that has no effect here."""
    return ImportItem("not_taken", _visible(what), why)


def _visible(what: str) -> str:
    """Return a name from a file as one line, without characters that hide or turn what follows, and
    not too long.
    """
    visible = ""
    for letter in what:
        is_hidden = unicodedata.category(letter) in ("Cc", "Cf", "Cs")
        visible += " " if is_hidden else letter
    line = " ".join(visible.split())
    if len(line) <= MAX_ITEM_CHARS:
        return line
    return f"{line[:MAX_ITEM_CHARS]}…"


def _list_names(names: list[str], most: int) -> str:
    shown = ", ".join(names[:most])
    if len(names) > most:
        shown += f" and {len(names) - most} more"
    return shown
