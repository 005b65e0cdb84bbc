"""Recognises street addresses in the formats of many countries."""

import re
from collections.abc import Iterator

from trainer.anonymise.language_data import HAN
from trainer.anonymise.language_data import LATIN as LETTERS
from trainer.anonymise.spans import RANK_PATTERN, EntitySpan

# ------------------------------------------------------------------------ English and European ways

UPPER = "A-Z\u00c0-\u00d6\u00d8-\u00de"
WORD = rf"(?:[{UPPER}][{LETTERS}'’.-]*|[0-9]{{1,3}}(?:st|nd|rd|th))"
SUFFIX = (
    "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Terrace|Ter|Way|Parkway|"
    "Pkwy|Circle|Cir|Highway|Hwy|Crescent|Close|Grove|Gardens|Mews|Row|Walk|Wharf|Quay|Trail|Alley|Esplanade|Parade|Plaza|"
    "Loop|Turnpike|Heights|Hill|Green|Rise"
)
LOWERCASE_SUFFIX = "street|avenue|road|boulevard|lane|drive|terrace|parkway|highway|crescent|st\\.|ave\\.|rd\\.|blvd\\."
HOUSE = r"[0-9]{1,6}[A-Za-z]?(?:[-/][0-9]{1,5}[A-Za-z]?)?"
ROOM = (
    r"(?:,?\s{1,3}(?:Apt|Apartment|Suite|Ste|Unit|Floor|Fl|Room|Rm|Flat|Building|Bldg|No)\.?\s?#?[A-Za-z0-9-]{1,6}"
    r"(?![A-Za-z])|,?\s?#\s?[0-9]{1,5})"
)
POSTCODE = (
    r"(?:[A-Z]{2}\s[0-9]{5}(?:-[0-9]{4})?|[A-Z]{1,2}[0-9][A-Z0-9]?\s[0-9][A-Z]{2}|[A-Z][0-9][A-Z]\s?[0-9][A-Z][0-9]|"
    r"[0-9]{4,6})(?![A-Za-z0-9])"
)
TOWN = rf"(?:[{UPPER}][{LETTERS}'’.-]+(?:[ -][{UPPER}][{LETTERS}'’.-]+){{0,3}})"
TOWN_AND_POSTCODE = rf"(?:(?:[,\s]{{1,3}}{TOWN}){{0,3}}[,\s]{{1,3}}{POSTCODE}(?:[^\S\n]{TOWN})?)?"
TAIL = rf"(?:{ROOM}){{0,2}}{TOWN_AND_POSTCODE}"
ADDRESS_START = rf"(?<![{LETTERS}0-9])(?<![0-9][.,])"
NUMBERED_STREET = (
    rf"{ADDRESS_START}(?!(?:1[89]|20)[0-9]{{2}},){HOUSE},?\s(?:[NSEW]\.?\s)?(?:{WORD}\s){{1,4}}(?:{SUFFIX})(?![a-z])\.?(?:\s[NSEW][EW]?(?![A-Za-z]))?"
    rf"{TAIL}"
)
LOWERCASE_STREET = (
    rf"{ADDRESS_START}(?:{HOUSE}\s){{1,2}}(?:[{LETTERS}]{{3,}}\s){{1,2}}(?:[0-9]{{1,4}}\s)?(?:{LOWERCASE_SUFFIX})(?![{LETTERS}])"
    rf"{TAIL}"
)
PO_BOX = (
    r"(?:P\.?\s?O\.?\s?Box|Post(?:al)?\s?[Bb]ox|Postbox|Postfach|Boîte postale|B\.?P\.?|Apartado)"
    rf"\s#?[0-9]{{1,6}}{TOWN_AND_POSTCODE}"
)
MILITARY = (
    r"(?:PSC|Unit|CMR|USNS|USS)\s[0-9A-Z]{1,6},?\s(?:Box\s[0-9]{1,6})?,?\s{0,2}"
    r"[AFD]PO\s(?:AA|AE|AP)(?:\s[0-9]{5})?"
)
STREET_ENDS = (
    "stra(?:ß|ss)e|str\\.|gasse|platz|allee|damm|gatan|vägen|gata|gate|veien|vegen|vej|gade|straat|laan|plein|gracht|"
    "kade|katu|tie|polku|kuja|stræde"
)
COMPOUND_STREET = (
    rf"{ADDRESS_START}(?:[{UPPER}][{LETTERS}.-]+[ -]){{0,2}}[{UPPER}][{LETTERS}-]*(?:{STREET_ENDS})\s"
    rf"[0-9]{{1,4}}\s?[a-zA-Z]?(?![A-Za-z0-9]){TOWN_AND_POSTCODE}"
)
STREET_STARTS = (
    "[Rr]ue|[Aa]venue|[Bb]oulevard|[Aa]llée|[Ii]mpasse|[Vv]ia|[Vv]iale|[Cc]orso|[Pp]iazza|[Cc]alle|[Aa]venida|[Pp]aseo|"
    "[Pp]laza|[Rr]ua|[Tt]ravessa|[Pp]raça|[Uu]l\\.|[Uu]lica|[Aa]l\\.|[Uu]lice"
)
STREET_PREPOSITION = (
    "(?:de la|de los|de las|de l['’]|della|delle|dei|del|des|du|de|da|do|la|le|les|d['’])"
)
STREET_NAME_PART = rf"[{UPPER}][{LETTERS}'’.-]+"
STREET_WITH_NAME = (
    rf"(?:{STREET_STARTS})\s(?:{STREET_PREPOSITION}\s?)*{STREET_NAME_PART}"
    rf"(?:\s(?:{STREET_PREPOSITION}\s?)?{STREET_NAME_PART}){{0,3}}"
)
STREET_FIRST = (
    rf"{ADDRESS_START}(?:{HOUSE},?\s(?:bis\s|ter\s)?{STREET_WITH_NAME}|{STREET_WITH_NAME},?\s(?:n[º°o]\.?\s?)?[0-9]{{1,4}}[A-Za-z]?)"
    rf"(?![A-Za-z0-9]){TAIL}"
)
EUROPEAN = [
    re.compile(form) for form in (NUMBERED_STREET, PO_BOX, MILITARY, COMPOUND_STREET, STREET_FIRST)
]
EUROPEAN += [re.compile(LOWERCASE_STREET, re.IGNORECASE)]
NON_ADDRESS_CONTEXT = re.compile(
    r"[\"'”’*_]{0,2} (?:(?:is|was) (?:an?|the|my|one|such) (?:\w{1,12} ){0,2}(?:film|movie|show|series|song|book|game)|"
    r"(?:rulings?|decisions?|orders?|hearings?|verdicts?|jury|judges?|justices?|rules|ruled|film|movie|series)(?![a-z]))"
)
"""Text after phrases that only look like an address."""
HAS_DIGIT = re.compile("[0-9]")

