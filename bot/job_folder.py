"""A bot's job folder, `<home>/jobs/<job id>/` (`personas.job_folder`), and where what the trainer leaves in it goes.

The adapter's place is under `<home>/models/`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bot.store import Job
from personas.adapters import adapter_ref, install, verify
from personas.base_model import Precision
from personas.compare import NOTHING, Compare, write_compare
from personas.contracts import Manifest
from personas.errors import AdapterError
from personas.job_folder import ADAPTER, keep_new_held_out, require_folder
from personas.job_folder import REQUEST as REQUEST
from personas.job_material import SourceMaterial
from personas.job_material import dialogue_place as dialogue_place


def write_job_folder(
    home: Path, job: Job, materials: Iterable[SourceMaterial], precision: Precision, compare: Compare = NOTHING
) -> Path:
    """Write the folder of a job; one that an earlier attempt wrote is used again, under today's consent, with what has
    been held out until today, and compared with what is live today.

    Raises `OSError`, and `UnderstudyError` when the home's key, consent or what it holds out cannot be read.
    """
    folder = home / "jobs" / job.job_id
    require_folder(folder, home, job.job_id, job.version, job.request, materials, precision)
    write_compare(folder, compare)
    return folder


def keep_job_held_out(home: Path, job: Job, folder: Path) -> None:
    """Add what a finished run has held out to what the home keeps; doing so again changes nothing.

    Raises `UnderstudyError` when either cannot be read, and `OSError`.
    """
    keep_new_held_out(home, job.persona, folder)


def install_adapter(home: Path, job: Job, folder: Path) -> tuple[Path, Manifest]:
    """Put a finished job's adapter in its place and give that place; doing so again changes nothing.

    Raises `AdapterError` when the adapter is damaged or another job's, `OSError` when it cannot be copied.
    """
    made = verify(folder / ADAPTER)
    if (made.job_id, made.version, made.persona) != (job.job_id, job.version, job.persona):
        raise AdapterError(f"The adapter in {folder} is not of this job but of {made.job_id}.", "Train it again.")
    place = adapter_place(home, job)
    return place, install(folder / ADAPTER, place)


def adapter_place(home: Path, job: Job) -> Path:
    """Where the adapter of a job belongs: with its persona's versions, or under a dialogue job's name."""
    if job.persona:
        return adapter_ref(home, job.persona, job.version).folder
    return dialogue_place(home, job.request.job_name)
