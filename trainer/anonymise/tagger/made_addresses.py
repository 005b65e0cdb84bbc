"""Postal addresses for generated texts, in the shapes of many countries, and streets without the rest."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from trainer.anonymise.tagger.vocabulary import LISTS, read_groups, read_list

if TYPE_CHECKING:
    from trainer.anonymise.tagger.texts import Texts

TEMPLATES = Path(__file__).parent / "templates"
WEIGHTS = {"english": 4, "britain": 3, "german": 2, "french": 2, "mixed": 7}
"""How often a country's shape is drawn, if not once; "mixed" belongs to no country."""
COUNTRIES = frozenset(
    """english britain australia canada german austria french spanish mexico italian portuguese dutch nordic finnish
    slavic russia hungarian turkish vietnamese asian african mixed""".split()
)
NAMED_LIKE = "german french spanish italian portuguese dutch nordic slavic hungarian turkish asian".split()
"""Whose street names stand in addresses that belong to no country."""
JOINED = {"German": "german", "Dutch": "dutch", "Nordic": "nordic", "Finnish": "nordic"}
"""Slots of streets whose name and word for a street are one word, and whose names they take."""
SEPARATORS = (", ", ", ", ", ", "\n", "\n", "\n ", " ", " - ")


class Addresses:
    """Draws addresses through the template machine of `Texts`."""

    def __init__(self, random: Random, texts: Texts) -> None:
        self._random = random
        self._texts = texts
        self._shapes = read_groups(TEMPLATES / "addresses.txt")
        self._words = {
            group: [word.replace("_", " ") for word in words] for group, words in read_list(TEMPLATES / "streets.txt")
        }
        cities = [word for group, words in read_list(LISTS / "words.txt") if group == "city" for word in words]
        self._towns = [city for city in cities if city[0].isupper()]
        self._countries = [country for country in sorted(COUNTRIES) for _ in range(WEIGHTS.get(country, 1))]

    def whole(self, country: str = "") -> str:
        """Street, house, perhaps a flat, town, postal code, perhaps the country; on one line or several."""
        street, town = self._shape(country)
        separator = self._random.choice(SEPARATORS)
        parts = [street]
        if self._random.random() < 0.3:
            parts.append(self._random.choice(self._shapes["unit"]))
        if self._random.random() < 0.85:
            parts.append(town)
        text = self._texts.plain(separator.join(parts).replace("{sep}", separator))
        return text.upper() if self._random.random() < 0.03 else text

    def street(self, country: str = "") -> str:
        """Street and house."""
        text = self._texts.plain(self._shape(country)[0])
        if self._random.random() < 0.2:
            text += self._random.choice((", ", " ")) + self._texts.plain(self._random.choice(self._shapes["unit"]))
        return text

    def name(self) -> str:
        """A street's name without a number."""
        return self._texts.plain(self._random.choice(("{s:english} {English}", "{s:english} {English}", "{Anystreet}")))

    def corner(self) -> str:
        """Two streets that cross, with or without the words that say so."""
        streets = [self.name() if self._random.random() < 0.5 else self.street() for _ in range(2)]
        if self._random.random() < 0.3:
            streets[0] = self._random.choice((self._texts.names.first, self._texts.names.last))()
        said = self._random.choice(("the corner of ", "the corner of ", "corner of ", "the corner ", ""))
        return f"{said}{streets[0]} {self._random.choice(('and', '&', 'and'))} {streets[1]}"

    def box(self) -> str:
        """A post-office box, a military address or their likes elsewhere."""
        box = self._random.choice(self._shapes["box"])
        return self._texts.plain(box.replace("{sep}", self._random.choice(("\n", ", "))))

    def base(self, country: str) -> str:
        """What a street is called before "Street"; family names stand in for "*"."""
        name = self._random.choice(self._words[country])
        return name.replace("*", self._texts.names.last()) if "*" in name else name

    def town(self) -> str:
        """A town that exists, or an invented one."""
        if self._random.random() < 0.5:
            name = self._random.choice(self._towns)
        else:
            name = self._random.choice(self._words["head"]) + self._random.choice(self._words["tail"])
            name = self._random.choice(("", "", "", "New ", "St ", "San ", "Upper ", "Bad ", "Le ")) + name
        return name.upper() if self._random.random() < 0.12 else name

    def part(self, slot: str) -> str:
        """What stands in a slot that only addresses use: a word for a street, a street, a ward, a state."""
        if slot in JOINED:
            return self._joined(JOINED[slot], self._random.choice(self._words[slot]))
        if slot in ("Vietnamese", "Ward"):
            return self._texts.plain(self._random.choice(self._shapes[slot]))
        if slot == "Anystreet":
            if self._random.random() < 0.3:
                return self._texts.plain("{s:english} {English}")
            return (self.base(self._random.choice(NAMED_LIKE)) + self._random.choice(self._words["anywhere"])).strip()
        return self._random.choice(self._words[slot])

    def _shape(self, country: str) -> tuple[str, str]:
        (shape,) = self._shapes[country or self._random.choice(self._countries)]
        street, _, town = shape.partition(" ;; ")
        return street, town

    def _joined(self, country: str, ending: str) -> str:
        base = self.base(country)
        if base.endswith((" ", "-")):
            return base + ending.capitalize()
        return base + self._random.choice(("", "", "", " ", "er ")) + ending
