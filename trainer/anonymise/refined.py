"""A model's findings, mended by what holds of names in general: what is no name, where a name begins, and that whoever
is named once in a text is meant by the same word elsewhere in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from trainer.anonymise.bounds import CJK, LATIN
from trainer.anonymise.entity import BY_MODEL, Span
from trainer.anonymise.network import CODE
from trainer.anonymise.tagger.vocabulary import vocabulary
from trainer.anonymise.words import ENGLISH
from trainer.anonymise.written import WORD, Written

NO_NAMES = frozenset(
    """ah aha alas anyway aw aye bah c'mon cheers come'on congrats damn dang dear er gee gosh ha haha hah hello hey hi
    hm hmm huh lol meh nah nope oh okay ok omg ooh oops ouch ow phew please sorry thanks thx tsk ugh uh uhm um
    wait wow wtf yay yeah yep yikes yo yup traceback exception error warning apis openai chatgpt gpt vicuna
    alpaca llama christmas easter halloween""".split()
)
"""What begins a sentence with a capital and is nobody, casefolded."""
TITLES = frozenset(
    "mr mrs ms miss mx dr prof sir madam captain president king queen prince princess saint aunt".split()
)
NAME_WORD = re.compile(rf"[{LATIN}][{LATIN}'’-]{{3,}}")
LEAD = re.compile(
    rf"(?:(?i:mr|mrs|ms|miss|mx|dr|prof|professor|sir|madam|mister|captain)(?![{LATIN}'’-])|"
    rf"(?i:(?:i['’]m|i['’](?:ve|ll|d)|(?:you|we|they)['’](?:re|ve|ll)|(?:he|she|it|that|here|this|who|what)['’]s)(?![{LATIN}])|"
    rf"(?:hey|hi|hello|dear|thanks)(?![{LATIN}'’-])))[.,!]?\s*"
)
"""What stands before a name and is no part of it."""
PLACE = re.compile(r"German [Ss]hepherd|H[oồ] Ch[ií] Minh(?: City)?|(?:San|Santa|New|Saint|St\.?) [A-Z][a-z]+ City")
"""What is called like somebody: a dog, cities."""
NO_STREET = re.compile(
    r"[\[\]{}<>=|\\]|^(?:gate|exit|level|page|line|stage|round|bus|platform|track|part|step|day|chapter|lap) "
    r"[0-9]+ [a-z]+$"
)
"""In what is no address: code, and what is numbered."""
COMMON = frozenset("cwz")
"""Signs of words: English, Vietnamese, and Vietnamese in plain letters."""
NO_PERSON = frozenset("cmnoby")
BEFORE = re.compile(rf"(?:[a-z,;(“\"]\s|^)(?P<word>[^\W\d_a-z][{LATIN}'’-]+) $")
IS_CJK = re.compile(f"[{CJK}]")
HAS_DIGIT = re.compile("[0-9]")
BEGINS = re.compile(r"(?:^|[.!?…:\n*_])[\s\"'“”‘’*_()-]*$")


def without_code(text: str) -> str:
    """The text with code blotted out, sign for sign: models take what stands in it for names."""
    return CODE.sub(lambda code: re.sub(r"\S", " ", code[0]), text) if "`" in text else text


def refined(text: str, spans: Iterable[Span], written: Written) -> Iterator[Span]:
    """The findings that may stand, and what follows from them."""
    bare = (_without_lead(text, span) for span in spans)
    kept = [_begun(text, span) for span in bare if span and _may_be(text, span, written)]
    yield from kept
    yield from _named_again(text, [span for span in kept if span.kind == "PERSON"])


def _without_lead(text: str, span: Span) -> Span | None:
    """A person without the title and the "I'm" before the name; None where there is nothing more."""
    if span.kind != "PERSON":
        return span
    start = span.start
    while lead := LEAD.match(text, start, span.end):
        start = lead.end()
    return Span(span.kind, start, span.end, span.rank) if start < span.end else None


def _may_be(text: str, span: Span, written: Written) -> bool:
    found = text[span.start : span.end]
    if IS_CJK.search(found):
        return True
    words = [word for word in WORD.findall(found) if len(word) > 1]
    signs = [vocabulary().of(word) for word in words]
    if span.kind == "STREET_ADDRESS":
        if NO_STREET.search(found):
            return False
        has_street = any("s" in sign or "u" in sign for sign in signs)
        return has_street or (HAS_DIGIT.search(found) is not None and any(word[0].isupper() for word in words))
    if _is_place(text, span) or all(word.casefold() in NO_NAMES | TITLES for word in words):
        return False
    if all(word.islower() for word in words) or (len(words) == 1 and found.isupper()):
        return any(map(_is_given, signs)) or (
            len(signs) > 1 and not any(map(COMMON.intersection, signs)) and " " in found
        )
    if len(words) > 1 and COMMON.intersection(signs[0]) and all(word.islower() for word in words[1:]):
        return False
    if len(words) == 1 and BEGINS.search(text[max(0, span.start - 8) : span.start]):
        return _is_given(signs[0]) or (not NO_PERSON.intersection(signs[0]) and not written.only_begins(words[0]))
    return not all(NO_PERSON.intersection(sign) and "g" not in sign and "f" not in sign for sign in signs)


def _is_place(text: str, span: Span) -> bool:
    around = PLACE.finditer(text, max(0, span.start - 16), min(len(text), span.end + 16))
    return any(place.start() < span.end and span.start < place.end() for place in around)


def _is_given(sign: str) -> bool:
    """Whether a word is a given name and no word besides."""
    return "g" in sign and "c" not in sign


def _begun(text: str, span: Span) -> Span:
    """A person with the word before, where that has a capital inside a sentence and is no word or title."""
    if span.kind != "PERSON" or not text[span.start].isupper():
        return span
    match = BEFORE.search(text[max(0, span.start - 32) : span.start])
    if (
        not match
        or match["word"].endswith(("'s", "’s"))
        or match["word"].casefold() in ENGLISH | TITLES | NO_NAMES
        or match.start("word") == 0
        or LEAD.match(match["word"])
    ):
        return span
    return Span(span.kind, span.start - len(match["word"]) - 1, span.end, span.rank)


def _named_again(text: str, people: list[Span]) -> Iterator[Span]:
    words = {word for span in people for word in NAME_WORD.findall(text[span.start : span.end])}
    for word in words:
        if word.casefold() in ENGLISH or text.count(word) < 2:
            continue
        for match in re.finditer(rf"(?<![{LATIN}0-9_@/.]){re.escape(word)}(?![{LATIN}0-9_@/])", text):
            yield Span("PERSON", *match.span(), BY_MODEL)
