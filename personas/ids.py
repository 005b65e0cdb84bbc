"""Ids of new personas, lore sets and jobs, made from their names.

An id is no identity: two names may read alike in ASCII ("Lân" and "Lan"), so whatever is new gets
an id that nothing else has.
"""

import hashlib
import itertools
import re
from collections.abc import Callable

from anyascii import anyascii

MAX_ID_CHARS = 64
NON_ID_CHARS = re.compile(r"[^a-z0-9]+")


def readable_id(name: str, most: int = MAX_ID_CHARS) -> str:
    """Transliterate a name of any script to at most so many of a-z, 0-9 and "-"; a digest of the
    name where nothing can be read of it.
    """
    plain = anyascii(name).lower()
    readable = NON_ID_CHARS.sub("-", plain).strip("-")[:most].rstrip("-")
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()
    return readable or f"id-{digest[:8]}"


def free_id(name: str, is_taken: Callable[[str], bool], most: int = MAX_ID_CHARS) -> str:
    """Return the readable id of something new, with a number behind it where that is taken."""
    return first_free(readable_id(name, most), is_taken, most)


def first_free(wanted: str, is_taken: Callable[[str], bool], most: int = MAX_ID_CHARS) -> str:
    """Return a wanted name, with a number behind it where that is taken."""
    if not is_taken(wanted):
        return wanted
    for number in itertools.count(2):
        suffix = f"-{number}"
        numbered = wanted[: most - len(suffix)].rstrip("-") + suffix
        if not is_taken(numbered):
            return numbered
    raise AssertionError("there is always a next number")
