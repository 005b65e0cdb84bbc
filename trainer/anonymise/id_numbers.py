"""Recognises payment cards, bank accounts, and social security and identity numbers by checksum,
range or cue word.
"""

import re
from collections.abc import Iterator
from datetime import date

from trainer.anonymise.language_data import text_before
from trainer.anonymise.spans import RANK_PATTERN, EntitySpan

IBAN_LENGTHS = {
    pair[:2]: int(pair[3:])
    for pair in """AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BI:27 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24
        DE:22 DJ:27 DK:18 DO:28 EE:20 EG:29 ES:24 FI:18 FK:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HN:28
        HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27
        MD:24 ME:22 MK:19 MN:20 MR:27 MT:31 MU:30 NI:28 NL:18 NO:15 OM:23 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22
        RU:33 SA:24 SC:31 SD:18 SE:24 SI:19 SK:24 SM:27 SO:23 ST:25 SV:28 TL:23 TN:24 TR:26 UA:29 VA:22 VG:24 XK:20
        YE:30""".split()
}
"""IBAN lengths by country (IBAN registry, ISO 13616, SWIFT)."""
CARD_PREFIXES = tuple(
    """34 37 36 38 39 300 301 302 303 304 305 309 4 51 52 53 54 55 6011 644 645 646 647 648 649 65 62 2200 2201
    2202 2203 2204 81""".split()
) + tuple(map(str, (*range(2221, 2721), *range(3528, 3590))))
"""Issuer prefixes that distinguish card numbers from other numbers."""
NUMBER_START = r"(?<![0-9])(?<![0-9][.,])"
NUMBER_END = r"(?![0-9]|[.,][0-9])"
"""People write numbers directly after words: `sđt0912…`. Checks exclude parts of other tokens."""
CARD = re.compile(rf"{NUMBER_START}[0-9](?:[ .-]{{0,2}}[0-9]){{11,18}}{NUMBER_END}")
CARD_CUE = re.compile(r"card|visa|amex|maestro|credit|debit|(?<![a-z])cc(?![a-z])|thẻ|卡|カード")
COUNTRIES = "|".join(sorted(IBAN_LENGTHS))
IBANS = (
    re.compile(rf"(?<![A-Z0-9])(?:{COUNTRIES})[0-9]{{2}}(?=(?:[ .-]?[A-Z0-9]){{11}})"),
    re.compile(rf"(?<![A-Za-z0-9])(?:{COUNTRIES.lower()})[0-9]{{2}}(?=(?:[ .-]?[a-z0-9]){{11}})"),
)
WALLET = re.compile(
    r"(?<![A-Za-z0-9])(?:0x[0-9A-Fa-f]{40}|bc1[02-9ac-hj-np-z]{25,59})(?![A-Za-z0-9])",
    re.IGNORECASE,
)
"""Wallets of Ethereum (ERC-55) and Bitcoin (BIP 173)."""
SSN = re.compile(r"(?<![0-9])(?<![0-9][-.,])([0-9]{3})([- .]?)([0-9]{2})\2([0-9]{4})(?!-?[0-9])")
SSN_CUE = re.compile(r"ssn|social security|an sinh xã hội|社会安全|社会保障")
CN_ID = re.compile(rf"{NUMBER_START}[1-8][0-9]{{16}}[0-9Xx](?![0-9])")
TWELVE_DIGITS = re.compile(rf"{NUMBER_START}[0-9]{{4}}([ -]?)[0-9]{{4}}\1[0-9]{{4}}{NUMBER_END}")
MY_NUMBER_CUE = re.compile(r"マイナンバー|個人番号|my ?number|individual number")
VN_ID = re.compile(rf"{NUMBER_START}(?:[0-9]{{12}}|[0-9]{{9}}){NUMBER_END}")
VN_ID_CUE = re.compile(
    r"cccd|cmnd|căn cước|chứng minh|can cuoc|chung minh|(?<![a-z])cmt(?![a-z])|định danh"
)
ACCOUNT = re.compile(
    r"(?:(?<![A-Za-z])stk|số tài khoản|so tai khoan|(?<![A-Za-z])(?:bank )?(?:account|acct\.?) ?(?:number|no\.?|#)|"
    r"(?<![A-Za-z])bank account|银行[卡账帐][号户]|銀行口座|口座番号|银行账号)"
    r"(?: ?(?:\(|của \w{1,8}|is|là|是|は|:|：|#|vietcombank|vcb|techcombank|mb|bidv|acb)){0,3}[ ]{0,2}"
    r"(?P<number>[0-9](?:[ -]?[0-9]){6,18})(?![0-9])",
    re.IGNORECASE,
)
PASSPORT = re.compile(
    r"(?i:(?<![A-Za-z])passport|hộ chiếu|ho chieu|护照|護照|パスポート|旅券|(?<![A-Za-z])reisepass)"
    r"(?i: ?(?:number|no\.?|num|id|số|so|của \w{1,8}|号码?|號碼?|番号|is|là|是|は|:|：|#)){0,4}\s{0,2}"
    r"(?P<number>(?=[A-Z]{0,8}[0-9])(?:[A-Z0-9]{6,9}|[a-z]{1,2}[0-9]{6,8}))(?![A-Za-z0-9])"
)
NON_CARD_CUE = re.compile(
    r"(?:order|tracking|invoice|ticket|serial|isbn|ean|upc|sku|ref(?:erence)?|version|timestamp|hash|seed|"
    r"订单|単号|单号|注文|đơn hàng|mã vận đơn)[^0-9a-z]{0,3}(?:number|no\.?|id|code|号码?|番号)?[^0-9a-z]{0,4}$"
)
"""Word right before another kind of number."""


