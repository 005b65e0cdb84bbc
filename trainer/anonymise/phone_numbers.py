"""Recognises telephone numbers with libphonenumber, by grouping and by cue words."""

import re
from collections.abc import Iterator

import phonenumbers

from trainer.anonymise.language_data import HAN, LATIN, text_before
from trainer.anonymise.spans import RANK_PATTERN, EntitySpan

CANDIDATE = re.compile(
    r"(?<![0-9_])(?<!0x)(?<![0-9][.,:])(?:\+|\(\+?)?[0-9]+(?:(?:[ .()/-]|\) |\)-| \(|-\(| [-/] ){1}[0-9]+){0,8}"
    r"(?:\s?(?:[xX]|ext\.?|#)\s?[0-9]{1,6})?(?![0-9_]|[.,:][0-9])"
)
EXTENSION = re.compile(r"\s?(?:[xX]|ext\.?|#)\s?[0-9]{1,6}$")
REGIONS = "US GB DE FR VN CN JP AU BE NL CH AT SE IN KR TW NZ IE IT ES PL BR".split()
"""Regions whose national numbers (beginning with 0) are recognised; others need a +."""
CUE = re.compile(
    r"phone|(?<![a-z])tel(?![a-z])|(?<![a-z])call(?!ed)|mobile|cell|(?<![a-z])fax|desk:|whatsapp|text me|(?<![a-z])sms|"
    r"answering|messages? (?:to|from)|hotline|viber|zalo|dial|reach (?:me|us|him|her|them)|"
    r"(?<![a-z])(?:ring|ruf|bel|llam[ae]|appelle[rz]?|chiama|soita|hívj|zadzwoń|zavolej)(?![a-z])|"
    r"(?:my|his|her|their|our|your) number|số điện|sdt|điện thoại|(?<![a-zà-ỹ])s?đt|gọi|liên hệ|di động|"
    r"电话|手机|号码|致电|拨打|打给|電話|携帯|連絡先|ファックス|ファクス|전화|휴대폰|핸드폰|연락처|"
    r"телефон|(?<![а-яё])тел(?![а-яё])|звони|мобильн|τηλέφων|هاتف|جوال|موبايل|اتصل|تلفن|موبایل|فون|טלפון|נייד|"
    r"फ़ोन|फोन|मोबाइल|ফোন|মোবাইল|โทร|เบอร์|มือถือ|ስልክ"
)
LABEL = (
    r"t[eé]l(?:[eé]?f(?:o|ó|oo)?n[eo]?)?|telefonsz[aá]m|telef|phone|ph|fone?|tlf|tfn|puh(?:elin)?|(?:far)?s[ií]mi|"
    r"mob(?:ile?|iel|iln[ií]|iltelefon)?|matkapuhelin|cel(?:l|ulare?|lulare)?|gsm|handy|natel|port(?:able)?|m[oó]vil|"
    r"telem[oó]vel|kom(?:[oó]rka)?|fax|faksi?|telefax|fx|t[eé]l[eé]copie|office|home|work|desk|direct|landline|"
    r"switchboard|kontor(?:et)?|b[uü]ro|bureau|oficina|ufficio|iroda|kancel[aá](?:ř|ria)|biuro|toimisto|kantoor|"
    r"escrit[oó]rio|birou|ured|gesch[aä]ft|zentrale|festnetz|priv(?:at|é)|dienstlich|fixe|fijo|domicile|centrala|"
    r"whatsapp|signal|viber|sms|ring|text|dial|τηλ(?:έφωνο)?|κιν(?:ητό)?|φαξ|γραφείο"
)
"""Words for a telephone, a mobile, a fax machine and the places they are at, in lower case."""
LABEL_BEFORE = re.compile(
    rf"(?:(?<![{LATIN}\u0370-\u03ff])(?:{LABEL})(?:\.?\s?(?:no|nr|number|nummer|č|sz[aá]m)(?![a-z]))?\.?"
    rf"(?:\s?[/&+]\s?(?:{LABEL})\.?)?|(?:^|[\n|,;•·/>(-])\s*[tmfpcohwd](?=[\s:.])[.]?|[📞☎📱📠]\ufe0f?|:(?:tele)?phone:)"
    r"\)?\s{0,2}[:=–-]?\s{0,3}$"
)
LABEL_AFTER = re.compile(
    rf"\s{{0,2}}(?:(?:[-–,/]\s?)?[(\[]?\s?(?:{LABEL})(?![{LATIN}\u0370-\u03ff])|[(\[][omfhwtcp][)\]])",
    re.IGNORECASE,
)
OTHER_NUMBER_CUE = re.compile(
    r"(?:order|tracking|invoice|ticket|serial|isbn|issn|ean|upc|sku|ref(?:erence)?|version|account|case|claim|"
    r"confirmation|flight|part|model|seed|score|population|timestamp|build|issue|id|pin|zip|card|license|licence|passport|"
    r"đơn hàng|mã|订单|单号|注文|整理|型号)[^0-9a-z]{0,3}(?:number|no\.?|id|code|is|号码?|番号)?[^0-9a-z]{0,4}(?:is )?$"
)
MONEY = re.compile(r"[$€£¥₫#№]\s?$")
MONEY_AFTER = re.compile(
    r"\s?(?:%|đ(?![a-zà-ỹ])|vnd|đồng|usd|eur|円|元|块|dollars|euros|points|xp|gold|people|users|years)"
)
DATE = re.compile(
    r"(?:[0-9]{4}([-/.])[0-9]{1,2}\1[0-9]{1,2}|[0-9]{1,2}([-/.])[0-9]{1,2}\2(?:[0-9]{4}|[0-9]{2}))(?: [0-9]{1,2})?"
)
YEARS = re.compile(r"(?:1[5-9]|20)[0-9]{2} ?[-/] ?(?:1[5-9]|20)[0-9]{2}")
NORTH_AMERICAN = re.compile(
    r"(?:\+?1[ .-]?)?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[-./])[2-9][0-9]{2}[-. ][0-9]{4}"
)
FICTIONAL = re.compile(r"555-01[0-9]{2}")
CN_MOBILE = re.compile(r"(?:86)?1[3-9][0-9]{9}")
BARE_MOBILE = re.compile(
    r"0(?:[35789][0-9]{8}|[789]0[0-9]{8}|7[0-9]{9}|1[5-7][0-9]{8,9}|[67][0-9]{8})"
)
"""Vietnamese, Japanese, British, German and French mobile numbers without separators."""
FUNCTION_CALL = re.compile(
    r"(?:^|[^A-Za-z_])(?!tel|phone|fax|mobile|cell)[A-Za-z_][A-Za-z0-9_.]*\($"
)
"""Text before an argument: `foo(1234567890)`."""
ISBN_START = re.compile(r"97[89][ -]?[0-9]")