# --------------------------------------------------------------------------------------- Vietnamese

VN_NAME = rf"(?:[{UPPER}\u1e00-\u1eff\u0102\u0110\u01a0\u01af][{LETTERS}]*|[0-9]{{1,3}})"
VN_NAMES = rf"{VN_NAME}(?:[ -]{VN_NAME}){{0,4}}"
VN_STREET = "(?:đường|phố|ngõ|ngách|hẻm|kiệt|Đường|Phố|Ngõ|Ngách|Hẻm|Kiệt|đ\\.|Đ\\.|duong|Duong|pho|ngo|hem)"
VN_PART = (
    "(?:phường|quận|huyện|xã|thôn|ấp|tổ|khu phố|thị trấn|thị xã|thành "
    "phố|tỉnh|[Pp]huong|[Qq]uan|[Hh]uyen|[Tt]hanh pho|"
    "Phường|Quận|Huyện|Xã|Thôn|Ấp|Tổ|Khu phố|Thị trấn|Thị xã|Thành "
    "phố|Tỉnh|P\\.|Q\\.|TP\\.?|T\\.|H\\.|X\\.)"
)
VN_HOUSE = r"(?:(?:[Ss]ố(?: nhà)?|[Ss]o(?: nha)?|[Nn]hà(?: số)?)\s)?[0-9]{1,5}[A-Za-z]?(?:/[0-9]{1,4}[A-Za-z]?){0,4}"
VN_CITY = (
    "Hà Nội|Sài Gòn|Hồ Chí Minh|Đà Nẵng|Huế|Hải Phòng|Cần Thơ|Nha Trang|Đà Lạt|Vũng Tàu|TPHCM|HCM"
)
VN_TAIL = rf"(?:,?\s{VN_PART}\s?{VN_NAMES}){{0,5}}(?:,\s(?:{VN_CITY}))?"
VIETNAMESE = [
    re.compile(rf"(?<![0-9{LETTERS}]){form}")
    for form in (
        rf"{VN_HOUSE},?\s(?:{VN_STREET}\s(?:[0-9]{{1,4}}(?:/[0-9]{{1,4}}){{0,3}},?\s)?){{1,3}}{VN_NAMES}{VN_TAIL}",
        rf"{VN_STREET}\s{VN_NAMES},?\s[Ss]ố\s[0-9]{{1,5}}{VN_TAIL}",
        rf"{VN_HOUSE},?\s{VN_NAMES}(?:,?\s{VN_PART}\s?{VN_NAMES}){{1,5}}",
        rf"(?:[Ss]ố nhà|[Nn]hà số)\s[0-9]{{1,5}}[A-Za-z]?(?:,?\s{VN_NAMES})?{VN_TAIL}",
        rf"(?:[Nn]gõ|[Nn]gách|[Hh]ẻm|[Kk]iệt)\s[0-9]{{1,4}}(?:/[0-9]{{1,4}}){{0,3}}(?:,?\s(?:{VN_STREET}\s)?{VN_NAMES})?{VN_TAIL}",
    )
]
VN_HINT = re.compile(
    "đường|phố|ngõ|ngách|hẻm|kiệt|phường|quận|huyện|xã|thôn|số nhà|nhà "
    "số|duong|quan|phuong|tp|p\\.|q\\.|đ\\.",
    re.IGNORECASE,
)

