"""Labelled texts, made of templates: what the tagger learns from. The same seed gives the same texts.

A template has slots, {first} or {address}, and choices, [a|b]. Slots of people and addresses are labelled; so are other
names, with a label of their own, so that the tagger learns what they look like instead of taking them for people.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from trainer.anonymise.tagger.made_addresses import TEMPLATES, Addresses
from trainer.anonymise.tagger.made_names import Names
from trainer.anonymise.tagger.made_things import Things

SHARES = {"english.txt": 0.68, "vietnamese.txt": 0.2, "others.txt": 0.12}
"""How much of the texts comes from which file."""
CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{([A-Za-z0-9]+(?::[a-z]+)?)\}")
MAX_JOINED = 3


@dataclass(frozen=True)
class Labelled:
    """A text in pieces: (text, label), the label "P" (person), "A" (address), "X" (another name) or "O"."""

    pieces: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(text for text, _ in self.pieces)

    @property
    def spans(self) -> list[tuple[str, int, int]]:
        """(label, start, end) of what is labelled."""
        found, at = [], 0
        for text, label in self.pieces:
            if label != "O":
                found.append((label, at, at + len(text)))
            at += len(text)
        return found


class Texts:
    """Makes texts from the templates beside the code."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.names = Names(self.random)
        self._addresses = Addresses(self.random, self)
        self._things = Things(self.random, self)
        self._templates = {name: _lines(TEMPLATES / name) for name in SHARES}
        names, addresses = self.names, self._addresses
        self._labelled: dict[str, tuple[str, Callable[[], str]]] = {
            "first": ("P", names.first),
            "last": ("P", names.last),
            "full": ("P", names.full),
            "lastfirst": ("P", names.last_first),
            "initials": ("P", names.initials),
            "vnfirst": ("P", lambda: names.first("vietnamese")),
            "vnfull": ("P", names.vietnamese),
            "address": ("A", addresses.whole),
            "street": ("A", addresses.street),
            "streetname": ("A", addresses.name),
            "corner": ("A", addresses.corner),
            "pobox": ("A", addresses.box),
            "vnaddress": ("A", lambda: addresses.whole("vietnamese")),
            "vnstreet": ("A", lambda: addresses.street("vietnamese")),
        }

    def __iter__(self) -> Iterator[Labelled]:
        """Texts without end: one template, or a few after one another, written neatly or as people write in chats."""
        shares = list(SHARES.values())
        while True:
            (name,) = self.random.choices(list(SHARES), shares)
            count = self.random.choices(range(1, MAX_JOINED + 1), (0.7, 0.2, 0.1))[0]
            pieces: list[tuple[str, str]] = []
            for _ in range(count):
                if pieces:
                    pieces.append((self.random.choice((" ", " ", "\n", "\n\n", ". ")), "O"))
                pieces += self.filled(self.random.choice(self._templates[name]))
            yield Labelled(tuple(self._as_written(pieces)))

    def filled(self, template: str) -> list[tuple[str, str]]:
        """A template's pieces, choices made and slots filled."""
        pieces: list[tuple[str, str]] = []
        for index, part in enumerate(SLOT.split(self._chosen(template).replace("\\n", "\n"))):
            if index % 2 == 0:
                pieces.append((part, "O"))
            else:
                pieces += self._slot(part)
        return _joined([piece for piece in pieces if piece[0]])

    def plain(self, template: str) -> str:
        """The same as a plain text."""
        return "".join(text for text, _ in self.filled(template))

    def _slot(self, slot: str) -> list[tuple[str, str]]:
        if slot in self._labelled:
            label, make = self._labelled[slot]
            return [(make(), label)]
        if slot == "titled":
            return [(self.names.title() + " ", "O"), (self.random.choice((self.names.last, self.names.full))(), "P")]
        if slot.startswith("s:"):
            return [(self._addresses.base(slot[2:]), "O")]
        if slot in ADDRESS_SLOTS:
            return [(self._addresses.part(slot), "O")]
        if slot in ("town", "city"):
            return [(self._addresses.town(), "X")]
        return [self._things.of(slot)]

    def _chosen(self, template: str) -> str:
        while match := CHOICE.search(template):
            template = template[: match.start()] + self.random.choice(match[1].split("|")) + template[match.end() :]
        return template

    def _as_written(self, pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
        draw, random = self.random.random(), self.random
        if draw < 0.2:
            pieces = [(text.lower(), label) for text, label in pieces]
        elif draw < 0.22:
            pieces = [(text.upper(), label) for text, label in pieces]
        elif draw < 0.235:
            pieces = [(text.lower() if label == "P" else text, label) for text, label in pieces]
        if random.random() < 0.03:
            mark = random.choice(("> ", "| ", "- ", "* ", "??? ", "\t", ">> "))
            pieces = [(text.replace("\n", "\n" + mark), label) for text, label in pieces]
        if random.random() < 0.15:
            pieces = [(without_marks(text), label) for text, label in pieces]
        if random.random() < 0.08:
            pieces = [(re.sub(r"[.,!?](?=\s|$)", "", text) if label == "O" else text, label) for text, label in pieces]
        return pieces


ADDRESS_SLOTS = frozenset(
    """English French Spanish Italian Portuguese German Dutch Nordic Finnish Vietnamese Ward Anystreet county ST AU
    CA""".split()
)


def _joined(pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """A given name, a space and a family name are one name."""
    joined: list[tuple[str, str]] = []
    for text, label in pieces:
        if label == "P" and len(joined) > 1 and joined[-1] == (" ", "O") and joined[-2][1] == "P":
            joined[-2:] = [(f"{joined[-2][0]} {text}", "P")]
        else:
            joined.append((text, label))
    return joined


def without_marks(text: str) -> str:
    """Diacritics dropped, as people type them away; "đ" too."""
    plain = "".join(letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter))
    return plain.replace("đ", "d").replace("Đ", "D")


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]
