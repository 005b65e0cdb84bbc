"""Phone numbers, account and card numbers, identity numbers, and IP addresses, all drawn at random.

Check digits are right, so that a detector which verifies them has no excuse.
"""

from random import Random

PHONE_FORMATS = {
    "us": (
        "({area}) {ex}-####",
        "{area}-{ex}-####",
        "{area}.{ex}.####",
        "+1 {area} {ex} ####",
        "1-{area}-{ex}-####",
        "{area} {ex} ####",
        "{area}{ex}####",
        "+1 ({area}) {ex}-#### ext. ###",
    ),
    "gb": (
        "07{m}## ######",
        "07{m}## ### ###",
        "+44 7{m}## ######",
        "+44 (0)7{m}## ### ###",
        "0161 {x}## ####",
        "020 7{x}## ####",
        "01904 {x}#####",
        "(0117) {x}## ####",
        "07{m}########",
    ),
    "au": ("04{m}# ### ###", "+61 4{m}# ### ###", "(03) 9{x}## ####", "02 9{x}## ####"),
    "ca": ("416-{ex}-####", "(604) {ex}-####", "+1 514 {ex} ####"),
    "ie": ("087 {x}## ####", "+353 86 {x}## ####", "(01) {x}## ####", "021 4{x}# ####"),
    "in": ("+91 98### #####", "098########", "+91-99##-######"),
    "de": (
        "0171 {x}######",
        "0151/{x}#######",
        "+49 30 {x}#######",
        "0221-{x}######",
        "(089) {x}######",
        "+49 (0)40 {x}######",
        "0176 {x}## ## ###",
        "0043 664 {x}######",
        "+41 79 {x}## ## ##",
        "+49341{x}######",
    ),
    "fr": (
        "06 {x}# ## ## ##",
        "07.{x}#.##.##.##",
        "+33 6 {x}# ## ## ##",
        "01 4# ## ## ##",
        "0033 6{x}#######",
        "06{x}#######",
    ),
    "es": ("6## ### ###", "+34 6## ## ## ##", "91 {x}## ## ##", "6##-###-###", "+34 91 {x}######"),
    "it": (
        "333 {x}######",
        "+39 347 {x}## ####",
        "06 {x}#######",
        "347.{x}######",
        "+39 02 {x}## ####",
    ),
    "nl": (
        "06-{x}#######",
        "06 {x}# ## ## ##",
        "+31 6 {x}#######",
        "020-{x}######",
        "0031 6 {x}#######",
    ),
    "no": ("4## ## ###", "9## ## ###", "+47 4## ## ###", "22 {x}# ## ##", "9#######"),
    "pl": ("5## ### ###", "+48 6## ### ###", "22 {x}## ## ##", "600-###-###", "(12) {x}##-##-##"),
    "pt": ("91# ### ###", "+351 96# ### ###", "21 {x}## ## ##", "93#######", "+55 11 9{x}###-####"),
    "el": ("69{t} ### ####", "+30 69{t}#######", "210 {x}######", "2310-{x}#####", "69{t}#######"),
    "ja": (
        "090-{x}###-####",
        "080-{x}###-####",
        "03-{x}###-####",
        "+81 90-{x}###-####",
        "06({x}###)####",
    ),
    "zh": (
        "138 #### ####",
        "139########",
        "+86 186 #### ####",
        "010-6{x}######",
        "(021) 5{x}## ####",
    ),
    "ko": (
        "010-{x}###-####",
        "+82 10-{x}###-####",
        "02-{x}##-####",
        "010 {x}### ####",
        "010{x}#######",
    ),
}
"""Phone formats by country or language; `#` is any digit, `{x}` one from 2 to 9."""

PHONE_COUNTRIES = ("us", "us", "us", "gb", "gb", "gb", "au", "ca", "ie", "in")
"""Countries whose numbers stand in English texts, as often as they are named."""

AREA_CODES = (201, 206, 212, 303, 312, 404, 415, 503, 512, 602, 615, 702, 718, 804, 919)

IBAN_FORMATS = {
    "de": ("DE", 18),
    "fr": ("FR", 23),
    "es": ("ES", 20),
    "it": ("IT", 23),
    "nl": ("NL", 14),
    "no": ("NO", 11),
    "pl": ("PL", 24),
    "pt": ("PT", 21),
    "el": ("GR", 23),
    "en": ("GB", 18),
}
"""Country code, and length without code and check digits (ISO 13616 registry)."""


