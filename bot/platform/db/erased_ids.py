"""The ids that replace those of erased members where what a server has decided still holds for them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from personas.home.pseudonyms import HomeKey, keyed_person

HEX_DIGITS = 15
"""Hexadecimal digits of a keyed person in such an id: SQLite stores 63 bits and a sign."""


@dataclass(frozen=True)
class ErasedIds:
    """Pseudonymises members by the key of a home: somebody who comes back is recognised, and nobody
    can tell from the id who it was.
    """

    home: Path

    @cached_property
    def _key(self) -> bytes:
        return HomeKey.of(self.home).people()

    def of(self, user_id: int) -> int:
        """Return the id of a member once they are erased; it is below 0, as no id of Discord's is.
        Raises `KeyFileError` or `OSError`.
        """
        person = keyed_person(self._key, str(user_id))
        return -1 - int(person[:HEX_DIGITS], 16)
