"""Post-processes NER findings: drops false names, corrects boundaries, adds repeated mentions."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from trainer.anonymise.capitalisation import WORD, CapitalisationStats
from trainer.anonymise.crf_ner.gazetteer import load_gazetteer
from trainer.anonymise.language_data import (
    ENGLISH_WORDS,
    IS_CJK,
    LATIN,
    ORDINALS,
    UPPER,
    language_of,
    read_words,
)
from trainer.anonymise.network_identifiers import CODE
from trainer.anonymise.spans import RANK_MODEL, EntitySpan
from trainer.languages import UNDECIDED

NON_NAME_WORDS = read_words("interjection")
"""Case-folded words that begin sentences with a capital and are no names."""
FICTION = frozenset(name.replace("_", " ").casefold() for name in read_words("fiction"))
"""Characters of books, films, series and games, case-folded."""
LOWERCASE_WORDS = read_words("lowercase")
"""Given names that are ordinary words in lower case: "ten miles"."""
FIRST_OF_ALL_WORDS = read_words("word-first")
"""Given names that begin an English sentence as a word rather than as a name."""
REST_OF_FIELD = re.compile(r"[ \t]*(?:\n|$)")
MIN_JUDGED_WORDS = 3
"""Number of words that show whether the lists know the language of a line."""
TAGGED_LANGUAGES = ("en", "vi")
"""Languages of the sentences that the tagger is trained on."""
TITLES = frozenset(
    "mr mrs ms miss mx dr prof sir madam captain president king queen prince princess saint "
    "aunt".split()
)
NAME_WORD = re.compile(rf"[{LATIN}][{LATIN}'’-]{{3,}}")
NAME_PREFIX = re.compile(
    rf"(?:(?i:mr|mrs|ms|miss|mx|dr|prof|professor|sir|madam|mister|captain|herrn?|frau|familie|"
    rf"monsieur|madame|mme|mlle|señora?|"
    rf"sra|signora?|sig|dott|mevrouw|mevr|meneer|dhr|mw|fru|hr|pani?|państwo|senhora?|dona|doña|"
    rf"don|familien?|famille|familia|"
    rf"κύριος|κύριε|κυρία|κα)(?![{LATIN}'’-])|"
    rf"(?i:(?:i['’]m|i['’](?:ve|ll|d)|(?:you|we|they)['’](?:re|ve|ll)|(?:he|she|it|that|here|this|"
    rf"who|what)['’]s)(?![{LATIN}])|"
    rf"(?:hey|hi|hello|dear|thanks)(?![{LATIN}'’-])))[.,!]?\s*"
)
"""Text before a name that is not part of it."""
PLACE_NAME = re.compile(
    r"German [Ss]hepherd|H[oồ] Ch[ií] Minh(?: City)?|(?:San|Santa|New|Saint|St\.?) [A-Z][a-z]+ City"
)
"""Things with names like people: dogs, cities."""
NON_ADDRESS_SIGNS = re.compile(
    r"[\[\]{}<>=|\\]|^(?:gate|exit|level|page|line|stage|round|bus|platform|track|part|step|day|"
    r"chapter|lap) "
    r"[0-9]+ [a-z]+$"
)
"""Characters of code and numbering, which are not in addresses."""
COMMON_WORD_GROUPS = frozenset("cwze")
"""Signs of word groups: English, Vietnamese, and Vietnamese without diacritics."""
NON_PERSON_GROUPS = frozenset("cmnobye")
ADDRESS_WORD_GROUPS = frozenset("cem")
"""Signs of words that name no street by themselves: "Table Settings 12"."""
PRECEDING_WORD = re.compile(rf"(?:[a-z,;(“\"]\s|^)(?P<word>[^\W\d_a-z][{LATIN}'’-]+) $")
BARE_UNIT = re.compile(
    r"(?:[\s,]*(?:level|floor|room|stage|gate|hall|exit)\s[0-9]{1,4}[a-z]?)+\s*",
    re.IGNORECASE,
)
"""Rooms without a street: of a game, or of a building that the text does not name."""
TWO_DISTRICTS = re.compile("(quận|phường|huyện|xã|tỉnh) .* \\1 ", re.IGNORECASE)
PARTICLES = (
    "van(?: de[nr]?| het| ['’]t)?|von(?: der)?|zu[mr]?|af|te[rn]|de(?: l[ao]s?|n|r)?|del(?:la|"
    "lo)?|d[aiou]s?|e[ln]|"
    "bin|ibn|al"
)
NAME_TAIL = re.compile(
    rf"(?: (?:{PARTICLES}) (?P<word>[{UPPER}][{LATIN}'’-]+)|,? (?:{ORDINALS})(?![{LATIN}0-9]))"
)
"""The continuation of a name: a particle with the rest of the name, or an ordinal."""
LAST_PARTICLE = re.compile(rf" (?:{PARTICLES})$")
NAME_LEAD = re.compile(rf"(?<![{LATIN}])(?:van(?: de[nr]?)?|von(?: der)?|af|te[rn]) $")
PLACE_SIGNS = frozenset("ynr")
LEGAL_FORMS = (
    r"ApS|A/S|AB|HB|ASA|Oyj?|B\.?V\.?|N\.V\.|VOF|Kft|Zrt|Nyrt|Bt|s\.\s?r\.\s?o|a\.\s?s|k\.\s?s|"
    r"[Ss]p\. ?z ?o|j?d\.o\.o|"
    r"S\.?R\.?L|S\.r\.l|s\.r\.l|s\.n\.c|S\.A|SARL|SAS|SpA|S\.p\.A|S\.L|Lda|Ltda|GmbH|mbH|KG|KGaA|"
    r"OHG|AG|e\.K|plc|PLC|"
    r"LLP|LLC|Ltd|Inc|Corp|Pty|Group|CommV|ehf|Α\.?Ε|ΕΠΕ"
)
SONS = "Sons|Søn|Sønner|Söner|Söhne|Fils|Figli|Hijos|Filhos|Zonen|Társa|Synowie|synové"
COMPANY_AFTER = re.compile(
    rf",? (?:(?:{LEGAL_FORMS})(?![^\W\d_])|(?:AS|SA|SE|SCS|SNC) ?(?:$|[\n|,•·])|"
    rf"(?:&|and|et|e|y|og|och|és|i|a) (?:{SONS})(?![^\W\d_]))"
)
"""The continuation of a company's name: a legal form, or "and Sons"."""
HAS_DIGIT = re.compile("[0-9]")
LIST_BEFORE = re.compile(rf"[{UPPER}][{LATIN}'’-]+,\s$")
LIST_AFTER = re.compile(
    rf"(?:,| and| or| &| und| et| y| e| en| og| i)\s[{UPPER}]|, (?:and|or|und|et|y|e|en|og|i) "
)
GERMAN_NAME_CUE = re.compile(
    r"(?:hei(?:ß|ss)e|hei(?:ß|ss)t|namens|bin|name ist|[Hh]errn?|[Ff]rau|[Ff]amilie|[Oo]nkel|"
    r"[Tt]ante|Gruß|grüßt|Bruder|Schwester|Sohn|"
    r"Tochter|Freund|Freundin|Nachbar|Nachbarin|Chef|Chefin|Mutter|Vater|Frau|Mann|hallo|hi|hey|"
    r"danke),? $"
)
CORNER_JOINT = re.compile(r" (?:and|und|et|y|con|e|en|og|och|i) |[&/]|(?i:corner)")
LIST_COMMA = re.compile(rf",\s*(?!(?:{ORDINALS})(?![{LATIN}]))(?=\S)")
AND_CAPITAL = re.compile(rf" (?:and|&) [{UPPER}]")
SENTENCE_START = re.compile(r"(?:^|[.!?…:\n*_])[\s\"'“”‘’*_()-]*$")


