"""Where the web server listens, and the key to it: how the settings' texts are read, and that they go together."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

LOOPBACK = "127.0.0.1"
MIN_TOKEN, MIN_LETTERS = 24, 8
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?")
HOST_ALLOWED = "an address of this machine, such as 127.0.0.1, 0.0.0.0 (all of IPv4) or ::1"
TOKEN_ALLOWED = f"at least {MIN_TOKEN} letters, digits and signs, {MIN_LETTERS} different ones, without spaces"
NAMES_ALLOWED = "host names with commas between them, such as bot.example.org"


def host(text: str) -> str:
    """An address to listen on. Raises `ValueError`."""
    return LOOPBACK if text.casefold() == "localhost" else str(ipaddress.ip_address(text.strip("[]")))


def token(text: str) -> str:
    """A token that nobody guesses. Raises `ValueError`."""
    printable = text.isascii() and text.isprintable() and " " not in text
    if not printable or len(text) < MIN_TOKEN or len(set(text)) < MIN_LETTERS:
        raise ValueError
    return text


def names(text: str) -> tuple[str, ...]:
    """Host names, without what stands around them. Raises `ValueError`."""
    found = tuple(name.strip().casefold().rstrip(".") for name in text.split(","))
    if not all(NAME.fullmatch(name) for name in found):
        raise ValueError
    return found


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(address).is_loopback


def missing_key(values: Mapping[str, object]) -> tuple[str, str] | None:
    """What is wrong, and what to do, where others reach the server without a token; None where all is well."""
    address = str(values.get("web_host", LOOPBACK))
    if is_loopback(address) or values.get("web_token"):
        return None
    return (
        f"WEB_HOST is {address}, which other machines reach, and there is no WEB_TOKEN.",
        "Set one, such as `python -c 'import secrets; print(secrets.token_urlsafe(32))'` makes; or leave WEB_HOST out.",
    )
