"""Noting what leaves: files made of people's words and handed out, which nobody can take back (`personas.exports`)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from personas.errors import MaterialError
from personas.exports import EVERYBODY, note_export
from personas.people import read_people
from trainer.home import home


def note_left(what: Literal["data set", "adapter"], made_of: Path, out: Path) -> None:
    """List an export in the home if people are in what it was made of. Raises `OSError`."""
    people: Collection[str]
    try:
        people = read_people(made_of).keys()
    except MaterialError:  # nobody can say who is in it
        people = (EVERYBODY,)
    if people:
        note_export(home(), what, out if out.is_file() else str(out.absolute()), people)
