"""What a new version is compared with when it has been trained: the live one, and the personas of the same server.

And, once members have heard it, what they made of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from bot.house import House
from bot.judging.heard import heard
from bot.personas import Personas
from bot.store import Comparison, Job, Store
from personas.adapters import adapter_ref
from personas.compare import NOTHING, Compare, Neighbour, write_compare

log = logging.getLogger(__name__)


def to_compare(home: Path, store: Store, personas: Personas, job: Job) -> Compare:
    """The live version of the job's persona, and of every other persona that its server sees; none for dialogue."""
    if job.persona is None:
        return NOTHING
    live = store.versions.live(job.persona)
    found = [
        _neighbour(home, store, persona_id) for persona_id in personas.of(job.guild_id) if persona_id != job.persona
    ]
    return Compare(
        live=str(adapter_ref(home, job.persona, live).folder) if live else None,
        neighbours=tuple(it for it in found if it),
    )


async def note_vote(house: House, vote: Comparison) -> None:
    """After a blind vote, note what members have made of both versions."""
    for version in vote.versions:
        await note_heard(house, vote.persona_id, version)


async def note_heard(house: House, persona_id: str, version: str) -> None:
    """Write what members have made of a version until now into the folder of the job that made it.

    There `python -m trainer evaluate` finds it. Nothing is written for the live version, nor where the folder is gone.
    """
    job_id = house.store.versions.job_of(persona_id, version)
    job = house.store.jobs.get(job_id) if job_id else None
    if job and (found := await heard(house.store, persona_id, version, time.time())):
        compare = to_compare(house.home, house.store, house.conversations.personas, job)
        await _note(house.home / "jobs" / job.job_id, compare.model_copy(update={"heard": found}))


async def _note(folder: Path, compare: Compare) -> None:
    try:
        await asyncio.to_thread(_write_where_it_was, folder, compare)
    except OSError as error:  # the votes are in the store, and are noted with the next
        log.warning("what members made of a version could not be noted in %s: %s", folder, error)


def _write_where_it_was(folder: Path, compare: Compare) -> None:
    if folder.is_dir():
        write_compare(folder, compare)


def _neighbour(home: Path, store: Store, persona_id: str) -> Neighbour | None:
    """A persona's live version and the job that made it; None where it speaks without one."""
    live = store.versions.live(persona_id)
    job_id = store.versions.job_of(persona_id, live) if live else None
    if not (live and job_id):
        return None
    adapter = adapter_ref(home, persona_id, live).folder
    return Neighbour(persona=persona_id, adapter=str(adapter), job=str(home / "jobs" / job_id))
