"""Cards, bank accounts, social security and identity numbers: digits with a check, a range, or a word before them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainer.anonymise.bounds import before
from trainer.anonymise.checks import (
    CARD_PREFIXES,
    IBAN_LENGTHS,
    is_card,
    is_cn_id,
    is_iban,
    is_my_number,
    is_us_ssn,
    is_vn_id,
)
from trainer.anonymise.entity import BY_FORM, Span

NUMBER = r"(?<![0-9])(?<![0-9][.,])"
NO_MORE = r"(?![0-9]|[.,][0-9])"
"""People glue numbers to words: `sđt0912…`. Checks tell them from parts of other things."""
CARD = re.compile(rf"{NUMBER}[0-9](?:[ -]?[0-9]){{11,18}}{NO_MORE}")
CARD_CUE = re.compile(r"card|visa|amex|maestro|credit|debit|(?<![a-z])cc(?![a-z])|thẻ|卡|カード")
COUNTRIES = "|".join(sorted(IBAN_LENGTHS))
IBANS = (
    re.compile(rf"(?<![A-Z0-9])(?:{COUNTRIES})[0-9]{{2}}(?=(?:[ -]?[A-Z0-9]){{11}})"),
    re.compile(rf"(?<![A-Za-z0-9])(?:{COUNTRIES.lower()})[0-9]{{2}}(?=(?:[ -]?[a-z0-9]){{11}})"),
)
SSN = re.compile(r"(?<![0-9])(?<![0-9][-.,])([0-9]{3})([- .]?)([0-9]{2})\2([0-9]{4})(?!-?[0-9])")
SSN_CUE = re.compile(r"ssn|social security|an sinh xã hội|社会安全|社会保障")
CN_ID = re.compile(rf"{NUMBER}[1-8][0-9]{{16}}[0-9Xx](?![0-9])")
TWELVE = re.compile(rf"{NUMBER}[0-9]{{4}}([ -]?)[0-9]{{4}}\1[0-9]{{4}}{NO_MORE}")
MY_NUMBER_CUE = re.compile(r"マイナンバー|個人番号|my ?number|individual number")
VN_ID = re.compile(rf"{NUMBER}(?:[0-9]{{12}}|[0-9]{{9}}){NO_MORE}")
VN_ID_CUE = re.compile(r"cccd|cmnd|căn cước|chứng minh|can cuoc|chung minh|(?<![a-z])cmt(?![a-z])|định danh")
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
    r"(?P<number>(?=[A-Z]{0,8}[0-9])(?:[A-Z0-9]{6,9}|[a-z]{1,2}[0-9]{6,8}))(?![A-Za-z0-9])",
)
NOT_PAID_WITH = re.compile(
    r"(?:order|tracking|invoice|ticket|serial|isbn|ean|upc|sku|ref(?:erence)?|version|timestamp|hash|seed|"
    r"订单|単号|单号|注文|đơn hàng|mã vận đơn)[^0-9a-z]{0,3}(?:number|no\.?|id|code|号码?|番号)?[^0-9a-z]{0,4}$"
)
"""Right before a number: it is another kind of number."""


def cards(text: str) -> Iterator[Span]:
    """`CREDIT_CARD`: Luhn's check and an issuer's prefix; lengths that barcodes and ids have too need a word."""
    for match in CARD.finditer(text):
        digits = re.sub("[ -]", "", match[0])
        if not is_card(digits) or not _is_grouped(match[0]):
            continue
        is_called = CARD_CUE.search(before(text, match.start(), 60)) is not None
        is_usual = len(digits) in (14, 15, 16) and digits.startswith(CARD_PREFIXES)
        if is_called or (is_usual and not NOT_PAID_WITH.search(before(text, match.start(), 30))):
            yield Span("CREDIT_CARD", *match.span(), BY_FORM)


def _is_grouped(written: str) -> bool:
    """Digits together, or in groups of three to six between signs of one kind."""
    groups = re.split("[ -]", written)
    return len(groups) == 1 or (len({" ", "-"} & set(written)) == 1 and all(3 <= len(group) <= 6 for group in groups))


def ibans(text: str) -> Iterator[Span]:
    """`IBAN_CODE`: as many letters and digits as its country has, with the right remainder; spaces may lie between."""
    for match in (match for form in IBANS for match in form.finditer(text)):
        wanted, compact, end = IBAN_LENGTHS[match[0][:2].upper()], "", match.start()
        while len(compact) < wanted and end < len(text) and (text[end] in " -" or _is_alphanumeric(text[end])):
            compact += text[end] if text[end] not in " -" else ""
            end += 1
        goes_on = end < len(text) and (text[end].isdigit() or (text[end].isupper() and text[end].isascii()))
        if not goes_on and is_iban(compact):
            yield Span("IBAN_CODE", match.start(), end, BY_FORM)


def accounts(text: str) -> Iterator[Span]:
    """`IBAN_CODE` for a bank account without an IBAN: digits after a word for one."""
    for match in ACCOUNT.finditer(text):
        yield Span("IBAN_CODE", *match.span("number"), BY_FORM)


def passports(text: str) -> Iterator[Span]:
    """`PASSPORT`: six to nine capitals and digits after a word for one; three digits at least."""
    for match in PASSPORT.finditer(text):
        if sum(map(str.isdigit, match["number"])) >= 3:
            yield Span("PASSPORT", *match.span("number"), BY_FORM)


def _is_alphanumeric(sign: str) -> bool:
    return sign.isascii() and sign.isalnum()


def ssns(text: str) -> Iterator[Span]:
    """`US_SSN`: three, two and four digits between hyphens; other ways of writing need a word."""
    for match in SSN.finditer(text):
        digits = match[1] + match[3] + match[4]
        if is_us_ssn(digits) and (match[2] == "-" or SSN_CUE.search(before(text, match.start(), 40))):
            yield Span("US_SSN", *match.span(), BY_FORM)


def identity_numbers(text: str) -> Iterator[Span]:
    """`CN_ID` by its check, `JP_MY_NUMBER` by its check and a word, `VN_ID` by its province and a word."""
    for match in CN_ID.finditer(text):
        if is_cn_id(match[0]):
            yield Span("CN_ID", *match.span(), BY_FORM)
    for match in TWELVE.finditer(text):
        if is_my_number(re.sub("[ -]", "", match[0])) and MY_NUMBER_CUE.search(before(text, match.start(), 40)):
            yield Span("JP_MY_NUMBER", *match.span(), BY_FORM)
    for match in VN_ID.finditer(text):
        is_whole = len(match[0]) == 9 or is_vn_id(match[0])  # nine digits until 2021, of no form that could be checked
        if is_whole and VN_ID_CUE.search(before(text, match.start(), 40)):
            yield Span("VN_ID", *match.span(), BY_FORM)