def blank_code(text: str) -> str:
    """Blank out code character by character: models mistake identifiers for names."""
    return CODE.sub(lambda code: re.sub(r"\S", " ", code[0]), text) if "`" in text else text


def refine_findings(
    text: str, spans: Iterable[EntitySpan], capitalisation: CapitalisationStats
) -> Iterator[EntitySpan]:
    """Return the plausible findings and further mentions that follow from them."""
    plausible: list[EntitySpan] = []
    for span in spans:
        for part in _split_list(text, span):
            stripped = _strip_words(text, _strip_prefix(text, part))
            if stripped and _is_plausible(text, stripped, capitalisation):
                plausible.append(_extend(text, stripped))
    yield from plausible
    yield from _repeated_mentions(text, [span for span in plausible if span.kind == "PERSON"])


def _split_list(text: str, span: EntitySpan) -> Iterator[EntitySpan]:
    """Split a list of people at its commas; "Lee, Ann" and "Ann Lee, Jr." are one person."""
    if span.kind != "PERSON" or "," not in text[span.start : span.end]:
        yield span
        return
    commas = list(LIST_COMMA.finditer(text, span.start, span.end))
    if len(commas) == 1:
        # "Ann, Lee" are two people if the first word is a given name, and no surname unless more
        # names stand beside them.
        signs = load_gazetteer().of(text[span.start : commas[0].start()])
        is_in_list = LIST_BEFORE.search(
            text, max(0, span.start - 24), span.start
        ) or LIST_AFTER.match(text, span.end)
        if "g" not in signs or ("f" in signs and not is_in_list):
            yield span
            return
    start = span.start
    for comma in commas:
        yield replace(span, start=start, end=comma.start())
        start = comma.end()
    yield replace(span, start=start)