def fill_digits(pattern: str, rng: Random) -> str:
    """Replaces each `#` by a digit and each `@` by a capital."""
    letters = "ABCDEFGHJKLMNPRSTUVWXYZ"
    drawn = [str(rng.randrange(10)) if c == "#" else c for c in pattern]
    return "".join(rng.choice(letters) if c == "@" else c for c in drawn)


def phone_number(language: str, rng: Random) -> str:
    """Returns a number as people write it; English texts have those of several countries."""
    country = rng.choice(PHONE_COUNTRIES) if language == "en" else language
    if language == "en" and rng.random() < 0.1:
        country = rng.choice(tuple(PHONE_FORMATS))
    pattern = rng.choice(PHONE_FORMATS[country])
    pattern = pattern.replace("{area}", str(rng.choice(AREA_CODES)))
    pattern = pattern.replace("{ex}", f"{rng.randrange(2, 10)}##")
    pattern = pattern.replace("{m}", str(rng.choice((4, 5, 7, 8))))
    pattern = pattern.replace("{t}", str(rng.choice((3, 4, 7, 8))))
    return fill_digits(pattern.replace("{x}", str(rng.randrange(2, 10))), rng)


def iban(language: str, rng: Random) -> str:
    """Returns an IBAN with right check digits (ISO 7064, mod 97-10), mostly in groups of four."""
    country, length = IBAN_FORMATS.get(language, ("DE", 18))
    bank = "@@@@" if country in {"GB", "NL"} else "@" if country == "IT" else ""
    account = fill_digits(bank.ljust(length, "#"), rng)
    digits = "".join(str(int(c, 36)) for c in f"{account}{country}00")
    number = f"{country}{98 - int(digits) % 97:02d}{account}"
    if rng.random() < 0.3:
        return number
    return " ".join(number[i : i + 4] for i in range(0, len(number), 4))


