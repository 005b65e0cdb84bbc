"""People with a first name and a surname, and the ways in which both are written."""

import unicodedata
from dataclasses import dataclass
from random import Random

from benchmarks.studies.pii_heldout.values.names import (
    FIRST_NAMES,
    SHORT_NAMES,
    SURNAMES,
    WORD_FIRST_NAMES,
    WORD_SURNAMES,
)

FAMILY_FIRST_LANGUAGES = frozenset({"ja", "zh", "ko"})
ROMAN_LETTERS = str.maketrans(
    {"ß": "ss", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "æ": "ae", "ı": "i", "'": "", " ": ""}
)
MAIL_HOSTS = {
    "en": "gmail.com gmail.com yahoo.com hotmail.co.uk outlook.com icloud.com proton.me",
    "de": "gmx.de web.de t-online.de posteo.de gmail.com",
    "fr": "orange.fr laposte.net free.fr wanadoo.fr gmail.com",
    "es": "hotmail.es gmail.com telefonica.net",
    "it": "libero.it virgilio.it tiscali.it gmail.com",
    "nl": "ziggo.nl xs4all.nl kpnmail.nl gmail.com",
    "no": "online.no gmail.com hotmail.no",
    "pl": "wp.pl onet.pl interia.pl gmail.com",
    "pt": "sapo.pt gmail.com uol.com.br",
    "el": "otenet.gr gmail.com yahoo.gr",
    "ja": "docomo.ne.jp yahoo.co.jp gmail.com",
    "zh": "163.com qq.com 126.com",
    "ko": "naver.com daum.net hanmail.net",
}
SITE_ENDINGS = {
    "en": ("com", "co.uk", "net", "me", "io"),
    "el": ("gr",),
    "ja": ("jp",),
    "ko": ("kr",),
    "zh": ("cn",),
}
HANDLE_WORDS = (
    "sunny moth pixel turbo noodle ghost marble velvet pickle comet rusty lemon otter dusk static "
    "waffle pebble nimbus biscuit raven tofu cactus echo mango quartz badger"
).split()


@dataclass(frozen=True)
class Person:
    """A person; `first` and `last` in the script of the language, `roman_…` in Latin letters."""

    first: str
    last: str
    roman_first: str
    roman_last: str
    language: str
    middle: str
    joined: bool
    """Whether the surname stands first and nothing between them (Japanese, Chinese, Korean)."""

    @property
    def ascii_first(self) -> str:
        """Returns the first name as it stands in an address of e-mail."""
        return to_ascii(self.roman_first)

    @property
    def ascii_last(self) -> str:
        """Returns the surname as it stands in an address of e-mail."""
        return to_ascii(self.roman_last)


def to_ascii(text: str) -> str:
    """Returns lower-case ASCII letters and hyphens for a name in Latin letters."""
    plain = unicodedata.normalize("NFKD", text.translate(ROMAN_LETTERS))
    return "".join(c for c in plain if c.isascii() and (c.isalpha() or c == "-")).lower()


def _entry(text: str, rng: Random) -> tuple[str, str]:
    native, _, roman = rng.choice(text.split()).replace("_", " ").partition("=")
    return native, roman or native


def draw_person(language: str, rng: Random) -> Person:
    """Returns a person of the language; in English texts, one in five comes from elsewhere."""
    origin = language
    if language == "en" and rng.random() < 0.2:
        origin = rng.choice([name for name in FIRST_NAMES if name != "en"])
    words = origin == "en"
    firsts = WORD_FIRST_NAMES if words and rng.random() < 0.22 else FIRST_NAMES[origin]
    lasts = WORD_SURNAMES if words and rng.random() < 0.25 else SURNAMES[origin]
    first, roman_first = _entry(firsts, rng)
    last, roman_last = _entry(lasts, rng)
    middle, roman_middle = _entry(FIRST_NAMES[origin], rng)
    native = origin == language
    return Person(
        first=first if native else roman_first,
        last=last if native else roman_last,
        roman_first=roman_first,
        roman_last=roman_last,
        language=language,
        middle=middle if native else roman_middle,
        joined=native and origin in FAMILY_FIRST_LANGUAGES,
    )


def plain_name(person: Person) -> str:
    """Returns first name and surname in the usual order."""
    return f"{person.last}{person.first}" if person.joined else f"{person.first} {person.last}"


def full_name(person: Person, rng: Random) -> str:
    """Returns the name in one of the ways in which people write it."""
    if person.joined:
        return plain_name(person) if rng.random() < 0.8 else f"{person.last} {person.first}"
    first = person.first
    last = person.last
    styles = {
        f"{first} {last}": 60,
        f"{first} {person.middle[0]}. {last}": 8,
        f"{first} {person.middle} {last}": 5,
        f"{first[0]}. {last}": 6,
        f"{first} {last.upper()}": 4,
        f"{first} {last}".upper(): 4,
        f"{first[0]}.{person.middle[0]}. {last}": 3,
    }
    return rng.choices(list(styles), weights=list(styles.values()))[0]


def surname_first(person: Person) -> str:
    """Returns `Surname, First`, or the usual order where the surname is first anyway."""
    return plain_name(person) if person.joined else f"{person.last}, {person.first}"


def initials_and_surname(person: Person) -> str:
    """Returns `F. Surname`."""
    return plain_name(person) if person.joined else f"{person.first[0]}. {person.last}"


def short_name(person: Person, rng: Random) -> str:
    """Returns a short form of the first name, or the first name."""
    return rng.choice(SHORT_NAMES.get(person.first, (person.first,)))


def email_address(person: Person, rng: Random) -> str:
    """Returns an address made of the name, at a common host."""
    first = person.ascii_first
    last = person.ascii_last
    local = rng.choice(
        (
            f"{first}.{last}",
            f"{first}{last}",
            f"{first[0]}.{last}",
            f"{first[0]}{last}{rng.randrange(10, 99)}",
            f"{last}.{first}",
            f"{first}_{last[:1]}{rng.randrange(1950, 2010)}",
            f"{first}+{rng.choice(HANDLE_WORDS)}",
        )
    )
    return f"{local}@{rng.choice(MAIL_HOSTS[person.language].split())}"


def site_address(person: Person, rng: Random) -> str:
    """Returns the address of a personal page."""
    ending = rng.choice(SITE_ENDINGS.get(person.language, (person.language, "com")))
    name = f"{person.ascii_first}{rng.choice(('', '-'))}{person.ascii_last}"
    return rng.choice(
        (
            f"www.{name}.{ending}",
            f"https://{name}.{ending}",
            f"https://www.linkedin.com/in/{name}",
            f"{name}.{ending}/about",
            f"https://github.com/{person.ascii_first}{rng.randrange(10, 99)}",
            f"http://{name}.blogspot.com",
        )
    )


def screen_name(person: Person, rng: Random) -> str:
    """Returns a name on a platform, without a mark before it."""
    word = rng.choice(HANDLE_WORDS)
    number = rng.randrange(2, 99)
    return rng.choice(
        (
            f"{person.ascii_first}_{word}",
            f"{word}{rng.choice(HANDLE_WORDS)}{number}",
            f"x{word}x{number}",
            f"{person.ascii_first}{person.ascii_last[:2]}{number}",
            f"{word}.{person.ascii_first}",
            f"the_{word}_{number}",
        )
    )


def handle(person: Person, rng: Random) -> str:
    """Returns a screen name with the mark of its platform."""
    name = screen_name(person, rng)
    return rng.choice((f"@{name}", f"@{name}", f"u/{name}", f"{name}#{rng.randrange(1000, 9999)}"))
