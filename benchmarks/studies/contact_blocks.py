"""Generates contact blocks with annotations: development texts (A) and held-out ones of other
templates and values (B).

A comes from the generator that the name tagger is trained on, with another seed. B has templates of
its own (contact_blocks.toml), and values of Faker in 26 locales. Rules are written after reading
A's errors only.
"""

import re
import tomllib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.studies.pii_corpus import OPTIONAL_KIND, AnnotatedText, GoldSpan, parse_annotations
from tools.name_tagger.synthetic_corpus import CorpusGenerator

TEMPLATES_FILE = Path(__file__).with_name("contact_blocks.toml")
CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{([a-z]+)([0-9]?)\}")
BLOCKS_PER_LOCALE = 24
EMPTY_PER_LOCALE = 8
DEVELOPMENT_TEXTS = 600
DEVELOPMENT_SEED = 1_001
HELD_OUT_SEED = 2_002
DEVELOPMENT_KINDS = {
    "P": "PERSON",
    "A": "STREET_ADDRESS",
    "N": "PHONE_NUMBER",
    "E": "EMAIL_ADDRESS",
}
PARTICLE_SHARE = 0.3
ORDINAL_SHARE = 0.15
FAMILY_FIRST_LOCALES = ("hu_HU",)


def development_blocks(
    count: int = DEVELOPMENT_TEXTS, seed: int = DEVELOPMENT_SEED
) -> list[AnnotatedText]:
    """Generate the texts of A; the language is the country of the address."""
    found = []
    for country, text in islice(CorpusGenerator(seed).blocks(), count):
        gold = []
        for label, start, end in text.spans:
            if label not in DEVELOPMENT_KINDS:
                continue
            for line_start, line_end in _lines_within(text.text, start, end):
                gold.append(GoldSpan(DEVELOPMENT_KINDS[label], line_start, line_end))
        found.append(AnnotatedText(country, text.text, tuple(gold)))
    return found


def _lines_within(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Split a span into its lines, without quotation marks and spaces around them."""
    for match in re.finditer(r"[^\n\s>|*?-][^\n]*[^\n\s]", text[start:end]):
        yield start + match.start(), start + match.end()


def held_out_blocks(seed: int = HELD_OUT_SEED) -> list[AnnotatedText]:
    """Generate the texts of B; the language is the locale."""
    material = tomllib.loads(TEMPLATES_FILE.read_text(encoding="utf-8"))
    random = Random(seed)
    found = []
    for locale, words in material["locales"].items():
        values = _LocaleValues(locale, words, material, random)
        templates = [random.choice(material["templates"]) for _ in range(BLOCKS_PER_LOCALE)]
        templates += random.sample(material["empty"], EMPTY_PER_LOCALE)
        for template in templates:
            text, gold = parse_annotations(values.fill(template))
            found.append(AnnotatedText(locale, text, gold))
    return found


def kept_names() -> tuple[str, ...]:
    """Names of the persona's world in the texts of B."""
    return tuple(tomllib.loads(TEMPLATES_FILE.read_text(encoding="utf-8"))["names_kept"])


class _LocaleValues:
    """Fills templates with annotated values of one locale; a text has one main person, address and
    country.
    """

    def __init__(
        self, locale: str, words: dict[str, Any], material: dict[str, Any], random: Random
    ) -> None:
        self._locale = locale
        self._words = words
        self._bodies = material["bodies"]
        self._random = random
        from faker import Faker  # type: ignore[import-not-found, unused-ignore]  # of the extra "dev"; 0.3 s

        self._faker = Faker(locale)
        self._faker.seed_instance(random.randrange(1 << 30))

    def fill(self, template: str) -> str:
        """Return the template with choices made and slots filled."""
        faker = self._faker
        plain = {
            **self._words["words"],
            "unit": self._random.choice(self._words["units"]),
            "street": faker.street_address(),
            "town": self._town(),
            "country": self._words["country"],
            "name": self._name(),
            "other": self._name(),
            "third": self._name(),
            "first": faker.first_name(),
            "job": faker.job(),
            "company": faker.company(),
            "date": faker.date(self._random.choice(("%d.%m.%Y", "%Y-%m-%d", "%d/%m/%Y"))),
        }
        plain |= {"low" + slot: plain[slot].lower() for slot in ("name", "street", "town")}
        plain |= {
            "cap" + slot: plain[slot].upper() for slot in ("name", "street", "town", "country")
        }
        while "{body}" in template:
            template = template.replace("{body}", self._random.choice(self._bodies), 1)
        return SLOT.sub(
            lambda match: self._annotated(match[1], match[2], plain), self._chosen(template)
        )

    def _annotated(self, slot: str, digits: str, plain: dict[str, str]) -> str:
        if slot == "n":
            return "".join(self._random.choices("123456789", k=int(digits)))
        if slot in ("phone", "email"):
            value = (
                self._faker.phone_number() if slot == "phone" else self._faker.ascii_safe_email()
            )
            return _annotate({"phone": "PHONE_NUMBER", "email": "EMAIL_ADDRESS"}[slot], value)
        what = slot.removeprefix("low").removeprefix("cap")
        if what in ("name", "other", "third", "first"):
            return _annotate("PERSON", plain[slot])
        if what in ("street", "unit", "town"):
            return _annotate("STREET_ADDRESS", plain[slot])
        return _annotate(OPTIONAL_KIND, plain[slot]) if what == "country" else plain[slot]

    def _name(self) -> str:
        first = self._faker.first_name()
        last = self._faker.last_name()
        if "particles" in self._words and self._random.random() < PARTICLE_SHARE:
            particle = self._random.choice(self._words["particles"])
            last = f"{particle} {last.split()[-1]}".replace("' ", "'")
        if "ordinals" in self._words and self._random.random() < ORDINAL_SHARE:
            last += f" {self._random.choice(self._words['ordinals'])}"
        return f"{last} {first}" if self._locale in FAMILY_FIRST_LOCALES else f"{first} {last}"

    def _town(self) -> str:
        faker = self._faker
        region = getattr(faker, "province_abbr" if self._locale == "en_CA" else "state_abbr", str)()
        town = self._chosen(self._words["town"])
        return (
            town.replace("{code}", faker.postcode())
            .replace("{city}", faker.city())
            .replace("{state}", region)
        )

    def _chosen(self, template: str) -> str:
        while match := CHOICE.search(template):
            template = (
                template[: match.start()]
                + self._random.choice(match[1].split("|"))
                + template[match.end() :]
            )
        return template


def _annotate(kind: str, value: str) -> str:
    """Mark each line of a value."""
    return "\n".join(f"{{{kind}:{line.strip()}}}" for line in value.split("\n"))