def find_phone_numbers(text: str) -> Iterator[EntitySpan]:
    """Find `PHONE_NUMBER`: international numbers, national ones by grouping, and others after a cue
    word.
    """
    for match in CANDIDATE.finditer(text):
        if len(match[0]) >= 7:
            yield from _numbers_within(text, match.start(), match.end())


def _numbers_within(text: str, start: int, end: int) -> Iterator[EntitySpan]:
    """Find the longest numbers in a run of digits; other numbers may be adjacent with only a space
    between.
    """
    run = text[start:end]
    starts = [start]
    for space in re.finditer(" (?=[0-9(+])", run):
        starts.append(start + space.end())
    ends = []
    for space in re.finditer("(?<=[0-9]) ", run):
        ends.append(start + space.start())
    ends = [*ends, end][::-1]
    for first in starts:
        for last in ends:
            if text[first] == "(" and ")" not in text[first:last]:
                first += 1
            if last - first < 7 or not _is_phone(text, first, last):
                continue
            if text[first] == "+" or not FUNCTION_CALL.search(text[max(0, first - 32) : first]):
                yield EntitySpan("PHONE_NUMBER", first, last, RANK_PATTERN)
                return


def _is_phone(text: str, start: int, end: int) -> bool:
    written = EXTENSION.sub("", text[start:end])
    digits = re.sub("[^0-9]", "", written)
    if not 7 <= len(digits) <= 15 or is_other_number(text, start, end, written):
        return False
    before = text_before(text, start, 32)
    if CUE.search(before) or LABEL_BEFORE.search(before) or LABEL_AFTER.match(text, end, end + 24):
        return True
    if written.startswith(("+", "(+", "00")):
        return _is_international(written, digits)
    return _is_national(text, written, digits)


def is_other_number(text: str, start: int, end: int, written: str) -> bool:
    """Return True for dates, years, money, ISBNs, and numbers labelled as another kind."""
    before = text_before(text, start, 32)
    if OTHER_NUMBER_CUE.search(before) or MONEY.search(before):
        return True
    if MONEY_AFTER.match(text[end : end + 8].lower()):
        return True
    if DATE.fullmatch(written) or YEARS.fullmatch(written):
        return True
    return ISBN_START.match(written) is not None


def _is_international(written: str, digits: str) -> bool:
    plus = "+" + re.sub(r"\(0\)", "", written).lstrip("(+0")
    number = _parsed(plus, None)
    return number is not None and (phonenumbers.is_valid_number(number) or len(digits) >= 10)


def _is_national(text: str, written: str, digits: str) -> bool:
    if FICTIONAL.fullmatch(written) or NORTH_AMERICAN.fullmatch(written):
        return True
    if digits == written:  # without any sign between
        if CN_MOBILE.fullmatch(digits):
            return re.search(f"[{HAN}]", text) is not None
        return BARE_MOBILE.fullmatch(digits) is not None and _is_valid(digits)
    groups = re.split("[^0-9]+", written.strip("("))
    if CN_MOBILE.fullmatch(digits) and [len(group) for group in groups] == [3, 4, 4]:
        return True
    if written.lstrip("(")[0] != "0" or len(digits) < 9 or any(len(group) < 2 for group in groups):
        return False
    return len({*re.findall("[./-]", written)}) <= 1 and _is_valid(written)


def _is_valid(written: str) -> bool:
    for region in REGIONS:
        number = _parsed(written, region)
        if number is not None and phonenumbers.is_valid_number(number):
            return True
    return False


def _parsed(written: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    """Parse a number; None unless its length is used in its country."""
    try:
        number = phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        return None
    return number if phonenumbers.is_possible_number(number) else None
