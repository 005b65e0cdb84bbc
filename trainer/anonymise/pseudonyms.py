"""Pseudonyms: which name stands for whom, by HMAC-SHA-256 of a person's id under the data set's key.

Without the key nobody can tell who is who, and with another key everybody has another name: two data sets cannot be
joined by them. With the key, a person whose id or name is known can be found: pseudonyms are not anonymity.
"""

from __future__ import annotations

import hmac
import itertools
from collections.abc import Collection, Iterable, Iterator

from personas.invented_names import NAMES
from trainer.anonymise.written import TOKEN, folded
from trainer.conversation import Speaker


def assign(members: Iterable[Speaker], key: bytes, barred: Collection[str] = ()) -> dict[str, str]:
    """Speaker id to pseudonym, no two alike. A speaker that finds its name taken moves on to the next free one.

    `barred` are words, casefolded, that are no pseudonyms here, because somebody is called so.
    """
    pseudonyms: dict[str, str] = {}
    taken: set[str] = set()
    for member in members:
        if member.id in pseudonyms:
            continue
        candidates = _candidates(_drawn(key, member.id, len(NAMES)), barred)
        pseudonyms[member.id] = next(name for name in candidates if name not in taken)
        taken.add(pseudonyms[member.id])
    return pseudonyms


def stranger(name: str, key: bytes, barred: Collection[str] = ()) -> str:
    """What stands for somebody who does not speak in the log: word for word, first and last, so that a part of a name
    is the same part of its pseudonym."""
    words = TOKEN.findall(name)
    whole = [word for word in words if len(word) > 1] or words or [name]
    named = [whole[0], whole[-1]] if len(whole) > 1 else whole
    return " ".join(next(_candidates(_drawn(key, f"name:{folded(word)}", len(NAMES)), barred)) for word in named)


def drawn_from(key: bytes, kind: str, value: str, count: int) -> int:
    """A number below `count` that belongs to a value of a kind: the same each time under one key."""
    return _drawn(key, f"{kind}\0{value}", count)


def _drawn(key: bytes, what: str, count: int) -> int:
    return int.from_bytes(hmac.digest(key, what.encode("utf-8", "surrogatepass"), "sha256")[:8], "big") % count


def _candidates(start: int, barred: Collection[str]) -> Iterator[str]:
    """The names from `start` on; when all have been offered, again with a number behind each."""
    free = 0
    for step in itertools.count():
        round_, name = step // len(NAMES), NAMES[(start + step) % len(NAMES)]
        if name.casefold() not in barred:
            free += 1
            yield name + (str(round_ + 1) if round_ else "")
        elif round_ and not free:  # everybody is called like a pseudonym
            yield f"{name}{round_ + 1}"