def is_luhn_valid(digits: str) -> bool:
    """Check the Luhn checksum (ISO/IEC 7812-1)."""
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0


def is_card(digits: str) -> bool:
    """Check length and Luhn checksum of a payment card number."""
    return 12 <= len(digits) <= 19 and len(set(digits)) > 1 and is_luhn_valid(digits)


def is_iban(text: str) -> bool:
    """Check an IBAN without spaces: length of its country, and remainder 1 of 97 (ISO 7064 mod
    97-10).
    """
    text = text.upper()
    if IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    # Letters count as 10 to 35, which is their value as digits of base 36.
    number = "".join(str(int(sign, 36)) for sign in text[4:] + text[:4])
    return int(number) % 97 == 1


def is_us_ssn(digits: str) -> bool:
    """Check that a US social security number can have been issued: no 000, 666, 9xx; no 00; no
    0000.
    """
    area = digits[:3]
    group = digits[3:5]
    serial = digits[5:]
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def is_cn_id(text: str) -> bool:
    """Check a Chinese resident identity number (GB 11643): region, birth date, check character (ISO
    7064 mod 11-2).
    """
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = 0
    for digit, weight in zip(text, weights, strict=False):
        total += int(digit) * weight
    check = "10X98765432"[total % 11]
    return "11" <= text[:2] <= "82" and _is_date(text[6:14]) and text[17].upper() == check


def is_my_number(digits: str) -> bool:
    """Check the check digit of a Japanese Individual Number ("My Number", Ordinance 85 of 2014,
    article 5).
    """
    total = 0
    for place, digit in enumerate(digits[10::-1], 1):
        weight = place + 1 if place <= 6 else place - 5
        total += int(digit) * weight
    rest = total % 11
    return int(digits[11]) == (0 if rest <= 1 else 11 - rest)


def is_vn_id(digits: str) -> bool:
    """Check province, century, sex and year of a Vietnamese citizen number (Circular 59/2021); it
    has no checksum.
    """
    return len(digits) == 12 and 1 <= int(digits[:3]) <= 96 and digits[3] in "0123"


def _is_date(text: str) -> bool:
    try:
        return 1900 <= date(int(text[:4]), int(text[4:6]), int(text[6:])).year <= 2100
    except ValueError:
        return False


