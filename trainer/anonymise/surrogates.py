"""Surrogate values: pseudonyms by HMAC of a person's id, and replacements for all other kinds."""

import hmac
import itertools
import re
from collections.abc import Collection, Iterable, Iterator

from personas.home.pseudonyms import INVENTED_NAMES
from trainer.anonymise.capitalisation import TOKEN, fold_diacritics
from trainer.anonymise.spans import EntityKind
from trainer.sources.conversation import SourceSpeaker

PLACEHOLDERS: dict[str, str] = {
    "STREET_ADDRESS": "[address]",
    "CREDIT_CARD": "[card number]",
    "IBAN_CODE": "[account number]",
    "US_SSN": "[social security number]",
    **dict.fromkeys(
        ("VN_ID", "CN_ID", "JP_MY_NUMBER", "PASSPORT", "ID_NUMBER"), "[identity number]"
    ),
    "SECRET": "[key removed]",
    "URL_SECRET": "removed",
}
EXAMPLE_DOMAINS = ("example.com", "example.net", "example.org")
EXAMPLE_IPV4_PREFIXES = ("192.0.2", "198.51.100", "203.0.113")
PHONE_AREA_CODES = "201 212 305 312 404 415 503 512 617 702".split()
SURROGATE_FORMAT = re.compile(
    rf"[a-z]+[0-9]{{3}}@(?:{'|'.join(map(re.escape, EXAMPLE_DOMAINS))})"
    rf"|(?:{'|'.join(PHONE_AREA_CODES)})-555-01[0-9]{{2}}"
    rf"|(?:{'|'.join(map(re.escape, EXAMPLE_IPV4_PREFIXES))})\.[0-9]+|2001:db8::[0-9a-f]+"
)
UNKNOWN_MEMBER = "someone"
NON_MEMBER_MENTIONS = {"@&": "@role", "#": "#channel"}
MENTION = re.compile(r"<(?P<sign>@[!&]?|#)(?P<id>[0-9]+)>")


def assign_pseudonyms(
    members: Iterable[SourceSpeaker], key: bytes, barred: Collection[str] = ()
) -> dict[str, str]:
    """Assign a unique pseudonym to each speaker id; on a collision the next free name is taken.

    `barred` are case-folded words that cannot be pseudonyms because people have these names.
    """
    pseudonyms: dict[str, str] = {}
    used: set[str] = set()
    for member in members:
        if member.id in pseudonyms:
            continue
        candidates = _candidates(_hmac_index(key, member.id, len(INVENTED_NAMES)), barred)
        pseudonyms[member.id] = next(name for name in candidates if name not in used)
        used.add(pseudonyms[member.id])
    return pseudonyms


def non_speaker_pseudonym(name: str, key: bytes, barred: Collection[str] = ()) -> str:
    """Return a pseudonym for a person who does not speak in the log.

    Each word is replaced by itself, so that a part of a name becomes the same part of its
    pseudonym.
    """
    words = TOKEN.findall(name)
    whole = [word for word in words if len(word) > 1] or words or [name]
    named = [whole[0], whole[-1]] if len(whole) > 1 else whole
    pseudonyms = []
    for word in named:
        start = _hmac_index(key, f"name:{fold_diacritics(word)}", len(INVENTED_NAMES))
        pseudonyms.append(next(_candidates(start, barred)))
    return " ".join(pseudonyms)


def keyed_index(key: bytes, kind: str, value: str, count: int) -> int:
    """Derive a number below `count` from a value of a kind; stable under one key."""
    return _hmac_index(key, f"{kind}\0{value}", count)


def _hmac_index(key: bytes, purpose: str, count: int) -> int:
    digest = hmac.digest(key, purpose.encode("utf-8", "surrogatepass"), "sha256")
    return int.from_bytes(digest[:8], "big") % count


def _candidates(start: int, barred: Collection[str]) -> Iterator[str]:
    """Yield the names from `start` on; after all of them, again with a number appended."""
    free = 0
    for step in itertools.count():
        round_ = step // len(INVENTED_NAMES)
        name = INVENTED_NAMES[(start + step) % len(INVENTED_NAMES)]
        if name.casefold() not in barred:
            free += 1
            yield f"{name}{round_ + 1}" if round_ else name
        elif round_ and not free:
            # All pseudonyms are names of people.
            yield f"{name}{round_ + 1}"


def surrogate_for(kind: EntityKind, value: str, key: bytes, members: dict[str, str]) -> str:
    """Return the replacement of a value of any kind but PERSON. `members` are pseudonyms by Discord
    id.
    """
    if kind in PLACEHOLDERS:
        return PLACEHOLDERS[kind]
    if kind == "DISCORD_ID":
        return _surrogate_id(value, members)
    value = value.casefold()
    if kind == "PHONE_NUMBER":
        digits = re.sub("[^0-9]", "", value)
        area = PHONE_AREA_CODES[keyed_index(key, "area", digits, len(PHONE_AREA_CODES))]
        return f"{area}-555-01{keyed_index(key, kind, digits, 100):02}"
    if kind == "IP_ADDRESS":
        return _surrogate_ip(value, key)
    first_name = INVENTED_NAMES[keyed_index(key, kind, value, len(INVENTED_NAMES))].lower()
    name = f"{first_name}{keyed_index(key, 'number', value, 900) + 100}"
    if kind == "EMAIL_ADDRESS":
        return f"{name}@{EXAMPLE_DOMAINS[keyed_index(key, 'domain', value, len(EXAMPLE_DOMAINS))]}"
    return f"@{name}" if value.startswith("@") else name


def _surrogate_id(value: str, members: dict[str, str]) -> str:
    mention = MENTION.fullmatch(value)
    if not mention:
        return "[id]"
    return NON_MEMBER_MENTIONS.get(mention["sign"]) or members.get(mention["id"], UNKNOWN_MEMBER)


def _surrogate_ip(value: str, key: bytes) -> str:
    # Addresses that are reserved for documentation (RFC 3849 and 5737), and nobody's.
    if ":" in value:
        return f"2001:db8::{keyed_index(key, 'ipv6', value, 0xFFFF) + 1:x}"
    prefix = EXAMPLE_IPV4_PREFIXES[keyed_index(key, "net", value, 3)]
    return f"{prefix}.{keyed_index(key, 'ipv4', value, 254) + 1}"


def is_surrogate(value: str) -> bool:
    """Return True if a value has the form of a replacement, as found in anonymised text."""
    return SURROGATE_FORMAT.fullmatch(value.casefold()) is not None
