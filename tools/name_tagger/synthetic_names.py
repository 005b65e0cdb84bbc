"""Generates names of people of many origins, in their usual written forms."""

from functools import cached_property
from random import Random

from trainer.anonymise.crf_ner.gazetteer import LISTS_FOLDER, fold_word, load_gazetteer, read_list

INVENTED_SHARE = 0.12
"""Share of names made of syllables, so that the tagger also learns from the context."""
WORD_SHARE = 0.08
"""Share of English names that are also words (Grace, Park), which are rare on the lists but
frequent among people.
"""
FAMILY_FIRST_SHARES = {
    "chinese": 0.6,
    "vietnamese": 0.97,
    "korean": 0.5,
    "japanese": 0.2,
    "hungarian": 0.3,
}
FREQUENT_ORIGINS = ("english", "english", "english", "vietnamese", "german", "french", "spanish")
"""Origins drawn twice as often as others."""
PARTICLES = {
    "dutch": ("van", "van der", "de", "van den", "van de", "ter"),
    "german": ("von", "zu", "von der"),
    "french": ("de", "de la", "du", "d'"),
    "spanish": ("de", "de la", "del", "de los"),
    "portuguese": ("da", "de", "dos", "do"),
    "italian": ("di", "de", "della", "dello"),
    "nordic": ("af", "von"),
    "arabic": ("al-", "El ", "Al ", "bin ", "ben ", "Abu "),
}
SYLLABLES = {
    "given": (
        "ka li mo ra ta shi be no el ma ja ri so du ni ve lo an ar is or fe gi hu ke pa zi",
        "a na n ya s lin ra o",
    ),
    "family": (
        "bar kel mor tan ver sto hal gri pen dra win fal kor lem nov rad sal tor ul zam bo che",
        "ski son ez ov er man ić sen ley ton escu ian idis nen ini eau aru ko sson vič berg oglu",
    ),
}
ORDINALS = ("II", "III", "IV", "Jr.", "Jr", "Sr.", "Jnr")
ORDINAL_SHARE = 0.04
TITLES = (
    "Mr. Mrs. Ms. Mr Mrs Ms Miss Dr. Dr Prof. Professor Doctor Sir Lord Lady Captain Sergeant "
    "Judge Sister Father Herr "
    "Frau Madame Monsieur Mme M. Señor Señora Sr. Sra. Signor Signora Dott. Mevrouw Fru Pan Paní"
).split()
NICKNAME_PARTS = (
    "x",
    "_",
    "the",
    "dark",
    "mr",
    "wolf",
    "fox",
    "pixel",
    "toast",
    "noodle",
    "gamer",
    "lord",
    "bean",
    "moss",
)


