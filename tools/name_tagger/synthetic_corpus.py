"""Generates labelled texts for training the tagger from templates, reproducible by seed."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tools.name_tagger.synthetic_names import NameGenerator
from trainer.anonymise.crf_ner.gazetteer import LISTS_FOLDER, read_list

if TYPE_CHECKING:
    pass

TEMPLATES_FOLDER = Path(__file__).parent / "templates"
COUNTRY_WEIGHTS = {"english": 5, "britain": 4, "german": 2, "french": 2, "hungarian": 2, "mixed": 9}
"""Weights of the address formats by country (default 1); "mixed" has no country."""

COUNTRIES = frozenset(
    """english britain australia canada german austria french spanish mexico italian portuguese dutch nordic finnish
    slavic russia hungarian turkish vietnamese asian african mixed danish norwegian swedish icelandic greek hellenic
    polish czech croatian romanian baltic brazil ireland usps belgium swiss""".split()
)
ORIGINS = {
    "britain": "english", "usps": "english", "australia": "english", "canada": "english", "ireland": "english",
    "austria": "german", "swiss": "german", "mexico": "spanish", "brazil": "portuguese", "belgium": "dutch",
    "danish": "nordic", "norwegian": "nordic", "swedish": "nordic", "icelandic": "nordic", "finnish": "nordic",
    "polish": "slavic", "czech": "slavic", "croatian": "slavic", "russia": "slavic", "asian": "indian", "mixed": "",
}  # fmt: skip
"""Origin of the names in a country's blocks, where it is called otherwise."""
BLOCK_COUNTRIES = sorted(COUNTRIES - {"vietnamese", "nordic"})
BLOCKS_FILE = "blocks.txt"
LOWERCASE_NAME_SHARE = 0.1
MIXED_BLOCK_SHARE = 0.3

STREET_NAME_COUNTRIES = (
    "german french spanish italian portuguese dutch nordic slavic hungarian turkish asian".split()
)
"""Countries whose street names occur in addresses without a country."""

COMPOUND_STREET_SLOTS = {
    "German": "german", "Dutch": "dutch", "Nordic": "nordic", "Finnish": "nordic", "Danish": "danish",
    "Norwegian": "norwegian", "Swedish": "swedish", "Icelandic": "icelandic",
}  # fmt: skip
"""Slots of streets written as one word with their suffix, and the names they take."""

SEPARATORS = (", ", ", ", ", ", "\n", "\n", "\n ", " ", " - ")
LISTED_SLOTS = {
    "org": "organisation",
    "product": "product",
    "game": "game",
    "work": "work",
    "gamething": "gamething",
    "place": "place",
    "venue": "venue",
    "event": "event",
    "law": "law",
    "hero": "hero",
    "dish": "dish",
    "team": "team",
}
"""Slots of other names than people's, with their line of things.txt."""
LABEL_SLOTS = (
    "tel",
    "mobile",
    "fax",
    "office",
    "kindafter",
    "regards",
    "namelabel",
    "addresslabel",
)
WORD_SLOTS = {slot: slot for slot in ("job", "relation", "thing", "verbed", *LABEL_SLOTS)}
TRADE_PARTS = (
    "zen vel nov tri lum cry opti hyper pay med bio cloud link swift blu neo aqua terra pix quan "
    "metal brain shop",
    "ix ora ly tron scape base io allica wise grid flow dex pulse hub verse max nest ware via zone "
    "sy gen mark",
)
FUNCTION_WORD_COUNT = 110
"""Number of function words at the head of the list."""
JUNK_TOKENS = (
    *"🎉 😂 🙏 👍 👨‍👩‍👧 🔥 #1 #15 #234 ??? !!! :D xD ^^ <3 -> => … — ½ ¿½ ï¿½ â€™ Ã©".split(),
    *"* ** ~ | || // \\\\ $$$ @@ [] () & + = %".split(),
)
DATE_FORMATS = (
    "{d} {month} {year}",
    "{month} 1{d}, {year}",
    "1{d}/0{d}/{year}",
    "{year}-0{d}-1{d}",
    "2{d}.0{d}.{year}",
    "1{d} {month}",
)
TEMPLATE_FILE_SHARES = {
    "english.txt": 0.32,
    "kinds.txt": 0.28,
    "vietnamese.txt": 0.14,
    "others.txt": 0.12,
    BLOCKS_FILE: 0.14,
}
"""Share of the texts by template file."""
CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{([A-Za-z0-9]+(?::[a-z]+)?)\}")
MAX_JOINED_TEMPLATES = 3
ADDRESS_SLOTS = frozenset(
    """English French Spanish Italian Portuguese German Dutch Nordic Finnish Vietnamese Ward Anystreet county ST AU
    CA Danish Norwegian Swedish Icelandic Hungarian Greek Hellenic Usps NSEW BR roman GR""".split()
)


