"""Numbers by which authorities know people and their vehicles, drawn at random.

Check digits are right, so that a detector which verifies them has no excuse.
"""

from random import Random

from benchmarks.studies.pii_heldout.values.numbers import fill_digits

CHINESE_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
CODICE_FISCALE_ODD = (
    1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23,
)  # fmt: skip
"""Values of the characters at the first, third, fifth place and so on: of A to Z, and of 0 to 9."""


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
        if check < 10:  # others are not given out
            return digits + str(check)


def _nif(rng: Random) -> str:
    digits = fill_digits("2#######", rng)
    check = 11 - _weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2)) % 11
    if check > 9:  # 10 and 11 are written 0
        check = 0
    number = f"{digits}{check}"
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
        if first < 10 and second < 10:  # others are not given out
            return f"{digits[:6]}{rng.choice(('', ' '))}{digits[6:]}{first}{second}"


def _chinese_id(rng: Random) -> str:
    district = rng.choice(("310104", "110108", "440106"))
    digits = district + _birth_digits(rng, "{Y}{m:02d}{d:02d}") + fill_digits("###", rng)
    return digits + "10X98765432"[_weighted(digits, CHINESE_WEIGHTS) % 11]


def _codice_fiscale(rng: Random) -> str:
    letters = fill_digits("@@@@@@", rng)
    birth = f"{rng.randrange(45, 99)}{rng.choice('ABCDEHLMPRST')}{rng.randrange(10, 29)}"
    body = f"{letters}{birth}{rng.choice('AFHL')}{rng.randrange(100, 999)}"
    total = 0
    for place, char in enumerate(body):
        value = int(char) if char.isdigit() else ord(char) - ord("A")
        if place % 2 == 0:
            value = CODICE_FISCALE_ODD[value]
        total += value
    return body + chr(ord("A") + total % 26)


def _english_id(rng: Random) -> str:
    pattern = rng.choice(("ssn", "nino", "nhs", "@#######", "#########"))
    if pattern == "ssn":
        return f"{rng.randrange(101, 665)}-{rng.randrange(10, 99)}-{rng.randrange(1000, 9999)}"
    if pattern == "nino":
        separator = rng.choice((" ", ""))
        groups = [rng.choice(("AB", "JK", "NE", "PC"))]
        groups += [fill_digits("##", rng) for _ in range(3)]
        groups.append(rng.choice("ABCD"))
        return separator.join(groups)
    if pattern == "nhs":
        return _nhs(rng)
    return fill_digits(pattern, rng)


def _nhs(rng: Random) -> str:
    while True:
        digits = fill_digits("4########", rng)
        check = 11 - _weighted(digits, (10, 9, 8, 7, 6, 5, 4, 3, 2)) % 11
        if check != 10:  # such a number is not given out, and 11 is written 0
            return f"{digits[:3]} {digits[3:6]} {digits[6:]}{check % 11}"


MAKERS = {
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
"""Makers of numbers by language."""


def national_id(language: str, rng: Random) -> str:
    """Returns the number by which an authority of the language's country knows a person."""
    if language in MAKERS:
        return MAKERS[language](rng)
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
