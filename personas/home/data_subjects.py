"""Data subjects: who is in a folder (`people.json`) and who consented (`consent.json`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from personas.errors import MaterialError
from personas.home.atomic_files import write_private_file
from personas.schemas.base import FrozenModel

PEOPLE_FILE = "people.json"
CONSENT_FILE = "consent.json"


class DataSubjects(FrozenModel):
    """`people.json`: for each person, in how many samples they speak or are named."""

    format: Literal[1] = 1
    people: Mapping[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")], Annotated[int, Field(ge=0)]]


def write_people(folder: Path, counts: Mapping[str, int]) -> None:
    """Write the list into a folder; `counts` maps keyed people to samples. Raises `OSError`."""
    people = DataSubjects(people=dict(sorted(counts.items())))
    (folder / PEOPLE_FILE).write_text(people.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_people(folder: Path) -> Mapping[str, int]:
    """Who is in a folder; nobody where there is no list. Raises `MaterialError` when it cannot be read."""
    try:
        return DataSubjects.model_validate_json((folder / PEOPLE_FILE).read_bytes()).people
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        raise MaterialError(f"{folder / PEOPLE_FILE} cannot be read.", "Make the folder anew.") from error


def contains_any_person(folder: Path, people: Collection[str]) -> bool:
    """Whether one of these keyed people is in a folder. A list that cannot be read may name anybody: True."""
    try:
        return not read_people(folder).keys().isdisjoint(people)
    except MaterialError:
        return True


class Consent(FrozenModel):
    """`permission` is where and when Discord gave its permission to train, as the operator states it; empty without.

    `opted_in` are the Discord ids of the members who agreed that what they write is trained on.
    """

    format: Literal[1] = 1
    permission: str = ""
    opted_in: frozenset[str] = frozenset()


NO_CONSENT = Consent()


def write_consent(folder: Path, consent: Consent) -> None:
    """Put the file in place, readable by its owner only. Raises `OSError`."""
    write_private_file(folder / CONSENT_FILE, consent.model_dump_json(indent=1).encode() + b"\n")


def read_consent(folder: Path) -> Consent:
    """What is allowed; nothing where there is no file. Raises `MaterialError` when it cannot be read."""
    try:
        return Consent.model_validate_json((folder / CONSENT_FILE).read_bytes())
    except FileNotFoundError:
        return NO_CONSENT
    except (OSError, ValidationError) as error:
        raise MaterialError(
            f"{folder / CONSENT_FILE} cannot be read.",
            "The bot writes it anew when it starts; until then nobody counts.",
        ) from error
