"""A training job's folder, as the trainer takes it: `request.json` and copies of the material.

With them go the keys of its pseudonyms (`personas.job_keys`), who has allowed what (`personas.consent`), and what has
been held out until now (`personas.heldout`), which a run adds to. So it can be run anywhere, and again.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from personas.adapters import written_aside
from personas.base_model import Precision
from personas.consent import read_consent, write_consent
from personas.contracts import JobSpec, Material, TrainingRequest
from personas.heldout import HELD_OUT_FILE, NEW_HELD_OUT_FILE, HeldOut, held_out_file, keep_held_out
from personas.job_keys import JobKeys, dataset_name
from personas.job_material import SourceMaterial
from personas.keys import KEY_FILE, HomeKey
from personas.material import material_digest
from personas.people import read_people, write_people
from personas.preferences import read_preferences

REQUEST, MATERIAL, ADAPTER = "request.json", "material", "adapter"


def require_folder(
    folder: Path,
    home: Path,
    job_id: str,
    version: str,
    request: TrainingRequest,
    materials: Iterable[SourceMaterial],
    precision: Precision,
) -> Path:
    """Write a job's folder, whole or not at all; one that an earlier attempt wrote is used again, as of today.

    Raises `OSError`, and `UnderstudyError` when the home's key, consent or what it holds out cannot be read.
    """
    if (folder / REQUEST).exists():
        bring_up_to_date(folder, home, request)
        return folder
    for left_over in folder.parent.glob(f".{folder.name}.*"):  # of a process that was killed while copying
        shutil.rmtree(left_over)
    with written_aside(folder) as aside:
        fill_folder(aside, home, job_id, version, request, materials, precision)
    return folder


def fill_folder(
    folder: Path,
    home: Path,
    job_id: str,
    version: str,
    request: TrainingRequest,
    materials: Iterable[SourceMaterial],
    precision: Precision,
) -> JobSpec:
    """Write what a job's folder holds into one that is there and empty. Raises `OSError` or `UnderstudyError`."""
    copied = tuple(_copy(material, folder / MATERIAL) for material in materials)
    if people := people_brought(folder, copied):
        write_people(folder, people)  # until a run lists all of them
    spec = JobSpec(job_id=job_id, version=version, request=request, materials=copied, serving_precision=precision)
    JobKeys.of(home, dataset_name(request)).write(folder)
    bring_up_to_date(folder, home, request)
    (folder / REQUEST).write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return spec


def people_brought(folder: Path, materials: Iterable[Material]) -> Mapping[str, int]:
    """Who is in a job's material by no name or id that a search would find: those who gave preferences, and whom an
    adapter has learned from that the job goes on with. Raises `MaterialError` where their lists cannot be read.
    """
    people: Counter[str] = Counter()
    for one in materials:
        place = folder / MATERIAL / one.path
        if one.kind == "preferences":
            people.update(given.by for given in read_preferences(place))
        elif one.kind == "adapter":
            people.update(read_people(place))
    return people


def bring_up_to_date(folder: Path, home: Path, request: TrainingRequest) -> None:
    """Today's consent, and what has been held out until today. Raises `OSError` or `UnderstudyError`."""
    write_consent(folder, read_consent(home))
    file = held_out_file(home, request.persona)
    if file.exists():
        HeldOut.read(file, HomeKey.of(home).people()).write(folder / HELD_OUT_FILE)


def keep_new_held_out(home: Path, persona_id: str | None, folder: Path) -> None:
    """Add what a finished run has held out to what the home keeps; doing so again changes nothing.

    Raises `UnderstudyError` when either cannot be read, and `OSError`.
    """
    file = folder / NEW_HELD_OUT_FILE
    if file.exists():  # not where an earlier program trained
        people_key = HomeKey.of(home).people()
        keep_held_out(home, persona_id, HeldOut.read(file, people_key), people_key)


def keep_at_home(folder: Path, home: Path) -> None:
    """The same for a folder that the home itself has made, as its key tells. Raises as `keep_new_held_out`."""
    if (home / KEY_FILE).exists() and HomeKey.of(home).people() == JobKeys.in_folder(folder).people:
        spec = JobSpec.model_validate_json((folder / REQUEST).read_bytes())
        keep_new_held_out(home, spec.request.persona, folder)


def _leading_out(root: Path) -> Callable[[str, list[str]], list[str]]:
    """What of a folder is not copied: links that lead out of it."""
    inside = root.resolve()

    def ignored(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if not Path(folder, name).resolve().is_relative_to(inside)]

    return ignored


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
