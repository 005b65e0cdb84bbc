"""A job's folder, `<home>/jobs/<job id>/`, as the trainer takes it: `request.json` and copies of the material.

With them go the keys of its pseudonyms (`personas.job_keys`), who has allowed what (`personas.consent`), and what has
been held out until now (`personas.heldout`), which a run adds to.
The folder appears whole or not at all. What the trainer leaves in it is put in its place under `<home>/models/`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from bot.catalogue import SourceMaterial
from bot.store import Job
from personas.adapters import adapter_ref, install, verify, written_aside
from personas.base_model import Precision
from personas.consent import read_consent, write_consent
from personas.contracts import JobSpec, Manifest, Material, TrainingRequest
from personas.errors import AdapterError
from personas.heldout import HELD_OUT_FILE, NEW_HELD_OUT_FILE, HeldOut, held_out_file, keep_held_out
from personas.job_keys import JobKeys, dataset_name
from personas.keys import HomeKey
from personas.material import material_digest

REQUEST = "request.json"
MATERIAL = "material"
ADAPTER = "adapter"


def write_job_folder(home: Path, job: Job, materials: Iterable[SourceMaterial], precision: Precision) -> Path:
    """Write the folder of a job; one that an earlier attempt wrote is used again, under today's consent and
    with what has been held out until today.

    Raises `OSError`, and `UnderstudyError` when the home's key, consent or what it holds out cannot be read.
    """
    folder = home / "jobs" / job.job_id
    if (folder / REQUEST).exists():
        write_consent(folder, read_consent(home))
        _write_held_out(folder, home, job.request)
        return folder
    for left_over in folder.parent.glob(f".{job.job_id}.*"):  # of a bot that was killed while copying
        shutil.rmtree(left_over)
    with written_aside(folder) as aside:
        fill_folder(aside, home, job.job_id, job.version, job.request, materials, precision)
    return folder


def fill_folder(
    folder: Path,
    home: Path,
    job_id: str,
    version: str,
    request: TrainingRequest,
    materials: Iterable[SourceMaterial],
    precision: Precision,
) -> None:
    """Write what a job's folder holds into one that is there and empty. Raises `OSError` or `UnderstudyError`."""
    copied = tuple(_copy(material, folder / MATERIAL) for material in materials)
    spec = JobSpec(job_id=job_id, version=version, request=request, materials=copied, serving_precision=precision)
    JobKeys.of(home, dataset_name(request)).write(folder)
    write_consent(folder, read_consent(home))
    _write_held_out(folder, home, request)
    (folder / REQUEST).write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")


def keep_job_held_out(home: Path, job: Job, folder: Path) -> None:
    """Add what a finished run has held out to what the home keeps; doing so again changes nothing.

    Raises `UnderstudyError` when either cannot be read, and `OSError`.
    """
    file = folder / NEW_HELD_OUT_FILE
    if file.exists():  # not where an earlier program trained
        people_key = HomeKey.of(home).people()
        keep_held_out(home, job.persona, HeldOut.read(file, people_key), people_key)


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


def dialogue_place(home: Path, job_name: str) -> Path:
    """Where the adapter of a dialogue job of this name belongs."""
    return home / "models" / "dialogue" / job_name


def _leading_out(root: Path) -> Callable[[str, list[str]], list[str]]:
    """What of a folder is not copied: links that lead out of it."""
    inside = root.resolve()

    def ignored(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if not Path(folder, name).resolve().is_relative_to(inside)]

    return ignored


def _write_held_out(folder: Path, home: Path, request: TrainingRequest) -> None:
    file = held_out_file(home, request.persona)
    if file.exists():
        HeldOut.read(file, HomeKey.of(home).people()).write(folder / HELD_OUT_FILE)


def _copy(material: SourceMaterial, target: Path) -> Material:
    if material.text:
        place = target / material.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(material.text, encoding="utf-8")
    for source, name in material.copies:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, ignore=_leading_out(source))
        else:
            shutil.copyfile(source, place)
    return material.copied(material_digest(target / material.path))