def _strip_prefix(text: str, span: EntitySpan) -> EntitySpan | None:
    """Remove a title or "I'm" before the name; None if nothing remains."""
    if span.kind != "PERSON":
        return span
    start = span.start
    lead = NAME_PREFIX.match(text, start, span.end)
    while lead:
        start = lead.end()
        lead = NAME_PREFIX.match(text, start, span.end)
    return replace(span, start=start) if start < span.end else None


def _strip_words(text: str, span: EntitySpan | None) -> EntitySpan | None:
    """Cut common words off both ends of a person: "Kontakt Bjarte", "Kowalczyk melden"."""
    if span is None or span.kind != "PERSON" or not text[span.start].isupper():
        return span
    words = list(WORD.finditer(text, span.start, span.end))
    if not words:
        return span
    if any(word[0][0].isupper() for word in words[1:]):
        while len(words) > 1 and _is_common(words[0][0]) and text[words[0].end()].isspace():
            del words[0]
    while len(words) > 1 and _is_appended(words[-1][0]):
        del words[-1]
    last_letter = span.start + len(text[span.start : span.end].rstrip(" .,;:!?'’\"-"))
    end = words[-1].end()
    # The full stop of an abbreviation, and other signs after the last word, stay part of the name.
    if end == last_letter:
        end = span.end
    return replace(span, start=words[0].start(), end=end)


def _is_common(word: str) -> bool:
    """Return True for a common word that is neither a name nor a title."""
    signs = {*load_gazetteer().of(word)}
    return bool(signs & {"c", "e"}) and not signs & {"g", "f", "p", "t"}


def _is_appended(word: str) -> bool:
    """Return True for a word in lower case that is on no list of names or their particles."""
    if not word.islower() or len(word) < 3:
        return False
    return not {"g", "f", "p"} & {*load_gazetteer().of(word)}


def _is_plausible(text: str, span: EntitySpan, capitalisation: CapitalisationStats) -> bool:
    found = text[span.start : span.end]
    if IS_CJK.search(found):
        return True
    words = [word for word in WORD.findall(found) if len(word) > 1]
    signs = [load_gazetteer().of(word) for word in words]
    if span.kind == "STREET_ADDRESS":
        return _is_address(found, words, signs)
    if _is_no_person(text, span, words, signs=signs):
        return False
    if all(word.islower() for word in words) or (len(words) == 1 and found.isupper()):
        # Without a capital that says something, only lists of names can.
        line = _line_around(text, span)
        if line != line.lower() and not _is_tagged_language(text, line):
            return False
        if any(map(_is_given, signs)):
            return True
        are_unknown = not any(map(COMMON_WORD_GROUPS.intersection, signs))
        return len(signs) > 1 and are_unknown and " " in found and _are_words_known(line)
    is_capital_alone = all(word.islower() for word in words[1:])
    if len(words) > 1 and COMMON_WORD_GROUPS.intersection(signs[0]) and is_capital_alone:
        return False
    if len(words) == 1 and SENTENCE_START.search(text[max(0, span.start - 8) : span.start]):
        return _is_name_at_start(text, span, words[0], capitalisation=capitalisation)
    return not all(map(_is_other_word, signs))


def _is_name_at_start(
    text: str, span: EntitySpan, word: str, *, capitalisation: CapitalisationStats
) -> bool:
    """Return True unless a sentence begins with a word: there, any of them has a capital."""
    sign = load_gazetteer().of(word)
    if _is_given(sign):
        return word.casefold() not in FIRST_OF_ALL_WORDS
    if "g" in sign and AND_CAPITAL.match(text, span.end):
        return True
    if NON_PERSON_GROUPS.intersection(sign) or capitalisation.only_begins(word):
        return False
    # A word that fills a line of several is a field rather than a sentence.
    is_field = "\n" in text and REST_OF_FIELD.match(text, span.end) is not None
    if is_field or capitalisation.is_capital_inside(word):
        return True
    if load_gazetteer().is_word(word):
        return False
    return "f" in sign or _is_tagged_language(text, _line_around(text, span))


def _line_around(text: str, span: EntitySpan) -> str:
    """Return the line of a finding without the finding."""
    end = text.find("\n", span.end)
    line = text[text.rfind("\n", 0, span.start) + 1 : span.start]
    return line + " " + text[span.end : end if end >= 0 else len(text)]


