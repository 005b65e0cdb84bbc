"""Check digits and ranges of numbers, by which a number is told from another that merely looks like it."""

from __future__ import annotations

from datetime import date

IBAN_LENGTHS = {
    country: int(length)
    for country, length in (
        pair.split(":")
        for pair in """AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BI:27 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24
        DE:22 DJ:27 DK:18 DO:28 EE:20 EG:29 ES:24 FI:18 FK:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HN:28
        HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27
        MD:24 ME:22 MK:19 MN:20 MR:27 MT:31 MU:30 NI:28 NL:18 NO:15 OM:23 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22
        RU:33 SA:24 SC:31 SD:18 SE:24 SI:19 SK:24 SM:27 SO:23 ST:25 SV:28 TL:23 TN:24 TR:26 UA:29 VA:22 VG:24 XK:20
        YE:30""".split()
    )
}
"""Of each country in the registry of IBANs (ISO 13616, SWIFT)."""
CARD_PREFIXES = tuple(
    """34 37 36 38 39 300 301 302 303 304 305 309 4 51 52 53 54 55 6011 644 645 646 647 648 649 65 62 2200 2201
    2202 2203 2204 81""".split()
) + tuple(map(str, (*range(2221, 2721), *range(3528, 3590))))
"""How the numbers of issuers begin, where that tells them from other numbers."""


def luhn(digits: str) -> bool:
    """Luhn's check (ISO/IEC 7812-1)."""
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0


def is_card(digits: str) -> bool:
    """A payment card's number, by its length and Luhn's check."""
    return 12 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn(digits)


def is_iban(text: str) -> bool:
    """An IBAN without spaces: its country's length, and the remainder of 97 (ISO 7064 mod 97-10)."""
    text = text.upper()
    if IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    return int("".join(str(int(sign, 36)) for sign in text[4:] + text[:4])) % 97 == 1


def is_us_ssn(digits: str) -> bool:
    """A social security number that can have been given out: no 000, 666, 9xx; no 00; no 0000."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def is_cn_id(text: str) -> bool:
    """A Chinese resident identity number: region, date of birth, and check character (GB 11643, ISO 7064 mod 11-2)."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    check = "10X98765432"[sum(int(digit) * weight for digit, weight in zip(text, weights, strict=False)) % 11]
    return "11" <= text[:2] <= "82" and _is_day(text[6:14]) and text[17].upper() == check


def is_my_number(digits: str) -> bool:
    """A Japanese Individual Number ("My Number") of 12 digits: its check digit (Ordinance 85 of 2014, article 5)."""
    total = sum(int(digit) * (place + 1 if place <= 6 else place - 5) for place, digit in enumerate(digits[10::-1], 1))
    rest = total % 11
    return int(digits[11]) == (0 if rest <= 1 else 11 - rest)


def is_vn_id(digits: str) -> bool:
    """A Vietnamese citizen's 12 digits: province, century and sex, year (Circular 59/2021). They have no check."""
    return len(digits) == 12 and 1 <= int(digits[:3]) <= 96 and digits[3] in "0123"


def _is_day(text: str) -> bool:
    try:
        return 1900 <= date(int(text[:4]), int(text[4:6]), int(text[6:])).year <= 2100
    except ValueError:
        return False