class AddressGenerator:
    """Generates addresses with the templates of `CorpusGenerator`."""

    def __init__(self, random: Random, texts: CorpusGenerator) -> None:
        self._random = random
        self._texts = texts
        self._shapes = read_groups(TEMPLATES_FOLDER / "addresses.txt")
        self._words = {
            group: [word.replace("_", " ") for word in words]
            for group, words in read_list(TEMPLATES_FOLDER / "streets.txt")
        }
        cities = [
            word
            for group, words in read_list(LISTS_FOLDER / "words.txt")
            if group == "city"
            for word in words
        ]
        self._towns = [city for city in cities if city[0].isupper()]
        self._countries = [
            country for country in sorted(COUNTRIES) for _ in range(COUNTRY_WEIGHTS.get(country, 1))
        ]

    def whole(self, country: str = "", separator: str = "") -> str:
        """Generate street, house, perhaps a flat, town, postal code, perhaps the country; on one
        line or several.
        """
        street, town = self._shape(country)
        separator = separator or self._random.choice(SEPARATORS)
        parts = [street]
        if self._random.random() < 0.3:
            parts.append(self._random.choice(self._shapes["unit"]))
        if self._random.random() < 0.85:
            parts.append(town)
        text = self._texts.plain(separator.join(parts).replace("{sep}", separator))
        return text.upper() if self._random.random() < 0.03 else text

    def street(self, country: str = "") -> str:
        """Generate street and house."""
        text = self._texts.plain(self._shape(country)[0])
        if self._random.random() < 0.2:
            text += self._random.choice((", ", " ")) + self._texts.plain(
                self._random.choice(self._shapes["unit"])
            )
        return text

    def unit(self) -> str:
        """Generate a flat or floor."""
        return self._texts.plain(self._random.choice(self._shapes["unit"]))

    def town_line(self, country: str = "") -> str:
        """Generate town and postal code in the order of the country."""
        return self._texts.plain(self._shape(country)[1].replace("{sep}", ", "))

    def name(self) -> str:
        """Generate a street name without a number."""
        return self._texts.plain(
            self._random.choice(("{s:english} {English}", "{s:english} {English}", "{Anystreet}"))
        )

    def corner(self) -> str:
        """Generate two crossing streets, with or without words that say so."""
        streets = [self.name() if self._random.random() < 0.5 else self.street() for _ in range(2)]
        if self._random.random() < 0.3:
            streets[0] = self._random.choice((self._texts.names.first, self._texts.names.last))()
        said = self._random.choice(
            ("the corner of ", "the corner of ", "corner of ", "the corner ", "")
        )
        return f"{said}{streets[0]} {self._random.choice(('and', '&', 'and'))} {streets[1]}"

    def foreign_corner(self, country: str) -> str:
        """Generate two crossing streets of a country; what says so is outside."""
        return self._texts.plain(self._random.choice(self._shapes[f"corner {country}"]))

    def apart(self) -> str:
        """Generate a street with its house number apart from it."""
        return self._texts.plain(self._random.choice(self._shapes["apart"]))

    def box(self) -> str:
        """Generate a post-office box, a military address or a foreign equivalent."""
        box = self._random.choice(self._shapes["box"])
        return self._texts.plain(box.replace("{sep}", self._random.choice(("\n", ", "))))

    def base(self, country: str) -> str:
        """Generate the name before "Street"; "*" stands for a family name."""
        name = self._random.choice(self._words[country])
        return name.replace("*", self._texts.names.last()) if "*" in name else name

    def town(self) -> str:
        """Generate an existing or an invented town."""
        if self._random.random() < 0.5:
            name = self._random.choice(self._towns)
        else:
            name = self._random.choice(self._words["head"]) + self._random.choice(
                self._words["tail"]
            )
            name = (
                self._random.choice(("", "", "", "New ", "St ", "San ", "Upper ", "Bad ", "Le "))
                + name
            )
        return name.upper() if self._random.random() < 0.12 else name

    def part(self, slot: str) -> str:
        """Fill a slot of addresses only: a street suffix, a street, a ward, a state."""
        if slot in COMPOUND_STREET_SLOTS:
            return self._joined(COMPOUND_STREET_SLOTS[slot], self._random.choice(self._words[slot]))
        if slot in ("Vietnamese", "Ward"):
            return self._texts.plain(self._random.choice(self._shapes[slot]))
        if slot == "Anystreet":
            if self._random.random() < 0.3:
                return self._texts.plain("{s:english} {English}")
            return (
                self.base(self._random.choice(STREET_NAME_COUNTRIES))
                + self._random.choice(self._words["anywhere"])
            ).strip()
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


