"""Values for the slots of templates: labelled personal data, plain words and plain numbers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from benchmarks.studies.pii_heldout.values import addresses, identity_numbers, numbers, people
from benchmarks.studies.pii_heldout.values.people import Person
from benchmarks.studies.pii_heldout.values.words import word_choices
from benchmarks.studies.pii_heldout.writing.pieces import Piece


@dataclass
class FillingContext:
    """Language and random source of a text, and its people by name (`p1`): each is drawn once."""

    language: str
    rng: Random
    people: dict[str, Person] = field(default_factory=dict)
    used_words: set[str] = field(default_factory=set)

    def person(self, name: str) -> Person:
        """Returns the person of that name in this text."""
        if name not in self.people:
            self.people[name] = people.draw_person(self.language, self.rng)
        return self.people[name]

    def word(self, slot: str) -> str:
        """Returns an entry of the slot that this text does not have yet, while there is one."""
        choices = word_choices(self.language, slot)
        unused = [word for word in choices if word not in self.used_words]
        word = self.rng.choice(unused or choices)
        self.used_words.add(word)
        return word


PERSON_SLOTS: dict[str, tuple[str, Callable[[Person, Random], str]]] = {
    "full": ("PERSON", people.full_name),
    "plain": ("PERSON", lambda person, _: people.plain_name(person)),
    "first": ("PERSON", lambda person, _: person.first),
    "last": ("PERSON", lambda person, _: person.last),
    "nick": ("PERSON", people.short_name),
    "rev": ("PERSON", lambda person, _: people.surname_first(person)),
    "revbare": ("PERSON", lambda person, _: people.surname_first(person).replace(",", "")),
    "init": ("PERSON", lambda person, _: people.initials_and_surname(person)),
    "upper": ("PERSON", lambda person, _: people.plain_name(person).upper()),
    "email": ("EMAIL", people.email_address),
    "url": ("URL", people.site_address),
    "handle": ("HANDLE", people.handle),
    "screen": ("HANDLE", people.screen_name),
}
"""Label and form of each slot of a person, written `{p1.full}`."""

AND_WORDS = {
    "en": (", ", " and "),
    "de": (", ", " und "),
    "fr": (", ", " et "),
    "es": (", ", " y "),
    "it": (", ", " e "),
    "nl": (", ", " en "),
    "no": (", ", " og "),
    "pl": (", ", " i "),
    "pt": (", ", " e "),
    "el": (", ", " και "),
    "ja": ("、", "と"),
    "zh": ("、", "和"),
    "ko": (", ", " 그리고 "),
}
"""What stands between the names of a list, and before its last name."""


def date_of_birth(context: FillingContext) -> str:
    """Returns a date of birth in a common form of the language."""
    rng = context.rng
    day = rng.randrange(1, 29)
    month = rng.randrange(1, 13)
    year = rng.randrange(1938, 2019)
    name = word_choices(context.language, "month")[month % 10]
    forms = {
        "en": (
            f"{day:02d}/{month:02d}/{year}",
            f"{month}/{day}/{year % 100:02d}",
            f"{day} {name} {year}",
            f"{name} {day}, {year}",
            f"{day}.{month}.{year}",
            f"{year}-{month:02d}-{day:02d}",
            f"{day} {name[:3]} {year}",
        ),
        "ja": (f"{year}年{month}月{day}日", f"{year}/{month}/{day}"),
        "zh": (f"{year}年{month}月{day}日", f"{year}-{month:02d}-{day:02d}"),
        "ko": (f"{year}년 {month}월 {day}일", f"{year}.{month}.{day}"),
        "de": (
            f"{day:02d}.{month:02d}.{year}",
            f"{day}. {name} {year}",
            f"{day}.{month}.{year % 100:02d}",
        ),
        "pl": (f"{day:02d}.{month:02d}.{year}", f"{day}-{month:02d}-{year}"),
    }
    others = (
        f"{day:02d}/{month:02d}/{year}",
        f"{day}-{month}-{year}",
        f"{day:02d}.{month:02d}.{year}",
    )
    return rng.choice(forms.get(context.language, others))


DATA_SLOTS: dict[str, tuple[str, Callable[[FillingContext], str]]] = {
    "address": ("ADDRESS", lambda c: addresses.full_address(c.language, c.rng, broken=False)),
    "address_lines": ("ADDRESS", lambda c: addresses.full_address(c.language, c.rng, broken=True)),
    "street": ("ADDRESS", lambda c: addresses.street_and_number(c.language, c.rng)),
    "corner": ("ADDRESS", lambda c: addresses.street_corner(c.language, c.rng)),
    "city": ("PLACE", lambda c: addresses.town_name(c.language, c.rng)),
    "CITY": ("PLACE", lambda c: addresses.town_name(c.language, c.rng).upper()),
    "phone": ("PHONE", lambda c: numbers.phone_number(c.language, c.rng)),
    "iban": ("IBAN", lambda c: numbers.iban(c.language, c.rng)),
    "card": ("CARD", lambda c: numbers.card_number(c.rng)),
    "id": ("ID", lambda c: identity_numbers.national_id(c.language, c.rng)),
    "passport": ("ID", lambda c: identity_numbers.passport(c.rng)),
    "plate": ("ID", lambda c: identity_numbers.licence_plate(c.language, c.rng)),
    "customer": (
        "ID",
        lambda c: numbers.fill_digits(c.rng.choice(("########", "K-######", "##-####-##")), c.rng),
    ),
    "ip": ("IP", lambda c: numbers.ip_address(c.rng)),
    "dob": ("DATE_OF_BIRTH", date_of_birth),
}
"""Label and value of each slot of data that is no name."""


def price(context: FillingContext) -> str:
    """Returns a price in the currency of the language."""
    rng = context.rng
    whole = rng.randrange(2, 900)
    cents = rng.choice((0, 49, 50, 90, 95, 99))
    forms = {
        "en": (
            f"£{whole}.{cents:02d}",
            f"${whole}",
            f"{whole} quid",
            f"${whole}.{cents:02d}",
            f"£{whole}",
            f"{whole},000 USD",
        ),
        "no": (f"{whole} kr", f"{whole},-"),
        "pl": (f"{whole},{cents:02d} zł", f"{whole} zł"),
        "ja": (f"{whole * 10:,}円", f"¥{whole * 100:,}"),
        "zh": (f"{whole}元", f"¥{whole}.{cents:02d}"),
        "ko": (f"{whole * 100:,}원", f"{whole}만원"),
    }
    euros = (f"{whole},{cents:02d} €", f"{whole} €", f"{whole} euro")
    return rng.choice(forms.get(context.language, euros))


def _time(context: FillingContext) -> str:
    hour = context.rng.randrange(7, 23)
    minute = context.rng.choice((0, 5, 15, 20, 30, 40, 45))
    if context.language == "en":
        half = "am" if hour < 12 else "pm"
        return context.rng.choice(
            (
                f"{hour % 12 or 12}{half}",
                f"{hour}:{minute:02d}",
                f"{hour % 12 or 12}.{minute:02d}{half}",
            )
        )
    return f"{hour}:{minute:02d}"


def _ordinal(day: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{day}{'th' if day in {11, 12, 13} else endings.get(day % 10, 'th')}"


def _date(context: FillingContext) -> str:
    rng = context.rng
    day = rng.randrange(1, 29)
    month = word_choices(context.language, "month")[rng.randrange(10)]
    joint = {"de": ". ", "no": ". ", "es": " de ", "pt": " de ", "ja": "", "zh": "", "ko": " "}.get(
        context.language, " "
    )
    if context.language in {"ja", "zh", "ko"}:
        return f"{month}{joint}{day}{'일' if context.language == 'ko' else '日'}"
    if context.language == "en":
        return rng.choice(
            (
                f"{day} {month}",
                f"{month} {day}",
                f"the {_ordinal(day)} of {month}",
                f"{day}/{rng.randrange(1, 13)}",
            )
        )
    return f"{day}{joint}{month}"


def _pattern(patterns: tuple[str, ...]) -> Callable[[FillingContext], str]:
    return lambda c: numbers.fill_digits(c.rng.choice(patterns), c.rng)


def _score(context: FillingContext) -> str:
    rng = context.rng
    low = f"{rng.randrange(0, 6)}-{rng.randrange(0, 6)}"
    return rng.choice(
        (
            low,
            low.replace("-", ":"),
            f"{rng.randrange(60, 130)}-{rng.randrange(60, 130)}",
            f"6-{rng.randrange(0, 5)} 7-5",
        )
    )


PLAIN_SLOTS: dict[str, Callable[[FillingContext], str]] = {
    "price": price,
    "time": _time,
    "date": _date,
    "score": _score,
    "n": lambda c: str(c.rng.randrange(2, 60)),
    "n2": lambda c: str(c.rng.randrange(100, 2500)),
    "year": lambda c: str(c.rng.randrange(1962, 2026)),
    "age": lambda c: str(c.rng.randrange(3, 91)),
    "pct": lambda c: f"{c.rng.randrange(2, 99)}%",
    "version": _pattern(("v#.#.##", "#.##.#", "##.#.#.####", "#.#.#-rc#", "20##.#.#")),
    "order": _pattern(("#######", "A-######", "##-#####-#####", "INV-20##-####", "##########")),
    "tracking": _pattern(("1Z@@@###########", "JD#############", "RR#########GB")),
    "sku": _pattern(
        (
            "###-###-####",
            "@@-####-##",
            "##.###.##",
            "####.###.###",
            "978-#-####-####-#",
            "#############",
        )
    ),
    "size": _pattern(("1## x ## x ##", "###x####", "4# x 3# cm", "## 1/2")),
}
"""Numbers and dates that are no personal data."""


def name_list(context: FillingContext) -> list[Piece]:
    """Returns a list of two to five first names, each a piece of its own."""
    count = context.rng.randrange(2, 6)
    comma, last = AND_WORDS[context.language]
    pieces: list[Piece] = []
    for place in range(count):
        if place:
            pieces.append(Piece(last if place == count - 1 else comma))
        person = people.draw_person(context.language, context.rng)
        pieces.append(Piece(person.first, "PERSON"))
    return pieces


def slot_pieces(slot: str, context: FillingContext) -> list[Piece]:
    """Returns the pieces for a slot.

    A slot may also give its label and text: `{PERSON=will}`.

    Raises:
        KeyError: no slot has that name.
    """
    label, given, text = slot.partition("=")
    if given:
        return [Piece(text, label)]
    if slot == "firsts":
        return name_list(context)
    if slot in DATA_SLOTS:
        label, make = DATA_SLOTS[slot]
        return [Piece(make(context), label)]
    if slot in PLAIN_SLOTS:
        return [Piece(PLAIN_SLOTS[slot](context))]
    name, dot, form = slot.partition(".")
    if dot:
        label, write = PERSON_SLOTS[form]
        return [Piece(write(context.person(name), context.rng), label)]
    return [Piece(context.word(slot))]
