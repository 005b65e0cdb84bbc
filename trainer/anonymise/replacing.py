"""What stands in the place of a value: the same for the same value in one data set, and never a real one.

A model is to learn from the text, so what reads on is preferred: an invented e-mail address for one, an invented number
for a number. Domains, numbers and addresses are from the ranges that are reserved for examples (RFC 2606, RFC 5737,
RFC 3849; telephone numbers 555-0100 to 555-0199). What a model must not learn to make up stands in brackets.
"""

from __future__ import annotations

import re

from personas.invented_names import NAMES
from trainer.anonymise.entity import Kind
from trainer.anonymise.pseudonyms import drawn_from

IN_BRACKETS: dict[str, str] = {
    "STREET_ADDRESS": "[address]",
    "CREDIT_CARD": "[card number]",
    "IBAN_CODE": "[account number]",
    "US_SSN": "[social security number]",
    "VN_ID": "[identity number]",
    "CN_ID": "[identity number]",
    "JP_MY_NUMBER": "[identity number]",
    "PASSPORT": "[identity number]",
    "SECRET": "[key removed]",
    "URL_SECRET": "removed",
}
DOMAINS = ("example.com", "example.net", "example.org")
IPV4 = ("192.0.2", "198.51.100", "203.0.113")
AREAS = "201 212 305 312 404 415 503 512 617 702".split()
STANDS_IN = re.compile(
    rf"[a-z]+[0-9]{{3}}@(?:{'|'.join(map(re.escape, DOMAINS))})|(?:{'|'.join(AREAS)})-555-01[0-9]{{2}}"
    rf"|(?:{'|'.join(map(re.escape, IPV4))})\.[0-9]+|2001:db8::[0-9a-f]+"
)
SOMEONE = "someone"
NO_MEMBER = {"@&": "@role", "#": "#channel"}
MENTION = re.compile(r"<(?P<sign>@[!&]?|#)(?P<id>[0-9]+)>")


def in_place_of(kind: Kind, value: str, key: bytes, members: dict[str, str]) -> str:
    """The replacement of a value of any kind but PERSON. `members` are pseudonyms by Discord id."""
    if kind in IN_BRACKETS:
        return IN_BRACKETS[kind]
    if kind == "DISCORD_ID":
        return _id(value, members)
    value = value.casefold()
    if kind == "PHONE_NUMBER":
        digits = re.sub("[^0-9]", "", value)
        area = AREAS[drawn_from(key, "area", digits, len(AREAS))]
        return f"{area}-555-01{drawn_from(key, kind, digits, 100):02}"
    if kind == "IP_ADDRESS":
        return _ip(value, key)
    name = f"{NAMES[drawn_from(key, kind, value, len(NAMES))].lower()}{drawn_from(key, 'number', value, 900) + 100}"
    if kind == "EMAIL_ADDRESS":
        return f"{name}@{DOMAINS[drawn_from(key, 'domain', value, len(DOMAINS))]}"
    return f"@{name}" if value.startswith("@") else name


def _id(value: str, members: dict[str, str]) -> str:
    mention = MENTION.fullmatch(value)
    if not mention:
        return "[id]"
    return NO_MEMBER.get(mention["sign"]) or members.get(mention["id"], SOMEONE)


def _ip(value: str, key: bytes) -> str:
    if ":" in value:
        return f"2001:db8::{drawn_from(key, 'ipv6', value, 0xFFFF) + 1:x}"
    return f"{IPV4[drawn_from(key, 'net', value, 3)]}.{drawn_from(key, 'ipv4', value, 254) + 1}"


def stands_in(value: str) -> bool:
    """Whether a value is of the form of a replacement, which is nobody's: a masked text is found to hold it."""
    return STANDS_IN.fullmatch(value.casefold()) is not None
