"""Phone numbers, account and card numbers, and IP addresses, all drawn at random.

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

BANK_LETTERS = {"GB": "@@@@", "NL": "@@@@", "IT": "@"}
"""Letters with which account numbers of a country begin."""


def fill_digits(pattern: str, rng: Random) -> str:
    """Replaces each `#` by a digit and each `@` by a capital."""
    letters = "ABCDEFGHJKLMNPRSTUVWXYZ"
    # All digits are drawn before the letters: another order would give other texts for a seed.
    drawn = [str(rng.randrange(10)) if c == "#" else c for c in pattern]
    return "".join(rng.choice(letters) if c == "@" else c for c in drawn)


def phone_number(language: str, rng: Random) -> str:
    """Returns a number as people write it; English texts have those of several countries."""
    country = language
    if language == "en":
        country = rng.choice(PHONE_COUNTRIES)
        if rng.random() < 0.1:
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
    bank = BANK_LETTERS.get(country, "")
    account = fill_digits(bank.ljust(length, "#"), rng)
    # Letters count from 10, and the country comes last with 00 for the check digits.
    digits = "".join(str(int(c, 36)) for c in f"{account}{country}00")
    number = f"{country}{98 - int(digits) % 97:02d}{account}"
    if rng.random() < 0.3:
        return number
    return " ".join(number[i : i + 4] for i in range(0, len(number), 4))


def luhn_digit(digits: str) -> str:
    """Returns the digit that completes the digits by Luhn's formula (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit)
        if place % 2 == 0:  # every second one counts twice, and of the product, its digits' sum
            value *= 2
        if value > 9:
            value -= 9
        total += value
    return str(-total % 10)


def card_number(rng: Random) -> str:
    """Returns a card number with a right check digit, in one of four spellings."""
    body = fill_digits(rng.choice(("4##############", "52#############", "55#############")), rng)
    number = body + luhn_digit(body)
    if rng.random() < 0.15:  # American Express has 15 digits, in groups of its own
        body = fill_digits("37############", rng)
        number = body + luhn_digit(body)
        return f"{number[:4]} {number[4:10]} {number[10:]}"
    separator = rng.choice((" ", " ", "-", ""))
    return separator.join(number[i : i + 4] for i in range(0, 16, 4))


def ip_address(rng: Random) -> str:
    """Returns a public IPv4 address, or sometimes an IPv6 address."""
    if rng.random() < 0.2:
        groups = [f"{rng.randrange(1, 0xFFFF):x}" for _ in range(4)]
        return f"2a02:{groups[0]}:{groups[1]}::{groups[2]}:{groups[3]}"
    first = rng.choice((24, 31, 62, 77, 81, 93, 109, 151, 178, 213))
    return f"{first}.{rng.randrange(1, 255)}.{rng.randrange(1, 255)}.{rng.randrange(2, 254)}"
