"""A trained version that comes inside a character card: verified, put among the persona's versions, not live."""

from __future__ import annotations

import asyncio
import re
import secrets
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from bot.house import House
from bot.store import Job, JobResult
from bot.store.jobs import NewJob
from personas.adapters import MANIFEST, adapter_ref, install
from personas.base_model import fingerprint, locate
from personas.card import Card
from personas.carried import carries_adapter, require_harmless, unpack_carried
from personas.contracts import Manifest, ScoreCard, TrainingRequest
from personas.errors import AdapterError, BaseModelError

JOB_NAME = "imported"
SHOWN = 80
RECIPE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

AskedIn = tuple[int, int, int]
"""Guild, channel and moderator."""


async def install_carried(
    house: House, asked_in: AskedIn, persona_id: str, card: Card, where: str
) -> tuple[list[str], Job | None]:
    """Install the adapter that a card carries as the persona's next version.

    Gives what to say, nothing for a card without one, and the job that stands for it where it was installed. One that
    cannot be used here stays in the card, and it is said why.
    """
    if not carries_adapter(card):
        return [], None

    def place_of(version: str) -> Path:
        return adapter_ref(house.home, persona_id, version).folder

    with tempfile.TemporaryDirectory(prefix="understudy-card-") as aside:
        try:
            manifest = await asyncio.to_thread(_unpacked, card, Path(aside), where, house.base_model)
        except (AdapterError, BaseModelError) as error:
            return [f"The adapter in the card stays in it, and is not installed: {error}"], None
        here = {one.version: place_of(one.version) for one in house.store.versions.installed(persona_id)}
        if version := await asyncio.to_thread(_same, here, manifest):
            return [f"The adapter in the card is here already: it is {version}."], None
        version = house.store.versions.reserve(persona_id)
        place = place_of(version)
        await asyncio.to_thread(install, Path(aside), place)
    new = NewJob(secrets.token_hex(5), *asked_in, _request(house, persona_id, manifest))
    result = JobResult(adapter=str(place), seconds=0.0, scorecard=_unjudged(manifest), imported=True)
    job = house.store.jobs.add_imported(new, version, result, time.time())
    return [f"The adapter in the card is its version {version}: **Promote** lets it speak."], job


def _unpacked(card: Card, aside: Path, where: str, served: str) -> Manifest:
    manifest = unpack_carried(card, aside, where)
    require_harmless(aside, manifest)
    if manifest.base_model_hash != fingerprint(locate(served, fetch=False)):
        made_for = re.sub(r"[^\w./@:-]", "", manifest.base_model)[:SHOWN]
        raise AdapterError(f"It was made for another base model ({made_for}) than this bot serves.")
    return manifest


def _same(here: Mapping[str, Path], manifest: Manifest) -> str | None:
    """The version that is this very adapter, among those that are here."""
    for version, folder in here.items():
        try:
            if Manifest.model_validate_json((folder / MANIFEST).read_bytes()).checksums == manifest.checksums:
                return version
        except (OSError, ValidationError):  # a damaged one is found when it is to speak
            continue
    return None


def _unjudged(manifest: Manifest) -> ScoreCard:
    """Its maker's losses without its maker's verdict: this house's gate has not seen it."""
    return manifest.metrics.model_copy(update={"verdict": "", "reasons": (), "advice": ()})


def _request(house: House, persona_id: str, manifest: Manifest) -> TrainingRequest:
    """What the row in the store says was asked for: who, over which base model, and how it was trained."""
    request = TrainingRequest(job_name=JOB_NAME, base_model=house.base_model, persona=persona_id)
    if not RECIPE_NAME.fullmatch(manifest.recipe):  # another program's
        return request
    return TrainingRequest.model_validate({**request.model_dump(exclude_unset=True), "recipe": manifest.recipe})