class DistractorGenerator:
    """Generates distractors; names that are not of people have the label "X"."""

    def __init__(self, random: Random, texts: CorpusGenerator) -> None:
        self._random = random
        self._texts = texts
        lists = dict[str, list[str]]()
        files = [TEMPLATES_FOLDER / "things.txt", TEMPLATES_FOLDER / "labels.txt"]
        files += [LISTS_FOLDER / "words.txt", LISTS_FOLDER / "common.txt"]
        for group, words in itertools.chain.from_iterable(map(read_list, files)):
            lists.setdefault(group, []).extend(word.replace("_", " ") for word in words)
        self._lists = lists
        self._made = read_groups(TEMPLATES_FOLDER / "made.txt")
        self._common = [
            word for word in lists["common"] if word.isalpha() and word.isascii() and len(word) > 2
        ]
        names = [name.lower() for name in dict(read_list(LISTS_FOLDER / "given.txt"))["vietnamese"]]
        self._vietnamese = [
            *lists["syllable"],
            *lists["syllable"][:FUNCTION_WORD_COUNT] * 6,
            *names,
        ]
        self._function = lists["common"][:FUNCTION_WORD_COUNT]
        self._days = [word for word in lists["month"] if word.endswith("day")]
        self._months = lists["month"][:12]

    def of(self, slot: str) -> tuple[str, str]:
        """Return (text, label) for a slot."""
        if slot in LISTED_SLOTS:
            if self._random.random() < 0.5:
                return self._random.choice(self._lists[LISTED_SLOTS[slot]]), "X"
            return self._texts.plain(self._random.choice(self._made[slot])), "X"
        if slot in WORD_SLOTS:
            return self._random.choice(self._lists[WORD_SLOTS[slot]]), "O"
        if slot == "invented":
            return self._invented(), "X"
        if slot in ("brand", "country", "nation", "vncity", "vnplace"):
            return self._random.choice(self._group(slot)), "X"
        if slot == "nick":
            return self._texts.names.nick(), "O"
        return self._word(slot) or self._number(slot), "O"

    def _invented(self) -> str:
        """Generate a one-word trade name that is in no list."""
        made = "".join(self._random.choice(part.split()) for part in TRADE_PARTS)
        return self._random.choice((made.capitalize(), made.capitalize(), made.upper()))

    def _group(self, slot: str) -> list[str]:
        if slot in self._lists and slot != "country":
            return self._lists[slot]
        split = self._lists["country"].index("American")
        return (
            self._lists["country"][:split] if slot == "country" else self._lists["country"][split:]
        )

    def phone(self) -> str:
        """Generate a telephone number in the grouping of some country."""
        shape = self._random.choice(self._lists["phone"])
        return "".join(self._random.choice("0123456789") if sign == "#" else sign for sign in shape)

    def email(self) -> str:
        """Generate an e-mail address."""
        return f"{self._texts.names.nick()}@example.{self._random.choice(('com', 'org', 'net'))}"

    def _word(self, slot: str) -> str:
        choice = self._random.choice
        words: dict[str, list[str]] = {
            "common": self._common,
            "month": self._months,
            "day": self._days,
            "title": ["Mr.", "Mrs.", "Ms.", "Dr.", "Mr", "Mrs", "Prof."],
            "vnjob": self._lists["vnjob"],
            "vntitle": self._lists["vntitle"],
        }
        if slot in ("vnsalad", "VNsalad"):
            said = " ".join(self._random.choices(self._vietnamese, k=choice(range(1, 8))))
            return said[:1].upper() + said[1:] if slot[0] == "V" else said
        if slot == "salad":
            return " ".join(
                choice(self._function if self._random.random() < 0.45 else self._common)
                for _ in range(choice(range(1, 8)))
            )
        if slot == "Salad":
            return self._word("salad").capitalize()
        if slot == "junk":
            return choice(JUNK_TOKENS)
        if slot == "Common":
            return str(choice(self._common).capitalize())
        return choice(words[slot]).replace("_", " ") if slot in words else ""

    def _number(self, slot: str) -> str:
        random = self._random
        if slot == "n":
            return str(
                random.choice(
                    (random.randrange(1, 40), random.randrange(1, 400), random.randrange(1, 30_000))
                )
            )
        if slot.startswith("zip"):
            return "".join(random.choices("0123456789", k=int(slot[3])))
        plain: dict[str, str] = {
            "l": random.choice("abcdef"),
            "L": random.choice("ABCDEFGHKLMNPRST"),
            "d": str(random.randrange(1, 10)),
            "num": str(random.choice((random.randrange(1, 100), random.randrange(1, 100_000)))),
            "year": str(random.randrange(1850, 2030)),
            "card": "".join(random.choices("0123456789", k=random.randrange(6, 20))),
            "price": random.choice(
                ("${0}", "{0} €", "£{0}.99", "{0}k", "{0}.000đ", "{0} bucks")
            ).format(random.randrange(1, 900)),
            "time": random.choice(("{0}:30", "{0}pm", "{0} o'clock", "{0}h", "{0}:15 am")).format(
                random.randrange(1, 12)
            ),
            "bar": "|",
            "url": f"https://example.{random.choice(('com', 'org'))}/{self._random.choice(self._common)}",
        }
        return plain.get(slot) or self._shaped(slot)

    def _shaped(self, slot: str) -> str:
        shapes = {
            "date": self._random.choice(DATE_FORMATS),
            "postcode": self._random.choice(
                (
                    "{L}{d} {d}{L}{L}",
                    "{L}{L}{d} {d}{L}{L}",
                    "{L}{L}{d}{d} {d}{L}{L}",
                    "{L}{d}{L} {d}{L}{L}",
                )
            ),
            "canpost": "{L}{d}{L} {d}{L}{d}",
        }
        return self._texts.plain(shapes[slot])