def find_cards(text: str) -> Iterator[EntitySpan]:
    """Find `CREDIT_CARD` by checksum and issuer prefix; lengths shared with barcodes and ids need a
    cue word.
    """
    for match in CARD.finditer(text):
        digits = re.sub("[ .-]", "", match[0])
        if not is_card(digits) or not _is_grouped(match[0]):
            continue
        is_called = CARD_CUE.search(text_before(text, match.start(), 60)) is not None
        is_usual = len(digits) in (14, 15, 16) and digits.startswith(CARD_PREFIXES)
        is_other = NON_CARD_CUE.search(text_before(text, match.start(), 30)) is not None
        if is_called or (is_usual and not is_other):
            yield EntitySpan.of_match("CREDIT_CARD", match, RANK_PATTERN)


def _is_grouped(written: str) -> bool:
    """Return True for digits without separators, or in groups of three to six with one
    separator.
    """
    groups = re.split("[ .-]{1,2}", written)
    if len(groups) == 1:
        return True
    separators = {*" .-"} & {*written}
    return len(separators) == 1 and all(3 <= len(group) <= 6 for group in groups)


def find_ibans(text: str) -> Iterator[EntitySpan]:
    """Find `IBAN_CODE` by length and checksum; spaces, dots and dashes are
    allowed.
    """
    for form in IBANS:
        for match in form.finditer(text):
            wanted = IBAN_LENGTHS[match[0][:2].upper()]
            compact = ""
            end = match.start()
            while len(compact) < wanted and end < len(text):
                sign = text[end]
                if sign.isascii() and sign.isalnum():
                    compact += sign
                elif sign not in " .-":
                    break
                end += 1
            following = text[end : end + 1]
            goes_on = following.isdigit() or (following.isupper() and following.isascii())
            if not goes_on and is_iban(compact):
                yield EntitySpan("IBAN_CODE", match.start(), end, RANK_PATTERN)


def find_accounts(text: str) -> Iterator[EntitySpan]:
    """Find `IBAN_CODE` for bank accounts without an IBAN: digits after a cue word."""
    for match in ACCOUNT.finditer(text):
        yield EntitySpan.of_match("IBAN_CODE", match, RANK_PATTERN, group="number")


def find_wallets(text: str) -> Iterator[EntitySpan]:
    """Find `IBAN_CODE` for wallets."""
    for match in WALLET.finditer(text):
        yield EntitySpan.of_match("IBAN_CODE", match, RANK_PATTERN)


def find_passports(text: str) -> Iterator[EntitySpan]:
    """Find `PASSPORT`: six to nine capitals and digits, at least three of them digits, after a cue
    word.
    """
    for match in PASSPORT.finditer(text):
        if sum(map(str.isdigit, match["number"])) >= 3:
            yield EntitySpan.of_match("PASSPORT", match, RANK_PATTERN, group="number")


def find_ssns(text: str) -> Iterator[EntitySpan]:
    """Find `US_SSN`: three, two and four digits with hyphens; other formats need a cue word."""
    for match in SSN.finditer(text):
        if not is_us_ssn(match[1] + match[3] + match[4]):
            continue
        if match[2] == "-" or SSN_CUE.search(text_before(text, match.start(), 40)):
            yield EntitySpan.of_match("US_SSN", match, RANK_PATTERN)


def find_identity_numbers(text: str) -> Iterator[EntitySpan]:
    """Find `CN_ID` by checksum, `JP_MY_NUMBER` by checksum and cue word, `VN_ID` by province and
    cue word.
    """
    for match in CN_ID.finditer(text):
        if is_cn_id(match[0]):
            yield EntitySpan.of_match("CN_ID", match, RANK_PATTERN)
    for match in TWELVE_DIGITS.finditer(text):
        if not is_my_number(re.sub("[ -]", "", match[0])):
            continue
        if MY_NUMBER_CUE.search(text_before(text, match.start(), 40)):
            yield EntitySpan.of_match("JP_MY_NUMBER", match, RANK_PATTERN)
    for match in VN_ID.finditer(text):
        # Nine digits until 2021, of no form that could be checked.
        if len(match[0]) != 9 and not is_vn_id(match[0]):
            continue
        if VN_ID_CUE.search(text_before(text, match.start(), 40)):
            yield EntitySpan.of_match("VN_ID", match, RANK_PATTERN)
