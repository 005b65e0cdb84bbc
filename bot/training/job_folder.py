"""Writes a training job's folder and installs the adapter that the trainer leaves in it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bot.store import TrainingJob
from personas.errors import AdapterError
from personas.home.adapters import adapter_ref, install_adapter_folder, verify_adapter
from personas.home.job_folder import (
    ADAPTER_FOLDER,
    NO_COMPARISON,
    ComparisonTargets,
    ensure_job_folder,
    store_new_holdout,
    write_comparison_targets,
)
from personas.home.job_material import SourceMaterial, dialogue_adapter_folder
from personas.schemas.training import AdapterManifest, ServingPrecision


def write_job_folder(
    home: Path,
    job: TrainingJob,
    materials: Iterable[SourceMaterial],
    precision: ServingPrecision,
    compare: ComparisonTargets = NO_COMPARISON,
) -> Path:
    """Write the folder of a job; one that an earlier attempt wrote is used again, under today's consent, with what has
    been held out until today, and compared with what is live today.

    Raises `OSError`, and `UnderstudyError` when the home's key, consent or what it holds out cannot be read.
    """
    folder = home / "jobs" / job.job_id
    ensure_job_folder(folder, home, job.job_id, job.version, job.request, materials, precision)
    write_comparison_targets(folder, compare)
    return folder


def save_job_holdout(home: Path, job: TrainingJob, folder: Path) -> None:
    """Add what a finished run has held out to what the home keeps; doing so again changes nothing.

    Raises `UnderstudyError` when either cannot be read, and `OSError`.
    """
    store_new_holdout(home, job.persona, folder)


def install_adapter(home: Path, job: TrainingJob, folder: Path) -> tuple[Path, AdapterManifest]:
    """Put a finished job's adapter in its place and give that place; doing so again changes nothing.

    Raises `AdapterError` when the adapter is damaged or another job's, `OSError` when it cannot be copied.
    """
    made = verify_adapter(folder / ADAPTER_FOLDER)
    if (made.job_id, made.version, made.persona) != (job.job_id, job.version, job.persona):
        raise AdapterError(f"The adapter in {folder} is not of this job but of {made.job_id}.", "Train it again.")
    place = adapter_path(home, job)
    return place, install_adapter_folder(folder / ADAPTER_FOLDER, place)


def adapter_path(home: Path, job: TrainingJob) -> Path:
    """Folder of a job's adapter: with its persona's versions, or under a dialogue job's name."""
    if job.persona:
        return adapter_ref(home, job.persona, job.version).folder
    return dialogue_adapter_folder(home, job.request.job_name)
