"""Collects the comparison of a trained version: the live version, the guild's other personas, members' votes."""

import asyncio
import logging
import time
from pathlib import Path

from bot.personas.registry import PersonaRegistry
from bot.store import BlindComparison, Store, StoreError, TrainingJob
from bot.versions.rollout.rollout_metrics import publish_votes, summarise_votes
from personas.home.adapters import adapter_ref
from personas.home.job_folder import NO_COMPARISON, ComparisonTargets, NeighbourPaths, write_comparison_targets

log = logging.getLogger(__name__)


def comparison_context(home: Path, store: Store, personas: PersonaRegistry, job: TrainingJob) -> ComparisonTargets:
    """The live versions of the job's persona and of its server's other personas; none for dialogue jobs."""
    if job.persona is None:
        return NO_COMPARISON
    live = store.versions.live(job.persona)
    others = (persona_id for persona_id in personas.of(job.guild_id) if persona_id != job.persona)
    neighbours = (_neighbour(home, store, persona_id) for persona_id in others)
    folder = str(adapter_ref(home, job.persona, live).folder) if live else None
    return ComparisonTargets(live=folder, neighbours=tuple(it for it in neighbours if it))


async def record_vote(home: Path, store: Store, personas: PersonaRegistry, vote: BlindComparison) -> None:
    """After a blind vote, store the members' feedback on both versions for the gate."""
    share_votes(store, vote.persona_id, *vote.versions, vote.guild_id)
    for version in vote.versions:
        await record_member_feedback(home, store, personas, vote.persona_id, version)


def share_votes(store: Store, persona_id: str, version: str, against: str, guild_id: int) -> None:
    """Publish a guild's votes for the other processes of a bot with shards, if the shared database can be reached."""
    try:
        publish_votes(store, persona_id, version, against, guild_id)
    except StoreError as error:  # they are here, and are published with the next one, or at the next start
        log.warning("votes on %s of %s could not be shared: %s", version, persona_id, error)


async def record_member_feedback(
    home: Path, store: Store, personas: PersonaRegistry, persona_id: str, version: str
) -> None:
    """Write the members' feedback on a version into its job folder, if that exists, for `trainer evaluate`."""
    job_id = store.versions.job_of(persona_id, version)
    job = store.jobs.get(job_id) if job_id else None
    if job and (feedback := await summarise_votes(store, persona_id, version, time.time())):
        folder = home / "jobs" / job.job_id
        targets = comparison_context(home, store, personas, job).model_copy(update={"heard": feedback})
        try:
            await asyncio.to_thread(_write_if_folder_exists, folder, targets)
        except OSError as error:  # the votes are in the store, and are written with the next one
            log.warning("the member feedback on a version could not be written to %s: %s", folder, error)


def _write_if_folder_exists(folder: Path, compare: ComparisonTargets) -> None:
    if folder.is_dir():
        write_comparison_targets(folder, compare)


def _neighbour(home: Path, store: Store, persona_id: str) -> NeighbourPaths | None:
    """A persona's live version and its job; None for the base model."""
    live = store.versions.live(persona_id)
    job_id = store.versions.job_of(persona_id, live) if live else None
    if not (live and job_id):
        return None
    adapter = adapter_ref(home, persona_id, live).folder
    return NeighbourPaths(persona=persona_id, adapter=str(adapter), job=str(home / "jobs" / job_id))
