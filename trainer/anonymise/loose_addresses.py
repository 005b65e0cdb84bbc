"""Recognises addresses whose parts stand apart: corners, house numbers behind a word, towns."""

import re
from collections.abc import Iterator

from trainer.anonymise.addresses import SUFFIX, UPPER
from trainer.anonymise.crf_ner.gazetteer import load_gazetteer
from trainer.anonymise.language_data import LATIN
from trainer.anonymise.spans import RANK_PATTERN, EntitySpan

GREEK = "\u0370-\u03ff\u1f00-\u1fff"
NAME_PART = rf"(?:[{UPPER}][{LATIN}'’.-]*|[0-9]{{1,3}}(?:st|nd|rd|th))"
ENGLISH_STREET = rf"(?:{NAME_PART} ){{1,3}}(?:{SUFFIX})(?![{LATIN}])\.?"
SURE_STREET = (
    rf"(?:{NAME_PART} ){{1,3}}(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|"
    rf"Drive)(?![{LATIN}])\.?"
)
"""Without a word for a corner: hills and greens are places as often as streets."""
ROMANCE_START = (
    "rue|avenue|boulevard|allée|chemin|impasse|quai|cours|passage|route|place|via|viale|corso|"
    "piazza|vicolo|largo|calle|"
    "avenida|paseo|plaza|carrera|ronda|rua|travessa|praça|alameda|estrada|ul\\.|ulica|ulicy|aleja|"
    "alei|plac"
)
LINK = (
    "(?:de la|de los|de las|de "
    "l['’]|della|delle|dello|degli|dei|dell['’]|del|des|du|de|da|do|dos|das|la|le|les|d['’])"
)
ROMANCE_STREET = (
    rf"(?i:{ROMANCE_START})\s(?:{LINK}\s?){{0,2}}[{UPPER}][{LATIN}'’.-]+(?:\s(?:{LINK}\s?)?["
    rf"{UPPER}][{LATIN}'’.-]+){{0,3}}"
)
GERMANIC_END = (
    "stra(?:ß|ss)e|str\\.|gasse|weg|platz|allee|damm|ufer|ring|gatan|vägen|gata|gate|gt\\.|veien|"
    "vegen|vei|vej|gade|stræde|"
    "straat|laan|plein|gracht|kade|singel|dijk|katu|tie|polku"
)
GERMANIC_STREET = (
    rf"(?:[{UPPER}][{LATIN}.-]+[ -]){{0,2}}(?:[{UPPER}][{LATIN}-]*)?(?:{GERMANIC_END})(?![{LATIN}])"
)
GREEK_STREET = (
    rf"(?:(?:οδός|οδό|οδού|λεωφόρος|λεωφόρου|πλατεία|Λεωφόρος|Οδός|"
    rf"Πλατεία)\s)?(?:[Α-ΩΆ-Ώ][{GREEK}.]+\s?){{1,3}}"
)
STREET = rf"(?:{ROMANCE_STREET}|{ENGLISH_STREET}|{GERMANIC_STREET})"
SMALL_STREET = (
    r"(?:[a-z0-9'’]+ ){1,2}(?:street|st|avenue|ave|road|rd|lane|ln|drive|boulevard|blvd|terrace|"
    r"crescent|court|way|place|"
    r"square|hill|row|close)(?![a-z])"
)
SIMPLE_NAME = rf"(?:{NAME_PART}(?: {NAME_PART}){{0,2}})"
AND = r"(?:and|&|und|et(?: de)?|y|con|e|en|og|och|i|a|meets|/|×|x)"
CORNER_WORD = (
    r"corner|intersection|junction|crossroads?|ecke|kreuzung|angle|esquina|angolo|incrocio|hoek|"
    r"hjørnet|hörnet|róg|rogu|"
    r"skrzyżowani\w+|γωνία"
)
OF = (
    r"(?:\s(?:of|at|between|where|von|zwischen|de|des|da|do|tra|van|av|av|mellom|ulic|with|the|"
    r"der|la|las|di|del|d['’]))*\s?:?\s?"
)
CORNER = rf"(?<![{LATIN}])(?:the |der |la |el |de )?(?i:{CORNER_WORD}){OF}"
CORNERS = (
    re.compile(rf"{CORNER}{STREET},? ?{AND} ?(?:(?:de |the )?{STREET}|{SIMPLE_NAME})"),
    re.compile(rf"{CORNER}{SIMPLE_NAME} ?{AND} ?(?:de |the )?{STREET}"),
    re.compile(rf"{CORNER}{SMALL_STREET} ?{AND} ?{SMALL_STREET}"),
    re.compile(rf"(?i:γωνία)\s{GREEK_STREET}(?:και|κι|&)\s{GREEK_STREET}"),
)
"""Two streets after a word for a corner."""
PAIRS = (
    re.compile(rf"(?<![{LATIN}]){SURE_STREET} (?:and|&|@) {SURE_STREET}"),
    re.compile(rf"(?<![{LATIN}]){GERMANIC_STREET}(?:\s?/\s?|,? Ecke ){GERMANIC_STREET}"),
)
"""Two streets beside each other."""
CORNER_HINT = re.compile(CORNER_WORD, re.IGNORECASE)
PAIR_HINT = re.compile("[&/@]| and | Ecke ")
NUMBER_WORD = (
    r"(?:number|house number|house|no\.?|nr\.?|n[º°]|#|hausnummer|hausnr\.?|nummer|haus|au numéro|"
    r"numéro|au n[º°]|au|"
    r"número|num\.|portal|al civico|al numero|civico|numero|huisnummer|huisnr\.?|husnummer|"
    r"husnr\.?|oppgang|"
    r"pod numerem|numer|dom|bloco|αριθμός|αριθμό|αρ\.|στον αριθμό|στο|νούμερο)"
)
HOUSE = r"[0-9]{1,4}\s?(?:[a-zA-Z](?![A-Za-z])|bis|ter)?(?:/[0-9]{1,3})?"
APART = (
    re.compile(
        rf"(?<![{LATIN}]){STREET}(?:,|\s[-–(]|\sin the house|"
        rf"\sim)?\s(?i:{NUMBER_WORD})\s?{HOUSE}(?![0-9{LATIN}])"
    ),
    re.compile(
        rf"(?<![{LATIN}0-9])(?i:{NUMBER_WORD})\s?{HOUSE},?\s(?i:(?:on|in|at|in der|der|de la|de|"
        rf"della|do|da|i|w) )?{STREET}"
    ),
    re.compile(rf"(?<![{LATIN}0-9.,])(?!(?:19|20)[0-9]{{2}},){HOUSE},\s{STREET}"),
    re.compile(
        rf"(?:οδός|οδό|οδού|λεωφόρο[ςυ]?)\s(?:[Α-ΩΆ-Ώ][{GREEK}.]+\s?){{1,3}},?\s?(?:αρ\.\s?|"
        rf"αριθμός\s|στο\s)?[0-9]{{1,4}}",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(?:[Α-ΩΆ-Ώ][{GREEK}.]+\s?){{1,2}},?\s(?:αρ\.\s?|αριθμός\s|στον αριθμό\s|"
        rf"νούμερο\s)[0-9]{{1,4}}"
    ),
)
"""A street and its house number with a comma, a word or both between."""
TOWN_WORD = rf"[{UPPER}{GREEK}][{LATIN}{GREEK}'’.-]+"
TOWN_AFTER = re.compile(
    rf"(?:,\s{{1,3}}|\s{{0,2}}\n\s{{0,4}}|\s[-–·|]\s|\s(?=[A-Z]{{3}}))(?P<town>{TOWN_WORD}(?:[ "
    rf"-]{TOWN_WORD}){{0,2}})(?=\s*(?:$|[\n.,;)!?]))"
)
"""A town at the end of a clause, after a street."""
MAX_TOWNS = 2
HAS_DIGIT = re.compile("[0-9]")


def find_loose_addresses(text: str) -> Iterator[EntitySpan]:
    """Find `STREET_ADDRESS` of corners, and of streets whose number is apart from them."""
    if CORNER_HINT.search(text):
        for form in CORNERS:
            for match in form.finditer(text):
                yield EntitySpan.of_match("STREET_ADDRESS", match, RANK_PATTERN)
    if PAIR_HINT.search(text):
        for form in PAIRS:
            for match in form.finditer(text):
                yield EntitySpan.of_match("STREET_ADDRESS", match, RANK_PATTERN)
    if HAS_DIGIT.search(text):
        for form in APART:
            for match in form.finditer(text):
                yield EntitySpan.of_match("STREET_ADDRESS", match, RANK_PATTERN)


def extend_to_towns(text: str, span: EntitySpan) -> EntitySpan:
    """Extend an address by the town or region that ends the clause after it."""
    end = span.end
    for _ in range(MAX_TOWNS):
        match = TOWN_AFTER.match(text, end)
        if match is None or not _is_town(match["town"], is_next_line="\n" in match[0]):
            break
        end = match.end("town")
    return EntitySpan(span.kind, span.start, end, span.rank)


def _is_town(name: str, *, is_next_line: bool) -> bool:
    """Return True for a listed town, region or country, and in the same line for unlisted words."""
    signs = [load_gazetteer().of(word) for word in re.split("[ -]", name)]
    if any({"y", "n", "r"} & {*sign} for sign in signs):
        return True
    is_unknown = not any({"c", "g", "f", "m", "o", "b", "e"} & {*sign} for sign in signs)
    return is_unknown and (not is_next_line or (name.isupper() and len(name) > 2))
