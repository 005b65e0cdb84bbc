"""Post-processes NER findings: drops false names, corrects boundaries, adds repeated mentions."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from trainer.anonymise.capitalisation import WORD, CapitalisationStats
from trainer.anonymise.crf_ner.gazetteer import load_gazetteer
from trainer.anonymise.language_data import CJK, ENGLISH_WORDS, LATIN, ORDINALS, UPPER, read_words
from trainer.anonymise.network_identifiers import CODE
from trainer.anonymise.spans import RANK_MODEL, EntitySpan

NON_NAME_WORDS = read_words("interjection")
"""Case-folded words that begin sentences with a capital and are no names."""
LOWERCASE_WORDS = read_words("lowercase")
"""Given names that are ordinary words in lower case: "ten miles"."""
TITLES = frozenset(
    "mr mrs ms miss mx dr prof sir madam captain president king queen prince princess saint aunt".split()
)
NAME_WORD = re.compile(rf"[{LATIN}][{LATIN}'’-]{{3,}}")
NAME_PREFIX = re.compile(
    rf"(?:(?i:mr|mrs|ms|miss|mx|dr|prof|professor|sir|madam|mister|captain)(?![{LATIN}'’-])|"
    rf"(?i:(?:i['’]m|i['’](?:ve|ll|d)|(?:you|we|they)['’](?:re|ve|ll)|(?:he|she|it|that|here|this|who|what)['’]s)(?![{LATIN}])|"
    rf"(?:hey|hi|hello|dear|thanks)(?![{LATIN}'’-])))[.,!]?\s*"
)
"""Text before a name that is not part of it."""
PLACE_NAME = re.compile(
    r"German [Ss]hepherd|H[oồ] Ch[ií] Minh(?: City)?|(?:San|Santa|New|Saint|St\.?) [A-Z][a-z]+ City"
)
"""Things with names like people: dogs, cities."""
NON_ADDRESS_SIGNS = re.compile(
    r"[\[\]{}<>=|\\]|^(?:gate|exit|level|page|line|stage|round|bus|platform|track|part|step|day|chapter|lap) "
    r"[0-9]+ [a-z]+$"
)
"""Characters of code and numbering, which are not in addresses."""
COMMON_WORD_GROUPS = frozenset("cwz")
"""Signs of word groups: English, Vietnamese, and Vietnamese without diacritics."""
NON_PERSON_GROUPS = frozenset("cmnoby")
PRECEDING_WORD = re.compile(rf"(?:[a-z,;(“\"]\s|^)(?P<word>[^\W\d_a-z][{LATIN}'’-]+) $")
IS_CJK = re.compile(f"[{CJK}]")
BARE_UNIT = re.compile(r"(?:[\s,]*(?:level|floor|room|stage|gate|hall|exit)\s[0-9]{1,4}[a-z]?)+\s*", re.IGNORECASE)
"""Rooms without a street: of a game, or of a building that the text does not name."""
TWO_DISTRICTS = re.compile("(quận|phường|huyện|xã|tỉnh) .* \\1 ", re.IGNORECASE)
PARTICLES = (
    "van(?: de[nr]?| het| ['’]t)?|von(?: der)?|zu[mr]?|af|te[rn]|de(?: l[ao]s?|n|r)?|del(?:la|lo)?|d[aiou]s?|e[ln]|"
    "bin|ibn|al"
)
NAME_TAIL = re.compile(rf"(?: (?:{PARTICLES}) (?P<word>[{UPPER}][{LATIN}'’-]+)|,? (?:{ORDINALS})(?![{LATIN}0-9]))")
"""The continuation of a name: a particle with the rest of the name, or an ordinal."""
LAST_PARTICLE = re.compile(rf" (?:{PARTICLES})$")
NAME_LEAD = re.compile(rf"(?<![{LATIN}])(?:van(?: de[nr]?)?|von(?: der)?|af|te[rn]) $")
PLACE_SIGNS = frozenset("ynr")
LEGAL_FORMS = (
    r"ApS|A/S|AB|HB|ASA|Oyj?|B\.?V\.?|N\.V\.|VOF|Kft|Zrt|Nyrt|Bt|s\.\s?r\.\s?o|a\.\s?s|k\.\s?s|[Ss]p\. ?z ?o|j?d\.o\.o|"
    r"S\.?R\.?L|S\.r\.l|s\.r\.l|s\.n\.c|S\.A|SARL|SAS|SpA|S\.p\.A|S\.L|Lda|Ltda|GmbH|mbH|KG|KGaA|OHG|AG|e\.K|plc|PLC|"
    r"LLP|LLC|Ltd|Inc|Corp|Pty|Group|CommV|ehf|Α\.?Ε|ΕΠΕ"
)
SONS = "Sons|Søn|Sønner|Söner|Söhne|Fils|Figli|Hijos|Filhos|Zonen|Társa|Synowie|synové"
COMPANY_AFTER = re.compile(
    rf",? (?:(?:{LEGAL_FORMS})(?![^\W\d_])|(?:AS|SA|SE|SCS|SNC) ?(?:$|[\n|,•·])|"
    rf"(?:&|and|et|e|y|og|och|és|i|a) (?:{SONS})(?![^\W\d_]))"
)
"""The continuation of a company's name: a legal form, or "and Sons"."""
HAS_DIGIT = re.compile("[0-9]")
SENTENCE_START = re.compile(r"(?:^|[.!?…:\n*_])[\s\"'“”‘’*_()-]*$")


