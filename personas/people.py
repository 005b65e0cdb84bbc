"""Who is in a folder: `people.json`, in data sets, job folders and adapters.

It lists people as `personas.keys.keyed` makes them of their ids and names, so that a home can find whom it must forget
and nobody else can tell who they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from personas.errors import MaterialError

PEOPLE_FILE = "people.json"


class People(BaseModel):
    """`people.json`: for each person, in how many samples they speak or are named."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    people: Mapping[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")], Annotated[int, Field(ge=0)]]


def write_people(folder: Path, counts: Mapping[str, int]) -> None:
    """Write the list into a folder; `counts` maps keyed people to samples. Raises `OSError`."""
    people = People(people=dict(sorted(counts.items())))
    (folder / PEOPLE_FILE).write_text(people.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_people(folder: Path) -> Mapping[str, int]:
    """Who is in a folder; nobody where there is no list. Raises `MaterialError` when it cannot be read."""
    try:
        return People.model_validate_json((folder / PEOPLE_FILE).read_bytes()).people
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        raise MaterialError(f"{folder / PEOPLE_FILE} cannot be read.", "Make the folder anew.") from error


def holds_any(folder: Path, people: Collection[str]) -> bool:
    """Whether one of these keyed people is in a folder. A list that cannot be read may name anybody: True."""
    try:
        return not read_people(folder).keys().isdisjoint(people)
    except MaterialError:
        return True
