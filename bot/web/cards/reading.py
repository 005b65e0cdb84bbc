"""Score cards as they lie in adapters' folders: found by persona and version, read, and what lies beside them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bot.house import House
from bot.job_folder import dialogue_place
from bot.store import Job
from bot.web.frame import HOME
from bot.web.problems import Problem
from personas.adapters import adapter_ref
from personas.contracts import ScoreCard
from personas.explain import explain
from personas.scorecard import FullScoreCard

CARDS = f"{HOME}/cards"
DIALOGUE = "dialogue"
FILES = {
    "scorecard.json": "the card for programs",
    "scorecard.md": "the card as text",
    "scorecard.html": "the card as a page of its own",
    "scorecard.png": "the card as a picture",
    "rubric.md": "a sheet to score replies on",
    "rubric.csv": "the same for a spreadsheet",
    "rubric-key.json": "whose replies they are",
}
"""What may be taken along, in the adapter's folder or in its `report/`."""
MOST_DIALOGUES = 100


@dataclass(frozen=True)
class Place:
    """Where a version lies. `persona` is None for an adapter of dialogue, whose name `version` then is."""

    persona: str | None
    version: str
    folder: Path

    @property
    def name(self) -> str:
        """For people, and for addresses: `oda/v2`, `dialogue/harbour`."""
        return f"{self.persona or DIALOGUE}/{self.version}"

    @property
    def path(self) -> str:
        """The page of its card."""
        return f"{CARDS}/{self.name}"

    def file(self, name: str) -> Path | None:
        """One of `FILES`, where it is there."""
        if name not in FILES:
            return None
        found = (place / name for place in (self.folder, self.folder / "report"))
        return next((file for file in found if file.is_file()), None)


def place_named(house: House, name: str) -> Place:
    """The place of `oda/v2` or `dialogue/harbour`. Raises `Problem` for one that is not there."""
    owner, _, version = name.partition("/")
    if version in {one.version for one in house.store.versions.ever_installed(owner)}:
        return Place(owner, version, adapter_ref(house.home, owner, version).folder)
    if owner == DIALOGUE and version in {job.request.job_name for job in dialogues(house)}:
        return Place(None, version, dialogue_place(house.home, version))
    raise Problem("not-found", f"There is no version {name}.", "The list of score cards has all of them.")


def dialogues(house: House) -> list[Job]:
    """The finished jobs for dialogue, newest first."""
    names = [name for name in house.store.jobs.names() if name.startswith(f"{DIALOGUE}/")]
    found = [job for name in names for job in house.store.jobs.page(1, name=name, state="done")]
    return sorted(found, key=lambda job: -job.seq)[:MOST_DIALOGUES]


def short_card(house: House, place: Place) -> ScoreCard | None:
    """What the database knows of a version's card."""
    if place.persona:
        found = house.store.versions.ever_installed(place.persona)
        return next((one.scorecard for one in found if one.version == place.version), None)
    made = (job for job in dialogues(house) if job.request.job_name == place.version)
    return next((job.result.scorecard for job in made if job.result), None)


async def full_card(place: Place) -> FullScoreCard | None:
    """The whole card; None where there is none. Raises `Problem` for one that cannot be read."""
    return await asyncio.to_thread(_read, place)


def _read(place: Place) -> FullScoreCard | None:
    file = place.file("scorecard.json")
    if file is None:
        return None
    try:
        return FullScoreCard.model_validate_json(file.read_bytes())
    except OSError as error:
        raise Problem("failed", f"The card of {place.name} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        again = "Make it anew: `python -m trainer evaluate --adapter …`."
        raise Problem("failed", f"The card of {place.name} is damaged: {explain(error).message}", again) from error