def _is_tagged_language(text: str, line: str) -> bool:
    """Return False in a language that the tagger does not know: to it, every word there looks like
    a name.
    """
    language = language_of(text)
    return language in TAGGED_LANGUAGES or (language == UNDECIDED and _are_words_known(line))


def _are_words_known(line: str) -> bool:
    """Return True if at least half of a line's words are on a list."""
    words = WORD.findall(line)
    known = sum(bool(load_gazetteer().of(word)) for word in words)
    return len(words) < MIN_JUDGED_WORDS or 2 * known >= len(words)


def _is_address(found: str, words: list[str], signs: list[str]) -> bool:
    has_digit = HAS_DIGIT.search(found) is not None
    if NON_ADDRESS_SIGNS.search(found) or BARE_UNIT.fullmatch(found) or TWO_DISTRICTS.search(found):
        return False
    if len(words) < 3 and found.islower() and not has_digit:
        return False
    has_street = any("s" in sign or "u" in sign for sign in signs)
    if not has_digit:
        # A street by itself is a place, two of them are a corner.
        return has_street and CORNER_JOINT.search(found) is not None
    if has_street:
        return True
    for word, sign in zip(words, signs, strict=True):
        if word[0].isupper() and not ADDRESS_WORD_GROUPS.intersection(sign):
            return True
    return False


def _is_no_person(text: str, span: EntitySpan, words: list[str], signs: list[str]) -> bool:
    """Return True for companies, places, characters of fiction, and words that are no names."""
    found = text[span.start : span.end]
    if COMPANY_AFTER.match(text, span.end) or _is_place(text, span):
        return True
    if found in LOWERCASE_WORDS or found.casefold() in FICTION:
        return True
    if _is_german_noun(text, span, signs):
        return True
    return all(word.casefold() in NON_NAME_WORDS | TITLES for word in words)


def _is_other_word(sign: str) -> bool:
    """Return True for a word on a list of other things than names, and on none of names."""
    return bool(NON_PERSON_GROUPS.intersection(sign)) and "g" not in sign and "f" not in sign


def _is_german_noun(text: str, span: EntitySpan, signs: list[str]) -> bool:
    """Return True for one word on no list of names, inside a sentence of a German text, unless a
    name is announced.
    """
    if len(signs) != 1 or {"g", "f"} & {*signs[0]}:
        return False
    # A German text capitalises every noun.
    if language_of(text) != "de":
        return False
    before = text[max(0, span.start - 24) : span.start]
    return re.search(r"[a-zäöüß,] $", before) is not None and not GERMAN_NAME_CUE.search(before)


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
    start = span.start
    end = span.end
    lead = NAME_LEAD.search(text, max(0, start - 12), start)
    if lead:
        start = lead.start()
    # A particle that was found without its name is cut off, and comes back with it.
    cut = LAST_PARTICLE.search(text, start, end)
    if cut and NAME_TAIL.match(text, cut.start()):
        end = cut.start()
    tail = NAME_TAIL.match(text, end)
    while tail:
        if tail["word"] and PLACE_SIGNS.intersection(load_gazetteer().of(tail["word"])):
            break
        end = tail.end()
        tail = NAME_TAIL.match(text, end)
    return replace(span, start=start, end=end)


def _extend_left(text: str, span: EntitySpan) -> EntitySpan:
    """Extend a person to the preceding word if it is capitalised inside a sentence and no word or
    title.
    """
    if span.kind != "PERSON" or not text[span.start].isupper():
        return span
    match = PRECEDING_WORD.search(text[max(0, span.start - 32) : span.start])
    if not match or match.start("word") == 0:
        return span
    word = match["word"]
    if word.casefold() in ENGLISH_WORDS | TITLES | NON_NAME_WORDS or word.endswith(("'s", "’s")):
        return span
    if NAME_PREFIX.match(word):
        return span
    return replace(span, start=span.start - len(word) - 1)


def _repeated_mentions(text: str, people: list[EntitySpan]) -> Iterator[EntitySpan]:
    """Find the words of people's names wherever else they are: the tagger may miss a name without
    the context that it has in one place.
    """
    words: set[str] = set()
    for span in people:
        words.update(NAME_WORD.findall(text[span.start : span.end]))
    for word in words:
        if word.casefold() in ENGLISH_WORDS or text.count(word) < 2:
            continue
        whole_word = rf"(?<![{LATIN}0-9_@/.]){re.escape(word)}(?![{LATIN}0-9_@/])"
        for match in re.finditer(whole_word, text):
            yield EntitySpan.of_match("PERSON", match, RANK_MODEL)
