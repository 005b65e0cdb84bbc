"""Finds numbers in texts: digits, and the number words of English, Chinese and Vietnamese."""

import re
from collections import defaultdict
from collections.abc import Iterator

SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen "
    "eighteen nineteen"
)
UNITS = dict(zip(SMALL.split(), range(20), strict=True))
TENS = dict(
    zip(
        "twenty thirty forty fifty sixty seventy eighty ninety".split(),
        range(20, 100, 10),
        strict=True,
    )
)
VALUE = (
    rf"\b(?:(?P<digits>\d[\d,]*)|(?P<tens>{'|'.join(TENS)})(?:[- ](?P<one>{'|'.join(list(UNITS)[1:10])}))?|"
    rf"(?P<unit>{'|'.join(UNITS)}))\b"
)
ANY_NUMBER = re.compile(VALUE, re.IGNORECASE)
NUMBER = re.compile(VALUE + r"\s+(?P<noun>[a-z]{3,})\b", re.IGNORECASE)
UNCOUNTED_NOUNS = frozenset(
    "more other less time times and but the who things thing people ones last first little "
    "days".split()
)
HAN_DIGITS = {sign: value for value, sign in enumerate("零一二三四五六七八九")} | {
    "〇": 0,
    "两": 2,
    "兩": 2,
}
HAN_SCALES = {"十": 10, "百": 100, "千": 1000}
HAN_PATTERN = re.compile("[\u4e00-\u9fff]")
HAN_NUMBER = re.compile(
    r"(?<![零〇一二两兩三四五六七八九十百千万萬\d])(?!千万|万一|十分|万分|百姓|一[些直样起定切般边旦会])(?P<number>[零〇一二两兩三四五六七八九十百千万萬]+|\d+)"
    r"(?P<noun>[个個只隻条條张張把艘座间間棵口件辆匹头颗根盏盞块塊年岁歲天次里斤勺段步名位本封层層]?[\u4e00-\u9fff]?)"
)
"""A number and, if a measure word follows, that word with the next character."""
VI_DIGITS = dict(zip("một hai ba bốn năm sáu bảy tám chín".split(), range(1, 10), strict=True))
VI_DIGITS |= {"mốt": 1, "tư": 4, "lăm": 5, "nhăm": 5, "bẩy": 7}
VI_SCALES = {"mười": 10, "mươi": 10, "trăm": 100, "ngàn": 1000, "nghìn": 1000, "triệu": 1_000_000}
VI_SCALE = "|".join(VI_SCALES)
VI_DIGIT = "|".join(word for word in VI_DIGITS if word != "năm") + rf"|năm(?= (?:{VI_SCALE}))"
"""A digit's word; "năm" is five before a scale, and else mostly "year"."""
VI_NUMBER = re.compile(
    rf"\b(?P<number>(?:(?:{VI_DIGIT}) )?(?:{VI_SCALE})(?: (?:lẻ|linh|(?:{VI_DIGIT})|{VI_SCALE}))*|{VI_DIGIT})\b"
    r"(?: (?P<noun>(?:(?:con|cái|chiếc|người|cây|cuốn|ngọn|câu|bông) )?\w+))?",
    re.IGNORECASE,
)
MAX_DIGITS = 12
"""Longer runs of digits are cut: `int` raises for texts of more than 4,300."""


def find_numbers(text: str) -> set[int]:
    """Return all numbers of a text."""
    numbers = {_english_value(match) for match in ANY_NUMBER.finditer(text)}
    numbers.update(value for _, value in _other_numbers(text))
    return numbers


def numbers_by_noun(text: str) -> dict[str, set[int]]:
    """Return numbers by the singular of the noun that follows."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for match in NUMBER.finditer(text):
        noun = match["noun"].casefold()
        if noun not in UNCOUNTED_NOUNS:
            numbers[noun.removesuffix("s")].add(_english_value(match))
    for match, value in _other_numbers(text):
        if match["noun"] and len(match["noun"]) > 1 and value > 1:
            numbers[match["noun"].casefold()].add(value)
    return dict(numbers)


def _english_value(match: re.Match[str]) -> int:
    if match["digits"]:
        return int(match["digits"].replace(",", "")[:MAX_DIGITS])
    if match["tens"]:
        return TENS[match["tens"].casefold()] + UNITS.get((match["one"] or "zero").casefold(), 0)
    return UNITS[match["unit"].casefold()]


def _other_numbers(text: str) -> Iterator[tuple[re.Match[str], int]]:
    """Yield Chinese and Vietnamese numbers with their values; Arabic numerals only before Chinese
    characters.
    """
    if HAN_PATTERN.search(text):
        for match in HAN_NUMBER.finditer(text):
            yield match, _han_value(match["number"])
    for match in VI_NUMBER.finditer(text):
        yield match, _vietnamese_value(match["number"])


def _han_value(numeral: str) -> int:
    if numeral.isdecimal():
        return int(numeral[:MAX_DIGITS])
    if all(sign in HAN_DIGITS for sign in numeral):  # 二零二四
        return int("".join(str(HAN_DIGITS[sign]) for sign in numeral)[:MAX_DIGITS])
    total = section = digit = 0
    for sign in numeral:
        if sign in HAN_DIGITS:
            digit = HAN_DIGITS[sign]
        elif sign in HAN_SCALES:
            # A scale without a digit counts once: 十 is ten, and 百 a hundred.
            section = section + (digit or 1) * HAN_SCALES[sign]
            digit = 0
        else:
            # 万 multiplies the whole section before it: 三十万 is 30 times 10,000.
            total = total + (section + digit or 1) * 10_000
            section = 0
            digit = 0
    return total + section + digit


def _vietnamese_value(numeral: str) -> int:
    total = section = digit = 0
    for word in numeral.casefold().split():
        scale = VI_SCALES.get(word, 0)
        if scale >= 1000:
            # From a thousand on, a scale multiplies the whole section: "hai trăm ngàn" is 200,000.
            total = total + (section + digit or 1) * scale
            section = 0
            digit = 0
        elif scale:
            section = section + (digit or 1) * scale
            digit = 0
        else:
            digit = VI_DIGITS.get(word, 0)
    return total + section + digit
