"""Texts of `benchmarks.studies.pii_heldout` as annotated texts; maps its labels to the anonymiser's
kinds.
"""

from collections.abc import Iterator

from benchmarks.studies.pii_corpus import OPTIONAL_KIND, AnnotatedText, GoldSpan
from benchmarks.studies.pii_heldout.writing.generation import generate_texts
from benchmarks.studies.pii_heldout.writing.labels import LABELS

HELD_OUT_SEED = 2
HELD_OUT_TEXTS = 2_000
OPTIONAL_LABELS = frozenset(("PLACE", "DATE_OF_BIRTH"))
"""Labels that may be replaced and need not be: the anonymiser keeps towns and dates on purpose
(docs/privacy.md).
"""
LABEL_OF_KIND = {
    "STREET_ADDRESS": "ADDRESS",
    "EMAIL_ADDRESS": "EMAIL",
    "PHONE_NUMBER": "PHONE",
    "IP_ADDRESS": "IP",
    "IBAN_CODE": "IBAN",
    "CREDIT_CARD": "CARD",
    "DISCORD_ID": "HANDLE",
    **dict.fromkeys(("US_SSN", "VN_ID", "CN_ID", "JP_MY_NUMBER", "PASSPORT", "ID_NUMBER"), "ID"),
}
"""Labels by the anonymiser's kinds; `PERSON` and `HANDLE` have the same name in both."""
COUNTED_LABELS = tuple(label for label in LABELS if label not in OPTIONAL_LABELS)


def read_held_out(seed: int = HELD_OUT_SEED, count: int = HELD_OUT_TEXTS) -> list[AnnotatedText]:
    """Generate `count` texts and annotate them, with the labels as kinds; the same seed gives the
    same texts.
    """
    annotated = []
    for drawn in generate_texts(seed, count):
        text = drawn["text"]
        gold = [
            part
            for span in drawn["spans"]
            for part in _golds(text, span["label"], span["start"], span["end"])
        ]
        annotated.append(AnnotatedText(drawn["language"], text, tuple(gold)))
    return annotated


def _golds(text: str, label: str, start: int, end: int) -> Iterator[GoldSpan]:
    """Yield the span, or for an address of a page what names somebody in it, with the rest as
    optional.
    """
    if label in OPTIONAL_LABELS:
        yield GoldSpan(OPTIONAL_KIND, start, end)
    elif label == "URL":
        first, last = naming_part(text[start:end])
        yield GoldSpan(OPTIONAL_KIND, start, end)
        yield GoldSpan(label, start + first, start + last)
    else:
        yield GoldSpan(label, start, end)


def naming_part(address: str) -> tuple[int, int]:
    """Return begin and end of the last part of a URL's path, or without a path of its host without
    `www` and ending.

    The anonymiser replaces only this part: `t.me/mina` becomes `t.me/` with another name.
    """
    start = address.find("://") + 3 if "://" in address else 0
    whole = address.rstrip("/")
    if "/" in whole[start:]:
        last = whole.rindex("/") + 1
        return last + len(whole[last:]) - len(whole[last:].lstrip("@~")), len(whole)
    start += 4 if whole[start:].lower().startswith("www.") else 0
    return start, whole.rindex(".") if "." in whole[start:] else len(whole)
