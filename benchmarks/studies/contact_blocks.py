"""Contact blocks with annotations: development texts (A) and held-out ones of other templates and
values (B).

A comes from the generator that the name tagger is trained on, with another seed. B is a file
(pii_heldout/README.md). Rules are written after reading A's errors only.
"""

import re
from collections.abc import Iterator
from itertools import islice

from benchmarks.studies.pii_corpus import (
    HELD_OUT_FOLDER,
    AnnotatedText,
    GoldSpan,
    read_annotated,
)
from tools.name_tagger.synthetic_corpus import CorpusGenerator

DEVELOPMENT_TEXTS = 600
DEVELOPMENT_SEED = 1_001
DEVELOPMENT_KINDS = {
    "P": "PERSON",
    "A": "STREET_ADDRESS",
    "N": "PHONE_NUMBER",
    "E": "EMAIL_ADDRESS",
}
KEPT_NAMES = ("Ballast", "Weighbridge Quay", "The Damp Lantern", "Skerrow", "Oda")
"""Names of the persona's world in the texts of B."""


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


def held_out_blocks() -> list[AnnotatedText]:
    """Read the texts of B; the language is the locale."""
    return read_annotated(HELD_OUT_FOLDER / "contact_blocks.jsonl")