# ----------------------------------------------------------------------------- Chinese and Japanese

CN_DIGIT = "[0-9一二三四五六七八九十百零〇甲乙丙A-Za-z-]"
CN_UNIT = f"(?:{CN_DIGIT}{{1,6}}(?:号楼|号院|号|號|弄|栋|棟|幢|座|单元|單元|层|樓|楼|室|房|巷)(?:之[0-9])?)"
CHINESE = re.compile(
    rf"(?:[{HAN}]{{2,10}}?(?:省|自治区|特别行政区))?(?:[{HAN}]{{2,8}}?[市州])?(?:[{HAN}]{{1,8}}?[区區县縣旗])?"
    rf"(?:[{HAN}]{{1,8}}?(?:街道|镇|鎮|乡|鄉|村|新村|社区))?"
    rf"(?:[{HAN}]{{1,10}}?(?:大道|大街|胡同|路|街|巷|里|段|道)(?:[东西南北中一二三四五六七八九十]{{1,3}}[段路街])?)"
    rf"\s?{CN_UNIT}(?:[{HAN}]{{0,10}}?\s?{CN_UNIT}){{0,4}}"
)
CHINESE_HOME = re.compile(
    rf"(?:[{HAN}]{{2,10}}?省)?(?:[{HAN}]{{2,8}}?市)?[{HAN}]{{1,8}}?[区區县縣][{HAN}]{{1,16}}?(?:小区|花园|公寓|大厦|家园|苑|村|城)"
    rf"[{HAN}]{{0,4}}?\s?{CN_UNIT}(?:\s?{CN_UNIT}){{0,4}}"
)
CHINESE_LEAD = re.compile(
    "^.*(?:住址|地址|住在|家在|位于|位於|搬到|寄到|寄往|送到|发到|发往|来到|去|到|在|是|住|我家|的|于)(?=[^号]{3,}[号弄栋室楼座號])"
)
JP_NUMBER = "[0-9０-９一二三四五六七八九十]"
PREFECTURES = (
    "東京都|北海道|大阪府|京都府|青森県|岩手県|宮城県|秋田県|山形県|福島県|茨城県|栃木県|群馬県|埼玉県|千葉県|神奈川県|新潟県|富山県|"
    "石川県|福井県|山梨県|長野県|岐阜県|静岡県|愛知県|三重県|滋賀県|兵庫県|奈良県|和歌山県|鳥取県|島根県|岡山県|広島県|山口県|"
    "徳島県|香川県|愛媛県|高知県|福岡県|佐賀県|長崎県|熊本県|大分県|宮崎県|鹿児島県|沖縄県"
)
JP_WORD = "[\u3005-\u3007\u3041-\u3096\u30a1-\u30fc\u4e00-\u9fff]"
JP_BLOCK = (
    f"(?:{JP_NUMBER}{{1,4}}丁目(?:{JP_NUMBER}{{1,4}}(?:番地?|[-−ー－]))?(?:の?{JP_NUMBER}{{1,4}}号?)?|"
    f"{JP_NUMBER}{{1,5}}番地?(?:の?{JP_NUMBER}{{1,4}}号?)?|{JP_NUMBER}{{1,4}}(?:[-−ー－]{JP_NUMBER}{{1,4}}){{1,3}})"
)
JP_ROOM = rf"(?:\s?{JP_WORD}{{2,16}}\s?{JP_NUMBER}{{2,4}}(?:号室|号)?|\s?{JP_NUMBER}{{2,4}}号室)?"
JP_CODE = r"〒?\s?[0-9]{3}-[0-9]{4}"
JAPANESE = [
    re.compile(rf"(?:{JP_CODE}\s{{0,2}})?(?:{PREFECTURES}){JP_WORD}{{1,14}}?{JP_BLOCK}{JP_ROOM}"),
    re.compile(
        rf"(?:{JP_CODE}\s{{0,2}})?[\u30a1-\u30fc\u4e00-\u9fff]{{1,5}}?[市区町村郡]{JP_WORD}{{0,14}}?{JP_BLOCK}{JP_ROOM}"
    ),
    re.compile(r"〒\s?[0-9]{3}-?[0-9]{4}"),
]
CJK_HINT = re.compile("[号號弄栋棟幢座室楼番丁〒市区町村郡]")


def find_addresses(text: str) -> Iterator[EntitySpan]:
    """Find `STREET_ADDRESS` by the patterns of all languages."""
    if not HAS_DIGIT.search(text) and not CJK_HINT.search(text):
        return
    for form in EUROPEAN:
        for match in form.finditer(text):
            if not NON_ADDRESS_CONTEXT.match(text, match.end()):
                yield EntitySpan.of_match("STREET_ADDRESS", match, RANK_PATTERN)
    if VN_HINT.search(text):
        for form in VIETNAMESE:
            for match in form.finditer(text):
                yield EntitySpan.of_match("STREET_ADDRESS", match, RANK_PATTERN)
    if CJK_HINT.search(text):
        yield from _find_cjk_addresses(text)


def _find_cjk_addresses(text: str) -> Iterator[EntitySpan]:
    for form in JAPANESE:
        for match in form.finditer(text):
            yield EntitySpan.of_match("STREET_ADDRESS", match, RANK_PATTERN)
    for form in (CHINESE, CHINESE_HOME):
        for match in form.finditer(text):
            lead = CHINESE_LEAD.match(match[0])
            start = match.start()
            if lead:
                start += lead.end()
            yield EntitySpan("STREET_ADDRESS", start, match.end(), RANK_PATTERN)