class NameGenerator:
    """Generates names, reproducible by seed."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._given = dict(read_list(LISTS_FOLDER / "given.txt"))
        self._family: dict[str, list[str]] = {}
        for origin, names in read_list(LISTS_FOLDER / "family.txt"):
            self._family.setdefault(origin, []).extend(names)
        self._vietnamese_middle = next(words for group, words in _words() if group == "middle")

    @cached_property
    def _origins(self) -> list[str]:
        return [*self._given, *FREQUENT_ORIGINS]

    def origin(self) -> str:
        """Draw the origin of a name."""
        return self._random.choice(self._origins)

    @cached_property
    def _word_names(self) -> tuple[list[str], list[str]]:
        """English given names and family names that are also words."""
        groups_of = load_gazetteer().of
        given = [name for name in self._given["english"] if "c" in groups_of(name)]
        return given, [name for name in self._family["english"] if "c" in groups_of(name)]

    def first(self, origin: str = "") -> str:
        """Generate a given name, sometimes a double one."""
        if self._random.random() < INVENTED_SHARE:
            return self._invented("given")
        if origin in ("", "english") and self._random.random() < WORD_SHARE:
            return self._random.choice(self._word_names[0])
        names = self._given[origin or self.origin()]
        name = self._random.choice(names)
        if self._random.random() < 0.03:
            return f"{name}{self._random.choice('- ')}{self._random.choice(names)}"
        return name

    def last(self, origin: str = "") -> str:
        """Generate a family name, with particles and hyphens."""
        origin = origin or self.origin()
        if self._random.random() < INVENTED_SHARE:
            return self._invented("family")
        if origin == "english" and self._random.random() < 2 * WORD_SHARE:
            return self._random.choice(self._word_names[1])
        names = self._family[origin]
        name = self._random.choice(names)
        if origin in PARTICLES and self._random.random() < (0.35 if origin == "dutch" else 0.12):
            particle = self._random.choice(PARTICLES[origin])
            return particle + name if particle[-1] in "-' " else f"{particle} {name}"
        if self._random.random() < 0.05:
            return f"{name}-{self._random.choice(names)}"
        if origin in ("spanish", "portuguese") and self._random.random() < 0.25:
            return f"{name} {self._random.choice(names)}"
        return name

    def full(self, origin: str = "") -> str:
        """Generate given and family name in the order and form of their origin."""
        origin = origin or self.origin()
        if origin == "vietnamese":
            return self.vietnamese()
        first = self.first(origin)
        last = self.last(origin)
        draw = self._random.random()
        if draw < FAMILY_FIRST_SHARES.get(origin, 0.0):
            return f"{last} {first}"
        if draw > 0.97:
            return (
                f"{first} {last}, Jr." if self._random.random() < 0.3 else f"{last.upper()} {first}"
            )
        ordinal = (
            f" {self._random.choice(ORDINALS)}" if self._random.random() < ORDINAL_SHARE else ""
        )
        return f"{first} {self._middle(origin)}{last}{ordinal}"

    def vietnamese(self) -> str:
        """Generate family name, middle names and given name."""
        family = self._random.choice(self._family["vietnamese"])
        middle = self._random.sample(self._vietnamese_middle, self._random.choice((0, 1, 1, 1, 2)))
        given = self._random.choice(self._given["vietnamese"])
        return (
            f"{given} {family}"
            if self._random.random() < 0.05
            else " ".join([family, *middle, given])
        )

    def last_first(self) -> str:
        """Generate "Family, Given" as in lists."""
        origin = self.origin()
        return (
            f"{self.last(origin)}, "
            f"{self.first(origin)}{self._random.choice(('', '', ' ' + self._initial() + '.'))}"
        )

    def initials(self) -> str:
        """Generate "J. R. Family" and similar forms."""
        dots = self._random.choice(("{0}. {1}", "{0}.{2}. {1}", "{0}. {2}. {1}", "{0} {1}"))
        return dots.format(self._initial(), self.last(), self._initial())

    def title(self) -> str:
        """Generate a title before a family name, which is not part of it."""
        return self._random.choice(TITLES)

    def nick(self) -> str:
        """Generate a nickname for a chat, which is no person's name by itself."""
        first = fold_word(self.first())
        base = self._random.choice(
            (first if first.isascii() else "", self._random.choice(NICKNAME_PARTS))
        )
        return (
            base
            + self._random.choice(NICKNAME_PARTS)
            + self._random.choice(("", "", str(self._random.randrange(100))))
        )

    def _middle(self, origin: str) -> str:
        draw = self._random.random()
        if draw < 0.14:
            return f"{self._initial()}. " if draw < 0.09 else f"{self._initial()} "
        return f"{self.first(origin)} " if draw < 0.2 else ""

    def _initial(self) -> str:
        return self._random.choice("ABCDEFGHIJKLMNOPRSTUVWYZ")

    def _invented(self, part: str) -> str:
        stems, ends = (syllables.split() for syllables in SYLLABLES[part])
        stem = "".join(self._random.choices(stems, k=self._random.choice((1, 2, 2))))
        return (stem + self._random.choice(ends)).capitalize()


def _words() -> list[tuple[str, list[str]]]:
    return list(read_list(LISTS_FOLDER / "words.txt"))