def blank_code(text: str) -> str:
    """Blank out code character by character: models mistake identifiers for names."""
    return CODE.sub(lambda code: re.sub(r"\S", " ", code[0]), text) if "`" in text else text


def refine_findings(
    text: str, spans: Iterable[EntitySpan], capitalisation: CapitalisationStats
) -> Iterator[EntitySpan]:
    """Return the plausible findings and further mentions that follow from them."""
    stripped = filter(None, (_strip_prefix(text, span) for span in spans))
    plausible = [_extend(text, span) for span in stripped if _is_plausible(text, span, capitalisation)]
    yield from plausible
    yield from _repeated_mentions(text, [span for span in plausible if span.kind == "PERSON"])


def _strip_prefix(text: str, span: EntitySpan) -> EntitySpan | None:
    """Remove a title or "I'm" before the name; None if nothing remains."""
    if span.kind != "PERSON":
        return span
    start = span.start
    while lead := NAME_PREFIX.match(text, start, span.end):
        start = lead.end()
    return replace(span, start=start) if start < span.end else None


def _is_plausible(text: str, span: EntitySpan, capitalisation: CapitalisationStats) -> bool:
    found = text[span.start : span.end]
    if IS_CJK.search(found):
        return True
    words = [word for word in WORD.findall(found) if len(word) > 1]
    signs = [load_gazetteer().of(word) for word in words]
    if span.kind == "STREET_ADDRESS":
        sign = NON_ADDRESS_SIGNS.search(found) or BARE_UNIT.fullmatch(found) or TWO_DISTRICTS.search(found)
        if sign or (len(words) < 3 and found.islower() and not HAS_DIGIT.search(found)):
            return False
        has_street = any("s" in sign or "u" in sign for sign in signs)
        return has_street or (HAS_DIGIT.search(found) is not None and any(word[0].isupper() for word in words))
    if (
        COMPANY_AFTER.match(text, span.end)
        or _is_place(text, span)
        or found in LOWERCASE_WORDS
        or all(word.casefold() in NON_NAME_WORDS | TITLES for word in words)
    ):
        return False
    if all(word.islower() for word in words) or (len(words) == 1 and found.isupper()):
        return any(map(_is_given, signs)) or (
            len(signs) > 1 and not any(map(COMMON_WORD_GROUPS.intersection, signs)) and " " in found
        )
    if len(words) > 1 and COMMON_WORD_GROUPS.intersection(signs[0]) and all(word.islower() for word in words[1:]):
        return False
    if len(words) == 1 and SENTENCE_START.search(text[max(0, span.start - 8) : span.start]):
        is_other = NON_PERSON_GROUPS.intersection(signs[0]) or capitalisation.only_begins(words[0])
        return _is_given(signs[0]) or not is_other
    return not all(NON_PERSON_GROUPS.intersection(sign) and "g" not in sign and "f" not in sign for sign in signs)


def _is_place(text: str, span: EntitySpan) -> bool:
    around = PLACE_NAME.finditer(text, max(0, span.start - 16), min(len(text), span.end + 16))
    return any(position.start() < span.end and span.start < position.end() for position in around)


def _is_given(sign: str) -> bool:
    """Return True for a given name that is not also a word."""
    return "g" in sign and "c" not in sign


def _extend(text: str, span: EntitySpan) -> EntitySpan:
    """Extend a person to particles with the words they join, to ordinals, and to a name before."""
    span = _extend_left(text, span)
    if span.kind != "PERSON" or not text[span.start].isupper():
        return span
    start, end = span.start, span.end
    if lead := NAME_LEAD.search(text, max(0, start - 12), start):
        start = lead.start()
    if (cut := LAST_PARTICLE.search(text, start, end)) and NAME_TAIL.match(text, cut.start()):
        end = cut.start()
    while tail := NAME_TAIL.match(text, end):
        if tail["word"] and PLACE_SIGNS.intersection(load_gazetteer().of(tail["word"])):
            break
        end = tail.end()
    return replace(span, start=start, end=end)


def _extend_left(text: str, span: EntitySpan) -> EntitySpan:
    """Extend a person to the preceding word if it is capitalised inside a sentence and no word or title."""
    if span.kind != "PERSON" or not text[span.start].isupper():
        return span
    match = PRECEDING_WORD.search(text[max(0, span.start - 32) : span.start])
    if not match or match.start("word") == 0:
        return span
    word = match["word"]
    if word.casefold() in ENGLISH_WORDS | TITLES | NON_NAME_WORDS or word.endswith(("'s", "’s")):
        return span
    return span if NAME_PREFIX.match(word) else replace(span, start=span.start - len(word) - 1)


def _repeated_mentions(text: str, people: list[EntitySpan]) -> Iterator[EntitySpan]:
    words = {word for span in people for word in NAME_WORD.findall(text[span.start : span.end])}
    for word in words:
        if word.casefold() in ENGLISH_WORDS or text.count(word) < 2:
            continue
        for match in re.finditer(rf"(?<![{LATIN}0-9_@/.]){re.escape(word)}(?![{LATIN}0-9_@/])", text):
            yield EntitySpan("PERSON", *match.span(), RANK_MODEL)
