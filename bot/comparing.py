"""What a new version is compared with when it has been trained: the live one, and the personas of the same server."""

from __future__ import annotations

from pathlib import Path

from bot.personas import Personas
from bot.store import Job, Store
from personas.adapters import adapter_ref
from personas.compare import NOTHING, Compare, Neighbour


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


def _neighbour(home: Path, store: Store, persona_id: str) -> Neighbour | None:
    """A persona's live version and the job that made it; None where it speaks without one."""
    live = store.versions.live(persona_id)
    job_id = store.versions.job_of(persona_id, live) if live else None
    if not (live and job_id):
        return None
    adapter = adapter_ref(home, persona_id, live).folder
    return Neighbour(persona=persona_id, adapter=str(adapter), job=str(home / "jobs" / job_id))
