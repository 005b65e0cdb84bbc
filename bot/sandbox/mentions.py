"""Who a message mentions. Source: Discord's documentation of the allowed-mentions object."""

import re
from dataclasses import dataclass

from bot.sandbox.errors import Json

EVERYTHING = ("users", "roles", "everyone")


@dataclass(frozen=True)
class Mentions:
    """Ids in the order of the text, and whether everyone is."""

    users: tuple[str, ...]
    roles: tuple[str, ...]
    everyone: bool


def find(content: str, allowed: Json | None, replied_to: str | None) -> Mentions:
    """What of `content` pings, by the message's allowed_mentions (None: all of it, and who is replied to)."""
    rule: Json = {"parse": EVERYTHING, "replied_user": True} if allowed is None else allowed
    parse = rule.get("parse") or ()
    users = _named(r"<@!?(\d+)>", content, rule, parse, "users")
    if replied_to is not None and rule.get("replied_user"):
        users = [*users, replied_to]
    everyone = "everyone" in parse and re.search(r"@(everyone|here)\b", content) is not None
    roles = _named(r"<@&(\d+)>", content, rule, parse, "roles")
    return Mentions(tuple(dict.fromkeys(users)), tuple(dict.fromkeys(roles)), everyone)


def _named(pattern: str, content: str, rule: Json, parse: object, kind: str) -> list[str]:
    listed = {str(one) for one in rule.get(kind) or ()}
    whole = isinstance(parse, list | tuple) and kind in parse
    return [found for found in re.findall(pattern, content) if whole or found in listed]
