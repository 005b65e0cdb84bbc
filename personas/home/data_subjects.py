"""Data subjects: people in a folder (`people.json`) and consent (`consent.json`)."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from personas.errors import MaterialError
from personas.home.atomic_files import read_model, write_model
from personas.schemas.base import FrozenModel

PEOPLE_FILE = "people.json"
CONSENT_FILE = "consent.json"


class DataSubjects(FrozenModel):
    """Content of `people.json`: for each person, the number of samples in which they speak or are named."""

    format: Literal[1] = 1
    people: Mapping[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")], Annotated[int, Field(ge=0)]]


def write_people(folder: Path, counts: Mapping[str, int]) -> None:
    """Write the list into a folder; `counts` maps keyed people to samples. Raises `OSError`."""
    people = DataSubjects(people=dict(sorted(counts.items())))
    (folder / PEOPLE_FILE).write_text(people.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_people(folder: Path) -> Mapping[str, int]:
    """Read the people in a folder; empty without a list. Raises `MaterialError` if it cannot be read."""
    listed = read_model(folder / PEOPLE_FILE, DataSubjects, "Create the folder again.")
    return listed.people if listed else {}


def contains_any_person(folder: Path, people: Collection[str]) -> bool:
    """Return True if one of these keyed people is in a folder, or if its list cannot be read."""
    try:
        return not read_people(folder).keys().isdisjoint(people)
    except MaterialError:
        return True


class Consent(FrozenModel):
    """Consent to train on Discord messages: Discord's permission as the operator states it, and members' ids."""

    format: Literal[1] = 1
    permission: str = ""
    opted_in: frozenset[str] = frozenset()


NO_CONSENT = Consent()


def write_consent(folder: Path, consent: Consent) -> None:
    """Write the file, readable by its owner only. Raises `OSError`."""
    write_model(folder / CONSENT_FILE, consent)


def read_consent(folder: Path) -> Consent:
    """Read the consent; none without a file. Raises `MaterialError` if it cannot be read."""
    advice = "The bot writes it again when it starts; until then nobody has consented."
    return read_model(folder / CONSENT_FILE, Consent, advice) or NO_CONSENT
