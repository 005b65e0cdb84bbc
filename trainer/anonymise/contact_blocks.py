"""Reads contact blocks (signatures, letterheads, labels, cards): what one line is makes clear what
the next one is.

A block is a run of short cells: lines, or the parts of a line between bars, dashes and commas.
Cells that look like a street, a town with its postal code, a flat or a telephone number are taken
for it beside others that are.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainer.anonymise.capitalisation import WORD
from trainer.anonymise.crf_ner.gazetteer import load_gazetteer
from trainer.anonymise.language_data import LATIN
from trainer.anonymise.phone_numbers import EXTENSION, is_other_number
from trainer.anonymise.spans import RANK_CUE, RANK_PATTERN, EntitySpan

LETTER = rf"{LATIN}\u0370-\u03ff\u1f00-\u1fff"
SEPARATOR = re.compile(
    r"\n[ \t>|*•·#-]*|\s?[|•·]\s?|\s//\s|\s[-–—]\s|[,;]\s|(?<=[a-zà-ÿ]{3})\.\s(?=[A-ZÀ-Þ])"
)
MAX_CELL_CHARS = 60
NEIGHBOUR_CELLS = 3
CONTACT_KINDS = frozenset(("PERSON", "STREET_ADDRESS", "PHONE_NUMBER", "EMAIL_ADDRESS"))
FIELD_LABEL = re.compile(rf"[{LETTER}][{LETTER}'’ .-]{{0,28}}:\s|[^\w\s]{{1,3}}\s")
"""Text before the value of a cell: a label with its colon, or an emoji."""
NUMBER = r"\+?\(?\+?[0-9][0-9 ()./–-]{5,24}[0-9](?:\s?(?:x|ext\.?)\s?[0-9]{1,6})?"
NUMBER_CELL = re.compile(
    rf"(?P<label>[{LETTER}][{LETTER}. ]{{0,14}}[: ]\s?)?(?P<number>{NUMBER})(?:\s?[(\[]?[{LETTER}. ]{{1,14}}[)\]]?)?"
)
NUMBER_AFTER = re.compile(
    rf"(?:,|:|>|\s?[(\[<|/]|\s(?:[-–|•·]|//|or|and|oder|und|ou|et|o|y|e|eller|of|en))?\s{{1,2}}[(\[]?(?P<number>{NUMBER})"
    rf"(?![0-9:])|\s?\((?P<inner>{NUMBER})\)"
)
"""A number right after a person or an e-mail address."""
THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:[ .][0-9]{3}){1,2}")
HAS_NUMBER = re.compile("[0-9]{2}")
VERSION = re.compile(r"[1-9][0-9]{0,3}\.[0-9]{1,2}\.[0-9]{1,5}")
YEAR = re.compile("1[89][0-9]{2}|20[0-9]{2}")
MIN_PHONE_DIGITS = 7
MAX_PHONE_DIGITS = 15
TOWN_WORDS = rf"[{LETTER}][{LETTER}'’.-]*(?:[ /][{LETTER}][{LETTER}'’.-]*){{0,4}}"
CODE = (
    r"(?:(?:[A-Z]{1,3}|C\.P\.|CEP|TK|T\.K\.|ΤΚ|Τ\.Κ\.)[- ]{0,2})?"
    r"[0-9]{3}(?:[0-9]{0,3}|[ -]?[0-9]{2,3}|[0-9]{2}-[0-9]{3,4})(?:\s?[A-Z]{2})?|[0-9]{2}-[0-9]{3}|"
    r"[A-Z]{1,2}[0-9][A-Z0-9]?\s?[0-9][A-Z]{2}|[A-Z][0-9][A-Z]\s?[0-9][A-Z][0-9]|[A-Z][0-9]{2}\s?[A-Z0-9]{4}"
)
"""Postal codes: three to nine digits, letters before or after them; British, Canadian and Irish
ones.
"""
COUNTRIES = frozenset(
    "danmark sverige norge suomi ísland nederland belgië belgique deutschland österreich schweiz "
    "suisse svizzera "
    "españa méxico italia brasil magyarország polska česko slovensko hrvatska slovenija românia "
    "ελλάδα κύπρος türkiye "
    "eesti latvija lietuva srbija éire usa uk u.k. u.s.a.".split()
)
"""Countries in their own languages; the gazetteer has them in English."""
REGION = r"(?:[A-Z]{2,3}\s|Co\.\s)"
TOWN_CELL = re.compile(
    rf"{REGION}?(?:(?:{CODE})(?:\s{TOWN_WORDS})?(?:\s[0-9]{{1,2}})?|{TOWN_WORDS}\s(?:{CODE}))(?:\s{TOWN_WORDS})?",
    re.IGNORECASE,
)
HOUSE = r"[0-9]{1,5}\s?[A-Za-zΑ-Ωα-ω]?(?:\s?[-/]\s?[0-9]{1,5}[A-Za-z]?){0,2}\.?"
STREET_WORDS = rf"[{LETTER}0-9][{LETTER}'’.-]*\.?(?: [{LETTER}0-9][{LETTER}'’.-]*){{0,5}}"
STREET_CELL = re.compile(
    rf"{STREET_WORDS}\s(?:(?:nr|no|n|č|nº|n°)\.?:?\s?)?{HOUSE}(?:\s[{LETTER}]{{1,5}}\.?:?\s?[0-9]{{1,5}}){{0,2}}|"
    rf"{HOUSE}(?:\s[{LETTER}][{LETTER}'’.-]*){{1,5}}(?:\s[0-9]{{1,4}}[A-Za-z]?)?"
)
UNIT_WORDS = (
    "apt|apartment|suite|ste|unit|flat|floor|fl|room|rm|level|lvl|shop|block|building|bldg|tower|lot|etg|etage|sal|lgh|tr|"
    "as|stock|stiege|top|og|eg|wohnung|whg|hinterhaus|vorderhaus|bus|verdieping|hoog|app|appt|appartement|bât|bâtiment|"
    "étage|esc|escalier|piso|puerta|planta|portal|int|interior|depto|edif|scala|interno|piano|palazzina|apto|bloco|andar|"
    "esq|dto|em|emelet|fszt|ajtó|lok|byt|patro|poschodie|kat|stan|bl|ap|sc|et|hæð|όροφος|διαμ|orofos"
)
UNIT_CELL = re.compile(
    rf"#\s?[0-9]{{1,5}}|[A-Z]?\s?[0-9]{{1,5}}\s?(?:[.º°]+|st|nd|rd|th|e|ος)?\s?(?:{UNIT_WORDS})\.?"
    rf"(?:\s?[{LETTER}0-9]{{1,5}}\.?){{0,2}}|(?:{UNIT_WORDS})\.?\s?[{LETTER}]?[0-9]{{0,5}}[{LETTER}]?|[A-Z]\s?[0-9]{{1,4}}|"
    r"[0-9]{1,2}\.\s?(?:tv|th|mf)\.?|st\.\s?(?:tv|th|mf)\.?|r/c(?: (?:dto|esq)\.?)?|m\. ?[0-9]{1,4}|"
    r"[0-9]{1,2}\.?º\s?[A-Za-z]{1,4}\.?",
    re.IGNORECASE,
)
GAME_WORDS = re.compile(
    r"(?i)(?<![a-z])(?:level|lvl|hp|ac|xp|stage|chapter|act|page|pages|round|patch|version|build|item|qty|total|price|gb|mb|"
    r"ghz|kg|ml|score|wave|day|week|turn|quest|boss|map|season|episode)(?![a-z])"
)


NAME_CELL = re.compile(rf"[{LETTER}][{LETTER}'’.-]*(?: [{LETTER}][{LETTER}'’.-]*){{1,3}}")
BELOW_NAMES = frozenset(("STREET_ADDRESS", "PHONE_NUMBER", "EMAIL_ADDRESS"))
MAX_TOWN_WORDS = 4
HAS_DIGIT = re.compile("[0-9]")


@dataclass(frozen=True)
class BlockCell:
    """A cell `text[start:end]`, its line, and the kinds found in it; `is_covered` if nearly all of
    it is found.
    """

    start: int
    end: int
    line: int
    value: str
    kinds: frozenset[str]
    is_covered: bool


def find_in_blocks(text: str, spans: Sequence[EntitySpan]) -> Iterator[EntitySpan]:
    """Find telephone numbers and parts of addresses by what is found around them."""
    contacts = [span for span in spans if span.kind in CONTACT_KINDS]
    if not contacts or not HAS_NUMBER.search(text):
        return
    for span in contacts:
        if span.kind in ("PERSON", "EMAIL_ADDRESS"):
            yield from _number_after(text, span)
    if "\n" not in text and len({span.kind for span in contacts}) < 2:
        return
    cells = _cells(text, contacts)
    shapes = []
    for cell in cells:
        if _number_in_cell(text, cell):
            shapes.append("number")
        else:
            shapes.append(_address_shape(cell))
    taken = _address_cells(cells, shapes)
    yield from _numbers_in_cells(text, cells, taken)
    for index in sorted(taken):
        cell = cells[index]
        if shapes[index] and not cell.is_covered:
            yield EntitySpan("STREET_ADDRESS", cell.start, cell.end, RANK_PATTERN)
    yield from _names_in_cells(cells, taken)


def _number_after(text: str, span: EntitySpan) -> Iterator[EntitySpan]:
    match = NUMBER_AFTER.match(text, span.end, span.end + 40)
    if match:
        group = "number" if match["number"] else "inner"
        if _is_phone_like(text, *match.span(group), is_strict=True):
            yield EntitySpan.of_match("PHONE_NUMBER", match, RANK_PATTERN, group=group)


def _is_phone_like(text: str, start: int, end: int, *, is_strict: bool) -> bool:
    written = EXTENSION.sub("", text[start:end])
    digits = sum(map(str.isdigit, written))
    if not MIN_PHONE_DIGITS <= digits <= MAX_PHONE_DIGITS:
        return False
    if is_other_number(text, start, end, written):
        return False
    if written.count("(") != written.count(")") or VERSION.fullmatch(written):
        return False
    # "Ann, 1 200 000" is an amount rather than a number.
    return not (is_strict and THOUSANDS.fullmatch(written) and digits < 9)


def _cells(text: str, contacts: Sequence[EntitySpan]) -> list[BlockCell]:
    cells: list[BlockCell] = []
    start = 0
    line = 0
    for match in (*SEPARATOR.finditer(text), None):
        end = match.start() if match else len(text)
        label = FIELD_LABEL.match(text, start, end)
        first = label.end() if label else start
        last = end
        while first < last and text[first].isspace():
            first += 1
        while last > first and text[last - 1] in " \t\r:*_":
            last -= 1
        if first < last:
            inside = [span for span in contacts if span.start < last and first < span.end]
            covered = sum(min(last, span.end) - max(first, span.start) for span in inside)
            cell = BlockCell(
                first,
                last,
                line,
                value=text[first:last],
                kinds=frozenset(span.kind for span in inside),
                is_covered=covered >= 0.8 * (last - first),
            )
            cells.append(cell)
        if match:
            line += match[0].count("\n")
            start = match.end()
    return cells


def _near(
    cells: Sequence[BlockCell], index: int, distance: int = NEIGHBOUR_CELLS
) -> frozenset[str]:
    """Kinds found in the cells around one, and in it."""
    kinds: set[str] = set()
    for cell in cells[max(0, index - distance) : index + distance + 1]:
        kinds |= cell.kinds
    return frozenset(kinds)


def _number_in_cell(text: str, cell: BlockCell) -> tuple[int, int, bool] | None:
    """Return begin and end of a telephone number that fills a cell, and whether an unknown word is
    before it.
    """
    if cell.is_covered or len(cell.value) > MAX_CELL_CHARS:
        return None
    match = NUMBER_CELL.fullmatch(cell.value)
    if match is None:
        return None
    start = cell.start + match.start("number")
    end = cell.start + match.end("number")
    if not _is_phone_like(text, start, end, is_strict=False):
        return None
    return start, end, match["label"] is not None


def _numbers_in_cells(
    text: str, cells: Sequence[BlockCell], taken: set[int]
) -> Iterator[EntitySpan]:
    for index, cell in enumerate(cells):
        number = _number_in_cell(text, cell)
        if number is None:
            continue
        start, end, is_labelled = number
        near = _near(cells, index)
        if any(abs(other - index) <= NEIGHBOUR_CELLS for other in taken):
            near |= {"STREET_ADDRESS"}
        # Behind an unknown word, one more kind of contact has to be near.
        if len(near) <= is_labelled:
            continue
        if _is_phone_like(text, start, end, is_strict=near == {"PERSON"}):
            yield EntitySpan("PHONE_NUMBER", start, end, RANK_PATTERN)


def _names_in_cells(cells: Sequence[BlockCell], taken: set[int]) -> Iterator[EntitySpan]:
    """Find names on top of a block: right before an address, a number or an e-mail address, and
    after none of them.
    """
    for index, cell in enumerate(cells[:-1]):
        if cell.kinds or index in taken:
            continue
        after = cells[index + 1]
        if index + 1 not in taken and not (after.kinds & BELOW_NAMES and after.is_covered):
            continue
        if index:
            before = cells[index - 1]
            if before.line >= cell.line - 1 and before.kinds & CONTACT_KINDS:
                continue  # it is not on top of its block
        if is_name(cell.value):
            yield EntitySpan("PERSON", cell.start, cell.end, RANK_CUE)


def is_name(value: str) -> bool:
    """Return True for two to four words that may be a name, one of them known as one, and none of
    another kind.
    """
    if not NAME_CELL.fullmatch(value):
        return False
    signs = [load_gazetteer().of(word) for word in WORD.findall(value) if len(word) > 1]
    is_known = any("g" in sign or "f" in sign for sign in signs)
    return is_known and all(not sign or {"g", "f", "p"} & {*sign} for sign in signs)


def _address_cells(cells: Sequence[BlockCell], shapes: Sequence[str]) -> set[int]:
    """Return the positions of the cells that are part of an address."""
    taken = {index for index, cell in enumerate(cells) if "STREET_ADDRESS" in cell.kinds}
    # Twice: a town is known by its street, and the flat between them by both.
    for _ in range(2):
        for index, shape in enumerate(shapes):
            if shape in ("", "number") or index in taken:
                continue
            if _is_address(cells, shapes, taken, index):
                taken.add(index)
    return taken


def _address_shape(cell: BlockCell) -> str:
    """Return what part of an address a cell looks like: a street, a town with its code, a unit;
    else empty.
    """
    if len(cell.value) > MAX_CELL_CHARS or cell.kinds - {"STREET_ADDRESS", "PERSON"}:
        return ""
    if GAME_WORDS.search(cell.value):
        return ""
    words = WORD.findall(cell.value)
    if YEAR.fullmatch(cell.value) or any(map(_is_no_part, words)):
        return ""
    for shape, form in (("unit", UNIT_CELL), ("town", TOWN_CELL), ("street", STREET_CELL)):
        if form.fullmatch(cell.value):
            return shape
    if not 0 < len(words) <= MAX_TOWN_WORDS or "PERSON" in cell.kinds:
        return ""
    if HAS_DIGIT.search(cell.value):
        return ""
    return "country" if any(map(_is_country, words)) else "words"


def _is_no_part(word: str) -> bool:
    """Return True for a word that is in no address: a month, a common word in lower case."""
    signs = load_gazetteer().of(word)
    is_other = "m" in signs or ("c" in signs and word.islower())
    return is_other and not {"s", "u", "p", "n"} & {*signs}


def _is_country(word: str) -> bool:
    return word.casefold() in COUNTRIES or "n" in load_gazetteer().of(word)


def _is_address(
    cells: Sequence[BlockCell], shapes: Sequence[str], taken: set[int], index: int
) -> bool:
    """Return True beside a part of an address, or if street and town follow each other among other
    contacts.
    """
    shape = shapes[index]
    before = _is_part_beside(shapes, taken, index, index - 1)
    after = _is_part_beside(shapes, taken, index, index + 1)
    if shape == "words":
        is_on_line = after and cells[index + 1].line == cells[index].line
        return after and (before or (shapes[index + 1] == "town" and is_on_line))
    if shape == "country" or (shape == "town" and cells[index].value[0].isalpha()):
        # Without a code in front, a town comes after its street.
        return before
    if before or after:
        return True
    if shape in ("unit", "number") or "PERSON" in cells[index].kinds:
        return False
    beside = [shapes[other] for other in (index - 1, index + 1) if 0 <= other < len(cells)]
    if not {shape, *beside} >= {"street", "town"}:
        return False
    around = shapes[max(0, index - NEIGHBOUR_CELLS) : index + NEIGHBOUR_CELLS + 1]
    return bool(_near(cells, index)) or "number" in around


def _is_part_beside(shapes: Sequence[str], taken: set[int], index: int, other: int) -> bool:
    """Return True if another cell is part of an address, unless both are streets."""
    return other in taken and not shapes[index] == shapes[other] == "street"
