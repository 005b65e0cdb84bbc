"""What generated texts speak of beside people and addresses: products, games, organisations, places, numbers, dates."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from trainer.anonymise.tagger.vocabulary import LISTS, read_groups, read_list

if TYPE_CHECKING:
    from trainer.anonymise.tagger.texts import Texts

TEMPLATES = Path(__file__).parent / "templates"
LISTED = {
    "org": "organisation",
    "product": "product",
    "game": "game",
    "work": "work",
    "gamething": "gamething",
    "place": "place",
    "venue": "venue",
    "event": "event",
    "law": "law",
}
"""Slots of names that are no person's, and the line of things.txt that they are drawn from."""
WORDS = {"job": "job", "relation": "relation", "thing": "thing", "verbed": "verbed"}
TRADE_PARTS = (
    "zen vel nov tri lum cry opti hyper pay med bio cloud link swift blu neo aqua terra pix quan metal brain shop",
    "ix ora ly tron scape base io allica wise grid flow dex pulse hub verse max nest ware via zone sy gen mark",
)
FUNCTION_WORDS = 110
"""So many words at the head of the list hold sentences together."""
JUNK = (
    *"🎉 😂 🙏 👍 👨‍👩‍👧 🔥 #1 #15 #234 ??? !!! :D xD ^^ <3 -> => … — ½ ¿½ ï¿½ â€™ Ã©".split(),
    *"* ** ~ | || // \\\\ $$$ @@ [] () & + = %".split(),
)
DATES = (
    "{n} {month} {year}",
    "{month} {n}, {year}",
    "{n}/{n}/{year}",
    "{year}-0{d}-1{d}",
    "{n}.{n}.{year}",
    "{n} {month}",
)


class Things:
    """Draws them; names that are no person's carry the label "X"."""

    def __init__(self, random: Random, texts: Texts) -> None:
        self._random = random
        self._texts = texts
        lists = dict[str, list[str]]()
        for group, words in [*read_list(TEMPLATES / "things.txt"), *read_list(LISTS / "words.txt")]:
            lists.setdefault(group, []).extend(word.replace("_", " ") for word in words)
        self._lists = lists
        self._made = read_groups(TEMPLATES / "made.txt")
        self._common = [word for word in lists["common"] if word.isalpha() and word.isascii() and len(word) > 2]
        names = [name.lower() for name in dict(read_list(LISTS / "given.txt"))["vietnamese"]]
        self._vietnamese = [*lists["syllable"], *lists["syllable"][:FUNCTION_WORDS] * 6, *names]
        self._function = lists["common"][:FUNCTION_WORDS]
        self._days = [word for word in lists["month"] if word.endswith("day")]
        self._months = lists["month"][:12]

    def of(self, slot: str) -> tuple[str, str]:
        """(text, label) for a slot."""
        if slot in LISTED:
            if self._random.random() < 0.5:
                return self._random.choice(self._lists[LISTED[slot]]), "X"
            return self._texts.plain(self._random.choice(self._made[slot])), "X"
        if slot in WORDS:
            return self._random.choice(self._lists[WORDS[slot]]), "O"
        if slot == "invented":
            return self._invented(), "X"
        if slot in ("brand", "country", "nation", "vncity", "vnplace"):
            return self._random.choice(self._group(slot)), "X"
        if slot == "nick":
            return self._texts.names.nick(), "O"
        return self._word(slot) or self._number(slot), "O"

    def _invented(self) -> str:
        """A trade name of one word, such as nobody's list holds."""
        made = "".join(self._random.choice(part.split()) for part in TRADE_PARTS)
        return self._random.choice((made.capitalize(), made.capitalize(), made.upper()))

    def _group(self, slot: str) -> list[str]:
        if slot in self._lists and slot != "country":
            return self._lists[slot]
        split = self._lists["country"].index("American")
        return self._lists["country"][:split] if slot == "country" else self._lists["country"][split:]

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
            return choice(JUNK)
        if slot == "Common":
            return str(choice(self._common).capitalize())
        return choice(words[slot]).replace("_", " ") if slot in words else ""

    def _number(self, slot: str) -> str:
        random = self._random
        if slot == "n":
            return str(random.choice((random.randrange(1, 40), random.randrange(1, 400), random.randrange(1, 30_000))))
        if slot.startswith("zip"):
            return "".join(random.choices("0123456789", k=int(slot[3])))
        plain: dict[str, str] = {
            "l": random.choice("abcdef"),
            "L": random.choice("ABCDEFGHKLMNPRST"),
            "d": str(random.randrange(1, 10)),
            "num": str(random.choice((random.randrange(1, 100), random.randrange(1, 100_000)))),
            "year": str(random.randrange(1850, 2030)),
            "card": "".join(random.choices("0123456789", k=random.randrange(6, 20))),
            "price": random.choice(("${0}", "{0} €", "£{0}.99", "{0}k", "{0}.000đ", "{0} bucks")).format(
                random.randrange(1, 900)
            ),
            "time": random.choice(("{0}:30", "{0}pm", "{0} o'clock", "{0}h", "{0}:15 am")).format(
                random.randrange(1, 12)
            ),
            "phone": random.choice(("555-01{0}", "+44 20 7946 0{0}1", "(555) 01{0}-4477", "0912 345 6{0}")).format(
                random.randrange(10, 99)
            ),
            "email": f"{self._texts.names.nick()}@example.{random.choice(('com', 'org', 'net'))}",
            "url": f"https://example.{random.choice(('com', 'org'))}/{self._random.choice(self._common)}",
        }
        return plain.get(slot) or self._shaped(slot)

    def _shaped(self, slot: str) -> str:
        shapes = {
            "date": self._random.choice(DATES),
            "postcode": self._random.choice(
                ("{L}{d} {d}{L}{L}", "{L}{L}{d} {d}{L}{L}", "{L}{L}{d}{d} {d}{L}{L}", "{L}{d}{L} {d}{L}{L}")
            ),
            "canpost": "{L}{d}{L} {d}{L}{d}",
        }
        return self._texts.plain(shapes[slot])