def luhn_digit(digits: str) -> str:
    """Returns the digit that completes the digits by Luhn's formula (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def card_number(rng: Random) -> str:
    """Returns a card number with a right check digit, in one of four spellings."""
    body = fill_digits(rng.choice(("4##############", "52#############", "55#############")), rng)
    number = body + luhn_digit(body)
    if rng.random() < 0.15:
        body = fill_digits("37############", rng)
        number = body + luhn_digit(body)
        return f"{number[:4]} {number[4:10]} {number[10:]}"
    separator = rng.choice((" ", " ", "-", ""))
    return separator.join(number[i : i + 4] for i in range(0, 16, 4))


def _weighted(digits: str, weights: tuple[int, ...]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True))


def _birth_digits(rng: Random, pattern: str) -> str:
    year = rng.randrange(1945, 2004)
    month = rng.randrange(1, 13)
    day = rng.randrange(1, 29)
    return pattern.format(y=year % 100, Y=year, m=month, d=day)


def _pesel(rng: Random) -> str:
    digits = _birth_digits(rng, "{y:02d}{m:02d}{d:02d}") + fill_digits("####", rng)
    return digits + str(-_weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10)


def _dni(rng: Random) -> str:
    digits = fill_digits("########", rng)
    return digits + rng.choice(("", "-")) + "TRWAGMYFPDXBNJZSQVHLCKE"[int(digits) % 23]


def _bsn(rng: Random) -> str:
    while True:
        digits = fill_digits("1#######", rng)
        check = _weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2)) % 11
        if check < 10:
            return digits + str(check)


def _nif(rng: Random) -> str:
    digits = fill_digits("2#######", rng)
    check = 11 - _weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2)) % 11
    number = digits + str(0 if check > 9 else check)
    return rng.choice((number, f"{number[:3]} {number[3:6]} {number[6:]}"))


def _nir(rng: Random) -> str:
    digits = rng.choice("12") + _birth_digits(rng, "{y:02d}{m:02d}") + fill_digits("75######", rng)
    number = f"{digits[0]} {digits[1:3]} {digits[3:5]} {digits[5:7]} {digits[7:10]} {digits[10:]}"
    return f"{number} {97 - int(digits) % 97:02d}"


def _fodselsnummer(rng: Random) -> str:
    while True:
        digits = _birth_digits(rng, "{d:02d}{m:02d}{y:02d}") + fill_digits("4##", rng)
        first = -_weighted(digits, (3, 7, 6, 1, 8, 9, 4, 5, 2)) % 11
        second = -_weighted(f"{digits}{first % 10}", (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
        if first < 10 and second < 10:
            return f"{digits[:6]}{rng.choice(('', ' '))}{digits[6:]}{first}{second}"


def _chinese_id(rng: Random) -> str:
    district = rng.choice(("310104", "110108", "440106"))
    digits = district + _birth_digits(rng, "{Y}{m:02d}{d:02d}") + fill_digits("###", rng)
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return digits + "10X98765432"[_weighted(digits, weights) % 11]


def _codice_fiscale(rng: Random) -> str:
    letters = fill_digits("@@@@@@", rng)
    birth = f"{rng.randrange(45, 99)}{rng.choice('ABCDEHLMPRST')}{rng.randrange(10, 29)}"
    body = f"{letters}{birth}{rng.choice('AFHL')}{rng.randrange(100, 999)}"
    odd_digits = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)
    odd_letters = (
        1,
        0,
        5,
        7,
        9,
        13,
        15,
        17,
        19,
        21,
        2,
        4,
        18,
        20,
        11,
        3,
        6,
        8,
        12,
        14,
        16,
        10,
        22,
        25,
        24,
        23,
    )
    total = 0
    for place, char in enumerate(body):
        value = int(char) if char.isdigit() else ord(char) - 65
        odd = odd_digits if char.isdigit() else odd_letters
        total += odd[value] if place % 2 == 0 else value
    return body + chr(65 + total % 26)


def _english_id(rng: Random) -> str:
    pattern = rng.choice(("ssn", "nino", "nhs", "@#######", "#########"))
    if pattern == "ssn":
        return f"{rng.randrange(101, 665)}-{rng.randrange(10, 99)}-{rng.randrange(1000, 9999)}"
    if pattern == "nino":
        separator = rng.choice((" ", ""))
        pairs = (
            rng.choice(("AB", "JK", "NE", "PC")),
            *(fill_digits("##", rng) for _ in range(3)),
            rng.choice("ABCD"),
        )
        return separator.join(pairs)
    if pattern == "nhs":
        return _nhs(rng)
    return fill_digits(pattern, rng)


def _nhs(rng: Random) -> str:
    while True:
        digits = fill_digits("4########", rng)
        check = 11 - _weighted(digits, (10, 9, 8, 7, 6, 5, 4, 3, 2)) % 11
        if check != 10:
            return f"{digits[:3]} {digits[3:6]} {digits[6:]}{check % 11}"


def national_id(language: str, rng: Random) -> str:
    """Returns the number by which an authority of the language's country knows a person."""
    makers = {
        "pl": _pesel,
        "es": _dni,
        "nl": _bsn,
        "pt": _nif,
        "fr": _nir,
        "no": _fodselsnummer,
        "zh": _chinese_id,
        "it": _codice_fiscale,
        "en": _english_id,
    }
    if language in makers:
        return makers[language](rng)
    if language == "ko":
        return _birth_digits(rng, "{y:02d}{m:02d}{d:02d}") + fill_digits("-1######", rng)
    patterns = {"de": "L@#@##@#T#", "el": "@@ ######", "ja": "#### #### ####"}
    return fill_digits(patterns[language], rng)


def passport(rng: Random) -> str:
    """Returns a passport's number."""
    return fill_digits(rng.choice(("@########", "#########", "@@#######", "C0#@##@##")), rng)


def licence_plate(language: str, rng: Random) -> str:
    """Returns the plate of a vehicle in the form of the language's country."""
    patterns = {
        "de": ("L-@@ ####", "HH @ ###"),
        "fr": ("@@-###-@@",),
        "es": ("#### @@@",),
        "it": ("@@ ###@@",),
        "nl": ("@-###-@@", "##-@@-##"),
        "no": ("@@ #####",),
        "pl": ("W@ #####",),
        "pt": ("@@-##-@@",),
        "en": ("@@## @@@", "#@@@###", "@@@-####"),
        "zh": ("沪A·#@###",),
        "ko": ("12가 ####",),
        "ja": ("品川 300 さ ##-##",),
        "el": ("@@@-####",),
    }
    return fill_digits(rng.choice(patterns[language]), rng)


def ip_address(rng: Random) -> str:
    """Returns a public IPv4 address, or sometimes an IPv6 address."""
    if rng.random() < 0.2:
        groups = [f"{rng.randrange(1, 0xFFFF):x}" for _ in range(4)]
        return f"2a02:{groups[0]}:{groups[1]}::{groups[2]}:{groups[3]}"
    first = rng.choice((24, 31, 62, 77, 81, 93, 109, 151, 178, 213))
    return f"{first}.{rng.randrange(1, 255)}.{rng.randrange(1, 255)}.{rng.randrange(2, 254)}"