@dataclass(frozen=True)
class LabelledText:
    """A text as pieces (text, label): "P" (person), "A" (address), "N" (telephone number), "E"
    (e-mail address), "X" (another name) or "O".
    """

    pieces: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """Whole text."""
        return "".join(text for text, _ in self.pieces)

    @property
    def spans(self) -> list[tuple[str, int, int]]:
        """Labelled spans as (label, start, end)."""
        found = []
        at = 0
        for text, label in self.pieces:
            if label != "O":
                found.append((label, at, at + len(text)))
            at += len(text)
        return found


class CorpusGenerator:
    """Generates texts from the templates beside the code."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.names = NameGenerator(self.random)
        self._addresses = AddressGenerator(self.random, self)
        self._things = DistractorGenerator(self.random, self)
        self._templates = {name: _lines(TEMPLATES_FOLDER / name) for name in TEMPLATE_FILE_SHARES}
        names = self.names
        addresses = self._addresses
        self._country = ""
        self._labelled: dict[str, tuple[str, Callable[[], str]]] = {
            "first": ("P", lambda: names.first(self._origin)),
            "last": ("P", lambda: names.last(self._origin)),
            "full": ("P", lambda: names.full(self._origin)),
            "lastfirst": ("P", names.last_first),
            "initials": ("P", names.initials),
            "vnfirst": ("P", lambda: names.first("vietnamese")),
            "vnfull": ("P", names.vietnamese),
            "grfirst": ("P", lambda: names.first("hellenic")),
            "grlast": ("P", lambda: names.last("hellenic")),
            "address": ("A", lambda: addresses.whole(self._country)),
            "lines": ("A", lambda: addresses.whole(self._country, "\n")),
            "street": ("A", lambda: addresses.street(self._country)),
            "unit": ("A", addresses.unit),
            "townline": ("A", lambda: addresses.town_line(self._country)),
            "streetname": ("A", addresses.name),
            "corner": ("A", addresses.corner),
            "apart": ("A", addresses.apart),
            "nexttown": ("A", lambda: f", {addresses.town()}"),
            "pobox": ("A", addresses.box),
            "vnaddress": ("A", lambda: addresses.whole("vietnamese")),
            "vnstreet": ("A", lambda: addresses.street("vietnamese")),
            "hellenicaddress": ("A", lambda: addresses.whole("hellenic")),
            "phone": ("N", self._things.phone),
            "email": ("E", self._things.email),
        }

    @property
    def _origin(self) -> str:
        """Origin of names in the current block; empty for any."""
        return ORIGINS.get(self._country, self._country)

    def blocks(self) -> Iterator[tuple[str, LabelledText]]:
        """Yield (country, contact block) without end; a quarter of the texts only look like one."""
        while True:
            self._country = self.random.choice(BLOCK_COUNTRIES)
            yield self._country, LabelledText(tuple(self._as_written(self._block())))

    def _block(self) -> list[tuple[str, str]]:
        pieces = self.filled(self.random.choice(self._templates[BLOCKS_FILE]))
        if self.random.random() < LOWERCASE_NAME_SHARE:
            return [(text.lower() if label == "P" else text, label) for text, label in pieces]
        return pieces

    def __iter__(self) -> Iterator[LabelledText]:
        """Yield texts without end: one or a few templates in sequence, in clean or in chat
        style.
        """
        shares = list(TEMPLATE_FILE_SHARES.values())
        while True:
            (name,) = self.random.choices(list(TEMPLATE_FILE_SHARES), shares)
            count = self.random.choices(range(1, MAX_JOINED_TEMPLATES + 1), (0.7, 0.2, 0.1))[0]
            pieces: list[tuple[str, str]] = []
            for _ in range(count):
                if pieces:
                    pieces.append((self.random.choice((" ", " ", "\n", "\n\n", ". ")), "O"))
                is_mixed = name != BLOCKS_FILE or self.random.random() < MIXED_BLOCK_SHARE
                self._country = "" if is_mixed else self.random.choice(BLOCK_COUNTRIES)
                if name == BLOCKS_FILE:
                    pieces += self._block()
                else:
                    pieces += self.filled(self.random.choice(self._templates[name]))
            yield LabelledText(tuple(self._as_written(pieces)))

    def filled(self, template: str) -> list[tuple[str, str]]:
        """Expand a template into pieces, with choices made and slots filled."""
        pieces: list[tuple[str, str]] = []
        for index, part in enumerate(SLOT.split(self._chosen(template).replace("\\n", "\n"))):
            if index % 2 == 0:
                pieces.append((part, "O"))
            else:
                pieces += self._slot(part)
        return _merge_name_parts([piece for piece in pieces if piece[0]])

    def plain(self, template: str) -> str:
        """Expand a template into plain text."""
        return "".join(text for text, _ in self.filled(template))

    def _slot(self, slot: str) -> list[tuple[str, str]]:
        if slot in self._labelled:
            label, make = self._labelled[slot]
            return [(make(), label)]
        if slot == "titled":
            return [
                (self.names.title() + " ", "O"),
                (self.random.choice((self.names.last, self.names.full))(), "P"),
            ]
        if slot.startswith("corner:"):
            return [(self._addresses.foreign_corner(slot.removeprefix("corner:")), "A")]
        if slot.startswith("s:"):
            return [(self._addresses.base(slot[2:]), "O")]
        if slot in ADDRESS_SLOTS:
            return [(self._addresses.part(slot), "O")]
        if slot in ("town", "city"):
            return [(self._addresses.town(), "X")]
        return [self._things.of(slot)]

    def _chosen(self, template: str) -> str:
        while match := CHOICE.search(template):
            template = (
                template[: match.start()]
                + self.random.choice(match[1].split("|"))
                + template[match.end() :]
            )
        return template

    def _as_written(self, pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
        draw = self.random.random()
        random = self.random
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
            pieces = [(strip_diacritics(text), label) for text, label in pieces]
        if random.random() < 0.08:
            pieces = [
                (re.sub(r"[.,!?](?=\s|$)", "", text) if label == "O" else text, label)
                for text, label in pieces
            ]
        return pieces


def _merge_name_parts(pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Merge a given name, a space and a family name into one name, and a street and its town into
    one address.
    """
    joined: list[tuple[str, str]] = []
    for text, label in pieces:
        if label == "P" and len(joined) > 1 and joined[-1] == (" ", "O") and joined[-2][1] == "P":
            joined[-2:] = [(f"{joined[-2][0]} {text}", "P")]
        elif label == "A" and text.startswith(", ") and joined and joined[-1][1] == "A":
            joined[-1] = (joined[-1][0] + text, "A")
        else:
            joined.append((text, label))
    return joined


def strip_diacritics(text: str) -> str:
    """Remove diacritics as people do when typing; "đ" too."""
    plain = "".join(
        letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter)
    )
    return plain.replace("đ", "d").replace("Đ", "D")


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def read_groups(path: Path) -> dict[str, list[str]]:
    """Read the values of each "group: …" line by group; a group may have several lines."""
    groups: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            group, _, rest = line.partition(": ")
            groups.setdefault(group, []).append(rest)
    return groups
