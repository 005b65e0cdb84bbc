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
    wait wow wtf yay yeah yep yikes yo yup traceback exception error warning""".split()
)
"""What begins a sentence with a capital and is nobody, casefolded."""
TITLES = frozenset(
    "mr mrs ms miss mx dr prof sir madam captain president king queen prince princess saint aunt".split()
)
NAME_WORD = re.compile(rf"[{LATIN}][{LATIN}'’-]{{3,}}")
BEFORE = re.compile(rf"(?:[a-z,;(“\"]\s|^)(?P<word>[^\W\d_a-z][{LATIN}'’-]+) $")
IS_CJK = re.compile(f"[{CJK}]")
HAS_DIGIT = re.compile("[0-9]")
BEGINS = re.compile(r"(?:^|[.!?…:\n*_])[\s\"'“”‘’*_()-]*$")


def without_code(text: str) -> str:
    """The text with code blotted out, sign for sign: models take what stands in it for names."""
    return CODE.sub(lambda code: re.sub(r"\S", " ", code[0]), text) if "`" in text else text


def refined(text: str, spans: Iterable[Span], written: Written) -> Iterator[Span]:
    """The findings that may stand, and what follows from them."""
    kept = [_begun(text, span) for span in spans if _may_be(text, span, written)]
    yield from kept
    yield from _named_again(text, [span for span in kept if span.kind == "PERSON"])


def _may_be(text: str, span: Span, written: Written) -> bool:
    found = text[span.start : span.end]
    if IS_CJK.search(found):
        return True
    words = [word for word in WORD.findall(found) if len(word) > 1]
    signs = [vocabulary().of(word) for word in words]
    if span.kind == "STREET_ADDRESS":
        has_street = any("s" in sign or "u" in sign for sign in signs)
        return has_street or (HAS_DIGIT.search(found) is not None and any(word[0].isupper() for word in words))
    if not words or found.casefold().strip(".,!? ") in NO_NAMES | TITLES:
        return False
    if all(word.islower() for word in words) or (len(words) == 1 and found.isupper()):
        return any(map(_is_given, signs)) or (len(signs) > 1 and not any("c" in sign for sign in signs))
    if len(words) > 1 and "c" in signs[0] and all(word.islower() for word in words[1:]):
        return False
    if len(words) == 1 and BEGINS.search(text[max(0, span.start - 8) : span.start]):
        return _is_given(signs[0]) or ("c" not in signs[0] and not written.only_begins(words[0]))
    return not all("c" in sign and "g" not in sign and "f" not in sign for sign in signs)


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
